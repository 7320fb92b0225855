"""What the hypervisor tells an observer: one frozen value for each thing that happens on a trap's way.

The order in which one exception of a guest is told is the order of Xen's own steps:

1. `ExceptionTaken`: the CPU went through a gate of Xen's IDT;
2. `TrapBounceSet`: `do_int3` and its like filled the vcpu's `trap_bounce`, and did nothing else;
3. `BounceFrame`: on the return path the frame was written to the guest kernel's stack;
4. `HandlerEntered`: the return to the guest lands in the handler;
5. `HypercallEntered` (iret) and `IretDone`: the guest is back where it was.

Xen knows neither trace nor debugger: whoever wants to see the events implements `Observer`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xdbg.abi.frames import Maddr, Vaddr

if TYPE_CHECKING:
    from .vcpu import Vcpu


@dataclass(frozen=True, slots=True)
class ExceptionTaken:
    """The CPU vectored through gate `vector` of Xen's IDT. `rip` is what the CPU pushed."""

    vector: int
    error_code: int
    software: bool
    gate_selector: int
    gate_offset: int
    gate_dpl: int
    kernel_mode: bool
    rip: Vaddr
    cr2: Vaddr | None
    insn: Vaddr
    """Where the instruction begins that raised it (for `int3` one byte before `rip`)."""


@dataclass(frozen=True, slots=True)
class TrapBounceSet:
    """`trap_bounce` was filled: handler, flags and error code wait for the return path."""

    vector: int
    error_code: int | None
    flags: int
    cs: int
    eip: Vaddr


@dataclass(frozen=True, slots=True)
class BounceFrame:
    """`create_bounce_frame` wrote `words` (8 bytes each, lowest address first) at `sp` on the guest kernel's stack."""

    sp: Vaddr
    words: tuple[int, ...]
    has_error_code: bool
    switched_stack: bool
    """True when the guest came from user mode: the stack is the one of `stack_switch`, and the page table switched."""


@dataclass(frozen=True, slots=True)
class HandlerEntered:
    """The return to the guest goes to `rip`.

    `kind`: "trap" (with its `vector`), "event", "syscall" or "sysenter".
    """

    kind: str
    rip: Vaddr
    vector: int | None = None


@dataclass(frozen=True, slots=True)
class IretDone:
    """HYPERVISOR_iret restored the interrupted context."""

    rip: Vaddr
    cs: int
    rflags: int
    rsp: Vaddr
    ss: int
    user_mode: bool
    upcall_mask: int


@dataclass(frozen=True, slots=True)
class HypercallEntered:
    """A hypercall begins. `in_multicall`: it is one entry of a batch."""

    nr: int
    args: tuple[int, ...]
    in_multicall: bool = False


@dataclass(frozen=True, slots=True)
class HypercallDone:
    """A hypercall returned `result` (signed)."""

    nr: int
    args: tuple[int, ...]
    result: int
    in_multicall: bool = False


@dataclass(frozen=True, slots=True)
class EventPending:
    """A port's pending bit went from 0 to 1; `upcall` when that made the vcpu's upcall pending."""

    port: int
    upcall: bool


@dataclass(frozen=True, slots=True)
class Upcall:
    """An event-channel upcall is delivered; `ports` are the pending unmasked ports, ascending."""

    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrivilegedOp:
    """A privileged instruction at `rip` was emulated; `text` says which and with what values."""

    rip: Vaddr
    text: str


@dataclass(frozen=True, slots=True)
class FaultFixedUp:
    """Xen itself repaired a page fault (writable page tables, a spurious fault); the guest does not see it."""

    rip: Vaddr
    cr2: Vaddr
    text: str


@dataclass(frozen=True, slots=True)
class ConsoleOutput:
    """Bytes that the guest wrote to its console, by ring or by console_io."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MemoryWritten:
    """The hypervisor itself stored to guest memory (frames, results, pending bits) at a machine address."""

    maddr: Maddr
    length: int


@dataclass(frozen=True, slots=True)
class DomainShutdown:
    """The domain ended with a SHUTDOWN_* code; `reason` is a line of text when Xen crashed it."""

    code: int
    reason: str


XenEvent = (
    ExceptionTaken
    | TrapBounceSet
    | BounceFrame
    | HandlerEntered
    | IretDone
    | HypercallEntered
    | HypercallDone
    | EventPending
    | Upcall
    | PrivilegedOp
    | FaultFixedUp
    | ConsoleOutput
    | MemoryWritten
    | DomainShutdown
)


class Observer(Protocol):
    """Whoever listens. It may read everything and must change nothing."""

    def observe(self, vcpu: "Vcpu", event: XenEvent) -> None:
        """`event` has just happened on `vcpu`; the instruction count is the CPU's."""
