"""How a domain ends, and what gdb still sees of it."""

import pytest

CRASHES = [
    "shutdown",
    "bad-stack",
    "bad-user-stack",
    "no-handler",
    "null-jump-no-handler",
    "iret-no-user-tables",
    "stack-overflow",
    "garbage-crash",
]


def test_power_off_is_an_exit(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    assert gdb.cont().reason == "exited-normally"
    assert gdb.instructions > 0


@pytest.mark.parametrize("way", CRASHES)
def test_crash_is_a_stop_with_everything_readable_then_the_end(xdbg_gdb, way):
    gdb = xdbg_gdb("crash", "--append", way)
    stop = gdb.cont()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGABRT")
    assert gdb.number("$rip") == stop.address
    assert gdb.evaluate("(char *)start_info->magic").endswith('"xen-3.0-x86_64"')
    assert "crash" in gdb.monitor("info domain").lower()
    assert "rip" in gdb.monitor("info vcpu")
    stop = gdb.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGABRT")
    assert f"crashing by {way}" in gdb.guest.stop()


def test_backtrace_of_a_crash_names_the_culprit(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "no-handler")
    gdb.cont()
    assert gdb.backtrace()[:2] == ["no_handler", "main"]
    assert gdb.instruction == "ud2"


def test_jump_to_nowhere_is_seen_in_the_guests_handler(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "null-jump")
    gdb.run("break fail")
    gdb.cont()
    assert "null_jump" in gdb.backtrace()


def test_domain_that_crashed_can_not_be_stepped_on(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "no-handler")
    gdb.cont()
    count = gdb.instructions
    assert gdb.go("stepi").ended
    assert gdb.instructions == count


def test_process_of_a_domain_that_crashes_ends_too(processes, pids_of):
    processes.attach_process(1)
    processes.select(1)
    processes.run("set variable $rip = crash")
    processes.run("set schedule-multiple on")
    assert processes.cont().signal == "SIGABRT"
    processes.select(2)
    assert "main" in processes.backtrace()
    ends = [processes.cont().reason]
    processes.run("inferior 2")
    ends.append(processes.cont().reason)
    assert ends == ["exited-signalled"] * 2
