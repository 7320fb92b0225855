"""Invariants of the whole server, from the bytes of a client to the instructions of a guest."""

import re

import fuzz_requests as fuzz
from fuzz_machine import TIMES, cut
from hypothesis import given, settings, target
from hypothesis import strategies as st

from xdbg.rsp import table
from xdbg.rsp.connection import WAITING_LIMIT, Departure, State
from xdbg.rsp.framing import escape, frame

PROFILE = settings.get_profile("fuzz")
STARTS = st.sampled_from([0, 1_200_000, 1_500_000, 1_731_000, 2_100_000, 9_000_000])
"""How old the guest is when the client comes: before its first process, between them, in each mode."""
ATTACH = st.lists(st.sampled_from([b"vAttach;%d" % pid for pid in (2, 3, 4, 5, 6, 7, 9)]), max_size=2)
SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=5)
SLICES = st.sampled_from([997, 10_000, 1_000_000])


def examples(count: int) -> settings:
    return settings(PROFILE, max_examples=count * max(TIMES, 1))


def packets(payloads: list[bytes]) -> list[bytes]:
    return [frame(escape(payload)) for payload in payloads]


def aim(answered: list[tuple[bytes, bytes]]) -> None:
    """Look for examples that do more: kinds of requests that were no errors, kinds of stops."""
    rows = {row.prefix for payload, answer in answered if answer[:1] != b"E" and (row := table.find(payload))}
    stops = {re.sub(rb"[0-9a-f]+:[0-9a-f]*;", b"", answer)[:40] for _, answer in answered if answer[:1] in b"TWX"}
    target(float(len(rows) + 3 * len(stops)), label="kinds of requests and stops")


def polite(payload: bytes, last: bytes) -> bytes:
    """A client that gives each process the signal at which it stopped: to drop it would be to change the guest."""
    stands = re.match(rb"T([0-9a-f]{2}).*thread:([^;]+);", last)
    if stands is None or stands[1] in (b"00", b"02", b"05") or payload[:1] not in (b"c", b"s", b"v"):
        return payload
    return (
        b"vCont;C%s:%s;c" % (stands[1], stands[2]) if table.find(payload).prefix in (b"c", b"s", b"vCont;") else payload
    )


def single_answers(machine, payloads: list[bytes]) -> bytes:
    """Each is answered once; the last stop."""
    answered, last = [], b""
    for payload in payloads:
        sent = polite(payload, last)
        answers = machine.ask(sent)
        assert len(answers) == 1, sent
        answered.append((sent, answers[0]))
        last = answers[0] if answers[0][:1] in b"TWX" else last
    aim(answered)
    return last


@examples(20)
@given(start=STARTS, first=ATTACH, payloads=st.lists(fuzz.requests, max_size=14), sizes=SIZES, instructions=SLICES)
def test_each_request_is_answered_once_and_in_order(session, start, first, payloads, sizes, instructions):
    """Sent one by one or all at once, in pieces of any size, while the guest runs: the same answers in the same order.

    As many as there are requests, each behind its own.
    """
    payloads = [*first, *payloads]
    single, together = session(start), session(start)
    expected = []
    for payload in payloads:
        answers = single.ask(payload)
        assert len(answers) == 1, payload
        expected += answers
    for piece in cut(b"".join(packets(payloads)), sizes):
        together.send(piece)
        together.turn(instructions)
    together.wait(instructions)
    assert together.answers() == expected
    assert together.fingerprint() == single.fingerprint()


@examples(40)
@given(
    start=STARTS,
    first=ATTACH,
    trace=st.one_of(st.just([]), fuzz.trace_set_up),
    payloads=st.lists(fuzz.reading, min_size=1, max_size=40),
)
def test_requests_that_only_read_change_nothing(session, start, first, trace, payloads):
    """Registers, memory, time, the state of the vcpus: after any requests that only read they are as before."""
    machine = session(start)
    for payload in [*first, *trace, *([b"vCont;c"] if trace else [])]:
        machine.ask(payload)
    before = machine.fingerprint()
    for payload in payloads:
        assert len(machine.ask(payload)) == 1, payload
    assert machine.fingerprint() == before


@examples(30)
@given(
    start=STARTS,
    first=ATTACH,
    trace=st.one_of(st.just([]), fuzz.trace_set_up),
    payloads=st.lists(fuzz.watching, max_size=14),
    slices=st.integers(0, 4),
)
def test_guest_ends_as_if_nobody_had_debugged_it(session, undebugged, start, first, trace, payloads, slices):
    """After break points, conditions, watch points, tracepoints, catches, steps and stops of any kind, left in the
    middle of it: the same console, the same instruction count, the same memory."""
    machine = session(start)
    last = single_answers(machine, [*first, *trace, *payloads])
    machine.send(frame(polite(b"vCont;c", last)))
    for _ in range(slices):
        machine.turn(50_000)
    assert machine.run_to_the_end() == undebugged


@examples(10)
@given(start=STARTS, first=ATTACH, payloads=st.lists(fuzz.harmless, max_size=10))
def test_guest_that_a_second_client_has_looked_at_ends_the_same(session, undebugged, start, first, payloads):
    """The first leaves when the guest stands somewhere, the second makes a step and leaves."""
    machine = session(start)
    single_answers(machine, [*first, *payloads])
    ended = machine.domain.shutdown_code is not None
    machine.assert_sane()
    machine.screen.output = b"" if ended else machine.screen.output
    found = machine.run_to_the_end()
    assert (found.instructions, found.memory) == (undebugged.instructions, undebugged.memory)
    assert found.console == undebugged.console or ended


@examples(10)
@given(first=ATTACH, payloads=st.lists(fuzz.detaching, max_size=10))
def test_inferiors_come_and_go_in_any_order(session, undebugged, first, payloads):
    """Each request is answered, until the last inferior has been let go; then nothing of the debugger is left."""
    machine = session(1_500_000)
    debugged = machine.target
    last = b""
    for payload in [*first, *payloads]:
        sent = polite(payload, last)
        (answer,) = machine.ask(sent)
        last = answer if answer[:1] in b"TWX" else last
        if machine.state is State.DISCONNECTED:
            assert sent.startswith(b"D")
            assert not debugged.threads()
            break
    machine.disconnect()
    assert len(debugged.hv.cpu.stop_points) == len(debugged.hv.cpu.watches) == 0
    assert machine.run_to_the_end() == undebugged or debugged is not machine.target


@examples(50)
@given(start=STARTS, first=ATTACH, pieces=st.lists(fuzz.wire, max_size=20), sizes=SIZES)
def test_any_bytes_leave_a_sane_machine(session, start, first, pieces, sizes):
    """Nothing raises, what is kept is bounded, all that is sent is made of packets, and a fresh client finds a machine
    that stands still, can be read, and goes on."""
    machine = session(start)
    for payload in first:
        machine.ask(payload)
    for piece in cut(b"".join(pieces), sizes):
        machine.send(piece)
        machine.turn(20_000)
    machine.answers()
    machine.assert_sane()


@examples(3)
@given(payloads=st.lists(fuzz.requests, min_size=1, max_size=6), running=st.booleans())
def test_client_that_only_talks_is_kept_in_bounds(session, payloads, running):
    """It never takes an answer, and sends for ever: it is stopped before it costs more than the limits say."""
    machine = session(1_500_000)
    if running:
        machine.send(frame(b"vCont;c"))
    wire, connection = machine.wire, machine.connection
    talk = [payload for payload in payloads if payload[:1] not in b"cCsSv"]
    data = b"".join(packets([*talk, *[b"qXfer:features:read:target.xml:0,4000"] * (len(talk) + 1)]))
    data *= 1 + 1000 // len(data)
    for _ in range(3 * WAITING_LIMIT // len(data) + 1):
        connection.receive(data)
        wire.check(len(data))
        if connection.state is State.DISCONNECTED:
            break
    assert connection.departure in (Departure.FLOODED, None)
    machine.stream = b""
    machine.assert_sane()


def test_every_packet_of_the_table_is_drawn():
    """The rows that have no arguments here are drawn with arguments of any kind."""
    known = [*fuzz.READING, *fuzz.POINTS, *fuzz.TRACING, *fuzz.SETTING, *fuzz.RUNNING, *fuzz.WRITING]
    for prefix in known:
        assert any(row.startswith(prefix) or prefix.startswith(row) for row in fuzz.PREFIXES), prefix
    named = [payload for payloads in fuzz.RESTARTING for payload in payloads]
    for row in fuzz.PREFIXES:
        assert any(
            one.startswith(row) or row.startswith(one)
            for one in [*known, *named, b"k", b"QNonStop:", b"QStartNoAckMode"]
        ), row
