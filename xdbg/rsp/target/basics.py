"""What each target has: threads, registers, memory; and how it fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL
from typing import Protocol, runtime_checkable

from xdbg.rsp.replies import StopEvent
from xdbg.rsp.threadid import Thread


class TargetError(Exception):
    """The target can't do what gdb asked.

    `errno` (Linux numbering) is sent as ``E NN``; `text` explains it to a client that takes text.
    """

    def __init__(self, errno: int = EINVAL, text: str = "") -> None:
        super().__init__(errno, text)
        self.errno = errno
        self.text = text


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A line of ``info threads``. `core` is the CPU that it runs on, `extra` free text in parentheses."""

    thread: Thread
    name: str = ""
    core: int | None = None
    extra: str = ""


@runtime_checkable
class Target(Protocol):
    """What each target must have: threads, registers, memory."""

    @property
    def parts(self) -> Sequence[object]:
        """Objects that implement protocols which the target itself does not. They stay the same for its life."""
        ...

    def threads(self) -> Sequence[ThreadInfo]:
        """The threads of all attached processes, in a stable order, the first process first."""
        ...

    def is_alive(self, thread: Thread) -> bool:
        """Whether `threads()` would list it."""
        ...

    def stop_status(self) -> StopEvent:
        """Why the target stands still now: the answer to ``?``, also before the first resume.

        With no process attached it is ``ExitReply(0)``.
        """
        ...

    def read_registers(self, thread: Thread) -> bytes:
        """The `g` block: 560 bytes, laid out as `registers` says."""
        ...

    def write_registers(self, thread: Thread, block: bytes) -> None:
        """Sets all registers of the `g` block (560 bytes)."""
        ...

    def read_register(self, thread: Thread, regnum: int) -> bytes:
        """One register by gdb's number, little-endian; those beyond the `g` block too. TargetError if unknown."""
        ...

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        """Sets one register; `value` has the register's size in `registers`, little-endian."""
        ...

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        """Memory from `vaddr`; may be short at an unreadable page. TargetError(EFAULT) when not one byte can be read.

        What the guest has put there: never a breakpoint instruction of ours.
        """
        ...

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        """Writes all of `data`, whatever the page's permissions; TargetError(EFAULT) if a page is missing."""
        ...


@runtime_checkable
class LoadAddresses(Protocol):
    """Programs that do not lie where their file says: a kernel with load addresses, a position-independent program."""

    def loaded_at(self, thread: Thread, address: int, length: int) -> int:
        """Where the program of a thread's process has what its file loads at `address`.

        `address` itself, unless all of [address, address + length) is loaded by the file.
        """
        ...
