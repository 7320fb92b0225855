"""Requests about break and watch points."""

import re
from dataclasses import dataclass
from typing import Final, Self

from xdbg.rsp.packets.fields import hex_data, number, split

_POINT: Final = re.compile(rb"([0-4]),([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})(;.*)?\Z", re.DOTALL)
_EXPRESSION: Final = re.compile(rb"X([0-9a-fA-F]{1,5}),([0-9a-fA-F]*)")


@dataclass(frozen=True, slots=True)
class Point:
    """``zTYPE,VADDR,LENGTH``: type 0 software, 1 hardware breakpoint; 2 write, 3 read, 4 access watch point."""

    type: int
    vaddr: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """For a breakpoint the length says how long a breakpoint instruction would be."""
        found = _POINT.match(arguments)
        if found is None or found[4]:
            raise ValueError("type,vaddr,length is wanted")
        return cls(int(found[1]), int(found[2], 16), int(found[3], 16))


@dataclass(frozen=True, slots=True)
class SetPoint:
    """``ZTYPE,VADDR,LENGTH[;CONDITIONS][;cmds:PERSIST,COMMANDS]``; each of the last two a row of agent expressions."""

    type: int
    vaddr: int
    length: int
    conditions: tuple[bytes, ...] = ()
    commands: tuple[bytes, ...] = ()
    persist: bool = False

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Expressions stand in a row without separators, each with its length: ``X2,2701X2,2700``."""
        found = _POINT.match(arguments)
        if found is None:
            raise ValueError("type,vaddr,length is wanted")
        conditions: tuple[bytes, ...] = ()
        commands: tuple[bytes, ...] = ()
        persist = False
        for part in (found[4] or b";").split(b";")[1:]:
            if part.startswith(b"cmds:"):
                flag, rest = split(part[5:], b",", 2)
                persist = number(flag) != 0
                commands = _expressions(rest)
            elif part:
                conditions = _expressions(part)
        return cls(int(found[1]), int(found[2], 16), int(found[3], 16), conditions, commands, persist)


def _expressions(text: bytes) -> tuple[bytes, ...]:
    expressions: list[bytes] = []
    place = 0
    while place < len(text):
        found = _EXPRESSION.match(text, place)
        digits = 2 * int(found[1], 16) if found else 0
        if found is None or digits == 0 or len(found[2]) < digits:
            raise ValueError("an agent expression is cut short")
        expressions.append(hex_data(found[2][:digits]))
        place = found.start(2) + digits
    return tuple(expressions)
