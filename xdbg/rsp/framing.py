"""Packets on a byte stream: ``$payload#checksum``, acknowledgements, the interrupt byte. GDB manual: "Overview".

Rules of the decoder, which hold for any splitting of the stream:

- Outside of a packet only ``+``, ``-``, ``$`` and 0x03 mean something; all else is skipped.
- A packet goes from the *last* ``$`` before a ``#`` to the two characters after that ``#``. A ``$`` inside a packet
  starts it anew, so a client that broke off in mid-packet is understood again with its next packet.
- ``}`` escapes: the byte behind it is meant with bit 5 flipped.
- A payload longer than `MAX_PAYLOAD` is not kept. Its end is still found, so that it can be refused in its turn.

What is buffered never exceeds one longest packet plus what the last `feed` brought.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Final
from zlib import adler32

MAX_PAYLOAD: Final = 0x40000
"""Longest payload taken, and announced as PacketSize: 128 KiB of memory in hexadecimal."""

_INTERESTING: Final = re.compile(rb"[-+$\x03]")
_ESCAPED: Final = re.compile(rb"\}(.)", re.DOTALL)
_RESTART_OR_END: Final = re.compile(rb"[$#]")
_ESCAPES: Final = ((b"#", b"}\x03"), (b"$", b"}\x04"), (b"*", b"}\x0a"))
_FLIPPED: Final = [bytes([byte ^ 0x20]) for byte in range(256)]

_PIECE: Final = 256


class Mark(Enum):
    """What the decoder finds beside payloads."""

    ACK = "+"
    NAK = "-"
    INTERRUPT = "0x03"
    BAD_CHECKSUM = "bad checksum"
    OVERSIZED = "oversized"


_DOLLAR: Final = ord("$")
_MARKS: Final = {ord("+"): Mark.ACK, ord("-"): Mark.NAK, 3: Mark.INTERRUPT}


def checksum(payload: bytes) -> int:
    """The sum of all bytes modulo 256.

    The low half of adler32 is 1 plus the sum modulo 65521, so for 256 bytes (at most 65280) it is exact; in such pieces
    it is nine times as fast as `sum`, and faster than folding one large integer.
    """
    length = len(payload)
    if length <= _PIECE:
        return (adler32(payload) - 1) & 0xFF
    total = sum([adler32(payload[start : start + _PIECE]) for start in range(0, length, _PIECE)])
    return (total - (length + _PIECE - 1) // _PIECE) & 0xFF


def frame(payload: bytes) -> bytes:
    """The packet of a payload that is already escaped."""
    if _REPEATED.start <= len(payload) < _REPEATED.stop:
        return _repeated_frame(payload)
    return _frame(payload)


def _frame(payload: bytes) -> bytes:
    return b"$%s#%02x" % (payload, checksum(payload))


_REPEATED: Final = range(_PIECE, 4096)
"""Sizes of payloads that take longer to sum up than to find again: registers above all, read over and over."""
_repeated_frame: Final = lru_cache(maxsize=64)(_frame)


def only_packet(data: bytes) -> bytes | None:
    """The payload, if the data is exactly one short packet without an error, as a client that waits for each answer
    sends it; else None. It is what `Decoder` makes of the same data.
    """
    return _only_packet(data) if len(data) <= _SHORT else None


_SHORT: Final = 96


@lru_cache(maxsize=8192)
def _only_packet(data: bytes) -> bytes | None:
    payload = data[1:-3]
    if data[:1] != b"$" or data[-3:-2] != b"#" or b"$" in payload or b"#" in payload:
        return None
    return unescape(payload) if b"%02x" % checksum(payload) == data[-2:].lower() else None


def notification(payload: bytes) -> bytes:
    """The notification of a payload: it comes unasked and is not acknowledged. GDB manual: "Notification Packets"."""
    return b"%%%s#%02x" % (payload, checksum(payload))


def escape(data: bytes) -> bytes:
    """Binary data as it may stand in a payload: ``}``, ``$``, ``#`` and (run lengths in replies) ``*`` escaped."""
    if b"}" in data:
        data = data.replace(b"}", b"}]")
    for plain, escaped in _ESCAPES:
        data = data.replace(plain, escaped)
    return data


def escaped_size(data: bytes) -> int:
    """How many bytes `escape` makes of it. To make them is faster than to count them."""
    return len(escape(data))


def unescape(payload: bytes) -> bytes:
    """The bytes that an escaped payload means."""
    if b"}" not in payload:
        return payload
    if b"}}" in payload or payload.endswith(b"}"):  # escaped although it need not be, or cut short: rare
        return _ESCAPED.sub(lambda found: _FLIPPED[found[1][0]], payload)
    head, *rest = payload.split(b"}")
    return head + b"".join([_FLIPPED[part[0]] + part[1:] for part in rest])


class Decoder:
    """Cuts a stream into payloads (unescaped bytes) and marks."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._buffer = bytearray()
        self._scanned = 0
        self._in_packet = False
        self._dropping = False

    def __len__(self) -> int:
        """Bytes fed and not yet used up."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More of the stream, in pieces of any size."""
        self._buffer += data

    def next(self) -> bytes | Mark | None:
        """The next payload or mark; None when the stream so far holds no more."""
        while self._buffer:
            if self._dropping:
                if not self._drop():
                    return None
                if self._dropping:
                    self._finish(3)
                    return Mark.OVERSIZED
            if self._in_packet:
                return self._packet()
            lead = self._buffer[0]
            if lead == _DOLLAR:
                del self._buffer[:1]
                self._in_packet = True
                self._scanned = 0
                continue
            del self._buffer[:1]
            if (mark := _MARKS.get(lead)) is not None:
                return mark
            found = _INTERESTING.search(self._buffer)
            del self._buffer[: len(self._buffer) if found is None else found.start()]
        return None

    def _packet(self) -> bytes | Mark | None:
        """The packet whose ``$`` has been taken, if it is complete."""
        buffer = self._buffer
        end = buffer.find(b"#", self._scanned)
        if end < 0:
            restart = buffer.rfind(b"$", self._scanned)
            if restart >= 0:
                del buffer[: restart + 1]
            self._scanned = len(buffer)
            if len(buffer) > self._max_payload:
                buffer.clear()
                self._dropping = True
            return None
        if len(buffer) < end + 3:
            self._scanned = end
            return None
        payload = bytes(memoryview(buffer)[:end])
        given = bytes(buffer[end + 1 : end + 3])
        self._finish(end + 3)
        restart = payload.rfind(b"$")
        if restart >= 0:
            payload = payload[restart + 1 :]
        if len(payload) > self._max_payload:
            return Mark.OVERSIZED
        if b"%02x" % checksum(payload) != given.lower():
            return Mark.BAD_CHECKSUM
        return unescape(payload)

    def _drop(self) -> bool:
        """Skips the inside of an oversized packet. True at its end, or when a new one began (then not `_dropping`)."""
        found = _RESTART_OR_END.search(self._buffer)
        del self._buffer[: len(self._buffer) if found is None else found.start()]
        if found is not None and self._buffer[0] == _DOLLAR:
            del self._buffer[:1]
            self._dropping = False
            self._scanned = 0
            return True
        return len(self._buffer) >= 3

    def _finish(self, used: int) -> None:
        del self._buffer[:used]
        self._in_packet = False
        self._dropping = False
