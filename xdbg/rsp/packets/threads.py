"""Requests about threads."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.threadid import ThreadId


@dataclass(frozen=True, slots=True)
class SelectThread:
    """``HgID`` or ``HcID``."""

    pattern: ThreadId

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A thread id."""
        return cls(ThreadId.parse(arguments))
