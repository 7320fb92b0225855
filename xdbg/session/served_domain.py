"""One domain as its debugger sees it: the target, and the debugger's side of the protocol. No I/O.

The rules of what happens to the machine when a debugger comes, resumes and goes are those of `served_machine`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from xdbg.debug.client_list import ClientList
from xdbg.debug.running.machine_run import MachineRun
from xdbg.debug.target import DebugTarget
from xdbg.rsp.connection import Connection, State
from xdbg.rsp.tap import Tap
from xdbg.xen.sched import domain_unpause

from .core_files import CoreFiles
from .launch import Launched
from .restart import Stage
from .staging import make_target


class Household(Protocol):
    """What surrounds the domains: the server, or a replay."""

    def tap(self, domain: "ServedDomain") -> Tap | None:
        """Who listens in on the debugger's connection."""

    def staged(self, domain: "ServedDomain") -> None:
        """A domain stands there that was not there before."""

    def leaves(self, domain: "ServedDomain") -> None:
        """A domain is about to make room for the next one in its place."""

    def tell(self, text: str) -> None:
        """Something that the people at the server should know."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all targets of a machine get. Traces go to `stream`, cores into `dump_directory`."""

    stream: TextIO
    dump_directory: Path


class ServedDomain:
    """The place of one domain, which another takes when it is started anew."""

    def __init__(self, launched: Launched, name: str, stage: Stage, surroundings: Surroundings) -> None:
        self.name = name
        self.launched = launched
        self.clients: ClientList | None = None
        """What ``monitor clients`` lists."""
        self._stage = stage
        self._surroundings = surroundings
        self.target: DebugTarget
        self.connection: Connection | None = None
        """The debugger's."""
        self.waits = False
        """It was made anew with no debugger there: it stands before its first instruction, whatever the others do."""

    def stage(self, launched: Launched, run: MachineRun, former: DebugTarget | None) -> None:
        """Put a domain here; `former`: the target of the one before."""
        self.launched = launched
        around = self._surroundings
        self.target = make_target(launched, self._stage, around.stream, CoreFiles(around.dump_directory), run)
        self.target.clients = self.clients
        if former is not None:
            self.target.inherit(former)

    def connect(self, tap: Tap | None) -> Connection:
        """A debugger comes."""
        self.target.connected()
        self.connection = Connection(self.target)
        self.connection.tap = tap
        return self.connection

    @property
    def goes_on(self) -> bool:
        """Whether a debugger has resumed it."""
        connection = self.connection
        return connection is not None and (connection.state is State.RUNNING or self.target.runs)

    @property
    def holds(self) -> bool:
        """Whether a debugger has stopped it. One that has nothing attached stops nothing."""
        return self.connection is not None and not self.goes_on and bool(self.target.inferiors.pids())

    @property
    def is_let_go(self) -> bool:
        """Whether its debugger is there still and has nothing of it attached."""
        return self.connection is not None and not self.goes_on and not self.target.inferiors.pids()

    def begin(self) -> None:
        """A debugger lets it run: now it begins, if it waited for that."""
        if self.waits:
            self.waits = False
            domain_unpause(self.launched.domain)
