"""HYPERVISOR_iret: how a guest kernel returns to what was interrupted. Xen: arch/x86/pv/iret.c.

The frame is a `struct iret_context` on the kernel stack. With `(cs & 3) == 3` it returns to user mode. RFLAGS.IF of the
frame becomes the complement of the upcall mask. With VGCF_in_syscall Xen returns by `sysret`: rcx and r11 are rip and
rflags, the segments the flat ones (the code segment that of 32 bits, if the frame has it); else they come from the
frame, and with them whether it is 64-bit or 32-bit code.
"""

from struct import Struct

from xdbg.abi.callback import IretContext
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.vcpu import Vgcf
from xdbg.abi.x86 import FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_SS64, Rflags
from xdbg.machine.registers import R11, RAX, RCX, RSP

from . import entry
from .callback import is_canonical
from .events import IretDone
from .faults import DomainCrash, GuestFault
from .guest_access import copy_from_guest
from .hypercall import hypercall
from .segments import load_return_segments
from .vcpu import Vcpu

_CONTEXT = Struct("<9Q")
_ARCH_IOPL = 1 << VmasstType.ARCHITECTURAL_IOPL
_IN_SYSCALL = int(Vgcf.IN_SYSCALL)
_IF = int(Rflags.IF)
RFLAGS_KEPT = 0x003F_7FD5 & ~(Rflags.IOPL | Rflags.VM)
"""The flags that exist, less those that a guest may not set."""
RFLAGS_SET = Rflags.IF | Rflags.FIXED
"""The flags that a guest always runs with."""
_U32 = 0xFFFF_FFFF


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
    if flags & _IN_SYSCALL and is_canonical(rip):
        # Xen returns by `sysret`, which knows two code segments and one stack segment.
        if cs & 0xFFFF | 3 == FLAT_RING3_CS32:
            cpu.rip = rip & _U32
            load_return_segments(vcpu, FLAT_RING3_CS32, FLAT_RING3_SS64)
        else:
            cpu.cs, cpu.ss = FLAT_RING3_CS64, FLAT_RING3_SS64
        cpu.clear_flags(Rflags.RF)
    elif cpu.cs != FLAT_RING3_CS64 or cpu.ss != FLAT_RING3_SS64 or not is_canonical(rip):
        load_return_segments(vcpu, cpu.cs, cpu.ss)
