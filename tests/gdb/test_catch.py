"""The hypervisor's events caught at gdb's prompt."""

import re

import pytest


def test_each_event_stops_with_its_signal_and_one_line_on_the_console(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    for event in ("hypercall mmuext_op/new_user_baseptr", "upcall"):
        gdb.monitor(f"tcatch {event}")
    gdb.monitor("catch trap #PF user")
    stop = gdb.cont()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGTRAP")
    printed = gdb.printed
    assert gdb.instruction == "syscall"
    (line,) = [line for line in printed.splitlines() if line.startswith("catch ")]
    assert line.startswith("catch 1: hypercall mmuext_op(uops=[{cmd=NEW_BASEPTR, ")
    assert line.partition(": ")[2] in gdb.monitor("why")
    assert gdb.backtrace()[-1] == "main"
    gdb.cont()
    assert re.search(r"catch 2: upcall for pending ports \d+ \(VIRQ TIMER\); it interrupted user mode", gdb.printed)
    assert gdb.run("info symbol $pc").startswith("entry_event in ")
    stop = gdb.cont()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGSEGV")
    assert "cr2 0x0" in gdb.monitor("why")
    assert gdb.monitor("catch").splitlines()[1:] == ["     3         1  trap #PF user"]
    assert gdb.run_to_end().reason == "exited-normally"


def test_a_trap_of_a_process_stops_that_inferior_before_its_kernel_knows(processes, pids_of):
    (pid,) = pids_of(processes, "fault")
    processes.attach_process(pid)
    processes.monitor(f"catch trap pf process {pid}")
    processes.run("set schedule-multiple on")
    stop = processes.cont()
    assert (stop.signal, processes.inferior) == ("SIGSEGV", 2)
    assert stop.function == "store"
    count = processes.instructions
    assert "catch 1" in processes.monitor("why")
    assert processes.stepi().signal == "SIGSEGV", "what the kernel makes of it: the signal, before it acts"
    assert processes.instructions > count
    assert "catch 1" not in processes.monitor("why")


def test_a_stop_at_a_hypercall_can_be_stepped_and_changed(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "shutdown")
    gdb.monitor("catch crash")
    stop = gdb.cont()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGTRAP")
    assert "hypercall sched_op(SHUTDOWN, arg={reason=CRASH})" in gdb.printed
    assert "shut down" not in gdb.monitor("info domain")
    gdb.run("set {int}$rsi = 0")
    assert gdb.cont().reason == "exited-normally"


def test_why_explains_the_other_stops_too(processes, pids_of):
    gdb = processes
    assert gdb.monitor("why").startswith("breakpoint of the kernel (vcpu 0) at task_sleep <0x")
    gdb.stepi()
    assert gdb.monitor("why").startswith("a step of the kernel")
    gdb.run("watch current")
    gdb.cont()
    first, second, where = gdb.monitor("why").splitlines()
    assert first.startswith("watch point of the kernel (vcpu 0): current <0x")
    assert re.match(r"by mov\w* .* at switch_to\+0x\w+ <0x\w+>, which has been executed", second)
    assert where.startswith("vcpu 0 is at switch_to")
    gdb.run("delete")
    place = gdb.number("&task_sleep")
    gdb.attach_process(pids_of(gdb, "counter")[1])
    gdb.run("set schedule-multiple on")
    gdb.run(f"break *{place}")
    stop = gdb.cont()
    assert (stop.reason, stop.function) == ("signal-received", "syscall")
    assert re.search(r"Breakpoint of process \d+ in its kernel, at 0x", gdb.printed)
    assert re.match(r"breakpoint of process \d+ \(/bin/counter\) in its kernel, at task_sleep <0x", gdb.monitor("why"))
    gdb.run("delete")
    gdb.start_running()
    gdb.interrupt()
    assert gdb.monitor("why").startswith("the debugger interrupted the guest")


@pytest.mark.parametrize("guest", ["traps", "tick", "tasks"])
def test_catching_everything_changes_nothing(xdbg_gdb, undebugged, guest):
    gdb = xdbg_gdb(guest)
    for event in ("trap kernel", "upcall", "trap user", "hypercall set_timer_op", "hypercall iret", "crash"):
        gdb.monitor(f"catch {event}")
    for _ in range(15):
        assert not gdb.cont().ended
    gdb.monitor("uncatch all")
    assert gdb.cont().ended
    plain = undebugged(guest)
    assert gdb.instructions == plain.instructions
    assert gdb.guest.stop() == plain.console


def test_what_can_not_be_caught_is_one_line(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    for line in ("catch nonsense", "catch hypercall nonsense", "catch trap 256", "tcatch", "uncatch 7", "uncatch x"):
        assert len(gdb.monitor(line).splitlines()) == 1
    assert gdb.monitor("catch") == "no catches\n"
    assert "catch trap [VECTOR|NAME]" in gdb.monitor("help catch")
