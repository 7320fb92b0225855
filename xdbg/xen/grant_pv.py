"""The page table entries of grant mappings. Xen: arch/x86/pv/grant_table.c.

A present l1e may point at another domain's frame only if it was written here. What it holds, a reference and maybe the
writable type, was taken by who maps the grant, and is given back like that of any other l1e when a guest overwrites the
entry or its table goes. Then the mapping's pins remain: it can't be unmapped any more, since no entry is left to show.
"""

from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, Maddr, Mfn
from xdbg.abi.grant_table import Gntmap, Gntst
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_ADDR_MASK,
    PTE_AVAIL,
    PTE_DIRTY,
    PTE_NX,
    PTE_PRESENT,
    PTE_RW,
    PTE_SIZE,
    PTE_USER,
    PTES_PER_TABLE,
)

from .events import MemoryWritten
from .grant_access import GrantError
from .mm import guest_l1e
from .page_info import PGT_L1_PAGE_TABLE
from .page_table_types import adjust_guest_l1e, put_page_from_l1e
from .vcpu import Vcpu

_GUEST_AVAIL_SHIFT: Final = 16
_PTE_AVAIL_SHIFT: Final = 9


def grant_to_pte_flags(flags: int) -> int:
    """The bits of an l1e for GNTMAP_* flags, as the guest would have asked for them."""
    bits = PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_NX
    if flags & Gntmap.APPLICATION_MAP:
        bits |= PTE_USER
    if not flags & Gntmap.READONLY:
        bits |= PTE_RW
    return bits | flags >> _GUEST_AVAIL_SHIFT << _PTE_AVAIL_SHIFT & PTE_AVAIL


def create_grant_pv_mapping(vcpu: Vcpu, addr: int, mfn: Mfn, flags: int) -> None:
    """Store the l1e of a mapping; what the old one held is given back.

    `addr` is the virtual address to map at, or with GNTMAP_contains_pte the machine address of the l1e. Raises
    `GrantError` (GNTST_general_error) if there is no L1 table of the caller's.
    """
    hv = vcpu.domain.hv
    at = _l1e_at(vcpu, addr, flags)
    old = hv.ram.q[at]
    _store(vcpu, at, adjust_guest_l1e(mfn << PAGE_SHIFT | grant_to_pte_flags(flags)))
    if old & PTE_PRESENT:
        put_page_from_l1e(hv, old)


def replace_grant_pv_mapping(vcpu: Vcpu, addr: int, mfn: Mfn, new_addr: int, flags: int) -> None:
    """Take the l1e of a mapping away; with a `new_addr` the l1e of that address moves to its place.

    Nothing is given back: the caller owns what the mapping held. The entry must still be the mapping's, by frame and
    write permission; else `GrantError` (GNTST_general_error), and an entry that was moved is lost.
    """
    hv = vcpu.domain.hv
    new = 0
    if new_addr:
        if flags & Gntmap.CONTAINS_PTE:
            raise GrantError(Gntst.GENERAL_ERROR)
        new_at = _l1e_at(vcpu, new_addr, 0)
        new = hv.ram.q[new_at]
        _store(vcpu, new_at, 0)
    try:
        at = _l1e_at(vcpu, addr, flags)
        old = hv.ram.q[at]
        wanted = mfn << PAGE_SHIFT | grant_to_pte_flags(flags)
        if (old ^ wanted) & (PTE_ADDR_MASK | PTE_PRESENT | PTE_RW):
            raise GrantError(Gntst.GENERAL_ERROR)
        _store(vcpu, at, new)
    except GrantError:
        if new & PTE_PRESENT:
            put_page_from_l1e(hv, new)
        raise


def _l1e_at(vcpu: Vcpu, addr: int, flags: int) -> int:
    """Index in `ram.q` of the l1e that is meant, in an L1 table of the caller's; raises `GrantError`."""
    at: int | None = addr // PTE_SIZE
    if not flags & Gntmap.CONTAINS_PTE:
        at = guest_l1e(vcpu, addr)
    elif addr % PTE_SIZE:
        at = None
    if at is not None:
        info = vcpu.domain.hv.page_info
        table = at // PTES_PER_TABLE
        if info.owner(table) == vcpu.domain.domid and info.type_of(table) == PGT_L1_PAGE_TABLE:
            return at
    raise GrantError(Gntst.GENERAL_ERROR)


def _store(vcpu: Vcpu, at: int, l1e: int) -> None:
    hv = vcpu.domain.hv
    hv.ram.q[at] = l1e
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(Maddr(at * PTE_SIZE), PTE_SIZE))
