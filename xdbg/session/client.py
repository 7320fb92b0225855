"""A connected client: its transport, its side of the protocol, and the answers that wait to be sent.

A client that does not take its answers is asked for no more requests. One that only observes is answered one request
at a time, and then the others have their turn.
"""

from xdbg.rsp.connection import Connection, State

from .listener import Channel

_LAST_WORDS = 64
"""How many pieces are read from a client that may have gone when another one comes."""


class Client:
    """One debugger or observer."""

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self.channel = channel
        self.connection = connection
        self.unsent = b""
        """Answers that the client has no room for at the moment."""
        self._throttled = False
        """Requests wait until these have been sent."""

    def fileno(self) -> int:
        """What to wait on."""
        return self.channel.fileno()

    @property
    def gone(self) -> bool:
        """Whether it has left, or was made to."""
        return self.connection.state is State.DISCONNECTED

    @property
    def has_more(self) -> bool:
        """An observer's next request may be here already."""
        return self._throttled and self.connection.observing and not self.unsent

    def take(self, data: bytes) -> None:
        """What came from the client: requests, or b"" when it has gone. Answers are sent as far as there is room."""
        if data:
            self.connection.receive(data)
        else:
            self.connection.lose()
        self.send()

    def go_on(self) -> None:
        """Look at requests that are here already."""
        self.connection.receive(b"")
        self.send()

    def hear_out(self) -> None:
        """It may have gone already, and what it said before that has to be read first."""
        if self.unsent:
            self.send()
        for _ in range(_LAST_WORDS):
            if self.gone or self.unsent or self.has_more or (data := self.channel.receive_now()) is None:
                return
            self.take(data)

    def send(self) -> None:
        """Send what there is room for."""
        connection = self.connection
        try:
            while True:
                if not self.unsent:
                    self._throttled = connection.throttled
                    self.unsent = connection.data_to_send()
                if self.unsent:
                    self.unsent = self.unsent[self.channel.send(self.unsent) :]
                if self.unsent or not self._throttled or connection.observing:
                    break
                connection.receive(b"")
        except OSError:
            connection.lose()

    def close(self) -> None:
        """End the transport."""
        self.channel.close()
