"""Data watch points of a CPU, by machine address. How a hit is found and made exact: watches.c.

A watched frame is held in the engine: against stores, or for a read watch against reads, too (`protection`). The guest
can not see that: its page tables say what they said. It costs a millisecond, so it is done at the next entry, only for
what differs, and frames no longer watched stay held for a while: a debugger takes all out and puts all in at each
stop.

An access that begins on the page before and runs on into a watched page is not announced by the engine in time. If a
watch covers the first bytes of its frame, the frames of all pages that lie before it in the present address space are
held too. They are looked for at each entry before which page tables may have changed.

The guest's own breakpoints for data (`breakpoints`) are found in the same way, and reported as its #DB.
"""

import ctypes
from collections.abc import Iterator
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, Mfn

from .clock import NR_BREAKPOINTS, Clock, Event, PredecessorEntry, WatchEntry, find_predecessors, index_watches
from .protection import PROT_ALL, PROT_EXEC, PROT_READ, Protection
from .ram import Ram
from .stoppoints import Access, Watch

_KEEP_ENTRIES: Final = 64
"""For how many entries an unwatched frame stays held."""
_LONGEST_ACCESS: Final = 16
"""What one access can have at most: it reaches one byte less into the next page."""


class Watches:
    """The watches, in the order in which they were added."""

    def __init__(self, clock: Clock, library: ctypes.CDLL, handle: ctypes.c_void_p, ram: Ram) -> None:
        self._clock = clock
        self._ram = ram
        self._protection = Protection(clock, library, handle, ram)
        self._watches: dict[Watch, None] = {}
        self._of_guest: dict[int, Watch] = {}
        """By the number of the debug register that it stands for."""
        self._changed = False
        self._applied: list[tuple[Watch, int]] = []
        """Each with the number of the guest's debug register, or `NR_BREAKPOINTS` for a debugger's."""
        self._places: list[int] = []
        """Where the entry of each applied watch is."""
        self._entries: ctypes.Array[WatchEntry] = (WatchEntry * 0)()
        self._predecessors: ctypes.Array[PredecessorEntry] = (PredecessorEntry * 0)()
        self._pairs: list[tuple[int, int]] = []
        self._watched: dict[Mfn, int] = {}
        """The protection of each frame that has a watch; `_edges`: of each whose first bytes have one."""
        self._edges: dict[int, int] = {}
        self._wanted: dict[Mfn, int] = {}
        self._kept: dict[Mfn, int] = {}
        """Frames no longer wanted, and until which entry they are held all the same."""
        self._entry = 0
        self.dirty = False

    def add(self, watch: Watch) -> None:
        """Watch from the next entry on; a second equal watch is the same."""
        self._ram.check(watch.maddr, watch.length)
        self._watches[watch] = None
        self.dirty = self._changed = True

    def remove(self, watch: Watch) -> None:
        """Undo `add`; nothing happens if it is not there."""
        self._watches.pop(watch, None)
        self.dirty = self._changed = True

    def clear(self) -> None:
        """Remove all."""
        self._watches.clear()
        self.dirty = self._changed = True

    def set_guest_breakpoints(self, watches: dict[int, Watch]) -> None:
        """What the guest's own breakpoints mean now; they are none of the watches that anybody else sees here."""
        if watches != self._of_guest:
            self._of_guest = watches
            self.dirty = self._changed = True

    @property
    def tables_may_differ(self) -> bool:
        """Might page tables have changed since the last entry? Not if that came back for its deadline."""
        clock = self._clock
        return bool(clock.event != Event.DEADLINE or clock.cr3_pending or clock.tlb_pending)

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._watches)

    def __len__(self) -> int:
        return len(self._watches)

    def overlapping(self, maddr: int, length: int) -> tuple[Watch, ...]:
        """The watches that cover any of these bytes: for stores that the CPU does not make (the hypervisor's)."""
        return tuple(w for w in self._watches if w.maddr < maddr + length and maddr < w.maddr + w.length)

    def hits(self) -> tuple[Watch, ...]:
        """The watches that the last `WatchExit` hit."""
        entries = self._entries
        return tuple(
            watch
            for (watch, number), place in zip(self._applied, self._places, strict=True)
            if number == NR_BREAKPOINTS and entries[place].hit
        )

    @property
    def protected(self) -> set[Mfn]:
        """The frames whose accesses the engine announces now."""
        return set(self._protection.frames)

    def apply(self) -> None:
        """Hand the watches to the compiled part, and hold and release frames."""
        self._entry += 1
        changed = self._changed and self._take_changes()
        if changed or (self._edges and self.tables_may_differ):
            self._find_wanted(changed=changed)
        elif self._kept and min(self._kept.values()) < self._entry:
            self._hold()
        self.dirty = bool(self._kept or self._edges)

    def _take_changes(self) -> bool:
        """Make arrays of the watches, unless they are the same as before; whether they are not."""
        self._changed = False
        now = [(watch, NR_BREAKPOINTS) for watch in self._watches]
        now += [(watch, number) for number, watch in self._of_guest.items()]
        if now == self._applied:
            return False
        self._applied = now
        in_order = sorted(range(len(now)), key=lambda index: now[index][0].maddr)
        self._places = [0] * len(now)
        for place, index in enumerate(in_order):
            self._places[index] = place
        self._entries = (WatchEntry * len(now))(
            *(
                WatchEntry(watch.maddr, watch.length, int(watch.access), number=number)
                for watch, number in (now[index] for index in in_order)
            )
        )
        clock = self._clock
        clock.watches = ctypes.addressof(self._entries)
        clock.nr_watches = len(now)
        clock.watches_read = any(watch.access & Access.READ for watch, _ in now)
        self._watched, self._edges = _frames_of([watch for watch, _ in now])
        return True

    def _find_wanted(self, *, changed: bool) -> None:
        """Find out which frames are to be held, and hold them."""
        pairs = self._pairs
        if self._edges or changed:
            pairs = find_predecessors(self._clock, self._edges, self._ram.nr_frames) if self._edges else []
        if not changed and pairs == self._pairs:
            return
        self._pairs = pairs
        self._predecessors = (PredecessorEntry * len(pairs))(*(PredecessorEntry(*pair) for pair in pairs))
        self._clock.predecessors = ctypes.addressof(self._predecessors)
        self._clock.nr_predecessors = len(pairs)
        index_watches(self._clock)
        wanted = dict(self._watched)
        for before, edge in pairs:
            frame = Mfn(before >> PAGE_SHIFT)
            wanted[frame] = wanted.get(frame, PROT_ALL) & self._edges[edge >> PAGE_SHIFT]
        for frame, protection in self._wanted.items():
            # a frame held against reads slows each of them, one held against stores hardly does
            if frame not in wanted and protection & PROT_READ:
                self._kept[frame] = self._entry + _KEEP_ENTRIES
        self._wanted = wanted
        self._hold()

    def _hold(self) -> None:
        kept = self._kept = {
            frame: until for frame, until in self._kept.items() if until >= self._entry and frame not in self._wanted
        }
        self._protection.hold(dict.fromkeys(kept, PROT_EXEC | PROT_READ) | self._wanted)


def _frames_of(watches: list[Watch]) -> tuple[dict[Mfn, int], dict[int, int]]:
    """The protection of each frame that has a watch, and of each of them whose first bytes have one."""
    watched: dict[Mfn, int] = {}
    edges: dict[int, int] = {}
    for watch in watches:
        protection = PROT_EXEC if watch.access & Access.READ else PROT_EXEC | PROT_READ
        end = watch.maddr + watch.length
        for number in range(watch.maddr >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1):
            frame = Mfn(number)
            watched[frame] = watched.get(frame, PROT_ALL) & protection
            if watch.maddr < (number << PAGE_SHIFT) + _LONGEST_ACCESS - 1:
                edges[number] = watched[frame]
    return watched, edges
