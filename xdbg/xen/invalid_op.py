"""Invalid opcodes that are meant for Xen: the forced-emulation prefix. Xen: arch/x86/pv/emul-inv-op.c.

`ud2a; .ascii "xen"; cpuid` asks for Xen's view of CPUID where the hardware's can't be intercepted. Any other
instruction behind the prefix is an invalid opcode at the `ud2a`.
"""

from xdbg.abi.frames import Vaddr
from xdbg.abi.x86 import XEN_EMULATE_PREFIX, Rflags
from xdbg.machine.registers import RAX, RBX, RCX, RDX

from .cpuid import cpuid
from .events import PrivilegedOp
from .faults import GuestFault
from .guest_access import copy_from_guest
from .vcpu import Vcpu

_CPUID = b"\x0f\xa2"
_FORCED = XEN_EMULATE_PREFIX + _CPUID


def emulate_forced_invalid_op(vcpu: Vcpu) -> bool:
    """Whether the instruction at rip was a forced `cpuid` and has been done. Xen: pv_emulate_invalid_op()."""
    hv = vcpu.domain.hv
    cpu = hv.cpu
    rip = cpu.rip
    try:
        if copy_from_guest(vcpu, rip, len(_FORCED)) != _FORCED:
            return False
    except GuestFault:
        return False
    gpr = cpu.gpr
    leaf, subleaf = gpr[RAX] & 0xFFFF_FFFF, gpr[RCX] & 0xFFFF_FFFF
    gpr[RAX], gpr[RBX], gpr[RCX], gpr[RDX] = cpuid(leaf, subleaf)
    cpu.rip = rip + len(_FORCED)
    rflags = cpu.rflags
    if rflags & Rflags.RF:
        cpu.rflags = rflags & ~Rflags.RF
    if hv.observer is not None:
        hv.observer.observe(vcpu, PrivilegedOp(Vaddr(rip), f"forced cpuid leaf {leaf:#x}, {subleaf:#x}"))
    return True
