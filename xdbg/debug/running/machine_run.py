"""The one loop that runs a machine, with all the debuggers of its domains.

A machine runs as a whole or stands as a whole: time is one for all its domains, and what one domain does can be seen by
another. So there is one loop. One turn: the hypervisor picks a vcpu, delivering what is due; the vcpu is entered; the
exit that comes back is the business of whoever debugs the vcpu's domain, and of Xen alone if nobody does. Whatever is
to be told to any debugger ends the slice, for all domains at the same instruction.

How a domain takes part in the run is a `Part`: with a debugger whose threads stop together (`run_control`) or one by
one (`non_stop`), or without one but with something that a debugger has left behind (`lingering`). A domain in which
nobody is interested has none.

What the domains share:

* Execution stop points are each domain's own. The CPU has those of the domain that it runs, so a breakpoint at an
  address that is text in several domains costs the others nothing.
* Watched bytes are machine addresses. All are watched whoever runs: a frame may be mapped by several domains, and what
  one of them does to it is told to the debugger of another that watches it, as a store of Xen's would be.
* Observers of what the hypervisor does are told of all domains.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from xdbg.machine.exits import WatchExit
from xdbg.machine.stoppoints import StopPoints, Watch
from xdbg.machine.watches import Watches
from xdbg.rsp.replies import StopEvent
from xdbg.xen.domain import Domain
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu

from .observers import Observers

PREDICATE_STEPS: Final = 2_000_000
"""Steps of predicates in one slice, more or less: Ctrl-C is seen between slices."""


class DomainRun(Protocol):
    """What the loop asks for one domain."""

    idle: bool
    """Nothing can run before there is input."""

    @property
    def domain(self) -> Domain:
        """The domain."""

    @property
    def is_over(self) -> bool:
        """Whether the domain has shut down, and somebody is to be told."""

    @property
    def has_enough(self) -> bool:
        """Whether so much has been evaluated or printed that a debugger has to be looked after."""

    def begin_slice(self) -> StopEvent | None:
        """The machine is about to run; what has to be told before that."""

    def before_schedule(self) -> None:
        """Xen may deliver something to the domain's vcpus now."""

    def after_schedule(self, vcpu: Vcpu) -> StopEvent | None:
        """It has, and this vcpu, of any domain, is the next to run."""

    def spins(self, vcpu: Vcpu) -> bool:
        """Whether a vcpu of the domain lets time pass instead of executing anything."""

    def turn(self, vcpu: Vcpu, limit: int) -> StopEvent | None:
        """A vcpu of the domain runs to its next exit, at most to instruction count `limit`, and Xen does its part."""

    def touched(self, came: WatchExit | None) -> StopEvent | None:
        """Another domain's vcpu has run: it may have accessed watched bytes, or had Xen do so."""


class Part(Protocol):
    """How a domain takes part in the run."""

    @property
    def run(self) -> DomainRun:
        """The loop's side."""

    @property
    def stands(self) -> bool:
        """Whether all of the domain stands still: then all of the machine does."""

    def begin(self) -> StopEvent | None:
        """What has to be told before anything runs."""

    def after(self, stop: StopEvent | None) -> StopEvent | None:
        """What has to be told after a slice in which the loop has met `stop`."""

    def conclude(self, told: StopEvent | None) -> None:
        """Note what is told."""


class SharedWatches:
    """The CPU's watches, for several who may watch the same bytes in the same way."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._users: dict[Watch, int] = {}
        self.came: WatchExit | None = None
        """An access that those who were not running have not been told of."""

    def add(self, watch: Watch) -> None:
        """One more who wants it."""
        self._users[watch] = self._users.get(watch, 0) + 1
        self._watches.add(watch)

    def remove(self, watch: Watch) -> None:
        """One less."""
        left = self._users.pop(watch, 0) - 1
        if left > 0:
            self._users[watch] = left
        else:
            self._watches.remove(watch)


class MachineRun:
    """The run of one machine, and what its debuggers have in common."""

    def __init__(self, hv: Hypervisor) -> None:
        self.hv = hv
        self.observers = Observers(hv)
        """Where others who want to be told what the hypervisor does join in."""
        self.watches = SharedWatches(hv.cpu.watches)
        self.idle = False
        """The last slice ended because nothing can run before there is input."""
        self._stop_points: dict[int, StopPoints] = {}
        self._no_stop_points = hv.cpu.new_stop_points()

    def stop_points(self, domain: Domain) -> StopPoints:
        """Those of one domain. With only one they stay in the CPU."""
        found = self._stop_points.get(domain.domid)
        if found is None:
            present = self.hv.cpu.stop_points
            is_free = not self._stop_points and present is not self._no_stop_points
            found = present if is_free else self.hv.cpu.new_stop_points()
            self._stop_points[domain.domid] = found
        return found

    def forget(self, domain: Domain) -> None:
        """A domain is no more."""
        gone = self._stop_points.pop(domain.domid, None)
        if gone is not None:
            gone.clear()
            if self.hv.cpu.stop_points is gone:
                self.hv.cpu.use_stop_points(self._no_stop_points)

    def advance(self, parts: Sequence[Part], limit: int) -> list[StopEvent | None]:
        """Run the machine to instruction count `limit`, or until some debugger must be told something.

        What each of `parts` is told, None if it is nothing. `idle` says why there may be nothing for all of them.
        """
        self.idle = False
        events = [part.begin() for part in parts]
        if not any(events):
            self.idle = any(part.stands for part in parts)
            if not self.idle:
                stops = self._slice([part.run for part in parts], limit)
                events = [part.after(stops.get(id(part.run))) for part in parts]
        for part, event in zip(parts, events, strict=True):
            part.conclude(event)
        return events

    def ask(self, parts: Sequence[Part]) -> list[StopEvent | None]:
        """What has to be told although nothing may run, as after Ctrl-C, to those who have resumed their domains."""
        self.idle = True
        events = [part.begin() for part in parts]
        for part, event in zip(parts, events, strict=True):
            part.conclude(event)
        return events

    def _slice(self, runs: Sequence[DomainRun], limit: int) -> dict[int, StopEvent]:
        """Stops by the identity of their run; none at the limit, when a domain is over, or when nothing can run.

        Time that passes while a vcpu spins counts as if instructions had been executed.
        """
        hv, cpu, watches = self.hv, self.hv.cpu, self.watches
        enough_steps = cpu.predicate_steps + PREDICATE_STEPS
        end_ns = hv.now() + limit - cpu.count
        by_domid = {run.domain.domid: run for run in runs}
        alone = len(hv.domains) == 1
        if alone and runs:
            cpu.use_stop_points(self.stop_points(runs[0].domain))
        stops = {id(run): stop for run in runs if (stop := run.begin_slice()) is not None}
        while not stops:
            for run in runs:
                if run.is_over:
                    return stops
                run.before_schedule()
            vcpu = hv.schedule()
            if vcpu is None or not alone:
                if any(run.is_over for run in runs):
                    return stops
                if vcpu is None:
                    self._rest(runs)
                    return stops
            for run in runs:
                stop = run.after_schedule(vcpu)
                if stop is not None:
                    stops[id(run)] = stop
            if stops or cpu.count >= limit or cpu.predicate_steps >= enough_steps:
                return stops
            for run in runs:
                if run.has_enough:
                    return stops
            mine = by_domid.get(vcpu.domain.domid)
            if mine is None:
                self._pass_by(vcpu, limit)
            elif mine.spins(vcpu):
                if not hv.spin(vcpu):
                    self._rest(runs)
                    return stops
                if hv.now() >= end_ns:
                    return stops
                continue
            else:
                if not alone:
                    cpu.use_stop_points(self.stop_points(mine.domain))
                stop = mine.turn(vcpu, limit)
                if stop is not None:
                    stops[id(mine)] = stop
            if not alone:
                came, watches.came = watches.came, None
                for run in runs:
                    if run is not mine and (stop := run.touched(came)) is not None:
                        stops[id(run)] = stop
        return stops

    def _pass_by(self, vcpu: Vcpu, limit: int) -> None:
        """A vcpu of a domain that nobody debugs runs to its next exit."""
        hv = self.hv
        hv.cpu.use_stop_points(self._no_stop_points)
        came = hv.enter(vcpu, limit)
        if isinstance(came, WatchExit):
            self.watches.came = came
        else:
            hv.handle(vcpu, came)

    def _rest(self, runs: Sequence[DomainRun]) -> None:
        self.idle = True
        for run in runs:
            run.idle = True
