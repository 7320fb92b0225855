"""Non-stop: which threads stand still while the domain goes on, and what that means on this machine.

The domain runs as one machine; a thread that stands still is taken out of it as far as that is possible:

* A *process* executes no instruction in user mode. Its kernel does not know that, and schedules it as before. A vcpu
  that is in user mode of such a process *spins*: time passes to Xen's next event exactly as if the process executed a
  jump to itself all the while, but not one instruction of it is executed. With no event to come, and no other vcpu that
  could run, the domain is idle. What the kernel is doing on the process's behalf goes on, up to its return to user
  mode.
* A *vcpu* (a thread of the kernel) executes nothing at all, whatever its mode; Xen does not schedule it. When all
  that are up stand, the whole domain stands, and so does its time; processes that are "running" wait for it. Only a
  vcpu that was asked to stop, and stands nowhere in particular, is *lent* to a process that is to take a single step:
  gdb steps over a breakpoint by stopping all threads, one process's step, and letting all go on, which could not work
  otherwise. The kernel then runs until that process has made its step; nothing is told of the vcpu meanwhile.
* A process that was stopped in the middle of its kernel (a breakpoint there that was set through the process) *pins*
  its vcpu, which stands as if its own thread did, until the process is resumed or detached.

Everything that no inferior stands for goes on: with no inferior attached, the domain runs as without a debugger.

Only threads that stand still are remembered; a thread that appears runs, unless an event says that it stands before its
first instruction.
"""

from collections.abc import Iterable

from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.rsp.replies import Cloned, ExitReply, Forked, SignalledReply, StopEvent, StopReply, ThreadExited
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

UserPlace = tuple[int, int, int]
"""Page table, rip and rsp: where something is, whichever vcpu runs it."""


class Holding:
    """The threads of one domain that stand still in non-stop, each with its last stop."""

    def __init__(self, inferiors: Inferiors) -> None:
        self._inferiors = inferiors
        self.on = False
        """Whether threads stop and go on each by itself."""
        self.lent = False
        """A process is to take a step, and vcpus that were only asked to stop may run for it."""
        self._held: dict[Thread, StopEvent] = {}
        self._pins: dict[Thread, Vcpu] = {}
        self._places: dict[Thread, UserPlace] = {}
        self._passing: dict[Thread, UserPlace] = {}

    def begin(self, stops: Iterable[StopReply]) -> None:
        """Non-stop begins; these are stops of all threads."""
        self.on = True
        self._clear()
        self._held.update((stop.thread, stop) for stop in stops)

    def end(self) -> None:
        """All threads stop and go on together again."""
        self.on = False
        self._clear()
        self.apply()

    def _clear(self) -> None:
        self.lent = False
        self._held.clear()
        self._pins.clear()
        self._places.clear()
        self._passing.clear()

    # -- threads

    def holds(self, thread: Thread) -> bool:
        """Whether a thread stands still."""
        return thread in self._held

    def stops(self) -> list[StopEvent]:
        """The last stop of each thread that stands still, in the order of the stops."""
        return [stop for thread, stop in self._held.items() if self._inferiors.is_alive(thread)]

    def stopped(self, event: StopEvent, vcpu: Vcpu | None = None, place: UserPlace | None = None) -> None:
        """An event: its thread stands still from now on, or has ended.

        `vcpu`: what happened happened on it, at `place` if a breakpoint there has been told.
        """
        match event:
            case StopReply(thread=thread, reasons=reasons):
                self._held[thread] = event
                self._passing.pop(thread, None)
                if vcpu is not None and vcpu.kernel_mode and thread.pid != KERNEL_PID:
                    self._pins[thread] = vcpu
                if place is not None:
                    self._places[thread] = place
                for reason in reasons:
                    if isinstance(reason, Forked | Cloned):
                        self._held[reason.child] = StopReply(Signal.ZERO, reason.child)
            case ThreadExited(thread=thread):
                self._forget(thread)
            case ExitReply(pid=pid) | SignalledReply(pid=pid):
                self.forget_process(pid)

    def resumed(self, thread: Thread) -> UserPlace | None:
        """A thread goes on; where its last stop was, if it may go past a breakpoint there."""
        self._held.pop(thread, None)
        self._pins.pop(thread, None)
        return self._places.pop(thread, None)

    def forget_process(self, pid: int | None) -> None:
        """A process has left the session."""
        for thread in [thread for thread in (*self._held, *self._passing) if thread.pid == pid]:
            self._forget(thread)

    def _forget(self, thread: Thread) -> None:
        for table in (self._held, self._pins, self._places, self._passing):
            table.pop(thread, None)

    # -- going past a breakpoint

    def let_pass(self, thread: Thread, place: UserPlace) -> None:
        """A thread goes on at this place: it may go past a stop point there, once."""
        self._passing[thread] = place

    def passes(self, place: UserPlace) -> bool:
        """Whether a thread that goes on is at this place; only once."""
        for thread, expected in self._passing.items():
            if expected == place:
                del self._passing[thread]
                return True
        return False

    # -- vcpus

    def pinned(self, thread: Thread) -> Vcpu | None:
        """The vcpu that stands because of a process that was stopped in its kernel."""
        return self._pins.get(thread)

    def stands(self, vcpu: Vcpu) -> bool:
        """Whether a vcpu executes nothing at all."""
        if vcpu in self._pins.values():
            return True
        own = self._inferiors.vcpu_thread(vcpu)
        stop = self._held.get(own)
        if stop is None or not self._inferiors.is_alive(own):
            return False
        return not (self.lent and isinstance(stop, StopReply) and stop.signal == Signal.ZERO)

    @property
    def all_stand(self) -> bool:
        """Whether no vcpu may execute anything."""
        return all(self.stands(vcpu) for vcpu in self._inferiors.domain.vcpus if vcpu.is_up)

    def spins(self, vcpu: Vcpu) -> bool:
        """Whether a vcpu is in user mode of a process that stands still."""
        if vcpu.kernel_mode:
            return False
        inferiors = self._inferiors
        return any(thread.pid != KERNEL_PID and inferiors.runs(vcpu, thread.pid) for thread in self._held)

    def apply(self) -> None:
        """Tell Xen which vcpus it may not schedule."""
        for vcpu in self._inferiors.domain.vcpus:
            vcpu.paused = self.on and self.stands(vcpu)
