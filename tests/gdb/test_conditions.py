"""Conditions and printed lines of breakpoints are evaluated by the server, and the guest never notices."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

LIMIT_S = 60


@pytest.fixture
def script(xdbg_serve, tmp_path: Path) -> Callable[..., str]:
    """Lines typed at the prompt of a gdb that is attached to `tasks`; what it printed. `script.guest` is the server."""

    # Not over MI: what gdb 13 notifies of a dprintf is no well-formed MI record.
    def run(*lines: str) -> str:
        run.guest = xdbg_serve("tasks")  # type: ignore[attr-defined]  # a function has any attribute
        settings = ("set pagination off", "set confirm off", "set width 0", "set debuginfod enabled off")
        file = tmp_path / "script.gdb"
        file.write_text("\n".join((*settings, f"target extended-remote {run.guest.address}", *lines)) + "\n")
        done = subprocess.run(
            ["gdb", "--nx", "--quiet", "--batch", "-x", file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.stdout

    return run


def test_conditions_over_registers_memory_pointers_and_strings(counter):
    counter.run("break square if x == 15 && total > 4")
    assert "(host evals)" in counter.run("info breakpoints")
    counter.cont()
    assert counter.number("x") == 15
    assert "(target evals)\n\tbreakpoint already hit 1 time" in counter.run("info breakpoints")
    counter.run("delete")
    counter.run("break compute if i % 7 == 0 && (name[0] == 'a' || name[0] == 'b') && $rdi != 99 && -i < 0")
    assert [counter.cont() and counter.number("i") for _ in range(3)] == [21, 28, 35]
    counter.run("delete")
    counter.select(1)
    counter.run("break sys_sleep if task->pid == 3 && task->name[0] == 'c' && current == task")
    counter.cont()
    assert counter.number("task->pid") == 3
    assert "already hit 1 time" in counter.run("info breakpoints")


def test_where_conditions_are_evaluated_is_gdbs_choice(counter):
    counter.run("break square if x == 13")
    for where, shown in (("host", "x == 13\n"), ("target", "(target evals)"), ("auto", "(target evals)")):
        counter.run(f"set breakpoint condition-evaluation {where}")
        counter.cont()
        assert counter.number("x") == 13 + ("host", "target", "auto").index(where)
        assert shown in counter.run("info breakpoints")
        counter.run(f"condition $bpnum x == {counter.number('x') + 1}")


def test_ignore_counts_and_threads_with_conditions(counter, pids_of):
    counter.run("break square if x > 15")
    counter.run("ignore $bpnum 3")
    counter.cont()
    assert counter.number("x") == 19
    counter.run("delete")
    counter.attach_process(pids_of(counter, "counter")[1])
    counter.run("set schedule-multiple on")
    counter.run("break square thread 3.1 if x % 2 == 0")
    found = [(counter.cont().payload["thread-id"], counter.number("x")) for _ in range(5)]
    assert found == [("3", x) for x in range(12, 22, 2)]


def test_two_breakpoints_at_one_address_each_with_its_condition(counter):
    counter.run("break square if x == 17")
    counter.run("hbreak square if x == 14")
    counter.run("break square if x == 12")
    assert [counter.cont() and counter.number("x") for _ in range(3)] == [12, 14, 17]


def test_a_condition_that_can_not_be_evaluated_stops(counter):
    counter.run("break square if *(int *)16 == 0")
    stop = counter.cont()
    assert (stop.function, counter.number("x")) == ("square", 11)


def test_a_kernel_breakpoint_of_a_process_stops_while_the_kernel_works_for_it(counter, pids_of):
    counter.select(1)
    sleep = counter.number("&sys_sleep")
    counter.select(2)
    counter.run(f"break *{sleep:#x}")
    counter.run("set schedule-multiple on")
    stop = counter.cont()
    assert (stop.signal, stop.payload["thread-id"]) == ("SIGTRAP", "2")
    assert counter.number("$pc") < 1 << 47
    counter.select(1)
    assert counter.backtrace()[0] == "sys_sleep"
    assert counter.number("task->pid") == pids_of(counter, "counter")[0]


def test_printed_lines_come_in_order_and_do_not_stop(script):
    printed = script(
        "tbreak task_sleep",
        "continue",
        "add-inferior",
        "inferior 2",
        "attach 3",
        "set dprintf-style agent",
        r'dprintf compute,"i=%d name=%s %c 100%% %5.2x|%-4lu|\n", i, name, name[0], i, (long)i',
        "tbreak print",
        "continue",
        "info breakpoints",
        r'dprintf square,"x is %d\n", x',
        "condition $bpnum x == 13",
        "tbreak print",
        "continue",
        "monitor when",
    )
    lines = [line for line in printed.splitlines() if line.startswith(("i=", "x is", "Thread 2.1"))]
    expected = [f"i={i} name=b b 100%    {i:02x}|{i:<4}|" for i in range(1, 21)]
    expected.insert(10, lines[10])
    expected.insert(14, "x is 13")
    assert lines[10].startswith('Thread 2.1 "counter" hit Temporary breakpoint')
    assert lines[:22] == expected
    assert "agent-printf" in printed


def test_printed_lines_go_on_when_gdb_has_left(script, undebugged):
    printed = script(
        "set breakpoint always-inserted on",
        "set dprintf-style agent",
        "set disconnected-dprintf on",
        r'dprintf sys_sleep,"sleep of %d\n", task->pid',
        "condition $bpnum task->pid == 3",
        "tbreak task_sleep",
        "continue",
        "detach",
    )
    assert "(host evals)" not in printed
    deadline = monotonic() + LIMIT_S
    while "PASS" not in script.guest.console:
        assert monotonic() < deadline
    assert script.guest.stop() == undebugged("tasks").console
    assert set(script.guest.errors.splitlines()) == {"sleep of 3"}
    assert len(script.guest.errors.splitlines()) >= 5
