"""What a client sees that only observes, while another one debugs the same domain.

It has inferiors of its own: it attaches and detaches processes without the debugger noticing. What it reads is the
domain as it is now, which between two slices of a run is consistent: nothing runs while a request is answered. It
changes nothing. The packet table refuses such requests already; here, each of them is an error once more.

For an observer, to continue means to wait: its ``continue`` ends with the debugger's next stop, whatever that is, or
with its own Ctrl-C, which stops nothing but the waiting. The stop is told without its reasons, since a breakpoint that
was hit is the debugger's, and gdb believes in none but its own. An observer in non-stop waits with each thread that it
lets continue.
"""

from collections.abc import Sequence
from errno import EPERM

from xdbg.rsp.replies import ExitReply, NoResumed, SignalledReply, StopEvent, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.table import OBSERVES_ONLY
from xdbg.rsp.target import ResumeAction, ResumeKind, TargetError, action_for
from xdbg.rsp.threadid import Thread

from .inferiors.attached import KERNEL_PID
from .running.stops import CRASHES
from .target import DebugTarget


class ObservingTarget(DebugTarget):
    """The domain of `debugged`, to look at."""

    observing = True

    def __init__(self, debugged: DebugTarget) -> None:
        super().__init__(debugged.hv, debugged.domain, debugged.profile, debugged.machine)
        self.clients = debugged.clients
        self.parts[self.parts.index(self.tracing)] = debugged.tracing
        self.tracing = debugged.tracing
        self._debugged = debugged
        self._one_by_one = False
        self._waiting: dict[Thread, None] = {}
        """The threads that it let continue, or one of them when they all stop together."""
        self._due: list[StopEvent] = []

    # -- the session's side

    def connected(self) -> None:
        """It begins with the kernel alone."""
        self.inferiors.only_kernel()

    def disconnected(self) -> None:
        """Nothing of it was anywhere but here."""
        self.inferiors.only_kernel()
        self._waiting.clear()

    def look_again(self) -> None:
        """The domain may have run, or the debugger may have changed something."""
        self.inferiors.stale()

    def tell(self, stop: StopEvent) -> list[StopEvent]:
        """What is told of the debugger's stop: nothing to one who does not wait."""
        self.look_again()
        if not self._waiting:
            return []
        waited = list(self._waiting)
        self._waiting.clear()
        ended = self._next_end()
        if not self._one_by_one:
            return [ended or self._shown(stop)]
        events: list[StopEvent] = [] if ended is None else [ended]
        for thread in waited:
            if self.inferiors.is_alive(thread):
                own = isinstance(stop, StopReply) and stop.thread == thread
                events.append(self._stop(stop.signal if own and isinstance(stop, StopReply) else Signal.ZERO, thread))
        return events

    def due(self) -> list[StopEvent]:
        """What is told although the debugger has not stopped: the end of waiting, or of everything."""
        if self._waiting and self.domain.shutdown_code is not None and (ended := self._next_end()) is not None:
            self._due.append(ended)
            if not self._one_by_one:
                self._waiting.clear()
            self._waiting = {thread: None for thread in self._waiting if self.inferiors.is_alive(thread)}
        due, self._due = self._due, []
        return due

    @property
    def waits(self) -> bool:
        """Whether it is to be told of the debugger's next stop."""
        return bool(self._waiting)

    # -- what it may do

    def stop_status(self) -> StopEvent:
        """The debugger's last stop, as an observer sees it."""
        return self._shown(self._debugged.stop_status())

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Begins to wait; with no thread, that ends at once. TargetError(EPERM) for a step."""
        if any(action.kind in (ResumeKind.STEP, ResumeKind.RANGE_STEP) for action in actions):
            raise TargetError(EPERM, OBSERVES_ONLY)
        for info in self.threads():
            action = action_for(actions, info.thread)
            if action is not None and action.kind is ResumeKind.CONTINUE:
                self._waiting[info.thread] = None
            elif action is not None and info.thread in self._waiting:
                del self._waiting[info.thread]
                self._due.append(self._stop(Signal.ZERO, info.thread))
        if not self._waiting and not self._one_by_one:
            self._due.append(NoResumed())

    def interrupt(self) -> None:
        """Ends the waiting."""
        if not self._waiting:
            return
        self.look_again()
        ended = self._next_end()
        thread = next((thread for thread in self._waiting if self.inferiors.is_alive(thread)), None)
        if self._one_by_one and thread is not None:
            del self._waiting[thread]
        else:
            self._waiting.clear()
        if ended is not None:
            self._due.append(ended)
        elif thread is not None:
            self._due.append(self._stop(Signal.INT, thread))
        elif not self._one_by_one:
            self._due.append(NoResumed())

    def set_non_stop(self, on: bool) -> None:
        """Whether it waits with threads one by one."""
        self._one_by_one = on
        self._waiting.clear()

    def stopped(self) -> Sequence[StopEvent]:
        """All threads with which it does not wait."""
        return [self._stop(Signal.ZERO, info.thread) for info in self.threads() if info.thread not in self._waiting]

    def attach(self, pid: int) -> StopReply:
        """One more process to look at."""
        return self._stop(Signal.TRAP, self.inferiors.attach(pid))

    def detach(self, pid: int) -> None:
        """One less."""
        self.inferiors.detach(pid)
        self._waiting = {thread: None for thread in self._waiting if thread.pid != pid}

    # -- what it may not do, in case that a request gets so far

    def write_registers(self, thread: Thread, block: bytes) -> None:
        """TargetError(EPERM)."""
        del thread, block
        raise TargetError(EPERM, OBSERVES_ONLY)

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        """TargetError(EPERM): ``c`` may have an address."""
        del thread, regnum, value
        raise TargetError(EPERM, OBSERVES_ONLY)

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        """TargetError(EPERM)."""
        del thread, vaddr, data
        raise TargetError(EPERM, OBSERVES_ONLY)

    def kill(self, pid: int) -> None:
        """TargetError(EPERM)."""
        del pid
        raise TargetError(EPERM, OBSERVES_ONLY)

    # -- inside

    def _stop(self, signal: int, thread: Thread) -> StopReply:
        vcpu = self.inferiors.vcpu(thread) if thread.pid == KERNEL_PID else self.inferiors.user_vcpu(thread.pid)
        core = None if vcpu is None else vcpu.vcpu_id
        return StopReply(signal, thread, (), self.inferiors.expedited(thread), core)

    def _shown(self, stop: StopEvent) -> StopEvent:
        """A stop of the debugger's for an observer who may not see its thread."""
        threads = self.threads()
        if not threads:
            return ExitReply(0)
        if isinstance(stop, StopReply):
            seen = stop.thread if self.inferiors.is_alive(stop.thread) else threads[0].thread
            return self._stop(stop.signal, seen)
        return self._stop(Signal.TRAP, threads[0].thread)

    def _next_end(self) -> ExitReply | SignalledReply | None:
        """The end of something that it looks at: of a process, or of all with the domain."""
        code = self.domain.shutdown_code
        if code is not None:
            for pid in self.inferiors.pids():
                self.inferiors.detach(pid)
                return SignalledReply(Signal.ABRT, pid) if code in CRASHES else ExitReply(code & 0xFF, pid)
        for process in self.inferiors.refresh():
            self.inferiors.detach(process.pid)
            return ExitReply((process.exit_status or 0) & 0xFF, process.pid)
        return None
