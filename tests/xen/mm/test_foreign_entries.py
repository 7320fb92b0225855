"""Page table entries that show another domain's frame: only mappings by grant, and only as they were made."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.grant_table import Gntmap
from xdbg.abi.x86 import PTE_ACCESSED, PTE_ADDR_MASK, PTE_DIRTY, PTE_PRESENT, PTE_RW, PTES_PER_TABLE
from xdbg.xen.audit import audit
from xdbg.xen.faults import HypercallError
from xdbg.xen.page_table_entries import write_l1_entry
from xdbg.xen.setup import Hypervisor

from . import conftest as paged
from .test_domain_kill import L1, add_domain, grant, map_grant

PAGE = 20


@pytest.fixture
def mapper() -> Any:
    """A domain that has mapped a frame of another at `PAGE`."""
    hv = Hypervisor(3 * paged.NR_PAGES)
    mapper, granter = add_domain(hv), add_domain(hv)
    grant(granter, mapper.domain.domid, 30)
    assert map_grant(mapper, granter.domain.domid, PAGE, Gntmap.HOST_MAP).status == 0
    assert mapper.entry(L1, PAGE) & PTE_ADDR_MASK == granter.mfn(30) << 12
    return mapper


def test_bits_that_are_not_checked_can_be_changed_by_a_hypercall(mapper: Any) -> None:
    entry = mapper.entry(L1, PAGE)
    changed = entry & ~(PTE_ACCESSED | PTE_DIRTY) | 0x200
    assert mapper.mmu_update((mapper.slot(L1, PAGE), changed)) == 0
    assert mapper.entry(L1, PAGE) == changed
    audit(mapper.hv)


def test_but_not_by_a_store_to_the_table(mapper: Any) -> None:
    entry = mapper.entry(L1, PAGE)
    at = mapper.mfn(L1) * PTES_PER_TABLE + PAGE
    with pytest.raises(HypercallError) as caught:
        write_l1_entry(mapper.hv, at, entry | 0x200, mapper.domain.domid)
    assert caught.value.errno == Errno.EBUSY
    assert mapper.entry(L1, PAGE) == entry
    audit(mapper.hv)


def test_nor_can_it_be_copied_or_get_other_rights(mapper: Any) -> None:
    entry = mapper.entry(L1, PAGE)
    for slot, value in ((PAGE + 1, entry), (PAGE, entry ^ PTE_RW), (PAGE + 1, entry & ~PTE_RW)):
        assert mapper.mmu_update((mapper.slot(L1, slot), value)) == -Errno.EBUSY
    assert mapper.entry(L1, PAGE) == entry
    audit(mapper.hv)


def test_a_table_with_one_can_be_dropped_and_not_be_checked_again(mapper: Any) -> None:
    """What an entry holds goes with its table; no validation takes it again."""
    entry = mapper.entry(L1, PAGE)
    mapper.make_read_only(8)
    mapper.write_entries(8, {0: entry})
    assert mapper.pin(8, 1) == -Errno.EBUSY
    mapper.write_entries(8, {0: entry & ~PTE_PRESENT})
    assert mapper.pin(8, 1) == 0
    audit(mapper.hv)
