"""Members of a cpio archive in the "newc" format.

A member is a header of 110 characters ("070701", or "070702" with checksums, and 13 numbers of 8 hexadecimal digits),
its name with a NUL, and its content; name and content are padded to 4 bytes, counted from the start of the archive. The
last member is named TRAILER!!!. A damaged archive ends at the damage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADER_SIZE: Final = 110
_MAGICS: Final = (b"070701", b"070702")
_MODE: Final = 1
_FILE_SIZE: Final = 6
_NAME_SIZE: Final = 11
_TRAILER: Final = "TRAILER!!!"
_TYPE_MASK: Final = 0o170000
_REGULAR: Final = 0o100000


@dataclass(frozen=True, slots=True)
class Member:
    """A file or directory of the archive. `path` begins with a slash."""

    path: str
    mode: int
    content: memoryview

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file (an archive made by hand may leave the type out)."""
        return self.mode & _TYPE_MASK in (0, _REGULAR)


def members(archive: bytes) -> Iterator[Member]:
    """The members in their order, as far as the archive is sound; none if it is no such archive."""
    view = memoryview(archive)
    at = 0
    while archive[at : at + 6] in _MAGICS and at + _HEADER_SIZE <= len(archive):
        try:
            numbers = [int(archive[i : i + 8], 16) for i in range(at + 6, at + _HEADER_SIZE, 8)]
        except ValueError:
            return
        name_at = at + _HEADER_SIZE
        content_at = _padded(name_at + numbers[_NAME_SIZE])
        end = content_at + numbers[_FILE_SIZE]
        name = archive[name_at : name_at + numbers[_NAME_SIZE]].partition(b"\0")[0].decode("utf-8", "replace")
        if end > len(archive) or name == _TRAILER:
            return
        yield Member("/" + name.removeprefix("./").lstrip("/"), numbers[_MODE], view[content_at:end])
        at = _padded(end)


def _padded(offset: int) -> int:
    """The next multiple of 4."""
    return offset + 3 & ~3
