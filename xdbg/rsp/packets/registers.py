"""Requests for registers. lldb may name the thread in a suffix; `pattern` None is the current thread."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import hex_data, number, split, thread_suffix
from xdbg.rsp.threadid import ThreadId


@dataclass(frozen=True, slots=True)
class ReadRegisters:
    """``g``; `pattern` None: of the current thread."""

    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing, or lldb's suffix."""
        rest, pattern = thread_suffix(arguments)
        if rest:
            raise ValueError("g has no arguments")
        return cls(pattern)


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """``GDATA``."""

    block: bytes
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The block in hexadecimal, perhaps with lldb's suffix."""
        block, pattern = thread_suffix(arguments)
        return cls(hex_data(block), pattern)


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """``pN``."""

    regnum: int
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A register number, perhaps with lldb's suffix."""
        regnum, pattern = thread_suffix(arguments)
        return cls(number(regnum), pattern)


@dataclass(frozen=True, slots=True)
class WriteRegister:
    """``PN=VALUE``."""

    regnum: int
    value: bytes
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A register number and its value in hexadecimal, perhaps with lldb's suffix."""
        assignment, pattern = thread_suffix(arguments)
        regnum, value = split(assignment, b"=", 2)
        return cls(number(regnum), hex_data(value), pattern)
