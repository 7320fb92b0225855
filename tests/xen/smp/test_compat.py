"""32-bit code: a vcpu gets there by iret or its first state, stays there through turns; what is refused."""

from struct import pack

import pytest

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.vcpu import VcpuGuestContext, VcpuOp, Vgcf
from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_RING3_CS32, FLAT_RING3_SS64, PTE_USER, Vector
from xdbg.machine.registers import RAX, RCX, RSI, RSP
from xdbg.xen.faults import DomainCrash
from xdbg.xen.hypercall import call
from xdbg.xen.sched import SLICE_NS
from xdbg.xen.vcpu import TBF_EXCEPTION, TrapGate

from .conftest import CODE, COUNT, DATA, L2, L3, L4, LOOP, READ_ONLY, STACKS, Smp

COUNT_32 = bytes.fromhex("40ebfd")  # inc %eax; jmp to it. In 64-bit code it would be a jump with a prefix.
OUTS_16 = bytes.fromhex("6766 6f")  # addr16 outsw
FLAT_CODE_64, FLAT_CODE_16 = 0x00AF_FB00_0000_FFFF, 0x008F_FB00_0000_FFFF
SMALL_CODE, HIGH_CODE = 0x0040_FB00_0000_FFFF, 0x00CF_FB00_1000_FFFF
FLAT_CODE_32, FLAT_DATA_32 = 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF
GDT = (0, FLAT_CODE_32, FLAT_DATA_32, FLAT_CODE_64, FLAT_CODE_16, SMALL_CODE, HIGH_CODE)
OWN_CS32, OWN_SS, OWN_CS64, CS16, CS_SMALL, CS_HIGH = (8 * entry | 3 for entry in range(1, 7))


def low(smp: Smp, pfn: int) -> int:
    """A second address of a page, below 4 GiB."""
    if not smp.entry(L4, 0):
        flags = PTE_USER | 3
        assert smp.mmu_update((smp.slot(L3, 0), smp.pte(L2, flags)), (smp.slot(L4, 0), smp.pte(L3, flags))) == 0
    return pfn * 4096


def own_gdt(smp: Smp) -> None:
    """Give vcpu 0 the descriptors of `GDT`."""
    smp.write(DATA, pack(f"<{len(GDT)}Q", *GDT))
    assert smp.call(Hypercall.UPDATE_VA_MAPPING, smp.va(DATA), smp.pte(DATA, READ_ONLY), 0) == 0
    frames = smp.write(0, smp.mfn(DATA).to_bytes(8, "little"))
    assert smp.call(Hypercall.SET_GDT, frames, len(GDT)) == 0


def iret(smp: Smp, rip: int, cs: int, ss: int = FLAT_RING3_SS64, flags: int = 0) -> None:
    """The hypercall, in kernel mode, with this frame."""
    smp.hv.cpu.gpr[RSP] = smp.write(STACKS, pack("<9Q", 1, 2, 3, flags, rip, cs & ~3, 0x202, 0x8000, ss))
    smp.vcpu.trap_bounce.flags = 0
    assert call(smp.vcpu, Hypercall.IRET, (0,) * 6) is None


@pytest.mark.parametrize(
    ("cs", "ss"), [(FLAT_RING3_CS32, FLAT_RING3_SS64), (OWN_CS32, OWN_SS), (OWN_CS32, FLAT_RING3_SS64)]
)
def test_iret_to_32_bit_code_runs_32_bit_code(smp: Smp, cs: int, ss: int) -> None:
    own_gdt(smp)
    rip = low(smp, CODE)
    smp.write(CODE, COUNT_32)
    iret(smp, rip, cs, ss)
    hv, cpu = smp.hv, smp.hv.cpu
    assert (cpu.is_64bit, cpu.cs, cpu.ss, cpu.rip, smp.vcpu.trap_bounce.flags) == (False, cs, ss, rip, 0)
    hv.handle(smp.vcpu, hv.enter(smp.vcpu, cpu.count + 20))
    assert cpu.gpr[RAX] == 1 + 10
    iret(smp, smp.write(CODE, COUNT), FLAT_KERNEL_CS64)
    assert cpu.is_64bit
    hv.handle(smp.vcpu, hv.enter(smp.vcpu, cpu.count + 20))
    assert cpu.gpr[RAX] == 1 + 10


def test_with_vgcf_in_syscall_only_the_flat_32_bit_segment_is_32_bit_code(smp: Smp) -> None:
    """By `sysretl`, which takes 32 bits of the address."""
    own_gdt(smp)
    cpu = smp.hv.cpu
    iret(smp, 0x7_0000_1000, FLAT_RING3_CS32, OWN_SS, Vgcf.IN_SYSCALL)
    assert (cpu.is_64bit, cpu.rip, cpu.gpr[RCX], cpu.cs, cpu.ss) == (
        *(False, 0x1000, 0x7_0000_1000),
        *(FLAT_RING3_CS32, FLAT_RING3_SS64),
    )
    iret(smp, 0x7_0000_1000, OWN_CS32, OWN_SS, Vgcf.IN_SYSCALL)
    assert (cpu.is_64bit, cpu.rip, cpu.cs) == (True, 0x7_0000_1000, FLAT_KERNEL_CS64)


@pytest.mark.parametrize(
    ("rip", "cs", "ss", "error"),
    [
        (1 << 32, FLAT_RING3_CS32, FLAT_RING3_SS64, 0),
        (1 << 32, OWN_CS64, FLAT_RING3_SS64, None),
        (0x1000, OWN_CS32, 0, 0),
        (0x1000, OWN_CS32, OWN_CS32, OWN_CS32 & ~3),
        (0x1000, 0x7B, OWN_SS, 0x78),
        (0x1000, OWN_SS, OWN_SS, OWN_SS & ~3),
    ],
)
def test_what_iret_refuses_is_a_general_protection_fault(
    smp: Smp, rip: int, cs: int, ss: int, error: int | None
) -> None:
    own_gdt(smp)
    iret(smp, rip, cs, ss)
    bounce = smp.vcpu.trap_bounce
    assert bool(bounce.flags & TBF_EXCEPTION) is (error is not None)
    if error is not None:
        assert (bounce.vector, bounce.error_code) == (Vector.GP, error)


@pytest.mark.parametrize("cs", [CS16, CS_SMALL, CS_HIGH])
def test_other_code_segments_end_the_domain_and_say_so(smp: Smp, cs: int) -> None:
    own_gdt(smp)
    with pytest.raises(
        DomainCrash, match=f"return to code segment {cs:#x}, which is neither of 64 bits nor flat and of 32"
    ):
        iret(smp, 0x1000, cs, OWN_SS)


def test_a_guest_that_jumps_to_another_code_segment_ends_and_says_so(smp: Smp) -> None:
    own_gdt(smp)
    jump = bytes.fromhex("ea") + pack("<IH", 0x1000, CS16)
    smp.write(CODE, jump)
    iret(smp, low(smp, CODE), FLAT_RING3_CS32)
    hv = smp.hv
    hv.handle(smp.vcpu, hv.enter(smp.vcpu, hv.cpu.count + 20))
    assert smp.domain.shutdown_reason == "a code segment that is neither of 64 bits nor flat and of 32 at 0x1000"


def compat_context(smp: Smp, number: int, code: bytes) -> VcpuGuestContext:
    context = smp.context(number, code)
    context.user_regs.rip = low(smp, CODE + number)
    context.user_regs.cs = FLAT_RING3_CS32
    context.user_regs.ds = context.user_regs.es = FLAT_RING3_SS64
    return context


def test_vcpus_in_32_bit_and_in_64_bit_code_take_turns(smp: Smp) -> None:
    assert smp.op(VcpuOp.INITIALISE, 1, compat_context(smp, 1, COUNT_32)) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    hv = smp.hv
    hv.run(hv.cpu.count + 10 * SLICE_NS)
    contexts = [vcpu.context for vcpu in smp.domain.vcpus]
    counted = [hv.cpu.gpr[RAX] if context is None else context.gpr["rax"] for context in contexts[:2]]
    assert all(abs(count - 5 * SLICE_NS // 2) <= SLICE_NS // 2 + 2 for count in counted), counted


def test_a_failsafe_frame_has_the_32_bit_selector_and_its_handler_is_64_bit_code(smp: Smp) -> None:
    context = compat_context(smp, 1, LOOP)
    context.user_regs.fs = 0x1B
    context.failsafe_callback_eip = smp.write(DATA + 1, LOOP)
    assert smp.op(VcpuOp.INITIALISE, 1, context) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    assert smp.hv.schedule() is smp.domain.vcpus[1]
    cpu = smp.hv.cpu
    assert (cpu.is_64bit, cpu.cs, cpu.rip) == (True, FLAT_KERNEL_CS64, context.failsafe_callback_eip)
    frame = smp.hv.ram.read(smp.mfn(STACKS + 1) * 4096 + 4096 - 88, 88)
    assert int.from_bytes(frame[56:60], "little") == FLAT_RING3_CS32 & ~3


def test_ports_from_32_bit_code_take_addresses_of_16_bits(smp: Smp) -> None:
    smp.write(CODE, OUTS_16)
    iret(smp, low(smp, CODE), FLAT_RING3_CS32)
    hv, cpu = smp.hv, smp.hv.cpu
    smp.vcpu.iopl = 1
    cpu.ds = FLAT_RING3_SS64
    cpu.gpr[RSI] = 0x12_FFFE
    smp.write(15, b"\0" * 4096)
    hv.handle(smp.vcpu, hv.enter(smp.vcpu, cpu.count + 4))
    assert (cpu.gpr[RSI], cpu.rip) == (0x12_0000, low(smp, CODE) + 3)


def test_int_0x80_without_a_handler_is_a_general_protection_fault_at_it(smp: Smp) -> None:
    smp.vcpu.trap_table[Vector.GP] = TrapGate(Vector.GP, 0, False, FLAT_KERNEL_CS64, smp.write(DATA + 1, LOOP))
    smp.write(CODE, bytes.fromhex("cd80"))
    rip = low(smp, CODE)
    iret(smp, rip, FLAT_RING3_CS32)
    smp.hv.cpu.gpr[RSP] = low(smp, STACKS) + 4096
    smp.hv.handle(smp.vcpu, smp.hv.enter(smp.vcpu, smp.hv.cpu.count + 1))
    frame = smp.hv.ram.read(smp.mfn(STACKS) * 4096 + 4096 - 64, 64)
    words = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, 64, 8)]
    assert (words[2], words[3], words[4] & 0xFFFF) == (0x402, rip, FLAT_RING3_CS32 & ~3)
    assert smp.hv.cpu.is_64bit
