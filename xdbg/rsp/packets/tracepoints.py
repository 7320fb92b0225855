"""Requests about tracepoints and trace frames. GDB manual: "Tracepoint Packets", "Tracepoint actions"."""

import re
from dataclasses import dataclass
from typing import Final, Self

from xdbg.rsp.packets.fields import hex_data, number, split, text
from xdbg.rsp.tracepoints import (
    Action,
    CollectMemory,
    CollectRegisters,
    Evaluate,
    FrameAt,
    FrameByNumber,
    FrameInRange,
    FrameOfTracepoint,
    FrameSearch,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceVariable,
)

_HEX: Final = rb"([0-9a-fA-F]{1,16})"
_DEFINITION: Final = re.compile(rb"%b:%b:([ED]):%b:%b((?::[^:]*)*)\Z" % (_HEX, _HEX, _HEX, _HEX), re.DOTALL)
_CONTINUATION: Final = re.compile(rb"-%b:%b:(.*)\Z" % (_HEX, _HEX), re.DOTALL)
_REGISTERS: Final = re.compile(rb"R([0-9a-fA-F]{1,64})")
_MEMORY: Final = re.compile(rb"M(-1|[0-9a-fA-F]{1,8}),%b,%b" % (_HEX, _HEX))
_EXPRESSION: Final = re.compile(rb"X([0-9a-fA-F]{1,8}),([0-9a-fA-F]*)")
_NO_REGISTER: Final = 0xFFFF_FFFF
_NO_FRAME: Final = 0xFFFF_FFFF
_SIGN: Final = 1 << 63

MAX_STEPS: Final = 1 << 31
"""Single steps that one hit may ask for."""


@dataclass(frozen=True, slots=True)
class DefineTracepoint:
    """``QTDP:N:VADDR:ENA:STEP:PASS[:FLEN][:S][:XLEN,CODE][-]``, or ``QTDP:-N:VADDR:[S]ACTION...[-]``.

    One of `definition` and `tracepoint` is given. `special` is the kind of a tracepoint that is not an ordinary one.
    """

    definition: TracepointDefinition | None = None
    tracepoint: TracepointId | None = None
    actions: tuple[Action, ...] = ()
    step_actions: tuple[Action, ...] = ()
    more: bool = False
    special: str = ""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A minus sign at the end says that more follows, one at the beginning that it is such a packet."""
        more = arguments.endswith(b"-")
        arguments = arguments.removesuffix(b"-")
        if found := _CONTINUATION.match(arguments):
            tracepoint = TracepointId(int(found[1], 16), int(found[2], 16))
            now, _, stepping = found[3].partition(b"S")
            return cls(None, tracepoint, _actions(now), _actions(stepping), more)
        found = _DEFINITION.match(arguments)
        if found is None:
            raise ValueError("n:vaddr:E or D:steps:passes is wanted")
        steps = int(found[4], 16)
        if steps > MAX_STEPS:
            raise ValueError("too many steps")
        condition, special = b"", ""
        for option in found[6].split(b":")[1:]:
            match option[:1]:
                case b"F":
                    special = "fast"
                case b"S":
                    special = "static"
                case b"X":
                    (action,) = _actions(option)
                    assert isinstance(action, Evaluate)
                    condition = action.code
                case _:
                    raise ValueError(f"unknown option {option[:40]!r}")
        tracepoint = TracepointId(int(found[1], 16), int(found[2], 16))
        definition = TracepointDefinition(tracepoint, found[3] == b"E", steps, int(found[5], 16), condition)
        return cls(definition, more=more, special=special)


def _actions(row: bytes) -> tuple[Action, ...]:
    actions: list[Action] = []
    place = 0
    while place < len(row):
        if found := _REGISTERS.match(row, place):
            actions.append(CollectRegisters(int(found[1], 16)))
        elif found := _MEMORY.match(row, place):
            base = _NO_REGISTER if found[1] == b"-1" else int(found[1], 16)
            offset, length = int(found[2], 16), int(found[3], 16)
            if base != _NO_REGISTER:
                offset = signed(offset)
            actions.append(CollectMemory(None if base == _NO_REGISTER else base, offset, length))
        elif found := _EXPRESSION.match(row, place):
            digits = 2 * int(found[1], 16)
            if digits == 0 or len(found[2]) < digits:
                raise ValueError("an agent expression is cut short")
            actions.append(Evaluate(hex_data(found[2][:digits])))
            place = found.start(2) + digits
            continue
        else:
            raise ValueError(f"not an action: {row[place : place + 40]!r}")
        place = found.end()
    return tuple(actions)


def signed(value: int) -> int:
    """64 bits taken as a number with a sign."""
    return value - 2 * _SIGN if value & _SIGN else value


@dataclass(frozen=True, slots=True)
class NamedTracepoint:
    """``N:VADDR``: a packet about one tracepoint."""

    tracepoint: TracepointId

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A number and an address."""
        return cls(TracepointId(*[number(field) for field in split(arguments, b":", 2)]))


@dataclass(frozen=True, slots=True)
class SourceOfTracepoint:
    """``QTDPsrc:N:VADDR:TYPE:START:TOTAL:TEXT``, text in hexadecimal."""

    tracepoint: TracepointId
    source: TracepointSource

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The types are ``at``, ``cond`` and ``cmd``."""
        which, vaddr, kind, start, total, data = split(arguments, b":", 6)
        if kind not in (b"at", b"cond", b"cmd"):
            raise ValueError(f"unknown type {kind[:40]!r}")
        source = TracepointSource(kind.decode(), number(start), number(total), hex_data(data))
        return cls(TracepointId(number(which), number(vaddr)), source)


@dataclass(frozen=True, slots=True)
class DefineVariable:
    """``QTDV:N:VALUE:BUILTIN:NAME``, the name in hexadecimal."""

    variable: TraceVariable

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The value has 64 bits with a sign."""
        which, value, builtin, name = split(arguments, b":", 4)
        index = number(which)
        if not 0 < index <= 0x7FFF_FFFF:
            raise ValueError("variables are numbered from 1")
        number(builtin)
        return cls(TraceVariable(index, signed(number(value)), text(hex_data(name))))


@dataclass(frozen=True, slots=True)
class Number:
    """A packet with one number."""

    value: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Hexadecimal."""
        return cls(number(arguments))


@dataclass(frozen=True, slots=True)
class BufferSize:
    """``QTBuffer:size:BYTES``; None for -1, which leaves the choice to the target."""

    size: int | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Hexadecimal, or -1."""
        return cls(None if arguments == b"-1" else number(arguments))


@dataclass(frozen=True, slots=True)
class ReadOnlyRanges:
    """``QTro:START,END:START,END...``"""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Each end is behind the last byte."""
        ranges = []
        for item in filter(None, arguments.split(b":")):
            start, end = split(item, b",", 2)
            ranges.append((number(start), number(end)))
        return cls(tuple(ranges))


@dataclass(frozen=True, slots=True)
class Notes:
    """``QTNotes:KIND:TEXT;...``, kinds ``user``, ``notes`` and ``tstop``, texts in hexadecimal. None: not given."""

    user: str | None = None
    notes: str | None = None
    stop: str | None = None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Unknown kinds are refused."""
        given: dict[str, str] = {}
        for item in filter(None, arguments.split(b";")):
            kind, data = split(item, b":", 2)
            name = {b"user": "user", b"notes": "notes", b"tstop": "stop"}.get(kind)
            if name is None:
                raise ValueError(f"unknown note {kind[:40]!r}")
            given[name] = hex_data(data).decode(errors="replace")
        return cls(**given)


@dataclass(frozen=True, slots=True)
class SelectFrame:
    """``QTFrame:N``, ``QTFrame:pc:VADDR``, ``tdp:N``, ``range:FIRST:LAST``, ``outside:FIRST:LAST``. None: no frame."""

    search: FrameSearch | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """-1 (32 bits) selects none."""
        match arguments.split(b":"):
            case [b"pc", vaddr]:
                return cls(FrameAt(number(vaddr)))
            case [b"tdp", which]:
                return cls(FrameOfTracepoint(number(which)))
            case [b"range" | b"outside" as kind, first, last]:
                return cls(FrameInRange(number(first), number(last), outside=kind == b"outside"))
            case [b"-1"]:
                return cls(None)
            case [which]:
                index = number(which)
                return cls(None if index == _NO_FRAME else FrameByNumber(index))
            case _:
                raise ValueError("no such search")


@dataclass(frozen=True, slots=True)
class ReadTraceBuffer:
    """``qTBuffer:OFFSET,LENGTH``."""

    offset: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Two numbers."""
        return cls(*[number(field) for field in split(arguments, b",", 2)])
