"""Non-stop, thread events, and what an observing client may ask: bytes in, bytes out."""

import re

import pytest
from rsp_client import GDB_FEATURES, Client
from rsp_fake import DATA, KERNEL, TEXT, ExpressionTarget, FakeTarget, NonStopTarget

from xdbg.rsp import table
from xdbg.rsp.connection import Connection, Departure, State
from xdbg.rsp.framing import escape, frame, notification
from xdbg.rsp.replies import Cloned, Created, ExitReply, NoResumed, StopReply, ThreadExited
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import ResumeAction, ResumeKind, ThreadOptions
from xdbg.rsp.threadid import ALL, Thread, ThreadId

ONE, TWO = Thread(KERNEL, 1), Thread(KERNEL, 2)
K1, K2 = b"p%x.1" % KERNEL, b"p%x.2" % KERNEL


def stop(thread: Thread, signal: int = Signal.TRAP) -> StopReply:
    return StopReply(signal, thread)


def notified(client: Client) -> list[bytes]:
    """The notifications that have come; nothing else may have."""
    data = client.connection.data_to_send()
    found = re.findall(rb"%Stop:([^#]*)#[0-9a-f]{2}", data)
    assert b"".join(notification(b"Stop:" + one) for one in found) == data
    return found


@pytest.fixture
def client() -> Client:
    client = Client(NonStopTarget())
    assert client.ask(b"QNonStop:1") == b"OK"
    return client


def test_it_is_announced_and_off_at_first() -> None:
    client = Client(NonStopTarget())
    features = client.ask(GDB_FEATURES).split(b";")
    assert {b"QNonStop+", b"QThreadEvents+", b"QThreadOptions=3", b"no-resumed+"} <= set(features)
    assert client.ask(b"QNonStop:0") == b"OK"
    assert client.ask(b"?") == b"T05thread:%s;" % K1
    assert client.send(b"vCont;c") == []
    assert client.connection.state is State.RUNNING


@pytest.mark.parametrize("packet", [b"QNonStop:", b"QNonStop:2", b"QNonStop:01", b"QThreadEvents:", b"QThreadEvents:x"])
def test_a_switch_is_0_or_1(client: Client, packet: bytes) -> None:
    assert client.ask(packet) == b"E22"


def test_threads_that_stand_still_are_listed_one_by_one(client: Client) -> None:
    assert client.ask(b"?") == b"T00thread:%s;" % K1
    assert client.ask(b"vStopped") == b"T00thread:%s;" % K2
    assert client.ask(b"vStopped") == b"OK"
    assert client.ask(b"vStopped") == b"OK"
    client.target.held.clear()
    assert client.ask(b"?") == b"OK"


def test_a_resume_is_answered_at_once_and_requests_go_on(client: Client) -> None:
    for resume in (b"vCont;c", b"vCont;s:" + K1, b"c", b"s", b"vCont;t"):
        assert client.ask(resume) == b"OK"
        assert client.connection.state is State.IDLE
        assert client.ask(b"m%x,1" % TEXT) == b"90"
    assert client.target.actions == (ResumeAction(ThreadId(ALL, ALL), ResumeKind.STOP),)
    assert client.ask(b"Z0,%x,1" % TEXT) == b"OK"


def test_one_notification_at_a_time(client: Client) -> None:
    client.ask(b"vCont;c")
    client.connection.stop(stop(ONE))
    client.connection.stop(stop(TWO, Signal.INT))
    client.connection.stop(ExitReply(3, 7))
    assert notified(client) == [b"T05thread:%s;" % K1]
    assert client.ask(b"qC") == b"QC" + K1, "requests in between are no confirmation"
    assert client.ask(b"vStopped") == b"T02thread:%s;" % K2
    assert client.ask(b"vStopped") == b"W03;process:7"
    assert client.ask(b"vStopped") == b"OK"
    client.connection.stop(NoResumed())
    assert notified(client) == [b"N"]


def test_a_stop_while_the_stopped_threads_are_listed_is_not_notified(client: Client) -> None:
    client.ask(b"?")
    client.connection.stop(stop(ONE, Signal.INT))
    assert notified(client) == []
    assert [client.ask(b"vStopped") for _ in range(3)] == [b"T00thread:%s;" % K2, b"T02thread:%s;" % K1, b"OK"]


def test_no_resumed_is_not_told_to_a_client_that_does_not_know_it() -> None:
    client = Client(NonStopTarget(), features=b"qSupported:multiprocess+")
    client.ask(b"QNonStop:1")
    client.connection.stop(NoResumed())
    assert notified(client) == []


def test_stops_that_are_not_fetched_do_not_pile_up(client: Client) -> None:
    for signal in range(1, 100):
        client.connection.stop(stop(ONE, signal))
        client.connection.stop(stop(TWO, signal))
    assert notified(client) == [b"T01thread:%s;" % K1]
    assert client.ask(b"vStopped") == b"T63thread:%s;" % K1
    assert client.ask(b"vStopped") == b"T63thread:%s;" % K2
    assert client.ask(b"vStopped") == b"OK"


def test_a_client_that_fetches_no_stop_of_ever_more_threads_is_disconnected(client: Client) -> None:
    for tid in range(1, 10000):
        client.connection.stop(stop(Thread(KERNEL, tid)))
        if client.connection.state is State.DISCONNECTED:
            break
    assert client.connection.departure is Departure.FLOODED


def test_stops_of_a_detached_process_are_forgotten_but_for_the_one_that_is_told(client: Client) -> None:
    client.ask(b"!")
    for pid in (7, 8):
        assert client.ask(b"vAttach;%x" % pid) == b"OK"
    for thread in (Thread(7, 7), Thread(8, 8), ONE):
        client.connection.stop(stop(thread))
    assert notified(client) == [b"T05thread:p7.7;"]
    assert client.ask(b"D;8") == b"OK"
    assert client.ask(b"D;7") == b"OK"
    assert client.ask(b"vStopped") == b"T05thread:%s;" % K1
    assert client.ask(b"vStopped") == b"OK"


def test_ctrl_c_by_packet_and_by_byte(client: Client) -> None:
    assert client.ask(b"vCtrlC") == b"OK"
    assert client.target.interrupts == 1
    client.connection.receive(b"\x03")
    assert client.target.interrupts == 2
    assert client.ask(b"QNonStop:0") == b"OK"
    assert client.ask(b"vCtrlC") == b"OK"
    assert client.target.interrupts == 2, "it stands still"


def test_back_to_all_stop(client: Client) -> None:
    client.ask(b"vCont;c")
    client.connection.stop(stop(ONE))
    notified(client)
    assert client.ask(b"QNonStop:0") == b"OK"
    assert client.ask(b"vStopped") == b"OK"
    assert client.send(b"vCont;c") == []
    client.connection.stop(stop(TWO))
    assert client.replies() == [b"T05thread:%s;" % K2]


CONVERSATION = [
    GDB_FEATURES,
    b"QStartNoAckMode",
    b"QNonStop:1",
    b"?",
    b"vStopped",
    b"vStopped",
    b"vCont;c:p%x.-1" % KERNEL,
    b"m%x,4" % TEXT,
    b"QThreadEvents:1",
    b"vCtrlC",
    b"vCont;t",
    b"QThreadOptions;3:%s;0" % K1,
    b"QNonStop:0",
    b"?",
    b"D",
]


def test_every_split_of_a_conversation_gets_the_same_replies() -> None:
    def talk(*pieces: bytes) -> bytes:
        connection = Connection(NonStopTarget())
        replies = b""
        for piece in pieces:
            connection.receive(piece)
            replies += connection.data_to_send()
        return replies

    stream = b"+".join(map(frame, CONVERSATION))
    whole = talk(stream)
    assert whole.count(b"$") == len(CONVERSATION)
    assert talk(*(stream[place : place + 1] for place in range(len(stream)))) == whole
    for place in range(len(stream)):
        assert talk(stream[:place], stream[place:]) == whole


def test_thread_events_and_options(client: Client) -> None:
    target = client.target
    assert client.ask(b"QThreadEvents:1") == b"OK"
    assert target.thread_events is True
    assert client.ask(b"QThreadOptions;1;3:%s;2:p7.7" % K2) == b"OK"
    assert target.options == {ONE: ThreadOptions.CLONE, TWO: ThreadOptions.CLONE | ThreadOptions.EXIT}
    assert client.ask(b"QThreadOptions;0:p%x.-1" % KERNEL) == b"OK"
    assert target.options == {ONE: ThreadOptions(0), TWO: ThreadOptions(0)}
    for wrong in (b"", b";", b"4", b"1:", b"1:zz", b":p1.1", b"1;;2"):
        assert client.ask(b"QThreadOptions;" + wrong) == b"E22", wrong
    client.connection.stop(StopReply(Signal.TRAP, TWO, (Created(),)))
    client.connection.stop(StopReply(Signal.TRAP, ONE, (Cloned(TWO),)))
    client.connection.stop(ThreadExited(3, Thread(7, 9)))
    assert notified(client) == [b"T05create:;thread:%s;" % K2]
    assert client.ask(b"vStopped") == b"T05clone:%s;thread:%s;" % (K2, K1)
    assert client.ask(b"vStopped") == b"w03;p7.9"


# -- a client that only observes


class Observer(Client):
    """A client that the server has told nothing of its being one."""

    def __init__(self, target: FakeTarget, *, ack: bool = True) -> None:
        self.target = target
        self.connection = Connection(target, observing=True)
        self.ack = ack
        self.ask(GDB_FEATURES)
        assert self.ask(b"QStartNoAckMode") == b"OK"
        self.ack = False


class Forbidding(ExpressionTarget):
    """Any change is the end of the test."""

    def change(self, *_: object, **__: object) -> None:
        raise AssertionError("a change by an observer")

    write_registers = write_register = write_memory = insert_breakpoint = remove_breakpoint = change
    insert_watchpoint = remove_watchpoint = kill = report_threads = set_thread_options = change
    set_breakpoint_conditions = set_breakpoint_commands = change


CHANGES = [
    b"G" + b"00" * 560,
    b"P0=0000000000000000",
    b"M%x,1:00" % DATA,
    b"X%x,1:a" % DATA,
    b"Z0,%x,1" % TEXT,
    b"z0,%x,1" % TEXT,
    b"Z2,%x,8" % DATA,
    b"z4,%x,8" % DATA,
    b"vKill;%x" % KERNEL,
    b"k",
    b"s",
    b"S05",
    b"C05",
    b"QThreadEvents:1",
    b"QThreadOptions;1",
]


@pytest.mark.parametrize("packet", CHANGES, ids=lambda packet: packet[:6].decode())
def test_an_observer_is_refused_what_changes_anything(packet: bytes) -> None:
    observer = Observer(Forbidding())
    assert observer.ask(packet) == b"E01"
    assert observer.connection.state is State.IDLE
    observer.ask(GDB_FEATURES + b";error-message+")
    assert observer.ask(packet) == b"E.this client only observes: another debugger was here first"


def test_an_observer_may_look() -> None:
    observer = Observer(Forbidding())
    for request in (
        b"?",
        b"qC",
        b"g",
        b"p10",
        b"m%x,4" % TEXT,
        b"qfThreadInfo",
        b"qXfer:features:read:target.xml:0,99",
    ):
        assert not observer.ask(request).startswith(b"E"), request
    assert observer.ask(b"vAttach;7") == b"T00thread:p7.7;"
    assert observer.ask(b"D;7") == b"OK"


def test_an_observer_is_not_announced_what_it_is_refused() -> None:
    features = Observer(ExpressionTarget()).ask(b"qSupported").split(b";")
    assert b"QNonStop+" in features
    assert b"QThreadEvents+" not in features


def test_rows_are_for_debuggers_unless_they_say_otherwise() -> None:
    changing = {row.prefix for row in table.rows() if not row.observing}
    assert {b"M", b"X", b"G", b"P", b"Z0", b"Z1", b"Z2", b"Z3", b"Z4", b"k", b"vKill;", b"s", b"S", b"C"} <= changing


def test_an_observer_is_answered_one_request_at_a_time() -> None:
    observer = Observer(FakeTarget())
    observer.connection.receive(frame(b"qC") * 5)
    for left in range(5, 0, -1):
        assert observer.connection.throttled, left
        assert observer.replies() == [b"QC" + K1]
        observer.connection.receive(b"")
    assert not observer.connection.throttled
    assert observer.replies() == []


def test_an_escaped_answer_of_an_observer_is_whole() -> None:
    observer = Observer(FakeTarget())
    observer.target.pages[DATA][:4] = b"}#$*"
    observer.connection.receive(frame(b"x%x,4" % DATA))
    assert observer.connection.data_to_send() == frame(b"b" + escape(b"}#$*"))
