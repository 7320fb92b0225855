"""Listening in on a connection: what a packet log is made of. No capability, and nothing that a client notices."""

from typing import Protocol


class Tap(Protocol):
    """Is told what a `Connection` does, in the order in which it does it."""

    def request(self, payload: bytes | None) -> None:
        """A request is about to be acted on; None for one that is too long to be kept."""

    def reply(self, payload: bytes) -> None:
        """A packet is sent: its payload as it stands on the wire; ``%`` before a notification's."""

    def interrupt(self) -> None:
        """The client's interrupt byte is about to take effect."""
