"""The kernel in a bzImage, the form in which Linux is installed (`vmlinuz`). Xen: tools, xg_dom_bzimageloader.c.

A bzImage is a boot sector, some sectors of real-mode code with a setup header among them, and a small program that
unpacks the kernel and starts it. None of that can run in a PV domain; but from version 2.08 of the boot protocol on,
the header says where the packed kernel is, an ELF file: Linux, Documentation/arch/x86/boot.rst.
"""

import struct
from typing import Final

from .compression import Unpacked, unpack
from .elf_notes import ImageError

_SECTOR: Final = 512
_SETUP_SECTS_AT: Final = 0x1F1
_MAGIC_AT: Final = 0x202
_MAGIC: Final = b"HdrS"
_VERSION: Final = struct.Struct("<H")
_VERSION_AT: Final = 0x206
_PAYLOAD: Final = struct.Struct("<II")
_PAYLOAD_AT: Final = 0x248
_FIRST_VERSION: Final = 0x208


def is_bzimage(data: bytes) -> bool:
    """Whether the bytes of a file are a kernel in this form."""
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def unpack_bzimage(data: bytes, limit: int) -> Unpacked:
    """The ELF file in a bzImage, of at most `limit` bytes. Raises `ImageError`."""
    if len(data) < _PAYLOAD_AT + _PAYLOAD.size:
        raise ImageError("truncated in the setup header")
    (version,) = _VERSION.unpack_from(data, _VERSION_AT)
    if version < _FIRST_VERSION:
        raise ImageError(f"boot protocol {version >> 8}.{version & 0xFF:02}; the kernel can be found from 2.08 on")
    offset, length = _PAYLOAD.unpack_from(data, _PAYLOAD_AT)
    offset += (data[_SETUP_SECTS_AT] + 1) * _SECTOR
    if offset + length > len(data):
        raise ImageError(f"truncated: the kernel in it ends at byte {offset + length}, the file at {len(data)}")
    payload = data[offset : offset + length]
    unpacked = unpack(payload, limit)
    if unpacked is None:
        raise ImageError(f"the kernel in it is packed in an unknown way (it begins with {payload[:4].hex(' ')})")
    return unpacked
