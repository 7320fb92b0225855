"""Requests for memory."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import hex_data, split, vaddr_length


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """``mVADDR,LENGTH``; the length is cut at the end of the address space."""

    vaddr: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A place and a length."""
        return cls(*vaddr_length(arguments))


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """``MVADDR,LENGTH:DATA``, data in hexadecimal."""

    vaddr: int
    data: bytes

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The length and the amount of data must agree."""
        place, text = split(arguments, b":", 2)
        return cls._checked(place, hex_data(text))

    @classmethod
    def _checked(cls, place: bytes, data: bytes) -> Self:
        vaddr, length = vaddr_length(place)
        if len(data) != length:
            raise ValueError(f"{length} bytes were announced, {len(data)} came")
        return cls(vaddr, data)


@dataclass(frozen=True, slots=True)
class WriteBinary(WriteMemory):
    """``XVADDR,LENGTH:DATA``, data as it is."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The length and the amount of data must agree."""
        return cls._checked(*split(arguments, b":", 2))


@dataclass(frozen=True, slots=True)
class Search:
    """``qSearch:memory:VADDR;LENGTH;PATTERN``."""

    vaddr: int
    length: int
    pattern: bytes

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The pattern is binary and not empty."""
        vaddr, length, pattern = split(arguments, b";", 3)
        if not pattern:
            raise ValueError("nothing to search for")
        return cls(*vaddr_length(vaddr + b"," + length), pattern)
