"""The one page walk: 4-level x86-64 paging as hardware walks it. Intel SDM vol. 3, "4-Level Paging and 5-Level Paging".

These functions look at the tables in RAM, not at a TLB, and never change them (no A or D bits).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Maddr, Mfn, Vaddr

from .ram import Ram

PTE_PRESENT: Final = 1 << 0
PTE_RW: Final = 1 << 1
PTE_USER: Final = 1 << 2
PTE_PSE: Final = 1 << 7
PTE_NX: Final = 1 << 63
PTE_ADDRESS: Final = 0x000F_FFFF_FFFF_F000

_NOT_CANONICAL: Final = 5


@dataclass(frozen=True, slots=True)
class Translation:
    """Where a virtual address is: `pte` is the last entry of the walk, at `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB).

    `flags` are the rights over all levels, as PTE bits: RW and USER where every level has them, NX where any has.
    """

    maddr: Maddr
    pte: int
    level: int
    flags: int


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One table of a walk: the entry at `index` of the level `level` table in frame `table_mfn`; 0 outside RAM."""

    level: int
    table_mfn: Mfn
    index: int
    entry: int


class NotMappedError(Exception):
    """A walk ended at `level` with `entry`; level 5 is an address that is not canonical.

    A present `entry` is one that names a table (of `level`) or page that is no RAM.

    `done` holds what a read got before the address.
    """

    def __init__(self, vaddr: int, level: int, entry: int, done: bytes = b"") -> None:
        if level == _NOT_CANONICAL:
            why = "not canonical"
        elif entry & PTE_PRESENT:
            why = f"level {level} lies outside RAM, as {entry:#x} says"
        else:
            why = f"level {level} entry is {entry:#x}"
        super().__init__(f"virtual address {vaddr:#x} is not mapped: {why}")
        self.vaddr = Vaddr(vaddr)
        self.level = level
        self.entry = entry
        self.done = done


def walk(ram: Ram, cr3: int, vaddr: int) -> Translation:
    """Translate one address; raises `NotMappedError`. The page found may lie outside RAM, its tables may not."""
    if not (0 <= vaddr < 1 << 47 or 0xFFFF_8000_0000_0000 <= vaddr < 1 << 64):
        raise NotMappedError(vaddr, _NOT_CANONICAL, 0)
    words, nr_words = ram.q, ram.size >> 3
    entry, flags, level, shift = cr3, PTE_RW | PTE_USER, 5, 48
    while level > 1:
        at = (entry & PTE_ADDRESS) >> 3 | vaddr >> (shift - 9) & 511
        if at >= nr_words:
            raise NotMappedError(vaddr, level - 1, entry | PTE_PRESENT)
        entry = words[at]
        level -= 1
        shift -= 9
        if not entry & PTE_PRESENT:
            raise NotMappedError(vaddr, level, entry)
        flags = flags & (entry | PTE_NX) | entry & PTE_NX
        if entry & PTE_PSE and 1 < level < 4:
            break
    offset = (1 << shift) - 1
    return Translation(Maddr(entry & PTE_ADDRESS & ~offset | vaddr & offset), entry, level, flags)


def walk_entries(ram: Ram, cr3: int, vaddr: int) -> list[WalkStep]:
    """The tables that a walk reads, from level 4 down to where it ends; never raises."""
    steps: list[WalkStep] = []
    entry = cr3
    for level in (4, 3, 2, 1):
        table, index = entry & PTE_ADDRESS, vaddr >> (3 + 9 * level) & 511
        inside = table + index * 8 + 8 <= ram.size
        entry = ram.q[table + index * 8 >> 3] if inside else 0
        steps.append(WalkStep(level, Mfn(table >> 12), index, entry))
        if not entry & PTE_PRESENT or (entry & PTE_PSE and 1 < level < 4):
            break
    return steps


def _pieces(ram: Ram, cr3: int, vaddr: int, length: int) -> Iterator[tuple[int, int]]:
    """The machine ranges of a virtual range, page by page: (maddr, length). Raises `NotMappedError` at a hole."""
    while length > 0:
        part = min(PAGE_SIZE - (vaddr & PAGE_MASK), length)
        found = walk(ram, cr3, vaddr)
        if found.maddr + part > ram.size:
            raise NotMappedError(vaddr, found.level, found.pte)
        yield found.maddr, part
        vaddr += part
        length -= part


def read_virtual(ram: Ram, cr3: int, vaddr: int, length: int) -> bytes:
    """The bytes at a virtual address; `NotMappedError.vaddr` is the first that is missing, `.done` all before it."""
    if length <= PAGE_SIZE - (vaddr & PAGE_MASK):
        only = walk(ram, cr3, vaddr).maddr if length else Maddr(0)
        if only + length <= ram.size:
            return bytes(ram.buffer[only : only + length])
    parts: list[bytes] = []
    try:
        for maddr, part in _pieces(ram, cr3, vaddr, length):
            parts.append(bytes(ram.buffer[maddr : maddr + part]))
    except NotMappedError as error:
        error.done = b"".join(parts)
        raise
    return b"".join(parts)


def write_virtual(ram: Ram, cr3: int, vaddr: int, data: bytes | bytearray | memoryview) -> None:
    """Store bytes at a virtual address, whatever the page's rights; nothing is stored when a byte is not mapped."""
    at = 0
    for maddr, part in list(_pieces(ram, cr3, vaddr, len(data))):
        ram.buffer[maddr : maddr + part] = data[at : at + part]
        at += part


def mapped_ranges(ram: Ram, cr3: int, start: int, end: int) -> Iterator[tuple[Vaddr, int, int, Maddr]]:
    """What [start, end) maps, in order: (vaddr, length, flags, maddr), as long as flags agree and machine addresses
    go on.
    """
    run: tuple[int, int, int, int] | None = None
    vaddr = start
    while vaddr < end:
        try:
            found = walk(ram, cr3, vaddr)
        except NotMappedError as error:
            if error.level == _NOT_CANONICAL:
                vaddr = max(vaddr, 0xFFFF_8000_0000_0000) if vaddr < 0xFFFF_8000_0000_0000 else end
            else:
                size = 1 << 3 + 9 * error.level
                vaddr = (vaddr | size - 1) + 1
            continue
        size = 1 << 3 + 9 * found.level
        after = min((vaddr | size - 1) + 1, end)
        length = after - vaddr
        if run and run[0] + run[1] == vaddr and run[2] == found.flags and run[3] + run[1] == found.maddr:
            run = (run[0], run[1] + length, run[2], run[3])
        else:
            if run:
                yield Vaddr(run[0]), run[1], run[2], Maddr(run[3])
            run = (vaddr, length, found.flags, found.maddr)
        vaddr = after
    if run:
        yield Vaddr(run[0]), run[1], run[2], Maddr(run[3])
