"""Frame numbers and addresses, one type each, so that mypy refuses a mix-up. Xen: include/xen/mm.h.

====== ==========================================================================
mfn    a frame of the machine's RAM; maddr is the byte address in it
pfn    the guest's own, dense numbering of its frames
gfn    what the guest puts in page tables; for a PV guest gfn == mfn
vaddr  a virtual address; it means something only together with a cr3
====== ==========================================================================
"""

from typing import Final, NewType

Mfn = NewType("Mfn", int)
Pfn = NewType("Pfn", int)
Gfn = NewType("Gfn", int)
Maddr = NewType("Maddr", int)
Vaddr = NewType("Vaddr", int)

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1
"""Bits of an address inside its page (note: Xen's PAGE_MASK is the complement)."""

INVALID_MFN: Final = Mfn(0xFFFF_FFFF_FFFF_FFFF)
"""What M2P and p2m tables hold where there is no frame."""


def mfn_to_maddr(mfn: Mfn) -> Maddr:
    """The first byte of a frame."""
    return Maddr(mfn << PAGE_SHIFT)


def maddr_to_mfn(maddr: Maddr) -> Mfn:
    """The frame that holds a byte of RAM."""
    return Mfn(maddr >> PAGE_SHIFT)
