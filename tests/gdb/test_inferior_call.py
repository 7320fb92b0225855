"""gdb calls functions of the guest, on the guest's own stack."""

import pytest

from xdbg.testing import GdbError


def test_function_of_the_running_process(counter):
    counter.run("tbreak compute")
    counter.cont()
    frames, registers = counter.backtrace(), counter.run("info registers")
    assert counter.evaluate("square(12)") == "144"
    assert counter.run("call compute(5)").endswith("= 9\n")
    assert (counter.backtrace(), counter.run("info registers")) == (frames, registers)


def test_breakpoint_in_a_called_function_stops_there(counter):
    counter.run("tbreak compute")
    counter.cont()
    counter.run("break square if x == 77")
    with pytest.raises(GdbError, match="stopped while in a function called from GDB"):
        counter.run("print compute(77)")
    assert counter.backtrace()[:2] == ["square", "compute"]
    assert "<function called from gdb>" in counter.run("backtrace")
    assert counter.finish().function == "compute"


def test_process_goes_on_as_if_nothing_had_been_called(counter):
    counter.run("tbreak compute")
    counter.cont()
    for x in range(5):
        assert counter.number(f"square({x})") == x * x
    counter.run("detach")
    counter.select(1)
    assert counter.run_to_end().reason == "exited-normally"
    assert "init: all ended as they should" in counter.guest.stop()


def test_function_that_makes_a_system_call(counter):
    counter.run("tbreak compute")
    counter.cont()
    assert counter.number("syscall(SYS_getpid, 0, 0, 0, 0)") == 2


def test_function_of_the_kernel(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("tbreak task_sleep")
    gdb.cont()
    assert gdb.number("task_find(7)") == gdb.number("&tasks[6]")
    assert gdb.number("task_find(4711)") == 0
    assert gdb.run_to_end().reason == "exited-normally"
    assert "PASS tasks" in gdb.guest.stop()
