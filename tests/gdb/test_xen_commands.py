"""gdb's `xen` commands, in the system's gdb and in a new one."""

import subprocess
import sys

import pytest

from xdbg.session.gdb_child import GDB_COMMANDS
from xdbg.testing import GdbError, GdbSession
from xdbg.testing.clients import GDB_18


@pytest.fixture(params=[None, GDB_18], ids=["gdb", "gdb18"])
def tasks(xdbg_gdb, request) -> GdbSession:
    """The guest tasks with the commands loaded, at the first sleep of a process."""
    gdb = xdbg_gdb("tasks", gdb=request.param.command() if request.param else ("gdb",))
    gdb.run(f"source {GDB_COMMANDS}")
    gdb.run("tbreak task_sleep")
    gdb.cont()
    return gdb


def test_attach_by_name_and_detach(tasks, pids_of):
    for wanted, problem in (
        ("counter", "several processes are called counter: 2, 3; name one by its pid"),
        ("nobody", "the guest has no process nobody"),
        ("99", "the guest has no process 99"),
        ("", "a process is wanted"),
        ("1 2", "a process is wanted"),
    ):
        with pytest.raises(GdbError, match=problem):
            tasks.run(f"xen attach {wanted}")
    assert tasks.inferior == 1
    assert "is inferior 2" in tasks.run("xen attach init")
    tasks.drain()
    assert tasks.inferior == 2
    assert tasks.backtrace()[:2] == ["syscall", "wait"]
    assert "is inferior 3" in tasks.run("xen attach 3")
    tasks.drain()
    tasks.run("break square")
    assert tasks.cont().function == "square"
    tasks.run("delete")
    tasks.select(1)
    assert "process 1 is inferior 2" in tasks.run("xen attach /bin/init")
    assert tasks.inferior == 2
    assert "process 3 goes on" in tasks.run("xen detach 3")
    assert tasks.inferior == 1
    tasks.select(2)
    assert "process 1 goes on" in tasks.run("xen detach")
    assert tasks.inferior == 1
    assert "/bin/" not in tasks.run("info inferiors")
    with pytest.raises(GdbError, match="this is no process of the guest"):
        tasks.run("xen detach")
    with pytest.raises(GdbError, match="process 5 is not attached"):
        tasks.run("xen detach fault")
    assert tasks.run_to_end().reason == "exited-normally"
    assert "PASS tasks" in tasks.guest.stop()


def test_break_in_one_process_of_two_that_run_the_same_program(tasks, pids_of):
    one, other = pids_of(tasks, "counter")
    tasks.run(f"xen attach {one}")
    tasks.drain()
    tasks.run(f"xen break-in {other} square")
    tasks.drain()
    tasks.run("set schedule-multiple on")
    for _ in range(3):
        stop = tasks.cont()
        assert stop.function == "square"
        assert tasks.inferior == 3
    with pytest.raises(GdbError, match="usage"):
        tasks.run("xen break-in 1")


def test_what_it_shows_is_what_the_machine_has_and_help_names_all(tasks):
    assert tasks.number("$xen_current()") == 2
    assert tasks.run("xen ps") == tasks.monitor("ps")
    shown = tasks.run("xen registers")
    assert "  xen_kernel_mode     0x1  true\n" in shown
    assert f"  cr3                 {tasks.number('$cr3'):#x}\n" in shown
    assert "[ SCE LME LMA NXE ]" in shown
    assert tasks.run("xen pt &current") == tasks.monitor(f"walk {tasks.number('&current'):#x}")
    assert tasks.run("xen translate $sp") == tasks.monitor("translate $sp")
    assert "trace is on: iret" in tasks.run("xen trace on iret")
    assert "trace is off" in tasks.run("xen trace off")
    with pytest.raises(GdbError, match="No symbol"):
        tasks.run("xen pt nothing_of_that_name")
    assert "Python Exception" not in tasks.printed
    try:
        refused = tasks.run("xen translate 0")  # a gdb that takes no text in errors is shown it as output
    except GdbError as error:
        refused = str(error)
    assert refused.startswith("virtual address 0x0 is not mapped")
    # Its help, and what it completes.
    text = tasks.run("help xen")
    rows = [line for line in text.splitlines() if line.startswith("xen ")]
    assert len(rows) >= 12
    assert all(row.endswith(".") for row in rows)
    assert "Usage: xen attach PID|NAME" in tasks.run("help xen attach")
    assert tasks.run("complete xen attach debu").split() == ["xen", "attach", "debuggee", "xen", "attach", "debugger"]
    assert tasks.run("complete xen trace o").splitlines() == ["xen trace off", "xen trace on"]
    assert tasks.run("xen catch hypercall sched_op").startswith("catch 1: ")
    assert tasks.cont().signal == "SIGTRAP"
    assert "sched_op" in tasks.run("xen why")
    assert tasks.run("xen why") == tasks.monitor("why")
    tasks.run("xen uncatch all")


def test_restart_lets_processes_go_and_stops_before_the_first_instruction(tasks):
    tasks.run("xen attach init")
    tasks.drain()
    tasks.run("xen attach fault")
    tasks.drain()
    tasks.run("handle SIGSEGV nostop noprint pass")
    assert tasks.cont().payload["signal-name"] == "SIGSEGV"
    tasks.select(1)
    tasks.go("xen restart again")
    assert (tasks.inferior, tasks.instructions) == (1, 0)
    assert "/bin/" not in tasks.run("info inferiors")
    tasks.run("tbreak main")
    tasks.cont()
    assert tasks.evaluate("command_line").endswith('"again"')


def test_after_a_new_connection_a_stop_of_the_kernel_is_told_while_a_process_is_looked_at(tasks):
    tasks.run("disconnect")
    with GdbSession(tasks.guest.address) as again:
        again.run(f"source {GDB_COMMANDS}")
        again.run("xen attach spin")
        again.drain()
        again.run("tbreak task_exit")
        stop = again.cont()
        assert (stop.function, again.inferior) == ("task_exit", 1)


def test_without_a_domain_each_says_what_is_missing():
    with GdbSession() as gdb:
        gdb.run(f"source {GDB_COMMANDS}")
        for command in ("attach 1", "ps", "why", "restart", "pt 0"):
            with pytest.raises(GdbError, match="no domain is connected"):
                gdb.run(f"xen {command}")


def test_plain_remote_is_told_what_it_lacks(xdbg_serve):
    with GdbSession(xdbg_serve("hello").address, extended=False) as gdb:
        gdb.run(f"source {GDB_COMMANDS}")
        with pytest.raises(GdbError, match="target extended-remote"):
            gdb.run("xen attach 1")


def test_xdbg_debug_loads_them_and_gdb_commands_says_where_they_are():
    done = subprocess.run(
        [sys.executable, "-m", "xdbg", "debug", "hello", "--", "-nx", "-batch", "-ex", "xen ps"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "no processes are known" in done.stdout
    path = subprocess.run([sys.executable, "-m", "xdbg", "gdb-commands"], capture_output=True, text=True, check=True)
    assert path.stdout == f"{GDB_COMMANDS}\n"
