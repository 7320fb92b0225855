"""The first state of a vcpu that a guest starts itself: VCPUOP_initialise. Xen: arch_set_info_guest(), x86/domain.c.

A guest describes all of the new vcpu in one `struct vcpu_guest_context`: registers, trap table, descriptor tables,
kernel stack, page tables, callbacks. It is checked as a whole first; then the frames of the GDT and the page tables are
taken, each with its type, and given back if one that comes later can't be had. Only then does anything change. The vcpu
stays down until VCPUOP_up, unless VGCF_online says otherwise.

vm_assist counts for vcpu 0 alone, which the builder has started already: here it is ignored.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_MASK, PAGE_SHIFT, Mfn, Vaddr
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.vcpu import VcpuGuestContext, Vgcf
from xdbg.abi.x86 import (
    DR6_DEFAULT,
    DR7_DEFAULT,
    FIRST_RESERVED_GDT_ENTRY,
    FLAT_KERNEL_CS64,
    PTES_PER_TABLE,
    Cr0,
    Rflags,
)
from xdbg.machine.registers import DS, ES, FS, GPR_NAMES, GS
from xdbg.machine.state import CpuState

from .callback import is_canonical
from .debugreg import set_debugreg
from .descriptor_tables import set_gdt
from .emul_priv_op import fixup_guest_cr4
from .faults import HypercallError
from .guest_access import address_ok
from .iret import RFLAGS_KEPT, RFLAGS_SET
from .page_info import PGT_L4_PAGE_TABLE
from .page_table_types import get_page_and_type, put_page_and_type
from .vcpu import Callback, TrapGate, Vcpu
from .xen_slots import map_ro_mpt

_MAX_LDT_ENTRIES: Final = 8192
_RPL: Final = 3
_U32: Final = 0xFFFF_FFFF
_ADDRESS_REGISTERS: Final = range(4)
"""DR0 to DR3."""
_GATE_DPL: Final = 3
_GATE_MASKS_EVENTS: Final = 1 << 2
_IOPL_SHIFT: Final = 12


def set_info_guest(vcpu: Vcpu, context: VcpuGuestContext) -> None:
    """Give a vcpu that has never run the state that the guest wants; -EINVAL, and then nothing has changed."""
    if any(_flaws(context)):
        raise HypercallError(Errno.EINVAL)
    _take_tables(vcpu, context)
    _set_entry_points(vcpu, context)
    _set_virtual_state(vcpu, context)
    vcpu.context = _registers(vcpu, context)
    vcpu.is_initialised = True
    vcpu.is_up = bool(context.flags & Vgcf.ONLINE)


def _flaws(context: VcpuGuestContext) -> Iterator[bool]:
    """What makes a context one that can't be, in Xen's order."""
    regs = context.user_regs
    yield context.debugreg[6] > _U32 or context.debugreg[7] > _U32
    yield not all(address_ok(context.debugreg[number]) for number in _ADDRESS_REGISTERS)
    yield not all(
        is_canonical(address)
        for address in (
            regs.rip,
            regs.rsp,
            context.kernel_sp,
            context.fs_base,
            context.gs_base_kernel,
            context.gs_base_user,
            context.event_callback_eip,
            context.syscall_callback_eip,
            context.failsafe_callback_eip,
        )
    )
    yield not all(is_canonical(gate.address) for gate in context.trap_ctxt)
    yield not address_ok(context.ldt_base)
    yield context.ldt_base & PAGE_MASK != 0 or context.ldt_ents > _MAX_LDT_ENTRIES
    yield not context.flags & Vgcf.IN_KERNEL and not context.ctrlreg[1]
    yield context.gdt_ents > FIRST_RESERVED_GDT_ENTRY


def _take_tables(vcpu: Vcpu, context: VcpuGuestContext) -> None:
    """Take the GDT's frames and both page tables; -EINVAL, and all is given back."""
    hv, domain = vcpu.domain.hv, vcpu.domain
    kernel, user = Mfn(context.ctrlreg[3] >> PAGE_SHIFT), Mfn(context.ctrlreg[1] >> PAGE_SHIFT)
    strict = domain.vm_assist >> VmasstType.M2P_STRICT & 1
    get_page_and_type(hv, kernel, domain.domid, PGT_L4_PAGE_TABLE)
    try:
        if context.ctrlreg[1]:
            get_page_and_type(hv, user, domain.domid, PGT_L4_PAGE_TABLE)
        try:
            nr_frames = -(-context.gdt_ents // PTES_PER_TABLE)
            set_gdt(vcpu, tuple(Mfn(mfn) for mfn in context.gdt_frames[:nr_frames]), context.gdt_ents)
        except HypercallError:
            if context.ctrlreg[1]:
                put_page_and_type(hv, user)
            raise
    except HypercallError:
        put_page_and_type(hv, kernel)
        raise
    vcpu.guest_table = kernel
    if not strict:
        map_ro_mpt(hv, kernel, present=True)
    vcpu.guest_table_user = None
    if context.ctrlreg[1]:
        vcpu.guest_table_user = user
        if strict:
            map_ro_mpt(hv, user, present=False)


def _set_entry_points(vcpu: Vcpu, context: VcpuGuestContext) -> None:
    """Trap table, callbacks and kernel stack."""
    flags = context.flags
    for vector, info in enumerate(context.trap_ctxt):
        gate = None
        if info.address:
            dpl, masks = info.flags & _GATE_DPL, bool(info.flags & _GATE_MASKS_EVENTS)
            gate = TrapGate(vector, dpl, masks, info.cs | _RPL, Vaddr(info.address))
        vcpu.trap_table[vector] = gate
    vcpu.kernel_ss = (context.kernel_ss | _RPL) & 0xFFFF
    vcpu.kernel_sp = Vaddr(context.kernel_sp)
    vcpu.event_callback = Callback(Vaddr(context.event_callback_eip), True, FLAT_KERNEL_CS64)
    vcpu.failsafe_callback = Callback(
        Vaddr(context.failsafe_callback_eip), bool(flags & Vgcf.FAILSAFE_DISABLES_EVENTS), FLAT_KERNEL_CS64
    )
    vcpu.syscall_callback = Callback(
        Vaddr(context.syscall_callback_eip), bool(flags & Vgcf.SYSCALL_DISABLES_EVENTS), FLAT_KERNEL_CS64
    )


def _set_virtual_state(vcpu: Vcpu, context: VcpuGuestContext) -> None:
    """Mode, control and debug registers, LDT, IOPL. A debug register that Xen refuses keeps its default."""
    vcpu.kernel_mode = bool(context.flags & Vgcf.IN_KERNEL)
    vcpu.gs_base_kernel = context.gs_base_kernel
    vcpu.gs_base_user = context.gs_base_user
    vcpu.cr0 = vcpu.cr0 & ~Cr0.TS | context.ctrlreg[0] & Cr0.TS
    vcpu.cr4 = fixup_guest_cr4(context.ctrlreg[4])
    vcpu.iopl = context.user_regs.rflags >> _IOPL_SHIFT & 3
    vcpu.ldt_entries = context.ldt_ents
    vcpu.ldt_base = Vaddr(context.ldt_base if context.ldt_ents else 0)
    vcpu.debugreg[:] = [0, 0, 0, 0, 0, 0, DR6_DEFAULT, DR7_DEFAULT]
    for number in (*_ADDRESS_REGISTERS, 6, 7):
        with suppress(HypercallError):
            set_debugreg(vcpu, number, context.debugreg[number])


def _registers(vcpu: Vcpu, context: VcpuGuestContext) -> CpuState:
    """What is loaded into the CPU when the vcpu first runs; the selectors are only then (`segments`)."""
    hv = vcpu.domain.hv
    cpu = hv.cpu
    regs = context.user_regs
    others = cpu.save()
    cpu.load(hv.reset_state)
    for number, name in enumerate(GPR_NAMES):
        cpu.gpr[number] = getattr(regs, name)
    cpu.rip = regs.rip
    cpu.rflags = regs.rflags & RFLAGS_KEPT & ~Rflags.IOPL | RFLAGS_SET
    cpu.cs, cpu.ss = regs.cs | _RPL, regs.ss | _RPL
    for number, selector in ((ES, regs.es), (DS, regs.ds), (FS, regs.fs), (GS, regs.gs)):
        cpu.put_selector(number, selector)
    cpu.fs_base = context.fs_base
    cpu.gs_base = context.gs_base_kernel if vcpu.kernel_mode else context.gs_base_user
    cpu.cr0_ts = bool(vcpu.cr0 & Cr0.TS)
    if context.flags & Vgcf.I387_VALID:
        cpu.write_fpu(bytes(context.fpu_ctxt))
    state = cpu.save()
    cpu.load(others)
    return state
