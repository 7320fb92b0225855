"""VCPUOP_initialise: what a context must be, what a vcpu then is, and that a refusal changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.vcpu import Runstate, VcpuGuestContext, VcpuOp, VcpuRegisterVcpuInfo, VcpuRunstateInfo, Vgcf
from xdbg.abi.x86 import DR6_DEFAULT, DR7_DEFAULT, Cr0, Cr4, Rflags, Vector
from xdbg.abi.x86_descriptors import SegmentDescriptor
from xdbg.machine.registers import GPR_NAMES, RAX, RBX, RSP
from xdbg.xen.hypercall import call
from xdbg.xen.vcpu import CR4_VISIBLE, TrapGate

from .conftest import DATA, L1, L4, LOOP, READ_ONLY, STACKS, Smp

NON_CANONICAL = 1 << 47
XEN_ADDRESS = 0xFFFF_8000_0000_0000


def initialise(smp: Smp, context: VcpuGuestContext, number: int = 1) -> int:
    return smp.op(VcpuOp.INITIALISE, number, context)


def set_register(name: str, value: int) -> Callable[[Any], None]:
    return lambda context: setattr(context.user_regs, name, value)


def set_field(name: str, value: int) -> Callable[[Any], None]:
    return lambda context: setattr(context, name, value)


def set_word(name: str, index: int, value: int) -> Callable[[Any], None]:
    def change(context: Any) -> None:
        getattr(context, name)[index] = value

    return change


def set_gate(context: Any) -> None:
    context.trap_ctxt[77].address = NON_CANONICAL


def no_user_table(context: Any) -> None:
    context.flags = 0


FLAWS: dict[str, Callable[[Any], None]] = {
    **{f"{name} not canonical": set_register(name, NON_CANONICAL) for name in ("rip", "rsp")},
    **{
        f"{name} not canonical": set_field(name, NON_CANONICAL)
        for name in (
            "kernel_sp",
            "fs_base",
            "gs_base_kernel",
            "gs_base_user",
            "event_callback_eip",
            "failsafe_callback_eip",
            "syscall_callback_eip",
        )
    },
    "a handler not canonical": set_gate,
    "ldt in Xen's range": set_field("ldt_base", XEN_ADDRESS),
    "ldt not aligned": set_field("ldt_base", 0x1008),
    "ldt too long": set_field("ldt_ents", 8193),
    "gdt too long": set_field("gdt_ents", 14 * 512 + 1),
    "a breakpoint in Xen's range": set_word("debugreg", 2, XEN_ADDRESS),
    "dr6 too large": set_word("debugreg", 6, 1 << 32),
    "dr7 too large": set_word("debugreg", 7, 1 << 32),
    "user mode without a table": no_user_table,
    "no table": set_word("ctrlreg", 3, 0),
    "a table that is none": set_word("ctrlreg", 3, XEN_ADDRESS),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_context_that_can_not_be_is_refused_and_nothing_has_changed(smp: Smp, flaw: str) -> None:
    context = smp.context(1)
    FLAWS[flaw](context)
    before = smp.refs(L4)
    assert initialise(smp, context) == -Errno.EINVAL
    vcpu = smp.domain.vcpus[1]
    assert (vcpu.is_initialised, vcpu.is_up, vcpu.context) == (False, False, smp.hv.reset_state)
    assert smp.refs(L4) == before
    assert smp.op(VcpuOp.UP, 1) == -Errno.EINVAL
    smp.audit()
    assert initialise(smp, smp.context(1)) == 0
    smp.audit()


def a_table_that_is_an_l1(smp: Smp, context: Any) -> None:
    context.ctrlreg[3] = smp.mfn(L1) << PAGE_SHIFT


def a_user_table_that_is_an_l1(smp: Smp, context: Any) -> None:
    context.ctrlreg[1] = smp.mfn(L1) << PAGE_SHIFT


def a_gdt_frame_that_is_mapped_writable(smp: Smp, context: Any) -> None:
    context.gdt_ents = 8
    context.gdt_frames[0] = smp.mfn(DATA)


def a_gdt_frame_of_nobody(smp: Smp, context: Any) -> None:
    context.ctrlreg[1] = context.ctrlreg[3]
    context.gdt_ents = 8
    context.gdt_frames[0] = 1 << 40


@pytest.mark.parametrize(
    "spoil",
    [
        a_table_that_is_an_l1,
        a_user_table_that_is_an_l1,
        a_gdt_frame_that_is_mapped_writable,
        a_gdt_frame_of_nobody,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_was_taken_is_given_back_when_something_later_is_refused(smp: Smp, spoil: Any) -> None:
    context = smp.context(1)
    spoil(smp, context)
    before = [smp.refs(pfn) for pfn in (L4, L1, DATA)]
    assert initialise(smp, context) == -Errno.EINVAL
    assert [smp.refs(pfn) for pfn in (L4, L1, DATA)] == before
    assert not smp.domain.vcpus[1].is_initialised
    smp.audit()


def test_a_vcpu_is_initialised_once(smp: Smp) -> None:
    assert initialise(smp, smp.context(0), 0) == -Errno.EEXIST
    assert initialise(smp, smp.context(1)) == 0
    assert initialise(smp, smp.context(1)) == -Errno.EEXIST
    assert initialise(smp, smp.context(1), 4) == -Errno.ENOENT
    missing = call(smp.vcpu, Hypercall.VCPU_OP, (VcpuOp.INITIALISE, 2, smp.va(100), 0, 0, 0))
    assert missing == -Errno.EFAULT


def test_a_vcpu_that_was_never_initialised_can_be_asked_but_not_taken_up(smp: Smp) -> None:
    assert smp.op(VcpuOp.IS_UP, 3) == 0
    assert smp.op(VcpuOp.UP, 3) == -Errno.EINVAL
    assert smp.op(VcpuOp.DOWN, 3) == 0
    assert smp.op(VcpuOp.GET_RUNSTATE_INFO, 3) == 0
    state = VcpuRunstateInfo.from_bytes(smp.hv.ram.read(smp.mfn(0) * 4096, VcpuRunstateInfo.SIZE))
    assert state.state == Runstate.OFFLINE
    assert smp.op(VcpuOp.REGISTER_VCPU_INFO, 3, VcpuRegisterVcpuInfo(mfn=smp.mfn(DATA))) == 0
    assert smp.domain.vcpus[3].vcpu_info == smp.mfn(DATA) * 4096
    smp.audit()


def test_the_areas_of_a_vcpu_without_a_page_table_are_found_by_the_callers(smp: Smp) -> None:
    for cmd in (VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA):
        smp.write(DATA, b"\xff" * 48)
        assert smp.op(cmd, 2, smp.va(DATA).to_bytes(8, "little")) == 0
        assert smp.hv.ram.read(smp.mfn(DATA) * 4096, 8) != b"\xff" * 8


def test_it_begins_with_the_registers_of_its_context(smp: Smp) -> None:
    context = smp.context(1, LOOP)
    regs = context.user_regs
    for number, name in enumerate(GPR_NAMES):
        if name != "rsp":
            setattr(regs, name, 0x1111_1111 * (number + 1))
    regs.rflags = 0x3_0000 | Rflags.IOPL | Rflags.CF | Rflags.VM
    context.fs_base, context.gs_base_kernel, context.gs_base_user = 0x1000, 0x2000, 0x3000
    context.flags |= Vgcf.I387_VALID
    context.fpu_ctxt[0:2] = (0x1234).to_bytes(2, "little")
    context.fpu_ctxt[24:28] = (0x1FA0).to_bytes(4, "little")
    context.ctrlreg[0] = Cr0.TS
    context.ctrlreg[4] = Cr4.TSD | Cr4.VMXE
    mine = smp.hv.cpu.save()
    assert initialise(smp, context) == 0
    assert smp.hv.cpu.save() == mine, "the caller keeps its own"
    vcpu = smp.domain.vcpus[1]
    assert not vcpu.is_up
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    assert smp.hv.schedule() is vcpu
    cpu = smp.hv.cpu
    for number, name in enumerate(GPR_NAMES):
        assert cpu.gpr[number] == getattr(regs, name), name
    assert cpu.rip == regs.rip
    assert cpu.rflags == Rflags.CF | Rflags.IF | Rflags.FIXED | 0x1_0000
    assert (cpu.fs_base, cpu.gs_base, vcpu.gs_base_user) == (0x1000, 0x2000, 0x3000)
    assert cpu.read_fpu()[:2] == (0x1234).to_bytes(2, "little")
    assert (cpu.cr0_ts, bool(vcpu.cr0 & Cr0.TS), vcpu.iopl) == (True, True, 3)
    assert (vcpu.cr4, cpu.rdtsc_allowed) == (CR4_VISIBLE | Cr4.TSD, False)
    assert cpu.cr3 == smp.mfn(L4) << PAGE_SHIFT
    smp.audit()


def test_entry_points_debug_registers_and_stack_are_those_of_its_context(smp: Smp) -> None:
    context = smp.context(1)
    context.flags |= Vgcf.SYSCALL_DISABLES_EVENTS
    context.event_callback_eip, context.failsafe_callback_eip, context.syscall_callback_eip = 0x10, 0x20, 0x30
    gate = context.trap_ctxt[3]
    gate.vector, gate.flags, gate.cs, gate.address = 99, 3 | 4, 0x10, 0x5000
    context.debugreg[0], context.debugreg[4], context.debugreg[7] = 0x7777, 1, 1 << 13
    context.kernel_ss = 0x18
    assert initialise(smp, context) == 0
    vcpu = smp.domain.vcpus[1]
    assert vcpu.trap_table[3] == TrapGate(3, 3, True, 0x13, 0x5000)
    assert vcpu.trap_table[99] is None
    assert vcpu.event_callback.address == 0x10
    assert (vcpu.failsafe_callback.address, vcpu.failsafe_callback.masks_events) == (0x20, False)
    assert (vcpu.syscall_callback.address, vcpu.syscall_callback.masks_events) == (0x30, True)
    assert vcpu.debugreg == [0x7777, 0, 0, 0, 0, 0, DR6_DEFAULT, DR7_DEFAULT], "DR7.GD is refused"
    assert (vcpu.kernel_ss, vcpu.kernel_sp) == (0x1B, smp.va(STACKS + 1) + 4096)


def test_a_vcpu_may_be_online_at_once(smp: Smp) -> None:
    context = smp.context(1)
    context.flags |= Vgcf.ONLINE
    assert initialise(smp, context) == 0
    assert smp.op(VcpuOp.IS_UP, 1) == 1


def test_a_vcpu_may_begin_in_user_mode(smp: Smp) -> None:
    context = smp.context(1, LOOP)
    context.flags = 0
    context.ctrlreg[1] = context.ctrlreg[3]
    context.gs_base_kernel, context.gs_base_user = 0x2000, 0x3000
    before = smp.refs(L4)[0]
    assert initialise(smp, context) == 0
    assert smp.refs(L4)[0] == before + 2
    smp.audit()
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    vcpu = smp.hv.schedule()
    assert vcpu is smp.domain.vcpus[1]
    assert (vcpu.kernel_mode, smp.hv.cpu.gs_base, vcpu.gs_base_kernel) == (False, 0x3000, 0x2000)


def test_its_descriptor_tables_are_its_own(smp: Smp) -> None:
    """A GDT frame is taken as descriptors, and a selector of it is loaded with its base ignored for GS."""
    context = smp.context(1, LOOP)
    descriptor = SegmentDescriptor(type=3, dpl=3, base=0x4444, g=True, db=True)
    smp.write(DATA, descriptor.encode().to_bytes(8, "little"), 8)
    assert smp.call(Hypercall.UPDATE_VA_MAPPING, smp.va(DATA), smp.pte(DATA, READ_ONLY), 0) == 0
    context.gdt_ents = 2
    context.gdt_frames[0] = smp.mfn(DATA)
    context.user_regs.ds = context.user_regs.gs = 0x0B
    context.gs_base_kernel = 0x9000
    assert initialise(smp, context) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    assert smp.hv.schedule() is smp.domain.vcpus[1]
    assert (smp.hv.cpu.ds, smp.hv.cpu.gs, smp.hv.cpu.gs_base) == (0x0B, 0x0B, 0x9000)
    smp.audit()


def test_a_selector_that_can_not_be_loaded_is_told_to_the_failsafe_callback(smp: Smp) -> None:
    context = smp.context(1, LOOP)
    context.user_regs.es, context.user_regs.fs = 0x1B, 0x2B
    context.user_regs.rcx, context.user_regs.r11 = 0xC, 0x11
    context.failsafe_callback_eip = context.user_regs.rip
    context.flags |= Vgcf.FAILSAFE_DISABLES_EVENTS
    context.fs_base = 0x1000
    assert initialise(smp, context) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.hv.ram.buffer[smp.domain.vcpus[1].vcpu_info + 1] = 0
    smp.vcpu.blocked = True
    assert smp.hv.schedule() is smp.domain.vcpus[1]
    cpu, sp = smp.hv.cpu, smp.va(STACKS + 1) + 4096 - 88
    assert (cpu.gpr[RSP], cpu.rip, cpu.es, cpu.fs, cpu.fs_base) == (sp, context.failsafe_callback_eip, 0, 0, 0x1000)
    frame = smp.hv.ram.read(smp.mfn(STACKS + 1) * 4096 + 4096 - 88, 88)
    words = [int.from_bytes(frame[i : i + 8], "little") for i in range(0, 88, 8)]
    regs = context.user_regs
    assert words == [0xC, 0x11, 0, 0x1B, 0x2B, 0, regs.rip, 0xE030, 0x202, regs.rsp, 0xE02B]
    assert smp.hv.ram.buffer[smp.domain.vcpus[1].vcpu_info + 1] == 1


def test_code_that_it_can_not_return_to_is_a_general_protection_fault(smp: Smp) -> None:
    context = smp.context(1, LOOP)
    context.user_regs.cs = 0x33
    handler = context.trap_ctxt[Vector.GP]
    handler.cs, handler.address = 0xE033, smp.write(DATA + 1, LOOP)
    assert initialise(smp, context) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    assert smp.hv.schedule() is smp.domain.vcpus[1]
    assert smp.hv.cpu.rip == handler.address
    frame = smp.hv.ram.read(smp.mfn(STACKS + 1) * 4096 + 4096 - 64, 32)
    assert int.from_bytes(frame[16:24], "little") == 0x30, "the selector is the error code"


def test_a_vcpu_goes_on_where_it_went_down(smp: Smp) -> None:
    hv, vcpu = smp.hv, smp.start(1)
    smp.vcpu.blocked = True
    hv.schedule()
    hv.run(hv.cpu.count + 1000)
    rax = hv.cpu.gpr[RAX]
    smp.vcpu.blocked = False
    assert smp.op(VcpuOp.DOWN, 1) == 0
    hv.run(hv.cpu.count + 1000)
    assert hv.current is smp.vcpu
    assert vcpu.context is not None
    assert vcpu.context.gpr["rax"] == rax > 0
    assert smp.op(VcpuOp.UP, 1) == 0
    smp.vcpu.blocked = True
    hv.run(hv.cpu.count + 1000)
    assert hv.current is vcpu
    assert hv.cpu.gpr[RAX] == rax + 500
    assert hv.cpu.gpr[RBX] == 0
