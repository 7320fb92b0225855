"""What packets are made of: numbers, addresses, data, text. Whatever is malformed is a ValueError."""

import re
from binascii import Error as HexError
from binascii import unhexlify
from typing import Final

from xdbg.rsp.threadid import ANY, ThreadId

_HEX: Final = re.compile(rb"[0-9a-fA-F]{1,16}\Z")
_VADDR_LENGTH: Final = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})\Z")
_THREAD_SUFFIX: Final = re.compile(rb";thread:([-p.0-9a-fA-F]+);?\Z")


def number(field: bytes) -> int:
    """A hexadecimal number without sign and prefix, below 2**64."""
    if _HEX.match(field) is None:
        raise ValueError(f"not a hexadecimal number: {field[:40]!r}")
    return int(field, 16)


def process(field: bytes) -> int:
    """A process number; 0 is none."""
    pid = number(field)
    if pid == ANY:
        raise ValueError("no process has the number 0")
    return pid


def hex_data(field: bytes) -> bytes:
    """Bytes given as pairs of hexadecimal digits."""
    try:
        return unhexlify(field)
    except HexError as error:
        raise ValueError(str(error)) from None


def text(data: bytes) -> str:
    """Text; bytes that are no UTF-8 survive, as in file names."""
    return data.decode("utf-8", "surrogateescape")


def split(field: bytes, separator: bytes, count: int) -> list[bytes]:
    """Exactly `count` fields; the last may hold more separators."""
    fields = field.split(separator, count - 1)
    if len(fields) != count:
        raise ValueError(f"{count} fields are wanted")
    return fields


def vaddr_length(field: bytes) -> tuple[int, int]:
    """``VADDR,LENGTH``; the length is cut at the end of the address space."""
    found = _VADDR_LENGTH.match(field)
    if found is None:
        raise ValueError("vaddr,length is wanted")
    vaddr = int(found[1], 16)
    return vaddr, min(int(found[2], 16), (1 << 64) - vaddr)


def thread_suffix(field: bytes) -> tuple[bytes, ThreadId | None]:
    """Splits off ``;thread:ID;``, with which lldb says whose registers it means."""
    if b";" not in field:
        return field, None
    found = _THREAD_SUFFIX.search(field)
    if found is None:
        raise ValueError("an unknown suffix")
    return field[: found.start()], ThreadId.parse(found[1])
