"""Watch points: kinds, addresses, lengths, and whose accesses count."""

from collections.abc import Callable

import pytest

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.points.watchpoints import Watchpoint, Watchpoints
from xdbg.debug.target import MAX_WATCHED
from xdbg.machine.ram import Ram
from xdbg.machine.stoppoints import Access, Watch
from xdbg.rsp.replies import ExitReply, StopReply, WatchHit
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError, WatchKind

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
WRITE, READ, ACCESS = WatchKind.WRITE, WatchKind.READ, WatchKind.ACCESS


def hit(stop: object) -> WatchHit:
    assert isinstance(stop, StopReply), stop
    assert stop.signal == Signal.TRAP
    [reason] = stop.reasons
    assert isinstance(reason, WatchHit)
    return reason


def test_a_write_stops_behind_the_instruction_with_the_kind_and_the_address(small: Small) -> None:
    guest = small()
    vaddr = guest.watch("counter")
    for value in (1, 2, 3):
        assert hit(guest.cont()) == WatchHit(WRITE, vaddr)
        assert guest.word("counter") == value
        assert guest.rip == guest.at("loop") + 10


@pytest.mark.parametrize(
    ("kind", "place", "length", "hits"),
    [
        (READ, "from", 16, 16),
        (WRITE, "from", 16, 0),
        (ACCESS, "from", 4, 4),
        (READ, "to", 16, 0),
        (ACCESS, "to", 16, 16),
    ],
)
def test_each_kind_stops_its_accesses_and_no_others(
    small: Small, kind: WatchKind, place: str, length: int, hits: int
) -> None:
    guest = small()
    vaddr = guest.watch(place, length, kind)
    found = []
    while not isinstance(stop := guest.cont(), ExitReply):
        found.append(hit(stop))
    assert found == [WatchHit(kind, vaddr + index) for index in range(hits)]


def test_the_address_is_the_first_watched_byte_that_was_touched(small: Small) -> None:
    guest = small()
    vaddr = guest.watch("counter", 2, WRITE, offset=3)
    assert hit(guest.cont()) == WatchHit(WRITE, vaddr)


def test_a_read_modify_write_is_both(small: Small) -> None:
    guest = small()
    guest.watch("sum", 8, READ)
    assert hit(guest.cont()).kind == READ
    assert guest.where() == "next_round"


def test_a_store_by_the_hypervisor_is_a_write(small: Small) -> None:
    guest = small()
    vaddr = guest.watch("answer", 1, WRITE, offset=1)
    assert hit(guest.cont()) == WatchHit(WRITE, vaddr)
    assert guest.where() == "asked", "the step ends where the guest goes on"
    assert isinstance(guest.cont(), ExitReply)


def test_a_bounce_frame_is_a_write(small: Small) -> None:
    guest = small()
    guest.brk("breakpoint")
    guest.cont()
    rsp = guest.target.hv.cpu.gpr[4]
    guest.target.insert_watchpoint(guest.kernel, WRITE, rsp - 64, 64)
    assert hit(guest.cont()).kind == WRITE
    assert guest.where() == "on_int3"


def test_stepping_into_a_watched_access_tells_the_watch(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    guest.cont()
    vaddr = guest.watch("counter")
    assert guest.step().reasons == ()
    assert hit(guest.step()) == WatchHit(WRITE, vaddr)


def test_watch_points_come_and_go_one_by_one_and_twice_is_once(small: Small) -> None:
    guest = small()
    vaddr = guest.watch("counter")
    guest.watch("counter")
    guest.watch("counter", kind=ACCESS)
    hit(guest.cont())
    guest.target.remove_watchpoint(guest.kernel, WRITE, vaddr, 8)
    guest.target.remove_watchpoint(guest.kernel, WRITE, vaddr, 8)
    assert hit(guest.cont()) == WatchHit(ACCESS, vaddr)
    guest.target.remove_watchpoint(guest.kernel, ACCESS, vaddr, 8)
    assert isinstance(guest.cont(), ExitReply)
    assert guest.target.hv.observer is None


def test_a_thousand_watch_points_tell_the_one_that_was_hit(small: Small) -> None:
    guest = small()
    for offset in range(0x1000, 0x1800, 2):
        guest.target.insert_watchpoint(guest.kernel, WRITE, guest.at("_start") - 0x1000 + offset, 1)
    vaddr = guest.watch("counter")
    assert hit(guest.cont()) == WatchHit(WRITE, vaddr)


def test_a_watch_point_of_absurd_length_is_refused(small: Small) -> None:
    guest = small()
    with pytest.raises(TargetError):
        guest.target.insert_watchpoint(guest.kernel, WRITE, 0, MAX_WATCHED + 1)


class Tables:
    """A page table of one level's worth of choice: 4 KiB pages from 0x400000 on."""

    def __init__(self) -> None:
        self.ram = Ram(64 << 12)
        for table, index, below in ((1, 0, 2), (2, 0, 3), (3, 2, 4)):
            self.ram.write_u64((table << 12) + 8 * index, below << 12 | 7)

    def map(self, page: int, mfn: int | None) -> None:
        self.ram.write_u64((4 << 12) + 8 * page, 0 if mfn is None else mfn << 12 | 7)

    @property
    def space(self) -> AddressSpace:
        return AddressSpace(self.ram, Maddr(1 << 12))


def follow(points: Watchpoints, tables: Tables, watched: set[Watch]) -> None:
    class Sink:
        def add(self, watch: Watch) -> None:
            assert watch not in watched
            watched.add(watch)

        def remove(self, watch: Watch) -> None:
            watched.remove(watch)

    points.follow(Sink(), lambda pid: tables.space if pid == 1 else None)


def test_pieces_follow_the_page_table() -> None:
    tables, points, watched = Tables(), Watchpoints(), set[Watch]()
    points.insert(Watchpoint(1, WRITE, 0x400FF0, 0x2020))
    follow(points, tables, watched)
    assert watched == set()
    tables.map(0, 16)
    tables.map(1, 17)
    tables.map(2, 40)
    follow(points, tables, watched)
    assert sorted((watch.maddr, watch.length) for watch in watched) == [(0x10FF0, 0x1010), (0x28000, 0x1000)]
    [first] = [watch for watch in watched if watch.maddr == 0x10FF0]
    assert points.hits([first], 0x10FEC, 8) == [(1, WatchHit(WRITE, 0x400FF0))]
    assert points.hits([first], 0x11004, 8) == [(1, WatchHit(WRITE, 0x401004))]
    tables.map(1, None)
    tables.map(3, 50)
    follow(points, tables, watched)
    assert sorted((watch.maddr, watch.length) for watch in watched) == [
        (0x10FF0, 0x10),
        (0x28000, 0x1000),
        (0x32000, 0x10),
    ]
    assert points.hits(points.stored(0x28010, 4), 0x28010, 4) == [(1, WatchHit(WRITE, 0x402010))]
    assert points.hits(points.stored(0x29000, 4), 0x29000, 4) == []
    points.forget(1)
    assert points, "what the CPU watches is to be taken out still"
    follow(points, tables, watched)
    assert not points
    assert watched == set()


def test_watch_points_of_one_place_are_told_oldest_first_and_read_watches_no_stores() -> None:
    tables, points, watched = Tables(), Watchpoints(), set[Watch]()
    tables.map(0, 16)
    for kind in (READ, ACCESS, WRITE):
        points.insert(Watchpoint(1, kind, 0x400100, 8))
    points.insert(Watchpoint(2, WRITE, 0x400100, 8))
    follow(points, tables, watched)
    assert {watch.access for watch in watched} == {Access.READ, Access.READ | Access.WRITE, Access.WRITE}
    assert points.hits(points.stored(0x10100, 1), 0x10100, 1) == [
        (1, WatchHit(ACCESS, 0x400100)),
        (1, WatchHit(WRITE, 0x400100)),
    ]
    assert tables.space.translate(Vaddr(0x400100)).maddr == 0x10100
