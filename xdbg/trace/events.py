"""What a trace holds: a `Record` for each thing that happened, with what a reader needs to understand it.

A record says when (instructions retired), where (domain, vcpu, kernel or user mode) and what: one of the events below.
They are the events of `xen.events` with names, symbols, disassembly and decoded arguments added. The field names and
their order are those of the JSON form.

Numbers are plain ints. A `symbol` is "name" or "name+0x1c", None where no symbol is known. `instruction` is in the
AT&T form, as gdb shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from xdbg.abi.frames import Maddr, Vaddr


class GuestText(str):
    """Text that a guest wrote, as against a name of the ABI. Quoted in the text form."""

    __slots__ = ()


Value = int | str | None | list["Value"] | dict[str, "Value"]
"""A decoded argument. Names the ABI has a word for are strings; None is memory that could not be read."""

EVENT_KINDS: Mapping[str, str] = {
    "exception": "the CPU went through a gate of Xen's IDT",
    "trap_bounce": "an exception was noted in the vcpu's trap_bounce",
    "bounce_frame": "a frame was written on the guest kernel's stack",
    "handler": "the return to the guest goes to a handler of the guest",
    "iret": "the guest returned by HYPERVISOR_iret",
    "hypercall": "a hypercall and its result",
    "event": "an event channel became pending",
    "upcall": "pending event channels are delivered",
    "privileged": "Xen emulated a privileged instruction",
    "fixup": "Xen repaired a page fault itself",
    "console": "the guest wrote to its console",
    "memory": "Xen itself stored to guest memory",
    "shutdown": "the domain ended",
}
"""What can be chosen, and what it means."""

DEFAULT_KINDS: tuple[str, ...] = tuple(kind for kind in EVENT_KINDS if kind != "memory")
"""What is recorded unless asked otherwise: all but Xen's own stores, of which there are many."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """The kinds in a list like "exception,iret", in the order of `EVENT_KINDS`; "all" is every kind.

    ValueError names what is not a kind.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in asked if word != "all" and word not in EVENT_KINDS]
    if unknown or not asked:
        problem = f"{', '.join(unknown)}: no such kind of event" if unknown else "no kind of event is named"
        raise ValueError(f"{problem}; there are all, {', '.join(EVENT_KINDS)}")
    return tuple(kind for kind in EVENT_KINDS if kind in asked or "all" in asked)


@dataclass(frozen=True, slots=True)
class TracedException:
    """The CPU went through a gate of Xen's IDT.

    `rip` is what the CPU pushed, `insn` where the instruction begins. `software`: `int3` or `int n`. `error_code` is
    None where the vector has none. `bytes` are those of the instruction, in hex. `registers` are rax
    to r15, rflags, cs and ss.
    """

    kind: ClassVar[str] = "exception"

    vector: int
    name: str
    error_code: int | None
    error_text: str
    cr2: Vaddr | None
    cr2_symbol: str | None
    software: bool
    gate_dpl: int
    gate_selector: int
    gate_offset: int
    rip: Vaddr
    insn: Vaddr
    symbol: str | None
    bytes: str
    instruction: str | None
    registers: dict[str, int]


@dataclass(frozen=True, slots=True)
class TracedTrapBounce:
    """`trap_bounce` was filled: it waits for the way back. `vector` is None for the failsafe callback."""

    kind: ClassVar[str] = "trap_bounce"

    vector: int | None
    name: str
    error_code: int | None
    flags: int
    flags_text: str
    cs: int
    eip: Vaddr
    symbol: str | None


@dataclass(frozen=True, slots=True)
class FrameWord:
    """One word of a bounce frame; `note` explains the value, and may be empty."""

    address: Vaddr
    name: str
    value: int
    note: str


@dataclass(frozen=True, slots=True)
class TracedBounceFrame:
    """A frame was written at `sp`, lowest address first.

    `cause`: "trap", "event", "syscall" or "sysenter"; `vector` is that of a trap. `switched_stack`: user
    mode was interrupted. `rip` is the interrupted one.
    """

    kind: ClassVar[str] = "bounce_frame"

    cause: str
    vector: int | None
    sp: Vaddr
    switched_stack: bool
    rip: Vaddr
    symbol: str | None
    words: tuple[FrameWord, ...]


@dataclass(frozen=True, slots=True)
class TracedHandler:
    """The return to the guest goes to `rip` instead of what was interrupted; `cause` and `vector` as in the frame."""

    kind: ClassVar[str] = "handler"

    cause: str
    vector: int | None
    name: str
    rip: Vaddr
    symbol: str | None


@dataclass(frozen=True, slots=True)
class TracedIret:
    """HYPERVISOR_iret: the vcpu goes on at `rip`."""

    kind: ClassVar[str] = "iret"

    rip: Vaddr
    symbol: str | None
    cs: int
    rflags: int
    rflags_text: str
    rsp: Vaddr
    ss: int
    user_mode: bool
    upcall_mask: int


@dataclass(frozen=True, slots=True)
class TracedHypercall:
    """A hypercall begins. `args` are the registers, `decoded` what they mean by the names of their parameters.

    `sub_op` is the name of the command for those that have one. `caller` is where the guest's code goes on afterwards,
    and `symbol` its name; of a call through the hypercall page it is behind the call of the page's stub.
    """

    kind: ClassVar[str] = "hypercall"

    number: int
    name: str
    sub_op: str | None
    args: tuple[int, ...]
    decoded: dict[str, Value]
    in_multicall: bool
    caller: Vaddr
    symbol: str | None


@dataclass(frozen=True, slots=True)
class TracedResult:
    """A hypercall returned. `errno` is the name of the error, or None. `out` holds what it changed of `decoded`."""

    kind: ClassVar[str] = "hypercall_result"

    number: int
    name: str
    sub_op: str | None
    result: int
    errno: str | None
    out: dict[str, Value]
    in_multicall: bool


@dataclass(frozen=True, slots=True)
class TracedPending:
    """A port became pending; `upcall`: so did the vcpu's upcall. `bound_to` says what the port is for."""

    kind: ClassVar[str] = "event"

    port: int
    bound_to: str
    upcall: bool


@dataclass(frozen=True, slots=True)
class PendingPort:
    """A port that an upcall is for, and what it is bound to."""

    port: int
    bound_to: str


@dataclass(frozen=True, slots=True)
class TracedUpcall:
    """An upcall is delivered for `ports`, ascending."""

    kind: ClassVar[str] = "upcall"

    ports: tuple[PendingPort, ...]


@dataclass(frozen=True, slots=True)
class TracedPrivileged:
    """Xen emulated the instruction at `rip`; `text` says which and with what values."""

    kind: ClassVar[str] = "privileged"

    rip: Vaddr
    symbol: str | None
    text: str


@dataclass(frozen=True, slots=True)
class TracedFixup:
    """Xen repaired the page fault of the instruction at `rip`; the guest does not see it."""

    kind: ClassVar[str] = "fixup"

    rip: Vaddr
    symbol: str | None
    cr2: Vaddr
    text: str


@dataclass(frozen=True, slots=True)
class TracedConsole:
    r"""Console output; bytes that are no UTF-8 are written as "\xNN"."""

    kind: ClassVar[str] = "console"

    text: str


@dataclass(frozen=True, slots=True)
class TracedMemory:
    """Xen itself stored `length` bytes to guest memory at a machine address."""

    kind: ClassVar[str] = "memory"

    maddr: Maddr
    length: int


@dataclass(frozen=True, slots=True)
class TracedShutdown:
    """The domain ended with SHUTDOWN_`name`; `reason` is Xen's own when it crashed the domain, else empty."""

    kind: ClassVar[str] = "shutdown"

    code: int
    name: str
    reason: str


TraceEvent = (
    TracedException
    | TracedTrapBounce
    | TracedBounceFrame
    | TracedHandler
    | TracedIret
    | TracedHypercall
    | TracedResult
    | TracedPending
    | TracedUpcall
    | TracedPrivileged
    | TracedFixup
    | TracedConsole
    | TracedMemory
    | TracedShutdown
)


@dataclass(frozen=True, slots=True)
class Record:
    """When `count` instructions had retired, `event` happened on vcpu `vcpu` of domain `domid`, in that mode.

    The mode is the one in which the event found the vcpu: of an exception that which was interrupted, of an iret that
    which it goes to. `pid` is the process that the vcpu runs, None where there is none or nobody knows.
    """

    count: int
    domid: int
    vcpu: int
    kernel_mode: bool
    pid: int | None
    event: TraceEvent
