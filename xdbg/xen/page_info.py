"""What Xen keeps of each frame: owner, references, type. Xen: struct page_info, asm-x86/mm.h.

* A frame has an **owner**, a domid. DOMID_XEN owns Xen's own frames; DOMID_INVALID stands for a frame that is free.
* Its **references** count everything that may reach it: one for being allocated to its owner, one for each PTE that
  maps it, one for each type reference that is held on its own (a pin, a base pointer, a page of a GDT). At zero it is
  free. So a frame that its owner gave back lives on, unusable for anybody else, until the last mapping of it is gone.
* It has one **type** at a time, and the type a count. Only at count zero may the type change: that is why no frame is
  ever a writable page and a table at once. `PGT_VALIDATED` says that the contents were checked for the type;
  `PGT_PINNED` that one count belongs to the guest's own pin.

The table is a few arrays: plain data, copied and compared as such. The rules of changing types are in
`page_table_types`.
"""

from array import array
from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import INVALID_MFN, Mfn, Pfn
from xdbg.abi.mmu import DOMID_INVALID

if TYPE_CHECKING:
    from .m2p import M2p

PGT_COUNT_MASK: Final = (1 << 25) - 1
"""Type references of a frame."""
PGT_VALIDATED: Final = 1 << 25
PGT_PINNED: Final = 1 << 26
PGT_TYPE_SHIFT: Final = 27
PGT_TYPE_MASK: Final = 7 << PGT_TYPE_SHIFT
PGT_NONE: Final = 0
PGT_L1_PAGE_TABLE: Final = 1 << PGT_TYPE_SHIFT
PGT_L2_PAGE_TABLE: Final = 2 << PGT_TYPE_SHIFT
PGT_L3_PAGE_TABLE: Final = 3 << PGT_TYPE_SHIFT
PGT_L4_PAGE_TABLE: Final = 4 << PGT_TYPE_SHIFT
PGT_ROOT_PAGE_TABLE: Final = PGT_L4_PAGE_TABLE
PGT_SEG_DESC_PAGE: Final = 5 << PGT_TYPE_SHIFT
"""A page of a GDT or LDT."""
PGT_WRITABLE_PAGE: Final = 7 << PGT_TYPE_SHIFT

PGC_ALLOCATED: Final = 1
"""One reference stands for the owner's possession; it ends when the owner gives the frame back."""
PGC_XEN_HEAP: Final = 2
"""Xen allocated the frame for itself; its owner may map it but never gets to free it or to change its type."""

REFERENCE_LIMIT: Final = (1 << 32) - 2

_TYPE_NAMES: Final = ("none", "l1", "l2", "l3", "l4", "seg_desc", "shared", "writable")


class PageInfoTable:
    """One entry for each of the machine's frames.

    `owners` holds domids, `refs` reference counts, `types` type | flags | count as PGT_* says, `flags` PGC_*.
    `linear` counts, for tables that take part in non-recursive linear mappings, uses of the frame as negative and
    entries in it as positive numbers: never both, so that linear tables make no chains. Xen: linear_pt_count.
    """

    __slots__ = ("flags", "linear", "m2p", "nr_frames", "owners", "perdomain_l3", "refs", "types")

    def __init__(self, nr_frames: int) -> None:
        self.nr_frames = nr_frames
        self.owners = array("H", [DOMID_INVALID]) * nr_frames
        self.refs = array("I", [0]) * nr_frames
        self.types = array("I", [0]) * nr_frames
        self.flags = bytearray(nr_frames)
        self.linear: dict[int, int] = {}
        self.m2p: M2p | None = None
        """The table that pairs frames with pfns, once it exists."""
        self.perdomain_l3: dict[int, Mfn] = {}
        """Each domain's own L3 in Xen's part of the address space. Xen: arch_domain.perdomain_l3_pg."""

    # -- ownership

    def owner(self, mfn: int) -> int | None:
        """The domid that owns a frame; None if it is free or not RAM."""
        if not 0 <= mfn < self.nr_frames:
            return None
        domid = self.owners[mfn]
        return None if domid == DOMID_INVALID else domid

    def assign(self, mfn: int, nr: int, domid: int, flags: int = PGC_ALLOCATED) -> None:
        """Give `nr` free frames from `mfn` on to a domain, each with one reference and no type."""
        self.owners[mfn : mfn + nr] = array("H", [domid]) * nr
        self.refs[mfn : mfn + nr] = array("I", [1]) * nr
        self.types[mfn : mfn + nr] = array("I", [0]) * nr
        self.flags[mfn : mfn + nr] = bytes((flags,)) * nr

    def release(self, mfn: int) -> None:
        """Make a frame free; nothing refers to it any more."""
        assert self.refs[mfn] == 0
        assert not self.types[mfn] & (PGT_COUNT_MASK | PGT_PINNED)
        self.owners[mfn] = DOMID_INVALID
        self.types[mfn] = 0
        self.flags[mfn] = 0

    def share_with_guest(self, mfn: int, domid: int) -> None:
        """Let a domain map one of Xen's own frames, writable, and nothing else. Xen: share_xen_page_with_guest().

        The type reference that is taken here is never given back: the frame can't become a table.
        """
        self.owners[mfn] = domid
        self.flags[mfn] = PGC_ALLOCATED | PGC_XEN_HEAP
        self.refs[mfn] = 1
        self.types[mfn] = PGT_WRITABLE_PAGE | PGT_VALIDATED | 1

    def frames_of(self, domid: int) -> list[Mfn]:
        """Every frame that a domain owns, ascending; those that Xen shares with it included."""
        return [Mfn(mfn) for mfn, owner in enumerate(self.owners) if owner == domid]

    # -- references

    def get_page(self, mfn: int, domid: int) -> bool:
        """Take a reference to a frame, if it is `domid`'s; else False. Xen: asm-x86/mm.h."""
        if not 0 <= mfn < self.nr_frames or self.owners[mfn] != domid:
            return False
        count = self.refs[mfn]
        if count >= REFERENCE_LIMIT:
            return False
        self.refs[mfn] = count + 1
        return True

    # -- looks from outside

    def type_of(self, mfn: int) -> int:
        """PGT_* type in force: PGT_NONE while nothing holds it."""
        info = self.types[mfn]
        return info & PGT_TYPE_MASK if info & PGT_COUNT_MASK else PGT_NONE

    def describe(self, mfn: int) -> str:
        """One line on a frame for people: owner, references, type."""
        owner = self.owner(mfn)
        if owner is None:
            return f"mfn {mfn:#x}: free" if 0 <= mfn < self.nr_frames else f"mfn {mfn:#x}: not RAM"
        info = self.types[mfn]
        words = [f"mfn {mfn:#x}: owner {owner}", f"refs {self.refs[mfn]}"]
        words.append(f"type {_TYPE_NAMES[info >> PGT_TYPE_SHIFT]} x {info & PGT_COUNT_MASK}")
        if info & PGT_VALIDATED:
            words.append("validated")
        if info & PGT_PINNED:
            words.append("pinned")
        return ", ".join(words)

    def mfn_of(self, domid: int, pfn: Pfn) -> Mfn | None:
        """The first frame of `domid` that the M2P pairs with `pfn`, or None.

        The M2P of a domain's own frames is the guest's to write: several frames may claim one pfn.
        """
        if self.m2p is None or not 0 <= pfn < INVALID_MFN:
            return None
        return next((mfn for mfn in self.m2p.frames_with(pfn) if self.owners[mfn] == domid), None)
