"""The clients of one domain: where they come from, its debugger, and those who only observe.

While a debugger is connected, some further clients may come and look (`gallery`). What they may do is said by
`debug.observing` and by the packet table. They stay observers when the debugger leaves, and the next client to connect
is the debugger again; when a new domain is built they are disconnected.
"""

from collections.abc import Callable, Iterator, Mapping

from .client import Client
from .gallery import Gallery, how
from .listener import Channel, Listener
from .packet_log import DomainLog
from .served_domain import ServedDomain
from .served_machine import ServedMachine


class DomainClients:
    """Those who are connected to `domain`, at `listener` if there is one.

    `addresses`: where the debuggers of all domains connect, by domid.
    """

    def __init__(
        self,
        served: ServedMachine,
        domain: ServedDomain,
        listener: Listener | None,
        log: DomainLog | None,
        addresses: Callable[[], Mapping[int, str]],
    ) -> None:
        self._served = served
        self.domain = domain
        self.listener = listener
        self.log = log
        self._addresses = addresses
        self.debugger: Client | None = None
        self.gallery = Gallery()
        domain.clients = self

    @property
    def all(self) -> list[Client]:
        """The debugger, then the observers."""
        return [*([] if self.debugger is None else [self.debugger]), *self.gallery.clients]

    # -- ClientList

    def describe(self) -> Iterator[str]:
        """Who is connected."""
        debugger = self.debugger
        yield "debugger: " + (how(debugger.connection) if debugger is not None else "none; it is who connects next")
        yield from self.gallery.describe()

    def addresses(self) -> Mapping[int, str]:
        """Where the debugger of each domain connects."""
        return self._addresses()

    # -- coming

    def accept(self) -> Client | None:
        """Who has come to the listener; the client if it is the debugger."""
        assert self.listener is not None
        channel = self.listener.accept()
        for client in self.all:
            client.hear_out()
        self.dismiss()
        if self.debugger is None:
            return self.connect(channel)
        if not self.gallery.is_full:
            self.gallery.admit(channel, self.domain.target)
        else:
            channel.close()
        return None

    def connect(self, channel: Channel) -> Client:
        """The debugger comes."""
        was_free = self._served.is_free
        connection = self._served.connect(self.domain)
        if self.log is not None:
            self.log.connected()
        self.debugger = Client(channel, connection)
        if was_free:
            self.gallery.note_stop(self.domain.target.stop_status())
        return self.debugger

    def receive(self, client: Client) -> None:
        """A client has sent something."""
        if client is self.debugger:
            client.take(client.channel.receive())
        else:
            self.gallery.receive(client)

    # -- going

    def dismiss(self) -> None:
        """Clients that have gone are no clients any more."""
        self.gallery.dismiss_gone()
        if self.debugger is not None and self.debugger.gone:
            self._disconnect(self.debugger)

    def _disconnect(self, client: Client) -> None:
        client.close()
        self.debugger = None
        departure = client.connection.departure
        if self.log is not None and departure is not None:
            self.log.disconnected(departure)
        self._served.disconnect(self.domain, departure)

    def close(self) -> None:
        """Release all descriptors but the listener's."""
        for client in self.all:
            client.close()
