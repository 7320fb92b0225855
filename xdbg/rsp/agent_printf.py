"""printf as agent expressions use it: a format is taken apart once, and filled in with 64-bit values at each hit.

Escapes are still in the text as the user typed them. Conversions are those of C for whole numbers, characters,
pointers and strings; an argument counts with the width that its length modifier says (int where there is none). A
string is the address of bytes in the target's memory, 0 is shown as ``(null)``. Floating point is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_FIELD: Final = 1024
"""Width and precision at most."""
MAX_STRING: Final = 4096
"""Bytes of a string argument that are shown."""

_DIRECTIVE: Final = re.compile(r"([-+ #0']*)(\d*)(?:\.(\d*))?(hh|h|ll|l|z|j|t)?([a-zA-Z%])")
_ESCAPES: Final = {
    "\\": "\\",
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "'": "'",
}
_BITS: Final = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "z": 64, "j": 64, "t": 64}


class FormatError(Exception):
    """A format that can't be carried out."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Literal text, or (with a `conversion`) the place of one argument of `bits` bits."""

    text: str = ""
    conversion: str = ""
    flags: str = ""
    width: int = 0
    precision: int | None = None
    bits: int = 64


def parse_format(text: str) -> tuple[Piece, ...]:
    """The pieces of a format. FormatError for escapes and conversions that are not supported."""
    pieces: list[Piece] = []
    literal: list[str] = []
    place = 0
    while place < len(text):
        char = text[place]
        if char == "\\":
            escape = text[place + 1 : place + 2]
            if escape not in _ESCAPES:
                raise FormatError(f"unrecognized escape \\{escape} in a format")
            literal.append(_ESCAPES[escape])
            place += 2
        elif char == "%":
            found = _DIRECTIVE.match(text, place + 1)
            if found is None:
                raise FormatError(f"bad directive {text[place : place + 8]!r} in a format")
            place = found.end()
            if found[5] == "%":
                literal.append("%")
                continue
            if literal:
                pieces.append(Piece("".join(literal)))
                literal.clear()
            pieces.append(_directive(found))
        else:
            literal.append(char)
            place += 1
    if literal:
        pieces.append(Piece("".join(literal)))
    return tuple(pieces)


def _directive(found: re.Match[str]) -> Piece:
    flags, width, precision, size, conversion = found.groups()
    if conversion not in "diuoxXcsp" or (conversion in "csp" and size):
        raise FormatError(f"directive %{size or ''}{conversion} is not supported")
    wide, precise = int(width or 0), None if precision is None else int(precision or 0)
    if wide > MAX_FIELD or (precise or 0) > MAX_FIELD:
        raise FormatError(f"a field of more than {MAX_FIELD} characters")
    bits = 64 if conversion in "sp" else _BITS[size or ""]
    return Piece("", conversion, flags, wide, precise, bits)


def format_text(pieces: Sequence[Piece], arguments: Sequence[int], read_string: Callable[[int, int], bytes]) -> str:
    """The text. `read_string(vaddr, limit)`: the bytes of a string without its zero byte, at most `limit`."""
    left = iter(arguments)
    return "".join(_fill(piece, next(left), read_string) if piece.conversion else piece.text for piece in pieces)


def _fill(piece: Piece, argument: int, read_string: Callable[[int, int], bytes]) -> str:
    match piece.conversion:
        case "s":
            limit = MAX_STRING if piece.precision is None else min(piece.precision, MAX_STRING)
            shown = read_string(argument, limit).decode("utf-8", "replace") if argument else "(null)"
            return _padded(piece, shown[:limit])
        case "c":
            return _padded(piece, chr(argument & 0xFF))
        case "p":
            return _padded(piece, f"{argument:#x}")
        case _:
            return _number(piece, argument)


def _number(piece: Piece, argument: int) -> str:
    value = argument & (1 << piece.bits) - 1
    sign = ""
    if piece.conversion in "di":
        if value >> piece.bits - 1:
            sign, value = "-", (1 << piece.bits) - value
        else:
            sign = "+" if "+" in piece.flags else " " if " " in piece.flags else ""
        digits = str(value)
    else:
        digits = format(value, {"u": "d"}.get(piece.conversion, piece.conversion))
    if piece.precision is not None:
        digits = digits.rjust(piece.precision, "0") if value or piece.precision else ""
    if "#" in piece.flags:
        if piece.conversion in "xX" and value:
            sign = "0" + piece.conversion
        elif piece.conversion == "o" and not digits.startswith("0"):
            digits = "0" + digits
    if "0" in piece.flags and "-" not in piece.flags and piece.precision is None:
        digits = digits.rjust(piece.width - len(sign), "0")
    return _padded(piece, sign + digits)


def _padded(piece: Piece, text: str) -> str:
    return text.ljust(piece.width) if "-" in piece.flags else text.rjust(piece.width)
