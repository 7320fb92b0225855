"""Non-stop: each thread stops and goes on by itself, while the domain runs. GDB manual: "Remote Non-Stop".

A slice of the run ends with one event at most; its thread stands still from then on (`holding` says what that means),
the others run on in the next. So that a debugger may ask and change things meanwhile, break and watch points are
brought in line before each slice rather than at a resume.

What is computed depends on when the debugger's requests arrive: unlike a session in which all stop together, this one
can't be repeated.

Pages that a process may not write itself are not written by the debugger either: other processes that run may share
them. gdb would put a copy of an instruction at the program's entry to step over a breakpoint ("displaced stepping");
when that fails it stops all threads for a moment instead.
"""

from collections import deque
from collections.abc import Sequence
from errno import EPERM, ESRCH

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE
from xdbg.abi.x86 import PTE_RW
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.inferiors.vcpu_registers import rip_of, rsp_of
from xdbg.machine.paging import NotMappedError
from xdbg.machine.registers import RSP
from xdbg.rsp.replies import ExitReply, NoResumed, SignalledReply, StopEvent, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import ResumeAction, ResumeKind, TargetError, action_for
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .holding import UserPlace
from .run_control import RunControl


class NonStop:
    """The run state of one domain when its threads stop one by one."""

    def __init__(self, inferiors: Inferiors, run_control: RunControl) -> None:
        self._inferiors = inferiors
        self._run = run_control
        self._stops = run_control.stops
        self._holding = run_control.stops.holding
        self._pending: deque[StopEvent] = deque()
        self._interrupted = False
        self._promised = False
        """gdb believes that some thread runs."""

    @property
    def on(self) -> bool:
        """Whether threads stop one by one."""
        return self._holding.on

    @property
    def runs(self) -> bool:
        """Whether there is something to run or to tell."""
        if self._pending or self._interrupted or self._has_nothing_left:
            return True
        if self._inferiors.domain.shutdown_code is not None:
            return bool(self._inferiors.pids())
        return not self._holding.all_stand

    def stands_after(self, stop: StopEvent) -> bool:
        """Whether the thread of a stop has not been resumed since."""
        return not isinstance(stop, StopReply) or stop in self._holding.stops()

    # -- NonStop

    def set_non_stop(self, on: bool) -> None:
        """All threads stand still in either case; nothing changes if it is so already.

        A vcpu that was never started executes nothing anyway, and runs when it is.
        """
        if on == self._holding.on:
            return
        self._forget()
        self._run.standstill()
        if on:
            self._holding.begin(
                self._stops.reply(Signal.ZERO, thread, self._vcpu_of(thread))
                for thread in self._threads()
                if self._inferiors.is_started(thread)
            )
        else:
            self._holding.end()

    def check_write(self, thread: Thread, vaddr: int, length: int) -> None:
        """TargetError(EPERM) for a write that could hurt others that run."""
        if not self._holding.on or thread.pid == KERNEL_PID:
            return
        space = self._inferiors.space(thread)
        for page in range(vaddr & ~PAGE_MASK, vaddr + length, PAGE_SIZE):
            try:
                writable = space.translate(page).flags & PTE_RW
            except NotMappedError:
                continue
            if not writable:
                raise TargetError(EPERM, f"{page:#x} is read-only and may be shared; in non-stop it can't be written")

    def stopped(self) -> Sequence[StopEvent]:
        """The last stop of one thread; those of the others are told as if they happened now.

        gdb 13 ends itself when it is told of several as it connects.
        """
        stops = self._holding.stops()
        self._pending.extend(stop for stop in stops[1:] if stop not in self._pending)
        return stops[:1]

    # -- the debugger's side

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Threads that stand still go on, those that run stop, by the actions. TargetError(ESRCH) if there are none."""
        if not self._inferiors.pids():
            raise TargetError(ESRCH, "no process is attached")
        self._stops.resume(tuple(actions))
        for thread in self._threads():
            action = action_for(actions, thread)
            if action is None:
                continue
            if self._holding.holds(thread):
                if action.kind is not ResumeKind.STOP:
                    self._go(thread, action)
            elif action.kind is ResumeKind.STOP:
                self._told(self._stops.reply(Signal.ZERO, thread, self._vcpu_of(thread)))
        if any(action.kind is not ResumeKind.STOP for action in actions):
            self._promised = True
        self._holding.lent = self._run.stepping.has_process

    def interrupt(self) -> None:
        """Ctrl-C: one of the threads that run stops."""
        self._interrupted = True

    def detached(self, pid: int) -> None:
        """A process has left the session: nothing of it stands still."""
        self._holding.forget_process(pid)
        self._pending = deque(event for event in self._pending if _pid_of(event) != pid)
        self._run.stepping.forget_process(pid)
        self._promised = self._promised and self._stops.covers_any()
        self._holding.lent = self._run.stepping.has_process
        self._holding.apply()

    def forget(self) -> None:
        """The debugger has gone: its threads go on together, if they do."""
        self._forget()
        self._holding.end()

    # -- Part

    @property
    def run(self) -> RunControl:
        """The loop's side is the same in both modes."""
        return self._run

    @property
    def stands(self) -> bool:
        """Whether nothing of the domain may run."""
        return self._inferiors.domain.shutdown_code is not None or self._holding.all_stand

    def begin(self) -> StopEvent | None:
        """An event that waits, or None: the guest may run unless it `stands`."""
        run = self._run
        run.idle = False
        if self._pending:
            return self._pending.popleft()
        if self._interrupted:
            self._interrupted = False
            stop = self._stops.interrupted(run.vcpu)
            if isinstance(stop, StopReply):
                return self._noted(stop)
        if self._has_nothing_left:
            self._promised = False
            return NoResumed()
        if self._inferiors.domain.shutdown_code is not None:
            ended = self._stops.next_end()
            run.idle = ended is None
            return ended if ended is None else self._noted(ended)
        self._holding.apply()
        if self._holding.all_stand:
            run.idle = True
        else:
            run.prepare()
        return None

    def after(self, stop: StopEvent | None) -> StopEvent | None:
        """The event that ended a slice; its thread stands still from now on."""
        if stop is None:
            return None
        run = self._run
        vcpu = run.vcpu
        place = None if run.sources.leaves_breakpoint else (vcpu.cr3, rip_of(vcpu), rsp_of(vcpu))
        return self._noted(stop, vcpu, place)

    def conclude(self, told: StopEvent | None) -> None:
        """The debugger is told this."""
        self._inferiors.stale()
        if told is not None:
            self._run.last_stop = told

    # -- inside

    def _threads(self) -> list[Thread]:
        inferiors = self._inferiors
        return [thread for pid in inferiors.pids() for thread in inferiors.threads_of(pid)]

    @property
    def _has_nothing_left(self) -> bool:
        """Whether gdb waits for a thread, while the last one that ran has vanished without an event of its own."""
        return self._promised and not self._stops.covers_any() and bool(self._inferiors.pids())

    def _told(self, event: StopEvent) -> None:
        self._pending.append(self._noted(event))

    def _noted(self, event: StopEvent, vcpu: Vcpu | None = None, place: UserPlace | None = None) -> StopEvent:
        self._holding.stopped(event, vcpu, place)
        match event:
            case StopReply(thread=thread):
                self._run.stepping.drop(thread)
            case ExitReply(pid=pid) | SignalledReply(pid=pid) if pid is not None:
                self._run.stepping.forget_process(pid)
            case _:
                return event
        self._promised = self._promised and self._stops.covers_any()
        self._holding.lent = self._run.stepping.has_process
        return event

    def _go(self, thread: Thread, action: ResumeAction) -> None:
        """A thread goes on; past a breakpoint if it is where its last stop was."""
        here = self._place_of(thread)
        place = self._holding.resumed(thread)
        self._run.stepping.plan_thread(thread, action)
        if place is not None and place == here and action.kind is ResumeKind.CONTINUE:
            self._holding.let_pass(thread, place)

    def _vcpu_of(self, thread: Thread) -> Vcpu:
        if thread.pid == KERNEL_PID:
            return self._inferiors.vcpu(thread)
        return self._inferiors.user_vcpu(thread.pid) or self._inferiors.domain.vcpus[0]

    def _place_of(self, thread: Thread) -> UserPlace | None:
        """Where a thread goes on: of a process, in user mode, unless it was stopped in its kernel."""
        inferiors = self._inferiors
        if thread.pid == KERNEL_PID:
            vcpu: Vcpu | None = inferiors.vcpu(thread)
        else:
            vcpu = self._holding.pinned(thread) or inferiors.user_vcpu(thread.pid)
        if vcpu is not None:
            return vcpu.cr3, rip_of(vcpu), rsp_of(vcpu)
        try:
            registers = inferiors.read_registers(thread)
        except TargetError:
            return None
        return inferiors.tables_of(thread.pid)[0], registers.rip, registers.gpr[RSP]

    def _forget(self) -> None:
        self._pending.clear()
        self._interrupted = self._promised = False
        self._run.stepping.clear()


def _pid_of(event: StopEvent) -> int | None:
    match event:
        case NoResumed():
            return None
        case ExitReply(pid=pid) | SignalledReply(pid=pid):
            return pid
        case _:
            return event.thread.pid
