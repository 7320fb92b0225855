"""Watches of the server's own, with a condition: ``monitor watch``. gdb gives its watch points none.

A watch covers [vaddr, vaddr + length) as one inferior sees it, for reads, writes, or both, as gdb's watch points do
(`watchpoints`). At each access its condition is evaluated with the registers after the access, and with the watched
bytes before (`old`) and after it (`new`). The guest stops if that is not zero, or can't be evaluated; any other access
costs an exit and nothing more. gdb did not ask for the stop, so it is a plain SIGTRAP, and what happened is said on
gdb's console and by ``monitor why``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from errno import EINVAL, ENOSPC
from typing import Final

from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.agent import ThreadContext
from xdbg.debug.points.watch_expression import NEW
from xdbg.debug.points.watchpoints import Watchpoint, Watchpoints
from xdbg.debug.running.following import Following
from xdbg.debug.running.sources import Sources, StopSource
from xdbg.debug.running.stops import Stops
from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import Expression, ExpressionError
from xdbg.rsp.replies import StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError, WatchKind
from xdbg.xen.vcpu import Vcpu

MAX_WATCHES: Final = 100
_LONGEST_VALUE: Final = 8
_ACCESSES: Final = {WatchKind.WRITE: "w", WatchKind.READ: "r", WatchKind.ACCESS: "rw"}


@dataclass(slots=True)
class ConditionalWatch:
    """One watch. `place` and `text` are what the user typed; `hits` and `stops` count."""

    point: Watchpoint
    place: str
    condition: Expression | None = None
    text: str = ""
    hits: int = 0
    stops: int = 0
    value: bytes = field(default=b"", repr=False)
    """The watched bytes when they were last looked at; none when they could not be read, or are many."""

    def __str__(self) -> str:
        condition = f" if {self.text}" if self.text else ""
        return f"{self.place} {self.point.length} {_ACCESSES[self.point.kind]}{condition}"


class _WatchContext(ThreadContext):
    """A thread with the watched bytes as variables."""

    values: tuple[bytes, bytes] = b"", b""

    def get_variable(self, number: int) -> int:
        """New and old."""
        value = self.values[number != NEW]
        if not value:
            raise UnreadableError("the watched bytes can't be read")
        return int.from_bytes(value, "little")


class ConditionalWatches(StopSource):
    """All such watches of one domain."""

    def __init__(
        self,
        inferiors: Inferiors,
        watchpoints: Watchpoints,
        stops: Stops,
        following: Following,
        sources: Sources,
        console: Console,
    ) -> None:
        self._inferiors = inferiors
        self._watchpoints = watchpoints
        self._stops = stops
        self._sources = sources
        self._console = console
        self._watches: dict[int, ConditionalWatch] = {}
        self._next = 1
        following.conditional = self.touched

    # -- the user's side

    def add(
        self, pid: int, kind: WatchKind, vaddr: int, length: int, place: str, condition: Expression | None, text: str
    ) -> tuple[int, ConditionalWatch]:
        """One more, from the next resume on. TargetError(ENOSPC) when there are too many."""
        if len(self._watches) >= MAX_WATCHES:
            raise TargetError(ENOSPC, f"there are {MAX_WATCHES} watches already")
        number = self._next
        self._next += 1
        made = ConditionalWatch(Watchpoint(pid, kind, vaddr, length, number), place, condition, text)
        self._watches[number] = made
        self._watchpoints.insert(made.point)
        self._sources.add(self)
        return number, made

    def remove(self, number: int) -> None:
        """TargetError(EINVAL) if there is none with this number."""
        found = self._watches.pop(number, None)
        if found is None:
            raise TargetError(EINVAL, f"there is no watch {number}")
        self._watchpoints.remove(found.point)
        if not self._watches:
            self._sources.remove(self)

    def clear(self) -> None:
        """Remove all."""
        for number in list(self._watches):
            self.remove(number)

    def __iter__(self) -> Iterator[tuple[int, ConditionalWatch]]:
        """By number, without those whose inferior has gone."""
        return ((number, watch) for number, watch in list(self._watches.items()) if watch.point in self._watchpoints)

    # -- StopSource

    def prepare(self) -> None:
        """What is there now is what the next access changes: the debugger may have written meanwhile."""
        for number, watch in list(self._watches.items()):
            if watch.point in self._watchpoints:
                watch.value = self._read(watch.point)
            else:
                self.remove(number)

    # -- hits

    def touched(self, vcpu: Vcpu, numbers: Sequence[int]) -> StopReply | None:
        """The vcpu, or Xen on its way, has accessed what these watch. A stop if any of them wants one."""
        stop: StopReply | None = None
        told: list[str] = []
        for number in numbers:
            watch = self._watches.get(number)
            thread = None if watch is None else self._stops.thread_behind(vcpu, watch.point.pid)
            if watch is None:
                continue
            before, watch.value = watch.value, self._read(watch.point)
            if thread is None:
                continue
            watch.hits += 1
            context = _WatchContext(self._inferiors, vcpu, thread, self._console)
            context.values = watch.value, before
            if self._holds(watch, context):
                watch.stops += 1
                told.append(f"watch {number}: {watch}{_change(before, watch.value)}")
                stop = stop or self._stops.reply(Signal.TRAP, thread, vcpu)
        if stop is not None:
            self._sources.told(stop, told)
            for line in told:
                self._console.say(line)
        return stop

    def _holds(self, watch: ConditionalWatch, context: ThreadContext) -> bool:
        if watch.condition is None:
            return True
        self._stops.agent.evaluations += watch.condition.weight
        try:
            return evaluate(watch.condition, context) != 0
        except ExpressionError as error:
            self._console.say(f"the condition of a watch failed: {error}")
            return True

    def _read(self, point: Watchpoint) -> bytes:
        """The watched bytes, if they are no more than a word."""
        space = self._inferiors.space_of(point.pid)
        if space is None or point.length > _LONGEST_VALUE:
            return b""
        try:
            data = space.read(point.vaddr, point.length)
        except TargetError:
            return b""
        return data if len(data) == point.length else b""


def _change(before: bytes, after: bytes) -> str:
    """The old and the new value, where they are known."""
    if not before or not after:
        return ""
    old, new = int.from_bytes(before, "little"), int.from_bytes(after, "little")
    return f": {old:#x} -> {new:#x}" if old != new else f": {new:#x}"
