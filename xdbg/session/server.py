"""Serving a domain to debuggers: one loop that runs the guest, polls the descriptors and delivers. No threads.

The domain stands before its first instruction until the first debugger resumes it. When a debugger

* detaches, the domain runs on without it; the next one to connect stops it. What breakpoint commands that it left
  behind print goes to the server's own stream (stderr);
* vanishes, the domain stands where it is;
* kills it, or leaves after it has shut down, a new domain is built in its place, before its first instruction again;
* starts it anew, it gets such a new domain and stays.

Ctrl-C from a debugger is seen between two slices of the run, within some milliseconds.
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

from .console import Terminal
from .core_files import CoreFiles
from .launch import Launched
from .limits import Budget, Limits
from .listener import Channel, Listener
from .restart import DomainRestart
from .run import NO_LIMITS
from .trace import ServedTrace

LAST_WORDS = 64
"""How many pieces are read from a client that may have gone when another one comes."""
SLICE = 1_000_000
"""Instructions between two looks at the descriptors."""

SPINS = 64
"""How often an active client is looked for before the server goes to sleep: some tens of microseconds, in which the
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
        dump_directory: Path | None = None,
    ) -> None:
        self._launch = launch
        self._terminal = terminal
        self._listener = listener
        self._announce = announce
        self._budget = Budget(limits)
        self._own_stream = sys.stderr
        self._core_files = CoreFiles(dump_directory if dump_directory is not None else Path())
        self._channel: Channel | None = None
        self._connection: Connection | None = None
        self._unsent = b""
        """Answers that the client has no room for at the moment."""
        self._throttled = False
        """Requests wait until these have been sent."""
        self._phase = _Phase.STOPPED
        self._ending = False
        self._active = False
        """Whether the client has sent something just now."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._start_over()
        if channel is not None:
            self._connect(channel)

    def close(self) -> None:
        """Release all descriptors."""
        if self._channel is not None:
            self._channel.close()
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
            self._budget.check(self._launched.hv.cpu.count)
            if not again and self._spin():
                continue
            watched: list[Any] = [self._wake_read, self._listener, until]
            full: list[Any] = []
            # A client that does not take its answers is asked for no more requests.
            (full if self._unsent else watched).append(self._channel)
            if self._runs:
                watched.append(self._terminal.input_fd)
            timeout = 0 if again else self._budget.seconds_left()
            ready, writable, _ = select([one for one in watched if one is not None], full, [], timeout)
            if writable:
                self._send()
            for one in ready:
                if one is self._listener:
                    self._accept()
                elif one is self._channel:
                    self._receive()
                elif one == until:
                    return
                elif one == self._wake_read:
                    os.read(self._wake_read, 64)
                elif one == self._terminal.input_fd:
                    self._terminal.poll(self._launched.domain)
            if self._listener is None and self._connection is None:
                return

    def _spin(self) -> bool:
        """Wait a moment for the client that was heard of just now; whether it was heard of again."""
        channel = self._channel
        if not self._active or channel is None or self._runs or self._unsent:
            return False
        for _ in range(SPINS):
            data = channel.receive_now()
            if data is not None:
                self._take(data)
                return True
        self._active = False
        return False

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
        self._stage(launched)
        if traced and self._target.trace is not None:
            self._target.trace.start(traced)
        self._target.connected()
        self._target.succeed(before)
        before.disconnected()
        return self._target

    def _start_over(self) -> None:
        self._stage(self._launch())

    def _stage(self, launched: Launched) -> None:
        self._launched = launched
        self._target = DebugTarget(launched.hv, launched.domain, launched.profile())
        self._target.parts.append(DomainRestart(self, launched, self._target.profile.kernel_path))
        self._target.trace = ServedTrace(self._launched, self._target.observers, self._own_stream)
        self._target.core_files = self._core_files
        self._phase = _Phase.STOPPED

    @property
    def _runs(self) -> bool:
        """Whether the guest runs, or would if it did not wait for an event."""
        if self._connection is not None:
            return self._connection.state is State.RUNNING or self._target.runs
        return self._phase is _Phase.FREE

    def _advance(self) -> bool:
        """Run the guest for a slice, if it runs; whether to come back at once."""
        hv = self._launched.hv
        connection = self._connection
        if connection is not None:
            if not self._runs:
                return False
            if self._unsent:
                return False  # more output would pile up
            stop = self._target.advance(self._budget.slice_end(hv.cpu.count, SLICE))
            self._terminal.flush(self._launched.domain)
            said = self._target.console.take()
            if said:
                connection.output(said)
            if stop is None:
                if said:
                    self._send()
                return not self._target.idle
            connection.stop(stop)
            self._send()
            return self._connection is not None and self._runs
        if self._phase is _Phase.FREE:
            ended = self._target.run_free(self._budget.slice_end(hv.cpu.count, SLICE))
            self._terminal.flush(self._launched.domain)
            if said := self._target.console.take():
                print(said, end="", file=self._own_stream, flush=True)
            return ended is RunEnd.LIMIT
        return False

    # -- the debugger

    def _accept(self) -> None:
        assert self._listener is not None
        channel = self._listener.accept()
        self._hear_out()
        if self._connection is not None:
            # One debugger at a time: a second one is turned away at once instead of being left waiting.
            channel.close()
            return
        self._connect(channel)

    def _hear_out(self) -> None:
        """The last client may have gone already, and what it said before that has to be read first."""
        if self._unsent:
            self._send()
        for _ in range(LAST_WORDS):
            if self._channel is None or self._unsent or (data := self._channel.receive_now()) is None:
                return
            self._take(data)

    def _connect(self, channel: Channel) -> None:
        if self._launched.domain.shutdown_code is not None:
            self._start_over()
        self._phase = _Phase.STOPPED
        self._target.connected()
        self._channel = channel
        self._connection = Connection(self._target)

    def _receive(self) -> None:
        if self._channel is not None:
            self._take(self._channel.receive())
            self._active = True

    def _take(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        if data:
            connection.receive(data)
        else:
            connection.lose()
        self._send()

    def _send(self) -> None:
        connection, channel = self._connection, self._channel
        assert connection is not None
        assert channel is not None
        try:
            while True:
                if not self._unsent:
                    self._throttled = connection.throttled
                    self._unsent = connection.data_to_send()
                if self._unsent:
                    self._unsent = self._unsent[channel.send(self._unsent) :]
                if self._unsent or not self._throttled:
                    break
                connection.receive(b"")
        except OSError:
            connection.lose()
        if connection.state is State.DISCONNECTED:
            self._disconnect(connection, channel)

    def _disconnect(self, connection: Connection, channel: Channel) -> None:
        channel.close()
        self._channel = None
        self._connection = None
        self._unsent = b""
        departure = connection.departure
        detached = departure is Departure.DETACHED or not self._target.threads()
        self._target.disconnected()
        if departure is Departure.KILLED or self._launched.domain.shutdown_code is not None:
            self._tell("the domain starts anew")
            self._start_over()
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
