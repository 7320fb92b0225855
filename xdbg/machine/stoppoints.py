"""Stop points that the guest cannot see: where execution is to stop, and which bytes of RAM are watched."""

import ctypes
from dataclasses import dataclass
from enum import IntFlag
from operator import itemgetter

from xdbg.abi.frames import Maddr, Vaddr

from .clock import ANY_CR3, Clock, StopPointEntry
from .predicate import LoadedPredicate, Predicate

_Point = tuple[int, int, Predicate | None]


class Access(IntFlag):
    """Which accesses a watch stops."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Watch:
    """Stop after an access to any of `length` bytes of RAM at `maddr`, whatever address space it came through.

    `owner` is the watcher's own name for it: several watches may cover the same bytes.
    """

    maddr: Maddr
    length: int
    access: Access
    owner: int = 0


class StopPoints:
    """The execution stop points of a CPU: virtual address, address space, and the predicate that has to hold.

    Several may be at one address, each with its own address space and predicate: any of them stops. They are kept here
    and handed to the compiled part at the next entry; nothing is done to translated code, so taking all out and putting
    them in again at each stop costs nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._points: dict[_Point, None] = {}
        self._applied: frozenset[_Point] = frozenset()
        self._entries: ctypes.Array[StopPointEntry] = (StopPointEntry * 0)()
        self._loaded: dict[Predicate, LoadedPredicate] = {}
        self.dirty = False

    def add(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        """Stop before the instruction at `vaddr` in the address space of `cr3`, or (None) in every one; a set.

        With a predicate the guest stops only when that holds.
        """
        self._points[vaddr, ANY_CR3 if cr3 is None else cr3, predicate] = None
        self.dirty = True

    def remove(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        """Undo `add`; nothing happens if it is not there."""
        self._points.pop((vaddr, ANY_CR3 if cr3 is None else cr3, predicate), None)
        self.dirty = True

    def clear(self) -> None:
        """Remove all."""
        self._points.clear()
        self.dirty = True

    def __len__(self) -> int:
        return len(self._points)

    def __contains__(self, point: tuple[Vaddr, Maddr | None]) -> bool:
        """Whether there is one without a predicate."""
        vaddr, cr3 = point
        return (vaddr, ANY_CR3 if cr3 is None else cr3, None) in self._points

    def apply(self) -> None:
        """Hand the set to the compiled part."""
        self.dirty = False
        now = frozenset(self._points)
        if now != self._applied:
            self._applied = now
            self._load()
        self._clock.stop_points = ctypes.addressof(self._entries)
        self._clock.nr_stop_points = len(now)

    def _load(self) -> None:
        """Make entries of the points."""
        used = dict.fromkeys(predicate for *_, predicate in self._points if predicate is not None)
        self._loaded = {one: self._loaded.get(one) or LoadedPredicate(one) for one in used}
        self._entries = (StopPointEntry * len(self._points))(
            *(
                StopPointEntry(vaddr, cr3, None if predicate is None else self._loaded[predicate].address)
                for vaddr, cr3, predicate in sorted(self._points, key=itemgetter(0, 1))
            )
        )
