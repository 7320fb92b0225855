"""Every folder of guests/ runs to the end that its first comment states, and twice to the same trace."""

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xdbg.cli.run import EXIT_STATUS
from xdbg.session.bundled import bundled_guests
from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, launch
from xdbg.session.limits import Limits
from xdbg.session.run import run_to_end
from xdbg.trace.events import EVENT_KINDS
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 100_000_000


@dataclass
class Run:
    """One run that a guest's comment describes."""

    guest: str
    append: str
    status: int = 0
    output: list[str] = field(default_factory=list)


def expected_runs(guest):
    comment = (ROOT / "guests" / guest / "main.c").read_text().partition("*/")[0]
    runs = [Run(guest, "")]
    for key, value in re.findall(r"^ \* (Append|Expect|Expect-output): (.*)$", comment, re.MULTILINE):
        if key == "Append":
            runs.append(Run(guest, value))
        elif key == "Expect":
            runs[-1].status = int(value.removeprefix("exit "))
        else:
            runs[-1].output.append(value)
    return runs


RUNS = [run for guest in bundled_guests() for run in expected_runs(guest.name)]


def run_guest(name, append="", observer=None):
    launched = launch(Launch(name, append=append))
    launched.hv.observer = observer
    console = io.BytesIO()
    outcome = run_to_end(launched, Terminal(console), Limits(max_instructions=LIMIT))
    return launched, outcome, console.getvalue().decode()


def test_every_guest_is_built():
    guests = bundled_guests()
    assert {"hello", "int3", "traps", "tick", "tasks", "crash", "smp"} <= {guest.name for guest in guests}
    assert all(guest.built for guest in guests)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.guest}-{run.append}" if run.append else run.guest)
def test_a_guest_ends_as_its_comment_says(run):
    _, outcome, console = run_guest(run.guest, run.append)
    assert EXIT_STATUS[outcome] == run.status, console
    for text in run.output:
        assert text in console


@pytest.mark.parametrize("name", [guest.name for guest in bundled_guests()])
def test_the_same_guest_twice_gives_equal_traces_and_memory(name):
    def traced():
        text = io.StringIO()
        launched, _, console = run_guest(name, observer=Recorder([FORMATS["jsonl"](text)], frozenset(EVENT_KINDS)))
        return text.getvalue(), console, launched.hv.cpu.count, bytes(launched.hv.ram.buffer)

    assert traced() == traced()


@pytest.mark.parametrize("vcpus", [1, 2, 3, 8])
def test_smp_runs_on_as_many_vcpus_as_there_are(vcpus):
    launched = launch(Launch("smp", vcpus=vcpus))
    console = io.BytesIO()
    outcome = run_to_end(launched, Terminal(console), Limits(max_instructions=LIMIT))
    assert EXIT_STATUS[outcome] == 0, console.getvalue()
    assert f"{vcpus} vcpus are up" in console.getvalue().decode()
    assert b"PASS smp" in console.getvalue()


def test_a_trace_does_not_change_what_the_guest_does():
    plain, _, console = run_guest("tasks")
    traced, _, traced_console = run_guest("tasks", observer=Recorder([], frozenset(EVENT_KINDS)))
    assert (plain.hv.cpu.count, console) == (traced.hv.cpu.count, traced_console)
    assert plain.hv.ram.buffer == traced.hv.ram.buffer
