"""Members of a cpio archive in the "newc" format that lies in a guest's memory.

A member is a header of 110 characters ("070701", or "070702" with checksums, and 13 numbers of 8 hexadecimal digits), its name with
a NUL, and its content; name and content are padded to 4 bytes. The last member is named TRAILER!!!. Only what is asked
for is read; the archive may be damaged, which then ends it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .memory import GuestMemory, UnreadableError

_HEADER_SIZE: Final = 110
_MAGICS: Final = (b"070701", b"070702")
_MODE: Final = 1
_FILE_SIZE: Final = 6
_NAME_SIZE: Final = 11
_MAX_NAME: Final = 4096
_MAX_MEMBERS: Final = 1 << 16
_TRAILER: Final = "TRAILER!!!"
_TYPE_MASK: Final = 0o170000
_REGULAR: Final = 0o100000


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive: its content is `size` bytes at kernel address `vaddr`. `path` begins with a slash."""

    path: str
    mode: int
    vaddr: int
    size: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file (an archive made by hand may leave the type out)."""
        return self.mode & _TYPE_MASK in (0, _REGULAR)


def members(memory: GuestMemory, vaddr: int, length: int) -> Iterator[Member]:
    """The members of the archive in [vaddr, vaddr + length), as far as it is sound."""
    at = 0
    for _ in range(_MAX_MEMBERS):
        if at + _HEADER_SIZE > length:
            return
        try:
            header = memory.read_kernel(vaddr + at, _HEADER_SIZE)
            if header[:6] not in _MAGICS:
                return
            numbers = [int(header[i : i + 8], 16) for i in range(6, _HEADER_SIZE, 8)]
            name_size, size = numbers[_NAME_SIZE], numbers[_FILE_SIZE]
            content = _padded(at + _HEADER_SIZE + name_size)
            if not 0 < name_size <= _MAX_NAME or content + size > length:
                return
            name = (
                memory.read_kernel(vaddr + at + _HEADER_SIZE, name_size).partition(b"\0")[0].decode("utf-8", "replace")
            )
        except (UnreadableError, ValueError):
            return
        if name == _TRAILER:
            return
        yield Member("/" + name.removeprefix("./").lstrip("/"), numbers[_MODE], vaddr + content, size)
        at = _padded(content + size)


def _padded(offset: int) -> int:
    """The next multiple of 4. Names and contents are padded as counted from the start of the archive."""
    return offset + 3 & ~3
