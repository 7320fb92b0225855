"""Requests about files."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import hex_data, number, split, text


@dataclass(frozen=True, slots=True)
class SetFileSystem:
    """``vFile:setfs:PID``: whose files the next ones are; 0: the target's root."""

    pid: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A process number or 0."""
        return cls(number(arguments))


@dataclass(frozen=True, slots=True)
class OpenFile:
    """``vFile:open:PATH,FLAGS,MODE``."""

    path: str
    flags: int
    mode: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The path is in hexadecimal."""
        path, flags, mode = split(arguments, b",", 3)
        return cls(text(hex_data(path)), number(flags), number(mode))


@dataclass(frozen=True, slots=True)
class PreadFile:
    """``vFile:pread:FD,COUNT,OFFSET``."""

    fd: int
    count: int
    offset: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Three numbers."""
        fd, count, offset = split(arguments, b",", 3)
        return cls(number(fd), number(count), number(offset))


@dataclass(frozen=True, slots=True)
class FileDescriptor:
    """``vFile:fstat:FD``, ``vFile:close:FD``."""

    fd: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A number."""
        return cls(number(arguments))


@dataclass(frozen=True, slots=True)
class NamedFile:
    """``vFile:readlink:PATH``, ``vFile:stat:PATH``, ``vFile:lstat:PATH``."""

    path: str

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The path is in hexadecimal."""
        return cls(text(hex_data(arguments)))
