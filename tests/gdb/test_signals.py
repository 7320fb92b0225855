"""Signals of the guest's processes: where they stop, what gdb shows of them, and what it makes of them."""

from contextlib import suppress

import pytest

from xdbg.testing import GdbError, GdbSession

SEGV, FPE, ILL, TRAP = 11, 8, 4, 5
KERNEL = 0x80


@pytest.fixture
def fault(processes, pids_of) -> GdbSession:
    """The program that writes to address 0, attached before its first instruction."""
    processes.attach_process(pids_of(processes, "fault")[0])
    return processes


def siginfo(gdb):
    address = gdb.number("$_siginfo._sifields._sigfault.si_addr")
    return gdb.number("$_siginfo.si_signo"), gdb.number("$_siginfo.si_code"), address


def test_a_fault_stops_at_its_instruction_before_the_kernel_acts(fault):
    stop = fault.cont()
    assert (stop.reason, stop.signal) == ("signal-received", "SIGSEGV")
    assert stop.source == "*(volatile int *)where = what;"
    assert fault.backtrace() == ["store", "find_and_store", "main"]
    assert siginfo(fault) == (SEGV, 1, 0)
    fault.run("set stack-cache off")  # gdb forgets what it read of the inferior that it resumes, not of the others
    fault.select(1)
    assert fault.backtrace()[:2] == ["task_signal", "on_exception"]
    with pytest.raises(GdbError):
        siginfo(fault)
    fault.select(2)
    stop = fault.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGSEGV")
    fault.select(1)
    assert fault.run_to_end().reason == "exited-normally"
    console = fault.guest.stop()
    assert "fault (pid 5): signal 11, vector 14 at 401012, address 0" in console
    assert "init: all ended as they should" in console


def test_every_kind_of_fault_has_its_signal_code_and_address(fault):
    fault.run("tbreak main")
    fault.cont()
    seen = {}
    for kind in ("divide(0)", "illegal()", "write_text()", "not_canonical()", "breakpoint()"):
        with suppress(GdbError):
            fault.run(f"call {kind}")
        assert "(/bin/fault) got SIG" in fault.monitor("why")
        seen[kind] = (*siginfo(fault), fault.number("$pc"), fault.instruction.split()[0])
    pc = {kind: row[3] for kind, row in seen.items()}
    assert [row[:3] + row[4:] for row in seen.values()] == [
        (FPE, 1, pc["divide(0)"], "idivl"),
        (ILL, 2, pc["illegal()"], "ud2"),
        (SEGV, 2, fault.number("&write_text"), "mov"),
        (SEGV, KERNEL, 0, "mov"),
        (TRAP, KERNEL, 0, "nop"),
    ]


def test_without_the_signal_the_instruction_is_tried_again(fault):
    counts = []
    for _ in range(3):
        stop = fault.go("signal 0") if counts else fault.cont()
        assert (stop.signal, stop.function) == ("SIGSEGV", "store")
        counts.append(fault.instructions)
    assert counts == sorted(set(counts))
    fault.run("set variable $rax = $rsp - 64")
    fault.run("handle SIGSEGV nopass")
    stop = fault.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "051")


def test_siginfo_and_registers_can_be_changed_at_a_signal(fault):
    fault.cont()
    fault.run("set variable $_siginfo._sifields._sigfault.si_addr = 0x1234")
    assert siginfo(fault) == (SEGV, 1, 0x1234)
    fault.run("set variable $pc = $pc + 2")
    assert fault.go("signal 0").payload["exit-code"] == "051"


def test_another_signal_may_take_its_place(fault):
    fault.cont()
    stop = fault.go("signal SIGBUS")
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGBUS")


def test_signals_that_gdb_does_not_want_do_not_stop(fault):
    fault.run("handle SIGSEGV nostop noprint pass")
    count = fault.instructions
    stop = fault.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGSEGV")
    assert fault.instructions > count


def test_step_and_next_run_into_a_fault(fault):
    fault.run("tbreak find_and_store")
    fault.cont()
    while not (stop := fault.step()).signal:
        pass
    assert (stop.signal, stop.function) == ("SIGSEGV", "store")


def test_a_signal_of_gdbs_own_is_given_to_the_process(counter):
    counter.run("tbreak compute")
    counter.cont()
    stop = counter.go("signal SIGUSR1")
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGUSR1")
    counter.select(1)
    counter.run_to_end()
    assert "status 138 WRONG" in counter.guest.stop()


def test_a_signal_that_can_not_be_given_is_said_on_the_console(counter):
    counter.run("break compute")
    counter.cont()
    for signal in ("SIGCHLD", "SIGSTOP"):
        assert counter.go(f"signal {signal}").function == "compute"
        assert f"can't give {signal} to process" in counter.printed
    counter.run("detach")
    counter.select(1)
    counter.run("tbreak task_exit")
    assert counter.go("signal SIGINT").function == "task_exit"
    assert "A kernel gets no signals: SIGINT was dropped." in counter.printed


def test_a_process_detached_at_its_signal_gets_it(fault):
    fault.cont()
    fault.run("detach")
    fault.select(1)
    assert fault.cont().reason == "exited-normally"
    assert "init: all ended as they should" in fault.guest.stop()


def test_a_function_may_be_called_at_a_signal_which_is_then_still_due(fault):
    fault.cont()
    assert fault.number("divide(25)") == 4
    assert (fault.backtrace()[0], fault.instruction.split()[0]) == ("store", "mov")
    stop = fault.cont()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGSEGV")


def test_a_debugger_in_the_guest_hears_of_a_signal_behind_gdb(processes, pids_of):
    processes.attach_process(pids_of(processes, "debuggee")[0])
    traps = []
    while not (stop := processes.cont()).ended:
        assert (stop.signal, stop.function) == ("SIGTRAP", "step")
        traps.append(siginfo(processes)[1])
    assert traps == [KERNEL, 2] * 5
    processes.select(1)
    assert processes.run_to_end().reason == "exited-normally"
    console = processes.guest.stop()
    assert "debugger: hit 5 at step" in console
    assert "init: all ended as they should" in console


def test_a_signal_of_gdbs_own_arrives_after_the_end_of_another_process(counter, pids_of):
    counter.attach_process(pids_of(counter, "fault")[0])
    counter.run("handle SIGSEGV nostop noprint pass")
    assert counter.cont().payload["signal-name"] == "SIGSEGV"
    counter.select(2)
    stop = counter.go("signal SIGTERM")
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGTERM")
