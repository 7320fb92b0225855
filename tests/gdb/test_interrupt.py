"""Ctrl-C, at any moment."""

import pytest

LOOP = ("--append", "loop")


def test_ctrl_c_stops_a_guest_that_loops(xdbg_gdb):
    gdb = xdbg_gdb("crash", *LOOP)
    gdb.start_running()
    stop = gdb.interrupt()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGINT")


def test_ctrl_c_many_times(xdbg_gdb):
    gdb = xdbg_gdb("crash", *LOOP)
    gdb.run("break main")
    gdb.cont()
    for _ in range(20):
        gdb.start_running()
        before = gdb.interrupt()
        assert before.signal == "SIGINT"
    count = gdb.instructions
    gdb.stepi()
    assert gdb.instructions == count + 1


def test_ctrl_c_in_a_process(processes, pids_of):
    processes.attach_process(pids_of(processes, "spin")[0])
    processes.start_running()
    stop = processes.interrupt()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGINT")
    assert stop.payload["thread-id"] == "2"
    turns = processes.number("turns")
    processes.start_running()
    processes.interrupt()
    assert processes.number("turns") >= turns


def test_ctrl_c_in_an_idle_guest(xdbg_gdb):
    gdb = xdbg_gdb("tick")
    gdb.run("tbreak main")
    gdb.cont()
    gdb.start_running("jump block")  # no timer is set: nothing will ever wake it
    while gdb.interrupt() and "waits for an event" not in gdb.monitor("info vcpu"):
        gdb.start_running()
    count = gdb.instructions
    for _ in range(3):
        gdb.start_running()
        assert gdb.interrupt().signal == "SIGINT"
    assert gdb.backtrace()[0] == "hypercall_page"
    assert gdb.instructions == count


def test_breakpoint_set_after_ctrl_c_is_hit(xdbg_gdb):
    gdb = xdbg_gdb("tasks", "--append", "init=/bin/spin")
    gdb.start_running()
    gdb.interrupt()
    gdb.run("break schedule")
    assert gdb.cont().function == "schedule"


@pytest.mark.parametrize("command", ["next", "until", "nexti"])
def test_ctrl_c_ends_a_step_over_a_call_that_never_returns(xdbg_gdb, command):
    gdb = xdbg_gdb("crash", *LOOP)
    call = next(line for line in gdb.run("disassemble main").splitlines() if "call   *" in line)
    gdb.run(f"tbreak *{call.split()[0]}")
    gdb.cont()
    gdb.start_running(command)
    assert gdb.interrupt().signal == "SIGINT"
    assert "main" in gdb.backtrace()


@pytest.mark.parametrize("command", ["finish", "stepi 100000000"])
def test_ctrl_c_ends_a_long_command(xdbg_gdb, command):
    gdb = xdbg_gdb("crash", *LOOP)
    gdb.run("tbreak loop")
    gdb.cont()
    gdb.start_running(command)
    assert gdb.interrupt().signal == "SIGINT"
