"""Processes that make copies of themselves, followed by gdb."""

import re

import pytest

from xdbg.testing import GdbSession


@pytest.fixture
def forker(processes, pids_of) -> GdbSession:
    """The program that forks twice, attached before its first instruction."""
    processes.attach_process(pids_of(processes, "forker")[0])
    return processes


def test_parent_is_followed_and_children_run_free(forker):
    forker.run("break getpid")
    forker.run("tbreak wait")
    stop = forker.cont()
    assert (stop.function, stop.inferior) == ("wait", "2")
    assert forker.printed.count("Detaching after fork from child") == 2
    assert forker.cont().reason == "exited-normally"
    forker.select(1)
    assert forker.run_to_end().reason == "exited-normally"
    assert "init: all ended as they should" in forker.guest.stop()


def test_child_is_followed_and_the_parent_runs_free(forker):
    forker.run("set follow-fork-mode child")
    forker.run("break getpid")
    stop = forker.cont()
    assert "Detaching after fork from parent" in forker.printed
    assert (stop.function, stop.inferior, forker.inferior) == ("getpid", "3", 3)
    assert forker.backtrace() == ["getpid", "main"]
    assert forker.number("value") == 7
    stop = forker.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "07")


def test_caught_fork_shows_parent_and_child(forker):
    forker.run("catch fork")
    forker.run("set detach-on-fork off")
    forker.run("set schedule-multiple on")
    stop = forker.cont()
    child = int(stop.payload["newpid"])
    assert (stop.reason, forker.backtrace()[-2:]) == ("fork", ["fork", "main"])
    assert forker.number("$rax") == child
    forker.run("break getpid")
    forker.run("break wait")
    assert forker.cont().reason == "fork"
    forker.run("delete 2")
    threads = forker.run("info threads")
    assert re.search(rf"Thread {child}.{child} .forker.*syscall", threads)
    stops = {stop.function: stop.inferior for stop in (forker.cont(), forker.cont())}
    assert sorted(stops) == ["getpid", "wait"]
    parent, copy = stops["wait"], stops["getpid"]
    assert parent != copy
    values = {}
    for inferior in (2, 3):
        forker.select(inferior)
        values[inferior] = (forker.number("value"), forker.number("$cr3"), forker.backtrace()[0])
    assert (values[2][0], values[3][0]) == (1, 7)
    assert values[2][1] != values[3][1]
    forker.run("delete")
    ends = {}
    while len(ends) < 3:
        stop = forker.cont()
        if not stop.ended:
            assert stop.signal
            continue
        ended = int(re.findall(r"\[Inferior (\d+) ", forker.printed)[-1])
        ends[ended] = stop.payload.get("exit-code", "0")
        alive = re.findall(r"^\*? +(\d+) +process", forker.run("info inferiors"), re.MULTILINE)
        forker.select(int(alive[-1]))
    assert ends == {2: "0", 3: "07", 4: "0114"}


def test_break_point_of_the_child_does_not_stop_the_parent_at_the_same_place(forker):
    forker.run("set detach-on-fork off")
    forker.run("set schedule-multiple on")
    forker.run("catch fork")
    assert [forker.cont().reason for _ in range(2)] == ["fork", "fork"]
    forker.run("delete")
    forker.select(3)
    forker.run("break *wait")
    assert "inf 3" in forker.run("info breakpoints")
    forker.select(2)  # gdb wants to go on where the fork was
    stop = forker.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "07")
    assert forker.number("$_exitcode") == 7


def test_a_vfork_can_not_be_caught(forker):
    forker.run("catch vfork")
    forker.run("tbreak wait")
    assert forker.cont().function == "wait"
    assert re.search(r"catchpoint +keep n +vfork", forker.run("info breakpoints")), "gdb disables it"


@pytest.mark.parametrize("mode", ["parent", "child"])
def test_next_steps_over_a_fork_in_the_one_that_is_followed(forker, mode):
    forker.run(f"set follow-fork-mode {mode}")
    forker.run("tbreak main")
    forker.cont()
    while forker.next().source != "copy = fork();":
        pass
    stop = forker.next()
    assert (stop.source, stop.inferior) == ("if (copy == 0) {", "2" if mode == "parent" else "3")
    assert (forker.number("copy") == 0) == (mode == "child")
    assert forker.next().source == ("other = fork();" if mode == "parent" else "value += 6;")


def test_nobody_is_told_of_forks_who_attached_to_another_process(counter):
    counter.run("catch fork")
    counter.run("set detach-on-fork off")
    assert counter.cont().reason == "exited"
    assert counter.run("info inferiors").count("process") == 1
