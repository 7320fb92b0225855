from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, launch
from xdbg.session.run import run_to_end
from xdbg.testing import GdbSession

NR_PROCESSES = 9


@dataclass(frozen=True, slots=True)
class Undebugged:
    """What a guest computes when nobody looks."""

    console: str
    instructions: int


@cache
def _undebugged(guest: str) -> Undebugged:
    output = BytesIO()
    launched = launch(Launch(guest))
    run_to_end(launched, Terminal(output))
    return Undebugged(output.getvalue().decode(), launched.hv.cpu.count)


@pytest.fixture
def undebugged() -> Callable[[str], Undebugged]:
    return _undebugged


@pytest.fixture
def processes(xdbg_gdb) -> GdbSession:
    """The guest tasks, at the first sleep of a process: all programs have been started, few have run."""
    gdb = xdbg_gdb("tasks")
    gdb.run("tbreak task_sleep")
    gdb.cont()
    assert len(gdb.processes()) == NR_PROCESSES
    return gdb


@pytest.fixture
def counter(processes) -> GdbSession:
    """One of the two counters attached and selected."""
    processes.attach_process(pids(processes, "counter")[0])
    return processes


@pytest.fixture
def debuggee(processes) -> GdbSession:
    """The position-independent program that nobody else debugs, attached before its first instruction."""
    processes.attach_process(pids(processes, "debuggee")[1])
    return processes


@pytest.fixture
def pids_of() -> Callable[[GdbSession, str], list[int]]:
    return pids


def pids(gdb: GdbSession, program: str) -> list[int]:
    return [pid for pid, path in gdb.processes().items() if Path(path).name == program]


@pytest.fixture
def step_to() -> Callable[[GdbSession, str], None]:
    """Steps to the next instruction that begins so, which must be near."""

    def step(gdb: GdbSession, instruction: str) -> None:
        for _ in range(200):
            if gdb.instruction.startswith(instruction):
                return
            gdb.stepi()
        raise AssertionError(f"no {instruction} in 200 steps")

    return step
