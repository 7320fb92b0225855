"""Threads that come and go within an attached process, as stops. GDB manual: QThreadEvents, QThreadOptions.

A process of the guest that begins or ends is no such event: gdb is told of that in other ways. What counts is that an
inferior which was attached before has other threads than before. The thread that was on the vcpu at that moment is the
one that made a new thread.

gdb asks for this only while it steps over a breakpoint or waits for many threads to stop, so it is looked at only then.
"""

from collections.abc import Mapping

from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.running.sources import Sources, StopSource
from xdbg.debug.running.stops import Stops
from xdbg.machine.exits import Exit
from xdbg.rsp.replies import Cloned, Created, StopEvent, StopReply, ThreadExited
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import ThreadOptions
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu


class ThreadEvents(StopSource):
    """Tells new and ended threads to a debugger that asked for it."""

    def __init__(self, inferiors: Inferiors, stops: Stops, sources: Sources) -> None:
        self._inferiors = inferiors
        self._stops = stops
        self._sources = sources
        self.every = False
        """What `report_threads` was told."""
        self._options: dict[Thread, ThreadOptions] = {}
        self._known: dict[int, list[Thread]] = {}
        """The threads of each attached process that gdb has been told of, or that it did not ask for."""

    # -- ThreadEvents

    def report_threads(self, on: bool) -> None:
        """All events of all processes, or none."""
        self.every = on
        self._join()

    def set_thread_options(self, options: Mapping[Thread, ThreadOptions]) -> None:
        """Events of single threads."""
        self._options |= options
        self._options = {thread: chosen for thread, chosen in self._options.items() if chosen}
        self._join()

    # -- StopSource

    def prepare(self) -> None:
        """Processes may have been attached and detached."""
        pids = self._inferiors.pids()
        self._known = {pid: self._known.get(pid) or self._inferiors.threads_of(pid) for pid in pids}

    def after(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """The first difference that is to be told. It counts as known only when `told` has it."""
        del came
        for pid in self._inferiors.pids():
            present = self._inferiors.threads_of(pid)
            known = self._known.setdefault(pid, present)
            if present != known:
                for thread in [*known, *present]:
                    if (thread in known) != (thread in present):
                        event = self._event(vcpu, thread, present)
                        if event is not None:
                            return event
                        self._now_known(thread)
        return None

    def told(self, event: StopEvent) -> None:
        """An event is told to gdb; it may be one of these."""
        match event:
            case ThreadExited(thread=thread) | StopReply(thread=thread, reasons=(Created(),)):
                self._now_known(thread)
            case StopReply(reasons=(Cloned(child),)):
                self._now_known(child)

    def clear(self) -> None:
        """Nobody asks any more."""
        self.every = False
        self._options.clear()
        self._join()

    # -- inside

    def _join(self) -> None:
        if self.every or self._options:
            self._sources.add(self)
            self.prepare()
        else:
            self._sources.remove(self)
            self._known.clear()

    def _event(self, vcpu: Vcpu, thread: Thread, present: list[Thread]) -> StopEvent | None:
        """What is to be told of a thread that has appeared or gone; None for nothing."""
        stops = self._stops
        if thread not in present:
            wanted = self.every or ThreadOptions.EXIT in self._options.get(thread, ThreadOptions(0))
            return ThreadExited(0, thread) if wanted and stops.asked_for(thread) else None
        maker = next((one for one in stops.threads_on(vcpu) if one.pid == thread.pid and one != thread), None)
        if maker is not None and ThreadOptions.CLONE in self._options.get(maker, ThreadOptions(0)):
            return stops.reply(Signal.TRAP, maker, vcpu, (Cloned(thread),)) if stops.covers(maker) else None
        if self.every and stops.covers(thread):
            return stops.reply(Signal.TRAP, thread, vcpu, (Created(),))
        return None

    def _now_known(self, thread: Thread) -> None:
        known = self._known.get(thread.pid, [])
        if thread in known:
            self._options.pop(thread, None)
            self._known[thread.pid] = [one for one in known if one != thread]
        else:
            self._known[thread.pid] = [*known, thread]
