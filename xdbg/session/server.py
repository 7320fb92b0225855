"""Serving a domain to debuggers: one loop that runs the guest, polls the descriptors and delivers. No threads.

The domain stands before its first instruction until the first debugger resumes it. When a debugger

* detaches, the domain runs on without it; the next one to connect stops it. What breakpoint commands that it left
  behind print goes to the server's own stream (stderr), and so it does in non-stop;
* vanishes, the domain stands where it is;
* kills it, or leaves after it has shut down, a new domain is built in its place, before its first instruction again;
* starts it anew, it gets such a new domain and stays.

While a debugger is connected, some further clients may come and look (`gallery`). What they may do is said by
`debug.observing` and by the packet table. They stay observers when the debugger leaves, and the next client to connect
is the debugger again; when a new domain is built they are disconnected.

Ctrl-C from a debugger is seen between two slices of the run, within some milliseconds, and so are all requests of
observers, and of a debugger in non-stop.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from select import select
from types import FrameType
from typing import Any

from xdbg.debug.target import DebugTarget
from xdbg.rsp.connection import Connection, Departure, State
from xdbg.xen.setup import RunEnd

from .client import Client
from .console import Terminal
from .core_files import CoreFiles
from .gallery import Gallery, how
from .launch import Launched
from .limits import Budget, Limits
from .listener import Channel, Listener
from .packet_log import PacketLog
from .run import NO_LIMITS
from .staging import make_target

SLICE = 1_000_000
"""Instructions between two looks at the descriptors."""

SPINS = 256
"""How often an active client is looked for before the server goes to sleep: some hundred microseconds, in which the
next request of a debugger mostly comes; to be woken would cost as much again."""


class _Phase(Enum):
    STOPPED = "stopped"
    FREE = "running without a debugger"


class Server:
    """Serves what `launch` builds at `listener`, or to the one debugger behind `channel`.

    `dump_directory`: where debuggers may have cores written; the working directory if it is None.
    """

    def __init__(
        self,
        launch: Callable[[], Launched],
        terminal: Terminal,
        *,
        listener: Listener | None = None,
        channel: Channel | None = None,
        announce: Callable[[str], None] | None = None,
        limits: Limits = NO_LIMITS,
        log: PacketLog | None = None,
        dump_directory: Path | None = None,
    ) -> None:
        self._launch = launch
        self._terminal = terminal
        self._listener = listener
        self._announce = announce
        self._budget = Budget(limits)
        self._log = log
        self._own_stream = sys.stderr
        self._core_files = CoreFiles(dump_directory if dump_directory is not None else Path())
        self._client: Client | None = None
        """The debugger."""
        self._gallery = Gallery()
        self._phase = _Phase.STOPPED
        self._ending = False
        self._active = False
        """Whether the client has come or sent something just now."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._start_over()
        if channel is not None:
            self._connect(channel)

    def close(self) -> None:
        """Release all descriptors."""
        for client in self._clients:
            client.close()
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

    def serve(self, until: int | None = None) -> None:
        """Serve until `end`, until descriptor `until` is readable, or until the one debugger of a channel has gone.

        Raises `LimitReached` when a limit ends it before.
        """
        while not self._ending:
            again = self._advance()
            again = self._gallery.turn(self._target) or again
            self._budget.check(self._launched.hv.cpu.count)
            if not again and self._spin():
                continue
            watched: list[Any] = [self._wake_read, until]
            full: list[Any] = []
            for client in self._clients:
                # A client that does not take its answers is asked for no more requests.
                if client.unsent:
                    full.append(client)
                elif not client.has_more:
                    watched.append(client)
            if self._runs:
                watched.append(self._terminal.input_fd)
            watched.append(self._listener)  # last: who comes makes us read what others have sent
            timeouts = [self._budget.seconds_left(), self._gallery.seconds_left()]
            timeout = 0 if again else min((one for one in timeouts if one is not None), default=None)
            ready, writable, _ = select([one for one in watched if one is not None], full, [], timeout)
            for client in writable:
                client.send()
            for one in ready:
                if one is self._listener:
                    self._accept()
                elif isinstance(one, Client):
                    self._receive(one)
                elif one == until:
                    return
                elif one == self._wake_read:
                    os.read(self._wake_read, 64)
                elif one == self._terminal.input_fd:
                    self._type()
            self._dismiss()
            if self._listener is None and self._client is None:
                return

    def _spin(self) -> bool:
        """Wait a moment for the client that was heard of just now; whether it was heard of again."""
        client = self._client
        if not self._active or client is None or self._runs or client.unsent:
            return False
        for _ in range(SPINS):
            data = client.channel.receive_now()
            if data is not None:
                client.take(data)
                self._dismiss()
                return True
        self._active = False
        return False

    def _type(self) -> None:
        typed = self._terminal.poll(self._launched.domain)
        if typed and self._log is not None:
            self._log.typed(typed)

    def _print(self, text: str) -> None:
        """What breakpoint commands say when there is no debugger to tell it."""
        print(text, end="", file=self._own_stream, flush=True)

    def _tell(self, text: str) -> None:
        if self._announce is not None:
            self._announce(text)

    # -- the guest

    def replace(self, launched: Launched) -> DebugTarget:
        """The debugger that is there wants the domain anew: this one takes the place of the one up to now.

        What was traced there is traced here, too.
        """
        before = self._target
        self._terminal.flush(self._launched.domain)
        self._tell("the domain starts anew")
        traced = [] if before.trace is None else list(before.trace.active)
        if before.trace is not None:
            before.trace.stop()
        self._stage(launched, before)
        if traced and self._target.trace is not None:
            self._target.trace.start(traced)
        self._target.connected()
        self._target.succeed(before)
        before.disconnected()
        return self._target

    def _start_over(self, former: DebugTarget | None = None) -> None:
        self._stage(self._launch(), former)

    def _stage(self, launched: Launched, former: DebugTarget | None) -> None:
        self._gallery.dismiss_all()
        self._launched = launched
        if self._log is not None:
            self._log.begin(launched.hv)
        self._target = make_target(launched, self, self._own_stream, self._core_files)
        self._target.clients = self
        if former is not None:
            self._target.inherit(former)
        self._phase = _Phase.STOPPED

    @property
    def _runs(self) -> bool:
        """Whether the guest runs, or would if it did not wait for an event."""
        if self._client is not None:
            return self._client.connection.state is State.RUNNING or self._target.runs
        return self._phase is _Phase.FREE

    def _advance(self) -> bool:
        """Run the guest for a slice, if it runs; whether to come back at once."""
        hv = self._launched.hv
        client = self._client
        if client is not None:
            if not self._runs:
                return False
            if client.unsent:
                return False  # more output would pile up
            stop = self._target.advance(self._budget.slice_end(hv.cpu.count, SLICE))
            self._terminal.flush(self._launched.domain)
            said = self._target.console.take()
            if said and not client.connection.output(said):
                self._print(said)  # in non-stop the protocol has no place for it
            if stop is None:
                if said:
                    client.send()
                    self._dismiss()
                return not self._target.idle
            client.connection.stop(stop)
            self._gallery.note_stop(stop)
            client.send()
            self._dismiss()
            return self._runs
        if self._phase is _Phase.FREE:
            ended = self._target.run_free(self._budget.slice_end(hv.cpu.count, SLICE))
            self._terminal.flush(self._launched.domain)
            if said := self._target.console.take():
                self._print(said)
            return ended is RunEnd.LIMIT
        return False

    # -- clients

    def describe(self) -> Iterator[str]:
        """Who is connected."""
        debugger = self._client
        yield "debugger: " + (how(debugger.connection) if debugger is not None else "none; it is who connects next")
        yield from self._gallery.describe()

    @property
    def _clients(self) -> list[Client]:
        return [*([] if self._client is None else [self._client]), *self._gallery.clients]

    def _accept(self) -> None:
        assert self._listener is not None
        channel = self._listener.accept()
        for client in self._clients:
            client.hear_out()
        self._dismiss()
        if self._client is None:
            self._connect(channel)
        elif not self._gallery.is_full:
            self._gallery.admit(channel, self._target)
        else:
            channel.close()

    def _connect(self, channel: Channel) -> None:
        if self._launched.domain.shutdown_code is not None:
            self._start_over(self._target)
        was_free = self._phase is _Phase.FREE
        self._phase = _Phase.STOPPED
        if self._log is not None:
            self._log.connected()
        self._target.connected()
        self._client = Client(channel, Connection(self._target))
        self._client.connection.tap = self._log
        self._active = True
        if was_free:
            self._gallery.note_stop(self._target.stop_status())

    def _receive(self, client: Client) -> None:
        if client is self._client:
            client.take(client.channel.receive())
            self._active = True
        else:
            self._gallery.receive(client)

    def _dismiss(self) -> None:
        """Clients that have gone are no clients any more."""
        self._gallery.dismiss_gone()
        if self._client is not None and self._client.gone:
            self._disconnect(self._client)

    def _disconnect(self, client: Client) -> None:
        client.close()
        self._client = None
        departure = client.connection.departure
        if self._log is not None and departure is not None:
            self._log.disconnected(departure)
        detached = departure is Departure.DETACHED or not self._target.threads()
        self._target.disconnected()
        if departure is Departure.KILLED or self._launched.domain.shutdown_code is not None:
            self._tell("the domain starts anew")
            self._start_over(self._target)
        elif detached:
            self._phase = _Phase.FREE


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
