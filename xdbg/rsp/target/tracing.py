"""Tracepoints."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from xdbg.rsp.threadid import Thread
from xdbg.rsp.tracepoints import (
    Action,
    FrameSearch,
    TraceFrame,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)


@runtime_checkable
class Tracepoints(Protocol):
    """QTDP, QTStart, QTFrame, qTStatus and all the others: data is collected where the guest comes by, without a stop.

    What they do is the target's own: it stays when a client leaves.
    """

    def init_trace(self) -> None:
        """Ends a trace; drops all tracepoints, variables that are not builtin, ranges and frames."""
        ...

    def define_tracepoint(self, thread: Thread, definition: TracepointDefinition, *, more: bool) -> None:
        """In the address space of `thread`. `more`: it is complete only with the actions that follow."""
        ...

    def add_actions(
        self, tracepoint: TracepointId, actions: Sequence[Action], step_actions: Sequence[Action], *, more: bool
    ) -> None:
        """More actions; those behind the first step action are step actions, too. TargetError(ENOENT)."""
        ...

    def add_source(self, tracepoint: TracepointId, source: TracepointSource) -> None:
        """A piece of source text. TargetError(ENOENT)."""
        ...

    def enable_tracepoint(self, tracepoint: TracepointId, *, enabled: bool) -> None:
        """Also while the trace runs. TargetError(ENOENT)."""
        ...

    def tracepoints(self) -> Sequence[WholeTracepoint]:
        """All that are defined."""
        ...

    def tracepoint_usage(self, tracepoint: TracepointId) -> tuple[int, int]:
        """How often it was hit, and the bytes that its frames took. TargetError(ENOENT)."""
        ...

    def define_variable(self, variable: TraceVariable) -> None:
        """A trace state variable; it has its initial value at once."""
        ...

    def trace_variables(self) -> Sequence[TraceVariable]:
        """All, those that are builtin too."""
        ...

    def trace_variable(self, number: int) -> int | None:
        """The present value; None if there is no such variable."""
        ...

    def set_read_only(self, ranges: Sequence[tuple[int, int]]) -> None:
        """(start, end) of memory that never changes, and is read from the guest while a frame is looked at."""
        ...

    def is_read_only(self, vaddr: int) -> int:
        """How many bytes from `vaddr` on are in such a range."""
        ...

    def start_trace(self) -> None:
        """From the next resume on, hits are collected. The buffer is emptied. TargetError: it runs already."""
        ...

    def stop_trace(self) -> None:
        """No error if none runs."""
        ...

    def trace_status(self) -> TraceStatus:
        """What the trace is doing."""
        ...

    def set_disconnected_tracing(self, *, keeps: bool) -> None:
        """Whether a trace goes on when the client leaves."""
        ...

    def set_circular_buffer(self, *, circular: bool) -> None:
        """Whether the oldest frames make room for new ones, instead of the trace ending."""
        ...

    def set_buffer_size(self, size: int | None) -> None:
        """Bytes; None is the target's choice. TargetError: while a trace runs, and for a size that is too large."""
        ...

    def set_notes(self, *, user: str | None, notes: str | None, stop: str | None) -> None:
        """Texts that trace_status tells again; None: unchanged."""
        ...

    def find_frame(self, search: FrameSearch, after: int | None) -> TraceFrame | None:
        """A frame; the searches begin behind frame number `after`, or with the first."""
        ...

    def read_trace_buffer(self, offset: int, length: int) -> bytes:
        """Frames as a trace file has them, one behind the other; nothing at the end. TargetError(EINVAL) beyond it."""
        ...
