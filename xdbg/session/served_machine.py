"""A machine that is served to debuggers, one for each of its domains: who holds it, and who lets it run. No I/O.

The machine stands before its first instruction until a debugger lets it run. It is deterministic as a whole: all its
domains run, or none does and no time passes. It runs when no debugger has its domain stopped, and some debugger has
resumed its domain or has left it running. In detail, when the debugger of one domain

* connects, the machine stops;
* resumes, the machine runs, unless the debugger of another domain holds it;
* is told a stop, the machine stands until it resumes; the debuggers of the others are not told, and wait;
* detaches, its domain runs on without it. What breakpoint commands that it left behind print goes to the server's own
  stream, and so it does in non-stop;
* vanishes, the machine stands, unless another debugger has its domain running;
* kills its domain, or leaves after it has shut down, that domain is made anew and stands before its first instruction
  until the next debugger lets it go; the others run on;
* starts it anew, it gets such a new domain and stays.

A domain without a debugger holds nothing. If it shuts down or crashes, it stays as it is, to be looked at, and the
others run on. With a debugger its crash is a stop like any other.

The only domain of a machine is made anew by making the machine anew: time begins again, the domid is the same. One of
several is destroyed, and created again with a new domid (`Machine.renew`); time goes on, and the others notice what a
guest notices when `xl` does that: event channels that have no far end any more, keys that are gone from the store.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xdbg.debug.running.machine_run import MachineRun
from xdbg.debug.target import DebugTarget
from xdbg.rsp.connection import Connection, Departure
from xdbg.rsp.replies import StopEvent
from xdbg.xen.sched import domain_pause
from xdbg.xen.setup import Hypervisor, RunEnd

from .launch import LaunchError, Machine
from .served_domain import Household, ServedDomain, Surroundings


@dataclass(frozen=True, slots=True)
class Happened:
    """What a slice of the run meant for one debugger. `stop`: what it has been told; `unsaid`: text that it could not
    be told.
    """

    domain: ServedDomain
    stop: StopEvent | None
    unsaid: str


class ServedMachine:
    """The domains of what `launch` builds."""

    def __init__(self, launch: Callable[[], Machine], household: Household, surroundings: Surroundings) -> None:
        self._household = household
        self.machine = launch()
        self._run = MachineRun(self.machine.hv)
        self._free = False
        """A debugger has left the machine running."""
        self.idle = False
        """The last slice ended because nothing can run before there is input."""
        self.domains = [
            ServedDomain(launched, launched.domain.name, _Place(self, index), surroundings)
            for index, launched in enumerate(self.machine.domains)
        ]

    def begin(self) -> None:
        """Put the domains in their places."""
        for domain in self.domains:
            domain.stage(domain.launched, self._run, None)
            self._household.staged(domain)

    @property
    def hv(self) -> Hypervisor:
        """The machine as it is now."""
        return self.machine.hv

    @property
    def is_alone(self) -> bool:
        """Whether there is one domain only."""
        return len(self.domains) == 1

    # -- running

    @property
    def is_held(self) -> bool:
        """Whether a debugger holds the machine while another one has resumed its domain, and may press Ctrl-C."""
        return any(domain.holds for domain in self.domains) and any(domain.goes_on for domain in self.domains)

    @property
    def runs(self) -> bool:
        """Whether the machine runs, or would if it did not wait for an event."""
        if any(domain.holds for domain in self.domains):
            return False
        if self._free or any(domain.goes_on for domain in self.domains):
            return True
        return not self.is_alone and any(domain.is_let_go for domain in self.domains)

    def advance(self, limit: int) -> list[Happened]:
        """Run to instruction count `limit` at most, or to stops, which are told. `idle` says why nothing may happen.

        While the machine `is_held` nothing runs, but what those wait for who have resumed their domains is told.
        """
        debugged = [domain for domain in self.domains if domain.goes_on]
        if self.is_held:
            stops = self._run.ask([domain.target.part for domain in debugged])
            self.idle = True
            return list(self._tell(debugged, stops))
        for domain in debugged:
            domain.begin()
        left = [one for domain in self.domains if domain not in debugged and (one := domain.target.left_behind)]
        if debugged or left or not self.is_alone:
            stops = self._run.advance([*(domain.target.part for domain in debugged), *left], limit)
            self.idle = self._run.idle
        else:
            stops = []
            self.idle = self.hv.run(limit) is not RunEnd.LIMIT
        return [*self._tell(debugged, stops), *self._let_out(debugged)]

    def _tell(self, debugged: list[ServedDomain], stops: list[StopEvent | None]) -> Iterator[Happened]:
        for domain, stop in zip(debugged, stops, strict=False):
            connection = domain.connection
            assert connection is not None
            text = domain.target.console.take()
            # In non-stop the protocol has no place for it.
            unsaid = "" if text and connection.output(text) else text
            if stop is not None:
                domain.target.told(stop)
                connection.stop(stop)
            if text or stop is not None:
                yield Happened(domain, stop, unsaid)

    def _let_out(self, debugged: list[ServedDomain]) -> Iterator[Happened]:
        """What breakpoint commands have printed that nobody is there for."""
        for domain in self.domains:
            if domain not in debugged and (said := domain.target.console.take()):
                yield Happened(domain, None, said)

    # -- debuggers

    def connect(self, domain: ServedDomain) -> Connection:
        """The debugger of a domain comes; one that has shut down is made anew for it."""
        if domain.launched.domain.shutdown_code is not None:
            self._renew(domain)
        self._free = False
        return domain.connect(self._household.tap(domain))

    @property
    def is_free(self) -> bool:
        """Whether a debugger has left the machine running."""
        return self._free

    def disconnect(self, domain: ServedDomain, departure: Departure | None) -> None:
        """It has gone."""
        domain.connection = None
        detached = departure is Departure.DETACHED or not domain.target.threads()
        domain.target.disconnected()
        self._free = False
        if departure is Departure.KILLED or domain.launched.domain.shutdown_code is not None:
            self._household.tell(f"{self.named(domain)} starts anew")
            self._renew(domain)
            self._free = not self.is_alone
        elif detached:
            domain.begin()
            self._free = True

    def restart(self, domain: ServedDomain, append: str | None) -> DebugTarget:
        """The debugger that is there wants the domain anew; its target. What was traced there is traced here, too.

        Raises `LaunchError`.
        """
        before = domain.target
        self._household.leaves(domain)
        launched = self.machine.renew(domain.launched, append)
        self._household.tell(f"{self.named(domain)} starts anew")
        traced = [] if before.trace is None else list(before.trace.active)
        if before.trace is not None:
            before.trace.stop()
        self._stage(domain)
        target = domain.target
        assert domain.launched is launched
        if traced and target.trace is not None:
            target.trace.start(traced)
        target.connected()
        target.succeed(before)
        before.disconnected()
        return target

    def named(self, domain: ServedDomain) -> str:
        """How the people at the server call a domain."""
        return "the domain" if self.is_alone else f"domain {domain.name}"

    def _renew(self, domain: ServedDomain) -> None:
        """The same domain from its beginning; one of several waits there for a debugger.

        If one of several can't be made anew it stays as it is, and the people at the server are told why.
        """
        self._household.leaves(domain)
        try:
            launched = self.machine.renew(domain.launched)
        except LaunchError as error:
            if self.is_alone:
                raise
            self._household.tell(f"{self.named(domain)} can't be made anew: {error}")
            return
        self._stage(domain)
        if not self.is_alone:
            domain.waits = True
            domain_pause(launched.domain)

    def _stage(self, domain: ServedDomain) -> None:
        former = domain.target
        launched = self.machine.domains[self.domains.index(domain)]
        if launched.hv is self._run.hv:
            self._run.forget(former.domain)
        else:
            self._run = MachineRun(launched.hv)
        domain.waits = False
        domain.stage(launched, self._run, former)
        self._household.staged(domain)


class _Place:
    """`Stage` of one domain."""

    def __init__(self, served: ServedMachine, index: int) -> None:
        self._served = served
        self._index = index

    def restart(self, append: str | None) -> DebugTarget:
        """The domain from its beginning, in its place."""
        return self._served.restart(self._served.domains[self._index], append)
