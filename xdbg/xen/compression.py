"""What a packed kernel unpacks to. Xen: tools, xg_dom_core.c (gzip), xg_dom_bzimageloader.c (the others).

A gzip file knows its own length. Behind the data of the other formats, Linux's build puts four bytes: the length of the
unpacked kernel, little-endian; what comes out must have exactly that. Two of them are not what the program of that name
writes today: lz4 is its "legacy" format of blocks of at most 8 MiB, each behind its packed length; lzo is lzop's, its
blocks of at most 256 KiB, as Linux itself demands.

Nothing is unpacked further than a limit, whatever a file says: a few bytes can stand for gigabytes.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import lz4.block
import lzallright
import zstandard

from .elf_notes import ImageError

GZIP_MAGIC: Final = b"\x1f\x8b"

_SIZE_FIELD: Final = 4
_LZMA_MEMORY: Final = 256 << 20
"""Bytes that an xz or lzma decoder may take for its dictionary. Xen: LZMA_BLOCK_SIZE."""
_LZ4_MAGIC: Final = b"\x02\x21\x4c\x18"
_LZ4_BLOCK: Final = 8 << 20
_LZO_MAGIC: Final = b"\x89LZO\0\r\n\x1a\n"
_LZO_BLOCK: Final = 256 << 10
_LZO_VERSION_WITH_LEVEL: Final = 0x940
_LZO_HAS_FILTER: Final = 0x800

Decoder = Callable[[bytes, int], bytes]
"""(packed data, length that is expected) -> the data, or one byte more if there is more. Raises `_DamagedError`."""


class _DamagedError(Exception):
    """The data can't be unpacked; the text says why."""


class _Stream(Protocol):
    """A decompressor of the standard library."""

    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was in a packed file, and the name of the format."""

    name: str
    data: bytes


def unpack(data: bytes, limit: int) -> Unpacked | None:
    """The content of the data, of at most `limit` bytes; None if no compression begins like this.

    Raises `ImageError` with one line that names the format.
    """
    if data.startswith(GZIP_MAGIC):
        return Unpacked("gzip", gunzip(data, limit))
    for name, magic, decode in _FORMATS:
        if data.startswith(magic):
            return Unpacked(name, _unpack_sized(name, decode, data, limit))
    return None


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of a gzip file of one or more members. Raises `ImageError`."""
    parts = []
    room = limit
    try:
        while data.startswith(GZIP_MAGIC):
            unpacker = zlib.decompressobj(wbits=31)
            part = unpacker.decompress(data, room + 1)
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise ImageError(f"the gzip data unpacks to more than {limit >> 20} MiB")
            if not unpacker.eof:
                raise ImageError("the gzip data is truncated")
            data = unpacker.unused_data
    except zlib.error as error:
        raise ImageError(f"the gzip data is damaged ({error})") from None
    return b"".join(parts)


def _unpack_sized(name: str, decode: Decoder, data: bytes, limit: int) -> bytes:
    """Data that has its unpacked length behind it."""
    packed, size = data[:-_SIZE_FIELD], int.from_bytes(data[-_SIZE_FIELD:], "little")
    if size > limit:
        raise ImageError(f"the {name} data unpacks to more than {limit >> 20} MiB")
    try:
        unpacked = decode(packed, size)
    except _DamagedError as error:
        raise ImageError(f"the {name} data is damaged ({error})") from None
    if len(unpacked) != size:
        have = f"{len(unpacked)}" if len(unpacked) < size else f"more than {size}"
        raise ImageError(f"the {name} data has {have} bytes, not the {size} that its length field says")
    return unpacked


def _bzip2(packed: bytes, size: int) -> bytes:
    return _from_stream(bz2.BZ2Decompressor(), packed, size)


def _xz(packed: bytes, size: int) -> bytes:
    return _from_stream(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY), packed, size)


def _lzma(packed: bytes, size: int) -> bytes:
    return _from_stream(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY), packed, size)


def _from_stream(stream: _Stream, packed: bytes, size: int) -> bytes:
    parts = []
    room = size + 1
    try:
        while room and not stream.eof:
            part = stream.decompress(packed, room)
            packed = b""
            if not part:
                break
            parts.append(part)
            room -= len(part)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise _DamagedError(error) from None
    return b"".join(parts)


def _zstd(packed: bytes, size: int) -> bytes:
    parts = []
    room = size + 1
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            while room and (part := reader.read(room)):
                parts.append(part)
                room -= len(part)
    except (zstandard.ZstdError, MemoryError) as error:
        raise _DamagedError(error) from None
    return b"".join(parts)


def _lz4(packed: bytes, size: int) -> bytes:
    parts = []
    room = size
    at = 0
    while at < len(packed):
        chunk = packed[at : at + 4]
        at += 4
        if chunk == _LZ4_MAGIC:
            continue
        length = int.from_bytes(chunk, "little")
        if at + length > len(packed):
            raise _DamagedError("truncated")
        try:
            part = lz4.block.decompress(packed[at : at + length], uncompressed_size=min(room, _LZ4_BLOCK))
        except (lz4.block.LZ4BlockError, ValueError) as error:
            raise _DamagedError(str(error).partition(":")[0]) from None
        at += length
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def _lzo(packed: bytes, size: int) -> bytes:
    parts = []
    room = size
    at = _lzo_header_size(packed)
    while unpacked_size := _big_endian(packed, at, 4):
        length = _big_endian(packed, at + 4, 4)
        at += 12  # with a checksum
        if unpacked_size > min(_LZO_BLOCK, room):
            raise _DamagedError(f"a block of {unpacked_size} bytes")
        if not 0 < length <= unpacked_size:
            raise _DamagedError(f"{length} bytes for a block of {unpacked_size}")
        part = packed[at : at + length]
        if len(part) != length:
            raise _DamagedError("truncated")
        if length < unpacked_size:  # else it is stored as it is
            try:
                part = lzallright.LZOCompressor.decompress(part, unpacked_size)
            except lzallright.LZOError as error:
                raise _DamagedError(str(error.args[0]).rpartition(".")[2]) from None
        if len(part) != unpacked_size:
            raise _DamagedError(f"{len(part)} bytes in a block of {unpacked_size}")
        at += length
        parts.append(part)
        room -= unpacked_size
    return b"".join(parts)


def _lzo_header_size(packed: bytes) -> int:
    """How long lzop's header is: magic, versions, method, level, flags, mode, times, the file's name, a checksum."""
    version = _big_endian(packed, len(_LZO_MAGIC), 2)
    newer = version >= _LZO_VERSION_WITH_LEVEL
    flags_at = 17 if newer else 16
    flags = _big_endian(packed, flags_at, 4)
    name_at = flags_at + (8 if flags & _LZO_HAS_FILTER else 4) + (12 if newer else 8)
    return name_at + 1 + _big_endian(packed, name_at, 1) + 4


def _big_endian(packed: bytes, at: int, size: int) -> int:
    if at + size > len(packed):
        raise _DamagedError("truncated")
    return int.from_bytes(packed[at : at + size], "big")


_FORMATS: Final[tuple[tuple[str, bytes, Decoder], ...]] = (
    ("bzip2", b"BZh", _bzip2),
    ("xz", b"\xfd7zXZ\0", _xz),
    ("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    ("lzma", b"\x5d\0", _lzma),
    ("lzo", _LZO_MAGIC, _lzo),
    ("lz4", _LZ4_MAGIC, _lz4),
)
"""(name, how it begins, its decoder)."""
