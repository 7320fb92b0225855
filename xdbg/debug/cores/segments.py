"""The virtual memory in the core of a domain: runs of pages that follow each other in memory and in the file.

The address space is that of the vcpu that has the CPU, as a debugger sees it: above, the kernel's; below, user mode's,
and the kernel's where user mode has nothing. Xen's own part is left out. Physical addresses are the machine's, as they
stand in the page tables: a reader that finds no segment for an address (drgn, for other processes) walks these.

A guest's page tables can map one frame any number of times, far more often than a file can hold. Linux does: a page
that says "no frame" stands for all that its table of pfns has room for, a quarter of a million times. So a frame is
shown in some places only, be it a page or a page table. Tables, pages and segments have limits, too.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE, Mfn
from xdbg.abi.x86 import (
    HYPERVISOR_VIRT_END,
    PTE_ADDR_MASK,
    PTE_NX,
    PTE_PRESENT,
    PTE_PSE,
    PTE_RW,
    PTES_PER_TABLE,
)
from xdbg.machine.ram import Ram
from xdbg.xen.domain import Domain
from xdbg.xen.m2p import INVALID_M2P_ENTRY
from xdbg.xen.vcpu import Vcpu

MAX_SEGMENTS: Final = 60_000
"""ELF has room for some 65,000 program headers without detours."""
MAPPED_PER_FRAME: Final = 4
"""Pages of virtual memory that are looked at, for each frame of the machine, beside `MAPPED_ANYHOW`."""
MAPPED_ANYHOW: Final = 1 << 18
"""Pages of virtual memory that are looked at in the smallest machine."""
MAX_PLACES: Final = 16
"""In so many places a frame is shown, and a page table is followed."""
MAX_TABLES: Final = 1 << 16
"""Page tables that are looked at: enough for 128 GiB."""

_PF_X, _PF_W, _PF_R = 1, 2, 4
_LOWER_SLOTS: Final = 256
_FIRST_UPPER_SLOT: Final = HYPERVISOR_VIRT_END >> 39 & 511
"""The first l4 entry behind Xen's own."""
_SIGN: Final = 0xFFFF_0000_0000_0000

_Page = tuple[int, int, int, int]
"""vaddr; 0, or 1 for what another address space hides; maddr; PF_* flags."""


@dataclass(slots=True)
class Segment:
    """A run of virtual memory. `offset`: where it begins in the pages that the file has; `flags`: PF_*."""

    vaddr: int
    offset: int
    length: int
    paddr: int
    flags: int

    def goes_on(self, vaddr: int, offset: int, paddr: int, flags: int) -> bool:
        """Whether a page of these is the next one of the run."""
        here = (self.vaddr + self.length, self.offset + self.length, self.paddr + self.length, self.flags)
        return here == (vaddr, offset, paddr, flags)


@dataclass(frozen=True, slots=True)
class SegmentList:
    """The segments, ascending.

    `left_out`: a limit has ended the search. `repeats`: frames have more places than are shown.
    """

    segments: Sequence[Segment]
    left_out: bool
    repeats: bool


def pages_of(domain: Domain) -> list[tuple[int, Mfn]]:
    """The domain's pages that have a pfn: (pfn, mfn), ascending."""
    m2p = domain.hv.m2p
    found = ((int(m2p.get(mfn)), mfn) for mfn in domain.hv.page_info.frames_of(domain.domid))
    return sorted(page for page in found if page[0] != INVALID_M2P_ENTRY)


def find_segments(vcpu: Vcpu, frames: Sequence[Mfn]) -> SegmentList:
    """The segments of a vcpu's address space, of those frames that are in the file; `frames`: these, in its order."""
    ram = vcpu.domain.hv.ram
    places = array("q", [-1]) * ram.nr_frames
    for index, mfn in enumerate(frames):
        places[mfn] = index << PAGE_SHIFT
    segments: list[Segment] = []
    tables = _Tables(ram)
    run: Segment | None = None
    for vaddr, _, maddr, flags in tables.address_space(vcpu):
        if len(segments) >= MAX_SEGMENTS:
            return SegmentList(segments, left_out=True, repeats=tables.repeats)
        frame = maddr >> PAGE_SHIFT
        place = places[frame] if frame < ram.nr_frames else -1
        if place < 0 or tables.seen_enough(frame):
            continue
        if run is not None and run.goes_on(vaddr, place, maddr, flags):
            run.length += PAGE_SIZE
        else:
            run = Segment(vaddr, place, PAGE_SIZE, maddr, flags)
            segments.append(run)
    return SegmentList(segments, tables.left_out, tables.repeats)


class _Tables:
    """The page tables of one machine, walked with limits."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._tables_left = MAX_TABLES
        self._pages_left = MAPPED_ANYHOW + MAPPED_PER_FRAME * ram.nr_frames
        self._places = array("B", [0]) * ram.nr_frames
        self.left_out = False
        """A limit has been reached."""
        self.repeats = False
        """A frame has more places than are shown."""

    def seen_enough(self, frame: int) -> bool:
        """Count one more place of a frame. Returns whether it is one too many."""
        if self._places[frame] == MAX_PLACES:
            self.repeats = True
            return True
        self._places[frame] += 1
        return False

    def address_space(self, vcpu: Vcpu) -> Iterator[_Page]:
        """The mapped pages that a debugger sees, ascending, each once."""
        lower = self._slots(vcpu.guest_table, 0, _LOWER_SLOTS, 1)
        if vcpu.guest_table_user is not None:
            lower = merge(self._slots(vcpu.guest_table_user, 0, _LOWER_SLOTS, 0), lower)
        last = -1
        for page in lower:
            if page[0] != last:
                last = page[0]
                yield page
        yield from self._slots(vcpu.guest_table, _FIRST_UPPER_SLOT, PTES_PER_TABLE, 0)

    def _slots(self, l4: Mfn, first: int, end: int, hidden: int) -> Iterator[_Page]:
        """What the l4 entries [first, end) map; `hidden` goes into each page."""
        return self._table(l4, 4, 0, (first, end), PTE_RW, hidden)

    def _table(
        self, table: int, level: int, base: int, indices: tuple[int, int], rights: int, hidden: int
    ) -> Iterator[_Page]:
        if table >= self._ram.nr_frames or self.seen_enough(table):
            return
        if not self._tables_left:
            self.left_out = True
            return
        self._tables_left -= 1
        first, end = indices
        shift = PAGE_SHIFT + 9 * (level - 1)
        at = table * PTES_PER_TABLE
        for index, entry in enumerate(self._ram.q[at + first : at + end].tolist(), first):
            if not entry & PTE_PRESENT:
                continue
            vaddr = base | index << shift
            if level == 4 and index >= _LOWER_SLOTS:
                vaddr |= _SIGN
            allowed = rights & (entry | PTE_NX) | entry & PTE_NX
            target = entry & PTE_ADDR_MASK
            if level == 1 or (entry & PTE_PSE and level < 4):
                flags = _PF_R | (_PF_W if allowed & PTE_RW else 0) | (0 if allowed & PTE_NX else _PF_X)
                size = 1 << shift
                for offset in range(0, size, PAGE_SIZE):
                    if not self._pages_left:
                        self.left_out = True
                        return
                    self._pages_left -= 1
                    yield vaddr + offset, hidden, (target & ~(size - 1)) + offset, flags
            else:
                below = (0, PTES_PER_TABLE)
                yield from self._table(target >> PAGE_SHIFT, level - 1, vaddr, below, allowed, hidden)
