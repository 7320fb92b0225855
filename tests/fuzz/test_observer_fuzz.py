"""Clients that only observe, whatever they send: the debugger and its guest never notice them."""

import fuzz_requests as fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from test_server_fuzz import ATTACH, SLICES, STARTS, examples, packets

from xdbg.rsp.connection import State

NON_STOP = [b"QNonStop:1", b"vCont;c", b"vCont;t", b"vCtrlC", b"vStopped", b"?", b"vCont;c:p-1.-1", b"QNonStop:0"]
anything = st.one_of(
    fuzz.requests,
    fuzz.nearly_valid,
    fuzz.strange,
    st.sampled_from(NON_STOP),
    st.sampled_from([b"k", b"D", b"D;400001", b"vKill;400001", b"vKill;2", b"R00", b"vRun;", b"!", b"vCont;c", b"c"]),
)
turns = st.lists(st.tuples(st.integers(0, 1), st.one_of(st.lists(anything, max_size=6), fuzz.wire)), max_size=3)
"""What observers send at a time: which of them, and requests or bytes."""


@examples(12)
@given(
    start=STARTS,
    first=ATTACH,
    trace=st.one_of(st.just([]), fuzz.trace_set_up),
    payloads=st.lists(st.tuples(fuzz.anything_valid.filter(lambda it: not fuzz.leaves(it)), turns), max_size=8),
    instructions=SLICES,
)
def test_observers_change_nothing_for_the_debugger_or_its_guest(session, start, first, trace, payloads, instructions):
    """The same debugger once alone and once with two observers who send anything between its requests and while the
    guest runs: the same answers, the same machine after each."""
    alone, watched = session(start), session(start)
    for number in range(2):
        assert watched.observe() == number
    for payload, talk in [*((payload, ()) for payload in (*first, *trace)), *payloads]:
        if payload.startswith(b"qRcmd") and bytes.fromhex(payload[6:].decode()) == b"clients":
            continue
        (data,) = packets([payload])
        alone.send(data)
        watched.send(data)
        for number, said in talk:
            alone.turn(instructions)
            watched.turn(instructions)
            for piece in packets(said) if isinstance(said, list) else [said]:
                watched.observer_sends(number, piece)
            watched.gallery_turns()
            assert watched.clients.debugger is not None
        alone.wait(instructions)
        watched.wait(instructions)
        assert watched.answers() == alone.answers()
        assert watched.fingerprint() == alone.fingerprint()
    for wire in watched.wires:
        wire.take()  # packets only
    alone.disconnect()
    watched.disconnect()
    assert watched.run_to_the_end() == alone.run_to_the_end()


@examples(20)
@example(first=[], payloads=[b"vCont;c:2"])
@given(first=ATTACH, payloads=st.lists(anything, max_size=20))
def test_an_observer_is_answered_once(session, first, payloads):
    """Each request that does not begin to wait has one answer; one that does is answered by Ctrl-C at the latest."""
    machine = session(1_731_000)
    number = machine.observe()
    wire = machine.wires[number]
    for payload in [*first, *payloads]:
        if wire.connection.state is State.DISCONNECTED:
            break
        machine.observer_sends(number, packets([payload])[0])
        machine.gallery_turns()
        if wire.connection.state is State.RUNNING:
            machine.observer_sends(number, b"\x03")
            machine.gallery_turns()
        answers = [answer for sign, answer in wire.take() if sign == b"$"]
        assert len(answers) == 1, payload
        assert wire.connection.state is not State.RUNNING


@examples(8)
@given(asked=st.lists(st.lists(anything, max_size=4), max_size=6), how=st.sampled_from(fuzz.RESTARTING[:2]))
def test_observers_stay_until_the_domain_begins_anew(session, asked, how):
    """When the debugger kills the domain or starts it anew, those who look at the old one are told and leave; later
    ones look at the new one, and nothing is kept of any."""
    machine = session(1_500_000)
    for payloads in asked:
        number = machine.observe()
        for data in packets([payload for payload in payloads if payload[:1] not in b"D"]):
            machine.observer_sends(number, data)
            machine.gallery_turns()
        machine.observer_sends(number, packets([b"vCont;c"])[0])
        for payload in how:
            machine.send(packets([payload])[0])
            machine.gallery_turns()
        assert machine.connection.state is State.IDLE
        assert machine.clients.gallery.clients == []
        assert machine.wires[number].blocked, "its transport has been closed"
    machine.assert_sane()


@examples(6)
@given(talk=st.lists(anything, min_size=1, max_size=8), running=st.booleans())
def test_observers_that_flood_and_never_listen_are_kept_in_bounds(session, undebugged, talk, running):
    """Two of them, while the debugger debugs: its requests are answered, what is kept is bounded, and the guest ends
    as ever."""
    machine = session(1_500_000)
    numbers = [machine.observe() for _ in range(2)]
    for number in numbers:
        machine.wires[number].blocked = True
    data = b"".join(packets([*talk, b"qXfer:features:read:target.xml:0,4000"])) * 400
    machine.send(packets([b"vCont;c"])[0] if running else packets([b"?"])[0])
    for _ in range(12):
        for number in numbers:
            client = next((one for one in machine.clients.gallery.clients
                           if one.connection is machine.wires[number].connection), None)  # fmt: skip
            if client is not None and not client.unsent and not client.has_more:  # else the server does not read
                machine.observer_sends(number, data)
        machine.turn(20_000)
    machine.send(b"\x03")
    machine.wait()
    machine.answers()
    (answer,) = machine.ask(b"g")
    assert len(answer) == 2 * 560
    assert machine.run_to_the_end() == undebugged
