"""What a domain gets of the file of its initial RAM disk. Xen: tools, xc_dom_check_gzip(), xc_dom_build_module().

A file that is packed by gzip is unpacked, because it says at its end how long its content is: room for that, and 16
bytes more, is made. If it can't be unpacked into this room, the kernel gets the file as it is. So it does with any
other file; Linux unpacks those itself. Kernels are told whole pages: the length is rounded up, and zeroes follow.
"""

import zlib
from typing import Final

from .compression import GZIP_MAGIC

_MAX_UNPACKED: Final = 1 << 30
"""Bytes; a file that says it has more is not unpacked. Xen: XC_DOM_DECOMPRESS_MAX."""
_LEAST_GZIP: Final = 6
_SLACK: Final = 16
_LENGTH_FIELD: Final = 4
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS + 32


def ramdisk_size(file: bytes) -> int:
    """The bytes of memory that a RAM disk takes, before it is rounded up to pages; known without unpacking it."""
    return max(_unpacked_size(file), len(file))


def ramdisk_content(file: bytes) -> bytes:
    """What is in these bytes; behind it are zeroes."""
    size = _unpacked_size(file)
    if not size:
        return file
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = unpacker.decompress(file, size)
    except zlib.error:
        return file
    return content if unpacker.eof else file


def _unpacked_size(file: bytes) -> int:
    """How much room the content of a gzip file gets; 0 if the file stays as it is."""
    if len(file) < _LEAST_GZIP or not file.startswith(GZIP_MAGIC):
        return 0
    size = int.from_bytes(file[-_LENGTH_FIELD:], "little")
    return size + _SLACK if size <= _MAX_UNPACKED else 0
