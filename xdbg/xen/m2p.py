"""The machine-to-physical table: the pfn of every frame, readable by all guests. Xen: RO_MPT, asm-x86/mm.h.

One word a frame, at MACH2PHYS_VIRT_START. Frames that are no domain's memory read as all ones (INVALID_M2P_ENTRY):
a zero there would make Xen's frames look like pfn 0. Xen maps the table itself, read-only and for user mode (a PV
guest's kernel runs there), by an L3 that slot 256 of every L4 leads to.
"""

from array import array
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

    __slots__ = ("frame", "l3", "nr_table_frames", "words")

    def __init__(self, hv: "Hypervisor") -> None:
        nr_frames = hv.page_info.nr_frames
        self.nr_table_frames = -(-nr_frames // PTES_PER_TABLE)
        self.frame = hv.heap.alloc(DOMID_XEN, self.nr_table_frames)
        """Its first frame; the others follow."""
        first = self.frame * PTES_PER_TABLE
        words = hv.ram.q[first : first + self.nr_table_frames * PTES_PER_TABLE]
        words[:] = array("Q", [INVALID_M2P_ENTRY]) * len(words)
        self.words = words[:nr_frames]
        hv.page_info.pfns = self.words

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
        return Pfn(int(self.words[mfn])) if 0 <= mfn < len(self.words) else Pfn(INVALID_M2P_ENTRY)

    def set(self, mfn: Mfn, pfn: int) -> None:
        """Pair a frame with a pfn (any 64-bit number: guests choose it for their own frames)."""
        self.words[mfn] = pfn

    def set_range(self, mfn: Mfn, pfn: Pfn, nr: int) -> None:
        """Pair `nr` frames with as many pfns, both in a row."""
        self.words[mfn : mfn + nr] = array("Q", range(pfn, pfn + nr))

    def invalidate(self, mfn: Mfn) -> None:
        """The frame is in no p2m any more."""
        self.words[mfn] = INVALID_M2P_ENTRY
