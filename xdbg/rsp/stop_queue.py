"""The stops of non-stop that a client has not confirmed: it is told one at a time, and asks for the next by vStopped.

GDB manual: "Notification Packets", "Remote Non-Stop".
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from xdbg.rsp.replies import NoResumed, Ok, Reply, StopEvent, StopReply, ThreadExited

MAX_STOPS: Final = 4096
"""Stops of threads that may wait for a client."""


class StopQueue:
    """Stops, oldest first; the client has been told of the first. Behind it only the last one of each thread waits."""

    def __init__(self) -> None:
        self._stops: deque[StopEvent] = deque()

    def begin(self, stops: Iterable[StopEvent]) -> Reply:
        """Start a list of stops in place of what is there: the first of them, or OK."""
        self._stops = deque(stops)
        return self._stops[0] if self._stops else Ok()

    def confirm(self) -> Reply:
        """The client has taken in what it was told: the next stop, or OK."""
        if self._stops:
            self._stops.popleft()
        return self._stops[0] if self._stops else Ok()

    def put(self, stop: StopEvent) -> bool:
        """One more at the end; whether the client has to be notified of it, since it is told of nothing else."""
        subject = _subject(stop)
        for place in range(len(self._stops) - 1, 0, -1):
            if _subject(self._stops[place]) == subject:
                del self._stops[place]
        self._stops.append(stop)
        return len(self._stops) == 1

    def forget(self, pid: int) -> None:
        """A process has left the session. The first stop stays, since vStopped will be meant for that one."""
        self._stops = deque(stop for place, stop in enumerate(self._stops) if place == 0 or _subject(stop)[0] != pid)

    def clear(self) -> None:
        """Drop all."""
        self._stops.clear()

    def __len__(self) -> int:
        return len(self._stops)

    @property
    def is_flooded(self) -> bool:
        """Whether the client confirms too little."""
        return len(self._stops) > MAX_STOPS


def _subject(stop: StopEvent) -> tuple[int | None, int | None]:
    """Whom a stop is about: process and thread."""
    match stop:
        case StopReply(thread=thread) | ThreadExited(thread=thread):
            return thread.pid, thread.tid
        case NoResumed():
            return None, None
        case _:
            return stop.pid, None
