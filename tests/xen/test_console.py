"""The console: its ring in both directions, and console_io."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.console import ConsoleIo, XenconsInterface
from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.hypercalls import Hypercall
from xdbg.xen import console
from xdbg.xen.console import serve_console
from xdbg.xen.event_channel import Port, is_pending
from xdbg.xen.event_channel_op import bind_interdomain, close, send
from xdbg.xen.events import ConsoleOutput
from xdbg.xen.page_info import PGT_L1_PAGE_TABLE
from xdbg.xen.page_table_types import get_page_and_type


@pytest.fixture
def ring(guest: Any) -> XenconsInterface:
    """The ring page of the guest's connected console."""
    port = guest.domain.event_channels.bind_backend(console.BACKEND)
    guest.domain.console.connect(guest.frames[2], port)
    return XenconsInterface.at(guest.hv.ram, guest.frames[2] * 4096)


def say(ring: XenconsInterface, data: bytes) -> None:
    for byte in data:
        ring.out[ring.out_prod % 2048] = byte
        ring.out_prod += 1


def hear(ring: XenconsInterface) -> bytes:
    data = bytes(ring.in_[index % 1024] for index in range(ring.in_cons, ring.in_prod))
    ring.in_cons = ring.in_prod
    return data


def test_a_send_drains_the_ring_and_answers_with_an_event(guest: Any, ring: XenconsInterface) -> None:
    guest.hv.observer = guest
    say(ring, b"hello\n")
    send(guest.domain, guest.domain.console.port)
    assert ring.out_cons == ring.out_prod == 6
    assert guest.domain.console.take_output() == b"hello\n"
    assert guest.domain.console.take_output() == b""
    assert is_pending(guest.domain, guest.domain.console.port)
    assert ConsoleOutput(b"hello\n") in guest.events


def test_output_goes_round_the_end_of_the_ring_and_of_the_indices(guest: Any, ring: XenconsInterface) -> None:
    ring.out_cons = ring.out_prod = 0xFFFF_FFFE
    data = bytes(range(256)) * 8
    for index, byte in enumerate(data):
        ring.out[(0xFFFF_FFFE + index) % 2048] = byte
    ring.out_prod = (0xFFFF_FFFE + len(data)) & 0xFFFF_FFFF
    serve_console(guest.domain)
    assert guest.domain.console.take_output() == data
    assert ring.out_cons == ring.out_prod


def test_input_waits_for_room_and_comes_in_order(guest: Any, ring: XenconsInterface) -> None:
    data = bytes(index % 251 for index in range(2500))
    console.send_input(guest.domain, data)
    assert ring.in_prod == 1024
    assert is_pending(guest.domain, guest.domain.console.port)
    heard = b""
    while ring.in_prod != ring.in_cons:
        heard += hear(ring)
        send(guest.domain, guest.domain.console.port)
    assert heard == data


def test_nothing_moves_and_nobody_is_told_when_there_is_nothing(guest: Any, ring: XenconsInterface) -> None:
    serve_console(guest.domain)
    assert ring.out_cons == 0
    assert not is_pending(guest.domain, guest.domain.console.port)


def test_input_before_the_console_is_connected_is_kept(guest: Any) -> None:
    console.send_input(guest.domain, b"early")
    assert guest.domain.console.input == b"early"


@pytest.mark.parametrize("field", ["out_prod", "out_cons", "in_prod", "in_cons"])
@pytest.mark.parametrize("value", [2049, 0x8000_0000, 0xFFFF_F000])
def test_a_nonsense_index_stops_one_direction_only(guest: Any, ring: XenconsInterface, field: str, value: int) -> None:
    setattr(ring, field, value)
    if not field.startswith("out"):
        say(ring, b"still heard")
    console.send_input(guest.domain, b"x")
    if field.startswith("out"):
        assert guest.domain.console.take_output() == b""
        assert hear(ring) == b"x"
    else:
        assert guest.domain.console.take_output() == b"still heard"
        assert guest.domain.console.input == b"x"


def test_a_ring_page_that_is_the_guests_no_more_is_left_alone(guest: Any, ring: XenconsInterface) -> None:
    guest.hv.ram.write(guest.frames[2] * 4096, bytes(4096))
    get_page_and_type(guest.hv, guest.frames[2], guest.domain.domid, PGT_L1_PAGE_TABLE)
    console.send_input(guest.domain, b"x")
    assert ring.in_prod == 0
    assert guest.domain.console.input == b"x"


def test_a_kernel_that_binds_the_console_anew_goes_on_where_the_old_one_stopped(
    guest: Any, ring: XenconsInterface
) -> None:
    old = guest.domain.console.port
    far = guest.domain.event_channels.ports[old].remote_port
    say(ring, b"last words")
    close(guest.domain, old)
    console.send_input(guest.domain, b"typed meanwhile")
    assert guest.domain.console.take_output() == b"last words"
    assert not is_pending(guest.domain, old)
    other = guest.domain.event_channels.free_port()
    guest.domain.event_channels.ports[other] = Port(EvtchnStat.IPI)
    new = bind_interdomain(guest.vcpu, 0, far)
    assert new not in (old, other)
    say(ring, b"first words")
    send(guest.domain, new)
    assert guest.domain.console.take_output() == b"first words"
    assert is_pending(guest.domain, new)
    assert hear(ring) == b"typed meanwhile"


def test_a_burst_of_rings_full_comes_whole(guest: Any, ring: XenconsInterface) -> None:
    data = bytes(index * 7 % 256 for index in range(100 * 2048))
    for start in range(0, len(data), 2048):
        ring.out[:] = data[start : start + 2048]
        ring.out_prod = start + 2048
        send(guest.domain, guest.domain.console.port)
        assert ring.out_cons == ring.out_prod
    assert guest.domain.console.take_output() == data


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.integers(0, 0xFFFF_FFFF)] * 4), st.binary(max_size=3000))
def test_no_indices_break_the_console(
    guest: Any, ring: XenconsInterface, indices: tuple[int, ...], data: bytes
) -> None:
    ring.in_cons, ring.in_prod, ring.out_cons, ring.out_prod = indices
    waiting = len(guest.domain.console.input)
    console.send_input(guest.domain, data)
    assert len(guest.domain.console.take_output()) <= 2048
    assert 0 <= waiting + len(data) - len(guest.domain.console.input) <= 1024


def test_console_io_writes_to_the_same_output(guest: Any) -> None:
    where = guest.put(b"early printk\n")
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.WRITE, 13, where) == 0
    assert guest.domain.console.take_output() == b"early printk\n"
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.WRITE, 0, guest.unmapped) == 0


def test_console_io_refuses_the_rest(guest: Any) -> None:
    where = guest.put(b"x")
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.READ, 1, where) == -Errno.EPERM
    assert guest.call(Hypercall.CONSOLE_IO, 2, 1, where) == -Errno.EPERM
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.WRITE, 1, guest.unmapped) == -Errno.EFAULT
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.WRITE, 0xFFFF_FFFF, where) == -Errno.E2BIG
    guest.domain.console.io_allowed = False
    assert guest.call(Hypercall.CONSOLE_IO, ConsoleIo.WRITE, 1, where) == -Errno.EPERM
    assert guest.domain.console.take_output() == b""
