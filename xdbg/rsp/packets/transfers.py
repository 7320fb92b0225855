"""Requests for pieces of documents."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import number, split, text


@dataclass(frozen=True, slots=True)
class Transfer:
    """``qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH``, from the annex on."""

    annex: str
    offset: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The annex may be empty."""
        annex, place = split(arguments, b":", 2)
        offset, length = split(place, b",", 2)
        return cls(text(annex), number(offset), number(length))


@dataclass(frozen=True, slots=True)
class TransferBack:
    """``qXfer:OBJECT:write:ANNEX:OFFSET:DATA``, from the annex on; the data is binary."""

    annex: str
    offset: int
    data: bytes

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The annex may be empty, the data too."""
        annex, offset, data = split(arguments, b":", 3)
        return cls(text(annex), number(offset), data)
