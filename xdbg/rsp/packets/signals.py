"""Requests about signals and system calls."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import number

_MAX_SIGNAL = 0xFF
_MAX_NUMBERS = 4096


@dataclass(frozen=True, slots=True)
class SignalList:
    """``QPassSignals:SIGNAL;SIGNAL;...`` and its like, from the list on. gdb's numbering."""

    signals: frozenset[int]

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The list may be empty."""
        found = _numbers(arguments.removesuffix(b";"))
        if any(signal > _MAX_SIGNAL for signal in found):
            raise ValueError("no signal has such a number")
        return cls(found)


@dataclass(frozen=True, slots=True)
class CatchSyscalls:
    """``QCatchSyscalls:0``, ``QCatchSyscalls:1``, ``QCatchSyscalls:1;NUMBER;...``. None: all of them."""

    numbers: frozenset[int] | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Off is the empty set."""
        match arguments[:1], arguments[1:2], arguments[2:]:
            case b"0", b"", b"":
                return cls(frozenset())
            case b"1", b"", b"":
                return cls(None)
            case b"1", b";", rest if rest:
                return cls(_numbers(rest))
            case _:
                raise ValueError("0, 1 or 1 and a list is wanted")


def _numbers(field: bytes) -> frozenset[int]:
    parts = field.split(b";") if field else []
    if len(parts) > _MAX_NUMBERS:
        raise ValueError("too long a list")
    return frozenset(number(part) for part in parts)
