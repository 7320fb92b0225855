"""Processes that become other programs, and that begin as other programs."""

import re

import pytest

from xdbg.testing import GdbSession


@pytest.fixture
def init(xdbg_gdb) -> GdbSession:
    """The first process attached before its first instruction."""
    gdb = xdbg_gdb("tasks")
    gdb.run("tbreak enter_user_mode")
    gdb.cont()
    gdb.attach_process(1)
    return gdb


def alive(gdb):
    rows = re.findall(r"^\*? +(\d+) +process.*target:(\S+)", gdb.run("info inferiors"), re.MULTILINE)
    return {int(number): path for number, path in rows}


def test_exec_in_a_followed_child_shows_the_new_program(processes, pids_of):
    gdb = processes
    gdb.attach_process(pids_of(gdb, "forker")[0])
    gdb.run("set detach-on-fork off")
    gdb.run("set schedule-multiple on")
    gdb.run("catch fork")
    assert [gdb.cont().reason for _ in range(2)] == ["fork", "fork"]
    gdb.run("delete")
    gdb.run("catch exec")
    gdb.run("break forker.c:24")
    stop = gdb.cont()
    while stop.reason != "breakpoint-hit":
        gdb.select(4)
        stop = gdb.cont()
    assert (stop.source, gdb.inferior) == ('exec("/bin/counter", counter);', 4)
    stop = gdb.cont()
    assert (stop.reason, stop.payload["new-exec"], stop.function) == ("exec", "/bin/counter", "_start")
    assert alive(gdb)[4] == "/bin/counter"
    assert "pie" not in gdb.run("info auxv")
    assert gdb.number("$pc") == gdb.number("&_start")
    assert re.search(r"\* 4\.1 .*counter", gdb.run("info threads"))
    gdb.run("break compute")
    stop = gdb.cont()
    assert (stop.function, gdb.backtrace()) == ("compute", ["compute", "count", "main"])
    assert gdb.evaluate("name").endswith('"exec"')
    gdb.run("delete")
    stop = gdb.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "0114")


def test_exec_of_the_parents_child_that_nobody_follows_is_not_told(processes, pids_of):
    processes.attach_process(pids_of(processes, "forker")[0])
    processes.run("catch exec")
    assert processes.cont().reason == "exited-normally"


def test_spawned_child_is_followed_into_its_own_program(init):
    init.run("set follow-fork-mode child")
    init.run("catch exec")
    stop = init.cont()
    assert (stop.reason, stop.payload["new-exec"], stop.function) == ("exec", "/bin/counter", "_start")
    assert alive(init) == {1: "/boot/tasks.elf", 3: "/bin/counter"}
    assert init.instruction == "xor    %ebp,%ebp"
    init.run("break square")
    init.cont()
    assert init.backtrace() == ["square", "compute", "count", "main"]


def test_everybody_who_is_spawned_is_attached(init):
    init.run("set detach-on-fork off")
    init.run("set schedule-multiple on")
    init.run("catch exec")
    programs = [init.cont().payload["new-exec"] for _ in range(8)]
    assert programs == [
        f"/bin/{name}" for name in ("counter", "counter", "spin", "fault", "forker", *["debuggee"] * 2, "debugger")
    ]
    assert len(alive(init)) == 10
    init.run("delete")
    stop = init.cont()
    assert stop.signal == "SIGSEGV"
    assert init.backtrace() == ["store", "find_and_store", "main"]
    assert "fault" in init.run("info inferiors").partition("*")[2].splitlines()[0]


def test_parent_that_spawns_is_not_disturbed(init):
    init.run("break verdict")
    stop = init.cont()
    assert (stop.function, init.printed.count("Detaching after fork from child")) == ("verdict", 8)
    assert init.number("children[3].status") == 139
    assert init.cont().reason == "exited-normally"
    assert "init: all ended as they should" in init.guest.stop()
