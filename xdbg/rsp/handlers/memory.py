"""Memory: read, write, search, sum up."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

import zlib
from collections.abc import Iterator
from errno import EFAULT, EFBIG, EINVAL
from typing import TYPE_CHECKING, Final

from xdbg.rsp.framing import MAX_PAYLOAD
from xdbg.rsp.packets.memory import ReadMemory, Search, WriteBinary, WriteMemory
from xdbg.rsp.replies import BinaryData, HexData, Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import LoadAddresses, Target, TargetError
from xdbg.rsp.threadid import Thread

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


_HEX_READ_LIMIT: Final = MAX_PAYLOAD // 2
_CHUNK: Final = 0x10000
_SCAN_LIMIT: Final = 1 << 30
"""Bytes that one qSearch or qCRC goes through: about a second of work."""
_BIT_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@packet(b"m", ReadMemory, observing=True)
def read_memory(conn: Connection, target: Target, request: ReadMemory) -> Reply:
    """Memory in hexadecimal. A short answer is legal: gdb then knows how far memory is readable."""
    if request.length == 0:
        raise TargetError(EINVAL, "an empty read can't be told from an unsupported one")
    return HexData(target.read_memory(conn.thread(), request.vaddr, min(request.length, _HEX_READ_LIMIT)))


@packet(b"x", ReadMemory, feature="binary-upload+", observing=True)
def read_binary(conn: Connection, target: Target, request: ReadMemory) -> Reply:
    """Memory in binary. An empty read is answered: clients probe with it."""
    if request.length == 0:
        return BinaryData(b"b", b"")
    data = target.read_memory(conn.thread(), request.vaddr, min(request.length, MAX_PAYLOAD))
    return BinaryData(b"b", conn.fitting(data))


@packet(b"M", WriteMemory)
def write_memory(conn: Connection, target: Target, request: WriteMemory) -> Reply:
    """Writes memory, data in hexadecimal."""
    if request.data:
        target.write_memory(conn.thread(), request.vaddr, request.data)
    return Ok()


@packet(b"X", WriteBinary)
def write_binary(conn: Connection, target: Target, request: WriteBinary) -> Reply:
    """Writes memory, data in binary. An empty write is answered: clients probe with it."""
    return write_memory(conn, target, request)


@packet(b"qSearch:memory:", Search, observing=True)
def search_memory(conn: Connection, target: Target, request: Search) -> Reply:
    """The first place of a pattern: ``1,VADDR``, or ``0`` when it is not there.

    The place found is never before the start that was asked for; gdb goes on from it and would search for ever.
    """
    thread = conn.thread()
    keep = len(request.pattern) - 1
    window = b""
    for vaddr, chunk in _chunks(target, thread, request.vaddr, request.length):
        window += chunk
        place = window.find(request.pattern)
        if place >= 0:
            return Text(b"1,%x" % (vaddr + len(chunk) - len(window) + place))
        window = window[-keep:] if keep else b""
    return Text(b"0")


@packet(b"qCRC:", ReadMemory, observing=True)
def checksum_memory(conn: Connection, target: Target, request: ReadMemory) -> Reply:
    """The CRC of a range of memory, for ``compare-sections``.

    It is the big-endian CRC-32 (polynomial 0x04c11db7, start 0xffffffff, no final inversion): zlib's with all bits of
    input and result reversed.

    gdb names each section by the address at which the file would be loaded, not by that at which the program lies.
    """
    crc, thread, vaddr = 0, conn.thread(), request.vaddr
    programs = conn.capability(LoadAddresses)
    if programs is not None:
        vaddr = programs.loaded_at(thread, vaddr, request.length)
    for _, chunk in _chunks(target, thread, vaddr, request.length):
        crc = zlib.crc32(chunk.translate(_BIT_REVERSED), crc)
    return Text(b"C%x" % int(f"{crc ^ 0xFFFFFFFF:032b}"[::-1], 2))


def _chunks(target: Target, thread: Thread, vaddr: int, length: int) -> Iterator[tuple[int, bytes]]:
    """All of a range of memory in pieces, each with its address. TargetError where it can't be read, or is too long."""
    end = vaddr + length
    limit = vaddr + _SCAN_LIMIT
    while vaddr < end:
        if vaddr >= limit:
            raise TargetError(EFBIG, f"only {_SCAN_LIMIT >> 20} MiB are gone through at once")
        data = target.read_memory(thread, vaddr, min(_CHUNK, end - vaddr))
        if not data:
            raise TargetError(EFAULT)
        yield vaddr, data
        vaddr += len(data)
