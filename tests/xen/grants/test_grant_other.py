"""Transfer, swap, cache_flush, the calls about the table, and the hypercall's own errnos."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.grant_table import (
    GNTTAB_CACHE_CLEAN,
    GNTTAB_CACHE_INVAL,
    GNTTAB_CACHE_SOURCE_GREF,
    GTF_ACCEPT_TRANSFER,
    GTF_PERMIT_ACCESS,
    GTF_TRANSFER_COMMITTED,
    GTF_TRANSFER_COMPLETED,
    Gntmap,
    Gntst,
    GnttabCacheFlush,
    GnttabCopy,
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF

REF, FRAME = 9, 20


# -- transfer


@pytest.fixture
def giver(granter: Any) -> Any:
    """A domain with a frame (page FRAME) to which nothing refers."""
    assert granter.guest.map(FRAME, 0) == 0
    return granter


def test_a_frame_changes_hands(giver: Any, mapper: Any) -> None:
    hv = giver.hv
    mfn = giver.guest.mfn(FRAME)
    giver.guest.write(FRAME, b"a present")
    counts = giver.domain.nr_pages, mapper.domain.nr_pages
    mapper.accept(REF, giver, 0x77)
    assert giver.transfer(FRAME, mapper.domid, REF) == Gntst.OKAY
    entry = mapper.entry(REF)
    assert entry.flags == GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED | GTF_TRANSFER_COMPLETED
    assert entry.frame == mfn
    assert hv.m2p.get(mfn) == 0x77, "the entry's frame was the pfn that it is to have"
    assert hv.page_info.owner(mfn) == mapper.domid
    assert (giver.domain.nr_pages, mapper.domain.nr_pages) == (counts[0] - 1, counts[1] + 1)
    assert mapper.guest.map(30, mfn << 12 | 7) == 0
    assert hv.ram.read(mfn << 12, 9) == b"a present"
    assert giver.guest.map(30, mfn << 12 | 7) == -Errno.EBUSY


def test_a_frame_in_use_stays(granter: Any, mapper: Any) -> None:
    mapper.accept(REF, granter, 0x77)
    for pfn in (20, 7, 4):
        assert granter.transfer(pfn, mapper.domid, REF) == Gntst.BAD_PAGE
    assert mapper.entry(REF).flags == GTF_ACCEPT_TRANSFER


@pytest.mark.parametrize("mfn", [0, 1 << 40, (1 << 64) - 1, 263])
def test_what_is_not_the_callers_is_a_bad_page(granter: Any, mapper: Any, mfn: Any) -> None:
    mapper.accept(REF, granter, 0x77)
    request = GnttabTransfer(mfn, mapper.domid, REF)
    assert granter.operate(GnttabOp.TRANSFER, request)[0].status == Gntst.BAD_PAGE
    request = GnttabTransfer(mapper.guest.mfn(FRAME), mapper.domid, REF)
    assert granter.operate(GnttabOp.TRANSFER, request)[0].status == Gntst.BAD_PAGE
    request = GnttabTransfer(granter.domain.grant_table.frames[0], mapper.domid, REF)
    assert granter.operate(GnttabOp.TRANSFER, request)[0].status == Gntst.BAD_PAGE


@pytest.mark.parametrize(
    ("to", "ref", "flags", "domid", "status"),
    [
        (77, REF, GTF_ACCEPT_TRANSFER, 1, Gntst.BAD_DOMAIN),
        (DOMID_SELF, REF, GTF_ACCEPT_TRANSFER, 1, Gntst.BAD_DOMAIN),
        (0, REF, GTF_ACCEPT_TRANSFER, 1, Gntst.GENERAL_ERROR),
        (2, 512, GTF_ACCEPT_TRANSFER, 1, Gntst.GENERAL_ERROR),
        (2, REF, GTF_ACCEPT_TRANSFER, 3, Gntst.GENERAL_ERROR),
        (2, REF, GTF_PERMIT_ACCESS, 1, Gntst.GENERAL_ERROR),
        (2, REF, GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED, 1, Gntst.GENERAL_ERROR),
    ],
)
def test_a_frame_that_is_not_accepted_is_lost(
    giver: Any, mapper: Any, to: Any, ref: Any, flags: Any, domid: Any, status: Any
) -> None:
    mfn = giver.guest.mfn(FRAME)
    pages = giver.domain.nr_pages
    mapper.set_entry(REF, flags, domid, 0x77)
    assert giver.transfer(FRAME, to, ref) == status
    assert giver.hv.page_info.owner(mfn) is None
    assert giver.domain.nr_pages == pages - 1
    assert mapper.entry(REF).flags == flags


def test_a_domain_at_its_maximum_accepts_nothing(giver: Any, mapper: Any) -> None:
    mapper.accept(REF, giver, 0x77)
    mapper.domain.max_pages = mapper.domain.nr_pages
    assert giver.transfer(FRAME, mapper.domid, REF) == Gntst.GENERAL_ERROR


def test_a_domain_may_give_to_itself(giver: Any) -> None:
    giver.domain.max_pages = giver.domain.nr_pages
    giver.accept(REF, giver, 0x77)
    assert giver.transfer(FRAME, giver.domid, REF) == Gntst.OKAY
    assert giver.hv.page_info.owner(giver.guest.mfn(FRAME)) == giver.domid


# -- swap


def swap(party: Any, a: int, b: int) -> int:
    return party.operate(GnttabOp.SWAP_GRANT_REF, GnttabSwapGrantRef(a, b))[0].status


def test_entries_change_places(granter: Any, mapper: Any, third: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    granter.grant(REF + 1, third, FRAME + 1, readonly=True)
    entries = [granter.entry(ref).to_bytes() for ref in (REF, REF + 1)]
    assert swap(granter, REF, REF + 1) == Gntst.OKAY
    assert [granter.entry(ref).to_bytes() for ref in (REF + 1, REF)] == entries
    assert swap(granter, REF, REF) == Gntst.OKAY


@pytest.mark.parametrize(("a", "b"), [(512, REF), (REF, 512), (0xFFFF_FFFF, 0xFFFF_FFFF)])
def test_swapping_beyond_the_table_is_bad_gntref(granter: Any, a: Any, b: Any) -> None:
    assert swap(granter, a, b) == Gntst.BAD_GNTREF


def test_an_entry_in_use_stays_where_it_is(granter: Any, mapper: Any) -> None:
    granter.grant(REF, mapper, FRAME)
    op = mapper.map(granter, REF, 30)
    assert swap(granter, REF, REF + 1) == swap(granter, REF + 1, REF) == Gntst.EAGAIN
    assert swap(granter, REF, REF) == Gntst.OKAY
    mapper.unmap(op.handle, 30)
    assert swap(granter, REF, REF + 1) == Gntst.OKAY


# -- cache_flush


@pytest.mark.parametrize(
    ("offset", "length", "op", "result"),
    [
        (0, 4096, GNTTAB_CACHE_CLEAN, 0),
        (100, 64, GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL, 0),
        (100, 64, GNTTAB_CACHE_INVAL, -Errno.EOPNOTSUPP),
        (4096, 0, GNTTAB_CACHE_CLEAN, -Errno.EINVAL),
        (1, 4096, GNTTAB_CACHE_CLEAN, -Errno.EINVAL),
        (0, 4097, GNTTAB_CACHE_CLEAN, -Errno.EINVAL),
        (0, 64, GNTTAB_CACHE_SOURCE_GREF, -Errno.EINVAL),
        (0, 64, 4, -Errno.EINVAL),
        (0, 0, GNTTAB_CACHE_INVAL, 0),
        (0, 64, 0, 0),
    ],
)
def test_flushing_the_cache(granter: Any, offset: Any, length: Any, op: Any, result: Any) -> None:
    request = GnttabCacheFlush(offset=offset, length=length, op=op)
    request.a.dev_bus_addr = granter.guest.mfn(FRAME) << 12
    at = granter.guest.write(0, request.to_bytes())
    assert granter.guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.CACHE_FLUSH, at, 1) == result


def test_flushing_a_frame_of_another_wants_a_grant_in_use(granter: Any, mapper: Any, third: Any) -> None:
    def flush(party: Any, maddr: int) -> int:
        request = GnttabCacheFlush(length=64, op=GNTTAB_CACHE_CLEAN)
        request.a.dev_bus_addr = maddr
        at = party.guest.write(0, request.to_bytes())
        return party.guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.CACHE_FLUSH, at, 1)

    maddr = granter.guest.mfn(FRAME) << 12
    granter.grant(REF, mapper, FRAME)
    assert flush(mapper, maddr) == -Errno.EINVAL
    mapper.map(granter, REF, 30, Gntmap.HOST_MAP)
    assert flush(mapper, maddr) == 0
    assert flush(third, maddr) == -Errno.EINVAL
    assert flush(mapper, granter.hv.page_info.nr_frames << 12) == -Errno.EINVAL
    assert flush(mapper, 263 << 12) == -Errno.EPERM, "a free frame"
    assert flush(mapper, mapper.hv.m2p.frame << 12) == -Errno.EPERM, "a frame of Xen's"


# -- the table


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GnttabQuerySize(dom=DOMID_SELF), Gntst.OKAY),
        (GnttabQuerySize(dom=1), Gntst.OKAY),
        (GnttabQuerySize(dom=2), Gntst.PERMISSION_DENIED),
        (GnttabQuerySize(dom=0), Gntst.PERMISSION_DENIED),
        (GnttabQuerySize(dom=77), Gntst.BAD_DOMAIN),
        (GnttabSetupTable(dom=1, nr_frames=0), Gntst.OKAY),
        (GnttabSetupTable(dom=2, nr_frames=1), Gntst.PERMISSION_DENIED),
        (GnttabSetupTable(dom=0, nr_frames=1), Gntst.PERMISSION_DENIED),
        (GnttabSetupTable(dom=77, nr_frames=1), Gntst.BAD_DOMAIN),
        (GnttabSetupTable(dom=1, nr_frames=65), Gntst.GENERAL_ERROR),
        (GnttabSetupTable(dom=1, nr_frames=1), Gntst.BAD_VIRT_ADDR),
        (GnttabGetStatusFrames(dom=1, nr_frames=0), Gntst.OKAY),
        (GnttabGetStatusFrames(dom=1, nr_frames=1), Gntst.GENERAL_ERROR),
        (GnttabGetStatusFrames(dom=2, nr_frames=0), Gntst.PERMISSION_DENIED),
        (GnttabGetStatusFrames(dom=77, nr_frames=0), Gntst.BAD_DOMAIN),
    ],
)
def test_status_of_calls_about_the_table(granter: Any, request_: Any, status: Any) -> None:
    cmd = {
        GnttabQuerySize: GnttabOp.QUERY_SIZE,
        GnttabSetupTable: GnttabOp.SETUP_TABLE,
        GnttabGetStatusFrames: GnttabOp.GET_STATUS_FRAMES,
    }[type(request_)]
    assert granter.operate(cmd, request_)[0].status == status


# -- the hypercall

BAD = 0xFFFF_8000_0000_0000
"""Xen's own range."""
LISTS = (
    GnttabOp.MAP_GRANT_REF,
    GnttabOp.UNMAP_GRANT_REF,
    GnttabOp.UNMAP_AND_REPLACE,
    GnttabOp.COPY,
    GnttabOp.TRANSFER,
    GnttabOp.SWAP_GRANT_REF,
    GnttabOp.CACHE_FLUSH,
)
KINDS = {
    GnttabOp.MAP_GRANT_REF: GnttabMapGrantRef,
    GnttabOp.UNMAP_GRANT_REF: GnttabUnmapGrantRef,
    GnttabOp.UNMAP_AND_REPLACE: GnttabUnmapAndReplace,
    GnttabOp.COPY: GnttabCopy,
    GnttabOp.TRANSFER: GnttabTransfer,
    GnttabOp.SWAP_GRANT_REF: GnttabSwapGrantRef,
    GnttabOp.CACHE_FLUSH: GnttabCacheFlush,
    GnttabOp.SETUP_TABLE: GnttabSetupTable,
    GnttabOp.QUERY_SIZE: GnttabQuerySize,
    GnttabOp.SET_VERSION: GnttabSetVersion,
    GnttabOp.GET_VERSION: GnttabGetVersion,
    GnttabOp.GET_STATUS_FRAMES: GnttabGetStatusFrames,
}


@pytest.mark.parametrize("cmd", LISTS)
def test_errnos_of_lists(granter: Any, cmd: Any) -> None:
    guest = granter.guest
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, guest.va(0), 0) == 0, "an empty list"
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, BAD, 0) == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, BAD, 1) == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, 0x1000, 1) == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, guest.va(0), 0x8000_0000) == -Errno.EINVAL
    result = guest.call(Hypercall.GRANT_TABLE_OP, cmd | 0x1000, guest.va(0), 0)
    assert result == (0 if cmd == GnttabOp.CACHE_FLUSH else -Errno.EINVAL)


@pytest.mark.parametrize("cmd", [cmd for cmd in KINDS if cmd not in LISTS])
def test_errnos_of_single_calls(granter: Any, cmd: Any) -> None:
    guest = granter.guest
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, 0x1000, 1) == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, BAD, 1) == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, guest.va(0), 0x8000_0000) == -Errno.EINVAL
    assert guest.call(Hypercall.GRANT_TABLE_OP, cmd | 0x1000, guest.va(0), 1) == -Errno.EINVAL
    if cmd not in {GnttabOp.SET_VERSION, GnttabOp.GET_VERSION}:
        for count in (0, 2):
            assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, guest.va(0), count) == -Errno.EINVAL


@pytest.mark.parametrize("cmd", [GnttabOp.DUMP_TABLE, 13, 0xFFF])
def test_commands_that_do_not_exist(granter: Any, cmd: Any) -> None:
    assert granter.guest.call(Hypercall.GRANT_TABLE_OP, cmd, granter.guest.va(0), 1) == -Errno.ENOSYS


def test_a_result_that_can_not_be_written_is_efault(granter: Any) -> None:
    guest = granter.guest
    guest.make_read_only(10)
    for cmd, kind in KINDS.items():
        guest.hv.ram.write(guest.mfn(10) << 12, bytes(kind.SIZE))
        if cmd not in {GnttabOp.CACHE_FLUSH, GnttabOp.GET_VERSION}:
            assert guest.call(Hypercall.GRANT_TABLE_OP, cmd, guest.va(10), 1) == -Errno.EFAULT, cmd
