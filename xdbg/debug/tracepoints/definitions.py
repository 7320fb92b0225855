"""What was defined: tracepoints, with expressions taken apart, and memory that never changes.

A tracepoint belongs to the inferior of the thread that was selected when it was defined, and is hit where a breakpoint
of that inferior would be. All definitions together have a limit in bytes, since they stay when the client leaves.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from errno import E2BIG, EEXIST, EINVAL, ENOENT
from typing import Final

from xdbg.rsp.agent_expression import Expression, ExpressionError, parse
from xdbg.rsp.registers import REGISTERS
from xdbg.rsp.target import TargetError
from xdbg.rsp.tracepoints import (
    Action,
    CollectMemory,
    CollectRegisters,
    Evaluate,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    WholeTracepoint,
)

MAX_BYTES: Final = 4 << 20
"""Of all definitions, as they came in packets, roughly."""
_OVERHEAD: Final = 64

Step = CollectRegisters | CollectMemory | Expression
"""An action, ready to be carried out."""


@dataclass(slots=True)
class Tracepoint:
    """One tracepoint. `pid`: whose it is; `used`: bytes that its frames took."""

    pid: int
    definition: TracepointDefinition
    complete: bool
    condition: Expression | None
    actions: list[Action] = field(default_factory=list)
    step_actions: list[Action] = field(default_factory=list)
    sources: list[TracepointSource] = field(default_factory=list)
    at_hit: list[Step] = field(default_factory=list)
    at_step: list[Step] = field(default_factory=list)
    hits: int = 0
    used: int = 0

    @property
    def vaddr(self) -> int:
        """Where it is."""
        return self.definition.tracepoint.vaddr

    @property
    def number(self) -> int:
        """Gdb's number."""
        return self.definition.tracepoint.number

    def weight(self, steps: Sequence[Step]) -> int:
        """How much a hit (`at_hit`) or a step (`at_step`) costs: its expressions' weights."""
        looked_at = (self.condition, *steps) if steps is self.at_hit else steps
        return 1 + sum(one.weight for one in looked_at if isinstance(one, Expression))

    def whole(self) -> WholeTracepoint:
        """All that was defined."""
        return WholeTracepoint(self.definition, tuple(self.actions), tuple(self.step_actions), tuple(self.sources))


class Definitions:
    """The tracepoints of one target, in the order in which they were defined."""

    def __init__(self) -> None:
        self._tracepoints: dict[TracepointId, Tracepoint] = {}
        self._at: dict[int, list[Tracepoint]] = {}
        self._bytes = 0

    def clear(self) -> None:
        """None."""
        self._tracepoints.clear()
        self._at.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[Tracepoint]:
        return iter(self._tracepoints.values())

    def at(self, vaddr: int) -> Sequence[Tracepoint]:
        """Those that count at an address: complete and enabled."""
        return [one for one in self._at.get(vaddr, ()) if one.complete and one.definition.enabled]

    def find(self, tracepoint: TracepointId) -> Tracepoint:
        """TargetError(ENOENT) if there is none."""
        found = self._tracepoints.get(tracepoint)
        if found is None:
            raise TargetError(ENOENT, f"there is no tracepoint {tracepoint.number} at {tracepoint.vaddr:#x}")
        return found

    def define(self, pid: int, definition: TracepointDefinition, *, more: bool) -> None:
        """TargetError: EEXIST; EINVAL for a condition that can't be understood; E2BIG."""
        if definition.tracepoint in self._tracepoints:
            raise TargetError(EEXIST, "that tracepoint is defined already")
        condition = _parse(definition.condition) if definition.condition else None
        self._count(len(definition.condition))
        new = Tracepoint(pid, definition, not more, condition)
        self._tracepoints[definition.tracepoint] = new
        self._at.setdefault(new.vaddr, []).append(new)

    def add_actions(
        self, tracepoint: TracepointId, actions: Sequence[Action], step_actions: Sequence[Action], *, more: bool
    ) -> None:
        """TargetError: ENOENT; EINVAL for an expression that can't be understood, or no such register; E2BIG."""
        found = self.find(tracepoint)
        if found.complete:
            raise TargetError(EINVAL, "that tracepoint is complete")
        if found.step_actions:
            actions, step_actions = (), (*actions, *step_actions)
        at_hit, at_step = [_ready(one) for one in actions], [_ready(one) for one in step_actions]
        self._count(sum(len(one.code) for one in (*actions, *step_actions) if isinstance(one, Evaluate)))
        found.actions += actions
        found.step_actions += step_actions
        found.at_hit += at_hit
        found.at_step += at_step
        found.complete = not more

    def add_source(self, tracepoint: TracepointId, source: TracepointSource) -> None:
        """TargetError: ENOENT, E2BIG."""
        found = self.find(tracepoint)
        self._count(len(source.text))
        found.sources.append(source)

    def enable(self, tracepoint: TracepointId, *, enabled: bool) -> None:
        """TargetError(ENOENT)."""
        found = self.find(tracepoint)
        found.definition = replace(found.definition, enabled=enabled)

    def restart(self) -> None:
        """Nothing was hit."""
        for one in self:
            one.hits = one.used = 0

    def _count(self, size: int) -> None:
        if self._bytes + size + _OVERHEAD > MAX_BYTES:
            raise TargetError(E2BIG, "too many tracepoints and actions")
        self._bytes += size + _OVERHEAD


class ReadOnlyRanges:
    """Memory that never changes, by the client's word."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def set(self, ranges: Iterable[tuple[int, int]]) -> None:
        """(start, end) of each."""
        self._ranges = sorted(ranges)

    def reach(self, vaddr: int) -> int:
        """How many bytes from `vaddr` on are in one of them."""
        return max((end - vaddr for start, end in self._ranges if start <= vaddr < end), default=0)


def _parse(code: bytes) -> Expression:
    try:
        return parse(code)
    except ExpressionError as error:
        raise TargetError(EINVAL, str(error)) from error


def _ready(action: Action) -> Step:
    match action:
        case Evaluate(code):
            return _parse(code)
        case CollectMemory(base=int(base)) if base >= len(REGISTERS):
            raise TargetError(EINVAL, f"there is no register {base}")
        case _:
            return action
