"""The tables of a 64-bit ELF file, as a reader of symbols wants them: sections by name, segments, the entry point.

A file may come out of a guest, so nothing in it is believed: a table or section not wholly in the file is empty.
"""

import struct
from dataclasses import dataclass
from typing import Final

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_ELF64_LITTLE: Final = b"\x7fELF\x02\x01"
_NOBITS: Final = 8
_MAX_NAME: Final = 256

ET_DYN: Final = 3
"""`type` of a position-independent executable."""
PT_LOAD: Final = 1
"""`type` of a segment that is loaded."""


class ElfError(Exception):
    """The bytes are no 64-bit little-endian ELF file."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section: where it is in memory (0: nowhere) and its bytes in the file. `link` is the index of another one."""

    index: int
    name: str
    type: int
    address: int
    size: int
    link: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """A segment: `size` bytes at `vaddr`, the first `len(data)` of them from the file. `flags`: 1 x, 2 w, 4 r.

    `paddr` is where a loader without page tables would put it: for most programs the same as `vaddr`.
    """

    type: int
    flags: int
    vaddr: int
    paddr: int
    size: int
    offset: int
    data: memoryview


class ElfFile:
    """The tables of the file in `data`; raises `ElfError` if it is none."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _EHDR.size or data[:6] != _ELF64_LITTLE:
            raise ElfError("not a 64-bit ELF file")
        self.data = memoryview(data)
        fields = _EHDR.unpack_from(data)
        self.type: int = fields[1]
        self.entry: int = fields[4]
        self.program_headers_offset: int = fields[5]
        phnum, shnum, names_index = fields[10], fields[12], fields[13]
        self.segments = [
            ElfSegment(kind, flags, vaddr, paddr, size, offset, self._bytes(offset, file_size))
            for kind, flags, offset, vaddr, paddr, file_size, size, _align in self._rows(
                _PHDR, fields[5], fields[9], phnum
            )
        ]
        rows = self._rows(_SHDR, fields[6], fields[11], shnum)
        names = bytes(self._bytes(rows[names_index][4], rows[names_index][5])) if names_index < len(rows) else b""
        self.sections = [
            Section(
                index,
                _name(names, name),
                kind,
                address,
                size,
                link,
                self._bytes(offset, 0 if kind == _NOBITS else size),
            )
            for index, (name, kind, _flags, address, offset, size, link, *_) in enumerate(rows)
        ]
        self.nr_program_headers = len(self.segments)

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    def _bytes(self, offset: int, size: int) -> memoryview:
        return self.data[offset : offset + size] if offset + size <= len(self.data) else self.data[:0]

    def _rows(self, layout: struct.Struct, offset: int, entry_size: int, count: int) -> list[tuple[int, ...]]:
        table = self._bytes(offset, count * layout.size)
        return list(layout.iter_unpack(table)) if entry_size == layout.size else []


def _name(names: bytes, offset: int) -> str:
    """The NUL-terminated string at an offset of a string table; cut at 256 bytes."""
    end = names.find(b"\0", offset, offset + _MAX_NAME)
    return names[offset : end if end >= 0 else offset + _MAX_NAME].decode("utf-8", "replace")
