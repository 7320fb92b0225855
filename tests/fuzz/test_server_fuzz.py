"""Invariants of the whole server, from the bytes of a client to the instructions of a guest."""

import fuzz_requests as fuzz
from conftest import TIMES
from hypothesis import given, settings
from hypothesis import strategies as st

from xdbg.rsp.connection import OUTPUT_LIMIT, WAITING_LIMIT, Departure, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame

PROFILE = settings.get_profile("fuzz")
STARTS = st.sampled_from([0, 1_200_000, 1_500_000, 1_731_000, 2_100_000, 9_000_000])
"""How old the guest is when the client comes: before its first process, between them, in each mode."""
ATTACH = st.lists(st.sampled_from([b"vAttach;2", b"vAttach;3", b"vAttach;5", b"vAttach;9"]), max_size=2)
SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=5)
SLICES = st.sampled_from([997, 10_000, 1_000_000])


def examples(count: int) -> settings:
    return settings(PROFILE, max_examples=count * max(TIMES, 1))


def packets(payloads: list[bytes]) -> list[bytes]:
    return [frame(escape(payload)) for payload in payloads]


@examples(20)
@given(start=STARTS, first=ATTACH, payloads=st.lists(fuzz.requests, max_size=14), sizes=SIZES, instructions=SLICES)
def test_each_request_is_answered_once_and_in_order(session, start, first, payloads, sizes, instructions):
    """Sent one by one or all at once, in pieces of any size, while the guest runs: the same answers in the same order.

    As many as there are requests, each behind its own.
    """
    from fuzz_machine import cut

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


@examples(60)
@given(start=STARTS, first=ATTACH, payloads=st.lists(fuzz.reading, min_size=1, max_size=40))
def test_requests_that_only_read_change_nothing(session, start, first, payloads):
    """Registers, memory, time, the state of the vcpus: after any requests that only read they are as before."""
    machine = session(start)
    for payload in first:
        machine.ask(payload)
    before = machine.fingerprint()
    for payload in payloads:
        assert len(machine.ask(payload)) == 1, payload
    assert machine.fingerprint() == before


@examples(25)
@given(start=STARTS, first=ATTACH, payloads=st.lists(fuzz.harmless, max_size=14), slices=st.integers(0, 4))
def test_guest_ends_as_if_nobody_had_debugged_it(session, undebugged, start, first, payloads, slices):
    """After break points, watch points, steps and stops of any kind, left in the middle of it: the same console,
    the same instruction count, the same memory."""
    machine = session(start)
    for payload in [*first, *payloads]:
        assert len(machine.ask(payload)) == 1, payload
    machine.send(frame(b"vCont;c"))
    for _ in range(slices):
        machine.turn(50_000)
    machine.assert_sane()
    assert machine.run_to_the_end() == undebugged


@examples(20)
@given(first=ATTACH, payloads=st.lists(fuzz.detaching, max_size=10))
def test_inferiors_come_and_go_in_any_order(session, undebugged, first, payloads):
    """Each request is answered, until the last inferior has been let go; then nothing of the debugger is left."""
    machine = session(1_500_000)
    for payload in [*first, *payloads]:
        assert len(machine.ask(payload)) == 1, payload
        if machine.state is State.DISCONNECTED:
            assert payload.startswith(b"D")
            assert not machine.target.threads()
            break
    machine.disconnect()
    assert len(machine.hv.cpu.stop_points) == len(machine.hv.cpu.watches) == 0
    assert machine.run_to_the_end() == undebugged


@examples(60)
@given(start=STARTS, first=ATTACH, pieces=st.lists(fuzz.wire, max_size=20), sizes=SIZES)
def test_any_bytes_leave_a_sane_machine(session, start, first, pieces, sizes):
    """Nothing raises, what is kept is bounded, all that is sent is made of packets, and a fresh client finds a machine
    that stands still, can be read, and goes on."""
    from fuzz_machine import cut

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
    connection = machine.connection
    talk = [payload for payload in payloads if payload[:1] not in b"cCsSv"]
    data = b"".join(packets([*talk, *[b"qXfer:features:read:target.xml:0,4000"] * (len(talk) + 1)]))
    data *= 1 + 1000 // len(data)
    for _ in range(3 * WAITING_LIMIT // len(data) + 1):
        connection.receive(data)
        assert connection._output_size <= OUTPUT_LIMIT + 3 * MAX_PAYLOAD
        assert connection._waiting_size <= WAITING_LIMIT
        assert len(connection._decoder) <= WAITING_LIMIT + len(data)
        assert len(connection.files) <= 64
        if connection.state is State.DISCONNECTED:
            break
    assert connection.departure in (Departure.FLOODED, None)
    machine.stream = b""
    machine.assert_sane()


def test_every_packet_of_the_table_is_drawn():
    """The rows that have no arguments here are drawn with arguments of any kind."""
    known = [*fuzz.READING, *fuzz.POINTS, *fuzz.RUNNING, *fuzz.WRITING]
    for prefix in known:
        assert any(row.startswith(prefix) or prefix.startswith(row) for row in fuzz.PREFIXES), prefix
