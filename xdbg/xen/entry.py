"""The way back to the guest, where everything pending is delivered. Xen: arch/x86/x86_64/entry.S.

After each exit that Xen handled for a guest:

1. an exception in `trap_bounce` becomes a bounce frame, and the flag is cleared;
2. then an NMI that another vcpu has sent, if the guest has a handler and is not in it;
3. then, if `evtchn_upcall_pending` is set and `evtchn_upcall_mask` clear, the event callback gets a frame;
4. the guest is entered.

A hypervisor can't call a guest, since it would have to come back: it rewrites the return instead. `create_bounce_frame`
pushes what the hardware would have pushed, on the guest kernel's stack, and makes RIP the handler's. The frame, lowest
address first: rcx, r11, [error code], rip, cs with the saved upcall mask in its upper half, rflags, rsp, ss. Xen then
returns by `sysret`, which leaves rip in rcx and rflags in r11.
"""

from struct import Struct

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.shared_info import VcpuInfo
from xdbg.abi.x86 import (
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    HYPERVISOR_VIRT_END,
    HYPERVISOR_VIRT_START,
    Pfec,
    Rflags,
    Vector,
)
from xdbg.machine.registers import R11, RCX, RSP

from . import event_channel
from .events import BounceFrame, HandlerEntered, TrapBounceSet, Upcall
from .faults import DomainCrash, GuestFault
from .guest_access import copy_to_guest
from .vcpu import TBF_EXCEPTION, TBF_EXCEPTION_ERRCODE, TBF_INTERRUPT, Vcpu

_FRAME = {n: Struct(f"<{n}Q") for n in (7, 8)}
_CLEARED_ON_ENTRY = int(Rflags.AC | Rflags.VM | Rflags.RF | Rflags.NT | Rflags.TF)
_HIDDEN = Rflags.IF | Rflags.IOPL
_IF = int(Rflags.IF)
_ARCH_IOPL = 1 << VmasstType.ARCHITECTURAL_IOPL
_PENDING = VcpuInfo.offset_of("evtchn_upcall_pending")
_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")
_RPL = 3


def upcall_mask(vcpu: Vcpu) -> int:
    """`evtchn_upcall_mask` as the guest set it: 0 or 1."""
    return 1 if vcpu.domain.hv.ram.buffer[vcpu.vcpu_info + _MASK] else 0


def set_upcall_mask(vcpu: Vcpu, mask: int) -> None:
    """Set `evtchn_upcall_mask` for the guest."""
    vcpu.domain.hv.ram.buffer[vcpu.vcpu_info + _MASK] = mask


def toggle_guest_mode(vcpu: Vcpu) -> None:
    """Go from user to kernel mode or back: GS base and page table change places. Xen: toggle_guest_mode()."""
    cpu = vcpu.domain.hv.cpu
    if vcpu.kernel_mode:
        vcpu.gs_base_kernel = cpu.gs_base
        cpu.gs_base = vcpu.gs_base_user
    else:
        vcpu.gs_base_user = cpu.gs_base
        cpu.gs_base = vcpu.gs_base_kernel
    vcpu.kernel_mode = not vcpu.kernel_mode
    cpu.cr3 = vcpu.cr3
    cpu.cpuid_allowed = vcpu.kernel_mode or not vcpu.cpuid_faulting


def return_to_guest(vcpu: Vcpu) -> None:
    """Deliver what is pending on the way back. Raises `DomainCrash`. Xen: test_all_events."""
    bounce = vcpu.trap_bounce
    if bounce.flags & TBF_EXCEPTION:
        create_bounce_frame(vcpu, "trap")
        bounce.flags = 0
    pending_and_mask = vcpu.vcpu_info
    buffer = vcpu.domain.hv.ram.buffer
    vcpu.check_events = False
    if vcpu.nmi_pending and not vcpu.nmi_masked:
        _deliver_nmi(vcpu)
    if buffer[pending_and_mask + _PENDING] and not buffer[pending_and_mask + _MASK]:
        deliver_upcall(vcpu)


def _deliver_nmi(vcpu: Vcpu) -> None:
    """The NMI goes to its handler, and no other until the next iret; without a handler it is lost. Xen: process_nmi."""
    vcpu.nmi_pending = False
    if vcpu.trap_table[Vector.NMI] is not None:
        vcpu.nmi_masked = True
        inject(vcpu, Vector.NMI, None)
        create_bounce_frame(vcpu, "trap")
        vcpu.trap_bounce.flags = 0


def deliver_upcall(vcpu: Vcpu) -> None:
    """One upcall to the event callback, which runs with the mask set. Xen: process_guest_events."""
    bounce = vcpu.trap_bounce
    observer = vcpu.domain.hv.observer
    if observer is not None:
        observer.observe(vcpu, Upcall(tuple(event_channel.pending_ports(vcpu))))
    bounce.flags = TBF_INTERRUPT
    bounce.eip = vcpu.event_callback.address
    bounce.error_code = 0
    bounce.cs = FLAT_KERNEL_CS64
    create_bounce_frame(vcpu, "event")
    bounce.flags = 0


def bounce_syscall(vcpu: Vcpu) -> None:
    """A `syscall` from user mode goes to the guest's syscall callback. Xen: lstar_enter, switch_to_kernel.

    RIP is behind the instruction; rcx and r11 of the frame are what the instruction itself would have left there.
    """
    cpu = vcpu.domain.hv.cpu
    callback = vcpu.syscall_callback
    if callback.address == 0:
        # Without a callback the instruction is an invalid opcode, and a fault stands at its instruction.
        cpu.rip -= 2
        inject(vcpu, Vector.UD, None)
        return
    bounce = vcpu.trap_bounce
    bounce.flags = TBF_INTERRUPT if callback.masks_events else 0
    bounce.eip = callback.address
    bounce.cs = FLAT_KERNEL_CS64
    bounce.error_code = 0
    create_bounce_frame(vcpu, "syscall")
    bounce.flags = 0
    rflags = cpu.rflags
    if rflags & Rflags.DF:
        cpu.rflags = rflags & ~Rflags.DF
        cpu.gpr[R11] = cpu.rflags


def bounce_sysenter(vcpu: Vcpu) -> None:
    """A `sysenter`, in either mode, goes to the sysenter callback; without one it is #GP. Xen: sysenter_entry.

    The instruction keeps neither return address nor stack pointer: rip and rsp are 0 in either case, and cs names
    nothing.
    """
    callback = vcpu.sysenter_callback
    cpu = vcpu.domain.hv.cpu
    cpu.rip = cpu.gpr[RSP] = 0
    cpu.cs, cpu.ss = _RPL, FLAT_KERNEL_SS64
    if callback.address == 0:
        inject(vcpu, Vector.GP, 0)
        return
    bounce = vcpu.trap_bounce
    bounce.flags = TBF_INTERRUPT if callback.masks_events else 0
    bounce.eip = callback.address
    bounce.cs = FLAT_KERNEL_CS64
    create_bounce_frame(vcpu, "sysenter")
    bounce.flags = 0


def inject(vcpu: Vcpu, vector: int, error_code: int | None) -> None:
    """Fill `trap_bounce` for a vector; without an error code when it is None. Xen: pv_inject_event()."""
    gate = vcpu.trap_table[vector]
    bounce = vcpu.trap_bounce
    bounce.vector = vector
    bounce.flags = TBF_EXCEPTION
    bounce.error_code = 0
    if error_code is not None:
        bounce.flags |= TBF_EXCEPTION_ERRCODE
        bounce.error_code = error_code
    if gate is None:
        bounce.cs = 0
        bounce.eip = Vaddr(0)
    else:
        bounce.cs = gate.cs
        bounce.eip = gate.address
        if gate.masks_events:
            bounce.flags |= TBF_INTERRUPT
    observer = vcpu.domain.hv.observer
    if observer is not None:
        observer.observe(vcpu, TrapBounceSet(vector, error_code, bounce.flags, bounce.cs, bounce.eip))


def inject_page_fault(vcpu: Vcpu, error_code: int, cr2: Vaddr) -> None:
    """Give a page fault to the guest: CR2 in its vcpu_info, the error code's user bit by its virtual mode."""
    vcpu.cr2 = cr2
    vcpu.domain.hv.set_guest_cr2(vcpu, cr2)
    error_code &= ~Pfec.USER_MODE
    if not vcpu.kernel_mode:
        error_code |= Pfec.USER_MODE
    inject(vcpu, Vector.PF, error_code)


def create_bounce_frame(vcpu: Vcpu, kind: str) -> None:
    """Push the frame of `trap_bounce` on the guest kernel's stack and return to its handler instead.

    Raises `DomainCrash` when there is no handler or the stack is not the guest's to write: nothing could ever be
    delivered to such a guest again.
    """
    hv = vcpu.domain.hv
    cpu = hv.cpu
    gpr = cpu.gpr
    bounce = vcpu.trap_bounce
    flags = bounce.flags
    if bounce.eip == 0:
        raise DomainCrash(_no_handler(vcpu, kind))
    rip, rsp, cs, ss = cpu.rip, gpr[RSP], cpu.cs, cpu.ss
    was_kernel = vcpu.kernel_mode
    if was_kernel:
        cs &= ~_RPL
        sp = rsp
    else:
        toggle_guest_mode(vcpu)
        sp = vcpu.kernel_sp
    mask_at = vcpu.vcpu_info + _MASK
    buffer = hv.ram.buffer
    mask = 1 if buffer[mask_at] else 0
    rflags = cpu.rflags
    shown = rflags & ~_HIDDEN
    if not mask:
        shown |= _IF
    if vcpu.domain.vm_assist & _ARCH_IOPL:
        shown |= vcpu.iopl << 12
    words: tuple[int, ...]
    if flags & TBF_EXCEPTION_ERRCODE:
        words = (gpr[RCX], gpr[R11], bounce.error_code, rip, cs | mask << 32, shown, rsp, ss)
    else:
        words = (gpr[RCX], gpr[R11], rip, cs | mask << 32, shown, rsp, ss)
    sp = (sp & ~0xF) - 8 * len(words)
    try:
        if not _stack_ok(sp, 8 * len(words)):
            raise DomainCrash(f"the kernel stack for a {kind} frame is not the guest's: {sp & (1 << 64) - 1:#x}")
        try:
            copy_to_guest(vcpu, sp, _FRAME[len(words)].pack(*words))
        except GuestFault as fault:
            where = f"{fault.vaddr:#x}"
            raise DomainCrash(f"page fault on the kernel stack while writing a {kind} frame at {where}") from None
    except DomainCrash:
        if not was_kernel:
            # Nothing will be delivered: whoever looks at the domain finds it where the cause is.
            toggle_guest_mode(vcpu)
        raise
    if flags & TBF_INTERRUPT:
        buffer[mask_at] = 1
    gpr[RSP] = sp
    cpu.rip = bounce.eip
    cpu.cs = FLAT_KERNEL_CS64
    cpu.ss = FLAT_KERNEL_SS64
    if rflags & _CLEARED_ON_ENTRY:
        cpu.clear_flags(_CLEARED_ON_ENTRY)
    gpr[RCX] = bounce.eip
    gpr[R11] = rflags & ~_CLEARED_ON_ENTRY
    observer = hv.observer
    if observer is not None:
        observer.observe(vcpu, BounceFrame(Vaddr(sp), words, len(words) == 8, not was_kernel))
        observer.observe(vcpu, HandlerEntered(kind, Vaddr(bounce.eip), bounce.vector if kind == "trap" else None))


def _stack_ok(sp: int, length: int) -> bool:
    return sp >= HYPERVISOR_VIRT_END or 0 <= sp < HYPERVISOR_VIRT_START - length


def _no_handler(vcpu: Vcpu, kind: str) -> str:
    rip = vcpu.domain.hv.cpu.rip
    match kind:
        case "trap":
            return f"unhandled vector {vcpu.trap_bounce.vector}: no handler in the trap table, rip {rip:#x}"
        case "event":
            return f"an event is pending and there is no event callback, rip {rip:#x}"
        case _:
            return f"no {kind} callback, rip {rip:#x}"
