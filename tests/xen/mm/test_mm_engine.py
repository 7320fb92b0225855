"""The rules of memory as the processor sees them: real page tables, a real TLB, real descriptor loads.

A guest of a few instructions runs to its `ud2`; it has no trap table, so that ends it, and the test looks at what is
left.
"""

from collections.abc import Callable
from typing import Any

import pytest

from xdbg.abi.frames import Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.memory import XenMem, XenMemoryExchange, XenMemoryReservation
from xdbg.abi.mmu import DOMID_SELF, MmuextOp
from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, PTE_GLOBAL, PTE_NX, PTE_PRESENT, PTE_RW, PTE_USER, Vector
from xdbg.abi.x86_descriptors import SegmentDescriptor
from xdbg.machine.registers import RAX, RBX, RCX, RDI
from xdbg.xen.audit import audit
from xdbg.xen.events import ExceptionTaken, FaultFixedUp
from xdbg.xen.mm import adopt_initial_tables
from xdbg.xen.setup import Hypervisor, RunEnd

from . import conftest as paged

L4, L3, L2, L1, CODE = 4, 5, 6, 7, 10
READ_ONLY = PTE_PRESENT | PTE_USER
UD2 = bytes.fromhex("0f0b")
STORE = bytes.fromhex("488937")  # mov %rsi,(%rdi)
LOAD = bytes.fromhex("488b1f")  # mov (%rdi),%rbx
SYSCALL = bytes.fromhex("0f05")
_NUMBERS = {"rax": 0, "rdx": 2, "rbx": 3, "rsi": 6, "rdi": 7, "r10": 10}


def load(register: str, value: int) -> bytes:
    """movabs $value, %register"""
    number = _NUMBERS[register]
    return bytes([0x48 | number >> 3, 0xB8 | number & 7]) + (value & (1 << 64) - 1).to_bytes(8, "little")


def hypercall(number: Hypercall, *args: int) -> bytes:
    loads = (load(register, value) for register, value in zip(("rdi", "rsi", "rdx", "r10"), args, strict=False))
    return b"".join(loads) + load("rax", number) + SYSCALL


def operation(command: MmuextOp, arg1: int, arg2: int = 0) -> bytes:
    """struct mmuext_op"""
    return b"".join(word.to_bytes(8, "little") for word in (command, arg1, arg2))


class Machine(paged.PagedGuest):
    """The domain of `conftest` on a real machine."""

    def run(self, code: bytes) -> list[Any]:
        """Execute `code` and `ud2`; the exceptions and repairs on the way, the last being the ud2."""
        seen: list[Any] = []

        class Recorder:
            def observe(self, _vcpu: Any, event: Any) -> None:
                if isinstance(event, ExceptionTaken | FaultFixedUp):
                    seen.append(event)

        self.write(CODE, code + UD2)
        cpu = self.hv.cpu
        cpu.rip = self.va(CODE)
        cpu.rflags = 0x202
        cpu.cs, cpu.ss = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
        self.vcpu.context = cpu.save()
        self.vcpu.is_up = True
        self.hv.observer = Recorder()
        assert self.hv.run(self.hv.cpu.count + 10_000) is RunEnd.SHUT_DOWN
        self.hv.observer = None
        audit(self.hv)
        return seen

    @property
    def gpr(self) -> Any:
        return self.hv.cpu.gpr


@pytest.fixture
def machine() -> Machine:
    hv = Hypervisor(paged.NR_PAGES + 64)
    domain = hv.create_domain("engine", paged.NR_PAGES)
    base = hv.heap.alloc(domain.domid, paged.NR_PAGES)
    domain.nr_pages = paged.NR_PAGES
    hv.m2p.set_range(base, Pfn(0), paged.NR_PAGES)
    guest = Machine(hv, domain, base)
    guest.write_entries(L4, {511: guest.pte(L3)})
    guest.write_entries(L3, {510: guest.pte(L2)})
    guest.write_entries(L2, {0: guest.pte(L1)})
    guest.write_entries(L1, {pfn: guest.pte(pfn, READ_ONLY if L4 <= pfn <= L1 else 7) for pfn in range(paged.NR_PAGES)})
    adopt_initial_tables(domain, Mfn(guest.mfn(L4)))
    domain.vm_assist = 1 << VmasstType.WRITABLE_PAGETABLES
    return guest


def vectors(seen: list[Any]) -> list[int]:
    return [event.vector for event in seen if isinstance(event, ExceptionTaken)]


def test_a_store_to_an_l1_is_repaired_and_the_next_instruction_runs(machine: Machine) -> None:
    entry = machine.va(L1) + 20 * 8
    code = load("rdi", entry) + load("rsi", machine.pte(21)) + STORE + load("rdi", machine.va(20)) + LOAD
    machine.write(21, (0x1234_5678).to_bytes(8, "little"))
    seen = machine.run(code)
    assert vectors(seen) == [Vector.PF, Vector.UD]
    assert isinstance(seen[1], FaultFixedUp)
    assert machine.entry(L1, 20) & ~0x60 == machine.pte(21) | PTE_GLOBAL
    assert machine.gpr[RBX] == 0x1234_5678


def test_a_store_of_a_forbidden_entry_is_the_guests_page_fault(machine: Machine) -> None:
    code = load("rdi", machine.va(L1) + 20 * 8) + load("rsi", machine.pte(L1)) + STORE
    assert vectors(machine.run(code)) == [Vector.PF]
    assert machine.hv.cpu.rip == machine.va(CODE) + len(code) - len(STORE)
    assert machine.entry(L1, 20) & ~0x60 == machine.pte(20) | PTE_GLOBAL


def test_a_translation_that_allowed_writing_is_gone_when_the_page_becomes_a_table(machine: Machine) -> None:
    page = machine.va(20)
    at = machine.write(0, operation(MmuextOp.PIN_L1_TABLE, machine.mfn(20)))
    code = (
        load("rdi", page)
        + load("rsi", 0)
        + STORE  # the TLB knows that the page is writable
        + hypercall(Hypercall.UPDATE_VA_MAPPING, page, machine.pte(20, READ_ONLY), 0)  # and is not told
        + hypercall(Hypercall.MMUEXT_OP, at, 1, 0, DOMID_SELF)
        + load("rdi", page)
        + load("rsi", machine.pte(L4))
        + STORE
    )
    assert vectors(machine.run(code)) == [Vector.PF]
    assert machine.entry(20, 0) == 0


def test_a_frame_that_was_given_away_is_not_reached_by_an_old_translation(machine: Machine) -> None:
    page, frame = machine.va(20), machine.mfn(20)
    machine.write(1, frame.to_bytes(8, "little"))
    at = machine.write(0, XenMemoryReservation(machine.va(1), 1, 0, 0, DOMID_SELF).to_bytes())
    code = (
        load("rdi", page)
        + load("rsi", 1)
        + STORE
        + hypercall(Hypercall.UPDATE_VA_MAPPING, page, 0, 0)
        + hypercall(Hypercall.MEMORY_OP, 1, at)
        + load("rdi", page)
        + STORE
    )
    assert vectors(machine.run(code)) == [Vector.PF]
    assert machine.hv.page_info.owner(frame) is None
    assert machine.gpr[RAX] == 1


def test_a_new_entry_above_l1_is_in_force_without_a_flush_by_the_guest(machine: Machine) -> None:
    machine.write(21, b"old page")
    machine.write(22, b"new page")
    for table, page in ((8, 21), (9, 22)):
        machine.make_read_only(table)
        machine.write_entries(table, {0: machine.pte(page)})
    assert machine.mmu_update((machine.slot(L2, 9), machine.pte(8))) == 0
    address = machine.va(0) + (9 << 21)
    machine.write(1, machine.slot(L2, 9).to_bytes(8, "little") + machine.pte(9).to_bytes(8, "little"))
    code = load("rdi", address) + LOAD + hypercall(Hypercall.MMU_UPDATE, machine.va(1), 1, 0, DOMID_SELF)
    assert vectors(machine.run(code + load("rdi", address) + LOAD)) == [Vector.UD]
    assert int(machine.gpr[RBX]).to_bytes(8, "little") == b"new page"


def _descriptors(machine: Machine) -> bytes:
    machine.write(1, machine.mfn(20).to_bytes(8, "little"))
    return hypercall(Hypercall.SET_GDT, machine.va(1), 512)


def _table_below(machine: Machine) -> bytes:
    machine.write(1, machine.slot(L2, 9).to_bytes(8, "little") + machine.pte(20).to_bytes(8, "little"))
    return hypercall(Hypercall.MMU_UPDATE, machine.va(1), 1, 0, DOMID_SELF)


def _base_pointer(machine: Machine) -> bytes:
    at = machine.write(1, operation(MmuextOp.NEW_USER_BASEPTR, machine.mfn(20)))
    return hypercall(Hypercall.MMUEXT_OP, at, 1, 0, DOMID_SELF)


def _swapped(machine: Machine) -> bytes:
    machine.write(1, machine.mfn(20).to_bytes(8, "little") + (20).to_bytes(8, "little"))
    one = XenMemoryReservation(machine.va(1), 1, 0, 0, DOMID_SELF)
    other = XenMemoryReservation(machine.va(1) + 8, 1, 0, 0, DOMID_SELF)
    at = machine.write(2, XenMemoryExchange(one, other, 0).to_bytes())
    return hypercall(Hypercall.MEMORY_OP, int(XenMem.EXCHANGE), at)


@pytest.mark.parametrize("change", [_descriptors, _table_below, _base_pointer, _swapped])
def test_no_use_of_a_frame_is_reached_by_a_translation_from_before(
    machine: Machine, change: Callable[[Machine], bytes]
) -> None:
    page, frame = machine.va(20), machine.mfn(20)
    code = (
        load("rdi", page)
        + load("rsi", 0)
        + STORE  # the TLB knows that the page is writable
        + hypercall(Hypercall.UPDATE_VA_MAPPING, page, 0, 0)  # and is not told
        + change(machine)
        + load("rdi", page)
        + load("rsi", 0x5555_5555_5555_5555)
        + STORE
    )
    assert vectors(machine.run(code)) == [Vector.PF]
    assert machine.gpr[RAX] == 0
    assert machine.hv.ram.read_u64(frame << 12) == 0


@pytest.mark.parametrize(
    ("flags", "code", "allowed"),
    [
        (READ_ONLY, LOAD, True),
        (READ_ONLY, STORE, False),
        (PTE_PRESENT | PTE_RW, STORE, True),  # Xen adds USER
        (PTE_PRESENT | PTE_RW | PTE_USER | PTE_NX, STORE, True),
        (0, LOAD, False),
    ],
)
def test_the_rights_of_an_entry_are_the_processors(machine: Machine, flags: int, code: bytes, *, allowed: bool) -> None:
    assert machine.map(20, machine.pte(20, flags) if flags else 0) == 0
    seen = machine.run(load("rdi", machine.va(20)) + code)
    assert vectors(seen) == ([Vector.UD] if allowed else [Vector.PF])


@pytest.mark.parametrize(
    ("address", "readable"),
    [
        (0xFFFF_8000_0000_0000, True),  # the M2P
        (0xFFFF_8200_0000_0000, False),  # the domain's own slot: GDT
        (0xFFFF_8100_0000_0000, False),
    ],
)
def test_of_xens_part_only_the_m2p_is_readable_and_nothing_writable(
    machine: Machine, address: int, *, readable: bool
) -> None:
    at = address + machine.mfn(20) * 8 if readable else address
    code = load("rdi", at) + LOAD + STORE
    assert vectors(machine.run(code)) == [Vector.PF]
    assert machine.hv.cpu.rip == machine.va(CODE) + len(code) - (len(STORE) if readable else len(STORE) + len(LOAD))
    assert machine.gpr[RBX] == 20 or not readable


def test_a_selector_of_the_ldt_is_loaded_through_a_page_that_is_mapped_on_demand(machine: Machine) -> None:
    descriptor = SegmentDescriptor(base=machine.va(30) & 0xFFFF_FFFF, type=3, dpl=3, db=True, g=True)
    machine.write(20, descriptor.encode().to_bytes(8, "little"), 8)
    machine.make_read_only(20)
    at = machine.write(0, operation(MmuextOp.SET_LDT, machine.va(20), 512))
    code = (
        hypercall(Hypercall.MMUEXT_OP, at, 1, 0, DOMID_SELF)
        + load("rax", 0xF)
        + bytes.fromhex("8ee0")  # mov %eax,%fs
        + bytes.fromhex("8ce3")  # mov %fs,%ebx
    )
    seen = machine.run(code)
    assert vectors(seen) == [Vector.PF, Vector.UD]
    assert machine.gpr[RBX] == 0xF
    assert machine.hv.cpu.fs_base == machine.va(30) & 0xFFFF_FFFF


def test_a_new_base_pointer_is_in_force_at_once(machine: Machine) -> None:
    machine.make_read_only(8, 9, 11, 12)
    machine.write_entries(8, {511: machine.pte(9)})
    machine.write_entries(9, {510: machine.pte(11)})
    machine.write_entries(11, {0: machine.pte(12)})
    machine.write_entries(12, {CODE: machine.pte(CODE), 20: machine.pte(21)})
    machine.write(20, b"old page")
    machine.write(21, b"new page")
    at = machine.write(0, operation(MmuextOp.NEW_BASEPTR, machine.mfn(8)))
    code = load("rdi", machine.va(20)) + LOAD + hypercall(Hypercall.MMUEXT_OP, at, 1, 0, DOMID_SELF)
    assert vectors(machine.run(code + load("rdi", machine.va(20)) + LOAD)) == [Vector.UD]
    assert int(machine.gpr[RBX]).to_bytes(8, "little") == b"new page"


def test_a_long_hypercall_is_made_again_until_it_is_done(machine: Machine) -> None:
    count = 9000
    request = machine.slot(L1, 60).to_bytes(8, "little") + bytes(8)
    for pfn in range(20, 20 + count * 16 // 4096 + 1):
        machine.write(pfn, request * 256)
    code = hypercall(Hypercall.MMU_UPDATE, machine.va(20), count, machine.va(1), DOMID_SELF)
    assert vectors(machine.run(code)) == [Vector.UD]
    assert machine.gpr[RAX] == 0
    assert machine.hv.ram.read_u32(machine.mfn(1) << 12) == count


def test_a_repeated_store_clears_a_run_of_entries(machine: Machine) -> None:
    code = load("rdi", machine.va(L1) + 40 * 8) + load("rax", 0) + bytes.fromhex("b914000000f348ab")
    seen = machine.run(code)
    assert vectors(seen) == [Vector.PF] * 20 + [Vector.UD]
    assert [machine.entry(L1, 40 + i) for i in range(21)][:20] == [0] * 20
    assert (machine.gpr[RCX], machine.gpr[RDI]) == (0, machine.va(L1) + 60 * 8)
