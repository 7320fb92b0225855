"""What ``monitor trace`` needs of whoever writes traces."""

from collections.abc import Sequence
from typing import Protocol


class TraceControl(Protocol):
    """A trace that can be turned on and off. It joins the target's `observers` while it is on."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of events that can be chosen."""
        ...

    @property
    def active(self) -> Sequence[str]:
        """The kinds that are being recorded; empty while it is off."""
        ...

    @property
    def destination(self) -> str:
        """Where the trace goes, for people."""
        ...

    def start(self, kinds: Sequence[str]) -> None:
        """Record these kinds from now on, the usual ones if none is named. ValueError names one that does not exist."""
        ...

    def stop(self) -> None:
        """Record nothing."""
        ...
