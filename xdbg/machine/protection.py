"""Holds frames of RAM against stores or loads in the engine, whatever the guest's page tables say.

The engine keeps a region for each range that is held, and one for each between two of them. To make one more costs
the cube of how many there are: 2,000 take 20 seconds. So there are at most `MAX_RUNS` ranges at a time. Where more
would be wanted, those with the least between them become one; accesses to what lies between are announced then, too,
and the compiled part lets them pass (watches.c). Regions stay when their range is released; if there come to be too
many, RAM is mapped anew.
"""

import ctypes
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, Mfn

from .clock import Clock, add_watch_hook, remove_watch_hook
from .engine_state import EngineStateError, check, map_ram
from .ram import Ram

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
PROT_ALL: Final = 7

MAX_RUNS: Final = 96
_MAX_CUTS: Final = 4 * MAX_RUNS


@dataclass(frozen=True, slots=True)
class Run:
    """Frames [first, end), and what the guest may do to them."""

    first: int
    end: int
    protection: int


class Protection:
    """What the guest may do to frames of RAM, whatever its page tables say: bits 1 read, 2 write, 4 execute.

    The engine makes a region without write permission read-only for its page walk, too, which then could not set A
    and D bits in page tables there. So the region's own mark is taken back after each change: `bool readonly`, the
    third byte of a MemoryRegion, whose first is `bool ram`. The engine must find it as it left it at the next change.
    """

    def __init__(self, clock: Clock, library: ctypes.CDLL, handle: ctypes.c_void_p, ram: Ram) -> None:
        self._clock = clock
        self._library = library
        self._handle = handle
        self._ram = ram
        self._find = library.find_memory_mapping_x86_64
        self._find.restype = ctypes.c_void_p
        self._find.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._cuts: list[int] = []
        """The frames, beside the first, with which a region of the engine begins."""
        self._runs: dict[Run, int] = {}
        """What is held now, each run with the hook that announces accesses to it."""

    @property
    def frames(self) -> dict[Mfn, int]:
        """All frames that are held, with what the guest may do to them."""
        return {Mfn(frame): run.protection for run in self._runs for frame in range(run.first, run.end)}

    def hold(self, wanted: Mapping[Mfn, int]) -> None:
        """Hold these frames so, and no others but where `MAX_RUNS` does not let them be told apart."""
        runs = _runs(wanted)
        old = [run for run in self._runs if run not in runs]
        new = [run for run in runs if run not in self._runs]
        if not old and not new:
            return
        if len(self._cuts) + 2 * len(new) > _MAX_CUTS:
            old, new = list(self._runs), list(runs)
            self._release(old)
            self._map_anew()
        else:
            self._release(old)
        for run in new:
            self._set(run, PROT_ALL, run.protection)
            size = run.end - run.first << PAGE_SHIFT
            self._runs[run] = add_watch_hook(self._library, self._handle, self._clock, run.first << PAGE_SHIFT, size)
        # Splitting the engine's RAM moves its own names of machine addresses, by which it keys code and TLB.
        self._clock.code_pending = self._clock.tlb_pending = True

    def _release(self, runs: list[Run]) -> None:
        for run in runs:
            self._set(run, run.protection, PROT_ALL)
            remove_watch_hook(self._library, self._handle, self._runs.pop(run))

    def _map_anew(self) -> None:
        """Have the engine forget all its regions."""
        size = ctypes.c_uint64(self._ram.size)
        check(self._library.uc_mem_unmap(self._handle, ctypes.c_uint64(0), size), "unmap RAM")
        map_ram(self._library, self._handle, self._ram)
        self._cuts.clear()

    def _set(self, run: Run, before: int, after: int) -> None:
        for frame in (run.first, run.end):
            at = bisect_left(self._cuts, frame)
            if 0 < frame < self._ram.nr_frames and self._cuts[at : at + 1] != [frame]:
                insort(self._cuts, frame)
        regions = [run.first, *self._cuts[bisect_right(self._cuts, run.first) : bisect_left(self._cuts, run.end)]]
        if not before & PROT_WRITE:
            for region in regions:
                self._mark_read_only(region, now=False, then=True)
        maddr, size = run.first << PAGE_SHIFT, run.end - run.first << PAGE_SHIFT
        where = ctypes.c_uint64(maddr), ctypes.c_uint64(size)
        check(self._library.uc_mem_protect(self._handle, *where, ctypes.c_uint32(after)), f"protect {maddr:#x}")
        if not after & PROT_WRITE:
            for region in regions:
                self._mark_read_only(region, now=True, then=False)

    def _mark_read_only(self, frame: int, *, now: bool, then: bool) -> None:
        region = self._find(self._handle, frame << PAGE_SHIFT)
        if not region:
            raise EngineStateError(f"no region at {frame << PAGE_SHIFT:#x}")
        ram, mark = (ctypes.c_uint8.from_address(region + at) for at in (0, 2))
        if ram.value != 1 or mark.value != now:
            raise EngineStateError("memory region not laid out as expected")
        mark.value = then


def _runs(wanted: Mapping[Mfn, int]) -> dict[Run, None]:
    """The runs that hold at least these frames, in order, at most `MAX_RUNS`."""
    spans: list[tuple[int, int, int]] = []
    for frame in sorted(wanted):
        protection = wanted[frame]
        if spans and spans[-1][1] == frame and spans[-1][2] == protection:
            spans[-1] = spans[-1][0], frame + 1, protection
        else:
            spans.append((frame, frame + 1, protection))
    closest = sorted(range(1, len(spans)), key=lambda at: spans[at][0] - spans[at - 1][1])
    joined = set(closest[: max(0, len(spans) - MAX_RUNS)])
    runs: list[Run] = []
    for at, (first, end, protection) in enumerate(spans):
        if at in joined:
            runs[-1] = Run(runs[-1].first, end, runs[-1].protection & protection)
        else:
            runs.append(Run(first, end, protection))
    return dict.fromkeys(runs)
