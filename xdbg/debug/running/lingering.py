"""Running without a debugger, for what it has left behind: commands of breakpoints, and a trace.

(``set disconnected-dprintf on``, ``set disconnected-tracing on``.) Nothing stops: where such a breakpoint is reached
its commands are run, a trace is a source as ever, and the guest goes on. As with a debugger, what the guest computes
stays the same.
"""

from typing import Final, Self

from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.agent import BreakpointAgent
from xdbg.machine.exits import StopPointExit, WatchExit
from xdbg.rsp.replies import StopEvent
from xdbg.xen.domain import Domain
from xdbg.xen.vcpu import Vcpu

from .places import Places, place_of
from .sources import Sources

PATIENCE: Final = 1000
"""Agent expressions, and hits of tracepoints, in one slice: a debugger that comes back is seen between slices."""


class Lingering:
    """The part in the run of a domain whose debugger has gone."""

    def __init__(self, inferiors: Inferiors, agent: BreakpointAgent, sources: Sources) -> None:
        self._domain = inferiors.domain
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self._agent = agent
        self._sources = sources
        self._passes = Places()
        """Where vcpus may go past a stop point: they have been looked at there."""
        self._enough = 0
        self.idle = False

    # -- Part: there is nobody to be told anything

    @property
    def run(self) -> Self:
        """The loop's side."""
        return self

    @property
    def stands(self) -> bool:
        """Never."""
        return False

    def begin(self) -> None:
        """Nothing."""

    def after(self, stop: StopEvent | None) -> StopEvent | None:
        """Nothing."""
        assert stop is None
        return stop

    def conclude(self, told: StopEvent | None) -> None:
        """Nothing."""

    # -- DomainRun

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self._domain

    @property
    def is_over(self) -> bool:
        """Its end is nobody's business."""
        return False

    @property
    def has_enough(self) -> bool:
        """Whether much has been printed or evaluated."""
        return self._agent.console.full or self._agent.evaluations >= self._enough

    def begin_slice(self) -> None:
        """A slice begins."""
        self.idle = False
        self._enough = self._agent.evaluations + PATIENCE

    def before_schedule(self) -> None:
        """Nothing."""

    def after_schedule(self, vcpu: Vcpu) -> None:
        """Nothing."""

    def spins(self, vcpu: Vcpu) -> bool:
        """Never."""
        del vcpu
        return False

    def turn(self, vcpu: Vcpu, limit: int) -> None:
        """A vcpu runs to its next exit."""
        hv, sources = self._hv, self._sources
        place = place_of(vcpu) if self._passes else None
        skip = place is not None and place in self._passes
        count = hv.cpu.count
        if skip:
            sources.leaving(vcpu)
        came = hv.enter(vcpu, sources.limit(vcpu, limit), skip_stop_point=skip)
        if place is not None and skip:
            if hv.cpu.count > count:
                self._passes.take(place)
            else:
                sources.stayed(vcpu)
        match came:
            case StopPointExit(vaddr):
                self._agent.hit(vcpu, self._inferiors.vcpu_thread(vcpu), vaddr)
                sources.reached(vcpu, vaddr)
                self._passes.add(place_of(vcpu))
            case _ if sources:
                sources.handle(vcpu, came)
            case _:
                hv.handle(vcpu, came)
        sources.ran(vcpu)

    def touched(self, came: WatchExit | None) -> None:
        """Nothing is watched."""
