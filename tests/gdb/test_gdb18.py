"""A gdb five years newer than the system's: what it asks in other ways, and that all the rest works too."""

import pytest

from xdbg.testing import GdbSession
from xdbg.testing.clients import GDB_18


@pytest.fixture
def tasks(xdbg_gdb) -> GdbSession:
    return xdbg_gdb("tasks", gdb=GDB_18.command())


def test_kernel_from_the_first_instruction_to_detaching(tasks):
    assert tasks.run("info symbol $pc").startswith("_start in section .text")
    tasks.run("tbreak task_sleep")
    stop = tasks.cont()
    assert (stop.function, stop.source) == ("task_sleep", "task->state = TASK_SLEEPING;")
    assert tasks.backtrace()[:4] == ["task_sleep", "sys_sleep", "syscall", "on_syscall"]
    assert tasks.number("$rip") == stop.address
    assert tasks.number("$cr3") & 0xFFF == 0
    assert tasks.evaluate("$xen_kernel_mode") == "true"
    tasks.run("up")
    assert tasks.evaluate("task->name").startswith('"counter')
    tasks.run("down")
    assert tasks.next().source == "task->wake_ns = wake_ns;"
    assert tasks.stepi().function == "task_sleep"
    assert tasks.finish().function == "sys_sleep"
    assert tasks.number("task->wake_ns") > tasks.instructions
    tasks.run("set variable task->wake_ns = task->wake_ns + 1")
    tasks.run("detach")
    tasks.quit()
    with GdbSession(tasks.guest.address, gdb=GDB_18.command()) as again:
        again.run_to_end()
    assert "PASS tasks" in tasks.guest.stop()


def test_packets_that_came_after_gdb_13_are_used(tasks):
    tasks.run("watch *(int *)&current")
    tasks.run("watch *((int *)&current + 1)")
    tasks.cont()
    assert tasks.printed.count("Hardware watchpoint ") == 2
    for packet in ("binary-upload", "fetch-exec-and-args", "single-inferior-argument-feature", "verbose-resume"):
        assert "currently enabled" in tasks.run(f"show remote {packet}-packet")
    assert tasks.number("current->pid") == 1
    assert tasks.run("show remote exec-file") == 'The remote exec-file is "/boot/tasks.elf".\n'


def test_process_in_a_second_inferior(tasks):
    tasks.run("tbreak task_sleep")
    tasks.cont()
    tasks.attach_process(3)
    assert "target:/bin/counter" in tasks.run("info inferiors")
    tasks.run("break square")
    assert tasks.cont().function == "square"
    assert tasks.backtrace() == ["square", "compute", "count", "main"]
    tasks.run("delete")
    tasks.run("watch total")
    stop = tasks.cont()
    assert (stop.reason, stop.function) == ("watchpoint-trigger", "count")
    tasks.run("delete")
    tasks.start_running()
    assert tasks.interrupt().signal == "SIGINT"
    tasks.run("detach")
    tasks.select(1)
    assert tasks.run_to_end().reason == "exited-normally"
    assert "PASS tasks" in tasks.guest.stop()


def test_ctrl_c_in_a_kernel_that_loops(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "loop", gdb=GDB_18.command())
    for _ in range(3):
        gdb.start_running()
        assert gdb.interrupt().signal == "SIGINT"
    count = gdb.instructions
    gdb.stepi()
    assert gdb.instructions == count + 1
