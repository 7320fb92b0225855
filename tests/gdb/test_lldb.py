"""lldb as a client: what it asks for, and a kernel session from connecting to detaching."""

import re
from itertools import pairwise

import pytest

from xdbg.session.bundled import find_guest
from xdbg.testing import GdbSession, LldbError, LldbSession
from xdbg.testing.clients import LLDB_23


@pytest.fixture
def lldb(xdbg_serve):
    """lldb at the first sleep of a process of `tasks`, with the kernel's symbols."""
    command = LLDB_23.command()
    guest = xdbg_serve("tasks")
    with LldbSession(guest.address, file=find_guest("tasks").kernel, lldb=command) as session:
        assert "start.S" in session.run("frame info")
        session.run("breakpoint set -n task_sleep")
        session.run("continue")
        session.guest = guest
        yield session


def test_kernel_threads_break_points_and_registers(lldb):
    assert lldb.stop_reason == "breakpoint 1.1"
    assert lldb.backtrace()[:4] == ["task_sleep", "sys_sleep", "syscall", "on_syscall"]
    assert re.search(r"^\* thread #1: tid = 0x0001, 0xffffffff\w+ .*task_sleep", lldb.run("thread list"), re.MULTILINE)
    assert lldb.evaluate("lldb.process.GetProcessID()") == str(0x400001)
    registers = lldb.run("register read rip eflags cr3 xen_kernel_mode")
    assert "`task_sleep" in registers
    assert "xen_kernel_mode = 0x01" in registers
    lldb.run("register write rax 0x1234")
    assert "rax = 0x0000000000001234" in lldb.run("register read rax")
    lldb.run("thread step-inst")
    assert lldb.stop_reason == "instruction step into"
    lldb.run("thread step-out")
    assert (lldb.stop_reason, lldb.function) == ("step out", "sys_sleep")
    lldb.run("breakpoint delete -f")
    lldb.run("process detach")
    lldb.quit()
    with GdbSession(lldb.guest.address) as gdb:
        gdb.run_to_end()
    assert "PASS tasks" in lldb.guest.stop()


def test_memory_its_regions_and_a_watch_point(lldb):
    lldb.run("memory write `$sp-64` 0x41 0x42")
    assert "41 42" in lldb.run("memory read -c 2 `$sp-64`")
    with pytest.raises(LldbError, match="0x123400000000"):
        lldb.run("memory read 0x123400000000")
    assert re.match(r"\[0xffffffff\w+-0xffffffff\w+\) r-x", lldb.run("memory region $pc"))
    assert re.match(r"\[0xffffffff\w+-0xffffffff\w+\) rw-", lldb.run("memory region $sp"))
    assert lldb.run("memory region 0") == "[0x0000000000000000-0x0000000000400000) ---"
    assert "r-x /bin/counter" in lldb.run("memory region 0x401000")
    every = re.findall(r"^\[(0x\w+)-(0x\w+)\) ", lldb.run("memory region --all"), re.MULTILINE)
    assert all(one[1] == other[0] for one, other in pairwise(every))
    assert (every[0][0], every[-1][1]) == (f"{0:#018x}", f"{(1 << 64) - 1:#x}")
    lldb.run("breakpoint delete -f")
    lldb.run("watchpoint set expression -w write -s 8 -- &task->wake_ns")
    lldb.run("continue")
    assert (lldb.stop_reason, lldb.function) == ("watchpoint 1", "task_sleep")
    lldb.run("watchpoint delete -f")


def test_interrupt_and_the_end_of_the_domain(lldb):
    lldb.run("breakpoint delete -f")
    lldb.run("breakpoint set -n fail")
    lldb.start_running()
    lldb.interrupt()
    assert lldb.stop_reason == "signal SIGINT"
    assert "exited with status = 0" in lldb.run("continue")
    assert "PASS tasks" in lldb.guest.stop()
