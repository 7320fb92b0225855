"""A second gdb that only observes what the first one debugs."""

import socket
from contextlib import ExitStack

import pytest

from xdbg.session.gallery import MAX_OBSERVERS
from xdbg.testing import GdbError, GdbSession

REFUSED = "this client only observes: another debugger was here first"


def tcp(guest):
    host, _, port = guest.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


@pytest.fixture
def observe():
    """A function: one more gdb at the server of another."""
    with ExitStack() as stack:

        def start(gdb, *settings):
            return stack.enter_context(GdbSession(gdb.guest.address, settings=settings))

        yield start


def test_an_observer_sees_all_and_changes_nothing(processes, observe):
    observer = observe(processes)
    count = processes.instructions
    assert observer.backtrace() == processes.backtrace()
    assert observer.run("info registers") == processes.run("info registers")
    assert observer.processes() == processes.processes()
    assert observer.instructions == count
    for command in (
        "set variable $rax = 1",
        "set variable *(char *)$sp = 1",
        "kill inferiors 1",
        "call pages_free()",
        "jump schedule",
    ):
        with pytest.raises(GdbError):
            observer.run(command)
    for command in ("step-mask off", "trace on"):
        assert REFUSED in observer.monitor(command)
    observer.go("stepi")
    assert "Remote failure reply: E01" in "".join(one["payload"] or "" for one in observer.log if one["type"] == "log")
    observer.run("break schedule")
    observer.run("hbreak schedule")
    observer.run("watch *(long *)$sp")
    observer.run("continue")
    observer.drain()
    assert any("Cannot insert" in (one["payload"] or "") for one in observer.log if one["type"] == "log")
    assert processes.instructions == count
    assert processes.cont().function != "schedule"


def test_an_observer_has_inferiors_of_its_own(processes, observe, pids_of):
    observer = observe(processes)
    pid = pids_of(processes, "counter")[0]
    observer.attach_process(pid)
    assert "main" in observer.backtrace()
    assert "/bin/counter" in observer.run("info inferiors")
    assert "/bin/counter" not in processes.run("info inferiors")
    clients = processes.monitor("clients")
    assert f"observer 1: all-stop, looks at the kernel and process {pid}" in clients
    observer.run("detach")
    processes.attach_process(pid)
    processes.run("break square")
    assert processes.cont().function == "square"


def test_continue_of_an_observer_waits_for_the_next_stop(processes, observe, pids_of):
    observer = observe(processes)
    observer.attach_process(pids_of(processes, "counter")[0])
    observer.select(1)
    observer.run("set schedule-multiple on")
    processes.run("break sys_exit")
    observer.start_running()
    assert processes.cont().function == "sys_exit"
    stop = observer.wait()
    assert (stop.function, stop.signal) == ("sys_exit", "SIGTRAP")
    assert observer.backtrace() == processes.backtrace()
    processes.run("delete")
    processes.start_running()
    observer.start_running()
    assert observer.interrupt().signal in {"SIGINT", ""}, "or a process has ended"
    assert processes.wait().ended, "the debugger's guest was not stopped by that"


def test_the_end_of_the_domain_is_told_to_observers(processes, observe):
    observer = observe(processes)
    observer.start_running()
    assert processes.run_to_end().reason == "exited-normally"
    assert observer.wait().ended


def test_observer_in_gdbs_own_observer_mode(processes, observe):
    observer = observe(processes, "observer on")
    assert observer.backtrace() == processes.backtrace()
    assert "non-stop" in processes.monitor("clients")
    processes.run("break sys_exit")
    observer.run("continue &")
    assert processes.cont().function == "sys_exit"
    assert observer.wait().function == "sys_exit"


def test_an_observer_while_the_guest_runs(xdbg_gdb, observe):
    gdb = xdbg_gdb("tasks", "--append", "init=/bin/spin")
    gdb.start_running()
    observer = observe(gdb)
    before = observer.instructions
    while observer.instructions == before:
        pass
    assert "spin" in observer.monitor("ps")
    assert gdb.interrupt().signal == "SIGINT"


def test_the_next_to_come_is_the_debugger_when_it_has_left(xdbg_serve):
    guest = xdbg_serve("tasks")
    with GdbSession(guest.address) as first, GdbSession(guest.address) as observer:
        first.run("break task_sleep")
        first.cont()
        first.close()
        with GdbSession(guest.address) as second:
            assert second.backtrace()[0] == "task_sleep"
            second.stepi()
            assert REFUSED in observer.monitor("step-mask on")
            assert "step-mask" in second.monitor("step-mask")
            assert "debugger: all-stop\nobserver 1: all-stop" in observer.monitor("clients")


def test_no_more_than_so_many_observers(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    with ExitStack() as stack:
        observers = [stack.enter_context(tcp(gdb.guest)) for _ in range(MAX_OBSERVERS)]
        for one in observers:
            one.sendall(b"$qC#b4")
            assert one.recv(16).startswith(b"+$QC")
        with tcp(gdb.guest) as refused:
            assert refused.recv(16) == b""
        observers[0].sendall(b"\xff" * 100000 + b"$m" + b"0" * 1000000)
        observers[1].close()
        assert gdb.cont().function == "main"
        assert f"observer {MAX_OBSERVERS - 1}" in gdb.monitor("clients")
    assert gdb.cont().reason == "exited-normally"
