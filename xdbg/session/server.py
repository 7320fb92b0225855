"""Serving a machine to debuggers: one loop that runs the guests, polls the descriptors and delivers. No threads.

Each domain has an address of its own, where its debugger connects, and further clients that observe
(`domain_clients`). Who holds the machine and who lets it run is said in `served_machine`.

Ctrl-C from a debugger is seen between two slices of the run, within some milliseconds, and so are all requests of
observers, and of a debugger in non-stop.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from types import FrameType
from typing import Any

from xdbg.rsp.tap import Tap

from .client import Client
from .console import Terminal
from .domain_clients import DomainClients
from .launch import Machine
from .limits import Budget, Limits
from .listener import Channel, Listener
from .packet_log import PacketLog
from .run import NO_LIMITS
from .served_domain import ServedDomain, Surroundings
from .served_machine import ServedMachine

SLICE = 1_000_000
"""Instructions between two looks at the descriptors."""

SPINS = 256
"""How often an active client is looked for before the server goes to sleep: some hundred microseconds, in which the
next request of a debugger mostly comes; to be woken would cost as much again."""


class Server:
    """Serves what `launch` builds, each domain at its own of `listeners`, or the only one to who is behind `channel`.

    `console`: the number of the domain that the terminal's input goes to. `dump_directory`: where debuggers may have
    cores written; the working directory if it is None.
    """

    def __init__(
        self,
        launch: Callable[[], Machine],
        terminal: Terminal,
        *,
        listeners: Sequence[Listener] = (),
        channel: Channel | None = None,
        console: int = 0,
        announce: Callable[[str], None] | None = None,
        limits: Limits = NO_LIMITS,
        log: PacketLog | None = None,
        dump_directory: Path | None = None,
    ) -> None:
        self._terminal = terminal
        self._announce = announce
        self._budget = Budget(limits)
        self._log = log
        self._own_stream = sys.stderr
        self._clients: list[DomainClients] = []
        surroundings = Surroundings(self._own_stream, dump_directory if dump_directory is not None else Path())
        self.served = ServedMachine(launch, self, surroundings)
        for index, domain in enumerate(self.served.domains):
            listener = listeners[index] if listeners else None
            own_log = None if log is None else log.domains[index]
            self._clients.append(DomainClients(self.served, domain, listener, own_log, self.addresses))
        self._console = self._clients[console]
        self._ending = False
        self._active: Client | None = None
        """The debugger that has come or sent something just now."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self.served.begin()
        if channel is not None:
            self._active = self._clients[0].connect(channel)

    def close(self) -> None:
        """Release all descriptors."""
        for clients in self._clients:
            clients.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def end(self) -> None:
        """Make `serve` return soon. May be called from a signal handler or another thread."""
        self._ending = True
        with suppress(OSError):
            os.write(self._wake_write, b"\0")

    @property
    def wake_fd(self) -> int:
        """A byte written to this descriptor makes the server look up."""
        return self._wake_write

    @property
    def clients(self) -> Sequence[DomainClients]:
        """Of each domain."""
        return self._clients

    def addresses(self) -> Mapping[int, str]:
        """Where the debugger of each domain connects, by domid."""
        return {
            clients.domain.launched.domain.domid: clients.listener.name
            for clients in self._clients
            if clients.listener is not None
        }

    def serve(self, until: int | None = None) -> None:
        """Serve until `end`, until descriptor `until` is readable, or until the one debugger of a channel has gone.

        Raises `LimitReached` when a limit ends it before, `LaunchError` when a domain can't be made anew.
        """
        while not self._ending:
            again = self.advance()
            for clients in self._clients:
                again = clients.gallery.turn(clients.domain.target) or again
            self._budget.check(self.served.hv.cpu.count)
            if not again and self._spin():
                continue
            self._poll(until, again=again)
            self._dismiss()
            if all(clients.listener is None and clients.debugger is None for clients in self._clients):
                return

    def _poll(self, until: int | None, *, again: bool) -> None:
        """Wait for the descriptors, not at all if there is something to do, and look after those that are ready."""
        watched: list[Any] = [self._wake_read, until]
        full: list[Any] = []
        for clients in self._clients:
            for client in clients.all:
                # A client that does not take its answers is asked for no more requests.
                if client.unsent:
                    full.append(client)
                elif not client.has_more:
                    watched.append(client)
        if self.served.runs:
            watched.append(self._terminal.input_fd)
        # Last: who comes makes us read what others have sent.
        watched.extend(clients.listener for clients in self._clients)
        timeouts = [self._budget.seconds_left(), *(clients.gallery.seconds_left() for clients in self._clients)]
        timeout = 0 if again else min((one for one in timeouts if one is not None), default=None)
        ready, writable, _ = select([one for one in watched if one is not None], full, [], timeout)
        for client in writable:
            client.send()
        for one in ready:
            if isinstance(one, Listener):
                self._active = self._at(one).accept() or self._active
            elif isinstance(one, Client):
                self._receive(one)
            elif one == until:
                self._ending = True
                return
            elif one == self._wake_read:
                os.read(self._wake_read, 64)
            elif one == self._terminal.input_fd:
                self._type()

    def _spin(self) -> bool:
        """Wait a moment for the client that was heard of just now; whether it was heard of again."""
        client = self._active
        if client is None or client.gone or self.served.runs or client.unsent:
            return False
        for _ in range(SPINS):
            data = client.channel.receive_now()
            if data is not None:
                client.take(data)
                self._dismiss()
                return True
        self._active = None
        return False

    def _type(self) -> None:
        typed = self._terminal.poll(self._console.domain.launched.domain)
        if typed and self._console.log is not None:
            self._console.log.typed(typed)

    def _print(self, text: str) -> None:
        """What breakpoint commands say when there is no debugger to tell it."""
        print(text, end="", file=self._own_stream, flush=True)

    # -- Household

    def tap(self, domain: ServedDomain) -> Tap | None:
        """The packet log."""
        return self._of(domain).log

    def staged(self, domain: ServedDomain) -> None:
        """Those who looked at the former domain have nothing to look at any more."""
        for clients in self._clients:
            if clients.domain is domain:
                clients.gallery.dismiss_all()
        if self._log is not None:
            self._log.begin(self.served.hv)

    def leaves(self, domain: ServedDomain) -> None:
        """A domain is about to be no more: what it wrote last is shown."""
        self._terminal.flush(domain.launched.domain)

    def tell(self, text: str) -> None:
        """Say something on behalf of the server."""
        if self._announce is not None:
            self._announce(text)

    # -- the guests

    def advance(self) -> bool:
        """Run the machine for a slice, if it runs; whether to come back at once."""
        served = self.served
        if not served.runs and not served.is_held:
            return False
        if any(clients.debugger is not None and clients.debugger.unsent for clients in self._clients):
            return False  # more output would pile up
        happened = served.advance(self._budget.slice_end(served.hv.cpu.count, SLICE))
        for domain in served.domains:
            self._terminal.flush(domain.launched.domain)
        for one in happened:
            if one.unsaid:
                self._print(one.unsaid)
            clients = self._of(one.domain)
            if one.stop is not None:
                clients.gallery.note_stop(one.stop)
            if clients.debugger is not None:
                clients.debugger.send()
        if happened:
            self._dismiss()
        return served.runs and not served.idle

    # -- clients

    def _of(self, domain: ServedDomain) -> DomainClients:
        return next(clients for clients in self._clients if clients.domain is domain)

    def _at(self, listener: Listener) -> DomainClients:
        return next(clients for clients in self._clients if clients.listener is listener)

    def _receive(self, client: Client) -> None:
        for clients in self._clients:
            if client in clients.all:
                clients.receive(client)
                if client is clients.debugger:
                    self._active = client

    def _dismiss(self) -> None:
        for clients in self._clients:
            clients.dismiss()


@contextmanager
def end_on_signals(server: Server) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the server."""

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        server.end()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    # A signal that comes just before the server goes to sleep runs its handler only after it: the interpreter itself
    # has to wake it.
    woken_before = signal.set_wakeup_fd(server.wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, action in before.items():
            signal.signal(number, action)
