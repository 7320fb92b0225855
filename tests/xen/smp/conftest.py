"""A domain with several vcpus on a real machine: page tables, descriptors, registers and turns are the real ones.

Its pages are laid out as in tests/xen/mm: pfn N is at VIRT_BASE + N * 4096, pfns 4 to 7 are the tables, CODE and the
pages behind it hold what the vcpus execute, one page each; STACKS are their kernel stacks.
"""

from collections.abc import Callable
from typing import Any

import pytest

from xdbg.abi.frames import PAGE_SHIFT, Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.shared_info import SharedInfo
from xdbg.abi.vcpu import VcpuGuestContext, VcpuOp, Vgcf
from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, PTE_PRESENT, PTE_USER
from xdbg.machine.registers import RSP
from xdbg.xen.audit import audit
from xdbg.xen.hypercall import call
from xdbg.xen.mm import adopt_initial_tables
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu

from ..mm import conftest as paged  # noqa: TID252 - test folders have no absolute name

L4, L3, L2, L1 = 4, 5, 6, 7
DATA, CODE, STACKS = 8, 16, 32
NR_PAGES = 64
READ_ONLY = PTE_PRESENT | PTE_USER
LOOP = bytes.fromhex("ebfe")  # jmp .
COUNT = bytes.fromhex("48ffc0ebfb")  # inc %rax; jmp to it
SYSCALL = bytes.fromhex("0f05")


class Smp(paged.PagedGuest):
    """The domain, and what its kernel would do to start vcpus."""

    def context(self, number: int, code: bytes = COUNT) -> VcpuGuestContext:
        """The state of a vcpu that will execute `code`, in kernel mode, with its own stack."""
        context = VcpuGuestContext()
        context.flags = int(Vgcf.IN_KERNEL)
        context.user_regs.rip = self.write(CODE + number, code)
        context.user_regs.rsp = context.kernel_sp = self.va(STACKS + number) + 4096
        context.user_regs.cs = FLAT_KERNEL_CS64
        context.user_regs.ss = context.kernel_ss = FLAT_KERNEL_SS64
        context.user_regs.rflags = 0x202
        context.ctrlreg[3] = self.mfn(L4) << PAGE_SHIFT
        return context

    def op(self, cmd: int, number: int, argument: Any = b"", caller: int = 0) -> int:
        """The result of a vcpu_op; its argument is put into the first pages."""
        raw = argument if isinstance(argument, bytes) else argument.to_bytes()
        at = self.write(0, raw[:4096])
        self.write(1, raw[4096:])
        result = call(self.domain.vcpus[caller], Hypercall.VCPU_OP, (cmd, number, at, 0xDEAD, 0xDEAD, 0xDEAD))
        assert result is not None
        return result

    def start(self, number: int, code: bytes = COUNT) -> Vcpu:
        """A vcpu that is up and about to execute `code`."""
        assert self.op(VcpuOp.INITIALISE, number, self.context(number, code)) == 0
        assert self.op(VcpuOp.UP, number) == 0
        return self.domain.vcpus[number]

    def shared_unmask(self, port: int) -> None:
        """Clear a port's mask bit, as a guest does when nothing is pending."""
        SharedInfo.at(self.hv.ram, self.domain.shared_info_maddr).evtchn_mask[0] &= ~(1 << port)

    def refs(self, pfn: int) -> tuple[int, int]:
        """References and type of a frame."""
        info = self.hv.page_info
        return info.refs[self.mfn(pfn)], info.types[self.mfn(pfn)]

    def audit(self) -> None:
        """Recount everything."""
        audit(self.hv)


def make_domain(hv: Hypervisor, nr_vcpus: int) -> Smp:
    """A domain whose vcpu 0 executes COUNT."""
    domain = hv.create_domain("smp", NR_PAGES, nr_vcpus)
    base = hv.heap.alloc(domain.domid, NR_PAGES)
    domain.nr_pages = NR_PAGES
    hv.m2p.set_range(base, Pfn(0), NR_PAGES)
    guest = Smp(hv, domain, base)
    guest.write_entries(L4, {511: guest.pte(L3)})
    guest.write_entries(L3, {510: guest.pte(L2)})
    guest.write_entries(L2, {0: guest.pte(L1)})
    guest.write_entries(L1, {pfn: guest.pte(pfn, READ_ONLY if L4 <= pfn <= L1 else 7) for pfn in range(NR_PAGES)})
    adopt_initial_tables(domain, Mfn(guest.mfn(L4)))
    cpu = hv.cpu
    others = cpu.save()
    cpu.load(hv.reset_state)
    cpu.rip = guest.write(CODE, COUNT)
    cpu.gpr[RSP] = guest.va(STACKS) + 4096
    cpu.rflags = 0x202
    cpu.cs, cpu.ss = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
    guest.vcpu.context = cpu.save()
    cpu.load(others)
    for number in range(nr_vcpus):
        hv.ram.buffer[domain.vcpus[number].vcpu_info + 1] = 1
    guest.vcpu.is_initialised = guest.vcpu.is_up = True
    return guest


@pytest.fixture
def smp() -> Smp:
    """A domain with four vcpus, alone on its machine; vcpu 0 has run."""
    hv = Hypervisor(2 * NR_PAGES + 64)
    guest = make_domain(hv, 4)
    hv.schedule()
    return guest


@pytest.fixture
def another(smp: Smp) -> Callable[[int], Smp]:
    """Makes a second domain with so many vcpus on the machine of `smp`."""
    return lambda nr_vcpus: make_domain(smp.hv, nr_vcpus)
