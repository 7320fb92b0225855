"""Processes of the guest come and go as inferiors beside its kernel."""

import re

import pytest

from xdbg.testing import GdbError


def test_all_processes_and_the_kernel_in_one_session(processes):
    for pid in processes.processes():
        processes.attach_process(pid)
    names = re.findall(r"target:(\S+)", processes.run("info inferiors"))
    assert names[0] == "/boot/tasks.elf"
    assert names[1:] == list(processes.processes().values())
    threads = processes.run("info threads")
    assert threads.count("Thread ") == 10
    assert '"debugger"' in threads
    assert '"vcpu0"' in threads


def test_attached_process_shows_where_it_waits(processes, pids_of):
    processes.attach_process(1)
    assert processes.backtrace()[:2] == ["syscall", "wait"]
    assert "main" in processes.backtrace()


@pytest.mark.parametrize("pid", ["99", "0", "-1", "4194305"])
def test_attach_to_no_process_is_an_error_and_the_session_goes_on(processes, pid):
    processes.run("add-inferior")
    processes.run("inferior 2")
    with pytest.raises(GdbError):
        processes.run(f"attach {pid}")
    processes.run("inferior 1")
    processes.run("break sys_sleep")
    assert processes.cont().function == "sys_sleep"


def test_attach_twice_is_an_error(counter, pids_of):
    with pytest.raises(GdbError):
        counter.attach_process(pids_of(counter, "counter")[0])
    counter.select(2)
    counter.run("break compute")
    assert counter.cont().function == "compute"


def test_detach_and_attach_again(counter, pids_of):
    pid = pids_of(counter, "counter")[0]
    for _ in range(3):
        counter.run("break compute")
        assert counter.cont().function == "compute"
        counter.run("delete")
        counter.run("detach")
        counter.run(f"attach {pid}")
        counter.drain()
    assert counter.backtrace()[-2:] == ["count", "main"]


def test_detached_process_leaves_no_breakpoint_behind(counter):
    counter.run("break square")
    counter.cont()
    counter.run("detach")
    counter.select(1)
    assert counter.cont().reason == "exited-normally"
    assert "init: all ended as they should" in counter.guest.stop()


def test_kernel_may_be_detached_while_a_process_stays(counter):
    counter.run("detach inferiors 1")
    counter.run("break square")
    assert counter.cont().function == "square"
    counter.run("delete")
    assert counter.cont().ended


def test_exit_of_an_attached_process_is_told_and_the_others_stay(debuggee):
    stop = debuggee.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "0100")
    debuggee.select(1)
    assert debuggee.backtrace()
    assert debuggee.cont().reason == "exited-normally"


def test_process_that_dies_of_a_signal_is_told(processes, pids_of):
    processes.attach_process(pids_of(processes, "fault")[0])
    assert processes.cont().signal == "SIGSEGV"
    stop = processes.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGSEGV")


def test_process_that_is_killed_by_another_is_told(processes, pids_of):
    processes.attach_process(pids_of(processes, "spin")[0])
    stop = processes.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGKILL")


def test_kill_ends_a_process_and_nothing_else(processes, pids_of):
    processes.attach_process(pids_of(processes, "spin")[0])
    processes.run("kill inferiors 2")
    processes.select(1)
    assert processes.run_to_end().reason == "exited-normally"
    console = processes.guest.stop()
    assert re.search("init: spin .* status 137 ok", console)
    assert "init: all ended as they should" in console


def test_all_processes_attached_run_to_their_ends(processes):
    for pid in processes.processes():
        processes.attach_process(pid)
    processes.run("set schedule-multiple on")
    ends = 0
    while ends < 10:
        if not (stop := processes.cont()).ended:
            # One that faults, and one that a debugger in the guest traces.
            assert stop.signal in ("SIGSEGV", "SIGTRAP")
            continue
        ends += 1
        if ends < 10:
            alive = re.findall(r"^\*? +(\d+) +process", processes.run("info inferiors"), re.MULTILINE)
            processes.select(int(alive[0]))
    assert "PASS tasks" in processes.guest.stop()
