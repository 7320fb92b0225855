"""A trace: what is done at a hit and at a step, and when and why the trace ends.

At a hit the condition is evaluated; if it holds, the hit counts and its actions make a frame. The trace ends at the
hit that the pass count names (behind the last step of that hit, if it has steps), when the buffer has no room for a
frame, and at an expression that can't be evaluated.
"""

from dataclasses import dataclass, field
from typing import Final

from xdbg.rsp.agent_evaluation import evaluate
from xdbg.rsp.agent_expression import ExpressionError
from xdbg.rsp.tracepoints import TraceEnd, TraceStatus
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu

from .buffer import TraceBuffer
from .collection import Collection
from .definitions import Definitions, Step, Tracepoint
from .variables import TraceVariables

_NS_PER_US: Final = 1000


@dataclass(slots=True)
class Recording:
    """The trace of one target, running or not. `end` is None while it runs."""

    hv: Hypervisor
    definitions: Definitions = field(default_factory=Definitions)
    buffer: TraceBuffer = field(default_factory=TraceBuffer)
    end: TraceEnd | None = TraceEnd.NEVER_RUN
    keeps: bool = False
    """It goes on when the client leaves."""
    user: str = ""
    notes: str = ""
    stop_note: str = ""
    variables: TraceVariables = field(init=False)
    ended_by: int = 0
    """The tracepoint that ended it, and..."""
    error: str = ""
    """... the reason, if that was an error."""
    start_us: int = 0
    stop_us: int = 0

    def __post_init__(self) -> None:
        self.variables = TraceVariables(self.now_us)

    def now_us(self) -> int:
        """The guest's time."""
        return self.hv.now() // _NS_PER_US

    @property
    def runs(self) -> bool:
        """Whether hits are collected."""
        return self.end is None

    def start(self) -> None:
        """Everything at its beginning, but for the definitions."""
        self.definitions.restart()
        self.variables.reset()
        self.buffer.clear()
        self.end = None
        self.stop_note = self.error = ""
        self.ended_by = 0
        self.start_us, self.stop_us = self.now_us(), 0

    def stop(self, end: TraceEnd, tracepoint: int = 0, error: str = "") -> None:
        """The trace ends; no effect when none runs."""
        if self.end is None:
            self.end = end
            self.ended_by = tracepoint
            self.error = error
            self.stop_us = self.now_us()

    def forget(self) -> None:
        """Back to before the first trace; how the buffer is, and the notes, stay."""
        self.definitions.clear()
        self.variables.clear()
        self.buffer.clear()
        self.end = TraceEnd.NEVER_RUN
        self.ended_by = self.start_us = self.stop_us = 0

    def inherit(self, former: "Recording") -> None:
        """Take over what a domain that has ended left; a trace that still ran has ended with it."""
        former.stop(TraceEnd.ERROR, error="the domain has ended")
        self.definitions, self.buffer = former.definitions, former.buffer
        self.variables.inherit(former.variables)
        self.end, self.keeps = former.end, former.keeps
        self.user, self.notes, self.stop_note = former.user, former.notes, former.stop_note
        self.ended_by, self.error = former.ended_by, former.error
        self.start_us, self.stop_us = former.start_us, former.stop_us

    def status(self) -> TraceStatus:
        """All of it."""
        return TraceStatus(
            self.end,
            self.ended_by,
            self.error if self.end is TraceEnd.ERROR else self.stop_note,
            len(self.buffer),
            self.buffer.created,
            self.buffer.free,
            self.buffer.size,
            self.buffer.circular,
            self.keeps,
            self.start_us,
            self.stop_us,
            self.user,
            self.notes,
        )

    # -- what happens while it runs

    def hit(self, vcpu: Vcpu, tracepoint: Tracepoint) -> bool:
        """The vcpu is about to execute the instruction at a tracepoint; whether steps are to follow."""
        look = Collection(vcpu, self.variables, self.buffer.room)
        try:
            if tracepoint.condition is not None and not evaluate(tracepoint.condition, look):
                return False
        except ExpressionError as error:
            self.stop(TraceEnd.ERROR, tracepoint.number, str(error))
            return False
        tracepoint.hits += 1
        self._collect(look, tracepoint, tracepoint.at_hit)
        if tracepoint.definition.steps and self.runs:
            return True
        self.complete(tracepoint)
        return False

    def stepped(self, vcpu: Vcpu, tracepoint: Tracepoint) -> None:
        """The vcpu has taken a step behind a hit."""
        self._collect(Collection(vcpu, self.variables, self.buffer.room), tracepoint, tracepoint.at_step)

    def complete(self, tracepoint: Tracepoint) -> None:
        """A hit and its steps are done."""
        passes = tracepoint.definition.passes
        if passes and tracepoint.hits >= passes:
            self.stop(TraceEnd.PASSED, tracepoint.number)

    def _collect(self, look: Collection, tracepoint: Tracepoint, actions: list[Step]) -> None:
        error: ExpressionError | None = None
        try:
            look.collect(actions)
        except ExpressionError as failed:
            error = failed
        blocks = look.frame.blocks
        if look.frame.full or not self.buffer.add(tracepoint.number, self.hv.cpu.rip, bytes(blocks)):
            self.stop(TraceEnd.FULL)
        else:
            tracepoint.used += len(blocks)
        if error is not None:
            self.stop(TraceEnd.ERROR, tracepoint.number, str(error))
