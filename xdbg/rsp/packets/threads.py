"""Requests about threads."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import number
from xdbg.rsp.target import ThreadOptions
from xdbg.rsp.threadid import EVERY_THREAD, ThreadId


@dataclass(frozen=True, slots=True)
class SelectThread:
    """``HgID`` or ``HcID``."""

    pattern: ThreadId

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A thread id."""
        return cls(ThreadId.parse(arguments))


@dataclass(frozen=True, slots=True)
class SetThreadOptions:
    """``QThreadOptions;OPTIONS[:ID];...``. The last entry that covers a thread counts for it."""

    entries: tuple[tuple[ThreadOptions, ThreadId], ...]

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Entries in the order of the packet; one without a thread id is for all threads."""
        return cls(tuple(_entry(text) for text in arguments.split(b";")))


def _entry(text: bytes) -> tuple[ThreadOptions, ThreadId]:
    digits, separator, thread = text.partition(b":")
    options = number(digits)
    if options & ~sum(ThreadOptions):
        raise ValueError(f"unknown thread options: {options:#x}")
    return ThreadOptions(options), ThreadId.parse(thread) if separator else EVERY_THREAD
