"""Who is connected, for ``monitor clients``; the session implements it."""

from collections.abc import Iterable, Mapping
from typing import Protocol


class ClientList(Protocol):
    """The clients of one domain."""

    def describe(self) -> Iterable[str]:
        """One line for each: the debugger first, then observers in the order in which they came."""

    def addresses(self) -> Mapping[int, str]:
        """Where the debuggers of all domains of the machine connect, by domid; not all need to have one."""
