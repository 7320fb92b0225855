"""Invalid opcodes that are meant for Xen: the forced-emulation prefix. Xen: arch/x86/pv/emul-inv-op.c.

`ud2a; .ascii "xen"; cpuid` asks for Xen's view of CPUID where the hardware's can't be intercepted. Any other
instruction behind the prefix is an invalid opcode at the `ud2a`.
"""

from xdbg.abi.frames import Vaddr
from xdbg.abi.x86 import XEN_EMULATE_PREFIX
from xdbg.machine.registers import RAX, RBX, RCX, RDX

from .cpuid import guest_cpuid
from .emulate import instruction_done
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
    if vcpu.cpuid_faulting and not vcpu.kernel_mode:
        return False
    try:
        if copy_from_guest(vcpu, rip, len(_FORCED)) != _FORCED:
            return False
    except GuestFault:
        return False
    gpr = cpu.gpr
    leaf, subleaf = gpr[RAX] & 0xFFFF_FFFF, gpr[RCX] & 0xFFFF_FFFF
    gpr[RAX], gpr[RBX], gpr[RCX], gpr[RDX] = guest_cpuid(vcpu, leaf, subleaf)
    instruction_done(vcpu, rip + len(_FORCED))
    if hv.observer is not None:
        hv.observer.observe(vcpu, PrivilegedOp(Vaddr(rip), f"forced cpuid leaf {leaf:#x}, {subleaf:#x}"))
    return True
