"""How a frame's type is taken, checked and given back. Xen: get_page_type(), promote_*(), demote_*(), arch/x86/mm.c.

Taking a type that the frame has already is counting. Taking another is possible only while nobody holds the old one:

* writable: nothing to check;
* segment descriptors: each descriptor is checked (`descriptor_check`);
* L1 to L4: each present entry takes what it needs: an l1e a reference to its frame and, if it may write, the writable
  type; an l2e to l4e a reference and the type of a table one level down, which checks that table in turn. When an entry
  is refused, those before it give back what they took, and the error is the result: nothing has changed.

Giving back the last count of a table gives back what its entries hold. From then on its frame can be anything.

**Linear tables.** An entry may point at a table of its own level, read-only: at its own table (this takes nothing), or
at another one that is already checked (this takes a type count of that level). The second kind makes no chains, see
`PageInfoTable.linear`.

**TLB.** The engine keeps whole translations only. A writable one that is stale could write to what became a table or
someone else's frame, so it is flushed when a frame stops being a writable page, and when one is freed.

Functions that take raise `HypercallError` and have then taken nothing.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_ADDR_MASK,
    PTE_AVAIL,
    PTE_AVAIL_HIGH,
    PTE_DIRTY,
    PTE_GLOBAL,
    PTE_NX,
    PTE_PRESENT,
    PTE_RW,
    PTE_USER,
    PTES_PER_TABLE,
)

from .descriptor_check import check_descriptor
from .faults import HypercallError
from .page_info import (
    PGC_XEN_HEAP,
    PGT_COUNT_MASK,
    PGT_L1_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_SEG_DESC_PAGE,
    PGT_TYPE_MASK,
    PGT_VALIDATED,
    PGT_WRITABLE_PAGE,
    REFERENCE_LIMIT,
)
from .xen_slots import FIRST_XEN_SLOT, LAST_XEN_SLOT, install_domain_slots, ldt_pages, map_ldt_page

if TYPE_CHECKING:
    from .setup import Hypervisor
    from .vcpu import Vcpu

_U64: Final = (1 << 64) - 1
_GUEST_FLAGS: Final = PTE_PRESENT | PTE_RW | PTE_USER | PTE_ACCESSED | PTE_DIRTY | PTE_AVAIL | PTE_AVAIL_HIGH | PTE_NX
TABLE_DISALLOW_MASK: Final = _U64 & ~(_GUEST_FLAGS | PTE_ADDR_MASK)
"""Bits that no present l2e, l3e or l4e of a guest may have: caching, superpage, global. Xen: base_disallow_mask."""
PTE_GUEST_KERNEL: Final = 1 << 52
"""Xen's own mark of an l1e that the guest made without USER. Xen: _PAGE_GUEST_KERNEL."""
L1_DISALLOW_MASK: Final = TABLE_DISALLOW_MASK & ~PTE_GLOBAL
"""The same for an l1e of a domain without devices: no caching but write-back. Xen: l1_disallow_mask().

_PAGE_GNTTAB, which marks mappings by grant, exists in Xen's debug builds only.
"""
LINEAR_LIMIT: Final = 1 << 15
"""Linear mappings of a table that are counted. Xen: linear_pt_count, a short."""
_WRITABLE: Final = PGT_WRITABLE_PAGE | PGT_VALIDATED
_INVALID_FRAME: Final = PTE_ADDR_MASK >> 12


# -- entries as Xen stores them


def adjust_guest_l1e(l1e: int) -> int:
    """A present l1e as Xen stores it: USER always, since a PV64 kernel runs in ring 3.

    What the guest asked for stays visible: GUEST_KERNEL where it did not ask for USER, else GLOBAL.
    """
    if not l1e & PTE_USER:
        return l1e | PTE_USER | PTE_GUEST_KERNEL
    if not l1e & PTE_GUEST_KERNEL:
        return l1e | PTE_GLOBAL
    return l1e


def adjust_guest_table_entry(entry: int, pgt: int) -> int:
    """A present l2e, l3e or l4e as Xen stores it: USER always, and an l4e counts as accessed from the beginning."""
    return entry | (PTE_USER | PTE_ACCESSED if pgt == PGT_L4_PAGE_TABLE else PTE_USER)


# -- references


def put_page(hv: "Hypervisor", mfn: int) -> None:
    """Give back a reference; with the last one the frame is free, or Xen's alone if it allocated it for itself."""
    refs = hv.page_info.refs
    left = refs[mfn] - 1
    refs[mfn] = left
    if not left:
        _free_domain_page(hv, Mfn(mfn))


def _free_domain_page(hv: "Hypervisor", mfn: Mfn) -> None:
    """The last reference is gone. Xen: free_domheap_page()."""
    hv.cpu.flush_tlb()
    if hv.page_info.flags[mfn] & PGC_XEN_HEAP:
        hv.page_info.assign(mfn, 1, DOMID_XEN, PGC_XEN_HEAP)
        return
    domain = hv.domains.get(hv.page_info.owners[mfn])
    if domain is not None:
        domain.nr_pages -= 1
    hv.m2p.invalidate(mfn)
    hv.heap.free(mfn)


def get_page_type(hv: "Hypervisor", mfn: int, pgt: int) -> None:
    """Take a count of type `pgt` of a frame that the caller holds a reference to; -EINVAL if it can't be that."""
    types = hv.page_info.types
    info = types[mfn]
    if info & PGT_COUNT_MASK:
        # A table that is just being checked is not yet one: -EINVAL for who comes back to it from below.
        if info & (PGT_TYPE_MASK | PGT_VALIDATED) != pgt | PGT_VALIDATED or info & PGT_COUNT_MASK == PGT_COUNT_MASK:
            raise HypercallError(Errno.EINVAL)
        types[mfn] = info + 1
        return
    if info & (PGT_TYPE_MASK | PGT_VALIDATED) == pgt | PGT_VALIDATED:
        types[mfn] = info + 1
        return
    if info & PGT_TYPE_MASK == PGT_WRITABLE_PAGE:
        hv.cpu.flush_tlb()
    if pgt == PGT_WRITABLE_PAGE:
        types[mfn] = _WRITABLE | 1
        return
    types[mfn] = pgt | 1
    try:
        if pgt == PGT_L1_PAGE_TABLE:
            _promote_l1_table(hv, mfn)
        elif pgt == PGT_SEG_DESC_PAGE:
            _promote_segdesc_page(hv, mfn)
        else:
            _promote_table(hv, mfn, pgt)
    except HypercallError:
        types[mfn] = 0
        raise
    types[mfn] = pgt | PGT_VALIDATED | 1


def put_page_type(hv: "Hypervisor", mfn: int) -> None:
    """Give back a type count; the last one of a table gives back what its entries hold."""
    types = hv.page_info.types
    info = types[mfn]
    if info & PGT_COUNT_MASK == 1 and info < PGT_SEG_DESC_PAGE:
        # The count stays while the entries go, so that nothing can take the half-empty table.
        types[mfn] = info & ~PGT_VALIDATED
        if info & PGT_TYPE_MASK == PGT_L1_PAGE_TABLE:
            _demote_l1_table(hv, mfn)
        else:
            _demote_table(hv, mfn, info & PGT_TYPE_MASK)
        types[mfn] = info & PGT_TYPE_MASK
    else:
        types[mfn] = info - 1


def put_page_and_type(hv: "Hypervisor", mfn: int) -> None:
    """Give back a type count and a reference."""
    put_page_type(hv, mfn)
    put_page(hv, mfn)


def get_page_and_type(hv: "Hypervisor", mfn: int, domid: int, pgt: int) -> None:
    """Take a reference and a type count of a frame of `domid`; -EINVAL. Xen: get_page_and_type_from_mfn()."""
    if not hv.page_info.get_page(mfn, domid):
        raise HypercallError(Errno.EINVAL)
    try:
        get_page_type(hv, mfn, pgt)
    except HypercallError:
        put_page(hv, mfn)
        raise


# -- what entries hold


def get_page_from_l1e(hv: "Hypervisor", l1e: int, domid: int) -> None:
    """Take what a present l1e needs: its frame must be of `domid`, and can be a writable page if the entry writes.

    -EINVAL for bits that are not allowed; -EPERM for what is not RAM (no domain here has devices); -EBUSY for a frame
    that is not `domid`'s, or that is a table.
    """
    if l1e & L1_DISALLOW_MASK:
        raise HypercallError(Errno.EINVAL)
    mfn = (l1e & PTE_ADDR_MASK) >> 12
    info = hv.page_info
    if mfn >= info.nr_frames:
        raise HypercallError(Errno.EINVAL if mfn == _INVALID_FRAME else Errno.EPERM)
    count = info.refs[mfn]
    if info.owners[mfn] != domid or count >= REFERENCE_LIMIT:
        raise HypercallError(Errno.EBUSY)
    if l1e & PTE_RW:
        types = info.types
        type_info = types[mfn]
        if type_info & ~PGT_COUNT_MASK == _WRITABLE and type_info & PGT_COUNT_MASK != PGT_COUNT_MASK:
            types[mfn] = type_info + 1
        else:
            try:
                get_page_type(hv, mfn, PGT_WRITABLE_PAGE)
            except HypercallError:
                raise HypercallError(Errno.EBUSY) from None
    info.refs[mfn] = count + 1


def put_page_from_l1e(hv: "Hypervisor", l1e: int) -> None:
    """Give back what a present l1e held. A read-only one may have mapped a page of an LDT: the LDT is then unmapped."""
    mfn = (l1e & PTE_ADDR_MASK) >> 12
    info = hv.page_info
    if l1e & PTE_RW:
        info.types[mfn] -= 1
    elif info.type_of(mfn) == PGT_SEG_DESC_PAGE:
        domain = hv.domains.get(info.owners[mfn])
        for vcpu in domain.vcpus if domain is not None else ():
            destroy_ldt(hv, vcpu)
    put_page(hv, mfn)


def get_page_from_table_entry(hv: "Hypervisor", entry: int, pgt: int, table: int, domid: int) -> None:
    """Take what a present l2e, l3e or l4e of `table` (of type `pgt`) needs: a table one level down, or a linear one.

    -EINVAL for anything else. Xen: get_page_from_l2e(), get_page_from_l3e(), get_page_from_l4e().
    """
    if entry & TABLE_DISALLOW_MASK:
        raise HypercallError(Errno.EINVAL)
    mfn = (entry & PTE_ADDR_MASK) >> 12
    info = hv.page_info
    if mfn < info.nr_frames and info.type_of(mfn) == pgt:
        _get_linear_pagetable(hv, entry, pgt, table, domid)
    else:
        get_page_and_type(hv, mfn, domid, pgt - PGT_L1_PAGE_TABLE)


def put_page_from_table_entry(hv: "Hypervisor", entry: int, pgt: int, table: int) -> None:
    """Give back what a present l2e, l3e or l4e of `table` held."""
    mfn = (entry & PTE_ADDR_MASK) >> 12
    if mfn == table:
        return
    info = hv.page_info
    if info.types[mfn] & PGT_TYPE_MASK == pgt:
        _count_linear(info.linear, table, -1)
        _count_linear(info.linear, mfn, 1)
    put_page_and_type(hv, mfn)


def _get_linear_pagetable(hv: "Hypervisor", entry: int, pgt: int, table: int, domid: int) -> None:
    """An entry that points at a table of its own level. Xen: get_l4_linear_pagetable() and its like."""
    mfn = (entry & PTE_ADDR_MASK) >> 12
    info = hv.page_info
    if entry & PTE_RW:
        raise HypercallError(Errno.EINVAL)
    if mfn == table:
        return
    # Neither may be on the other end of another linear mapping: no chains.
    if info.linear.get(table, 0) < 0 or not -LINEAR_LIMIT < info.linear.get(mfn, 0) <= 0:
        raise HypercallError(Errno.EINVAL)
    get_page_and_type(hv, mfn, domid, pgt)
    _count_linear(info.linear, table, 1)
    _count_linear(info.linear, mfn, -1)


def _count_linear(linear: dict[int, int], mfn: int, change: int) -> None:
    """Add to a frame's linear count; only counts that are not zero are kept."""
    count = linear.get(mfn, 0) + change
    if count:
        linear[mfn] = count
    else:
        linear.pop(mfn, None)


# -- whole pages


def guest_slots(pgt: int) -> tuple[range, ...]:
    """The entries of a table of type `pgt` that are the guest's: all but Xen's slots of an L4."""
    if pgt == PGT_L4_PAGE_TABLE:
        return (range(FIRST_XEN_SLOT), range(LAST_XEN_SLOT + 1, PTES_PER_TABLE))
    return (range(PTES_PER_TABLE),)


def _promote_l1_table(hv: "Hypervisor", mfn: int) -> None:
    """Check an L1 and take what its entries need. Xen: promote_l1_table()."""
    first = mfn * PTES_PER_TABLE
    words = hv.ram.q
    entries = words[first : first + PTES_PER_TABLE].tolist()
    domid = hv.page_info.owners[mfn]
    done = 0
    try:
        for done, l1e in enumerate(entries):
            if l1e & PTE_PRESENT:
                get_page_from_l1e(hv, l1e, domid)
                adjusted = adjust_guest_l1e(l1e)
                if adjusted != l1e:
                    words[first + done] = adjusted
    except HypercallError:
        for l1e in entries[:done]:
            if l1e & PTE_PRESENT:
                put_page_from_l1e(hv, l1e)
        raise


def _demote_l1_table(hv: "Hypervisor", mfn: int) -> None:
    """Give back what the entries of an L1 hold. Xen: demote_l1_table()."""
    first = mfn * PTES_PER_TABLE
    for l1e in hv.ram.q[first : first + PTES_PER_TABLE].tolist():
        if l1e & PTE_PRESENT:
            put_page_from_l1e(hv, l1e)


def _promote_table(hv: "Hypervisor", mfn: int, pgt: int) -> None:
    """Check an L2, L3 or L4 and the tables below it. Xen: promote_l2_table() and its like."""
    first = mfn * PTES_PER_TABLE
    words = hv.ram.q
    entries = words[first : first + PTES_PER_TABLE].tolist()
    domid = hv.page_info.owners[mfn]
    taken: list[int] = []
    try:
        for slots in guest_slots(pgt):
            for slot in slots:
                entry = entries[slot]
                if entry & PTE_PRESENT:
                    get_page_from_table_entry(hv, entry, pgt, mfn, domid)
                    taken.append(entry)
                    adjusted = adjust_guest_table_entry(entry, pgt)
                    if adjusted != entry:
                        words[first + slot] = adjusted
    except HypercallError:
        for entry in taken:
            put_page_from_table_entry(hv, entry, pgt, mfn)
        raise
    if pgt == PGT_L4_PAGE_TABLE:
        install_domain_slots(hv, Mfn(mfn), domid)


def _demote_table(hv: "Hypervisor", mfn: int, pgt: int) -> None:
    """Give back what the entries of an L2, L3 or L4 hold. Xen: demote_l2_table() and its like."""
    first = mfn * PTES_PER_TABLE
    entries = hv.ram.q[first : first + PTES_PER_TABLE].tolist()
    for slots in guest_slots(pgt):
        for slot in slots:
            if entries[slot] & PTE_PRESENT:
                put_page_from_table_entry(hv, entries[slot], pgt, mfn)


def _promote_segdesc_page(hv: "Hypervisor", mfn: int) -> None:
    """Check each descriptor and store it with its DPL put right. Xen: validate_segdesc_page()."""
    first = mfn * PTES_PER_TABLE
    words = hv.ram.q
    for i, descriptor in enumerate(words[first : first + PTES_PER_TABLE].tolist()):
        checked = check_descriptor(descriptor)
        if checked is None:
            raise HypercallError(Errno.EINVAL)
        if checked != descriptor:
            words[first + i] = checked


def destroy_ldt(hv: "Hypervisor", vcpu: "Vcpu") -> bool:
    """Unmap the pages of a vcpu's LDT; they are mapped again when they are used. Xen: pv_destroy_ldt()."""
    if not vcpu.ldt_entries:
        return False
    pages = ldt_pages(vcpu)
    for page, mfn in pages:
        map_ldt_page(vcpu, page, None)
        put_page_and_type(hv, mfn)
    if pages:
        hv.cpu.flush_tlb()
    return bool(pages)
