"""Invariants under random input: nothing raises, what is kept is bounded, each request is answered exactly once."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from rsp_fake import DATA, KERNEL, TEXT, TracingTarget

from xdbg.rsp import table
from xdbg.rsp.connection import Connection, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame
from xdbg.rsp.replies import StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread

PREFIXES = [row.prefix for row in table.rows()]
NUMBERS = [b"0", b"1", b"4", b"10", b"1000", b"%x" % TEXT, b"%x" % DATA, b"ffffffffffffffff", b"-1", b"zz", b""]
THREADS = [b"p%x.1" % KERNEL, b"p%x.2" % KERNEL, b"p7.7", b"p-1.-1", b"0", b"p0.0", b"p1.", b"2"]
ATOMS = [
    *NUMBERS,
    *THREADS,
    b",",
    b":",
    b";",
    b"=",
    b"/",
    b"X1,27",
    b"cmds:",
    b"target.xml",
    b"00",
    b"c",
    b"s",
    b"thread:",
]

arguments = st.lists(st.one_of(st.sampled_from(ATOMS), st.binary(max_size=6))).map(b"".join)
places = st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)).map(b",".join)
requests = st.one_of(
    st.tuples(st.sampled_from(PREFIXES), st.one_of(arguments, places, st.sampled_from(THREADS))).map(b"".join),
    st.tuples(st.sampled_from([b"Z", b"z"]), st.sampled_from(b"012345").map(lambda b: b"%c," % b), places).map(
        b"".join
    ),
    st.binary(max_size=30),
)
STOPPED = StopReply(Signal.TRAP, Thread(KERNEL, 1))


class Told:
    """Counts what comes back. A resume's answer is the stop that the test makes."""

    def __init__(self) -> None:
        self.connection = Connection(TracingTarget())

    def answers(self, data: bytes) -> list[bytes]:
        self.connection.receive(data)
        found = []
        while sent := self.connection.data_to_send():
            found += re.findall(rb"\$([^$#]*)#[0-9a-f]{2}", sent)
            self.connection.receive(b"")
        return [payload for payload in found if payload == b"OK" or not payload.startswith(b"O")]


def has_no_answer(payload: bytes, told: Told) -> bool:
    """A restart by R in extended mode."""
    return payload.startswith(b"R") and told.connection.extended


def ends_the_session(payload: bytes) -> bool:
    return payload[:1] in {b"D", b"k"} or payload.startswith(b"vKill")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_taken_and_little_of_them_is_kept(pieces: list[bytes]) -> None:
    connection = Connection(TracingTarget())
    for piece in pieces:
        connection.receive(piece)
        connection.data_to_send()
        assert len(connection._decoder) <= MAX_PAYLOAD + 3 + len(piece)
        if connection.state is State.RUNNING:
            connection.stop(STOPPED)


@settings(deadline=None, max_examples=500)
@given(st.lists(requests, max_size=12), st.integers(1, 40))
def test_each_request_is_answered_exactly_once_whatever_its_arguments(payloads: list[bytes], size: int) -> None:
    told = Told()
    for payload in payloads:
        packet = frame(escape(payload))
        answers = []
        for place in range(0, len(packet), size):
            answers += told.answers(packet[place : place + size])
        if told.connection.state is State.RUNNING:
            assert answers == []
            told.connection.stop(STOPPED)
            answers = told.answers(b"")
        if told.connection.state is State.DISCONNECTED:
            assert ends_the_session(payload)
            assert len(answers) == (0 if payload.startswith(b"k") else 1)
            break
        assert len(answers) == (0 if has_no_answer(payload, told) else 1)
        assert all(len(answer) <= MAX_PAYLOAD for answer in answers)


@settings(deadline=None, max_examples=200)
@given(st.lists(requests.filter(lambda p: not ends_the_session(p)), max_size=30))
def test_pipelined_requests_are_answered_in_order_as_one_by_one(payloads: list[bytes]) -> None:
    together, single = Told(), Told()
    packets = [frame(escape(payload)) for payload in payloads]
    answers = together.answers(b"".join(packets))
    while together.connection.state is State.RUNNING:
        together.connection.stop(STOPPED)
        answers += together.answers(b"")
    expected = []
    unanswered = 0
    for payload, packet in zip(payloads, packets, strict=True):
        unanswered += has_no_answer(payload, single)
        expected += single.answers(packet)
        if single.connection.state is State.RUNNING:
            single.connection.stop(STOPPED)
            expected += single.answers(b"")
    assert answers == expected
    assert len(answers) == len(payloads) - unanswered


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([b"$vCont;c#a8", b"\x03", b"$qC#b4", b"-", b"+", b"$", b"stop", b"$qC#b5"]), max_size=60)
)
def test_stops_and_input_in_any_order_keep_one_answer_per_request(events: list[bytes]) -> None:
    connection = Connection(TracingTarget())
    connection.receive(frame(b"QStartNoAckMode"))
    connection.data_to_send()
    asked = told = 0
    for event in events:
        if event == b"stop":
            if connection.state is State.RUNNING:
                connection.stop(STOPPED)
        else:
            asked += event in {b"$vCont;c#a8", b"$qC#b4"}
            connection.receive(event)
        told += connection.data_to_send().count(b"$")
    while connection.state is State.RUNNING:
        connection.stop(STOPPED)
        told += connection.data_to_send().count(b"$")
    assert told == asked


@settings(deadline=None, max_examples=50)
@given(st.lists(requests, max_size=20))
def test_requests_that_only_read_change_nothing(payloads: list[bytes]) -> None:
    told = Told()
    before = told.connection.target
    snapshot = (dict(before.pages), {t: list(r) for t, r in before.regs.items()})
    pages = {vaddr: bytes(page) for vaddr, page in snapshot[0].items()}
    for payload in payloads:
        if payload[:1] in b"gmpqxTH?!" or payload.startswith((b"vFile", b"vCont?")):
            told.answers(frame(escape(payload)))
    assert {vaddr: bytes(page) for vaddr, page in before.pages.items()} == pages
    assert {t: list(r) for t, r in before.regs.items()} == snapshot[1]
    assert (before.points, before.resumed) == (set(), 0)
