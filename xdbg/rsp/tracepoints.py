"""Tracepoints as values: what a client defines and asks for, and what it is told. GDB manual: "Tracepoint Packets".

A tracepoint is named by its number and its address; one with several locations has the same number at each of them.
At a hit its actions are carried out, and what they collect is one *trace frame*. With `steps`, the thread then takes
that many single steps, each of which makes a frame by the step actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TracepointId:
    """Which tracepoint."""

    number: int
    vaddr: int


@dataclass(frozen=True, slots=True)
class CollectRegisters:
    """``R``: the registers whose bits are set in `mask`; more may be collected."""

    mask: int


@dataclass(frozen=True, slots=True)
class CollectMemory:
    """``M``: `length` bytes at `offset` from the value of register `base`; from 0 when that is None."""

    base: int | None
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """``X``: an agent expression; what it traces is collected."""

    code: bytes


Action = CollectRegisters | CollectMemory | Evaluate


@dataclass(frozen=True, slots=True)
class TracepointDefinition:
    """The first packet of a definition. `passes`: the trace stops at that hit, 0 for never."""

    tracepoint: TracepointId
    enabled: bool
    steps: int
    passes: int
    condition: bytes = b""


@dataclass(frozen=True, slots=True)
class TracepointSource:
    """A piece of what the user typed: its kind is ``at``, ``cond`` or ``cmd``. It is only kept.

    `start` and `total` say where in the whole text the piece stands, and how long that is.
    """

    kind: str
    start: int
    total: int
    text: bytes


@dataclass(frozen=True, slots=True)
class WholeTracepoint:
    """A definition with its actions, as it is shown to a client that comes later."""

    definition: TracepointDefinition
    actions: tuple[Action, ...]
    step_actions: tuple[Action, ...]
    sources: tuple[TracepointSource, ...]


@dataclass(frozen=True, slots=True)
class TraceVariable:
    """A trace state variable: 64 bits with a sign. `builtin`: the target itself gives the value."""

    number: int
    initial: int
    name: str
    builtin: bool = False


class TraceEnd(Enum):
    """Why no trace runs; the value is the word in the answer to qTStatus."""

    NEVER_RUN = "tnotrun"
    COMMAND = "tstop"
    FULL = "tfull"
    DISCONNECTED = "tdisconnected"
    PASSED = "tpasscount"
    ERROR = "terror"


@dataclass(frozen=True, slots=True)
class TraceStatus:
    """The answer to qTStatus. Sizes in bytes, times in microseconds of the target's clock.

    `end` is None while the trace runs; `tracepoint` is the one that ended it, `text` what the user or the target said
    about that. `created` counts all frames, `frames` those that are still in the buffer.
    """

    end: TraceEnd | None
    tracepoint: int
    text: str
    frames: int
    created: int
    free: int
    size: int
    circular: bool
    disconnected: bool
    start_us: int
    stop_us: int
    user: str
    notes: str


@dataclass(frozen=True, slots=True)
class FrameByNumber:
    """The frame with this number."""

    number: int


@dataclass(frozen=True, slots=True)
class FrameAt:
    """The next frame with this program counter."""

    vaddr: int


@dataclass(frozen=True, slots=True)
class FrameOfTracepoint:
    """The next frame of this tracepoint."""

    number: int


@dataclass(frozen=True, slots=True)
class FrameInRange:
    """The next frame whose program counter is in [first, last]; not in it with `outside`."""

    first: int
    last: int
    outside: bool = False


FrameSearch = FrameByNumber | FrameAt | FrameOfTracepoint | FrameInRange


class TraceFrame(Protocol):
    """What one hit, or one step, collected. It stays the same whatever happens to the buffer."""

    @property
    def number(self) -> int:
        """Its place in the buffer, from 0."""
        ...

    @property
    def tracepoint(self) -> int:
        """The number of its tracepoint."""
        ...

    @property
    def registers(self) -> bytes | None:
        """The `g` block, if registers were collected."""
        ...

    @property
    def rip(self) -> int | None:
        """The program counter, also when no registers were collected; None if it can't be told."""
        ...

    def read_memory(self, vaddr: int, length: int) -> bytes:
        """What was collected from `vaddr` on, up to the first hole; nothing if there is a hole at `vaddr`."""
        ...

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(vaddr, length) of all memory that was collected."""
        ...

    def variables(self) -> dict[int, int]:
        """The values of the trace state variables that were collected, by number."""
        ...
