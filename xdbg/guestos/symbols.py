"""Names of addresses: the symbol table of an ELF file.

`lookup` answers as a person would: the innermost function or object that covers an address, and only where there is
none the nearest label below it in the same section (assembly code has labels without a type or size).
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, Self

from xdbg.abi.frames import Vaddr

from .elf_file import ElfFile

_SYM: Final = struct.Struct("<IBBHQQ")
_SHT_SYMTAB: Final = 2
_SHT_DYNSYM: Final = 11
_SHN_UNDEF: Final = 0
_SHN_LORESERVE: Final = 0xFF00
_STT_OBJECT: Final = 1
_STT_FUNC: Final = 2
_STT_SECTION: Final = 3
_STT_FILE: Final = 4
_STT_TLS: Final = 6
_STT_GNU_IFUNC: Final = 10
_KINDS: Final = {_STT_OBJECT: "object", _STT_FUNC: "function", _STT_GNU_IFUNC: "function"}
_BINDING_RANK: Final = {1: 0, 2: 1, 0: 2}
"""Of several names for one address the global is the best, then the weak, then the local one."""
_MAX_NAME: Final = 4096


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name for `size` bytes at `address`; `kind` is "function", "object" or "label". `end` bounds a label's reach."""

    name: str
    address: Vaddr
    size: int
    kind: str
    end: int


class SymbolTable:
    """All symbols of a program at the addresses where it runs."""

    def __init__(self, symbols: Iterable[Symbol], constants: dict[str, int] | None = None) -> None:
        """Of symbols with one name or one place the first counts."""
        self._by_name: dict[str, Symbol] = {}
        self._constants = constants or {}
        sized: dict[tuple[int, int], Symbol] = {}
        labels: dict[int, Symbol] = {}
        for symbol in symbols:
            self._by_name.setdefault(symbol.name, symbol)
            if symbol.kind != "label" and symbol.size:
                sized.setdefault((symbol.address, -symbol.size), symbol)
            else:
                labels.setdefault(symbol.address, symbol)
        # Larger before smaller at one address: the innermost is found first, going down.
        self._sized = [sized[key] for key in sorted(sized)]
        self._sized_starts = [symbol.address for symbol in self._sized]
        self._ends_so_far = list(accumulate((symbol.address + symbol.size for symbol in self._sized), max))
        self._labels = [labels[key] for key in sorted(labels)]
        self._label_starts = [symbol.address for symbol in self._labels]

    @classmethod
    def from_elf(cls, source: bytes | str | Path | ElfFile, *, bias: int = 0) -> Self:
        """The symbols of an ELF file, `bias` added to each address; empty if it was stripped.

        Raises `ElfError` if it is no ELF file, OSError if it can't be read.
        """
        if isinstance(source, str | Path):
            source = Path(source).read_bytes()
        elf = source if isinstance(source, ElfFile) else ElfFile(source)
        rows: list[tuple[int, Symbol]] = []
        constants: dict[str, int] = {}
        for rank, name, value, size, kind, section in _rows(elf):
            if _SHN_UNDEF < section < min(len(elf.sections), _SHN_LORESERVE):
                end = elf.sections[section].address + elf.sections[section].size + bias
                rows.append((rank, Symbol(name, Vaddr(value + bias), size, _KINDS.get(kind, "label"), end)))
            elif section >= _SHN_LORESERVE:
                constants.setdefault(name, value)
        rows.sort(key=lambda row: (row[0], row[1].name))
        return cls((symbol for _, symbol in rows), constants)

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Symbol]:
        """By name."""
        return (self._by_name[name] for name in sorted(self._by_name))

    def get(self, name: str) -> Symbol | None:
        """The symbol of that name."""
        return self._by_name.get(name)

    def address(self, name: str) -> Vaddr:
        """Where a name is; KeyError if it is none."""
        return self._by_name[name].address

    def constant(self, name: str) -> int | None:
        """The value of an absolute symbol, such as a linker script defines."""
        return self._constants.get(name)

    def lookup(self, vaddr: int) -> tuple[str, int] | None:
        """The name that covers an address, and the distance from it."""
        index = bisect_right(self._sized_starts, vaddr) - 1
        while index >= 0 and self._ends_so_far[index] > vaddr:
            symbol = self._sized[index]
            if symbol.address + symbol.size > vaddr:
                return symbol.name, vaddr - symbol.address
            index -= 1
        index = bisect_right(self._label_starts, vaddr) - 1
        if index >= 0 and vaddr < self._labels[index].end:
            return self._labels[index].name, vaddr - self._labels[index].address
        return None

    def describe(self, vaddr: int) -> str:
        """An address for people: "name+0x12", or the number where there is no name."""
        found = self.lookup(vaddr)
        if found is None:
            return hex(vaddr)
        name, offset = found
        return f"{name}+{offset:#x}" if offset else name


def _rows(elf: ElfFile) -> Iterator[tuple[int, str, int, int, int, int]]:
    """(rank, name, value, size, type, section index) of each named entry; those of .dynsym if there is no .symtab."""
    tables = [s for s in elf.sections if s.type == _SHT_SYMTAB] or [s for s in elf.sections if s.type == _SHT_DYNSYM]
    for table in tables:
        names = bytes(elf.sections[table.link].data) if table.link < len(elf.sections) else b""
        usable = table.data[: len(table.data) - len(table.data) % _SYM.size]
        for name_at, info, _other, section, value, size in _SYM.iter_unpack(usable):
            kind = info & 15
            if kind in (_STT_SECTION, _STT_FILE, _STT_TLS):
                continue
            end = names.find(b"\0", name_at, name_at + _MAX_NAME)
            if end <= name_at:
                continue
            rank = _BINDING_RANK.get(info >> 4, 3) + (0 if kind in _KINDS else 4)
            yield rank, names[name_at:end].decode("utf-8", "replace"), value, size, kind, section
