"""Kernel files: what is read from a good one, and that any other is refused with one clear line.

Invariant of the mutation tests: whatever the bytes are, there is a KernelImage that holds together or an ImageError.
"""

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xdbg.abi.elfnote import ElfNote
from xdbg.abi.features import XenFeat
from xdbg.xen import elf_image
from xdbg.xen.elf_image import KernelImage, parse_image, read_image
from xdbg.xen.elf_notes import (
    ImageError,
    parameters_from_guest_string,
    parameters_from_notes,
    parse_features,
    read_notes,
)

BASE = 0xFFFF_FFFF_8000_0000
TEXT = bytes(range(256)) * 32
PT_LOAD, PT_NOTE = 1, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOTE = 1, 2, 3, 7


def note(kind: int, value: bytes, owner: bytes = b"Xen\0") -> bytes:
    padded = [part.ljust(len(part) + 3 & ~3, b"\0") for part in (owner, value)]
    return struct.pack("<III", len(owner), len(value), kind) + b"".join(padded)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


GOOD_NOTES = (
    note(ElfNote.XEN_VERSION, b"xen-3.0\0"),
    note(ElfNote.GUEST_OS, b"test\0"),
    note(ElfNote.LOADER, b"generic\0"),
    note(ElfNote.FEATURES, b"!writable_page_tables|pae_pgdir_above_4gb\0"),
    note(ElfNote.VIRT_BASE, u64(BASE)),
    note(ElfNote.ENTRY, u64(BASE + 0x100010)),
    note(ElfNote.HYPERCALL_PAGE, u64(BASE + 0x101000)),
)


def build_elf(
    notes: bytes = b"".join(GOOD_NOTES),
    loads: tuple[tuple[int, bytes, int], ...] = ((0x100000, TEXT, 0x3000),),
    sections: tuple[tuple[str, int, bytes, int], ...] = (),
    entry: int = BASE + 0x100020,
) -> bytes:
    """An ELF file: `loads` are (p_paddr, data, p_memsz), `sections` (name, sh_type, data, sh_link)."""
    count = len(loads) + 1
    at = 64 + 56 * count
    table, content = b"", b""
    for paddr, data, size in loads:
        table += struct.pack("<IIQQQQQQ", PT_LOAD, 5, at + len(content), 0, paddr, len(data), size, 4096)
        content += data
    table += struct.pack("<IIQQQQQQ", PT_NOTE, 4, at + len(content), 0, 0, len(notes), len(notes), 4)
    content += notes
    rows, names = [bytes(64)], b"\0"
    for name, kind, data, link in (*sections, (".shstrtab", SHT_STRTAB, b"", 0)):
        name_at = len(names)
        names += name.encode() + b"\0"
        data = data or names
        rows.append(struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, at + len(content), len(data), link, 0, 1, 0))
        content += data
    shoff = at + len(content) if sections else 0
    shnum = len(rows) if sections else 0
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = (ident, 2, 62, 1, entry, 64, shoff, 0, 64, 56, count, 64, shnum, max(shnum - 1, 0))
    return struct.pack("<16sHHIQQQIHHHHHH", *header) + table + content + b"".join(rows[:shnum])


GOOD = build_elf()


def loaded(image: KernelImage) -> bytes:
    """The image's memory from its first byte to its last."""
    memory = bytearray(image.end - image.start)
    for segment in image.segments:
        offset = segment.start - image.start
        memory[offset : offset + len(segment.data)] = segment.data
    return bytes(memory)


def test_a_kernel_with_notes_is_read_whole() -> None:
    image = parse_image(GOOD)
    assert (image.virt_base, image.entry, image.hypercall_page) == (BASE, BASE + 0x100010, BASE + 0x101000)
    assert (image.start, image.end) == (0x100000, 0x103000)
    assert loaded(image) == TEXT + bytes(0x1000)
    assert image.elf == GOOD
    assert image.parameters.guest_os == "test"
    assert image.init_p2m is None
    assert not image.parameters.mod_start_pfn


@pytest.mark.parametrize("missing", range(len(GOOD_NOTES)))
def test_any_single_note_may_be_missing(missing: int) -> None:
    kept = b"".join(n for i, n in enumerate(GOOD_NOTES) if i != missing)
    kind = struct.unpack_from("<III", GOOD_NOTES[missing])[2]
    if kind == ElfNote.VIRT_BASE:
        # Without it pfn 0 is at vaddr 0, so the addresses in the other notes move down.
        kept = note(ElfNote.XEN_VERSION, b"xen-3.0\0") + note(ElfNote.ENTRY, u64(0x100010))
    image = parse_image(build_elf(kept))
    assert image.virt_base == (0 if kind == ElfNote.VIRT_BASE else BASE)
    assert image.entry == (BASE + 0x100020 if kind == ElfNote.ENTRY else image.virt_base + 0x100010)
    has_page = kind not in (ElfNote.HYPERCALL_PAGE, ElfNote.VIRT_BASE)
    assert image.hypercall_page == (BASE + 0x101000 if has_page else None)


def test_one_note_is_enough() -> None:
    image = parse_image(build_elf(note(ElfNote.XEN_VERSION, b"xen-3.0\0"), entry=0x100000))
    assert (image.virt_base, image.entry) == (0, 0x100000)


def test_notes_of_others_are_no_xen_notes() -> None:
    with pytest.raises(ImageError, match="not a Xen PV kernel"):
        parse_image(build_elf(note(ElfNote.ENTRY, u64(BASE), owner=b"GNU\0")))


def test_numbers_of_four_bytes_count() -> None:
    notes = note(ElfNote.ENTRY, struct.pack("<I", 0x100010)) + note(ElfNote.MOD_START_PFN, struct.pack("<I", 1))
    image = parse_image(build_elf(notes))
    assert image.entry == 0x100010
    assert image.parameters.mod_start_pfn


def test_paddr_offset_is_taken_off_p_paddr() -> None:
    notes = b"".join(GOOD_NOTES) + note(ElfNote.PADDR_OFFSET, u64(BASE))
    image = parse_image(build_elf(notes, loads=((BASE + 0x100000, TEXT, 0x3000),)))
    assert (image.start, image.end) == (0x100000, 0x103000)


def test_p_vaddr_is_never_looked_at() -> None:
    image = parse_image(GOOD.replace(struct.pack("<QQ", 0, 0x100000), struct.pack("<QQ", 0x1234, 0x100000)))
    assert image.segments[0].start == 0x100000


@pytest.mark.parametrize(("vaddr", "honoured"), [(0x80_0000_0000, True), (0x80_0000_0008, False), (BASE, False)])
def test_init_p2m_counts_only_below_virt_base_and_page_aligned(vaddr: int, honoured: bool) -> None:
    image = parse_image(build_elf(b"".join(GOOD_NOTES) + note(ElfNote.INIT_P2M, u64(vaddr))))
    assert image.init_p2m == (vaddr if honoured else None)


def test_notes_in_a_section_do_when_no_segment_has_any() -> None:
    image = parse_image(build_elf(b"", sections=((".notes", SHT_NOTE, b"".join(GOOD_NOTES), 0),)))
    assert image.entry == BASE + 0x100010


def test_the_older_string_is_read_with_its_own_defaults() -> None:
    text = (
        b"GUEST_OS=test,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,HYPERCALL_PAGE=0x101,LOADER=generic,BSD_SYMTAB\0"
    )
    data = build_elf(b"", loads=((BASE + 0x100000, TEXT, 0x3000),), sections=(("__xen_guest", SHT_PROGBITS, text, 0),))
    image = parse_image(data)
    assert image.start == 0x100000  # ELF_PADDR_OFFSET defaults to VIRT_BASE
    assert image.hypercall_page == BASE + 0x101000  # a page number, counted from VIRT_BASE
    assert image.entry == BASE + 0x100020  # e_entry
    assert image.parameters.bsd_symtab


NUMBERS = {
    b"0x1f0": 0x1F0,
    b"0X1F0": 0x1F0,
    b"496": 496,
    b"0760": 0o760,
    b"0": 0,
    b" \t+12 apples": 12,
    b"08": 0,
    b"0xg": 0,
    b"": 0,
    b"zebra": 0,
    b"-1": (1 << 64) - 1,
    b"1" * 30: (1 << 64) - 1,
    b"-" + b"1" * 30: (1 << 64) - 1,
}


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers_of_the_string_are_as_in_c(text: bytes, value: int) -> None:
    assert parameters_from_guest_string(b"VIRT_ENTRY=" + text).entry == value


def test_the_older_string_is_cut_where_xen_cuts_it() -> None:
    long_key, long_value = b"K" * 31, b"generic".ljust(127, b"x")
    assert parameters_from_guest_string(long_key + b"VIRT_BASE=4096").virt_base == 4096
    assert parameters_from_guest_string(b"LOADER=" + long_value + b"VIRT_BASE=4096").virt_base == 4096
    assert parameters_from_guest_string(b"LOADER=" + long_value + b",VIRT_BASE=4096").virt_base == 4096
    assert parameters_from_guest_string(b" VIRT_BASE=4096,VIRT_BASE =1").virt_base is None
    said = parameters_from_guest_string(b"VIRT_BASE=1,,=,GUEST_OS=a=b,VIRT_BASE=4096,BSD_SYMTAB=no,X\0VIRT_BASE=5")
    assert (said.virt_base, said.guest_os, said.bsd_symtab) == (4096, "a=b", True)


def test_the_hypercall_page_of_the_string_counts_from_the_base_and_wraps() -> None:
    said = parameters_from_guest_string(b"VIRT_BASE=0xffffffff80000000,HYPERCALL_PAGE=0xfffffffffffff")
    assert said.hypercall_page == (BASE - 4096) % (1 << 64)
    assert parameters_from_guest_string(b"HYPERCALL_PAGE=2").hypercall_page == 0x2000


def test_the_string_has_no_init_p2m_and_no_base_of_its_own() -> None:
    said = parameters_from_guest_string(b"INIT_P2M=0x8000000000,LOADER=generic")
    assert (said.init_p2m, said.virt_base, said.paddr_offset) == (None, None, None)
    text = b"ELF_PADDR_OFFSET=0x1000\0"
    with pytest.raises(ImageError, match="PADDR_OFFSET but no VIRT_BASE"):
        parse_image(build_elf(b"", sections=(("__xen_guest", SHT_PROGBITS, text, 0),)))


def test_notes_come_before_the_string_and_segments_before_sections() -> None:
    of_section = note(ElfNote.ENTRY, u64(BASE + 0x100030)) + GOOD_NOTES[4]
    text = b"VIRT_BASE=0xffffffff80000000,VIRT_ENTRY=0xffffffff80100040,ELF_PADDR_OFFSET=0\0"
    sections = (("__xen_guest", SHT_PROGBITS, text, 0), (".notes", SHT_NOTE, of_section, 0))
    assert parse_image(build_elf(sections=sections)).entry == BASE + 0x100010
    others = note(1, b"hello", owner=b"GNU\0")
    assert parse_image(build_elf(others, sections=sections)).entry == BASE + 0x100030
    assert parse_image(build_elf(others, sections=sections[:1])).entry == BASE + 0x100040


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 16])
def test_a_number_has_one_two_four_or_eight_bytes_and_is_else_zero(size: int) -> None:
    value = b"\x01".ljust(size, b"\0")[:size]
    said = parameters_from_notes([(ElfNote.MOD_START_PFN, value), (ElfNote.INIT_P2M, value)])
    assert (said.mod_start_pfn, said.init_p2m) == ((True, 1) if size in (1, 2, 4, 8) else (False, 0))


def test_of_a_note_that_comes_twice_the_later_counts_but_features_and_the_symbol_table_stay() -> None:
    notes = [
        (ElfNote.ENTRY, u64(1)),
        (ElfNote.FEATURES, b"!pae_pgdir_above_4gb\0"),
        (ElfNote.BSD_SYMTAB, b"yes\0"),
        (ElfNote.ENTRY, u64(2)),
        (ElfNote.FEATURES, b"dom0"),
        (ElfNote.BSD_SYMTAB, b"no\0"),
    ]
    said = parameters_from_notes(notes)
    assert (said.entry, said.bsd_symtab) == (2, True)
    assert (said.supported, said.required) == (1 << XenFeat.PAE_PGDIR_ABOVE_4GB | 1 << XenFeat.DOM0, 1 << 4)


FEATURES = {
    "": (0, 0),
    "|": (0, 0),
    "writable_page_tables|!hvm_callback_vector|nonsense": (0x101, 0x100),
    "writable_page_tables" + "x" * 43 + "|dom0": (0x800, 0),
    "x" * 63 + "dom0": (0x800, 0),  # a name that is too long is cut, and the rest is another one
}


@pytest.mark.parametrize(("text", "features"), FEATURES.items())
def test_features_are_read_by_name(text: str, features: tuple[int, int]) -> None:
    assert parse_features(text) == features


def test_supported_features_are_added_to_the_named_ones() -> None:
    notes = b"".join(GOOD_NOTES) + note(ElfNote.SUPPORTED_FEATURES, struct.pack("<I", 0x8801))
    said = parse_image(build_elf(notes)).parameters
    assert (said.supported, said.required) == (0x8811, 0x1)
    odd = b"".join(GOOD_NOTES) + note(ElfNote.SUPPORTED_FEATURES, b"12345")
    assert parse_image(build_elf(odd)).parameters.supported == 0x11


def test_the_symbol_table_follows_the_kernel_when_asked_for() -> None:
    symbols, strings = bytes(24) + bytes(range(24)), b"\0main\0"
    data = build_elf(
        b"".join(GOOD_NOTES) + note(ElfNote.BSD_SYMTAB, b"yes\0"),
        loads=((0x100000, TEXT, 0x2FFD),),
        sections=((".symtab", SHT_SYMTAB, symbols, 2), (".strtab", SHT_STRTAB, strings, 0)),
    )
    image = parse_image(data)
    blob = bytes(image.segments[-1].data)
    assert image.segments[-1].start == 0x103000
    size = struct.unpack_from("<I", blob)[0]
    assert size == len(blob) - 4
    elf = blob[4:]
    shoff, shentsize, shnum = (struct.unpack_from(f, elf, o)[0] for f, o in (("<Q", 40), ("<H", 58), ("<H", 60)))
    assert (shoff, shentsize, shnum) == (64, 64, 3)
    rows = [struct.unpack_from("<IIQQQQIIQQ", elf, shoff + 64 * i) for i in range(3)]
    assert [row[1] for row in rows] == [0, SHT_SYMTAB, SHT_STRTAB]
    assert elf[rows[1][4] :][: rows[1][5]] == symbols
    assert elf[rows[2][4] :][: rows[2][5]] == strings
    assert rows[1][6] == 2


def test_a_gzip_file_is_unpacked_even_in_several_members() -> None:
    assert parse_image(gzip.compress(GOOD)).elf == GOOD
    assert parse_image(gzip.compress(GOOD[:100]) + gzip.compress(GOOD[100:])).elf == GOOD


def test_a_gzip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_image, "MAX_IMAGE_SIZE", 1 << 20)
    with pytest.raises(ImageError, match="unpacks to more than 1 MiB"):
        parse_image(gzip.compress(bytes(4 << 20)))


def test_the_path_is_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no kernel")
    with pytest.raises(ImageError, match=r"text: not an ELF file$"):
        read_image(tmp_path / "text")
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "none")
    with pytest.raises(ImageError, match="Is a directory"):
        read_image(tmp_path)
    (tmp_path / "kernel").write_bytes(GOOD)
    assert read_image(tmp_path / "kernel").entry == BASE + 0x100010


def patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


PHDR = 64
HOSTILE = {
    "empty": (b"", "not an ELF file"),
    "text": (b"#!/bin/sh\n", "not an ELF file"),
    "bzimage": (bytes(0x202) + b"HdrS" + bytes(100), "bzImage: boot protocol 0.00"),
    "header only": (GOOD[:40], "truncated"),
    "cut in the segments": (GOOD[:400], "truncated"),
    "32 bits": (patched(4, "<B", 1), "a 32-bit ELF file"),
    "no class": (patched(4, "<B", 7), "not for x86-64"),
    "big endian": (patched(5, "<B", 2), "not for x86-64"),
    "another machine": (patched(18, "<H", 183), "not for x86-64"),
    "object file": (patched(16, "<H", 1), "not an executable"),
    "no program headers": (patched(56, "<H", 0), "not a Xen PV kernel"),
    "odd header size": (patched(54, "<H", 57), "program headers of 57"),
    "headers far outside": (patched(32, "<Q", 1 << 63), "truncated"),
    "p_offset overflows": (patched(PHDR + 8, "<Q", (1 << 64) - 16), "truncated"),
    "p_filesz overflows": (patched(PHDR + 32, "<Q", (1 << 64) - 1), "bytes in the file but only"),
    "p_filesz beyond p_memsz": (patched(PHDR + 40, "<Q", 0x10), "bytes in the file but only"),
    "p_memsz huge": (patched(PHDR + 40, "<Q", (1 << 64) - 1), "outside any memory"),
    "p_paddr huge": (patched(PHDR + 24, "<Q", (1 << 64) - 0x1000), "outside any memory"),
    "no segment": (build_elf(loads=()), "no segment to load"),
    "overlap": (build_elf(loads=((0x100000, TEXT, 0x3000), (0x102FFF, b"x", 1))), "overlap at p_paddr 0x102fff"),
    "entry outside": (build_elf(GOOD_NOTES[4] + note(ElfNote.ENTRY, u64(BASE))), "entry point"),
    "hypercall page outside": (
        build_elf(GOOD_NOTES[4] + GOOD_NOTES[5] + note(ElfNote.HYPERCALL_PAGE, u64(0))),
        "hypercall page 0x0 is outside",
    ),
    "virt_base not aligned": (build_elf(note(ElfNote.VIRT_BASE, u64(BASE + 1))), "not the start of a page"),
    "virt_base in Xen": (build_elf(note(ElfNote.VIRT_BASE, u64(0xFFFF_8000_0000_0000))), "not a guest's"),
    "virt_base not canonical": (build_elf(note(ElfNote.VIRT_BASE, u64(1 << 50))), "not a guest's"),
    "virt_base at the end": (build_elf(note(ElfNote.VIRT_BASE, u64((1 << 64) - 4096))), "not a guest's"),
    "p2m in Xen": (
        build_elf(b"".join(GOOD_NOTES) + note(ElfNote.INIT_P2M, u64(0xFFFF_8300_0000_0000))),
        "INIT_P2M 0xffff830000000000 is not a guest's",
    ),
    "offset without base": (build_elf(note(ElfNote.PADDR_OFFSET, u64(0))), "PADDR_OFFSET but no VIRT_BASE"),
    "another ABI": (build_elf(note(ElfNote.XEN_VERSION, b"xen-9.9\0")), "'xen-9.9', not xen-3.0"),
    "another loader": (build_elf(note(ElfNote.LOADER, b"grub\n\0")), r"loader 'grub\\n'"),
    "a feature we lack": (build_elf(note(ElfNote.FEATURES, b"!supervisor_mode_kernel")), "supervisor_mode_kernel"),
    "a feature nobody knows": (build_elf(note(ElfNote.FEATURES, b"!flying")), "'flying', which Xen does not know"),
    "for the first domain": (build_elf(note(ElfNote.FEATURES, b"!dom0")), "requires dom0"),
    "for PVH": (build_elf(note(ElfNote.PHYS32_ENTRY, u64(0x100000))), "made for PVH, not for PV"),
    "number of three bytes": (build_elf(note(ElfNote.ENTRY, b"123") + GOOD_NOTES[4]), "the entry point 0x0"),
    "p2m in the kernel": (
        build_elf(b"".join(GOOD_NOTES) + note(ElfNote.INIT_P2M, u64(BASE + 0x102000))),
        "INIT_P2M 0xffffffff80102000 is inside the kernel",
    ),
    "note without end": (build_elf(struct.pack("<III", 4, 1 << 31, 1) + b"Xen\0"), "reaches past the end"),
    "gzip, cut": (gzip.compress(GOOD)[:-20], "truncated"),
    "gzip, damaged": (b"\x1f\x8b" + bytes(100), "damaged"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_gets_one_clear_line(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        parse_image(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_many_notes_are_refused_at_once() -> None:
    with pytest.raises(ImageError, match="more than 1024 KiB of ELF notes"):
        parse_image(build_elf(bytes(elf_image.MAX_NOTES_SIZE + 12)))


def check(data: bytes) -> None:
    try:
        image = parse_image(data)
    except ImageError as error:
        line = str(error)
        assert "\n" not in line, line
        return
    assert image.virt_base % 4096 == 0
    assert image.virt_base + image.start <= image.entry <= image.virt_base + image.end
    end = image.start
    for segment in image.segments:
        assert end <= segment.start
        assert len(segment.data) <= segment.size
        end = segment.start + segment.size
    assert end == image.end


SEEDS = (
    GOOD,
    build_elf(b"", sections=(("__xen_guest", SHT_PROGBITS, b"VIRT_BASE=0xffffffff80000000,BSD_SYMTAB", 0),)),
    build_elf(
        b"".join(GOOD_NOTES) + note(ElfNote.BSD_SYMTAB, b"yes\0"),
        sections=((".symtab", SHT_SYMTAB, bytes(48), 2), (".strtab", SHT_STRTAB, b"\0a\0", 0)),
    ),
)
INTERESTING = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 63, (1 << 64) - 1])


@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True), st.sampled_from("BHIQ"), INTERESTING | st.integers(0, (1 << 64) - 1)
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.none() | st.floats(0, 1),
    headers_only=st.booleans(),
)
@example(seed=SEEDS[1], changes=[], cut=None, headers_only=False)
@example(seed=SEEDS[2], changes=[], cut=None, headers_only=False)
def test_a_changed_kernel_is_read_or_refused(
    seed: bytes, changes: list[tuple[float, str, int]], cut: float | None, headers_only: bool
) -> None:
    data = bytearray(seed)
    interesting = [*range(176), *range(len(seed) - 600, len(seed) - 8)]
    for place, layout, value in changes:
        size = struct.calcsize(layout)
        offset = interesting[int(place * len(interesting))] if headers_only else int(place * (len(seed) - 8))
        struct.pack_into("<" + layout, data, offset, value % (1 << 8 * size))
    if cut is not None:
        del data[int(cut * len(data)) :]
    check(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_of_notes_are_read_or_refused(data: bytes) -> None:
    check(build_elf(data))
    try:
        values = read_notes(data)
    except ImageError:
        return
    assert sum(len(value) for _, value in values) <= len(data)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["VIRT_BASE", "ELF_PADDR_OFFSET", "HYPERCALL_PAGE", "VIRT_ENTRY"]), st.text()),
        max_size=4,
    )
)
def test_any_older_string_is_read_or_refused(items: list[tuple[str, str]]) -> None:
    text = ",".join(f"{key}={value}" for key, value in items).encode("utf-8", "replace") or b"\0"
    check(build_elf(b"", sections=(("__xen_guest", SHT_PROGBITS, text, 0),)))
