"""Long hypercalls in pieces. Xen: hypercall_create_continuation(), PREEMPT_CHECK.

A hypercall over a list that the guest chose could run for ever. After `BATCH` elements it sets the argument registers
to what is left and RIP back to its own `syscall` (2 bytes): the guest makes the call again by itself, and everything
else has its turn in between. Inside a multicall the whole list is done at once.
"""

from typing import Final

from xdbg.abi.hypercalls import Hypercall
from xdbg.machine.registers import R8, R9, R10, RAX, RCX, RDI, RDX, RSI

from .vcpu import Vcpu

BATCH: Final = 4096
"""Elements of a list between two continuations."""
_SYSCALL_LENGTH: Final = 2
_U64: Final = (1 << 64) - 1
_ARGUMENTS: Final = (RDI, RSI, RDX, R10, R8, R9)


def can_continue(vcpu: Vcpu, number: Hypercall) -> bool:
    """Whether the vcpu made hypercall `number` itself, not as one of a multicall."""
    return bool(vcpu.domain.hv.cpu.gpr[RAX] & 0xFFFF_FFFF == number)


def create_continuation(vcpu: Vcpu, *args: int) -> None:
    """Make the vcpu's next instruction the same hypercall with these arguments. The handler then returns None."""
    cpu = vcpu.domain.hv.cpu
    for register, value in zip(_ARGUMENTS, args, strict=False):
        cpu.gpr[register] = value & _U64
    cpu.rip -= _SYSCALL_LENGTH
    cpu.gpr[RCX] = cpu.rip  # Xen returns by `sysret`
