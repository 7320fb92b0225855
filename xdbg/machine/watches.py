"""Data watch points of a CPU, by machine address. How a hit is found and made exact: watches.c.

A watched frame is protected in the engine: against stores, or for a read watch against reads, too. The guest can not
see that: its page tables say what they said. Protecting costs about a millisecond, so it is done at the next entry,
only for what differs, and frames no longer watched stay protected for a while: a debugger takes all out and puts all
in at each stop.

An access that begins on the page before and runs on into a watched page is not announced by the engine in time. If a
watch covers the first bytes of its frame, the frames of all pages that lie before it in the present address space are
protected too. They are looked for at each entry before which page tables may have changed.
"""

import ctypes
from collections.abc import Iterator
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE, Mfn

from .clock import (
    Clock,
    Event,
    PredecessorEntry,
    WatchEntry,
    add_watch_hook,
    find_predecessors,
    remove_watch_hook,
)
from .protection import PROT_ALL, PROT_EXEC, PROT_READ, Protection
from .ram import Ram
from .stoppoints import Access, Watch

_KEEP_ENTRIES: Final = 64
"""For how many entries an unwatched frame stays protected."""
_LONGEST_ACCESS: Final = 16
"""What one access can have at most: it reaches one byte less into the next page."""


class Watches:
    """The watches, in the order in which they were added."""

    def __init__(self, clock: Clock, library: ctypes.CDLL, handle: ctypes.c_void_p, ram: Ram) -> None:
        self._clock = clock
        self._library = library
        self._handle = handle
        self._ram = ram
        self._frames = Protection(library, handle)
        self._watches: list[Watch] = []
        self._applied: list[Watch] = []
        self._entries: ctypes.Array[WatchEntry] = (WatchEntry * 0)()
        self._predecessors: ctypes.Array[PredecessorEntry] = (PredecessorEntry * 0)()
        self._wanted: dict[Mfn, int] = {}
        self._protection: dict[Mfn, int] = {}
        self._hooks: dict[Mfn, int] = {}
        self._unwatched_for: dict[Mfn, int] = {}
        self._has_edges = False
        self.dirty = False

    def add(self, watch: Watch) -> None:
        """Watch from the next entry on; a second equal watch is the same."""
        self._ram.check(watch.maddr, watch.length)
        if watch not in self._watches:
            self._watches.append(watch)
        self.dirty = True

    def remove(self, watch: Watch) -> None:
        """Undo `add`; nothing happens if it is not there."""
        if watch in self._watches:
            self._watches.remove(watch)
        self.dirty = True

    def clear(self) -> None:
        """Remove all."""
        self._watches.clear()
        self.dirty = True

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._watches)

    def __len__(self) -> int:
        return len(self._watches)

    def overlapping(self, maddr: int, length: int) -> tuple[Watch, ...]:
        """The watches that cover any of these bytes: for stores that the CPU does not make (the hypervisor's)."""
        return tuple(w for w in self._watches if w.maddr < maddr + length and maddr < w.maddr + w.length)

    def hits(self) -> tuple[Watch, ...]:
        """The watches that the last `WatchExit` hit."""
        return tuple(watch for watch, entry in zip(self._applied, self._entries, strict=True) if entry.hit)

    @property
    def protected(self) -> set[Mfn]:
        """The frames whose accesses the engine announces now."""
        return set(self._protection)

    def apply(self) -> None:
        """Hand the watches to the compiled part, and protect and release frames."""
        changed = self._watches != self._applied
        if changed:
            self._applied = list(self._watches)
            self._entries = (WatchEntry * len(self._applied))(
                *(WatchEntry(w.maddr, w.length, int(w.access), 0) for w in self._applied)
            )
            self._clock.watches = ctypes.addressof(self._entries)
            self._clock.nr_watches = len(self._applied)
            self._clock.watches_read = any(w.access & Access.READ for w in self._applied)
        if changed or (self._has_edges and self._tables_may_differ()):
            self._wanted = self._find_wanted()
        self._protect(self._wanted)
        self.dirty = bool(self._unwatched_for or self._has_edges)

    def _tables_may_differ(self) -> bool:
        """Might page tables have changed since the last entry? Not if that came back for its deadline."""
        clock = self._clock
        return bool(clock.event != Event.DEADLINE or clock.cr3_pending or clock.tlb_pending)

    def _find_wanted(self) -> dict[Mfn, int]:
        """The protection of each frame; what is not in it is not protected."""
        wanted: dict[Mfn, int] = {}
        edges: dict[int, int] = {}
        for watch in self._applied:
            protection = PROT_EXEC if watch.access & Access.READ else PROT_EXEC | PROT_READ
            end = watch.maddr + watch.length
            for frame in range(watch.maddr >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1):
                wanted[Mfn(frame)] = wanted.get(Mfn(frame), PROT_ALL) & protection
                if watch.maddr < (frame << PAGE_SHIFT) + _LONGEST_ACCESS - 1:
                    edges[frame << PAGE_SHIFT] = wanted[Mfn(frame)]
        pairs = [pair for edge in edges for pair in find_predecessors(self._clock, edge)]
        for before, edge in pairs:
            frame = Mfn(before >> PAGE_SHIFT)
            wanted[frame] = wanted.get(frame, PROT_ALL) & edges[edge]
        self._predecessors = (PredecessorEntry * len(pairs))(*(PredecessorEntry(*pair) for pair in pairs))
        self._clock.predecessors = ctypes.addressof(self._predecessors)
        self._clock.nr_predecessors = len(pairs)
        self._has_edges = bool(edges)
        return wanted

    def _protect(self, wanted: dict[Mfn, int]) -> None:
        changed = False
        for frame, protection in wanted.items():
            self._unwatched_for.pop(frame, None)
            changed |= self._set_protection(frame, protection)
        for frame in [frame for frame in self._protection if frame not in wanted]:
            # a frame held against reads slows each of them, one held against stores hardly does
            age = self._unwatched_for[frame] = self._unwatched_for.get(frame, 0) + 1
            if age > _KEEP_ENTRIES or not self._protection[frame] & PROT_READ:
                del self._unwatched_for[frame]
                changed |= self._set_protection(frame, PROT_ALL)
        if changed:
            # splitting the engine's RAM moves its own names of machine addresses, by which it keys code and TLB
            self._clock.code_pending = self._clock.tlb_pending = True

    def _set_protection(self, frame: Mfn, protection: int) -> bool:
        before = self._protection.get(frame, PROT_ALL)
        if before == protection:
            return False
        self._frames.set(frame << PAGE_SHIFT, PAGE_SIZE, before, protection)
        if protection == PROT_ALL:
            del self._protection[frame]
            remove_watch_hook(self._library, self._handle, self._hooks.pop(frame))
        else:
            self._protection[frame] = protection
            if frame not in self._hooks:
                at = frame << PAGE_SHIFT
                self._hooks[frame] = add_watch_hook(self._library, self._handle, self._clock, at, PAGE_SIZE)
        return True
