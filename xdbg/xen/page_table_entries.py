"""Changing one entry of a live page table, with all checks. Xen: mod_l1_entry() to mod_l4_entry(), arch/x86/mm.c.

First the new entry takes what it needs, then it is stored, then the old one gives back what it held: an update that is
refused has changed nothing. An update that changes neither frame nor write permission nor presence needs no counting.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_ADDR_MASK,
    PTE_DIRTY,
    PTE_PCD,
    PTE_PRESENT,
    PTE_PSE,
    PTE_PWT,
    PTE_RW,
    PTES_PER_TABLE,
)

from .faults import HypercallError
from .page_info import PGT_L4_PAGE_TABLE
from .page_table_types import (
    L1_DISALLOW_MASK,
    TABLE_DISALLOW_MASK,
    adjust_guest_l1e,
    adjust_guest_table_entry,
    get_page_from_l1e,
    get_page_from_table_entry,
    put_page_from_l1e,
    put_page_from_table_entry,
)
from .xen_slots import FIRST_XEN_SLOT, LAST_XEN_SLOT

if TYPE_CHECKING:
    from .setup import Hypervisor

_COUNTED: Final = PTE_ADDR_MASK | PTE_PRESENT | PTE_RW | PTE_PWT | PTE_PCD | PTE_PSE
"""What must be the same for an update without counting. Xen: ~FASTPATH_FLAG_WHITELIST."""
_AD: Final = PTE_ACCESSED | PTE_DIRTY


def mod_l1_entry(hv: "Hypervisor", at: int, new: int, domid: int, *, preserve_ad: bool = False) -> None:
    """Store an l1e at index `at` of `ram.q`; its frame must be of `domid`. Raises as `get_page_from_l1e`."""
    words = hv.ram.q
    old = words[at]
    if new & PTE_PRESENT:
        if new & L1_DISALLOW_MASK:
            raise HypercallError(Errno.EINVAL)
        new = adjust_guest_l1e(new)
        if not (old ^ new) & _COUNTED:
            words[at] = new | old & _AD if preserve_ad else new
            return
        get_page_from_l1e(hv, new, domid)
    words[at] = new | old & _AD if preserve_ad else new
    if old & PTE_PRESENT:
        put_page_from_l1e(hv, old)


def write_l1_entry(hv: "Hypervisor", at: int, new: int, domid: int) -> None:
    """Store an l1e as `mod_l1_entry`, with all checks even if little changes. Xen: ptwr_emulated_update().

    So an entry that maps another domain's frame by grant can't be written back as it is.
    """
    words = hv.ram.q
    old = words[at]
    if new & PTE_PRESENT:
        get_page_from_l1e(hv, new, domid)
        new = adjust_guest_l1e(new)
    words[at] = new
    if old & PTE_PRESENT:
        put_page_from_l1e(hv, old)


def mod_table_entry(hv: "Hypervisor", at: int, new: int, pgt: int, domid: int, *, preserve_ad: bool = False) -> None:
    """Store an l2e, l3e or l4e at index `at` of `ram.q`, in a table of type `pgt`; -EINVAL.

    An l4e in one of Xen's slots is -EINVAL, too.
    """
    if pgt == PGT_L4_PAGE_TABLE and FIRST_XEN_SLOT <= at % PTES_PER_TABLE <= LAST_XEN_SLOT:
        raise HypercallError(Errno.EINVAL)
    words = hv.ram.q
    table = at // PTES_PER_TABLE
    old = words[at]
    if new & PTE_PRESENT:
        if new & TABLE_DISALLOW_MASK:
            raise HypercallError(Errno.EINVAL)
        new = adjust_guest_table_entry(new, pgt)
        if not (old ^ new) & _COUNTED:
            words[at] = new | old & _AD if preserve_ad else new
            return
        get_page_from_table_entry(hv, new, pgt, table, domid)
    words[at] = new | old & _AD if preserve_ad else new
    if old & PTE_PRESENT:
        put_page_from_table_entry(hv, old, pgt, table)
