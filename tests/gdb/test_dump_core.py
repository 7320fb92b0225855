"""A core of the domain, opened by gdb: it shows what the live one showed."""

import pytest

from xdbg.session.bundled import find_guest
from xdbg.testing import GdbSession

PLACES = (
    "$rip",
    "$rsp",
    "$rbp",
    "$rax",
    "$r15",
    "$eflags",
    "$cs",
    "$fs_base",
    "$mxcsr",
    "current",
    "tasks[3].regs.rip",
)


@pytest.fixture
def opened():
    """Opens a core with the symbols of a guest."""
    sessions = []

    def make(guest, core):
        gdb = GdbSession()
        sessions.append(gdb)
        gdb.run(f"file {find_guest(guest).kernel}")
        gdb.run(f"core-file {core}")
        return gdb

    yield make
    for gdb in sessions:
        gdb.close()


def test_registers_memory_and_backtrace_are_those_of_the_live_domain(xdbg_gdb, opened, tmp_path):
    live = xdbg_gdb("tasks", "--dump-dir", str(tmp_path))
    live.run("break task_sleep if task->pid == 3")
    live.cont()
    assert live.monitor("dump-core tasks.core").startswith("tasks.core: 32768 pages")
    core = opened("tasks", tmp_path / "tasks.core")
    assert core.backtrace() == live.backtrace()
    for place in PLACES:
        assert core.evaluate(place) == live.evaluate(place), place
    assert core.run("x/64gx $rsp") == live.run("x/64gx $rsp")
    assert core.run("x/40i 0x401000") == live.run("x/40i 0x401000")  # the process's own text
    assert core.evaluate("*start_info") == live.evaluate("*start_info")
    assert core.evaluate("*shared_info") == live.evaluate("*shared_info")
    assert core.evaluate("tasks") == live.evaluate("tasks")
    assert "LWP 1" in core.run("info threads")
    assert "File exists" in live.monitor("dump-core tasks.core")
    assert "plain name" in live.monitor("dump-core ../tasks.core")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tasks.core"]


def test_a_crashed_domain_is_read_after_its_death(xdbg_gdb, opened, tmp_path):
    live = xdbg_gdb("crash", "--append", "bad-user-stack", "--dump-dir", str(tmp_path))
    assert live.cont().signal == "SIGABRT"
    assert live.evaluate("$xen_kernel_mode") == "false"  # where the cause is
    live.monitor("dump-core crash.core")
    core = opened("crash", tmp_path / "crash.core")
    assert "SIGABRT" in core.printed
    assert core.instruction == live.instruction == "ud2"
    assert core.backtrace() == live.backtrace()
