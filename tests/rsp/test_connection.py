"""States, acknowledgements, the interrupt byte, limits: what happens between the packets."""

import pytest
from rsp_client import Client
from rsp_fake import DATA, KERNEL, TEXT, FakeTarget

from xdbg.rsp.connection import OUTPUT_LIMIT, WAITING_LIMIT, Connection, Departure, State
from xdbg.rsp.framing import MAX_PAYLOAD, frame
from xdbg.rsp.replies import SignalledReply, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread

STOPPED = StopReply(Signal.TRAP, Thread(KERNEL, 1))
CONVERSATION = [
    b"qSupported:multiprocess+;swbreak+",
    b"!",
    b"Hgp0.0",
    b"?",
    b"g",
    b"m%x,10" % TEXT,
    b"X%x,3:abc" % DATA,
    b"m%x,3" % DATA,
    b"nonsense",
    b"QStartNoAckMode",
    b"qC",
    b"vFile:setfs:0",
    b"qXfer:threads:read::0,1000",
    b"D",
]


def talk(*pieces: bytes) -> bytes:
    connection = Connection(FakeTarget())
    replies = b""
    for piece in pieces:
        connection.receive(piece)
        replies += connection.data_to_send()
    return replies


def test_every_split_of_a_conversation_gets_the_same_replies() -> None:
    stream = b"+".join(map(frame, CONVERSATION)) + b"\x03trailing garbage\x03"
    pipelined = talk(stream)
    assert pipelined.count(b"$") == len(CONVERSATION)
    assert talk(*(stream[i : i + 1] for i in range(len(stream)))) == pipelined
    for place in range(len(stream)):
        assert talk(stream[:place], stream[place:]) == pipelined


def test_packets_are_acknowledged_until_no_ack_mode() -> None:
    connection = Connection(FakeTarget())
    connection.receive(b"$qC#b4")
    assert connection.data_to_send() == b"+$QC1#c5"
    connection.receive(b"$QStartNoAckMode#b0")
    assert connection.data_to_send() == b"+$OK#9a"
    connection.receive(b"+$qC#b4")
    assert connection.data_to_send() == b"$QC1#c5"


def test_a_bad_checksum_is_refused_and_the_packet_has_no_effect() -> None:
    connection = Connection(FakeTarget())
    connection.receive(b"$M402000,1:ff#00")
    assert connection.data_to_send() == b"-"
    connection.receive(frame(b"m402000,1"))
    assert connection.data_to_send() == b"+" + frame(b"00")


def test_a_bad_checksum_without_acknowledgements_is_dropped(client: Client) -> None:
    client.connection.receive(b"$qC#00$qC#b4")
    assert client.replies() == [b"QCp400001.1"]


def test_the_last_packet_is_repeated_when_the_client_could_not_read_it() -> None:
    connection = Connection(FakeTarget())
    connection.receive(b"$qC#b4")
    connection.data_to_send()
    connection.receive(b"---")
    assert connection.data_to_send() == b"$QC1#c5"
    connection.receive(b"-")
    assert connection.data_to_send() == b"$QC1#c5"
    connection.receive(b"+-")
    assert connection.data_to_send() == b""


def test_nothing_is_repeated_in_no_ack_mode(client: Client) -> None:
    client.ask(b"qC")
    client.connection.receive(b"--")
    assert client.replies() == []


@pytest.mark.parametrize("split", [False, True])
def test_an_oversized_packet_is_answered_with_an_error(client: Client, split: bool) -> None:
    packet = frame(b"M402000,ffff:" + b"0" * MAX_PAYLOAD)
    for piece in [packet[:100], packet[100:-1], packet[-1:]] if split else [packet]:
        client.connection.receive(piece)
    assert client.replies() == [b"E07"]
    assert client.ask(b"qC") == b"QCp400001.1"


def test_the_largest_packet_is_taken(client: Client, target: FakeTarget) -> None:
    data = bytes(i % 256 for i in range(0x1000))
    target.pages = {DATA + i * 0x1000: bytearray(0x1000) for i in range(40)}
    assert client.ask(b"M%x,%x:" % (DATA, 0x1F000) + (data * 31).hex().encode()) == b"OK"
    assert bytes.fromhex(client.ask(b"m%x,20000" % DATA).decode()) == data * 31 + bytes(0x1000)


def test_a_resume_is_answered_by_the_stop(client: Client) -> None:
    assert client.send(b"vCont;c") == []
    assert client.connection.state is State.RUNNING
    client.connection.stop(STOPPED)
    assert client.replies() == [b"T05thread:p400001.1;"]
    assert client.connection.state is State.IDLE


def test_the_interrupt_byte_interrupts_a_running_target_at_once(client: Client, target: FakeTarget) -> None:
    client.send(b"vCont;c")
    client.connection.receive(b"\x03")
    assert target.interrupts == 1
    assert client.connection.state is State.RUNNING
    client.connection.stop(StopReply(Signal.INT, Thread(KERNEL, 1)))
    assert client.replies() == [b"T02thread:p400001.1;"]


def test_an_interrupt_byte_right_behind_the_resume_counts(client: Client, target: FakeTarget) -> None:
    client.connection.receive(frame(b"vCont;c") + b"\x03")
    assert target.interrupts == 1


@pytest.mark.parametrize("listing", [b"qXfer:threads:read::0,1000", b"qfThreadInfo"])
def test_an_interrupt_byte_that_crosses_a_stop_which_the_client_shows_is_dropped(
    client: Client, target: FakeTarget, listing: bytes
) -> None:
    client.send(b"vCont;c")
    client.connection.stop(STOPPED)
    client.connection.receive(b"\x03\x03" + frame(listing) + b"\x03")
    client.send(b"vCont;c")
    assert target.interrupts == 0


@pytest.mark.parametrize("resume", [b"vCont;c", b"vCont;s:p400001.1", b"vCont;r1000,1010:p400001.1"])
def test_an_interrupt_byte_that_crosses_a_stop_which_the_client_keeps_to_itself_counts_for_the_next_resume(
    client: Client, target: FakeTarget, resume: bytes
) -> None:
    client.send(resume)
    client.connection.stop(STOPPED)
    client.connection.receive(b"\x03" + frame(b"qC"))
    assert target.interrupts == 0
    client.send(b"vCont;c")
    assert target.interrupts == 1
    client.connection.stop(StopReply(Signal.INT, Thread(KERNEL, 1)))
    client.send(b"vCont;c")
    assert target.interrupts == 1


def test_an_interrupt_byte_behind_an_interrupted_step_is_dropped(client: Client, target: FakeTarget) -> None:
    client.send(b"vCont;s:p400001.1")
    client.connection.receive(b"\x03")
    client.connection.stop(StopReply(Signal.INT, Thread(KERNEL, 1)))
    client.connection.receive(b"\x03")
    client.send(b"vCont;c")
    assert target.interrupts == 1


def test_requests_sent_while_it_runs_wait_for_the_stop_and_may_resume_again(client: Client, target: FakeTarget) -> None:
    client.send(b"vCont;c")
    client.connection.receive(frame(b"qC") + frame(b"vCont;s") + frame(b"?") + b"$" + b"a" * MAX_PAYLOAD + b"a#00\x03")
    assert client.replies() == []
    assert target.interrupts == 1
    client.connection.stop(STOPPED)
    assert client.connection.state is State.RUNNING
    assert client.replies() == [b"T05thread:p400001.1;", b"QCp400001.1"]
    client.connection.stop(STOPPED)
    assert client.replies() == [b"T05thread:p400001.1;", b"T05thread:p400001.1;", b"E07"]
    assert client.connection.state is State.IDLE


def test_console_text_is_shown_while_it_runs_and_only_then(client: Client) -> None:
    assert not client.connection.output("early")
    client.send(b"vCont;c")
    assert client.connection.output("hello\n")
    client.connection.stop(STOPPED)
    assert not client.connection.output("late")
    assert client.replies() == [b"O" + b"hello\n".hex().encode(), b"T05thread:p400001.1;"]


def test_the_end_of_a_process_is_shown_as_a_stop(client: Client) -> None:
    client.send(b"vCont;c")
    client.connection.stop(SignalledReply(Signal.SEGV, 7))
    assert client.replies() == [b"X0b;process:7"]


def test_a_stop_nobody_waits_for_is_our_own_bug(client: Client) -> None:
    with pytest.raises(AssertionError):
        client.connection.stop(STOPPED)


def test_a_flood_of_reads_waits_for_room_and_is_then_answered_in_full(client: Client, target: FakeTarget) -> None:
    target.pages = {i * 0x1000: bytearray(0x1000) for i in range(64)}
    requests = 500
    client.connection.receive(frame(b"m0,20000") * requests)
    answered = 0
    while data := client.connection.data_to_send():
        assert len(data) <= OUTPUT_LIMIT + MAX_PAYLOAD + 4
        answered += data.count(b"$")
        assert client.connection.throttled is False
        client.connection.receive(b"")
    assert answered == requests


def test_a_client_that_is_read_on_although_throttled_is_disconnected(client: Client, target: FakeTarget) -> None:
    target.pages = {i * 0x1000: bytearray(0x1000) for i in range(64)}
    client.connection.receive(frame(b"m0,20000") * 10)
    assert client.connection.throttled
    client.connection.receive(b"+" * WAITING_LIMIT)
    assert (client.connection.state, client.connection.departure) == (State.DISCONNECTED, Departure.FLOODED)


@pytest.mark.parametrize("packet", [frame(b""), frame(b"m0,20000"), frame(b"X" + b"0" * 100000)])
def test_a_client_that_floods_a_running_target_is_disconnected(client: Client, packet: bytes) -> None:
    client.send(b"vCont;c")
    for _ in range(5000):
        client.connection.receive(packet)
        if client.connection.state is State.DISCONNECTED:
            break
    assert client.connection.departure is Departure.FLOODED
    client.connection.receive(frame(b"qC"))
    assert client.replies() == []


def test_a_client_that_vanishes_in_mid_packet_is_lost(client: Client) -> None:
    client.connection.receive(b"$m4010")
    client.connection.lose()
    assert (client.connection.state, client.connection.departure) == (State.DISCONNECTED, Departure.LOST)
    client.connection.lose()
    assert client.connection.departure is Departure.LOST


def test_a_detached_client_that_closes_is_not_lost(client: Client) -> None:
    client.ask(b"D")
    client.connection.lose()
    assert client.connection.departure is Departure.DETACHED
