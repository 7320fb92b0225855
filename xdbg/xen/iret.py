"""HYPERVISOR_iret: how a guest kernel returns to what was interrupted. Xen: arch/x86/pv/iret.c.

The frame is a `struct iret_context` on the kernel stack. With `(cs & 3) == 3` it returns to user mode. RFLAGS.IF of the
frame becomes the complement of the upcall mask. With VGCF_in_syscall Xen returns by `sysret`: rcx and r11 are rip and
rflags, the segments the flat ones; else they come from the frame.
"""

from struct import Struct

from xdbg.abi.callback import IretContext
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.vcpu import Vgcf
from xdbg.abi.x86 import FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_SS64, Rflags, Vector
from xdbg.machine.registers import R11, RAX, RCX, RSP

from . import descriptor_tables, entry
from .callback import is_canonical
from .events import IretDone
from .faults import DomainCrash, GuestFault
from .guest_access import copy_from_guest
from .hypercall import hypercall
from .vcpu import Vcpu

_CONTEXT = Struct("<9Q")
_ARCH_IOPL = 1 << VmasstType.ARCHITECTURAL_IOPL
_IN_SYSCALL = int(Vgcf.IN_SYSCALL)
_IF = int(Rflags.IF)
RFLAGS_KEPT = 0x003F_7FD5 & ~(Rflags.IOPL | Rflags.VM)
"""The flags that exist, less those that a guest may not set."""
RFLAGS_SET = Rflags.IF | Rflags.FIXED
"""The flags that a guest always runs with."""
_PRESENT, _SEGMENT, _CODE, _WRITABLE, _LONG = 1 << 47, 1 << 44, 1 << 43, 1 << 41, 1 << 53
"""Bits of a segment descriptor."""


@hypercall(Hypercall.IRET)
def do_iret(vcpu: Vcpu) -> None:
    """HYPERVISOR_iret(): return to the context in the frame at the kernel's rsp. Xen: do_iret()."""
    hv = vcpu.domain.hv
    cpu = hv.cpu
    gpr = cpu.gpr
    try:
        frame = copy_from_guest(vcpu, gpr[RSP], IretContext.SIZE)
    except GuestFault as fault:
        raise DomainCrash(f"fault while reading the iret frame at {fault.vaddr:#x}") from None
    rax, r11, rcx, flags, rip, cs, rflags, rsp, ss = _CONTEXT.unpack(frame)
    user = cs & 3 == 3
    if user:
        if vcpu.guest_table_user is None:
            raise DomainCrash("iret to user mode without a user page table")
        entry.toggle_guest_mode(vcpu)
    if vcpu.domain.vm_assist & _ARCH_IOPL:
        vcpu.iopl = (rflags >> 12) & 3
    mask = 0 if rflags & _IF else 1
    gpr[RAX] = rax
    gpr[RSP] = rsp
    cpu.rip = rip
    cpu.cs = (cs | 3) & 0xFFFF
    cpu.ss = (ss | 3) & 0xFFFF
    cpu.rflags = rflags & RFLAGS_KEPT | RFLAGS_SET
    if flags & _IN_SYSCALL:
        gpr[RCX] = rip
        gpr[R11] = cpu.rflags
    else:
        gpr[R11] = r11
        gpr[RCX] = rcx
    entry.set_upcall_mask(vcpu, mask)
    vcpu.nmi_masked = False
    if hv.observer is not None:
        hv.observer.observe(vcpu, IretDone(Vaddr(rip), cs, rflags, Vaddr(rsp), ss, user, mask))
    if flags & _IN_SYSCALL and is_canonical(rip) and cs | 3 != FLAT_RING3_CS32:
        # Xen returns by `sysret`, which knows two code segments and one stack segment.
        cpu.cs, cpu.ss = FLAT_RING3_CS64, FLAT_RING3_SS64
        cpu.clear_flags(Rflags.RF)
    elif cs | 3 != FLAT_RING3_CS64 or ss | 3 != FLAT_RING3_SS64 or not is_canonical(rip):
        error_code = return_fault(vcpu, rip, cs | 3, ss | 3)
        if error_code is not None:
            entry.inject(vcpu, Vector.GP, error_code)


def return_fault(vcpu: Vcpu, rip: int, cs: int, ss: int) -> int | None:
    """The error code of the #GP that the CPU's own iret to this place would raise; None: it would go there.

    The instruction is Xen's, but the fault is handed to the guest as if it had already been at the place.
    """
    code = descriptor_tables.read_descriptor(vcpu, cs)
    if code is None or code & (_PRESENT | _SEGMENT | _CODE) != _PRESENT | _SEGMENT | _CODE or not _ring3(code):
        return cs & ~3 & 0xFFFF
    if not code & _LONG:
        raise DomainCrash(f"iret to 32-bit code (cs {cs:#x}), which this machine does not run")
    stack = descriptor_tables.read_descriptor(vcpu, ss)
    if stack is None or stack & (_PRESENT | _SEGMENT | _CODE | _WRITABLE) != _PRESENT | _SEGMENT | _WRITABLE:
        return ss & ~3 & 0xFFFF
    return None if is_canonical(rip) else 0


def _ring3(descriptor: int) -> bool:
    return descriptor >> 45 & 3 == 3
