"""Non-stop: threads that stop one by one, notifications, and whatever a client makes of them."""

import fuzz_requests as fuzz
from hypothesis import given
from hypothesis import strategies as st
from test_server_fuzz import ATTACH, STARTS, aim, examples, packets

from xdbg.rsp.connection import State

MAX_STOPS = 64
"""More than this guest has threads."""
ONE_BY_ONE = [
    b"vCont;c", b"vCont;t", b"vCont;c:p400001.1", b"vCont;t:p400001.-1", b"vCont;s:p400001.1", b"vCont;c:p2.2",
    b"vCont;t:p2.2", b"vCont;s:p2.2;c:p3.3", b"vCont;s:p3.3", b"vCont;C0b:p5.5", b"vCont;c:p-1.-1", b"vCtrlC", b"?",
    b"vStopped", b"vStopped", b"vStopped", b"QThreadEvents:1", b"QThreadOptions;3", b"QNonStop:1", b"vAttach;2",
    b"vAttach;6", b"vAttach;5", b"D;2", b"D;5", b"vKill;3", b"QCatchSyscalls:1",
    b"qSupported:multiprocess+;fork-events+;exec-events+;no-resumed+",
]  # fmt: skip
payloads = st.one_of(
    st.sampled_from(ONE_BY_ONE),
    st.sampled_from(ONE_BY_ONE),
    fuzz.anything_valid.filter(lambda payload: not fuzz.leaves(payload) and payload != b"QNonStop:0"),
)


class Told:
    """What a client knows of notifications: one is outstanding until vStopped has been answered by OK."""

    def __init__(self):
        self.outstanding = False
        self.answered = []

    def check(self, machine, payload=None):
        """What came: the one answer to a request, and a notification only if none was outstanding."""
        asked = payload is not None
        answers = 0
        for sign, said in machine.wire.take():
            if sign == b"%":
                assert said.startswith(b"Stop:"), said
                assert said[5:6] in b"TWXwN", said
                assert not self.outstanding, "a notification before the last one was confirmed"
                self.outstanding = True
                continue
            answers += 1
            assert asked, said
            self.answered.append((payload, said))
            if payload == b"vStopped" or (payload == b"?" and said[:1] != b"E"):
                self.outstanding = said != b"OK"
        assert answers == asked, payload

    def drain(self, machine):
        """vStopped comes to its end."""
        for _ in range(MAX_STOPS):
            if not self.outstanding:
                return
            machine.send(packets([b"vStopped"])[0])
            self.check(machine, b"vStopped")
        raise AssertionError("vStopped has no end")


@examples(40)
@given(
    start=STARTS,
    first=ATTACH,
    requests=st.lists(st.tuples(payloads, st.integers(0, 3)), max_size=25),
    instructions=st.sampled_from([997, 50_000]),
)
def test_requests_and_notifications_keep_to_the_protocol(session, start, first, requests, instructions):
    """Each request is answered at once and once, whether threads run or not; a stop is notified of only when the last
    one has been confirmed; vStopped ends. However it is left, a fresh client finds a machine that is sane."""
    machine = session(start)
    for payload in first:
        machine.ask(payload)
    told = Told()
    for payload, turns in [(b"QNonStop:1", 0), *requests]:
        machine.send(packets([payload])[0])
        told.check(machine, payload)
        assert machine.state is not State.RUNNING
        if machine.state is State.DISCONNECTED:
            assert payload[:1] in b"Dv"
            break
        if payload == b"QNonStop:1":
            told.outstanding = told.outstanding and len(machine.connection.stops) > 0
        for _ in range(turns):
            machine.turn(instructions)
            told.check(machine)
    else:
        told.drain(machine)
    aim(told.answered)
    machine.assert_sane()


@examples(15)
@given(start=STARTS, pieces=st.lists(fuzz.wire, max_size=12), busy=st.lists(payloads, max_size=6))
def test_a_client_that_vanishes_leaves_nothing(session, start, pieces, busy):
    """In the middle of a run in non-stop, with stops that it has not confirmed and requests of any kind under way: the
    vcpus may be scheduled again, nothing of it is in the CPU, and the guest goes on to its end."""
    machine = session(start)
    machine.send(b"".join(packets([b"QNonStop:1", *busy, b"vCont;c"])))
    for piece in pieces:
        machine.send(piece)
        machine.turn(20_000)
    machine.wire.take()
    machine.disconnect()
    assert not any(vcpu.paused for vcpu in machine.domain.vcpus)
    assert len(machine.hv.cpu.watches) == 0
    machine.assert_sane()


@examples(10)
@given(steps=st.lists(st.tuples(payloads, st.integers(0, 2)), max_size=10), talk=st.lists(fuzz.requests, max_size=5))
def test_observers_of_a_debugger_in_non_stop_change_nothing(session, steps, talk):
    """The debugger's stops go to those who wait for one; without them all is the same."""
    alone, watched = session(1_500_000), session(1_500_000)
    for number in range(2):
        watched.observe()
        watched.observer_sends(number, packets([b"QNonStop:1"])[0] if number else b"")
    for payload, turns in [(b"QNonStop:1", 0), (b"vAttach;2", 1), *steps]:
        if payload.startswith(b"qRcmd") and bytes.fromhex(payload[6:].decode()) == b"clients":
            continue
        for machine in (alone, watched):
            machine.send(packets([payload])[0])
        for _ in range(turns):
            for data in packets([*talk, b"vCont;c"]):
                for number in range(2):
                    watched.observer_sends(number, data)
            alone.turn(50_000)
            watched.turn(50_000)
        assert watched.wire.take() == alone.wire.take()
        assert watched.fingerprint() == alone.fingerprint()
    for wire in watched.wires:
        wire.take()
