"""Threads of the guest `tasks` that stop and go on one by one, without a client."""

from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.registers import RIP
from xdbg.rsp.replies import (
    Cloned,
    Created,
    ExitReply,
    NoResumed,
    SignalledReply,
    StopEvent,
    StopReply,
    SwBreak,
    ThreadExited,
    WatchHit,
)
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, TargetError, ThreadOptions, WatchKind
from xdbg.rsp.threadid import Thread, ThreadId
from xdbg.xen.setup import RunEnd
from xdbg.xen.vcpu import Vcpu

Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
KERNEL = Thread(KERNEL_PID, 1)
SLICE = 1_000_000
JUMP_TO_ITSELF = b"\xeb\xfe"
SPINS = 0x401016
"""The loop of /bin/spin."""


class Tasks:
    """The guest in non-stop, all of its processes started and none far."""

    def __init__(self, make: Make) -> None:
        self.guest = make("tasks")
        self.target = self.guest.target
        self.guest.brk("task_sleep")
        assert isinstance(self.guest.cont(), StopReply)
        self.guest.clear("task_sleep")

    def thread(self, program: str, which: int = 0) -> Thread:
        pids = [p.pid for p in self.target.profile.processes() if PurePosixPath(p.exec_path).name == program]
        return Thread(pids[which], pids[which])

    def symbols(self, program: str) -> SymbolTable:
        return SymbolTable.from_elf(self.target.profile.file(f"/bin/{program}") or b"")

    def attach(self, program: str, which: int = 0) -> Thread:
        thread = self.thread(program, which)
        self.target.attach(thread.pid)
        return thread

    @property
    def count(self) -> int:
        return self.target.hv.cpu.count

    def rip(self, thread: Thread) -> int:
        return int.from_bytes(self.target.read_register(thread, RIP), "little")

    def word(self, thread: Thread, vaddr: int) -> int:
        return int.from_bytes(self.target.read_memory(thread, vaddr, 8), "little")

    def go(self, *threads: Thread, kind: ResumeKind = ResumeKind.CONTINUE) -> None:
        self.target.resume([ResumeAction(thread.pattern(), kind) for thread in threads])

    def next(self, slices: int = 400) -> StopEvent | None:
        """The next event; None when there is none for some time, or nothing runs."""
        for _ in range(slices):
            if not self.target.runs:
                return None
            event = self.target.advance(self.count + SLICE)
            if event is not None:
                return event
            if self.target.idle:
                return None
        return None

    def stop(self, thread: Thread | None = None, reason: type | None = None, signal: int = Signal.TRAP) -> StopReply:
        """The next event, which must be this stop."""
        event = self.next()
        assert isinstance(event, StopReply), event
        assert event.signal == signal
        assert thread is None or event.thread == thread
        assert [type(one) for one in event.reasons] == ([] if reason is None else [reason])
        return event


@pytest.fixture
def tasks(bundled: Make) -> Tasks:
    return Tasks(bundled)


@pytest.fixture
def separate(tasks: Tasks) -> Tasks:
    tasks.target.non_stop.set_non_stop(True)
    return tasks


def test_everything_stands_at_first(separate: Tasks) -> None:
    stops = separate.target.non_stop.stopped()
    assert [(stop.signal, stop.thread) for stop in stops if isinstance(stop, StopReply)] == [(Signal.ZERO, KERNEL)]
    count, now = separate.count, separate.target.hv.now()
    assert separate.next() is None
    assert (separate.count, separate.target.hv.now()) == (count, now)


def test_a_held_process_executes_nothing_while_time_passes_and_others_run(separate: Tasks) -> None:
    separate.go(KERNEL)
    spin = separate.attach("spin")
    turns = separate.symbols("spin").address("turns")
    assert separate.next(3) is None
    separate.go(spin, kind=ResumeKind.STOP)
    separate.stop(spin, signal=Signal.ZERO)
    before, rip, now = separate.word(spin, turns), separate.rip(spin), separate.target.hv.now()
    output = len(separate.target.domain.console.output)
    assert separate.next(5) is None
    assert separate.target.hv.now() > now + 4_000_000
    assert (separate.word(spin, turns), separate.rip(spin)) == (before, rip)
    assert len(separate.target.domain.console.output) > output
    separate.go(spin)
    assert separate.next(2) is None
    assert separate.word(spin, turns) > before


def test_a_held_process_spends_the_same_time_as_one_that_jumps_to_itself(bundled: Make) -> None:
    def times(*, hold: bool) -> list[tuple[int, int]]:
        tasks = Tasks(bundled)
        target = tasks.target
        spin = tasks.attach("spin")
        tasks.guest.brk(SPINS, spin)
        assert tasks.guest.cont(spin) is not None
        tasks.guest.clear(SPINS, spin)
        if hold:
            target.non_stop.set_non_stop(True)
        else:
            target.write_memory(spin, SPINS, JUMP_TO_ITSELF)
        tasks.guest.brk("timer")
        found = []
        for _ in range(30):
            if hold:
                tasks.go(KERNEL)
                tasks.stop(KERNEL, SwBreak)
            else:
                tasks.guest.cont()
            found.append((target.hv.now(), target.profile.current_pid(0) or 0))
        return found

    assert times(hold=True) == times(hold=False)


def test_spinning_costs_no_instructions_and_ends_with_the_slice(separate: Tasks) -> None:
    target = separate.target
    separate.go(KERNEL)
    spin = separate.attach("spin")
    separate.guest.brk(SPINS, spin)
    separate.stop(spin, SwBreak)
    vcpu = target.domain.vcpus[0]
    vcpu.timers.singleshot_ns = target.hv.now() + 10 * SLICE
    vcpu.timers.periodic_period_ns = 0
    count, now = separate.count, target.hv.now()
    assert target.advance(count + SLICE) is None
    assert separate.count == count
    assert target.hv.now() == now + 10 * SLICE or target.hv.now() == target.hv.next_tick_ns
    assert not target.idle
    vcpu.timers.singleshot_ns = 0
    while target.advance(separate.count + SLICE) is None and not target.idle:
        vcpu.timers.singleshot_ns = 0
    now = target.hv.now()
    assert target.advance(separate.count + SLICE) is None
    assert target.idle, "no timer is set, so nothing will ever happen"
    assert target.hv.now() == now


def test_a_held_kernel_holds_everything(separate: Tasks) -> None:
    separate.go(KERNEL)
    spin = separate.attach("spin")
    assert separate.next(5) is None
    separate.go(KERNEL, kind=ResumeKind.STOP)
    assert separate.stop(KERNEL, signal=Signal.ZERO).registers[RIP] == separate.rip(KERNEL).to_bytes(8, "little")
    count, now = separate.count, separate.target.hv.now()
    assert separate.next() is None
    assert separate.target.idle or not separate.target.runs
    assert (separate.count, separate.target.hv.now()) == (count, now)
    assert [stop.thread for stop in separate.target.non_stop.stopped()] == [KERNEL]
    separate.go(spin)
    assert separate.next() is None, "a process that is told to run waits for its kernel"
    assert separate.count == count


def test_breakpoints_of_twins_hold_each_and_are_passed_each_once(separate: Tasks) -> None:
    """Two processes of one program, with the same registers at the same place."""
    separate.go(KERNEL)
    twins = separate.attach("counter", 0), separate.attach("counter", 1)
    square = separate.symbols("counter").address("square")
    for thread in twins:
        separate.guest.brk(square, thread)
    stops = [separate.stop(reason=SwBreak).thread for _ in twins]
    assert sorted(stops) == sorted(twins)
    now = separate.target.hv.now()
    assert separate.next(20) is None, "both stand"
    assert separate.target.hv.now() > now
    for thread in (twins[0], twins[0], twins[1], twins[0]):
        count = separate.count
        separate.go(thread)
        assert separate.stop(thread, SwBreak).registers[RIP] == square.to_bytes(8, "little")
        assert separate.count > count + 10, "the place of the last stop is passed"
    separate.guest.clear(square, twins[0])
    separate.go(*twins)
    assert separate.stop(reason=SwBreak).thread == twins[1]


def test_a_moved_process_hits_the_breakpoint_where_it_was_put(separate: Tasks) -> None:
    separate.go(KERNEL)
    thread = separate.attach("counter")
    symbols = separate.symbols("counter")
    square = symbols.address("square")
    separate.guest.brk(square, thread)
    separate.stop(thread, SwBreak)
    separate.target.write_register(thread, RIP, (square + 1).to_bytes(8, "little"))
    separate.guest.brk(square + 1, thread)
    count = separate.count
    separate.go(thread)
    assert separate.stop(thread, SwBreak).registers[RIP] == (square + 1).to_bytes(8, "little")
    assert separate.count < count + 1_000_000


def test_a_process_stopped_in_its_kernel_pins_the_vcpu(separate: Tasks) -> None:
    separate.go(KERNEL)
    thread = separate.attach("counter")
    place = separate.guest.brk("task_sleep", thread)
    separate.stop(thread)
    assert separate.guest.where() == "task_sleep"
    count, now = separate.count, separate.target.hv.now()
    assert separate.next() is None
    assert (separate.count, separate.target.hv.now()) == (count, now)
    separate.go(thread)
    separate.stop(thread)
    assert separate.count > count + 100
    separate.guest.clear(place, thread)
    separate.target.detach(thread.pid)
    assert separate.next(5) is None
    assert separate.count > count + 1_000_000, "who is detached pins nothing"


def test_watch_points_and_steps_of_one_while_others_run(separate: Tasks) -> None:
    separate.go(KERNEL)
    spin, counter = separate.attach("spin"), separate.attach("counter")
    turns = separate.symbols("spin").address("turns")
    separate.target.insert_watchpoint(spin, WatchKind.WRITE, turns, 8)
    separate.stop(spin, WatchHit)
    separate.target.remove_watchpoint(spin, WatchKind.WRITE, turns, 8)
    square = separate.guest.brk(separate.symbols("counter").address("square"), counter)
    separate.stop(counter, SwBreak)
    for _ in range(5):
        rip = separate.rip(counter)
        separate.go(counter, kind=ResumeKind.STEP)
        assert 0 < separate.rip(counter) - rip + 16 < 32
        separate.stop(counter)
        assert separate.rip(counter) != rip
    separate.target.resume([ResumeAction(counter.pattern(), ResumeKind.RANGE_STEP, 0, square, square + 0x100)])
    separate.stop(counter)
    assert not square <= separate.rip(counter) < square + 0x100 or separate.rip(counter) == square
    separate.go(spin, kind=ResumeKind.STEP)
    separate.stop(spin)


def test_a_process_steps_although_its_kernel_was_asked_to_stop(separate: Tasks) -> None:
    separate.go(KERNEL)
    counter, spin = separate.attach("counter"), separate.attach("spin")
    separate.guest.brk(separate.symbols("counter").address("square"), counter)
    separate.stop(counter, SwBreak)
    assert separate.next(20) is None, "somebody else runs by now"
    separate.go(KERNEL, spin, kind=ResumeKind.STOP)
    separate.stop(KERNEL, signal=Signal.ZERO)
    separate.stop(spin, signal=Signal.ZERO)
    rip = separate.rip(counter)
    separate.go(counter, kind=ResumeKind.STEP)
    separate.stop(counter)
    assert separate.rip(counter) != rip
    count = separate.count
    assert separate.next() is None
    assert separate.count == count, "and the vcpu stands again"


def test_a_kernel_that_hit_a_breakpoint_is_not_moved_by_a_step_of_a_process(separate: Tasks) -> None:
    separate.go(KERNEL)
    spin = separate.attach("spin")
    separate.go(spin, kind=ResumeKind.STOP)
    separate.stop(spin, signal=Signal.ZERO)
    separate.guest.brk("schedule")
    separate.stop(KERNEL, SwBreak)
    count = separate.count
    separate.go(spin, kind=ResumeKind.STEP)
    assert separate.next() is None
    assert separate.count == count
    separate.guest.clear("schedule")
    separate.go(KERNEL)
    separate.stop(spin)


def test_a_step_of_the_kernel_from_a_held_process_ends_in_the_handler(separate: Tasks) -> None:
    separate.go(KERNEL)
    spin = separate.attach("spin")
    separate.guest.brk(SPINS, spin)
    separate.stop(spin, SwBreak)
    separate.go(KERNEL, kind=ResumeKind.STOP)
    separate.stop(KERNEL, signal=Signal.ZERO)
    separate.go(KERNEL, kind=ResumeKind.STEP)
    separate.stop(KERNEL)
    assert separate.target.domain.vcpus[0].kernel_mode


def test_ctrl_c_stops_one_thread_and_none_if_all_stand(separate: Tasks) -> None:
    separate.target.interrupt()
    assert separate.next() is None
    separate.go(KERNEL)
    spin = separate.attach("spin")
    assert separate.next(3) is None
    separate.target.interrupt()
    first = separate.stop(signal=Signal.INT).thread
    separate.target.interrupt()
    second = separate.stop(signal=Signal.INT).thread
    assert {first, second} == {KERNEL, spin}


def test_stop_of_threads_that_stand_and_resume_of_threads_that_run_do_nothing(separate: Tasks) -> None:
    separate.go(KERNEL, kind=ResumeKind.STOP)
    assert separate.next() is None
    separate.go(KERNEL)
    separate.go(KERNEL, kind=ResumeKind.STEP)
    assert separate.next(3) is None, "no step was begun"


def test_a_resume_of_nobody_is_answered_with_no_resumed(separate: Tasks) -> None:
    separate.target.resume([ResumeAction(ThreadId(77, 77), ResumeKind.CONTINUE)])
    assert separate.next() == NoResumed()
    assert separate.next() is None
    separate.target.detach(KERNEL_PID)
    with pytest.raises(TargetError):
        separate.go(KERNEL)


def test_without_the_kernel_as_an_inferior_the_domain_runs_on(separate: Tasks) -> None:
    counter = separate.attach("counter")
    separate.go(counter, kind=ResumeKind.STOP)
    separate.stop(counter, signal=Signal.ZERO)
    separate.target.detach(KERNEL_PID)
    count = separate.count
    assert separate.next(10) is None
    assert separate.count > count
    separate.go(counter)
    ended = separate.next()
    assert ended == ExitReply(3, counter.pid)
    assert separate.next() is None, "nobody is attached: there is nobody to be told of"
    assert "PASS tasks" in separate.target.domain.console.output.decode()


def test_ends_are_told_of_running_and_of_held_processes(separate: Tasks) -> None:
    separate.go(KERNEL)
    forker, spin = separate.attach("forker"), separate.attach("spin")
    separate.go(spin, kind=ResumeKind.STOP)
    separate.stop(spin, signal=Signal.ZERO)
    assert separate.next() == ExitReply(0, forker.pid)
    assert separate.next(2000) == SignalledReply(Signal.KILL, spin.pid), "killed by init while it stood still"
    assert separate.next() == ExitReply(0, KERNEL_PID)
    assert separate.next() is None
    assert "PASS tasks" in separate.target.domain.console.output.decode()


def test_a_crash_is_told_once_and_ends_all_after_the_resume(separate: Tasks) -> None:
    separate.go(KERNEL)
    counter = separate.attach("counter")
    assert separate.next(2) is None
    separate.target.hv.crash_domain(separate.target.domain.vcpus[0], "for the test")
    thread = separate.stop(signal=Signal.ABRT).thread
    assert separate.next() is None
    assert separate.target.threads()
    separate.go(thread)
    ends = [separate.next(), separate.next()]
    assert sorted(end.pid for end in ends if isinstance(end, SignalledReply)) == [counter.pid, KERNEL_PID]
    assert separate.next() is None


def test_back_to_all_stop_and_the_end_of_the_session(separate: Tasks) -> None:
    target = separate.target
    separate.go(KERNEL)
    counter = separate.attach("counter")
    separate.guest.brk("task_sleep", counter)
    separate.stop(counter)
    assert target.domain.vcpus[0].paused or not target.non_stop.runs
    target.non_stop.set_non_stop(False)
    assert not target.domain.vcpus[0].paused
    count = separate.count
    separate.guest.resume(ResumeAction(counter.pattern(), ResumeKind.CONTINUE))
    stop = separate.guest.run()
    assert isinstance(stop, StopReply)
    assert separate.count > count
    target.non_stop.set_non_stop(True)
    separate.go(KERNEL)
    target.disconnected()
    assert not target.runs
    assert target.hv.run(200_000_000) is RunEnd.SHUT_DOWN, target.domain.console.output.decode()
    assert "PASS tasks" in target.domain.console.output.decode()


def test_read_only_pages_of_a_process_are_not_written_in_non_stop(tasks: Tasks) -> None:
    counter = tasks.attach("counter")
    square = tasks.symbols("counter").address("square")
    text = tasks.target.read_memory(counter, square, 4)
    tasks.target.write_memory(counter, square, text)
    tasks.target.non_stop.set_non_stop(True)
    with pytest.raises(TargetError, match="read-only"):
        tasks.target.write_memory(counter, square, text)
    stack = int.from_bytes(tasks.target.read_register(counter, 7), "little")
    tasks.target.write_memory(counter, stack, tasks.target.read_memory(counter, stack, 8))
    tasks.target.write_memory(KERNEL, tasks.guest.at("schedule"), b"\x55")


def appear(tasks: Tasks) -> Vcpu:
    """A second vcpu that is not up, as if the kernel had started one and taken it down."""
    domain = tasks.target.domain
    vcpu = tasks.target.hv._create_vcpu(domain, 1)
    vcpu.is_initialised = True
    domain.vcpus.append(vcpu)
    return vcpu


@pytest.mark.parametrize("non_stop", [False, True])
def test_threads_that_come_and_go_are_told_when_asked_for(tasks: Tasks, non_stop: bool) -> None:
    target = tasks.target
    target.non_stop.set_non_stop(non_stop)
    second = Thread(KERNEL_PID, 2)

    def following() -> StopEvent | None:
        if non_stop:
            return tasks.next(3)
        return tasks.guest.run(tasks.count + 3 * SLICE)

    tasks.go(KERNEL)
    target.thread_events.report_threads(True)
    assert following() is None
    appear(tasks)
    target.resume([ResumeAction(ThreadId(KERNEL_PID, -1), ResumeKind.CONTINUE)])
    created = following()
    assert isinstance(created, StopReply)
    assert (created.thread, created.reasons) == (second, (Created(),))
    target.resume([ResumeAction(ThreadId(KERNEL_PID, -1), ResumeKind.CONTINUE)])
    assert following() is None
    target.domain.vcpus.pop()
    assert following() == ThreadExited(0, second)
    target.thread_events.report_threads(False)
    appear(tasks)
    target.resume([ResumeAction(ThreadId(KERNEL_PID, -1), ResumeKind.CONTINUE)])
    assert following() is None
    target.thread_events.set_thread_options({second: ThreadOptions.EXIT, KERNEL: ThreadOptions.CLONE})
    target.domain.vcpus.pop()
    assert following() == ThreadExited(0, second)
    appear(tasks)
    target.resume([ResumeAction(ThreadId(KERNEL_PID, -1), ResumeKind.CONTINUE)])
    cloned = following()
    assert isinstance(cloned, StopReply)
    assert (cloned.thread, cloned.reasons) == (KERNEL, (Cloned(second),))


@pytest.mark.parametrize("non_stop", [False, True])
def test_no_resumed_when_the_last_thread_that_ran_has_gone(tasks: Tasks, non_stop: bool) -> None:
    target = tasks.target
    appear(tasks)
    second = Thread(KERNEL_PID, 2)
    target.non_stop.set_non_stop(non_stop)
    tasks.go(second)
    target.domain.vcpus.pop()
    event = tasks.next() if non_stop else tasks.guest.run()
    assert event == NoResumed()


def test_a_held_vcpu_does_not_hold_the_others(separate: Tasks) -> None:
    appear(separate)
    first, second = separate.target.domain.vcpus
    second.is_up = second.blocked = True
    separate.target.non_stop.set_non_stop(False)
    separate.target.non_stop.set_non_stop(True)
    separate.go(KERNEL)
    assert separate.next(3) is None
    assert (first.paused, second.paused) == (False, True)
    separate.go(KERNEL, kind=ResumeKind.STOP)
    separate.go(Thread(KERNEL_PID, 2))
    separate.stop(KERNEL, signal=Signal.ZERO)
    count = separate.count
    assert separate.next(3) is None
    assert (first.paused, second.paused) == (True, False)
    assert separate.count == count
    assert separate.target.idle


def test_bad_requests_change_nothing(separate: Tasks) -> None:
    with pytest.raises(TargetError):
        separate.target.insert_breakpoint(Thread(99, 99), BreakpointKind.SOFTWARE, 0)
    with pytest.raises(TargetError):
        separate.target.attach(99)
    assert separate.next() is None
