"""How long a session may go on: instructions of the domain, seconds of the host."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a user allows; None: no limit."""

    max_instructions: int | None = None
    timeout_s: float | None = None


class LimitReached(Exception):  # noqa: N818 - an outcome, not a mistake
    """A limit ended the session after `instructions` of its domain."""

    def __init__(self, instructions: int) -> None:
        super().__init__(f"limit reached after {instructions} instructions")
        self.instructions = instructions


class Budget:
    """What is left of limits; the time runs from its creation."""

    def __init__(self, limits: Limits) -> None:
        self._max_instructions = limits.max_instructions
        self._end = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s

    def slice_end(self, count: int, length: int) -> int:
        """The instruction count at which the next slice of `length` ends."""
        end = count + length
        return end if self._max_instructions is None else min(end, self._max_instructions)

    def seconds_left(self) -> float | None:
        """How long one may wait; None: for ever."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def is_spent(self, count: int) -> bool:
        """Whether a domain that has executed `count` instructions must stop."""
        if self._max_instructions is not None and count >= self._max_instructions:
            return True
        return self._end is not None and time.monotonic() >= self._end

    def check(self, count: int) -> None:
        """Raise `LimitReached` when it is spent."""
        if self.is_spent(count):
            raise LimitReached(count)
