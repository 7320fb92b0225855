"""The machine-to-physical table: the pfn of every frame, readable by all guests. Xen: RO_MPT, asm-x86/mm.h.

One word a frame, at MACH2PHYS_VIRT_START. Frames that are no domain's memory read as all ones (INVALID_M2P_ENTRY):
a zero there would make Xen's frames look like pfn 0. Xen maps the table itself, read-only and for user mode (a PV
guest's kernel runs there), by an L3 that slot 256 of every L4 leads to.
"""

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import INVALID_MFN, PAGE_SHIFT, Mfn, Pfn
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.x86 import PTE_ACCESSED, PTE_DIRTY, PTE_NX, PTE_PRESENT, PTE_USER, PTES_PER_TABLE

if TYPE_CHECKING:
    from .setup import Hypervisor

INVALID_M2P_ENTRY: Final = int(INVALID_MFN)
"""What the table holds for a frame that is not in any domain's p2m."""

_TABLE: Final = PTE_PRESENT | PTE_USER | PTE_ACCESSED
_LEAF: Final = PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY | PTE_NX


class M2p:
    """The table of the machine `hv`, all invalid at first. `l3` is the root of the mapping that guests read it by."""

    __slots__ = ("first", "frame", "l3", "nr_frames", "nr_table_frames", "ram")

    def __init__(self, hv: "Hypervisor") -> None:
        self.ram = hv.ram
        self.nr_frames = hv.page_info.nr_frames
        self.nr_table_frames = -(-self.nr_frames // PTES_PER_TABLE)
        self.frame = hv.heap.alloc(DOMID_XEN, self.nr_table_frames)
        """Its first frame; the others follow."""
        self.first = self.frame * PTES_PER_TABLE
        """Index in `ram.q` of the entry of frame 0."""
        nr_words = self.nr_table_frames * PTES_PER_TABLE
        hv.ram.q[self.first : self.first + nr_words] = array("Q", [INVALID_M2P_ENTRY]) * nr_words
        hv.page_info.m2p = self

        self.l3 = hv.heap.alloc(DOMID_XEN)
        nr_l1 = -(-self.nr_table_frames // PTES_PER_TABLE)
        l1 = hv.heap.alloc(DOMID_XEN, nr_l1)
        for i in range(self.nr_table_frames):
            hv.ram.q[l1 * PTES_PER_TABLE + i] = (self.frame + i) << PAGE_SHIFT | _LEAF
        nr_l2 = -(-nr_l1 // PTES_PER_TABLE)
        l2 = hv.heap.alloc(DOMID_XEN, nr_l2)
        for i in range(nr_l1):
            hv.ram.q[l2 * PTES_PER_TABLE + i] = (l1 + i) << PAGE_SHIFT | _TABLE
        for i in range(nr_l2):
            hv.ram.q[self.l3 * PTES_PER_TABLE + i] = (l2 + i) << PAGE_SHIFT | _TABLE

    @property
    def table_frames(self) -> range:
        """The frames of the table itself."""
        return range(self.frame, self.frame + self.nr_table_frames)

    def get(self, mfn: Mfn) -> Pfn:
        """The pfn of a frame, INVALID_M2P_ENTRY if it has none."""
        return Pfn(int(self.ram.q[self.first + mfn])) if 0 <= mfn < self.nr_frames else Pfn(INVALID_M2P_ENTRY)

    def set(self, mfn: Mfn, pfn: int) -> None:
        """Pair a frame with a pfn (any 64-bit number: guests choose it for their own frames)."""
        self.ram.q[self.first + mfn] = pfn

    def set_range(self, mfn: Mfn, pfn: Pfn, nr: int) -> None:
        """Pair `nr` frames with as many pfns, both in a row."""
        first = self.first + mfn
        self.ram.q[first : first + nr] = array("Q", range(pfn, pfn + nr))

    def invalidate(self, mfn: Mfn) -> None:
        """The frame is in no p2m any more."""
        self.ram.q[self.first + mfn] = INVALID_M2P_ENTRY

    def frames_with(self, pfn: Pfn) -> Iterator[Mfn]:
        """Every frame that is paired with `pfn`, ascending."""
        pattern = pfn.to_bytes(8, "little")
        raw = bytes(self.ram.buffer[self.first * 8 : (self.first + self.nr_frames) * 8])
        at = raw.find(pattern)
        while at >= 0:
            if at % 8 == 0:
                yield Mfn(at // 8)
            at = raw.find(pattern, at + 1)
