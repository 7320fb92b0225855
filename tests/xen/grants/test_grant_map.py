"""map_grant_ref, unmap_grant_ref and unmap_and_replace: every status, and what they leave in tables and counts."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.grant_table import (
    GTF_ACCEPT_TRANSFER,
    GTF_INVALID,
    GTF_PERMIT_ACCESS,
    GTF_TRANSITIVE,
    Gntmap,
    Gntst,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabUnmapGrantRef,
    Gtf,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.x86 import PTE_ACCESSED, PTE_DIRTY, PTE_GLOBAL, PTE_NX, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.xen.faults import DomainCrash
from xdbg.xen.grant_access import PIN_LIMIT
from xdbg.xen.maptrack import HANDLES_PER_PAGE
from xdbg.xen.page_info import PGT_L1_PAGE_TABLE

L1, L1_SLOT_BITS = 7, PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_NX
GUEST_KERNEL = 1 << 52
HOST, DEVICE, READ_ONLY = Gntmap.HOST_MAP, Gntmap.DEVICE_MAP, Gntmap.READONLY
APPLICATION, CONTAINS_PTE = Gntmap.APPLICATION_MAP, Gntmap.CONTAINS_PTE
REF, FRAME, PLACE = 9, 20, 30
"""The grant, the granter's page, and where the mapper maps it."""


def flags_of(granter: Any, ref: int = REF) -> int:
    return granter.entry(ref).flags & (Gtf.READING | Gtf.WRITING)


# -- mapping and unmapping


@pytest.mark.parametrize("kind", [0, READ_ONLY])
@pytest.mark.parametrize("parts", [HOST, DEVICE, HOST | DEVICE])
def test_a_mapping_is_counted_and_unmapping_gives_all_back(granter: Any, mapper: Any, parts: Any, kind: Any) -> None:
    info = granter.hv.page_info
    mfn = granter.guest.mfn(FRAME)
    refs, types = info.refs[mfn], info.types[mfn]
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE, parts | kind)
    assert (op.status, op.handle, op.dev_bus_addr) == (Gntst.OKAY, 0, mfn << 12)
    assert flags_of(granter) == (Gtf.READING if kind else Gtf.READING | Gtf.WRITING)
    nr_parts = parts.bit_count()
    assert info.refs[mfn] == refs + nr_parts
    assert info.types[mfn] == types + (0 if kind else nr_parts)
    granter.guest.audit()
    if parts & HOST:
        expected = mfn << 12 | L1_SLOT_BITS | PTE_USER | GUEST_KERNEL | (0 if kind else PTE_RW)
        assert mapper.guest.entry(L1, PLACE) == expected
    assert mapper.unmap(op.handle, PLACE if parts & HOST else 0, mfn << 12 if parts & DEVICE else 0) == Gntst.OKAY
    assert (info.refs[mfn], info.types[mfn], flags_of(granter)) == (refs, types, 0)
    assert parts == DEVICE or mapper.guest.entry(L1, PLACE) == 0
    assert mapper.unmap(op.handle, PLACE) == Gntst.BAD_HANDLE


def test_the_page_is_shared_memory(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    mapper.map(granter, REF, PLACE)
    assert mapper.guest.entry(L1, PLACE) >> 12 & 0xFFFFFFFF == granter.guest.mfn(FRAME)


def test_the_page_that_was_mapped_there_before_is_given_back(granter: Any, mapper: Any) -> None:
    info = granter.hv.page_info
    before = info.refs[mapper.guest.mfn(PLACE)]
    granter.grant(REF, mapper, FRAME)
    mapper.map(granter, REF, PLACE)
    assert info.refs[mapper.guest.mfn(PLACE)] == before - 1


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (0, PTE_USER | GUEST_KERNEL | PTE_RW),
        (READ_ONLY, PTE_USER | GUEST_KERNEL),
        (APPLICATION, PTE_USER | PTE_GLOBAL | PTE_RW),
        (APPLICATION | READ_ONLY, PTE_USER | PTE_GLOBAL),
        (5 << 16, PTE_USER | GUEST_KERNEL | PTE_RW | 5 << 9),
        (0xFFFF << 16, PTE_USER | GUEST_KERNEL | PTE_RW | 7 << 9),
    ],
)
@pytest.mark.parametrize("contains_pte", [False, True])
def test_bits_of_the_l1e(granter: Any, mapper: Any, flags: Any, bits: Any, contains_pte: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    slot = mapper.guest.slot(L1, PLACE)
    if contains_pte:
        op = mapper.map_at(slot, granter, REF, HOST | CONTAINS_PTE | flags)
    else:
        op = mapper.map(granter, REF, PLACE, HOST | flags)
    assert op.status == Gntst.OKAY
    assert mapper.guest.entry(L1, PLACE) == granter.guest.mfn(FRAME) << 12 | L1_SLOT_BITS | bits
    if contains_pte:
        assert mapper.unmap(op.handle, PLACE) == Gntst.GENERAL_ERROR, "the place is named as it was named before"
        assert mapper.unmap_at(slot, op.handle) == Gntst.OKAY
    else:
        assert mapper.unmap(op.handle, PLACE) == Gntst.OKAY


def test_a_domain_maps_what_it_granted_to_itself(granter: Any) -> None:
    granter.grant(REF, granter, FRAME)
    op = granter.map(granter, REF, PLACE)
    assert op.status == Gntst.OKAY
    assert granter.unmap(op.handle, PLACE) == Gntst.OKAY


def test_one_grant_is_mapped_often_and_the_flags_follow(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    readers = [mapper.map(granter, REF, 30 + i, HOST | READ_ONLY).handle for i in range(2)]
    assert flags_of(granter) == Gtf.READING
    writer = mapper.map(granter, REF, 33).handle
    assert flags_of(granter) == Gtf.READING | Gtf.WRITING
    assert not granter.end(REF)
    assert mapper.unmap(writer, 33) == Gntst.OKAY
    assert flags_of(granter) == Gtf.READING
    for i, reader in enumerate(readers):
        assert not granter.end(REF)
        assert mapper.unmap(reader, 30 + i) == Gntst.OKAY
    assert granter.end(REF)


def test_what_counts_while_it_is_mapped_is_what_was_granted_first(granter: Any, mapper: Any, third: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    granter.set_entry(REF, GTF_INVALID, third.domid, granter.guest.mfn(FRAME + 1))
    assert third.map(granter, REF, PLACE).status == Gntst.GENERAL_ERROR
    again = mapper.map(granter, REF, PLACE + 1)
    assert (again.status, again.dev_bus_addr) == (Gntst.OKAY, granter.guest.mfn(FRAME) << 12)
    assert mapper.unmap(op.handle, PLACE) == mapper.unmap(again.handle, PLACE + 1) == Gntst.OKAY


def test_parts_are_unmapped_one_by_one(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    bus = granter.guest.mfn(FRAME) << 12
    op = mapper.map(granter, REF, PLACE, HOST | DEVICE)
    assert mapper.unmap(op.handle) == Gntst.OKAY, "nothing was named, nothing is done"
    assert mapper.unmap(op.handle, 0, bus + 4096) == Gntst.GENERAL_ERROR
    assert mapper.unmap(op.handle, PLACE, bus + 4096) == Gntst.GENERAL_ERROR
    assert mapper.unmap(op.handle, 0, bus) == Gntst.OKAY
    assert flags_of(granter) == Gtf.READING | Gtf.WRITING
    assert mapper.unmap(op.handle, 0, bus) == Gntst.OKAY, "no device part is left: nothing is done"
    assert mapper.unmap(op.handle, PLACE) == Gntst.OKAY
    assert flags_of(granter) == 0


# -- refusals


@pytest.mark.parametrize("flags", [0, READ_ONLY, CONTAINS_PTE, APPLICATION])
def test_neither_part_is_bad_gntref(granter: Any, mapper: Any, flags: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    assert mapper.map(granter, REF, PLACE, flags).status == Gntst.BAD_GNTREF


@pytest.mark.parametrize(
    ("domid", "ref", "status"),
    [
        (77, REF, Gntst.BAD_DOMAIN),
        (DOMID_SELF, REF, Gntst.BAD_DOMAIN),
        (0, REF, Gntst.GENERAL_ERROR),
        (0, 512, Gntst.BAD_GNTREF),
        (1, 512, Gntst.BAD_GNTREF),
        (1, 0xFFFF_FFFF, Gntst.BAD_GNTREF),
        (1, 511, Gntst.GENERAL_ERROR),
        (2, REF, Gntst.GENERAL_ERROR),
    ],
)
def test_bad_domains_and_references(granter: Any, mapper: Any, domid: Any, ref: Any, status: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    before = mapper.guest.entry(L1, PLACE)
    request = GnttabMapGrantRef(mapper.guest.va(PLACE), HOST, ref, domid)
    assert mapper.operate(GnttabOp.MAP_GRANT_REF, request)[0].status == status
    assert mapper.guest.entry(L1, PLACE) == before


@pytest.mark.parametrize(
    ("entry_flags", "to", "map_flags"),
    [
        (GTF_INVALID, 2, 0),
        (GTF_ACCEPT_TRANSFER, 2, 0),
        (GTF_TRANSITIVE, 2, 0),
        (GTF_PERMIT_ACCESS | Gtf.SUB_PAGE, 2, READ_ONLY),
        (GTF_PERMIT_ACCESS, 3, 0),
        (GTF_PERMIT_ACCESS, 1, 0),
        (GTF_PERMIT_ACCESS, DOMID_SELF, 0),
        (GTF_PERMIT_ACCESS | Gtf.READONLY, 2, 0),
    ],
)
def test_entries_that_do_not_permit_it(granter: Any, mapper: Any, entry_flags: Any, to: Any, map_flags: Any) -> None:
    granter.set_entry(REF, entry_flags, to, granter.guest.mfn(FRAME))
    assert mapper.map(granter, REF, PLACE, HOST | map_flags).status == Gntst.GENERAL_ERROR
    assert granter.entry(REF).flags == entry_flags


def test_a_read_only_grant_is_not_written_even_if_it_is_mapped(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME, readonly=True)
    assert mapper.map(granter, REF, PLACE, HOST | READ_ONLY).status == Gntst.OKAY
    assert mapper.map(granter, REF, PLACE + 1).status == Gntst.GENERAL_ERROR
    assert flags_of(granter) == Gtf.READING


def test_frames_that_are_not_the_granters(granter: Any, mapper: Any, third: Any) -> None:
    for frame in (third.guest.mfn(20), mapper.guest.mfn(20), 0, granter.hv.page_info.nr_frames, 0xFFFF_FFFF):
        granter.set_entry(REF, GTF_PERMIT_ACCESS, mapper.domid, frame)
        assert mapper.map(granter, REF, PLACE).status == Gntst.BAD_PAGE
        assert flags_of(granter) == 0


def test_a_page_table_is_granted_to_read_only(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, L1)
    for flags in (HOST, DEVICE, HOST | DEVICE):
        assert mapper.map(granter, REF, PLACE, flags).status == Gntst.GENERAL_ERROR
        assert flags_of(granter) == 0
    assert mapper.map(granter, REF, PLACE, HOST | READ_ONLY).status == Gntst.OKAY
    assert granter.hv.page_info.type_of(granter.guest.mfn(L1)) == PGT_L1_PAGE_TABLE


def test_a_frame_mapped_by_others_to_write_does_not_become_a_table(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    granter.guest.make_read_only(FRAME)
    assert granter.guest.pin(FRAME, 1) == -Errno.EINVAL
    mapper.unmap(op.handle, PLACE)
    assert granter.guest.pin(FRAME, 1) == 0


def test_places_that_are_no_l1e_of_the_callers(granter: Any, mapper: Any, third: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    for address in (0, 0x1000, 0xFFFF_8000_0000_0000, 1 << 50, mapper.guest.va(600)):
        assert mapper.map_at(address, granter, REF).status == Gntst.GENERAL_ERROR
    slot = mapper.guest.slot(L1, PLACE)
    for address in (slot + 1, slot + 4, third.guest.slot(L1, PLACE), mapper.guest.slot(6, 1), 1 << 62, (1 << 64) - 8):
        assert mapper.map_at(address, granter, REF, HOST | CONTAINS_PTE).status == Gntst.GENERAL_ERROR
        assert flags_of(granter) == 0


@pytest.mark.parametrize("flags", [HOST | READ_ONLY, HOST, DEVICE | READ_ONLY, DEVICE])
def test_pins_of_a_kind_are_limited(granter: Any, mapper: Any, flags: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    request = GnttabMapGrantRef(mapper.guest.va(PLACE), flags, REF, granter.domid)
    for _ in range(PIN_LIMIT):
        assert mapper.operate(GnttabOp.MAP_GRANT_REF, request)[0].status == Gntst.OKAY
    assert mapper.operate(GnttabOp.MAP_GRANT_REF, request)[0].status == Gntst.GENERAL_ERROR
    other = flags ^ READ_ONLY
    assert mapper.map(granter, REF, PLACE, other).status == Gntst.OKAY, "another kind has a count of its own"


@pytest.mark.parametrize("handle", [0, 1, 255, 256, 0xFFFF_FFFF])
def test_handles_that_name_no_mapping(granter: Any, mapper: Any, third: Any, handle: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    mapper.map(granter, REF, PLACE)
    assert third.unmap(handle, PLACE) == Gntst.BAD_HANDLE
    if handle:
        assert mapper.unmap(handle, PLACE) == Gntst.BAD_HANDLE


@pytest.mark.parametrize("place", [31, 5, 7])
def test_unmapping_wants_the_entry_of_the_mapping(granter: Any, mapper: Any, place: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    before = mapper.guest.entry(L1, place)
    assert mapper.unmap(op.handle, place) == Gntst.GENERAL_ERROR
    assert mapper.guest.entry(L1, place) == before
    assert mapper.unmap(op.handle, PLACE) == Gntst.OKAY


def test_unmapping_a_read_only_mapping_wants_a_read_only_entry(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    reader = mapper.map(granter, REF, PLACE, HOST | READ_ONLY).handle
    writer = mapper.map(granter, REF, PLACE + 1).handle
    assert mapper.unmap(reader, PLACE + 1) == mapper.unmap(writer, PLACE) == Gntst.GENERAL_ERROR
    assert mapper.unmap(reader, PLACE) == mapper.unmap(writer, PLACE + 1) == Gntst.OKAY


# -- the l1e of a mapping is not the guest's to make


def test_no_other_l1e_may_reach_the_frame(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    mapper.map(granter, REF, PLACE)
    l1e = mapper.guest.entry(L1, PLACE)
    assert mapper.guest.mmu_update((mapper.guest.slot(L1, PLACE + 1), l1e)) == -Errno.EBUSY
    assert mapper.guest.map(PLACE + 1, l1e & ~PTE_RW) == -Errno.EBUSY
    assert mapper.guest.map(PLACE, l1e & ~PTE_RW) == -Errno.EBUSY, "the permission can't be changed"
    assert mapper.guest.map(PLACE, l1e | 7 << 9) == 0, "bits that mean nothing to the CPU can"
    granter.guest.audit()


def test_an_l1e_that_is_overwritten_gives_back_the_frame_but_not_the_pin(granter: Any, mapper: Any) -> None:
    info = granter.hv.page_info
    mfn = granter.guest.mfn(FRAME)
    refs = info.refs[mfn]
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    assert mapper.guest.map(PLACE, 0) == 0
    assert info.refs[mfn] == refs
    assert flags_of(granter) == Gtf.READING | Gtf.WRITING
    assert mapper.unmap(op.handle, PLACE) == Gntst.GENERAL_ERROR
    assert not granter.end(REF)


def test_a_stale_pin_gives_no_access_to_the_frames_next_owner(granter: Any, mapper: Any, third: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    mapper.map(granter, REF, PLACE)
    mapper.guest.map(PLACE, 0)
    mfn = granter.guest.mfn(FRAME)
    assert granter.guest.map(FRAME, 0) == 0
    third.accept(REF, granter, 70)
    assert granter.transfer(FRAME, third.domid, REF) == Gntst.OKAY
    assert granter.hv.page_info.owner(mfn) == third.domid
    assert mapper.map(granter, REF, PLACE).status == Gntst.GENERAL_ERROR
    assert mapper.map(granter, REF, PLACE, HOST | READ_ONLY).status == Gntst.GENERAL_ERROR


def test_a_table_that_goes_gives_back_the_mappings_in_it(granter: Any, mapper: Any) -> None:
    guest = mapper.guest
    guest.make_read_only(10)
    guest.write_entries(10, {0: 0})
    assert guest.pin(10, 1) == 0
    granter.grant(REF, mapper, FRAME)
    refs = granter.hv.page_info.refs[granter.guest.mfn(FRAME)]
    op = mapper.map_at(guest.slot(10, 3), granter, REF, HOST | CONTAINS_PTE)
    assert op.status == Gntst.OKAY
    assert guest.unpin(10) == 0
    assert granter.hv.page_info.refs[granter.guest.mfn(FRAME)] == refs
    granter.guest.audit()
    assert guest.pin(10, 1) == -Errno.EBUSY, "as memory it names a frame of somebody else"


def test_a_frame_given_back_by_its_owner_lives_until_it_is_unmapped(granter: Any, mapper: Any) -> None:
    guest = granter.guest
    mfn = guest.mfn(FRAME)
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    assert guest.map(FRAME, 0) == 0
    raw = guest.write(1, mfn.to_bytes(8, "little"))
    reservation = raw.to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(8) + DOMID_SELF.to_bytes(8, "little")
    assert guest.call(Hypercall.MEMORY_OP, 1, guest.write(2, reservation)) == 1
    assert granter.hv.page_info.owner(mfn) == granter.domid
    assert mapper.unmap(op.handle, PLACE) == Gntst.OKAY
    assert granter.hv.page_info.owner(mfn) is None


# -- unmap_and_replace


def test_a_mapping_is_replaced_by_another_page(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    moved = mapper.guest.entry(L1, 40)
    assert mapper.replace(op.handle, PLACE, 40) == Gntst.OKAY
    assert (mapper.guest.entry(L1, PLACE), mapper.guest.entry(L1, 40)) == (moved, 0)
    assert flags_of(granter) == 0


def test_replacing_by_nothing_unmaps(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    assert mapper.replace(op.handle, PLACE, 0) == Gntst.OKAY
    assert mapper.guest.entry(L1, PLACE) == 0


def test_a_replacement_that_fails_loses_the_page_that_was_to_move(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    assert mapper.replace(op.handle, 41, 40) == Gntst.GENERAL_ERROR
    assert mapper.guest.entry(L1, 40) == 0
    assert mapper.replace(op.handle, PLACE, 600) == Gntst.GENERAL_ERROR
    assert mapper.unmap(op.handle, PLACE) == Gntst.OKAY


def test_a_mapping_is_not_replaced_by_itself(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    assert mapper.replace(op.handle, PLACE, PLACE) == Gntst.GENERAL_ERROR
    assert mapper.guest.entry(L1, PLACE) == 0


def test_a_mapping_by_pte_is_not_replaced(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    slot = mapper.guest.slot(L1, PLACE)
    op = mapper.map_at(slot, granter, REF, HOST | CONTAINS_PTE)
    assert mapper.replace(op.handle, PLACE, 40) == Gntst.GENERAL_ERROR
    assert mapper.guest.entry(L1, 40) != 0
    assert mapper.unmap_at(slot, op.handle) == Gntst.OKAY


# -- lists, handles


def test_a_list_has_a_status_for_each(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    granter.grant(REF + 1, mapper, FRAME + 1, readonly=True)
    requests = [GnttabMapGrantRef(mapper.guest.va(30 + i), HOST, REF + i, granter.domid) for i in range(3)]
    done = mapper.operate(GnttabOp.MAP_GRANT_REF, *requests)
    assert [op.status for op in done] == [Gntst.OKAY, Gntst.GENERAL_ERROR, Gntst.GENERAL_ERROR]


def test_a_list_is_done_as_far_as_it_can_be_read(granter: Any, mapper: Any) -> None:
    guest = mapper.guest
    granter.grant(REF, mapper, FRAME)
    handles = [mapper.map(granter, REF, 30 + i).handle for i in range(3)]
    requests = [GnttabUnmapGrantRef(guest.va(30 + i), 0, handle) for i, handle in enumerate(handles)]
    raw = b"".join(request.to_bytes() for request in requests)
    guest.write(1, raw[:48], 4096 - 48)
    assert guest.map(2, 0) == 0
    at = guest.va(1) + 4096 - 48
    assert guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.UNMAP_GRANT_REF, at, 3) == -Errno.EFAULT
    assert [guest.entry(L1, 30 + i) != 0 for i in range(3)] == [False, False, True]
    granter.guest.audit()


def test_a_status_that_can_not_be_written_is_efault_after_the_fact(granter: Any, mapper: Any) -> None:
    guest = mapper.guest
    granter.grant(REF, mapper, FRAME)
    guest.write(10, GnttabMapGrantRef(guest.va(PLACE), HOST, REF, granter.domid).to_bytes())
    guest.make_read_only(10)
    assert guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.MAP_GRANT_REF, guest.va(10), 1) == -Errno.EFAULT
    assert flags_of(granter) == Gtf.READING | Gtf.WRITING


def test_handles_are_given_out_in_turn(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    assert [mapper.map(granter, REF, PLACE).handle for _ in range(3)] == [0, 1, 2]
    mapper.unmap(2, PLACE)
    assert mapper.map(granter, REF, PLACE).handle == 3, "a free handle goes to the end of the list"
    assert mapper.map(granter, 99, PLACE).status == Gntst.GENERAL_ERROR
    assert mapper.map(granter, REF, PLACE).handle == 5, "and so does that of a mapping that failed"


def test_handles_run_out(granter: Any, mapper: Any) -> None:
    maptrack = mapper.domain.grant_table.maptrack
    maptrack.max_frames = 2
    for ref in range(8, 8 + 5):
        granter.grant(ref, mapper, FRAME)
    requests = [GnttabMapGrantRef(0, DEVICE, 8 + i % 5, granter.domid) for i in range(2 * HANDLES_PER_PAGE)]
    statuses = []
    for request in requests:
        statuses.append(mapper.operate(GnttabOp.MAP_GRANT_REF, request)[0].status)
    assert statuses == [Gntst.OKAY] * (2 * HANDLES_PER_PAGE - 1) + [Gntst.NO_DEVICE_SPACE], "one always stays free"
    assert mapper.unmap(7, 0, granter.guest.mfn(FRAME) << 12) == Gntst.OKAY
    assert mapper.operate(GnttabOp.MAP_GRANT_REF, requests[2])[0].status == Gntst.OKAY


def test_a_grant_of_a_domain_that_is_gone_crashes_who_unmaps_it(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, PLACE)
    del granter.hv.domains[granter.domid]
    try:
        with pytest.raises(DomainCrash, match="domain 1"):
            mapper.unmap(op.handle, PLACE)
    finally:
        granter.hv.domains[granter.domid] = granter.domain
