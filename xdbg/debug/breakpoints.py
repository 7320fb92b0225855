"""gdb's breakpoints, and the stop points of the CPU that they become when the guest is resumed.

A breakpoint belongs to the inferior through which it was set, and stops in its address space:

* one that was set through the kernel stops wherever its address is executed, in any address space: the kernel is seen
as
  the whole machine;
* one of a process at an address of the lower half stops under that process's own page tables only: another process
  that runs the same frame of text never notices;
* one of a process at an address of the upper half is in the kernel, which all processes share: it stops when the
  kernel runs on that process's behalf.

gdb takes all its breakpoints out at each stop and puts them back before it resumes. So nothing is done until
`install`, which compares what is wanted with what the CPU has, and changes the differences. Guest memory is never
written.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.rsp.replies import HwBreak, SwBreak
from xdbg.rsp.target import BreakpointKind

from .address_space import KERNEL_HALF

StopPoint = tuple[Vaddr, Maddr | None]
"""Where execution stops: an address, and the page table under which, None for all."""


class StopPointSet(Protocol):
    """The CPU's side: `Cpu.stop_points`."""

    def add(self, vaddr: Vaddr, cr3: Maddr | None) -> None:
        """Stop before the instruction at `vaddr`."""

    def remove(self, vaddr: Vaddr, cr3: Maddr | None) -> None:
        """Undo one `add`."""


@dataclass(slots=True)
class Breakpoints:
    """All breakpoints. `kernel_pid` is the inferior whose breakpoints count in every address space."""

    kernel_pid: int
    _kinds: dict[Vaddr, dict[int, set[BreakpointKind]]] = field(default_factory=dict)
    """By address: the inferiors that have a breakpoint there, and of which kinds."""
    _internal: dict[str, set[StopPoint]] = field(default_factory=dict)
    _installed: set[StopPoint] = field(default_factory=set)
    _changed: bool = False

    def insert(self, pid: int, kind: BreakpointKind, vaddr: int) -> None:
        """Idempotent."""
        self._kinds.setdefault(Vaddr(vaddr), {}).setdefault(pid, set()).add(kind)
        self._changed = True

    def remove(self, pid: int, kind: BreakpointKind, vaddr: int) -> None:
        """No error when there is none."""
        by_pid = self._kinds.get(Vaddr(vaddr))
        if by_pid is None or pid not in by_pid:
            return
        by_pid[pid].discard(kind)
        if not by_pid[pid]:
            del by_pid[pid]
        if not by_pid:
            del self._kinds[Vaddr(vaddr)]
        self._changed = True

    def forget(self, pid: int) -> None:
        """Remove all breakpoints of an inferior."""
        for vaddr in [vaddr for vaddr, by_pid in self._kinds.items() if pid in by_pid]:
            del self._kinds[vaddr][pid]
            if not self._kinds[vaddr]:
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

    def set_internal(self, purpose: str, points: Iterable[StopPoint]) -> None:
        """The stop points that run control needs for a purpose of its own; they are never reported."""
        new = set(points)
        if new != self._internal.get(purpose, set()):
            self._internal[purpose] = new
            self._changed = True

    def pids_at(self, vaddr: int) -> Iterable[int]:
        """The inferiors that have a breakpoint at an address, in the order in which they set it."""
        return tuple(self._kinds.get(Vaddr(vaddr), ()))

    def reason(self, pid: int, vaddr: int) -> SwBreak | HwBreak:
        """What gdb is told of a hit. With both kinds at one address it is the software breakpoint's."""
        kinds = self._kinds[Vaddr(vaddr)][pid]
        return SwBreak() if BreakpointKind.SOFTWARE in kinds else HwBreak()

    def install(
        self, stop_points: StopPointSet, tables_of: Callable[[int], Iterable[Maddr]], *, moved: bool = False
    ) -> None:
        """Bring the CPU's stop points in line. `tables_of(pid)`: a process's page tables; `moved`: they changed."""
        if not self._changed and not moved:
            return
        self._changed = False
        wanted = set().union(*self._internal.values())
        for vaddr, by_pid in self._kinds.items():
            for pid in by_pid:
                if pid == self.kernel_pid or vaddr >= KERNEL_HALF:
                    wanted.add((vaddr, None))
                else:
                    wanted.update((vaddr, cr3) for cr3 in tables_of(pid))
        # The order in which they are given to the CPU is part of the run: sets have none.
        for vaddr, cr3 in sorted(self._installed - wanted, key=_order):
            stop_points.remove(vaddr, cr3)
        for vaddr, cr3 in sorted(wanted - self._installed, key=_order):
            stop_points.add(vaddr, cr3)
        self._installed = wanted


def _order(point: StopPoint) -> tuple[int, int]:
    vaddr, cr3 = point
    return vaddr, -1 if cr3 is None else cr3
