"""GNTTABOP_copy: both sides by grant or by frame, each status, pins held for the list and no longer."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.grant_table import GTF_INVALID, GTF_PERMIT_ACCESS, Gntmap, Gntst, GnttabCopy, GnttabOp, Gtf
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.xen.events import MemoryWritten
from xdbg.xen.grant_access import PIN_LIMIT, acquire_grant, release_grant

from .conftest import Side, copy_request

L1 = 7
PATTERN = bytes(range(256)) * 16
REF, FRAME, OWN = 9, 20, 30
"""The grant, the granter's page, and a page of who copies."""


def read(party: Any, pfn: int) -> bytes:
    return party.hv.ram.read(party.guest.mfn(pfn) << 12, 4096)


@pytest.fixture
def granted(granter: Any, mapper: Any) -> Side:
    """Page FRAME of the granter, by its grant."""
    granter.grant(REF, mapper, FRAME)
    granter.guest.write(FRAME, PATTERN)
    return Side(REF, domid=granter.domid)


@pytest.fixture
def own(mapper: Any) -> Side:
    return Side(gmfn=mapper.guest.mfn(OWN))


def test_from_a_grant_and_to_a_grant(granter: Any, mapper: Any, granted: Side, own: Side) -> None:
    assert mapper.copy(granted, own, 4096) == Gntst.OKAY
    assert read(mapper, OWN) == PATTERN
    mapper.guest.write(OWN, PATTERN[::-1])
    assert mapper.copy(own, granted, 4096) == Gntst.OKAY
    assert read(granter, FRAME) == PATTERN[::-1]
    assert granter.entry(REF).flags == GTF_PERMIT_ACCESS


def test_from_a_domains_grant_to_anothers(granter: Any, mapper: Any, third: Any, granted: Side) -> None:
    third.grant(REF, mapper, 25)
    assert mapper.copy(granted, Side(REF, domid=third.domid), 4096) == Gntst.OKAY
    assert read(third, 25) == PATTERN


def test_within_the_own_domain(mapper: Any) -> None:
    mapper.guest.write(40, PATTERN)
    mapper.grant(REF, mapper, 40)
    assert mapper.copy(Side(gmfn=mapper.guest.mfn(40)), Side(gmfn=mapper.guest.mfn(OWN)), 4096) == Gntst.OKAY
    assert read(mapper, OWN) == PATTERN
    own = Side(REF, offset=64)
    assert mapper.copy(Side(REF), own, 32) == Gntst.OKAY, "the same frame on both sides"
    assert read(mapper, 40)[64:96] == PATTERN[:32]


@pytest.mark.parametrize(
    ("start", "end", "length"), [(0, 0, 1), (100, 200, 300), (4095, 0, 1), (0, 4095, 1), (8, 8, 0)]
)
def test_offsets_and_lengths(mapper: Any, granted: Side, start: Any, end: Any, length: Any) -> None:
    source = Side(granted.ref, domid=granted.domid, offset=start)
    before = read(mapper, OWN)
    assert mapper.copy(source, Side(gmfn=mapper.guest.mfn(OWN), offset=end), length) == Gntst.OKAY
    expected = before[:end] + PATTERN[start : start + length] + before[end + length :]
    assert read(mapper, OWN) == expected


@pytest.mark.parametrize(
    ("start", "end", "length"), [(0, 1, 4096), (1, 0, 4096), (4096, 0, 1), (0, 4096, 1), (0, 65535, 9)]
)
def test_beyond_the_page_is_bad_copy_arg(mapper: Any, granted: Side, start: Any, end: Any, length: Any) -> None:
    source = Side(granted.ref, domid=granted.domid, offset=start)
    assert mapper.copy(source, Side(gmfn=mapper.guest.mfn(OWN), offset=end), length) == Gntst.BAD_COPY_ARG


@pytest.mark.parametrize(
    ("side", "status"),
    [
        (Side(REF, domid=77), Gntst.BAD_DOMAIN),
        (Side(gmfn=3, domid=1), Gntst.PERMISSION_DENIED),
        (Side(gmfn=3, domid=2), Gntst.PERMISSION_DENIED),
        (Side(gmfn=3, domid=77), Gntst.PERMISSION_DENIED),
        (Side(REF, domid=0), Gntst.GENERAL_ERROR),
        (Side(512, domid=0), Gntst.BAD_GNTREF),
        (Side(512, domid=1), Gntst.BAD_GNTREF),
        (Side(0xFFFF_FFFF, domid=1), Gntst.BAD_GNTREF),
        (Side(REF + 1, domid=1), Gntst.GENERAL_ERROR),
        (Side(REF, domid=3), Gntst.GENERAL_ERROR),
        (Side(gmfn=0), Gntst.BAD_PAGE),
        (Side(gmfn=1 << 40), Gntst.BAD_PAGE),
        (Side(gmfn=(1 << 64) - 1), Gntst.BAD_PAGE),
    ],
)
@pytest.mark.parametrize("as_source", [False, True])
def test_sides_that_are_refused(mapper: Any, granted: Side, own: Side, side: Any, status: Any, as_source: Any) -> None:
    del granted
    assert (mapper.copy(side, own) if as_source else mapper.copy(own, side)) == status


def test_frames_of_others_are_refused(granter: Any, mapper: Any, own: Side) -> None:
    foreign = Side(gmfn=granter.guest.mfn(FRAME))
    assert mapper.copy(foreign, own) == Gntst.BAD_PAGE
    assert mapper.copy(own, foreign) == Gntst.BAD_PAGE
    granter.set_entry(REF, GTF_PERMIT_ACCESS, mapper.domid, mapper.guest.mfn(OWN))
    assert mapper.copy(Side(REF, domid=granter.domid), own) == Gntst.BAD_PAGE


def test_a_read_only_grant_is_read_only(granter: Any, mapper: Any, own: Side) -> None:
    granter.grant(REF, mapper, FRAME, readonly=True)
    side = Side(REF, domid=granter.domid)
    assert mapper.copy(side, own) == Gntst.OKAY
    assert mapper.copy(own, side) == Gntst.GENERAL_ERROR


def test_page_tables_are_read_and_not_written(granter: Any, mapper: Any, own: Side) -> None:
    granter.grant(REF, mapper, L1)
    side = Side(REF, domid=granter.domid)
    assert mapper.copy(side, own, 4096) == Gntst.OKAY
    assert read(mapper, OWN) == read(granter, L1)
    assert mapper.copy(own, side) == Gntst.GENERAL_ERROR
    assert mapper.copy(own, Side(gmfn=mapper.guest.mfn(L1))) == Gntst.GENERAL_ERROR


def test_pins_are_limited(granter: Any, mapper: Any, granted: Side, own: Side) -> None:
    for _ in range(PIN_LIMIT):
        acquire_grant(granter.domain, REF, mapper.domid, readonly=True)
    assert mapper.copy(granted, own) == Gntst.GENERAL_ERROR
    assert mapper.copy(own, granted) == Gntst.OKAY, "writers have a count of their own"
    for _ in range(PIN_LIMIT):
        release_grant(granter.domain, REF, mapper.domid, readonly=True)


def test_a_stale_pin_is_bad_domain(granter: Any, mapper: Any, third: Any, granted: Side, own: Side) -> None:
    mapper.map(granter, REF, OWN + 1, Gntmap.HOST_MAP)
    mapper.guest.map(OWN + 1, 0)
    granter.guest.map(FRAME, 0)
    third.accept(REF, granter, 70)
    assert granter.transfer(FRAME, third.domid, REF) == Gntst.OKAY
    assert mapper.copy(granted, own) == Gntst.BAD_DOMAIN
    assert mapper.copy(own, granted) == Gntst.BAD_DOMAIN


def test_a_list_goes_on_after_a_failure(granter: Any, mapper: Any, granted: Side, own: Side) -> None:
    requests = [
        copy_request(granted, own, 16),
        copy_request(granted, Side(gmfn=0), 16),
        copy_request(Side(gmfn=0), own, 16),
        copy_request(Side(REF, domid=77), own, 16),
        copy_request(own, Side(gmfn=mapper.guest.mfn(OWN + 1)), 16),
        copy_request(granted, own, 16),
    ]
    done = mapper.operate(GnttabOp.COPY, *requests)
    wanted = [Gntst.OKAY, Gntst.BAD_PAGE, Gntst.BAD_PAGE, Gntst.BAD_DOMAIN, Gntst.OKAY, Gntst.OKAY]
    assert [op.status for op in done] == wanted
    assert read(mapper, OWN + 1)[:16] == PATTERN[:16]


def test_a_frame_stays_pinned_while_the_list_names_it(granter: Any, mapper: Any, own: Side) -> None:
    """The first copy overwrites the entry that is in use: those behind it still go to the frame that was granted."""
    granter.grant(REF, mapper, FRAME)
    granter.grant(REF + 1, mapper, FRAME + 1)
    mapper.guest.write(OWN, bytes(4) + PATTERN[:12])
    table = granter.domain.grant_table.frames[0]
    granter.set_entry(REF + 2, GTF_PERMIT_ACCESS, mapper.domid, table)
    granted = Side(REF, domid=granter.domid)
    requests = [
        copy_request(Side(gmfn=own.gmfn, offset=4), granted, 4),
        copy_request(own, Side(REF + 2, domid=granter.domid, offset=REF * 8), 4),
        copy_request(Side(gmfn=own.gmfn, offset=8), granted, 4),
    ]
    done = mapper.operate(GnttabOp.COPY, *requests)
    assert [op.status for op in done] == [Gntst.OKAY, Gntst.OKAY, Gntst.GENERAL_ERROR], "the grant was ended between"
    assert granter.entry(REF).flags == GTF_INVALID
    granter.grant(REF, mapper, FRAME)
    first, second = copy_request(own, granted, 4), copy_request(own, granted, 8)
    assert [op.status for op in mapper.operate(GnttabOp.COPY, first, second)] == [Gntst.OKAY] * 2


def test_a_list_that_can_not_be_read_leaves_no_pin(granter: Any, mapper: Any, granted: Side, own: Side) -> None:
    guest = mapper.guest
    raw = copy_request(granted, own, 16).to_bytes()
    guest.write(1, raw, 4096 - len(raw))
    assert guest.map(2, 0) == 0
    at = guest.va(2) - GnttabCopy.SIZE
    assert guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.COPY, at, 2) == -Errno.EFAULT
    assert granter.entry(REF).flags == GTF_PERMIT_ACCESS
    assert read(mapper, OWN)[:16] == PATTERN[:16], "the first one was done"


def test_the_observer_hears_of_the_bytes_and_of_the_flags(granter: Any, mapper: Any, granted: Side) -> None:
    events: list[Any] = []

    class Listener:
        def observe(self, _vcpu: Any, event: Any) -> None:
            events.append(event)

    granter.hv.observer = Listener()
    mapper.copy(granted, Side(gmfn=mapper.guest.mfn(OWN), offset=100), 50)
    granter.hv.observer = None
    written = [(event.maddr, event.length) for event in events if isinstance(event, MemoryWritten)]
    assert ((mapper.guest.mfn(OWN) << 12) + 100, 50) in written
    entry = granter.domain.grant_table.entry_maddr(REF)
    assert written.count((entry, 8)) == 2, "GTF_reading came and went"


def test_own_frames_are_named_by_domid_self_only(mapper: Any, own: Side) -> None:
    assert mapper.copy(Side(gmfn=own.gmfn, domid=mapper.domid), own) == Gntst.PERMISSION_DENIED
    assert mapper.copy(Side(gmfn=own.gmfn, domid=DOMID_SELF), own) == Gntst.OKAY


def test_writing_pins_as_a_writer(granter: Any, mapper: Any, granted: Side, own: Side) -> None:
    flags: list[int] = []

    class Listener:
        def observe(self, _vcpu: Any, event: Any) -> None:
            if isinstance(event, MemoryWritten) and event.maddr == granter.domain.grant_table.entry_maddr(REF):
                flags.append(granter.entry(REF).flags)

    granter.hv.observer = Listener()
    mapper.copy(own, granted)
    granter.hv.observer = None
    assert flags == [GTF_PERMIT_ACCESS | Gtf.READING | Gtf.WRITING, GTF_PERMIT_ACCESS]
