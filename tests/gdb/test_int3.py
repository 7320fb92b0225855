"""Two owners of int3: the guest's own is the guest's, whatever gdb does beside it."""

from xdbg.testing import GdbSession


def test_int3_of_the_guest_does_not_stop_gdb(xdbg_gdb):
    gdb = xdbg_gdb("int3")
    assert gdb.cont().reason == "exited-normally"
    assert "PASS int3" in gdb.guest.stop()


def test_gdb_breakpoint_on_the_guests_int3_comes_before_it(xdbg_gdb, step_to):
    gdb = xdbg_gdb("int3")
    gdb.run("break *(kernel_after - 1)")
    gdb.run("break *(user_after - 1)")
    for mode in ("kernel", "user"):
        stop = gdb.cont()
        assert stop.reason == "breakpoint-hit"
        assert gdb.instruction == "int3"
        assert gdb.number("$xen_kernel_mode") == (mode == "kernel")
    assert gdb.cont().reason == "exited-normally"
    assert "PASS int3" in gdb.guest.stop()


def test_guests_handler_of_int3_can_be_debugged(xdbg_gdb):
    gdb = xdbg_gdb("int3")
    gdb.run("break breakpoint")
    gdb.cont()
    assert "kernel_int3" in gdb.backtrace()
    assert gdb.number("regs->rip") == gdb.number("&kernel_after")
    gdb.cont()
    assert gdb.number("regs->rip") == gdb.number("&user_after")
    assert gdb.cont().reason == "exited-normally"


def test_debugger_in_the_guest_works_beside_gdb_in_the_same_process(processes, pids_of):
    processes.attach_process(pids_of(processes, "debuggee")[0])
    processes.run("break step")
    hits, traps = [], 0
    while len(hits) < 8:
        stop = processes.cont()
        if stop.reason == "breakpoint-hit":
            hits.append(processes.number("n"))
        else:
            # Its int3 or its step: told here first, and passed on although gdb resumes without a signal.
            assert (stop.signal, stop.function) == ("SIGTRAP", "step")
            traps += 1
    assert (hits, traps) == (list(range(8)), 10)
    processes.run("delete")
    processes.run("detach")
    processes.select(1)
    assert processes.run_to_end().reason == "exited-normally"
    console = processes.guest.stop()
    assert "debugger: hit 5 at step" in console
    assert "init: all ended as they should" in console


def test_debugger_in_the_guest_is_debugged_while_it_debugs(processes, pids_of):
    processes.attach_process(pids_of(processes, "debugger")[0])
    processes.run("break step_over")
    for _ in range(5):
        stop = processes.cont()
        assert (stop.reason, stop.function) == ("breakpoint-hit", "step_over")
        assert processes.number("regs->rip") == processes.number("address") + 1
    stop = processes.cont()
    assert (stop.reason, stop.payload["exit-code"]) == ("exited", "05")


def test_debugger_in_the_guest_sees_no_breakpoint_of_gdb(processes, pids_of):
    processes.run("set breakpoint always-inserted on")
    debuggee, debugger = pids_of(processes, "debuggee")[0], pids_of(processes, "debugger")[0]
    processes.attach_process(debuggee)
    processes.run("break *step")
    processes.attach_process(debugger)
    processes.run("break poke_byte if byte == 0xcc")
    processes.run("set schedule-multiple on")
    while processes.cont().function != "poke_byte":
        pass
    processes.run("up")
    assert processes.number("byte") != 0xCC


def test_debugger_without_breakpoint_packets_writes_int3_itself(xdbg_serve):
    with GdbSession() as gdb:
        gdb.run("set remote software-breakpoint-packet off")
        gdb.run("set remote hardware-breakpoint-packet off")
        gdb.mi(f"-target-select extended-remote {xdbg_serve('tick').address}")
        gdb.run("break main")
        assert gdb.cont().function == "main"
        gdb.run("break timer_stopped")
        assert gdb.cont().function == "timer_stopped"
        gdb.run("delete")
        assert gdb.cont().reason == "exited-normally"
