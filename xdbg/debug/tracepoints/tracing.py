"""What gdb does with tracepoints: the capability `rsp.target.Tracepoints`.

Definitions and frames are the target's, not the client's: they stay when it leaves, and are shown to the next one.
"""

from collections.abc import Sequence
from errno import E2BIG, EBUSY, EINVAL
from typing import Final

from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.running.run_control import RunControl
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.rsp.tracepoints import (
    Action,
    FrameSearch,
    TraceEnd,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)

from .buffer import DEFAULT_SIZE, MAX_SIZE, Frame
from .definitions import ReadOnlyRanges
from .recording import Recording
from .source import TraceSource

_MAX_NOTE: Final = 4096


class Tracing:
    """The tracepoints of one target."""

    def __init__(self, inferiors: Inferiors, breakpoints: Breakpoints, run_control: RunControl) -> None:
        self._inferiors = inferiors
        self._recording = Recording(inferiors.domain.hv)
        self._read_only = ReadOnlyRanges()
        self._source = TraceSource(
            self._recording,
            inferiors,
            breakpoints,
            run_control.following,
            run_control.sources,
            run_control.stops.agent,
        )

    def inherit(self, former: "Tracing") -> None:
        """Take over all that there is of a domain that has ended and in whose place this target's was built."""
        self._recording.inherit(former.recording)

    @property
    def recording(self) -> Recording:
        """The trace itself."""
        return self._recording

    # -- definitions

    def init_trace(self) -> None:
        """Nothing is defined, and nothing collected."""
        self._source.stop()
        self._recording.forget()
        self._read_only.set(())

    def define_tracepoint(self, thread: Thread, definition: TracepointDefinition, *, more: bool) -> None:
        """It belongs to the inferior of `thread`."""
        if not self._inferiors.is_alive(thread):
            raise TargetError(EINVAL, "no such thread")
        self._recording.definitions.define(thread.pid, definition, more=more)

    def add_actions(
        self, tracepoint: TracepointId, actions: Sequence[Action], step_actions: Sequence[Action], *, more: bool
    ) -> None:
        """Verified now, so that nothing can be wrong with them later but the values."""
        self._recording.definitions.add_actions(tracepoint, actions, step_actions, more=more)

    def add_source(self, tracepoint: TracepointId, source: TracepointSource) -> None:
        """Kept."""
        self._recording.definitions.add_source(tracepoint, source)

    def enable_tracepoint(self, tracepoint: TracepointId, *, enabled: bool) -> None:
        """In force from the next resume on."""
        self._recording.definitions.enable(tracepoint, enabled=enabled)

    def tracepoints(self) -> Sequence[WholeTracepoint]:
        """In the order of definition."""
        return [one.whole() for one in self._recording.definitions]

    def tracepoint_usage(self, tracepoint: TracepointId) -> tuple[int, int]:
        """Hits, bytes."""
        found = self._recording.definitions.find(tracepoint)
        return found.hits, found.used

    def define_variable(self, variable: TraceVariable) -> None:
        """A trace state variable."""
        self._recording.variables.define(variable)

    def trace_variables(self) -> Sequence[TraceVariable]:
        """All."""
        return self._recording.variables.all()

    def trace_variable(self, number: int) -> int | None:
        """Its value."""
        return self._recording.variables.find(number)

    def set_read_only(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Instead of those before."""
        self._read_only.set(ranges)

    def is_read_only(self, vaddr: int) -> int:
        """How far."""
        return self._read_only.reach(vaddr)

    # -- the trace

    def start_trace(self) -> None:
        """TargetError(EBUSY): it runs already."""
        if self._recording.runs:
            raise TargetError(EBUSY, "a trace is running")
        self._recording.start()
        self._source.start()

    def stop_trace(self) -> None:
        """By the user's wish."""
        self._recording.stop(TraceEnd.COMMAND)
        self._source.stop()

    def trace_status(self) -> TraceStatus:
        """What the trace is doing."""
        return self._recording.status()

    def set_disconnected_tracing(self, *, keeps: bool) -> None:
        """Whether it goes on alone."""
        self._recording.keeps = keeps

    def set_circular_buffer(self, *, circular: bool) -> None:
        """In force at once."""
        self._recording.buffer.circular = circular

    def set_buffer_size(self, size: int | None) -> None:
        """TargetError: EBUSY, E2BIG."""
        if self._recording.runs:
            raise TargetError(EBUSY, "a trace is running")
        if size is not None and size > MAX_SIZE:
            raise TargetError(E2BIG, f"the trace buffer has at most {MAX_SIZE} bytes")
        self._recording.buffer.size = DEFAULT_SIZE if size is None else size

    def set_notes(self, *, user: str | None, notes: str | None, stop: str | None) -> None:
        """Kept, cut at `_MAX_NOTE` characters."""
        recording = self._recording
        recording.user = recording.user if user is None else user[:_MAX_NOTE]
        recording.notes = recording.notes if notes is None else notes[:_MAX_NOTE]
        recording.stop_note = recording.stop_note if stop is None else stop[:_MAX_NOTE]

    # -- frames

    def find_frame(self, search: FrameSearch, after: int | None) -> Frame | None:
        """By number, or the next."""
        return self._recording.buffer.find(search, after)

    def read_trace_buffer(self, offset: int, length: int) -> bytes:
        """As in a trace file."""
        return self._recording.buffer.read(offset, length)
