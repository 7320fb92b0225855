"""What the server says depends on what is in the packet log, and on nothing else."""

import tempfile
from pathlib import Path

import fuzz_requests as fuzz
from hypothesis import given
from hypothesis import strategies as st
from test_server_fuzz import ATTACH, SLICES, examples, packets

from xdbg.rsp.connection import State

PARTS = st.one_of(
    st.lists(fuzz.anything_valid.filter(lambda payload: not fuzz.leaves(payload)), min_size=1, max_size=5),
    fuzz.trace_set_up,
    st.sampled_from(fuzz.RESTARTING),
    st.sampled_from([[b"k"], [b"D"], [b"vCont;c"]]),
)
"""Rows of requests of one client."""


@examples(25)
@given(
    clients=st.lists(st.tuples(ATTACH, st.lists(PARTS, max_size=4)), min_size=1, max_size=3),
    interrupts=st.lists(st.integers(0, 12), max_size=3),
    instructions=SLICES,
    again=st.sampled_from([12_347, 1_000_000]),
)
def test_any_session_is_replayed_with_equal_answers(session, clients, interrupts, instructions, again):
    """Clients that do anything, and the ones after them, while the guest runs in slices of any length; the domain may
    end and begin anew. The log's requests to another domain, in other slices, give the same at the same instructions.
    """
    with tempfile.TemporaryDirectory() as folder:
        cores, scratch = Path(folder, "cores"), Path(folder, "scratch")
        cores.mkdir()
        scratch.mkdir()
        machine = session(cores=cores, logs=True)
        asked = 0
        for number, (first, parts) in enumerate(clients):
            if number:
                machine.connect()
            for payload in [*first, *(payload for part in parts for payload in part)]:
                asked += 1
                for frames in packets([payload]):
                    machine.send(frames)
                if asked in interrupts:
                    machine.turn(instructions)
                    machine.send(b"\x03")
                for _ in range(40):
                    if machine.state is not State.RUNNING:
                        break
                    machine.turn(instructions)
                else:
                    machine.send(b"\x03")
                    machine.wait(instructions)
            machine.answers()
            machine.disconnect()
            for _ in range(3):
                machine.turn(instructions)  # it may have been let go
        assert machine.replay(scratch, again) is None
