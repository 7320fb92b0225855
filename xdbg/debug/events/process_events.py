"""Processes that make others, become another program, get a signal, or end: told to gdb for those that are attached.

The guest's kernel is stopped where the profile says that something has just happened; see `guestos.events`. What is
told depends on whether the process is covered by the last resume (`stops`) and on what the client takes.

A fork is told as a stop of the parent, and the child is attached from then on: gdb detaches the one that it does not
want to follow. A process that comes into being with a program of its own is told as a fork, and then as an exec of the
child, before its first instruction; for this the stop waits until gdb resumes the child.

An exec takes the process's break and watch points with it: gdb counts on that. The end of a process is told by
`following` when the kernel has taken its memory, but only here it can be seen how it ends.
"""

from xdbg.abi.frames import Vaddr
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.inferiors.process_registers import kernel_registers
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.points.watchpoints import Watchpoints
from xdbg.debug.running.run_control import RunControl
from xdbg.debug.running.sources import StopSource
from xdbg.guestos.events import Execed, Exiting, Forked, Signalled, Spawned
from xdbg.rsp import replies
from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .signals import Signals


class ProcessEvents(StopSource):
    """What happens to attached processes. Implements `ProcessEvents` of `rsp.target`."""

    def __init__(
        self,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        watchpoints: Watchpoints,
        run_control: RunControl,
        signals: Signals,
    ) -> None:
        self._inferiors = inferiors
        self._profile = inferiors.profile
        self._breakpoints = breakpoints
        self._watchpoints = watchpoints
        self._run_control = run_control
        self._stops = run_control.stops
        self._signals = signals
        self.forks = False
        """Whether the client takes forks."""
        self.execs = False
        """Whether it takes new programs."""
        self._programs: dict[int, str] = {}
        """Attached processes that have become a program of which gdb has not been told."""

    def report_process_events(self, *, fork: bool, execs: bool) -> None:
        """What the client takes."""
        self.forks = fork
        self.execs = execs

    def watch(self) -> None:
        """There are attached processes: their events are of interest from now on."""
        self._run_control.sources.add(self)

    def release(self, pid: int) -> None:
        """The debugger lets go of a process."""
        self._signals.release(pid)
        self._programs.pop(pid, None)

    # -- StopSource

    def prepare(self) -> None:
        """Stop where something happens to processes, as long as any is attached."""
        self._inferiors.returned.clear()
        attached = self._inferiors.has_processes
        points = self._profile.event_points if attached else ()
        self._breakpoints.set_internal("events", ((point, None) for point in points))
        if not attached:
            self._run_control.sources.remove(self)

    def due(self) -> StopEvent | None:
        """A program of which gdb can be told now."""
        for pid, path in list(self._programs.items()):
            thread = Thread(pid, pid)
            if not self._inferiors.is_alive(thread):
                del self._programs[pid]
            elif self._stops.covers(thread):
                return self._execed(thread, path, self._inferiors.domain.vcpus[0])
        return None

    def reached(self, vcpu: Vcpu, vaddr: Vaddr) -> StopEvent | None:
        """The kernel is at one of its places."""
        if not vcpu.kernel_mode or vaddr not in self._profile.event_points:
            return None
        attached = self._inferiors.process_ids()
        match self._profile.event(kernel_registers(vcpu)):
            case Forked(parent, child) | Spawned(parent, child) as event if parent in attached:
                return self._forked(parent, child, vcpu, has_program=isinstance(event, Spawned))
            case Execed(pid, path) if pid in attached and self.execs:
                self._programs[pid] = path
                thread = Thread(pid, pid)
                return self._execed(thread, path, vcpu) if self._stops.covers(thread) else None
            case Exiting(pid, status, signal) if pid in attached:
                self._run_control.following.note_ending(pid, (status, signal))
            case Signalled(pid) as event if pid in attached:
                return self._signals.arrives(event, vcpu)
        return None

    def clear(self) -> None:
        """The debugger has gone."""
        self._signals.clear()
        self._programs.clear()
        self.forks = self.execs = False
        self._run_control.sources.remove(self)

    # -- inside

    def _forked(self, parent: int, child: int, vcpu: Vcpu, *, has_program: bool) -> StopReply | None:
        thread = Thread(parent, parent)
        if not self.forks or not self._stops.covers(thread):
            return None
        try:
            attached = self._inferiors.attach(child)
        except TargetError:
            return None
        if has_program and self.execs:
            self._programs[child] = self._inferiors.process(child).exec_path
        return self._stops.reply(Signal.TRAP, thread, vcpu, (replies.Forked(attached),))

    def _execed(self, thread: Thread, path: str, vcpu: Vcpu) -> StopReply:
        self._programs.pop(thread.pid, None)
        self._breakpoints.forget(thread.pid)
        self._watchpoints.forget(thread.pid)
        return self._stops.reply(Signal.TRAP, thread, vcpu, (replies.Execed(path),))
