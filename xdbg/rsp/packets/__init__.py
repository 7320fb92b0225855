"""Requests: what a client's packets say, as values. GDB manual: "Packets", "General Query Packets", "Host I/O Packets".

One module per subject, named as in `handlers`. Each class has `parse`, which gets the arguments of a packet (what
stands behind the name in the packet table) and is strict: whatever it does not accept is a ValueError, and nothing else
is ever raised. Numbers are hexadecimal without sign and prefix. Data is already unescaped.
"""

from typing import Protocol, Self


class Request(Protocol):
    """What the packet table needs of a request."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The request, from a packet's arguments."""
        ...
