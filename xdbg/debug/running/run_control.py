"""Running the guest until gdb must be told something: one domain's part in the run of its machine (`machine_run`).

`resume` notes what is to be done; the machine's loop then runs all domains in slices, and asks here what is to be done
with a vcpu of this one: it is entered, or steps one instruction (`stepping`); the exit that comes back is looked at
before Xen handles it (`following`). Stop points, steps and watches are no events of the guest, and Xen delivers
nothing on them. So a guest that is debugged computes the same, at the same instruction counts, as one that is not.

Resuming at the very place of the last stop goes past a breakpoint there, once: clients that keep theirs inserted
would not get on. If the vcpu is diverted by an upcall first, this holds until it comes back to that place. A stop
point that is nobody's business is passed in the same way.
"""

from collections.abc import Sequence
from errno import ESRCH
from typing import Final, Self

from xdbg.abi.frames import Vaddr
from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.points.watchpoints import Watchpoints
from xdbg.machine.exits import DeadlineExit, StopPointExit, WatchExit
from xdbg.machine.registers import RSP
from xdbg.rsp.replies import NoResumed, StopEvent
from xdbg.rsp.target import ResumeAction, TargetError
from xdbg.xen.domain import Domain
from xdbg.xen.vcpu import Vcpu

from .following import Following
from .machine_run import MachineRun
from .places import Place, Places, place_of
from .sources import Sources
from .stepping import Stepping
from .stops import Stops

PATIENCE: Final = 1000
"""Agent expressions that may be evaluated in one slice: Ctrl-C is seen between slices."""


class RunControl:
    """The run state of one domain, as its debugger wants it."""

    def __init__(
        self,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        watchpoints: Watchpoints,
        machine: MachineRun,
        console: Console,
    ) -> None:
        self._domain = inferiors.domain
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self.stops = Stops(inferiors, breakpoints, console)
        self.following = Following(inferiors, breakpoints, watchpoints, self.stops, machine)
        self.sources = Sources(self.following, breakpoints)
        self.stepping = Stepping(inferiors, breakpoints, self.stops, self.following, self.sources)
        self.idle = False
        """The last slice ended because nothing can run before there is input."""
        self.last_stop: StopEvent = self.stops.standing()
        self.is_resumed = False
        """The threads go on, or would if the machine ran."""
        self._prepared = False
        self._interrupted = False
        self._reported: Place | None = None
        self._skips = Places()
        """Where vcpus may go past a stop point."""
        self._enough = 0
        self._spun = False
        self._before: tuple[tuple[Vcpu, int], ...] = ()
        """Where vcpus that are to step were before Xen may have delivered something to them."""

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
        self._skips.forget(place[0])
        if passes and self.stepping.due(place[0]) is None:
            self._skips.add(place)
        if self._reported is not None and place != self._reported:
            self.sources.moved(self._reported)
        self._hold_others()
        self.is_resumed = True
        self._prepared = False
        self._interrupted = False

    def _hold_others(self) -> None:
        """If some vcpus were resumed and others were not, those stand still."""
        vcpus = self._domain.vcpus
        resumed = [vcpu for vcpu in vcpus if self.stops.covers(self._inferiors.vcpu_thread(vcpu))]
        for vcpu in vcpus:
            vcpu.paused = bool(resumed) and vcpu not in resumed

    def _let_go(self) -> None:
        for vcpu in self._domain.vcpus:
            vcpu.paused = False

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
        self._let_go()
        self._reported = None
        self._skips.clear()
        self._interrupted = False

    # -- Part

    @property
    def run(self) -> Self:
        """The loop's side."""
        return self

    @property
    def stands(self) -> bool:
        """Whoever has resumed any thread has resumed the domain."""
        return False

    def begin(self) -> StopEvent | None:
        """What has to be told before the guest runs."""
        self.idle = False
        if not self._prepared:
            self._prepared = True
            self.prepare()
        if self.following.has_ended and (ended := self.following.ended()) is not None:
            return ended
        if self._interrupted:
            return self.stops.interrupted(self.vcpu)
        if not self.stops.covers_any():
            return NoResumed()
        return None

    def prepare(self) -> None:
        """The guest is about to run after a resume, or after a debugger may have changed something."""
        self.sources.prepare()
        self.following.prepare()

    def after(self, stop: StopEvent | None) -> StopEvent | None:
        """The stop, or the domain's end."""
        return self.stops.domain_ended(self.vcpu) if stop is None and self.is_over else stop

    def conclude(self, told: StopEvent | None) -> None:
        """The debugger is told this: the domain stands."""
        self._inferiors.stale()
        if told is not None:
            self.stepping.clear()
            self._let_go()
            self.is_resumed = False
            self.last_stop = told
            self._reported = self._place()
            self._interrupted = False

    # -- DomainRun

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self._domain

    @property
    def is_over(self) -> bool:
        """Whether it has shut down."""
        return self._domain.shutdown_code is not None

    @property
    def has_enough(self) -> bool:
        """Whether so much has been evaluated or printed that the debugger has to be looked after."""
        agent = self.stops.agent
        return agent.console.full or agent.evaluations > self._enough

    def begin_slice(self) -> StopEvent | None:
        """What has happened earlier and has to be told now."""
        self._enough = self.stops.agent.evaluations + PATIENCE
        self._spun = False
        if self.following.has_ended and (ended := self.following.ended()) is not None:
            return ended
        return self.sources.due()

    def before_schedule(self) -> None:
        """Note where the vcpus are that are to step."""
        # A step of a vcpu that has spun begins in the handler that ends this, not behind it.
        self._before = self.stepping.places() if self.stepping and not self._spun else ()
        self._spun = False

    def after_schedule(self, vcpu: Vcpu) -> StopEvent | None:
        """An upcall's handler runs before a step; what was delivered may have been watched."""
        if self._before and vcpu.domain is self._domain:
            self.stepping.note_upcall(vcpu, self._before)
        return self.following.stored(vcpu if vcpu.domain is self._domain else self.vcpu)

    def spins(self, vcpu: Vcpu) -> bool:
        """Whether a vcpu is in user mode of a process that stands still in non-stop."""
        holding = self.stops.holding
        self._spun = holding.on and holding.spins(vcpu)
        return self._spun

    def turn(self, vcpu: Vcpu, limit: int) -> StopEvent | None:
        """The vcpu runs to its next exit, or takes a step."""
        plan = self.stepping.due(vcpu) if self.stepping else None
        stop = self._enter(vcpu, limit) if plan is None else self.stepping.take(vcpu, plan)
        self.sources.ran(vcpu)
        return stop

    def touched(self, came: WatchExit | None) -> StopEvent | None:
        """What another domain has done to watched bytes, itself or through Xen."""
        vcpu = self.vcpu
        stop = None if came is None else self.following.touched(vcpu, came)
        return stop or self.following.stored(vcpu)

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

    # -- places

    def _place(self) -> Place:
        return place_of(self.vcpu)
