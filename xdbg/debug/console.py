"""Text for the debugger's console beside its answers: printed by breakpoints, or said by the server.

It waits here until the session takes it, which it does after each slice of the run and before a stop is told.
"""

from typing import Final

ROOM: Final = 1 << 16
"""Characters that may wait; with more, the guest makes a pause until they have been taken."""


class Console:
    """A queue of text, in the order in which it was written."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Put text at the end."""
        if text:
            self._waiting.append(text)
            self._size += len(text)

    def say(self, line: str) -> None:
        """Put one line at the end, given without its end."""
        self.write(f"{line}\n")

    def take(self) -> str:
        """All that waits; nothing is left."""
        text = "".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return text

    @property
    def full(self) -> bool:
        """Whether it is time to take it."""
        return self._size >= ROOM
