"""The page walk, over tables written by hand."""

import pytest

from xdbg.machine.exits import ExceptionExit
from xdbg.machine.paging import (
    PTE_NX,
    PTE_RW,
    PTE_USER,
    NotMappedError,
    WalkStep,
    mapped_ranges,
    read_virtual,
    walk,
    walk_entries,
    write_virtual,
)
from xdbg.machine.ram import Ram

L4, L3, L2, L1, FRAME = 0x1000, 0x2000, 0x3000, 0x4000, 0x9000
TABLE = 7
KERNEL = 0xFFFF_8000_0000_0000


@pytest.fixture
def ram() -> Ram:
    """0 -> FRAME writable, 0x1000 -> FRAME + 0x1000 read-only NX, 2 MiB -> a 2 MiB page, 1 GiB -> a 1 GiB page."""
    ram = Ram(4 << 20)
    ram.write_u64(L4, L3 | TABLE)
    ram.write_u64(L3, L2 | TABLE)
    ram.write_u64(L2, L1 | TABLE)
    ram.write_u64(L1, FRAME | 7)
    ram.write_u64(L1 + 8, FRAME + 0x1000 | 5 | PTE_NX)
    ram.write_u64(L2 + 8, 0x20_0000 | 0x87)
    ram.write_u64(L3 + 8, 0x87)
    ram.write_u64(L4 + 256 * 8, L3 | 3)
    return ram


@pytest.mark.parametrize(
    ("vaddr", "maddr", "level", "flags"),
    [
        (0x123, FRAME + 0x123, 1, PTE_RW | PTE_USER),
        (0x1FFF, FRAME + 0x1FFF, 1, PTE_USER | PTE_NX),
        (0x20_0000 + 0x12345, 0x21_2345, 2, PTE_RW | PTE_USER),
        (0x4000_0000 + 0x123456, 0x12_3456, 3, PTE_RW | PTE_USER),
        (KERNEL + 0x123, FRAME + 0x123, 1, PTE_RW),
        (KERNEL + 0x1000, FRAME + 0x1000, 1, PTE_NX),
    ],
)
def test_a_walk_finds_page_level_and_effective_rights(ram, vaddr, maddr, level, flags):
    found = walk(ram, L4, vaddr)
    assert (found.maddr, found.level, found.flags) == (maddr, level, flags)


@pytest.mark.parametrize(
    ("vaddr", "level"),
    [
        (0x2000, 1),
        (0x40_0000, 2),
        (0x8000_0000, 3),
        (1 << 39, 4),
        (1 << 47, 5),
        (KERNEL - 1, 5),
        (1 << 64, 5),
        (-1, 5),
    ],
)
def test_a_walk_says_where_it_ended(ram, vaddr, level):
    with pytest.raises(NotMappedError) as raised:
        walk(ram, L4, vaddr)
    assert (raised.value.vaddr, raised.value.level) == (vaddr, level)
    assert hex(vaddr) in str(raised.value)


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_tables_outside_ram_are_not_mapped(ram, level):
    outside = 1 << 40
    at = {3: L4, 2: L3, 1: L2}.get(level)
    if at is not None:
        ram.write_u64(at, outside | TABLE)
    with pytest.raises(NotMappedError, match="outside RAM"):
        walk(ram, outside if level == 4 else L4, 0)
    assert [step.entry for step in walk_entries(ram, outside if level == 4 else L4, 0)][-1] == 0


def test_the_entries_of_a_walk(ram):
    assert walk_entries(ram, L4, 0x1000) == [
        WalkStep(4, 1, 0, L3 | TABLE),
        WalkStep(3, 2, 0, L2 | TABLE),
        WalkStep(2, 3, 0, L1 | TABLE),
        WalkStep(1, 4, 1, FRAME + 0x1000 | 5 | PTE_NX),
    ]
    assert [step.level for step in walk_entries(ram, L4, 1 << 39)] == [4]
    assert [step.level for step in walk_entries(ram, L4, 0x20_0000)] == [4, 3, 2]


def test_reads_go_on_over_pages_and_tell_what_they_got_before_a_hole(ram):
    ram.write(FRAME + 0xFFE, b"abcd")
    assert read_virtual(ram, L4, 0xFFE, 4) == b"abcd"
    assert read_virtual(ram, L4, 0x123, 0) == b""
    ram.write(FRAME + 0x1FFE, b"yz")
    with pytest.raises(NotMappedError) as raised:
        read_virtual(ram, L4, 0x1FFE, 4)
    assert (raised.value.vaddr, raised.value.done) == (0x2000, b"yz")


def test_a_page_outside_ram_is_a_hole(ram):
    ram.write_u64(L1, 1 << 40 | 7)
    for length in (1, 0x1001):
        with pytest.raises(NotMappedError):
            read_virtual(ram, L4, 0, length)


def test_a_write_is_all_or_nothing_and_ignores_rights(ram):
    write_virtual(ram, L4, 0xFFF, b"12")
    assert ram.read(FRAME + 0xFFF, 2) == b"12"
    with pytest.raises(NotMappedError):
        write_virtual(ram, L4, 0x1FFF, b"34")
    assert ram.read(FRAME + 0x1FFF, 1) == b"\0"


def test_mapped_ranges_merge_what_goes_on(ram):
    ram.write_u64(L1 + 2 * 8, FRAME + 0x2000 | 5 | PTE_NX)
    user, read_only = PTE_RW | PTE_USER, PTE_USER | PTE_NX
    assert list(mapped_ranges(ram, L4, 0, 1 << 64))[:3] == [
        (0, 0x1000, user, FRAME),
        (0x1000, 0x2000, read_only, FRAME + 0x1000),
        (0x20_0000, 0x20_0000, user, 0x20_0000),
    ]
    assert list(mapped_ranges(ram, L4, 0x800, 0x1800)) == [
        (0x800, 0x800, user, FRAME + 0x800),
        (0x1000, 0x800, read_only, FRAME + 0x1000),
    ]
    assert next(start for start, *_ in mapped_ranges(ram, L4, 0, 1 << 64) if start >= KERNEL) == KERNEL


def test_the_walk_agrees_with_the_engine_about_superpages(guest):
    machine = guest("mov rax, [0x200008]; mov [0x201000], rax; mov rax, [0x40000000]", size=4 << 20)
    machine.ram.write_u64(0x20_0008, 0x1234)
    l2 = machine.ram.read_u64(machine.ram.read_u64(machine.l4) & ~0xFFF) & ~0xFFF
    machine.ram.write_u64(l2 + 8, 0x20_0000 | 0x87)
    result = machine.run_to_end()
    assert isinstance(result, ExceptionExit)
    assert result.cr2 == 0x4000_0000
    assert machine.ram.read_u64(0x20_1000) == 0x1234
    assert walk(machine.ram, machine.l4, 0x20_1000).maddr == 0x20_1000
