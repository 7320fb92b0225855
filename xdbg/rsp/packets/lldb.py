"""Requests that only lldb makes."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import number


@dataclass(frozen=True, slots=True)
class RegisterNumber:
    """``qRegisterInfoN``."""

    regnum: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A number."""
        return cls(number(arguments))


@dataclass(frozen=True, slots=True)
class Place:
    """``qMemoryRegionInfo:VADDR``."""

    vaddr: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """An address."""
        return cls(number(arguments))
