"""Types of frames: pins, base pointers, validation of whole trees and its undoing, linear tables."""

from itertools import pairwise
from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.mmu import DOMID_IO, DOMID_SELF, DOMID_XEN, MmuextOp
from xdbg.abi.x86 import PTE_ACCESSED, PTE_ADDR_MASK, PTE_GLOBAL, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.xen.audit import audit
from xdbg.xen.faults import AuditError
from xdbg.xen.page_info import (
    PGT_L1_PAGE_TABLE,
    PGT_L2_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_NONE,
    PGT_PINNED,
    PGT_WRITABLE_PAGE,
)
from xdbg.xen.page_table_types import LINEAR_LIMIT

L4, L3, L2, L1, FREE = 4, 5, 6, 7, 8
WRITABLE = PTE_PRESENT | PTE_RW | PTE_USER
READ_ONLY = PTE_PRESENT | PTE_USER


def test_pinning_checks_a_whole_tree_and_unpinning_gives_all_of_it_back(guest: Any) -> None:
    types = guest.hv.page_info
    before = types.refs.tobytes()
    guest.make_read_only(8, 9, 10, 11)
    pinned_from = types.refs.tobytes()
    guest.write_entries(8, {0: guest.pte(9), 300: guest.pte(9)})
    guest.write_entries(9, {1: guest.pte(10)})
    guest.write_entries(10, {2: guest.pte(11)})
    guest.write_entries(11, {3: guest.pte(30), 4: guest.pte(31, READ_ONLY)})
    assert guest.pin(8, 4) == 0
    assert [types.type_of(guest.mfn(pfn)) >> 27 for pfn in (8, 9, 10, 11)] == [4, 3, 2, 1]
    guest.audit()
    assert guest.unpin(8) == 0
    assert [types.type_of(guest.mfn(pfn)) for pfn in (8, 9, 10, 11)] == [PGT_NONE] * 4
    assert types.refs.tobytes() == pinned_from
    for pfn in (8, 9, 10, 11):
        assert guest.map(pfn, guest.pte(pfn)) == 0
    assert types.refs.tobytes() == before


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_failure_deep_in_a_tree_undoes_everything(guest: Any, neighbour: Any, level: Any) -> None:
    pfns = [8, 9, 10, 11][4 - level :]
    guest.make_read_only(*pfns)
    for pfn, below in pairwise(pfns):
        guest.write_entries(pfn, {0: guest.pte(below), 511: guest.pte(below)})
    guest.write_entries(pfns[-1], {0: guest.pte(30), 1: guest.pte(31), 511: neighbour.pte(30)})
    state = guest.hv.page_info.refs.tobytes(), [guest.hv.page_info.type_of(mfn) for mfn in range(256)]
    assert guest.pin(pfns[0], level) in {-Errno.EINVAL, -Errno.EBUSY}
    assert (guest.hv.page_info.refs.tobytes(), [guest.hv.page_info.type_of(mfn) for mfn in range(256)]) == state
    guest.audit()


def test_a_table_that_is_mapped_writable_anywhere_is_refused(guest: Any) -> None:
    assert guest.pin(FREE, 1) == -Errno.EINVAL
    guest.make_read_only(FREE)
    assert guest.map(9, guest.pte(FREE)) == 0
    assert guest.pin(FREE, 1) == -Errno.EINVAL
    assert guest.map(9, guest.pte(9)) == 0
    assert guest.pin(FREE, 1) == 0
    assert guest.map(9, guest.pte(FREE)) == -Errno.EBUSY


def test_a_table_that_maps_itself_writable_is_refused(guest: Any) -> None:
    guest.make_read_only(FREE)
    guest.write_entries(FREE, {0: guest.pte(FREE)})
    assert guest.pin(FREE, 1) == -Errno.EBUSY
    guest.write_entries(FREE, {0: guest.pte(FREE, READ_ONLY)})
    assert guest.pin(FREE, 1) == 0
    assert guest.unpin(FREE) == 0


def test_pins_are_not_counted_and_must_be_there_to_be_ended(guest: Any) -> None:
    guest.make_read_only(FREE)
    assert guest.unpin(FREE) == -Errno.EINVAL
    assert guest.pin(FREE, 1) == 0
    assert guest.pin(FREE, 1) == -Errno.EINVAL
    assert guest.pin(FREE, 2) == -Errno.EINVAL
    assert guest.hv.page_info.types[guest.mfn(FREE)] & PGT_PINNED
    assert guest.unpin(FREE) == 0
    assert guest.unpin(FREE) == -Errno.EINVAL


def test_frames_of_others_are_neither_pinned_nor_unpinned(guest: Any, neighbour: Any) -> None:
    for mfn in (neighbour.mfn(L4), int(guest.hv.m2p.l3), 0, guest.hv.page_info.nr_frames, (1 << 64) - 1):
        for command in (MmuextOp.PIN_L1_TABLE, MmuextOp.PIN_L4_TABLE, MmuextOp.UNPIN_TABLE):
            assert guest.mmuext(command, mfn) == -Errno.EINVAL
    for command in (MmuextOp.NEW_BASEPTR, MmuextOp.NEW_USER_BASEPTR):
        assert guest.mmuext(command, neighbour.mfn(L4)) == -Errno.EINVAL
    assert guest.mmuext(MmuextOp.PIN_L1_TABLE, guest.domain.shared_info) == -Errno.EINVAL
    neighbour.audit()


def test_superpages_are_refused(guest: Any) -> None:
    guest.make_read_only(FREE)
    guest.write_entries(FREE, {0: guest.pte(30) | 1 << 7})
    assert guest.pin(FREE, 2) == -Errno.EINVAL


def test_checking_a_table_puts_user_into_its_entries(guest: Any) -> None:
    guest.make_read_only(8, 9)
    guest.write_entries(8, {0: guest.pte(9, PTE_PRESENT | PTE_RW)})
    guest.write_entries(9, {0: guest.pte(30, PTE_PRESENT), 1: guest.pte(31)})
    assert guest.pin(8, 2) == 0
    assert guest.entry(8, 0) == guest.pte(9)
    assert guest.entry(9, 0) == guest.pte(30, READ_ONLY | 1 << 52)
    assert guest.entry(9, 1) == guest.pte(31) | PTE_GLOBAL


def test_an_l4_gets_xens_slots_when_it_is_checked(guest: Any) -> None:
    guest.make_read_only(8)
    guest.write_entries(8, {256: guest.pte(30), 258: guest.pte(8), 260: guest.pte(30), 271: 0xFF})
    assert guest.pin(8, 4) == 0
    assert [guest.entry(8, slot) for slot in range(257, 272)] == [guest.entry(L4, slot) for slot in range(257, 272)]
    assert guest.entry(8, 256) == 0, "the M2P comes when the kernel runs on it"
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, guest.mfn(8)) == 0
    assert guest.entry(8, 256) == 0
    guest.write_entries(9, {511: guest.pte(L3)})
    guest.make_read_only(9)
    assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(9)) == 0
    assert guest.entry(9, 256) == guest.entry(L4, 256) != 0


def test_an_l4_entry_counts_as_accessed_and_user(guest: Any) -> None:
    guest.make_read_only(8)
    guest.write_entries(8, {511: guest.pte(L3, PTE_PRESENT | PTE_RW)})
    assert guest.pin(8, 4) == 0
    assert guest.entry(8, 511) == guest.pte(L3) | PTE_ACCESSED
    assert guest.mmu_update((guest.slot(8, 1), guest.pte(L3, PTE_PRESENT | PTE_RW))) == 0
    assert guest.entry(8, 1) == guest.pte(L3) | PTE_ACCESSED
    assert guest.mmu_update((guest.slot(L3, 1), guest.pte(L2, PTE_PRESENT | PTE_RW))) == 0
    assert guest.entry(L3, 1) == guest.pte(L2)


def test_a_new_base_pointer_is_loaded_and_the_old_one_let_go(guest: Any) -> None:
    guest.make_read_only(8)
    guest.write_entries(8, {511: guest.pte(L3)})
    assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(8)) == 0
    assert guest.vcpu.guest_table == guest.mfn(8)
    assert guest.hv.cpu.cr3 == guest.mfn(8) << 12
    assert guest.unpin(L4) == 0
    assert guest.hv.page_info.type_of(guest.mfn(L4)) == PGT_NONE
    assert guest.map(L4, guest.pte(L4)) == 0, "the old L4 is a page like any other"


def test_the_base_pointer_keeps_its_table_even_when_it_is_unpinned(guest: Any) -> None:
    assert guest.unpin(L4) == 0
    assert guest.hv.page_info.type_of(guest.mfn(L4)) == PGT_L4_PAGE_TABLE
    assert guest.map(L4, guest.pte(L4)) == -Errno.EBUSY


def test_a_bad_base_pointer_leaves_the_old_one(guest: Any) -> None:
    for pfn in (L3, L1, 20):
        assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(pfn)) == -Errno.EINVAL
    assert guest.vcpu.guest_table == guest.mfn(L4)


def test_the_user_base_pointer_may_be_none(guest: Any) -> None:
    guest.make_read_only(8)
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, 0) == 0
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, guest.mfn(8)) == 0
    assert guest.vcpu.guest_table_user == guest.mfn(8)
    guest.audit()
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, 0) == 0
    assert guest.vcpu.guest_table_user is None
    assert guest.hv.page_info.type_of(guest.mfn(8)) == PGT_NONE


def test_a_strict_guest_hides_the_m2p_from_user_mode_alone(guest: Any) -> None:
    guest.domain.vm_assist |= 1 << VmasstType.M2P_STRICT
    guest.make_read_only(8, 9)
    guest.write_entries(9, {511: guest.pte(L3)})
    assert guest.pin(8, 4) == 0
    assert guest.entry(8, 256) == guest.entry(L4, 256) != 0
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, guest.mfn(8)) == 0
    assert guest.entry(8, 256) == 0
    assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(9)) == 0
    assert guest.entry(9, 256) == guest.entry(L4, 256)
    assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(8)) == 0
    assert guest.entry(8, 256) == 0, "what was taken away as a user table is not given back"


def test_results_of_a_check_are_those_of_the_entry_that_failed(guest: Any, neighbour: Any) -> None:
    guest.make_read_only(8, 9)
    for entry, errno in (
        (neighbour.pte(20), Errno.EBUSY),
        (guest.pte(L1), Errno.EBUSY),
        (0xF_FFFF << 12 | WRITABLE, Errno.EPERM),
        (PTE_ADDR_MASK | WRITABLE, Errno.EINVAL),
        (guest.pte(30) | 1 << 7, Errno.EINVAL),
    ):
        guest.write_entries(8, {3: entry})
        assert guest.pin(8, 1) == -errno
        guest.write_entries(9, {0: guest.pte(8)})
        assert guest.pin(9, 2) == -errno


def test_linear_mappings_of_a_table_are_counted_up_to_a_limit(guest: Any) -> None:
    guest.make_read_only(8, 9)
    assert guest.pin(8, 2) == guest.pin(9, 2) == 0
    assert guest.mmu_update((guest.slot(8, 1), guest.pte(9, READ_ONLY))) == 0
    guest.hv.page_info.linear[guest.mfn(9)] = -LINEAR_LIMIT
    assert guest.mmu_update((guest.slot(8, 2), guest.pte(9, READ_ONLY))) == -Errno.EINVAL
    guest.hv.page_info.linear[guest.mfn(9)] = -1


# -- linear tables


def test_a_table_may_map_itself_read_only(guest: Any) -> None:
    assert guest.mmu_update((guest.slot(L4, 100), guest.pte(L4))) == -Errno.EINVAL
    assert guest.mmu_update((guest.slot(L4, 100), guest.pte(L4, READ_ONLY))) == 0
    assert guest.mmu_update((guest.slot(L4, 100), guest.pte(L4))) == -Errno.EINVAL, "not made writable later either"
    guest.audit()
    assert guest.mmu_update((guest.slot(L4, 100), 0)) == 0


def test_an_l4_with_a_recursive_entry_is_pinned_and_unpinned(guest: Any) -> None:
    guest.make_read_only(8)
    guest.write_entries(8, {100: guest.pte(8, READ_ONLY)})
    assert guest.pin(8, 4) == 0
    guest.audit()
    assert guest.unpin(8) == 0
    guest.write_entries(8, {100: guest.pte(8)})
    assert guest.pin(8, 4) == -Errno.EINVAL


def test_linear_mappings_of_another_table_make_no_chains(guest: Any) -> None:
    guest.make_read_only(8, 9, 10)
    for pfn in (8, 9, 10):
        assert guest.pin(pfn, 2) == 0
    assert guest.mmu_update((guest.slot(8, 1), guest.pte(9, READ_ONLY))) == 0
    assert guest.mmu_update((guest.slot(8, 2), guest.pte(9, READ_ONLY))) == 0
    assert guest.mmu_update((guest.slot(9, 1), guest.pte(10, READ_ONLY))) == -Errno.EINVAL
    assert guest.mmu_update((guest.slot(10, 1), guest.pte(8, READ_ONLY))) == -Errno.EINVAL
    assert guest.mmu_update((guest.slot(9, 1), guest.pte(8, READ_ONLY))) == -Errno.EINVAL
    guest.audit()
    assert guest.unpin(9) == 0
    assert guest.hv.page_info.type_of(guest.mfn(9)) == PGT_L2_PAGE_TABLE, "the linear entries still hold it"
    assert guest.unpin(8) == 0
    assert guest.hv.page_info.type_of(guest.mfn(9)) == PGT_NONE
    assert guest.hv.page_info.linear == {}


def test_an_l2_is_no_l1(guest: Any) -> None:
    assert guest.mmu_update((guest.slot(L2, 9), guest.pte(L3, READ_ONLY))) == -Errno.EINVAL
    assert guest.mmu_update((guest.slot(L3, 9), guest.pte(L1, READ_ONLY))) == -Errno.EINVAL
    assert guest.mmu_update((guest.slot(L4, 9), guest.pte(L2, READ_ONLY))) == -Errno.EINVAL


# -- the other operations of mmuext_op


def test_pages_are_cleared_and_copied_unless_they_are_tables(guest: Any, neighbour: Any) -> None:
    guest.write(20, b"x" * 4096)
    assert guest.mmuext(MmuextOp.COPY_PAGE, guest.mfn(21), guest.mfn(20)) == 0
    assert guest.hv.ram.page(Mfn(guest.mfn(21))) == b"x" * 4096
    assert guest.mmuext(MmuextOp.CLEAR_PAGE, guest.mfn(20)) == 0
    assert guest.hv.ram.page(Mfn(guest.mfn(20))) == bytes(4096)
    for target in (guest.mfn(L1), neighbour.mfn(20), guest.hv.page_info.nr_frames, int(guest.hv.m2p.frame)):
        assert guest.mmuext(MmuextOp.CLEAR_PAGE, target) == -Errno.EINVAL
        assert guest.mmuext(MmuextOp.COPY_PAGE, target, guest.mfn(20)) == -Errno.EINVAL
    assert guest.mmuext(MmuextOp.COPY_PAGE, guest.mfn(21), neighbour.mfn(20)) == -Errno.EINVAL
    assert guest.mmuext(MmuextOp.COPY_PAGE, guest.mfn(21), guest.mfn(L1)) == 0


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (MmuextOp.TLB_FLUSH_LOCAL, 0),
        (MmuextOp.INVLPG_LOCAL, 0),
        (MmuextOp.TLB_FLUSH_ALL, 0),
        (MmuextOp.INVLPG_ALL, 0),
        (MmuextOp.TLB_FLUSH_MULTI, -Errno.EINVAL),
        (MmuextOp.INVLPG_MULTI, -Errno.EINVAL),
        (MmuextOp.FLUSH_CACHE, -Errno.EACCES),
        (MmuextOp.FLUSH_CACHE_GLOBAL, -Errno.EACCES),
        (MmuextOp.MARK_SUPER, -Errno.EOPNOTSUPP),
        (MmuextOp.UNMARK_SUPER, -Errno.EOPNOTSUPP),
        (14, -Errno.ENOSYS),
        (21, -Errno.ENOSYS),
        (0xFFFF_FFFF, -Errno.ENOSYS),
    ],
)
def test_results_of_the_small_operations(guest: Any, command: Any, result: Any) -> None:
    before = guest.hv.cpu.flushes
    assert guest.mmuext(command, 0x1000, 0) == result
    assert (guest.hv.cpu.flushes > before) == (result == 0)


def test_only_the_own_domain_is_operated_on(guest: Any, neighbour: Any) -> None:
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=neighbour.domain.domid) == -Errno.EPERM
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=DOMID_XEN) == -Errno.EPERM
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=DOMID_IO) == -Errno.EPERM
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=0) == -Errno.EPERM
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=1234) == -Errno.ESRCH
    assert guest.mmuext(MmuextOp.TLB_FLUSH_LOCAL, foreigndom=DOMID_SELF) == 0


def test_the_audit_notices_what_it_is_for(guest: Any) -> None:
    info = guest.hv.page_info
    for array, index, change in (
        (info.refs, guest.mfn(20), 1),
        (info.types, guest.mfn(20), 1),
        (info.types, guest.mfn(L1), PGT_WRITABLE_PAGE - PGT_L1_PAGE_TABLE),
    ):
        array[index] += change
        with pytest.raises(AuditError):
            audit(guest.hv)
        array[index] -= change
    entry = guest.entry(L1, 20)
    guest.write_entries(L1, {20: guest.pte(L1)})
    with pytest.raises(AuditError):
        audit(guest.hv)
    guest.write_entries(L1, {20: entry})
