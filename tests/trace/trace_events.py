"""Events as Xen tells them of one int3 in kernel mode, and one of each other kind."""

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.xen.events import (
    BounceFrame,
    ConsoleOutput,
    DomainShutdown,
    EventPending,
    ExceptionTaken,
    FaultFixedUp,
    HandlerEntered,
    HypercallDone,
    HypercallEntered,
    IretDone,
    MemoryWritten,
    PrivilegedOp,
    TrapBounceSet,
    Upcall,
)

INT3 = ExceptionTaken(3, 0, True, 0xE008, 0xFFFF_82D0_4020_0030, 3, True, Vaddr(0x10_0105), None, Vaddr(0x10_0104))
BOUNCE = TrapBounceSet(3, None, 9, 0xE033, Vaddr(0x10_0230))
FRAME = BounceFrame(
    Vaddr(0x10_1F00), (0x1111, 0x2222, 0x10_0105, 1 << 32 | 0xE030, 0x246, 0x10_1F40, 0xE02B), False, False
)
HANDLER = HandlerEntered("trap", Vaddr(0x10_0230), 3)
IRET = IretDone(Vaddr(0x10_0105), 0xE030, 0x246, Vaddr(0x10_1F40), 0xE02B, False, 0)
ONE_OF_EACH = {
    "exception": [INT3],
    "trap_bounce": [BOUNCE],
    "bounce_frame": [FRAME],
    "handler": [HANDLER],
    "iret": [IRET],
    "hypercall": [HypercallEntered(3, (0, 1)), HypercallDone(3, (0, 1), 0)],
    "event": [EventPending(1, True)],
    "upcall": [Upcall((1, 2))],
    "privileged": [PrivilegedOp(Vaddr(0x10_0104), "rdmsr 0x10")],
    "fixup": [FaultFixedUp(Vaddr(0x10_0104), Vaddr(0x5000), "l1e")],
    "console": [ConsoleOutput(b"hi\xff\n")],
    "memory": [MemoryWritten(Maddr(0x3000), 8)],
    "shutdown": [DomainShutdown(0, "")],
}
