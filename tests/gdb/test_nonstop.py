"""gdb in non-stop: threads stop and go on one by one while the domain runs."""

from pathlib import Path

import pytest

from xdbg.testing import GdbSession

KERNEL = "1"


@pytest.fixture
def separate(xdbg_serve):
    """The guest tasks, or only one of its programs without an end, where processes begin, and gdb in non-stop."""

    def start(*settings, only=""):
        guest = xdbg_serve("tasks", *(("--append", f"init=/bin/{only}") if only else ()))
        gdb = GdbSession(guest.address, settings=["non-stop on", *settings])
        sessions.append(gdb)
        gdb.guest = guest
        place = "schedule" if only else "task_sleep"
        gdb.run(f"tbreak {place}")
        assert gdb.cont().function == place
        return gdb

    sessions = []
    yield start
    for gdb in sessions:
        gdb.close()


def attach(gdb, program, which=0):
    """gdb's number of the inferior and of its thread."""
    pids = [pid for pid, path in gdb.processes().items() if Path(path).name == program]
    inferior = gdb.attach_process(pids[which])
    return inferior, gdb.evaluate("$_gthread")


def resume_all(gdb):
    gdb.run("continue -a &")


@pytest.mark.parametrize("setting", ["displaced-stepping auto", "displaced-stepping off"])
def test_processes_stop_by_themselves_while_the_domain_runs(separate, setting):
    gdb = separate(setting)
    one, first = attach(gdb, "counter", 0)
    other, second = attach(gdb, "counter", 1)
    assert gdb.states() == {KERNEL: "stopped", first: "stopped", second: "stopped"}
    gdb.run("break square")
    resume_all(gdb)
    hits = [gdb.wait(), gdb.wait()]
    assert {stop.payload["thread-id"] for stop in hits} == {first, second}
    assert gdb.states() == {KERNEL: "running", first: "stopped", second: "stopped"}
    time = int(gdb.monitor("when").split()[-2])
    gdb.select(one)
    x = gdb.number("x")
    for step in range(1, 4):
        assert gdb.cont().payload["thread-id"] == first
        assert gdb.number("x") == x + step
        assert gdb.states() == {KERNEL: "running", first: "stopped", second: "stopped"}
    assert int(gdb.monitor("when").split()[-2]) > time
    assert gdb.finish().function == "compute"
    assert gdb.next().payload["thread-id"] == first
    assert gdb.backtrace() == ["compute", "count", "main"]
    gdb.select(other)
    assert gdb.backtrace()[0] == "square"
    gdb.run("set variable x = x + 1")
    gdb.run("set variable $eax = 7")
    gdb.run("set variable x = x - 1")
    gdb.run("delete")
    resume_all(gdb)
    ends = [gdb.wait() for _ in range(3)]
    assert all(stop.ended for stop in ends)
    assert "PASS tasks" in gdb.guest.stop(), "nobody was disturbed"


def test_interrupt_one_thread_and_all(separate):
    gdb = separate(only="spin")
    _, spin = attach(gdb, "spin")
    resume_all(gdb)
    assert gdb.states() == {KERNEL: "running", spin: "running"}
    gdb.run("interrupt")
    stop = gdb.wait()
    assert (stop.payload["thread-id"], stop.signal) == (spin, "0")
    assert gdb.monitor("why").startswith("the debugger stopped process 1 (/bin/spin)")
    assert gdb.monitor("why").startswith("the debugger stopped process 1 (/bin/spin)")
    assert gdb.states() == {KERNEL: "running", spin: "stopped"}
    turns = gdb.number("turns")
    before = gdb.instructions
    while gdb.instructions == before:
        pass
    assert gdb.number("turns") == turns
    gdb.run("interrupt -a")
    assert gdb.wait().payload["thread-id"] == KERNEL
    count = gdb.instructions
    assert gdb.instructions == count, "a held vcpu executes nothing"
    gdb.run("continue &")
    assert gdb.states() == {KERNEL: "stopped", spin: "running"}
    assert gdb.instructions == count, "and its processes wait for it"
    gdb.select(1)
    gdb.run("continue &")
    gdb.run("break schedule")
    assert gdb.wait().function == "schedule"
    assert gdb.monitor("why").startswith("breakpoint of the kernel (vcpu 0) at schedule")


def test_memory_and_breakpoints_while_everything_runs(separate):
    gdb = separate(only="spin")
    _, spin = attach(gdb, "spin")
    resume_all(gdb)
    first = gdb.number("turns")
    while gdb.number("turns") == first:
        pass
    gdb.run("interrupt")
    assert gdb.wait().payload["thread-id"] == spin
    gdb.run("watch turns if turns % 64 == 0")
    stop = gdb.cont()
    assert (stop.reason, stop.payload["thread-id"]) == ("watchpoint-trigger", spin)
    assert gdb.number("turns") % 64 == 0
    gdb.run("delete")
    gdb.run("detach")
    gdb.select(1)
    gdb.run("tbreak schedule")
    assert gdb.wait().function == "schedule"


def test_step_of_the_kernel_while_processes_stand(separate):
    gdb = separate()
    attach(gdb, "counter")
    gdb.select(1)
    lines = {gdb.next().line for _ in range(4)}
    assert len(lines) == 4
    count = gdb.instructions
    gdb.stepi()
    assert gdb.instructions == count + 1
    gdb.run("break schedule")
    functions = {gdb.cont().function for _ in range(3)}
    assert functions == {"schedule"}


def test_gdb_that_stops_all_threads_by_itself(xdbg_serve):
    """`maint set target-non-stop on`: the user's all-stop over our non-stop."""
    guest = xdbg_serve("tasks")
    with GdbSession() as gdb:
        gdb.run("maint set target-non-stop on")
        gdb.mi(f"-target-select extended-remote {guest.address}")
        gdb.drain()
        gdb.run("tbreak task_sleep")
        assert gdb.cont().function == "task_sleep"
        _, first = attach(gdb, "counter", 0)
        _, second = attach(gdb, "counter", 1)
        gdb.run("set schedule-multiple on")
        gdb.run("break square")
        hit = set()
        for _ in range(6):
            stop = gdb.cont()
            hit.add(stop.payload["thread-id"])
            assert set(gdb.states().values()) == {"stopped"}
        assert hit == {first, second}
        gdb.run("delete")
        assert gdb.next().source == "return result;"
        gdb.start_running()
        assert gdb.interrupt().signal == "SIGINT"


def test_gdb_that_vanishes_leaves_the_domain_standing(xdbg_serve):
    guest = xdbg_serve("tasks")
    with GdbSession(guest.address, settings=["non-stop on"]) as gdb:
        gdb.run("tbreak task_sleep")
        gdb.cont()
        attach(gdb, "counter")
        gdb.run("break square")
        resume_all(gdb)
        gdb.wait()
    with GdbSession(guest.address) as gdb:
        assert [*gdb.states().values()] == ["stopped"]
        count = gdb.instructions
        assert gdb.instructions == count
        assert gdb.run_to_end().reason == "exited-normally"
    assert "PASS tasks" in guest.stop()


def test_detach_of_all_lets_the_domain_run_on(xdbg_serve):
    guest = xdbg_serve("hello")
    with GdbSession(guest.address, settings=["non-stop on"]) as gdb:
        gdb.run("detach")
        gdb.quit()
    with GdbSession(guest.address, settings=["non-stop on"]) as gdb:
        gdb.run("continue &")
        assert gdb.wait().reason == "exited-normally"
    assert "PASS hello" in guest.stop()


def test_end_and_crash_of_the_domain(xdbg_serve):
    guest = xdbg_serve("crash")
    with GdbSession(guest.address, settings=["non-stop on"]) as gdb:
        assert gdb.cont().signal == "SIGABRT"
        assert gdb.cont().reason == "exited-signalled"


def test_gdb_that_is_killed_in_the_middle_of_a_run_leaves_a_domain_that_can_be_debugged(separate):
    gdb = separate()
    _, thread = attach(gdb, "counter")
    gdb.run("break square")
    gdb.run("watch -location total")
    resume_all(gdb)
    assert gdb.wait().payload["thread-id"] == thread
    gdb.close()  # by SIGKILL: nothing is detached, the kernel's threads run, one stop may not be confirmed
    with GdbSession(gdb.guest.address) as again:
        assert gdb.guest.alive
        before = again.instructions
        again.stepi()
        assert again.instructions > before
        again.run("tbreak task_sleep")
        assert again.cont().function == "task_sleep"
        while not again.cont().ended:
            pass
    assert gdb.guest.errors in ("", "xdbg: the domain starts anew\n")
