"""The forms in which a kernel's file may come, made from an ELF file."""

import bz2
import gzip
import lzma
import struct

import lz4.block
import lzallright
import zstandard

LZ4_BLOCK = 8 << 20
LZO_BLOCK = 256 << 10


def sized(packed: bytes, data: bytes) -> bytes:
    """With the length of the data behind it, as Linux's build appends it."""
    return packed + struct.pack("<I", len(data))


def by_xz(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "dict_size": 32 << 20}]
    return sized(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters), data)


def by_lz4(data: bytes) -> bytes:
    out = bytearray(b"\x02\x21\x4c\x18")
    for at in range(0, len(data), LZ4_BLOCK):
        block = lz4.block.compress(data[at : at + LZ4_BLOCK], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return sized(bytes(out), data)


def by_lzo(data: bytes, version: int = 0x1030, flags: int = 0x03000001, name: bytes = b"vmlinux.bin") -> bytes:
    """As lzop writes it; `version` below 0x940 and the flag 0x800 change its header."""
    out = bytearray(b"\x89LZO\0\r\n\x1a\n") + struct.pack(">HHH", version, 0x20A0, 0x0940) + b"\x03"
    out += b"\x09" * (version >= 0x940) + struct.pack(">I", flags) + bytes(4 if flags & 0x800 else 0)
    out += struct.pack(">II", 0o100644, 0) + bytes(4 if version >= 0x940 else 0)
    out += bytes([len(name)]) + name + bytes(4)
    for at in range(0, len(data), LZO_BLOCK):
        block = data[at : at + LZO_BLOCK]
        packed = lzallright.LZOCompressor().compress(block)
        packed = block if len(packed) >= len(block) else packed
        out += struct.pack(">III", len(block), len(packed), 0) + packed
    return sized(bytes(out + bytes(4)), data)


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": lambda data: sized(bz2.compress(data), data),
    "xz": by_xz,
    "lzma": lambda data: sized(lzma.compress(data, lzma.FORMAT_ALONE), data),
    "lzo": by_lzo,
    "lz4": by_lz4,
    "zstd": lambda data: sized(zstandard.ZstdCompressor(19).compress(data), data),
}


def bzimage(payload: bytes, version: int = 0x20F, setup_sects: int = 27, offset: int = 0x2E8) -> bytes:
    """A bzImage that nothing but its setup header makes one."""
    out = bytearray((setup_sects + 1) * 512 + offset)
    out[0x1F1] = setup_sects
    out[0x202:0x208] = b"HdrS" + struct.pack("<H", version)
    struct.pack_into("<II", out, 0x248, offset, len(payload))
    return bytes(out + payload + bytes(100))
