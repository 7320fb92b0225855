"""The clients that only observe, and when they are told of the debugger's stops.

A debugger stops more often than its user sees: it steps over its own break points and through ranges. So observers are
told of a stop when it has lasted for `LASTING_S`. This is host time, and of no consequence to the guest.
"""

from collections.abc import Iterable, Iterator
from time import monotonic

from xdbg.debug.observing import ObservingTarget
from xdbg.debug.target import DebugTarget
from xdbg.rsp.connection import Connection, State
from xdbg.rsp.replies import ExitReply, StopEvent

from .client import Client
from .listener import Channel

MAX_OBSERVERS = 4
"""Clients beside the debugger. Who comes then is turned away at once instead of being left waiting."""
LASTING_S = 0.1
"""How long a stop of the debugger's lasts that its observers are told of."""


class Gallery:
    """The observers of one domain."""

    def __init__(self) -> None:
        self._members: list[tuple[Client, ObservingTarget]] = []
        self._untold: list[tuple[float, StopEvent]] = []
        """Stops of the debugger's, and when they will have lasted long enough."""

    @property
    def clients(self) -> list[Client]:
        """All observers, in the order in which they came."""
        return [client for client, _ in self._members]

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self._members) >= MAX_OBSERVERS

    def admit(self, channel: Channel, debugged: DebugTarget) -> None:
        """One more observer of what `debugged` is to its debugger."""
        view = ObservingTarget(debugged)
        view.connected()
        self._members.append((Client(channel, Connection(view, observing=True)), view))

    def dismiss_gone(self) -> None:
        """Those that have left are observers no more."""
        for member in [member for member in self._members if member[0].gone]:
            self._members.remove(member)
            member[0].close()
            member[1].disconnected()

    def dismiss_all(self) -> None:
        """The domain that they looked at is no more: who waits is told so, and the connections end."""
        self._untold.clear()
        for client, view in self._members:
            if client.connection.state is State.RUNNING:
                client.connection.stop(ExitReply(0, next(iter(view.inferiors.pids()), None)))
            client.send()
            client.close()
        self._members.clear()

    def describe(self) -> Iterator[str]:
        """One line for each."""
        for number, (client, view) in enumerate(self._members, 1):
            pids = view.inferiors.process_ids()
            processes = f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"
            looks = f", looks at the kernel and {processes}" if pids else ""
            yield f"observer {number}: {how(client.connection)}{looks}"
        yield f"room for {MAX_OBSERVERS - len(self._members)} more observers"

    # -- turns

    def receive(self, client: Client) -> None:
        """An observer has sent something."""
        for member, view in self._members:
            if member is client:
                view.look_again()
                client.take(client.channel.receive())

    def turn(self, debugged: DebugTarget) -> bool:
        """Look after each once; whether one has more to ask."""
        if not self._members:
            return False
        for client, view in self._members:
            if client.has_more:
                view.look_again()
                client.go_on()
            _tell(client, view.due())
        now = monotonic()
        while self._untold and self._untold[0][0] <= now:
            _, stop = self._untold.pop(0)
            if debugged.stands_after(stop):
                for client, view in self._members:
                    _tell(client, view.tell(stop))
        self.dismiss_gone()
        return any(client.has_more for client in self.clients)

    def seconds_left(self) -> float | None:
        """When `turn` has something to do by itself; None: never."""
        return max(0.0, self._untold[0][0] - monotonic()) if self._untold else None

    # -- stops

    def note_stop(self, stop: StopEvent) -> None:
        """The debugger has been told of a stop."""
        if any(view.waits for _, view in self._members):
            self._untold.append((monotonic() + LASTING_S, stop))


def how(connection: Connection) -> str:
    """How a client takes part."""
    mode = "non-stop" if connection.non_stop else "all-stop"
    return f"{mode}, waits for a stop" if connection.state is State.RUNNING else mode


def _tell(client: Client, events: Iterable[StopEvent]) -> None:
    """What an observer waited for."""
    connection = client.connection
    for event in events:
        if connection.non_stop or connection.state is State.RUNNING:
            connection.stop(event)
    if connection.state is not State.DISCONNECTED:
        client.send()
