"""The symbol table and the layouts of structures, held against nm and gdb."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdbg.abi.frames import Vaddr
from xdbg.guestos.elf_file import ElfError, ElfFile
from xdbg.guestos.structures import NoStructureError, Structures
from xdbg.guestos.symbols import Symbol, SymbolTable


def gdb(program: Path, expressions: list[str]) -> list[str]:
    """What gdb prints for each command, one line each."""
    words = [word for expression in expressions for word in ("-ex", expression)]
    command = ["gdb", "-nx", "-batch", "-ex", "set width 0", *words, str(program)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_every_name_of_nm_has_the_address_of_nm(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    lines = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout.splitlines()
    names = {name: (int(address, 16), letter) for address, letter, name in map(str.split, lines)}
    assert names.pop("an_absolute") == (0x1234, "A")
    assert table.constant("an_absolute") == 0x1234
    assert {name: table.address(name) for name in names} == {name: address for name, (address, _) in names.items()}
    assert len(table) == len(names)


def test_every_byte_of_functions_and_objects_is_named_as_gdb_names_it(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    addresses = [
        symbol.address + offset
        for symbol in table
        if symbol.kind != "label" and symbol.name not in ("outer", "inner", "alias_of_work", "work")
        for offset in range(0, symbol.size, 3)
    ]
    expected = []
    for line in gdb(program, [f"info symbol {address:#x}" for address in addresses]):
        words = line.partition(" in section")[0].split(" + ")
        expected.append((words[0], int(words[1]) if len(words) > 1 else 0))
    assert len(expected) > 20
    assert [table.lookup(address) for address in addresses] == expected


def test_the_innermost_function_wins_and_the_outer_goes_on_behind_it(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    outer = table.address("outer")
    assert [table.lookup(outer + i) for i in range(5)] == [
        ("outer", 0),
        ("outer", 1),
        ("inner", 0),
        ("inner", 1),
        ("outer", 4),
    ]


def test_labels_name_only_what_no_function_covers(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    label = table.address("label")
    assert table.describe(label + 1) == "label+0x1"
    assert table.describe(label + 3) == "local_label+0x1"
    assert table.describe(table.address("local_label")) == "local_label"


def test_a_global_name_is_better_than_a_weak_one(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    assert table.address("work") == table.address("alias_of_work")
    assert table.describe(table.address("work")) == "work"


def test_addresses_outside_every_section_have_no_name(program: Path) -> None:
    table = SymbolTable.from_elf(program)
    for vaddr in (0, 0x1000, 0xFFFF_FFFF_FFFF_FFFF, 1 << 40):
        assert table.lookup(vaddr) is None
        assert table.describe(vaddr) == hex(vaddr)


def test_a_bias_moves_every_symbol_but_no_constant(program: Path) -> None:
    table, moved = SymbolTable.from_elf(program), SymbolTable.from_elf(program, bias=0x10000)
    assert moved.address("work") == table.address("work") + 0x10000
    assert moved.lookup(table.address("label") + 0x10001) == ("label", 1)
    assert moved.constant("an_absolute") == 0x1234


def test_a_stripped_file_has_no_names_and_no_structures(program: Path, tmp_path: Path) -> None:
    subprocess.run(["strip", "-o", tmp_path / "stripped", program], check=True)
    table = SymbolTable.from_elf(tmp_path / "stripped")
    assert len(table) == 0
    assert table.lookup(0x401000) is None
    with pytest.raises(NoStructureError, match="no debug information"):
        Structures.from_elf((tmp_path / "stripped").read_bytes())


def test_structures_have_the_layout_that_gdb_knows(program: Path) -> None:
    layout = Structures.from_elf(program.read_bytes()).struct_layout("whole")
    names = [name for name in layout.fields if name != "tail"]
    asked = [f"output (long)&((struct whole *)0)->{name}" for name in names]
    asked += [f"output sizeof(((struct whole *)0)->{name})" for name in names]
    answers = gdb(program, [part for command in asked for part in (command, "echo \\n")])
    values = [int(answer) for answer in answers]
    assert [(layout.fields[name].offset, layout.fields[name].size) for name in names] == [
        *zip(values[: len(names)], values[len(names) :], strict=True)
    ]
    assert {"here.x", "here.y", "number", "low", "high"} <= set(names)
    counts = {name: layout.fields[name].count for name in ("name", "records", "grid", "tail", "next")}
    assert counts == {"name": 16, "records": 2, "grid": 6, "tail": 0, "next": 1}
    assert (
        layout.fields["records"].element_size == Structures.from_elf(program.read_bytes()).struct_layout("record").size
    )
    assert layout.size == int(gdb(program, ["output sizeof(struct whole)"])[0])


def test_members_are_read_by_their_name(program: Path) -> None:
    layout = Structures.from_elf(program.read_bytes()).struct_layout("whole")
    data = bytearray(layout.size)
    data[:6] = b"gdb\0xx"
    at = layout.fields["here.y"].offset
    data[at : at + 4] = (-2).to_bytes(4, "little", signed=True)
    assert layout.text(bytes(data), "name") == "gdb"
    assert layout.value(bytes(data), "here.y") == 0xFFFF_FFFE
    assert layout.value(bytes(data), "here.y", signed=True) == -2
    with pytest.raises(KeyError):
        layout.value(bytes(data), "there")


def test_enumerations_have_their_values(program: Path) -> None:
    structures = Structures.from_elf(program.read_bytes())
    assert structures.enum_values("colour") == {"RED": 0, "GREEN": 7, "BLUE": -1}
    for wanted in (structures.struct_layout, structures.enum_values):
        with pytest.raises(NoStructureError):
            wanted("nothing")


def test_what_is_no_elf_file_is_refused() -> None:
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + bytes(100)):
        with pytest.raises(ElfError):
            ElfFile(data)


@settings(max_examples=150, deadline=None)
@given(
    place=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=8), cut=st.none() | st.floats(0, 1)
)
def test_a_damaged_file_has_fewer_names_but_breaks_nothing(
    program: Path, place: float, value: bytes, cut: float | None
) -> None:
    data = bytearray(program.read_bytes())
    sections_at = int.from_bytes(data[40:48], "little")
    interesting = [*range(6, 64), *range(sections_at, len(data) - 8)]
    at = interesting[int(place * len(interesting))]
    data[at : at + len(value)] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        table = SymbolTable.from_elf(bytes(data))
    except ElfError:
        return
    for vaddr in (0, 0x401000, 0x404000, (1 << 64) - 1):
        found = table.lookup(vaddr)
        assert found is None or found[1] >= 0


@settings(max_examples=60, deadline=None)
@given(
    place=st.floats(0, 1, exclude_max=True),
    value=st.binary(min_size=1, max_size=4),
    section=st.sampled_from(["info", "abbrev", "str"]),
)
def test_damaged_debug_information_is_read_or_refused(program: Path, place: float, value: bytes, section: str) -> None:
    data = bytearray(program.read_bytes())
    found = ElfFile(bytes(data)).section(f".debug_{section}")
    assert found is not None
    at = bytes(data).index(bytes(found.data)) + int(place * len(found.data))
    data[at : at + len(value)] = value
    try:
        structures = Structures.from_elf(bytes(data))
        layout = structures.struct_layout("whole")
        assert all(field.offset >= 0 for field in layout.fields.values())
        structures.enum_values("colour")
    except NoStructureError as error:
        line = str(error)
        assert "\n" not in line, line


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"), st.integers(0, 60), st.integers(0, 20), st.sampled_from(["function", "label"])
        ),
        max_size=10,
    )
)
def test_lookup_is_what_a_search_through_all_symbols_finds(rows: list[tuple[str, int, int, str]]) -> None:
    symbols = [Symbol(name, Vaddr(address), size, kind, 80) for name, address, size, kind in rows]
    table = SymbolTable(symbols)
    for vaddr in range(90):
        covering = [s for s in symbols if s.kind != "label" and s.address <= vaddr < s.address + s.size]
        below = [s for s in symbols if (s.kind == "label" or not s.size) and s.address <= vaddr < s.end]
        found = table.lookup(vaddr)
        if covering:
            start = max(s.address for s in covering)
            smallest = min(s.size for s in covering if s.address == start)
            best = next(s for s in covering if (s.address, s.size) == (start, smallest))
            assert found == (best.name, vaddr - start)
        elif below:
            start = max(s.address for s in below)
            assert found == (next(s.name for s in below if s.address == start), vaddr - start)
        else:
            assert found is None
