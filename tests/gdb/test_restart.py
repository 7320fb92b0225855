"""`run` and `start`: the domain begins anew, and gdb stays."""

import pytest

from xdbg.testing import GdbError, GdbSession
from xdbg.testing.clients import GDB_18

GDBS = pytest.mark.parametrize("command", [None, GDB_18], ids=["gdb", "gdb18"])


@pytest.fixture
def hello(xdbg_gdb, request) -> GdbSession:
    """The guest hello in the gdb that the test is run for."""
    client = request.getfixturevalue("command")
    return xdbg_gdb("hello", "--append", "first", gdb=client.command() if client else ("gdb",))


@GDBS
def test_run_after_the_end_finds_the_same_domain_with_the_break_points_in_it(hello, command):
    hello.run("break main")
    first = hello.cont(), hello.instructions
    assert hello.evaluate("command_line").endswith('"first"')
    assert hello.cont().ended
    again = hello.go("run"), hello.instructions
    assert (again[0].function, again[0].address, again[1]) == (first[0].function, first[0].address, first[1])
    assert hello.evaluate("command_line").endswith('"first"')
    assert hello.cont().ended
    assert hello.guest.stop().count("PASS hello") == 2


@GDBS
def test_run_kills_what_runs_and_takes_another_command_line(hello, command):
    hello.run("break main")
    hello.cont()
    hello.monitor("trace on shutdown")
    hello.go("run console=hvc0 second")
    assert hello.evaluate("command_line").endswith('"console=hvc0 second"')
    hello.run("kill")
    with pytest.raises(GdbError):
        hello.run("stepi")
    hello.run("delete")
    assert hello.go("start").function == "main"
    assert hello.evaluate("command_line").endswith('"console=hvc0 second"')
    stop = hello.go("starti third")
    assert hello.run("info symbol $pc").startswith("_start")
    assert (stop.address, hello.instructions) == (hello.number("$pc"), 0)
    assert hello.cont().ended
    assert "trace is on: shutdown;" in hello.monitor("trace")
    console = hello.guest.stop()
    assert console.count("PASS hello") == 1
    assert "poweroff" in hello.guest.errors.lower()
    assert 'command line "third"' in console


@GDBS
def test_only_the_kernel_can_be_run_and_only_in_its_own_inferior(hello, command):
    hello.run("break main")
    hello.cont()
    count = hello.instructions
    hello.run("add-inferior")
    hello.select(2)
    with pytest.raises(GdbError):
        hello.run("run")
    hello.select(1)
    assert hello.instructions == count
    hello.run("kill")
    hello.run("set remote exec-file /bin/sh")
    with pytest.raises(GdbError, match="only the domain's kernel" if command else "/bin/sh"):
        hello.run("run")
    hello.run("set remote exec-file /boot/hello.elf")
    assert hello.go("run").function == "main"


def test_new_gdb_shows_the_kernels_command_line_as_its_arguments(xdbg_gdb):
    gdb = xdbg_gdb("hello", "--append", "quiet loglevel=8", gdb=GDB_18.command())
    assert 'is "quiet loglevel=8".' in gdb.run("show args")


def test_processes_that_were_attached_are_let_go_of_by_hand_after_a_restart(counter, pids_of):
    pid = pids_of(counter, "counter")[0]
    counter.select(1)
    counter.run("tbreak task_sleep")
    counter.go("run")
    counter.run("detach inferiors 2")
    counter.run("remove-inferiors 2")
    counter.attach_process(pid)
    counter.run("break square")
    assert counter.cont().function == "square"


def test_plain_remote_has_no_restart(xdbg_serve):
    guest = xdbg_serve("hello")
    with GdbSession(guest.address, extended=False) as gdb:
        for request in ("vRun;", "R00"):
            assert 'received: "E' in gdb.run(f"maint packet {request}")
        assert gdb.cont().ended


def test_non_stop_session_goes_on_in_non_stop(xdbg_serve):
    guest = xdbg_serve("hello")
    with GdbSession() as gdb:
        gdb.run("set non-stop on")
        gdb.mi(f"-target-select extended-remote {guest.address}")
        gdb.drain()
        gdb.run("break main")
        for _ in range(2):
            gdb.run("run &")
            assert gdb.wait().function == "main"
        gdb.run("continue &")
        while not gdb.wait().ended:
            pass
    assert guest.stop().count("PASS hello") == 1


def test_what_gdb_asked_for_at_the_beginning_still_holds(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("tbreak task_sleep")
    gdb.go("run")
    forker = next(pid for pid, path in gdb.processes().items() if path == "/bin/forker")
    gdb.attach_process(forker)
    gdb.run("catch fork")
    assert gdb.cont().reason == "fork"
