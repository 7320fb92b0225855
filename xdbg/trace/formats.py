"""The formats of a trace, by the names that a user gives."""

from collections.abc import Callable, Mapping
from typing import Protocol, TextIO

from .events import Record
from .jsonl import JsonlSink
from .text import TextSink


class Sink(Protocol):
    """Takes records, in order."""

    def write(self, record: Record, /) -> None:
        """Write one record."""


FORMATS: Mapping[str, Callable[[TextIO], Sink]] = {
    "text": TextSink,
    "jsonl": JsonlSink,
}
"""Name of a format -> its sink, made from an open text stream."""
