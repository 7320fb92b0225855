"""The first steps of a `syscall`, hypercall or system call of the guest's. Xen: lstar_enter, x86_64/entry.S."""

from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
from xdbg.machine.registers import R11, RCX

from .vcpu import Vcpu


def syscall_entered(vcpu: Vcpu) -> None:
    """What `syscall` and Xen's entry for it leave in the registers, in either mode. Xen: lstar_enter.

    The instruction keeps the return address in rcx and the flags in r11; the selectors that it came with are lost.
    """
    cpu = vcpu.domain.hv.cpu
    cpu.gpr[RCX] = cpu.rip
    cpu.gpr[R11] = cpu.rflags
    cpu.cs = FLAT_KERNEL_CS64
    cpu.ss = FLAT_KERNEL_SS64
