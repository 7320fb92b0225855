"""Stop points that the guest cannot see: where execution is to stop, and which bytes of RAM are watched."""

from dataclasses import dataclass
from enum import IntFlag

from xdbg.abi.frames import Maddr


class Access(IntFlag):
    """Which accesses a watch stops."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Watch:
    """Stop after an access to any of `length` bytes of RAM at `maddr`, whatever address space it came through.

    `owner` is the watcher's own name for it: several watches may cover the same bytes.
    """

    maddr: Maddr
    length: int
    access: Access
    owner: int = 0
