"""Requests about the session itself, and those without arguments."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.packets.fields import hex_data, process, text


@dataclass(frozen=True, slots=True)
class Bare:
    """A packet that has no arguments."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing is accepted."""
        if arguments:
            raise ValueError("this packet has no arguments")
        return cls()


@dataclass(frozen=True, slots=True)
class Anything:
    """A packet whose arguments don't matter."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """All is accepted."""
        del arguments
        return cls()


@dataclass(frozen=True, slots=True)
class Supported:
    """``qSupported:FEATURE;...``."""

    client: ClientFeatures

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Features that are not known are skipped; the whole list may be missing."""
        return cls(ClientFeatures.parse(arguments.removeprefix(b":")))


@dataclass(frozen=True, slots=True)
class Switch:
    """A packet that turns something on (1) or off (0): QNonStop, QThreadEvents, QTDisconnected and others."""

    on: bool

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """One digit."""
        if arguments not in (b"0", b"1"):
            raise ValueError("0 or 1 is wanted")
        return cls(arguments == b"1")


@dataclass(frozen=True, slots=True)
class Process:
    """A packet that names one process: vAttach, vKill."""

    pid: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A process number."""
        return cls(process(arguments))


@dataclass(frozen=True, slots=True)
class RunProgram:
    """``vRun;PATH[;ARGUMENT]...``. `path` empty: the target's own program; `arguments` None: none were given."""

    path: str
    arguments: str | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """All in hexadecimal. Several arguments become one line."""
        path, *rest = (text(hex_data(field)) for field in arguments.split(b";"))
        return cls(path, " ".join(rest) if any(rest) else None)


@dataclass(frozen=True, slots=True)
class OptionalProcess:
    """A packet that may name a process: ``D;PID``, ``qAttached:PID``. None: the one there is, or all."""

    pid: int | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing, or a separator and a process number."""
        if not arguments:
            return cls(None)
        if arguments[:1] not in (b";", b":"):
            raise ValueError("a process number is wanted")
        return cls(process(arguments[1:]))
