"""Running without a debugger, for what it has left behind: commands of breakpoints, and a trace.

(``set disconnected-dprintf on``, ``set disconnected-tracing on``.) Nothing stops: where such a breakpoint is reached
its commands are run, a trace is a source as ever, and the guest goes on. As with a debugger, what the guest computes
stays the same.
"""

from typing import Final

from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.agent import BreakpointAgent
from xdbg.machine.exits import StopPointExit
from xdbg.xen.setup import RunEnd

from .places import Places, place_of
from .run_control import PREDICATE_STEPS
from .sources import Sources

PATIENCE: Final = 1000
"""Agent expressions, and hits of tracepoints, in one slice: a debugger that comes back is seen between slices."""


class Lingering:
    """The run of a domain whose debugger has gone."""

    def __init__(self, inferiors: Inferiors, agent: BreakpointAgent, sources: Sources) -> None:
        self._domain = inferiors.domain
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self._agent = agent
        self._sources = sources
        self._passes = Places()
        """Where vcpus may go past a stop point: they have been looked at there."""

    def run(self, limit: int) -> RunEnd:
        """Run the domains to instruction count `limit` at the most, less far when much is printed or evaluated."""
        hv, agent, sources = self._hv, self._agent, self._sources
        enough, enough_steps = agent.evaluations + PATIENCE, hv.cpu.predicate_steps + PREDICATE_STEPS
        while hv.cpu.count < limit and not agent.console.full and agent.evaluations < enough:
            if hv.cpu.predicate_steps >= enough_steps:
                break
            vcpu = hv.schedule()
            if vcpu is None:
                return hv.idle_reason()
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
                    if vcpu.domain is self._domain:
                        agent.hit(vcpu, self._inferiors.vcpu_thread(vcpu), vaddr)
                        sources.reached(vcpu, vaddr)
                    self._passes.add(place_of(vcpu))
                case _ if sources and vcpu.domain is self._domain:
                    sources.handle(vcpu, came)
                case _:
                    hv.handle(vcpu, came)
            sources.ran(vcpu)
        return RunEnd.LIMIT if hv.alive else RunEnd.SHUT_DOWN
