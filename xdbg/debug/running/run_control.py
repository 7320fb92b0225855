"""Running the guest until gdb must be told something.

`resume` notes what is to be done; `advance` then runs the domain in slices. One turn: the hypervisor picks a vcpu,
delivering what is due; the vcpu is entered, or steps one instruction (`stepping`); the exit that comes back is looked
at before Xen handles it (`following`). Stop points, steps and watches are no events of the guest, and Xen delivers
nothing on them. So a guest that is debugged computes the same, at the same instruction counts, as one that is not.

Resuming at the very place of the last stop goes past a breakpoint there, once: clients that keep theirs inserted
would not get on. If the vcpu is diverted by an upcall first, this holds until it comes back to that place. A stop
point that is nobody's business is passed in the same way.
"""

from collections.abc import Sequence
from errno import ESRCH
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.points.watchpoints import Watchpoints
from xdbg.machine.exits import DeadlineExit, Exit, StopPointExit, WatchExit
from xdbg.machine.registers import RSP
from xdbg.rsp.replies import NoResumed, StopEvent
from xdbg.rsp.target import ResumeAction, TargetError
from xdbg.xen.vcpu import Vcpu

from .following import Following
from .observers import Observers
from .places import Place, Places, place_of
from .sources import Sources
from .stepping import Stepping
from .stops import Stops

PATIENCE: Final = 1000
"""Agent expressions that may be evaluated in one slice: Ctrl-C is seen between slices."""
PREDICATE_STEPS: Final = 2_000_000
"""Steps of predicates in one slice, more or less."""


class RunControl:
    """The run state of one domain, as its debugger wants it."""

    def __init__(
        self,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        watchpoints: Watchpoints,
        observers: Observers,
        console: Console,
    ) -> None:
        self._domain = inferiors.domain
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self.stops = Stops(inferiors, breakpoints, console)
        self.following = Following(inferiors, breakpoints, watchpoints, self.stops, observers)
        self.sources = Sources(self.following, breakpoints)
        self.stepping = Stepping(inferiors, breakpoints, self.stops, self.following, self.sources)
        self.idle = False
        """`advance` came back because nothing can run before there is input."""
        self.last_stop: StopEvent = self.stops.standing()
        self.is_resumed = False
        """The threads go on, or would if `advance` were called."""
        self._prepared = False
        self._interrupted = False
        self._reported: Place | None = None
        self._skips = Places()
        """Where vcpus may go past a stop point."""

    # -- the debugger's side

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Note what the threads are to do. TargetError(ESRCH) if there is no thread at all."""
        if not self._inferiors.pids() and not self.following.has_ended:
            raise TargetError(ESRCH, "no process is attached")
        self.stops.resume(tuple(actions))
        self.stepping.plan(actions)
        place = self._place()
        # A step does not look at stop points, and must not leave one behind that is to be passed.
        passes = place == self._reported and not self.sources.leaves_breakpoint
        self._skips.clear()
        if passes and self.stepping.due(place[0]) is None:
            self._skips.add(place)
        if self._reported is not None and place != self._reported:
            self.sources.moved(self._reported)
        self.is_resumed = True
        self._prepared = False
        self._interrupted = False

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._interrupted = True

    def standstill(self) -> None:
        """A session begins: the place where the domain stands has been shown."""
        self.last_stop = self.stops.standing()
        self.is_resumed = False
        self._reported = self._place()

    @property
    def vcpu(self) -> Vcpu:
        """The domain's vcpu that has the CPU, or the first."""
        current = self._hv.current
        return current if current is not None and current.domain is self._domain else self._domain.vcpus[0]

    def forget(self) -> None:
        """The debugger has gone: nothing of its own is left in the CPU, or here."""
        self.stepping.clear()
        self.sources.clear()
        self.following.forget()
        self.stops.resume(())
        self._reported = None
        self._skips.clear()
        self._interrupted = False

    # -- running

    def advance(self, limit: int) -> StopEvent | None:
        """Run the guest to instruction count `limit`, or to a stop. See `idle` for why nothing may come."""
        self.idle = False
        stop = self._run(limit)
        self._inferiors.stale()
        if stop is not None:
            self.stepping.clear()
            self.is_resumed = False
            self.last_stop = stop
            self._reported = self._place()
            self._interrupted = False
        return stop

    def _run(self, limit: int) -> StopEvent | None:
        if not self._prepared:
            self._prepared = True
            self.prepare()
        if self.following.has_ended and (ended := self.following.ended()) is not None:
            return ended
        if self._interrupted:
            return self.stops.interrupted(self.vcpu)
        if not self.stops.covers_any():
            return NoResumed()
        stop = self.run_slice(limit)
        if stop is None and self._has_shut_down():
            return self.stops.domain_ended(self.vcpu)
        return stop

    def prepare(self) -> None:
        """The guest is about to run after a resume, or after a debugger may have changed something."""
        self.sources.prepare()
        self.following.prepare()

    def run_slice(self, limit: int) -> StopEvent | None:
        """Let the domain run to instruction count `limit`, to a stop, or to its end; or until nothing can run (`idle`).

        Time that passes while a vcpu spins counts as if instructions had been executed.
        """
        hv, cpu = self._hv, self._hv.cpu
        stepping, holding, agent = self.stepping, self.stops.holding, self.stops.agent
        enough, enough_steps = agent.evaluations + PATIENCE, cpu.predicate_steps + PREDICATE_STEPS
        spun, end_ns = False, hv.now() + limit - cpu.count
        if self.following.has_ended and (ended := self.following.ended()) is not None:
            return ended
        stop = self.sources.due()
        if stop is not None:
            return stop
        while not self._has_shut_down():
            # A step of a vcpu that has spun begins in the handler that ends this, not behind it.
            before = stepping.places() if stepping and not spun else ()
            vcpu = hv.schedule()
            if vcpu is None:
                if self._has_shut_down():
                    break
                self.idle = True
                return None
            if before:
                stepping.note_upcall(vcpu, before)
            stop = self.following.stored(vcpu)
            if stop is not None:
                return stop
            if cpu.count >= limit or agent.console.full or agent.evaluations > enough:
                return None
            if cpu.predicate_steps >= enough_steps:
                return None
            spun = holding.on and vcpu.domain is self._domain and holding.spins(vcpu)
            if spun:
                self.idle = not hv.spin(vcpu)
                if self.idle or hv.now() >= end_ns:
                    return None
                continue
            plan = stepping.due(vcpu) if stepping and vcpu.domain is self._domain else None
            stop = self._enter(vcpu, limit) if plan is None else stepping.take(vcpu, plan)
            self.sources.ran(vcpu)
            if stop is not None:
                return stop
        return None

    def _enter(self, vcpu: Vcpu, limit: int) -> StopEvent | None:
        """Let the guest run to its next exit."""
        hv = self._hv
        deferred = self.sources.take_deferred(vcpu)
        if deferred is not None:
            return self.sources.handle_deferred(vcpu, deferred)
        skip = bool(self._skips) and self._skips.take(place_of(vcpu))
        if self.stops.holding.on and not skip:
            skip = self.stops.holding.passes((vcpu.cr3, hv.cpu.rip, hv.cpu.gpr[RSP]))
        if skip and (stop := self.sources.leaving(vcpu)) is not None:
            return stop
        count = hv.cpu.count
        came = hv.enter(vcpu, self.sources.limit(vcpu, limit), skip_stop_point=skip)
        if vcpu.domain is not self._domain:
            self._pass_by(vcpu, came)
            return None
        match came:
            case DeadlineExit():
                if skip and hv.cpu.count == count:
                    self._skips.add(place_of(vcpu))
                    self.sources.stayed(vcpu)
                return None
            case StopPointExit(vaddr):
                return self._reached(vcpu, vaddr)
            case WatchExit():
                return self.sources.watched(vcpu, came)
            case _:
                return self.sources.handle(vcpu, came)

    def _reached(self, vcpu: Vcpu, vaddr: Vaddr) -> StopEvent | None:
        """A stop point: of a step that waits for an upcall's end, of a source, or a breakpoint of gdb."""
        ours, done = self.stepping.returned(vcpu, vaddr)
        if ours:
            return done
        stop = self.sources.reached(vcpu, vaddr) or self.stops.breakpoint(vcpu, vaddr)
        if stop is None:
            self._skips.add(place_of(vcpu))
        return stop

    def _pass_by(self, vcpu: Vcpu, came: Exit) -> None:
        """An exit of another domain is nobody's business."""
        if isinstance(came, StopPointExit):
            self._skips.add(place_of(vcpu))
        else:
            self._hv.handle(vcpu, came)

    def _has_shut_down(self) -> bool:
        return self._domain.shutdown_code is not None

    # -- places

    def _place(self) -> Place:
        return place_of(self.vcpu)
