"""Virtual disks: the states of both ends, the ring, and each check of a request."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.blkif import BlkifOp, BlkifRsp
from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import PAGE_SIZE
from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, Gtf
from xdbg.abi.xenbus import XenbusState
from xdbg.xen import block_contents, xenstore
from xdbg.xen.block_backend import BACKEND, add_disk
from xdbg.xen.block_contents import Access, BlockContents, BlockError
from xdbg.xen.event_channel import BACKEND_DOMID, Port, clear_pending, is_pending
from xdbg.xen.event_channel_op import send
from xdbg.xen.page_info import PGT_L1_PAGE_TABLE
from xdbg.xen.page_table_types import get_page_type, put_page_type
from xdbg.xen.xenstore_home import make_dom0

VDEV = 51712
FRONT = f"device/vbd/{VDEV}"
BACK = f"/local/domain/0/backend/vbd/1/{VDEV}"
SECTORS = 64
RING = 5
"""The page of the guest that is the ring; 0 to 4 are for data."""
REF = 8
"""Grant REF + n is for page n."""


class Images:
    """One image in memory; `broken`: it can't be used any more."""

    def __init__(self) -> None:
        self.data = bytearray(b"".join(bytes([number]) * 512 for number in range(SECTORS)))
        self.flushed = 0
        self.broken = False

    def read(self, image: str, offset: int, length: int) -> bytes:
        assert image == "image"
        assert offset + length <= len(self.data)
        if self.broken:
            raise BlockError("broken")
        return bytes(self.data[offset : offset + length])

    def write(self, image: str, offset: int, data: bytes) -> None:
        assert image == "image"
        assert offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data

    def flush(self, image: str) -> None:
        assert image == "image"
        self.flushed += 1


class Frontend:
    """A kernel's driver for one disk."""

    def __init__(self, guest: Any, access: Access = Access.COPY_ON_WRITE) -> None:
        self.guest = guest
        self.domain = guest.domain
        self.images = Images()
        guest.hv.block_images = self.images
        make_dom0(guest.hv)
        add_disk(self.domain, VDEV, "xvda", BlockContents("image", SECTORS, access), target="disk.img")
        self.device = self.domain.disks[VDEV]
        self.size = 112
        self.produced = 0
        self.consumed = 0
        self.ring = guest.frames[RING] * PAGE_SIZE
        self.port = 0
        for number, frame in enumerate(guest.frames):
            self.domain.grant_table.set_entry(REF + number, GTF_PERMIT_ACCESS, BACKEND_DOMID, frame)

    def write(self, name: str, value: object) -> None:
        xenstore.write(self.domain, f"{FRONT}/{name}", str(value))

    def state(self, state: int) -> int:
        """Go to a state; the backend's after it."""
        self.write("state", int(state))
        return self.backend()

    def backend(self) -> int:
        return int(xenstore.read(self.domain, f"{BACK}/state") or b"0")

    def error(self) -> bytes | None:
        return xenstore.read(self.domain, f"/local/domain/0/error/backend/vbd/1/{VDEV}/error")

    def connect(self, order: int | None = None) -> int:
        """Make ring and port and say so; the backend's state."""
        ram = self.guest.hv.ram
        ram.write(self.ring, struct.pack("<IIII", 0, 1, 0, 1) + bytes(PAGE_SIZE - 16))
        self.produced = self.consumed = 0
        ports = self.domain.event_channels
        self.port = ports.free_port()
        ports.ports[self.port] = Port(EvtchnStat.UNBOUND, remote_domid=BACKEND_DOMID)
        self.write("event-channel", self.port)
        if order is None:
            self.write("ring-ref", REF + RING)
        return self.state(XenbusState.INITIALISED)

    def put(self, operation: int, sector: int, *segments: tuple[int, int, int], count: int | None = None) -> None:
        """Write a request into the next entry; its id is its number plus 1000. `segments`: page, first, last sector."""
        head = "<BBHxxxxQQ" if self.size == 112 else "<BBHQQ"
        nr_segments = len(segments) if count is None else count
        raw = struct.pack(head, operation, nr_segments, VDEV & 0xFFFF, self.produced + 1000, sector)
        raw += b"".join(struct.pack("<IBBxx", REF + page, first, last) for page, first, last in segments)
        self.put_raw(raw)

    def put_raw(self, raw: bytes) -> None:
        self.guest.hv.ram.write(self.ring + 64 + self.produced % 32 * self.size, raw[: self.size])
        self.produced += 1

    def push(self) -> None:
        self.guest.hv.ram.write_u32(self.ring, self.produced)

    def kick(self) -> None:
        self.push()
        send(self.domain, self.port)

    def responses(self) -> list[tuple[int, int, int]]:
        """Those that have come: number of the request, operation, status."""
        found = []
        while self.consumed != self.guest.hv.ram.read_u32(self.ring + 8):
            raw = self.guest.hv.ram.read(self.ring + 64 + self.consumed % 32 * self.size, 12)
            number, operation, status = struct.unpack("<QBxh", raw)
            found.append((number - 1000, operation, status))
            self.consumed += 1
        return found

    def do(self, operation: int, sector: int, *segments: tuple[int, int, int], count: int | None = None) -> int:
        """The status of one request."""
        number = self.produced
        self.put(operation, sector, *segments, count=count)
        self.kick()
        [(answered, echoed, status)] = self.responses()
        assert (answered, echoed) == (number, operation)
        return status

    def page(self, number: int) -> bytes:
        return bytes(self.guest.hv.ram.read(self.guest.frames[number] * PAGE_SIZE, PAGE_SIZE))

    def fill(self, number: int, data: bytes) -> None:
        self.guest.hv.ram.write(self.guest.frames[number] * PAGE_SIZE, data)


@pytest.fixture
def make(guest: Any) -> Callable[[Access], Frontend]:
    return lambda access: Frontend(guest, access)


@pytest.fixture
def disk(guest: Any) -> Frontend:
    """A copy-on-write disk that is connected."""
    disk = Frontend(guest)
    assert disk.connect() == XenbusState.CONNECTED
    return disk


def test_a_new_disk_waits_for_its_frontend(make: Callable[[Access], Frontend]) -> None:
    disk = make(Access.READ_ONLY)
    assert disk.backend() == XenbusState.INITWAIT
    for path, value in (
        (f"{FRONT}/backend", BACK),
        (f"{FRONT}/backend-id", "0"),
        (f"{FRONT}/virtual-device", str(VDEV)),
        (f"{FRONT}/device-type", "disk"),
        (f"{FRONT}/state", "1"),
        (f"{BACK}/frontend", f"/local/domain/1/{FRONT}"),
        (f"{BACK}/mode", "r"),
        (f"{BACK}/type", "phy"),
        (f"{BACK}/dev", "xvda"),
        (f"{BACK}/params", "disk.img"),
        (f"{BACK}/hotplug-status", "connected"),
        (f"{BACK}/max-ring-page-order", "4"),
    ):
        assert xenstore.read(disk.domain, path) == value.encode(), path
    assert xenstore.read(disk.domain, f"{BACK}/sectors") is None
    nodes = disk.domain.hv.xenstore_tree.nodes
    assert [str(p) for p in nodes[f"/local/domain/1/{FRONT}/state"].permissions] == ["n1", "r0"]
    assert [str(p) for p in nodes[f"{BACK}/state"].permissions] == ["n0", "r1"]


@pytest.mark.parametrize(("access", "info"), [(Access.READ_ONLY, b"4"), (Access.COPY_ON_WRITE, b"0")])
def test_a_connected_disk_says_what_it_is_like(make: Callable[[Access], Frontend], access: Access, info: bytes) -> None:
    disk = make(access)
    assert disk.connect() == XenbusState.CONNECTED
    for name, value in (
        ("sectors", b"64"),
        ("sector-size", b"512"),
        ("info", info),
        ("feature-flush-cache", b"1"),
        ("feature-barrier", b"1"),
        ("feature-discard", b"0"),
        ("feature-persistent", b"0"),
        ("feature-max-indirect-segments", None),
    ):
        assert xenstore.read(disk.domain, f"{BACK}/{name}") == value, name
    port = disk.domain.event_channels.ports[disk.port]
    assert (port.state, port.backend, port.device) == (EvtchnStat.INTERDOMAIN, BACKEND, VDEV)
    assert disk.domain.grant_table.entry(REF + RING).flags == GTF_PERMIT_ACCESS | Gtf.READING | Gtf.WRITING
    assert disk.state(XenbusState.CONNECTED) == XenbusState.CONNECTED


def test_a_disk_is_closed_and_connected_again(disk: Frontend) -> None:
    disk.do(BlkifOp.WRITE, 3, (0, 0, 0))
    assert disk.state(XenbusState.CLOSING) == XenbusState.CLOSING
    assert disk.state(XenbusState.CLOSED) == XenbusState.CLOSED
    assert disk.domain.grant_table.entry(REF + RING).flags == GTF_PERMIT_ACCESS
    assert disk.domain.event_channels.ports[disk.port].state is EvtchnStat.UNBOUND
    assert disk.device.ring is None
    assert disk.state(XenbusState.INITIALISING) == XenbusState.INITWAIT
    assert disk.connect() == XenbusState.CONNECTED
    assert disk.do(BlkifOp.READ, 3, (1, 0, 0)) == BlkifRsp.OKAY
    assert disk.page(1)[:512] == disk.page(0)[:512]


def test_a_disk_whose_frontend_is_removed_is_gone(disk: Frontend) -> None:
    xenstore.remove(disk.domain, FRONT)
    assert disk.device.ring is None
    assert disk.domain.grant_table.entry(REF + RING).flags == GTF_PERMIT_ACCESS
    assert disk.state(XenbusState.INITIALISING) == XenbusState.CONNECTED, "nobody looks any more"
    assert disk.device.ring is None


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("protocol", "sparc-abi", b"-38 unknown fe protocol"),
        ("event-channel", "none", f"-22 reading /local/domain/1/{FRONT}/event-channel".encode()),
        ("event-channel", "1000", b"-22 mapping ring-ref port 1000"),
        ("event-channel", "99999999", b"-22 mapping ring-ref port 99999999"),
        ("ring-ref", "", f"-22 reading /local/domain/1/{FRONT}/ring-ref".encode()),
        ("ring-ref", "0", b"-22 mapping ring-ref port"),
        ("ring-ref", "4000000000", b"-22 mapping ring-ref port"),
        ("ring-page-order", "5", b"-22 "),
        ("ring-page-order", "1", f"-22 reading /local/domain/1/{FRONT}/ring-ref0".encode()),
        ("multi-queue-num-queues", "2", b"-38 guest requested 2 queues"),
        ("multi-queue-num-queues", "0", b"-38 guest requested 0 queues"),
    ],
)
def test_bad_keys_are_an_error_that_can_be_mended(
    make: Callable[[Access], Frontend], key: str, value: str, error: bytes
) -> None:
    disk = make(Access.COPY_ON_WRITE)
    disk.connect()
    disk.state(XenbusState.CLOSED)
    disk.state(XenbusState.INITIALISING)
    good = xenstore.read(disk.domain, f"{FRONT}/{key}")
    disk.write(key, value)
    assert disk.state(XenbusState.INITIALISED) == XenbusState.CLOSING
    assert (disk.error() or b"").startswith(error)
    assert disk.domain.grant_table.entry(REF + RING).flags == GTF_PERMIT_ACCESS
    if good is None:
        xenstore.remove(disk.domain, f"{FRONT}/{key}")
    else:
        disk.write(key, good.decode())
    assert disk.state(XenbusState.INITIALISED) == XenbusState.CONNECTED


def test_indices_that_make_no_sense_are_no_ring(disk: Frontend) -> None:
    disk.state(XenbusState.CLOSED)
    disk.state(XenbusState.INITIALISING)
    disk.guest.hv.ram.write_u32(disk.ring, 33)
    disk.guest.hv.ram.write_u32(disk.ring + 8, 0)
    assert disk.state(XenbusState.INITIALISED) == XenbusState.CLOSING
    assert (disk.error() or b"").startswith(b"-5 mapping ring-ref")


@pytest.mark.parametrize("state", [0, 2, 7, 8, 9, -1])
def test_a_state_that_is_none_is_an_error(disk: Frontend, state: int) -> None:
    backend = disk.state(state)
    if state == 0:
        assert disk.device.gone
    else:
        assert backend == XenbusState.CLOSING
        assert disk.error() == f"-22 saw state {state} at frontend".encode()


def test_sectors_are_read_where_the_segments_say(disk: Frontend) -> None:
    disk.fill(0, b"x" * PAGE_SIZE)
    disk.fill(1, b"y" * PAGE_SIZE)
    assert disk.do(BlkifOp.READ, 10, (0, 1, 2), (1, 7, 7)) == BlkifRsp.OKAY
    assert disk.page(0) == b"x" * 512 + bytes([10]) * 512 + bytes([11]) * 512 + b"x" * 5 * 512
    assert disk.page(1) == b"y" * 7 * 512 + bytes([12]) * 512
    assert is_pending(disk.domain, disk.port)
    assert disk.domain.grant_table.entry(REF).flags == GTF_PERMIT_ACCESS, "given back"


def test_what_is_written_is_read_again_and_the_image_stays_as_it_is(disk: Frontend) -> None:
    before = bytes(disk.images.data)
    disk.fill(0, bytes(range(256)) * 16)
    assert disk.do(BlkifOp.WRITE, 61, (0, 2, 4)) == BlkifRsp.OKAY
    assert disk.do(BlkifOp.READ, 60, (1, 0, 3)) == BlkifRsp.OKAY
    assert disk.page(1)[: 4 * 512] == bytes([60]) * 512 + disk.page(0)[2 * 512 : 5 * 512]
    assert disk.images.data == before
    assert disk.images.flushed == 0


def test_a_write_through_disk_writes_to_its_image(make: Callable[[Access], Frontend]) -> None:
    disk = make(Access.WRITE_THROUGH)
    disk.connect()
    disk.fill(0, b"w" * 512)
    assert disk.do(BlkifOp.WRITE, 5, (0, 0, 0)) == BlkifRsp.OKAY
    assert disk.images.data[5 * 512 : 6 * 512] == b"w" * 512
    assert disk.images.flushed == 0
    assert disk.do(BlkifOp.FLUSH_DISKCACHE, 0) == BlkifRsp.OKAY
    assert disk.images.flushed == 1
    assert disk.do(BlkifOp.WRITE_BARRIER, 6, (0, 0, 0)) == BlkifRsp.OKAY
    assert disk.images.data[6 * 512 : 7 * 512] == b"w" * 512
    assert disk.images.flushed == 3
    assert disk.device.contents.written == {}


@pytest.mark.parametrize("operation", [BlkifOp.WRITE, BlkifOp.WRITE_BARRIER, BlkifOp.FLUSH_DISKCACHE])
def test_a_read_only_disk_is_not_written_to(make: Callable[[Access], Frontend], operation: int) -> None:
    disk = make(Access.READ_ONLY)
    disk.connect()
    before = bytes(disk.images.data)
    assert disk.do(operation, 5, (0, 0, 0)) == BlkifRsp.ERROR
    assert disk.images.data == before
    assert disk.do(BlkifOp.READ, 5, (0, 0, 0)) == BlkifRsp.OKAY


@pytest.mark.parametrize(
    ("operation", "sector", "segments", "count", "status"),
    [
        (BlkifOp.READ, 0, [], None, BlkifRsp.ERROR),
        (BlkifOp.WRITE, 0, [], None, BlkifRsp.ERROR),
        (BlkifOp.FLUSH_DISKCACHE, 0, [], None, BlkifRsp.OKAY),
        (BlkifOp.FLUSH_DISKCACHE, 1 << 63, [], None, BlkifRsp.OKAY),
        (BlkifOp.WRITE_BARRIER, 0, [], None, BlkifRsp.OKAY),
        (BlkifOp.READ, 0, [(0, 0, 0)] * 11, None, BlkifRsp.OKAY),
        (BlkifOp.READ, 0, [(0, 0, 0)] * 11, 12, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 0, 0)] * 11, 255, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 3, 2)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 0, 8)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 8, 8)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 0, 255)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 56, [(0, 0, 7)], None, BlkifRsp.OKAY),
        (BlkifOp.READ, 57, [(0, 0, 7)], None, BlkifRsp.ERROR),
        (BlkifOp.WRITE, 57, [(0, 0, 7)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 64, [(0, 0, 0)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, (1 << 64) - 1, [(0, 0, 0)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 0, 0), (100, 0, 0)], None, BlkifRsp.ERROR),
        (BlkifOp.READ, 0, [(0, 0, 0), (5000, 0, 0)], None, BlkifRsp.ERROR),
        (BlkifOp.RESERVED_1, 0, [(0, 0, 0)], None, BlkifRsp.EOPNOTSUPP),
        (BlkifOp.INDIRECT, 0, [(0, 0, 0)], None, BlkifRsp.EOPNOTSUPP),
        (255, 0, [(0, 0, 0)], None, BlkifRsp.EOPNOTSUPP),
    ],
)
def test_what_is_refused_and_how(
    disk: Frontend,
    operation: int,
    sector: int,
    segments: list[tuple[int, int, int]],
    count: int | None,
    status: BlkifRsp,
) -> None:
    before = disk.page(0)
    assert disk.do(operation, sector, *segments, count=count) == status
    if status is not BlkifRsp.OKAY:
        assert disk.page(0) == before
        assert disk.device.contents.written == {}
    assert disk.domain.grant_table.entry(REF).flags == GTF_PERMIT_ACCESS
    assert disk.do(BlkifOp.READ, 1, (0, 0, 0)) == BlkifRsp.OKAY


@pytest.mark.parametrize(
    ("sector", "count", "status"),
    [(0, 8, BlkifRsp.EOPNOTSUPP), (60, 5, BlkifRsp.ERROR), (1, (1 << 64) - 1, BlkifRsp.ERROR)],
)
def test_discards_are_checked_and_not_offered(disk: Frontend, sector: int, count: int, status: BlkifRsp) -> None:
    disk.put_raw(struct.pack("<BBHxxxxQQQ", BlkifOp.DISCARD, 0, 0, 1000, sector, count))
    disk.kick()
    assert disk.responses() == [(0, BlkifOp.DISCARD, status)]


def test_a_grant_that_is_read_only_can_be_written_from_and_not_read_to(disk: Frontend) -> None:
    disk.domain.grant_table.entry(REF).flags = GTF_PERMIT_ACCESS | Gtf.READONLY
    assert disk.do(BlkifOp.READ, 0, (0, 0, 0)) == BlkifRsp.ERROR
    assert disk.do(BlkifOp.WRITE, 0, (0, 0, 0)) == BlkifRsp.OKAY
    disk.domain.grant_table.entry(REF).domid = 2
    assert disk.do(BlkifOp.WRITE, 0, (0, 0, 0)) == BlkifRsp.ERROR


def test_a_page_table_is_not_read_to(disk: Frontend) -> None:
    disk.fill(0, bytes(PAGE_SIZE))
    get_page_type(disk.guest.hv, disk.guest.frames[0], PGT_L1_PAGE_TABLE)
    assert disk.do(BlkifOp.READ, 1, (0, 0, 7)) == BlkifRsp.ERROR
    assert disk.page(0) == bytes(PAGE_SIZE)
    put_page_type(disk.guest.hv, disk.guest.frames[0])
    assert disk.do(BlkifOp.READ, 1, (0, 0, 7)) == BlkifRsp.OKAY


def test_an_image_that_fails_is_an_error_of_the_request(disk: Frontend) -> None:
    disk.images.broken = True
    assert disk.do(BlkifOp.READ, 0, (0, 0, 0)) == BlkifRsp.ERROR
    disk.guest.hv.block_images = None
    assert disk.do(BlkifOp.READ, 0, (0, 0, 0)) == BlkifRsp.ERROR


def test_a_full_copy_on_write_disk_takes_no_more(disk: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_contents, "MAX_WRITTEN", 2 * 4096)
    assert disk.do(BlkifOp.WRITE, 0, (0, 0, 7), (1, 0, 7)) == BlkifRsp.OKAY
    assert disk.do(BlkifOp.WRITE, 15, (2, 0, 1)) == BlkifRsp.ERROR
    assert disk.do(BlkifOp.WRITE, 14, (2, 0, 1)) == BlkifRsp.OKAY
    assert len(disk.device.contents.written) == 2


def test_requests_are_answered_in_order_with_one_event_for_all(disk: Frontend) -> None:
    for number in range(32):
        disk.put(BlkifOp.READ, number, (0, 0, 0), count=number % 2)
    disk.kick()
    expected = [BlkifRsp.OKAY if number % 2 else BlkifRsp.ERROR for number in range(32)]
    assert disk.responses() == [(number, BlkifOp.READ, status) for number, status in enumerate(expected)]
    assert disk.guest.hv.ram.read_u32(disk.ring + 4) == 33, "it wants to hear of the next request"


def test_the_frontend_says_when_it_wants_to_be_notified(disk: Frontend) -> None:
    clear_pending(disk.domain, disk.port)
    disk.guest.hv.ram.write_u32(disk.ring + 12, 3)
    for expected in (False, False, True, False):
        disk.do(BlkifOp.READ, 0, (0, 0, 0))
        assert is_pending(disk.domain, disk.port) is expected
        clear_pending(disk.domain, disk.port)


def test_requests_that_wait_in_the_ring_are_carried_out_at_the_connection(make: Callable[[Access], Frontend]) -> None:
    disk = make(Access.COPY_ON_WRITE)
    disk.connect()
    disk.state(XenbusState.CLOSED)
    disk.state(XenbusState.INITIALISING)
    disk.put(BlkifOp.READ, 9, (0, 0, 0))
    disk.push()
    assert disk.state(XenbusState.INITIALISED) == XenbusState.CONNECTED
    assert disk.responses() == [(0, BlkifOp.READ, BlkifRsp.OKAY)]


@pytest.mark.parametrize("ahead", [33, 1000, 0x8000_0000, 0xFFFF_FFFF])
def test_a_producer_out_of_range_halts_the_ring_until_it_is_connected_anew(disk: Frontend, ahead: int) -> None:
    disk.do(BlkifOp.READ, 0, (0, 0, 0))
    disk.guest.hv.ram.write_u32(disk.ring, disk.produced + ahead & 0xFFFF_FFFF)
    send(disk.domain, disk.port)
    assert disk.responses() == []
    disk.put(BlkifOp.READ, 0, (0, 0, 0))
    disk.kick()
    assert disk.responses() == [], "halted"
    disk.state(XenbusState.CLOSED)
    disk.state(XenbusState.INITIALISING)
    assert disk.connect() == XenbusState.CONNECTED
    assert disk.do(BlkifOp.READ, 0, (0, 0, 0)) == BlkifRsp.OKAY


def test_a_read_into_the_ring_itself_does_not_keep_the_backend_busy(disk: Frontend) -> None:
    # Request N reads sector N into the ring's header: a producer that is ahead of what has been done by then.
    for number in range(SECTORS):
        header = struct.pack("<IIII", number + 3, 0, number, 0).ljust(64, b"\0")
        read_next = struct.pack("<BBHxxxxQQIBBxx", BlkifOp.READ, 1, 0, 0, number + 1, REF + RING, 0, 0)
        disk.images.data[number * 512 : (number + 1) * 512] = (header + read_next.ljust(112, b"\0") * 4)[:512]
    for number in range(32):
        disk.put(BlkifOp.READ, number, (RING, 0, 0))
    disk.produced = 1
    disk.kick()
    assert disk.device.ring is not None
    assert (disk.device.ring.done, disk.device.ring.halted) == (32, True)


@pytest.mark.parametrize("protocol", ["x86_32-abi", None])
def test_a_frontend_of_32_bits_has_smaller_requests(make: Callable[[Access], Frontend], protocol: str | None) -> None:
    disk = make(Access.COPY_ON_WRITE)
    disk.size = 108
    if protocol is None:
        xenstore.remove(disk.domain, f"{FRONT}/protocol")
    else:
        disk.write("protocol", protocol)
    assert disk.connect() == XenbusState.CONNECTED
    for number in range(40):
        assert disk.do(BlkifOp.READ, number, (0, 1, 1)) == BlkifRsp.OKAY
        assert disk.page(0)[512:1024] == bytes([number]) * 512


def test_a_ring_may_have_several_pages(make: Callable[[Access], Frontend]) -> None:
    disk = make(Access.COPY_ON_WRITE)
    disk.write("ring-page-order", 1)
    disk.write("ring-ref0", REF + RING)
    disk.write("ring-ref1", REF + RING + 1)
    disk.fill(RING + 1, bytes(PAGE_SIZE))
    assert disk.connect(order=1) == XenbusState.CONNECTED
    ring = disk.device.ring
    assert ring is not None
    assert ring.nr_entries == 64
    data = bytearray(2 * PAGE_SIZE)
    struct.pack_into("<IIII", data, 0, 64, 1, 0, 1)
    for number in range(64):
        entry = struct.pack("<BBHxxxxQQIBBxx", BlkifOp.READ, 1, 0, number, number, REF, 0, 0)
        data[64 + number * 112 : 64 + number * 112 + len(entry)] = entry
    disk.fill(RING, bytes(data[:PAGE_SIZE]))
    disk.fill(RING + 1, bytes(data[PAGE_SIZE:]))
    send(disk.domain, disk.port)
    both = disk.page(RING) + disk.page(RING + 1)
    answers = [struct.unpack_from("<QBxh", both, 64 + number * 112) for number in range(64)]
    assert answers == [(number, BlkifOp.READ, BlkifRsp.OKAY) for number in range(64)]


_REQUEST = st.tuples(
    st.one_of(st.integers(0, 7), st.integers(0, 255)),
    st.one_of(st.integers(0, 12), st.integers(0, 255)),
    st.one_of(st.integers(0, 70), st.integers(0, (1 << 64) - 1)),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9), st.integers(0, 9)), min_size=11, max_size=11),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_REQUEST, max_size=40), st.lists(st.integers(0, 0xFFFF_FFFF), max_size=3))
def test_no_requests_or_indices_break_the_backend(
    disk: Frontend, requests: list[tuple[int, int, int, list[tuple[int, int, int]]]], indices: list[int]
) -> None:
    disk.state(XenbusState.CLOSED)
    disk.state(XenbusState.INITIALISING)
    disk.domain.event_channels.ports[disk.port] = Port()
    assert disk.connect() == XenbusState.CONNECTED
    others = disk.guest.hv.ram.read(0, disk.guest.frames[0] * PAGE_SIZE)
    image = bytes(disk.images.data)
    for operation, count, sector, segments in requests:
        disk.put(operation, sector, *[(page if page != RING else 0, *rest) for page, *rest in segments], count=count)
        disk.kick()
        statuses = {status for _, _, status in disk.responses()}
        assert statuses <= {BlkifRsp.OKAY, BlkifRsp.ERROR, BlkifRsp.EOPNOTSUPP}
    for index in indices:
        disk.guest.hv.ram.write_u32(disk.ring, index)
        send(disk.domain, disk.port)
    assert disk.images.data == image
    assert disk.guest.hv.ram.read(0, PAGE_SIZE) == others[:PAGE_SIZE]
    assert set(disk.domain.grant_table.active) <= {REF + RING}, "every data page has been given back"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["state", "state", "state", "ring-ref", "event-channel", "protocol", "ring-page-order", "ring-ref0"]
            ),
            st.one_of(
                st.sampled_from(["1", "3", "4", "5", "6", "x86_64-abi", str(REF + RING), "7"]),
                st.text(st.characters(max_codepoint=255), max_size=6),
            ),
        ),
        max_size=25,
    )
)
def test_no_keys_break_the_backend(disk: Frontend, writes: list[tuple[str, str]]) -> None:
    for name, value in writes:
        disk.write(name, value)
        ring = disk.device.ring
        held = set(ring.refs) if ring is not None else set()
        assert set(disk.domain.grant_table.active) == held
        bound = [p for p in disk.domain.event_channels.ports if p.backend == BACKEND]
        assert len(bound) == (ring is not None)
