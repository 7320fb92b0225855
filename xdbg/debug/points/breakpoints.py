"""gdb's breakpoints, and the stop points of the CPU that they become when the guest is resumed.

A breakpoint belongs to the inferior through which it was set, and stops in its address space:

* one that was set through the kernel stops wherever its address is executed, in any address space: the kernel is seen
  as the whole machine;
* one of a process at an address of the lower half stops under that process's own page tables only: another process
  that runs the same frame of text never notices;
* one of a process at an address of the upper half is in the kernel, which all processes share: it stops when the
  kernel runs on that process's behalf.

The CPU itself tells these apart by the page table in use, and passes where a condition does not hold (`conditions`):
neither costs an exit. Commands are run, and what the CPU can't decide is decided, by `breakpoint_agent`.

gdb takes all its breakpoints out at each stop and puts them back before it resumes. So nothing is done until
`install`, which compares what is wanted with what the CPU has, and changes the differences. Guest memory is never
written.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.machine.predicate import Predicate
from xdbg.rsp.agent_expression import Expression
from xdbg.rsp.target import BreakpointKind

from .conditions import Placement, predicate_for

StopPoint = tuple[Vaddr, Maddr | None]
"""Where execution stops: an address, and the page table under which, None for all."""
ConditionalPoint = tuple[Vaddr, Maddr | None, Predicate | None]
"""The same, and what must hold for it."""


class StopPointSet(Protocol):
    """The CPU's side: `Cpu.stop_points`."""

    def add(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        """Stop before the instruction at `vaddr`."""

    def remove(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        """Undo one `add`."""


@dataclass(frozen=True, slots=True)
class Actions:
    """What is done at a breakpoint. Any of `conditions` must hold, if there are any; with `commands` it never stops.

    `persist`: the commands are run on when the debugger has gone.
    """

    conditions: tuple[Expression, ...] = ()
    commands: tuple[Expression, ...] = ()
    persist: bool = False

    @property
    def lingers(self) -> bool:
        """Whether anything is left to do without a debugger."""
        return bool(self.commands) and self.persist


_STOP: Final = Actions()


@dataclass(slots=True)
class Breakpoints:
    """All breakpoints. `kernel_pid` is the inferior whose breakpoints count in every address space."""

    kernel_pid: int
    _kinds: dict[Vaddr, dict[int, dict[BreakpointKind, Actions]]] = field(default_factory=dict)
    """By address: the inferiors that have a breakpoint there, of which kinds, and what is done there."""
    _internal: dict[str, dict[ConditionalPoint, None]] = field(default_factory=dict)
    _installed: dict[ConditionalPoint, None] = field(default_factory=dict)
    _changed: bool = False

    def insert(self, pid: int, kind: BreakpointKind, vaddr: int) -> None:
        """Idempotent. What is done there stays as it is; a new one just stops."""
        self._kinds.setdefault(Vaddr(vaddr), {}).setdefault(pid, {}).setdefault(kind, _STOP)
        self._changed = True

    def set_conditions(self, pid: int, kind: BreakpointKind, vaddr: int, conditions: tuple[Expression, ...]) -> None:
        """Of a breakpoint that is there, instead of those that it has."""
        kinds = self._kinds[Vaddr(vaddr)][pid]
        kinds[kind] = replace(kinds[kind], conditions=conditions)
        self._changed = True

    def set_commands(
        self, pid: int, kind: BreakpointKind, vaddr: int, commands: tuple[Expression, ...], *, persist: bool
    ) -> None:
        """Of a breakpoint that is there, instead of those that it has."""
        kinds = self._kinds[Vaddr(vaddr)][pid]
        kinds[kind] = replace(kinds[kind], commands=commands, persist=persist)
        self._changed = True

    def remove(self, pid: int, kind: BreakpointKind, vaddr: int) -> None:
        """No error when there is none."""
        by_pid = self._kinds.get(Vaddr(vaddr))
        if by_pid is None or pid not in by_pid:
            return
        by_pid[pid].pop(kind, None)
        if not by_pid[pid]:
            del by_pid[pid]
        if not by_pid:
            del self._kinds[Vaddr(vaddr)]
        self._changed = True

    def forget(self, pid: int) -> None:
        """Remove all breakpoints of an inferior, but those of the kernel whose commands are to be run on."""
        for vaddr in [vaddr for vaddr, by_pid in self._kinds.items() if pid in by_pid]:
            by_pid = self._kinds[vaddr]
            kept = {kind: one for kind, one in by_pid.pop(pid).items() if pid == self.kernel_pid and one.lingers}
            if kept:
                by_pid[pid] = kept
            if not by_pid:
                del self._kinds[vaddr]
        self._changed = True

    def clear(self) -> None:
        """Remove everything."""
        self._kinds.clear()
        self._internal.clear()
        self._changed = True

    def __len__(self) -> int:
        """At how many addresses there are breakpoints."""
        return len(self._kinds)

    def set_internal(
        self, purpose: str, points: Iterable[StopPoint], conditional: Iterable[ConditionalPoint] = ()
    ) -> None:
        """The stop points that run control needs for a purpose of its own; they are never reported."""
        plain: list[ConditionalPoint] = [(vaddr, cr3, None) for vaddr, cr3 in sorted(set(points), key=_order)]
        new = dict.fromkeys([*plain, *conditional])
        if new != self._internal.get(purpose, {}):
            self._internal[purpose] = new
            self._changed = True

    def is_internal(self, vaddr: int) -> bool:
        """Whether run control has a stop point of its own at an address."""
        return any(place == vaddr for points in self._internal.values() for place, _, _ in points)

    def pids_at(self, vaddr: int) -> Iterable[int]:
        """The inferiors that have a breakpoint at an address, in the order in which they set it."""
        return tuple(self._kinds.get(Vaddr(vaddr), ()))

    def actions(self, pid: int, vaddr: int) -> Sequence[tuple[BreakpointKind, Actions]]:
        """The breakpoints of an inferior at an address, by kind."""
        return tuple(self._kinds.get(Vaddr(vaddr), {}).get(pid, {}).items())

    def leave(self) -> None:
        """The debugger has gone: as `forget`, for all inferiors, and nothing is needed for run control."""
        for pid in {pid: None for by_pid in self._kinds.values() for pid in by_pid}:
            self.forget(pid)
        self._internal.clear()
        self._changed = True

    def install(
        self, stop_points: StopPointSet, places: Callable[[int, Vaddr], Iterable[Placement]], *, moved: bool = False
    ) -> None:
        """Bring the CPU's stop points in line. `places(pid, vaddr)`: where one of an inferior is; `moved`: they
        changed.
        """
        if not self._changed and not moved:
            return
        self._changed = False
        wanted: dict[ConditionalPoint, None] = {}
        for points in self._internal.values():
            wanted.update(points)
        for vaddr, by_pid in self._kinds.items():
            for pid, kinds in by_pid.items():
                for place in places(pid, vaddr):
                    for actions in kinds.values():
                        wanted[vaddr, place.cr3, predicate_for(actions.conditions, vaddr, place)] = None
        # The order in which they are given to the CPU is part of the run: it is that of the dictionaries.
        for point in [point for point in self._installed if point not in wanted]:
            stop_points.remove(*point)
        for point in wanted:
            if point not in self._installed:
                stop_points.add(*point)
        self._installed = wanted


def _order(point: StopPoint) -> tuple[int, int]:
    vaddr, cr3 = point
    return vaddr, -1 if cr3 is None else cr3
