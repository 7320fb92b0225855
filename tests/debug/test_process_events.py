"""Forks, execs, spawns and ends of attached processes, and the signals at which they stop."""

from collections.abc import Callable

import pytest

from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.registers import BY_NAME
from xdbg.rsp.replies import Execed, ExitReply, Forked, SignalledReply, StopEvent, StopReply, SwBreak
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, TargetError
from xdbg.rsp.threadid import EVERY_THREAD, Thread

Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
SOFTWARE = BreakpointKind.SOFTWARE
INIT = Thread(1, 1)


class Guest:
    """The kernel `tasks` with its first process attached, before its first instruction."""

    def __init__(self, make: Make, program: str = "") -> None:
        self.guest = make("tasks", f"init=/bin/{program}" if program else "")
        self.target = self.guest.target
        self.guest.brk("schedule")
        assert isinstance(self.guest.cont(), StopReply)
        self.guest.clear("schedule")
        self.target.attach(1)
        self.tell()

    def tell(self, *, fork: bool = True, execs: bool = True) -> None:
        self.target.events.report_process_events(fork=fork, execs=execs)

    def cont(self, signal: int = 0, thread: Thread | None = None) -> StopEvent | None:
        action = ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE)
        if thread is None:
            self.guest.resume(action)
        else:
            self.guest.resume(ResumeAction(thread.pattern(), ResumeKind.CONTINUE, signal), action)
        return self.guest.run()

    def stop(self, signal: int = 0, thread: Thread | None = None) -> StopReply:
        event = self.cont(signal, thread)
        assert isinstance(event, StopReply)
        return event

    def register(self, thread: Thread, name: str) -> int:
        return int.from_bytes(self.target.read_register(thread, BY_NAME[name].number), "little")

    def at(self, thread: Thread, name: str) -> int:
        path = self.target.exec_file(thread.pid)
        base = self.target.inferiors.process(thread.pid).load_base
        return SymbolTable.from_elf(self.target.profile.file(path) or b"", bias=base).address(name)

    def word(self, thread: Thread, name: str) -> int:
        return int.from_bytes(self.target.read_memory(thread, self.at(thread, name), 4), "little")

    def names(self) -> dict[int, str]:
        return {info.thread.pid: info.name for info in self.target.threads() if info.thread.pid != KERNEL_PID}


def test_a_fork_stops_the_parent_with_the_child_attached_and_whole(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    stop = guest.stop()
    child = Thread(2, 2)
    assert (stop.signal, stop.thread, stop.reasons) == (Signal.TRAP, INIT, (Forked(child),))
    assert guest.names() == {1: "forker", 2: "forker"}
    assert (guest.register(INIT, "rax"), guest.register(child, "rax")) == (2, 0)
    assert guest.register(INIT, "cr3") != guest.register(child, "cr3")
    for name in ("rip", "rsp", "rbp", "rbx", "eflags", "cs", "mxcsr"):
        assert guest.register(INIT, name) == guest.register(child, name)
    address = guest.at(child, "value")
    guest.target.write_memory(child, address, (100).to_bytes(4, "little"))
    assert (guest.word(INIT, "value"), guest.word(child, "value")) == (1, 100)
    for thread in (INIT, child):
        guest.target.insert_breakpoint(thread, SOFTWARE, guest.at(thread, "getpid"))
    stops = [guest.cont() for _ in range(3)]
    assert stops[0].reasons == (Forked(Thread(3, 3)),)
    assert (stops[1].thread, stops[1].reasons) == (child, (SwBreak(),))
    assert stops[2] == ExitReply(106, 2)


def test_an_exec_is_told_with_the_program_in_place_and_its_points_gone(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.stop()
    guest.target.detach(2)
    guest.stop()
    child = Thread(3, 3)
    guest.target.insert_breakpoint(child, SOFTWARE, guest.at(child, "_start"))
    stop = guest.stop()
    assert (stop.signal, stop.thread, stop.reasons) == (Signal.TRAP, child, (Execed("/bin/counter"),))
    assert guest.names() == {1: "forker", 3: "counter"}
    assert guest.target.exec_file(3) == "/bin/counter"
    assert guest.register(child, "rip") == guest.at(child, "_start")
    assert len(guest.target.auxv(child)) > 0
    assert len(guest.target.breakpoints) == 0
    guest.target.insert_breakpoint(child, SOFTWARE, guest.at(child, "square"))
    stop = guest.stop()
    assert (stop.thread, stop.reasons, guest.register(child, "rdi")) == (child, (SwBreak(),), 1)


def test_a_spawn_is_a_fork_and_then_an_exec_before_the_first_instruction(bundled: Make) -> None:
    guest = Guest(bundled)
    child = Thread(2, 2)
    assert guest.stop().reasons == (Forked(child),)
    count = guest.guest.count
    stop = guest.stop()
    assert (stop.thread, stop.reasons, guest.guest.count) == (child, (Execed("/bin/counter"),), count)
    assert guest.register(child, "rip") == guest.at(child, "_start")
    assert guest.register(child, "rbp") == 0


def test_an_exec_waits_until_its_process_is_resumed(bundled: Make) -> None:
    guest = Guest(bundled)
    assert guest.stop().reasons == (Forked(Thread(2, 2)),)
    only_parent = guest.guest.cont(INIT)
    assert only_parent.reasons == (Forked(Thread(3, 3)),)
    for pid in (2, 3):
        stop = guest.stop()
        assert (stop.thread, stop.reasons) == (Thread(pid, pid), (Execed("/bin/counter"),))
    guest.target.detach(2)
    assert guest.stop().reasons == (Forked(Thread(4, 4)),)
    guest.target.detach(4)
    assert guest.stop().reasons == (Forked(Thread(5, 5)),)


def test_a_client_that_takes_no_such_events_is_not_bothered(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.tell(fork=False, execs=False)
    assert guest.cont() == ExitReply(0, KERNEL_PID)
    assert guest.names() == {1: "forker"}


def test_a_parent_that_is_not_resumed_makes_children_unnoticed(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.guest.brk("poweroff")
    assert isinstance(guest.guest.cont(guest.guest.kernel), StopReply)
    assert guest.names() == {1: "forker"}


def test_a_step_onto_the_place_of_an_exit_keeps_the_status(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.stop()
    guest.target.detach(1)
    guest.guest.brk("sys_exit")
    assert isinstance(guest.cont(), StopReply)
    guest.guest.clear("sys_exit")
    while guest.guest.where() != "task_exit":
        guest.guest.step()
    stops = [guest.guest.step() for _ in range(3)]
    assert all(stop.thread == guest.guest.kernel for stop in stops)
    assert guest.cont() == ExitReply(7, 2)


def test_a_step_onto_the_place_of_a_signal_stops_for_it_next(bundled: Make) -> None:
    guest = Guest(bundled, "fault")
    guest.guest.brk("signal_of")
    assert guest.stop().thread == guest.guest.kernel
    while guest.guest.where() != "task_signal":
        assert guest.guest.step().thread == guest.guest.kernel
    count = guest.guest.count
    stop = guest.stop()
    assert (stop.signal, stop.thread, guest.guest.count) == (Signal.SEGV, INIT, count)


def test_a_fault_stops_at_its_instruction_again_and_again_until_it_is_passed(bundled: Make) -> None:
    guest = Guest(bundled, "fault")
    counts = set()
    for _ in range(3):
        stop = guest.stop()
        assert (stop.signal, stop.thread, stop.reasons) == (Signal.SEGV, INIT, ())
        assert guest.at(INIT, "store") < guest.register(INIT, "rip") < guest.at(INIT, "find_and_store")
        counts.add(guest.guest.count)
    assert len(counts) == 3
    assert guest.target.monitor(None, "when")
    stop = guest.stop(Signal.SEGV, INIT)
    assert stop.signal == Signal.ABRT
    assert b"fault (pid 1): signal 11, vector 14" in bytes(guest.target.domain.console.output)


def test_another_signal_takes_the_place_of_the_fault(bundled: Make) -> None:
    guest = Guest(bundled, "fault")
    guest.stop()
    guest.stop(Signal.TERM, INIT)
    output = bytes(guest.target.domain.console.output)
    assert b"status 143" in output
    assert b"signal 11" not in output


def test_signals_that_are_passed_do_not_stop(bundled: Make) -> None:
    guest = Guest(bundled, "fault")
    guest.target.signals.pass_signals(frozenset({Signal.SEGV}))
    assert guest.stop().signal == Signal.ABRT


@pytest.mark.parametrize("programs", [None, {Signal.SEGV}, {Signal.TERM}])
def test_a_process_that_is_let_go_of_keeps_the_signals_that_programs_get(
    bundled: Make, programs: set[int] | None
) -> None:
    guest = Guest(bundled, "fault")
    if programs is not None:
        guest.target.signals.program_signals(frozenset(programs))
    guest.stop()
    guest.target.detach(1)
    guest.guest.brk("fault_report")
    guest.guest.brk("enter_user_mode")
    guest.stop()
    kept = programs is None or Signal.SEGV in programs
    assert guest.guest.where() == ("fault_report" if kept else "enter_user_mode")


def test_siginfo_is_that_of_linux_and_can_be_changed(bundled: Make) -> None:
    guest = Guest(bundled, "fault")
    signals = guest.target.signals
    with pytest.raises(TargetError):
        signals.read_siginfo(INIT)
    guest.stop()
    info = signals.read_siginfo(INIT)
    assert len(info) == 128
    assert [int.from_bytes(info[at : at + 4], "little") for at in (0, 4, 8)] == [11, 0, 1]
    assert info[16:] == bytes(112)
    signals.write_siginfo(INIT, 16, (0x1234).to_bytes(8, "little"))
    assert signals.read_siginfo(INIT) == info[:16] + (0x1234).to_bytes(8, "little") + info[24:]
    with pytest.raises(TargetError):
        signals.write_siginfo(INIT, 121, bytes(8))
    with pytest.raises(TargetError):
        signals.read_siginfo(guest.guest.kernel)
    guest.guest.brk("fault_report")
    guest.stop(Signal.SEGV, INIT)
    with pytest.raises(TargetError):
        signals.read_siginfo(INIT)


def test_a_signal_from_outside_ends_a_process_before_it_runs_on(bundled: Make) -> None:
    guest = Guest(bundled)
    guest.stop()
    child = Thread(2, 2)
    guest.stop()
    guest.target.detach(1)
    count = guest.guest.count
    assert guest.cont(Signal.USR1, child) == SignalledReply(Signal.USR1, 2)
    assert guest.guest.count < count + 100_000
    assert guest.target.console.take() == ""


@pytest.mark.parametrize(("thread", "signal"), [(INIT, Signal.TERM), (Thread(2, 2), Signal.CHLD), (None, Signal.HUP)])
def test_a_signal_that_nobody_can_get_is_refused_aloud(bundled: Make, thread: Thread | None, signal: int) -> None:
    guest = Guest(bundled)
    guest.stop()
    guest.stop()
    assert isinstance(guest.cont(signal, thread or guest.guest.kernel), StopReply)
    assert Signal(signal).name in guest.target.console.take()
    assert guest.target.console.take() == ""


def test_a_process_is_killed_from_outside(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.stop()
    guest.target.kill(2)
    assert guest.names() == {1: "forker"}
    with pytest.raises(TargetError):
        guest.target.kill(1)
    with pytest.raises(TargetError):
        guest.target.kill(2)
    guest.stop()
    guest.target.detach(3)
    assert guest.stop().signal == Signal.ABRT
    assert b"the first process ended with status 1\n" in bytes(guest.target.domain.console.output)


def test_a_run_with_everything_told_computes_the_same(bundled: Make) -> None:
    plain = bundled("tasks")
    plain.target.hv.run(10**12)
    guest = Guest(bundled)
    guest.target.syscalls.catch_syscalls(None)
    told: dict[str, int] = {}
    event: StopEvent | None = None
    while event != ExitReply(0, KERNEL_PID):
        passed = event.signal if isinstance(event, StopReply) and not event.reasons else 0
        event = guest.cont(passed, event.thread if isinstance(event, StopReply) else None)
        kind = type(event.reasons[0]).__name__ if isinstance(event, StopReply) and event.reasons else str(type(event))
        told[kind] = told.get(kind, 0) + 1
    assert told["Forked"] == 10
    assert told["Execed"] == 9
    assert told["SyscallStop"] > 400
    assert guest.guest.outcome() == plain.outcome()
