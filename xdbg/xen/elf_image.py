"""A PV64 kernel's ELF file, read and checked before any of it is believed. Xen: common/libelf, xg_dom_elfloader.c.

What is loaded is each PT_LOAD segment, at its p_paddr less PADDR_OFFSET: that is its pseudo-physical address, and its
vaddr is VIRT_BASE plus that; p_vaddr is never looked at (some kernels have segments whose p_vaddr is 0). Notes are
looked for in PT_NOTE segments, then in SHT_NOTE sections, then in the older form, the section `__xen_guest`.

Every number of the file may be hostile. An image is refused with one clear line, `ImageError`, or everything in
`KernelImage` holds together: data lies in the file, segments don't overlap, addresses are canonical and not Xen's.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START

from .bsd_symtab import build_bsd_symtab
from .bzimage import is_bzimage, unpack_bzimage
from .compression import GZIP_MAGIC, gunzip
from .elf_notes import BootParameters, ImageError, Note, parameters_from_guest_string, parameters_from_notes, read_notes

MAX_IMAGE_SIZE: Final = 1 << 30
"""Bytes of a kernel file, unpacked: ten times a Linux with all its debug sections stripped."""

MAX_NOTES_SIZE: Final = 1 << 20
"""Bytes of all notes together; a kernel has a few hundred."""
_MAX_SECTION_NAME: Final = 256

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_U64: Final = (1 << 64) - 1
_CANONICAL_LOW_END: Final = 1 << 47

_ELFCLASS32: Final = 1
_ELFCLASS64: Final = 2
_ELFDATA2LSB: Final = 1
_ET_EXEC: Final = 2
_ET_DYN: Final = 3
_EM_X86_64: Final = 62
_PT_LOAD: Final = 1
_PT_NOTE: Final = 4
_PF_RWX: Final = 7
_SHT_SYMTAB: Final = 2
_SHT_NOTE: Final = 7
_SHT_NOBITS: Final = 8


@dataclass(frozen=True, slots=True)
class ElfSection:
    """One row of the section table: `offset` and `size` are bytes of the file, checked; `link` is a section's index."""

    name: str
    type: int
    offset: int
    size: int
    link: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes to load: `data` at pseudo-physical address `start`, and zeroes up to `size` bytes."""

    start: int
    data: memoryview | bytes
    size: int


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel that can be built into a domain; addresses are vaddrs unless said otherwise."""

    elf: bytes
    """The whole file, unpacked: symbols and debug information for debuggers."""
    parameters: BootParameters
    segments: tuple[Segment, ...]
    """By ascending address."""
    entry: Vaddr
    virt_base: Vaddr
    """Where pfn 0 is mapped; page aligned."""
    start: int
    """Pseudo-physical address of the first byte."""
    end: int
    """Pseudo-physical address behind the last byte."""
    hypercall_page: Vaddr | None
    init_p2m: Vaddr | None
    """Where the p2m list goes if not behind the kernel; page aligned and below virt_base."""


def read_image(path: str | Path) -> KernelImage:
    """The kernel in a file, packed or not. Raises `ImageError` with the path in its text."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    try:
        return parse_image(data)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def parse_image(data: bytes) -> KernelImage:
    """The kernel in the bytes of a file: ELF, bzImage, or either packed by gzip.

    Raises `ImageError`, and nothing else, whatever they are; its text begins with the forms that an ELF file was in.
    """
    if data.startswith(GZIP_MAGIC):
        return _kernel_in("gzip", gunzip(data, MAX_IMAGE_SIZE))
    return _kernel_in("", data)


def _kernel_in(form: str, data: bytes) -> KernelImage:
    """The kernel in data that came in another form, or in none."""
    try:
        if is_bzimage(data):
            form = f"{form}, bzImage" if form else "bzImage"
            unpacked = unpack_bzimage(data, MAX_IMAGE_SIZE)
            form, data = f"{form} ({unpacked.name})", unpacked.data
        return _ElfFile(data).kernel()
    except ImageError as error:
        if not form:
            raise
        raise ImageError(f"{form}: {error}") from None


class _ElfFile:
    """The tables of an ELF file; each method checks what it hands out."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_IMAGE_SIZE:
            raise ImageError(f"larger than {MAX_IMAGE_SIZE >> 20} MiB")
        if data[:4] != b"\x7fELF":
            raise ImageError("not an ELF file")
        if len(data) < _EHDR.size:
            raise ImageError("truncated in the ELF header")
        self.data = data
        self.view = memoryview(data)
        fields = _EHDR.unpack_from(data)
        ident, e_type, machine = fields[0], fields[1], fields[2]
        self.entry: int = fields[4]
        self.phoff, self.shoff = fields[5], fields[6]
        self.phentsize, self.phnum, self.shentsize, self.shnum, self.shstrndx = fields[9:14]
        if ident[4] == _ELFCLASS32:
            raise ImageError("a 32-bit ELF file: only 64-bit PV kernels can be run")
        if ident[4] != _ELFCLASS64 or machine != _EM_X86_64 or ident[5] != _ELFDATA2LSB:
            raise ImageError(f"not for x86-64 (ELF class {ident[4]}, machine {machine})")
        if e_type not in (_ET_EXEC, _ET_DYN):
            raise ImageError(f"not an executable (ELF type {e_type})")

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes of the file; raises `ImageError` if it has not that many."""
        if offset + size > len(self.data):
            raise ImageError(f"truncated: {what} ends at byte {offset + size}, the file at {len(self.data)}")
        return self.view[offset : offset + size]

    def program_headers(self) -> Iterator[tuple[int, int, int, int, int, int, int, int]]:
        """(p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align) of each segment."""
        if self.phnum and self.phentsize != _PHDR.size:
            raise ImageError(f"program headers of {self.phentsize} bytes, not {_PHDR.size}")
        table = self.part(self.phoff, self.phnum * _PHDR.size, "the program header table")
        return iter(_PHDR.iter_unpack(table))

    def sections(self) -> list[ElfSection]:
        """The section table with names; empty if the file has none."""
        if not self.shnum:
            return []
        if self.shentsize != _SHDR.size:
            raise ImageError(f"section headers of {self.shentsize} bytes, not {_SHDR.size}")
        table = self.part(self.shoff, self.shnum * _SHDR.size, "the section header table")
        rows = list(_SHDR.iter_unpack(table))
        names = b""
        if self.shstrndx < len(rows):
            names = bytes(self.part(rows[self.shstrndx][4], rows[self.shstrndx][5], "the section names"))
        sections = []
        for index, (name, kind, _flags, _addr, offset, size, link, *_) in enumerate(rows):
            if kind in (0, _SHT_NOBITS):
                offset = size = 0
            self.part(offset, size, "a section")
            end = max(names.find(b"\0", name, name + _MAX_SECTION_NAME), name)
            header = bytes(table[index * _SHDR.size : (index + 1) * _SHDR.size])
            text = names[name:end].decode("ascii", "backslashreplace")
            sections.append(ElfSection(text, kind, offset, size, link, header))
        return sections

    def parameters(self) -> BootParameters:
        """What the notes or the older string say; raises `ImageError` if the file has neither."""
        segments = [(row[2], row[5]) for row in self.program_headers() if row[0] == _PT_NOTE and row[2]]
        if notes := self.notes(segments):
            return parameters_from_notes(notes)
        sections = self.sections()
        if notes := self.notes([(section.offset, section.size) for section in sections if section.type == _SHT_NOTE]):
            return parameters_from_notes(notes)
        for section in sections:
            if section.name == "__xen_guest":
                return parameters_from_guest_string(self.data[section.offset : section.offset + section.size])
        raise ImageError("not a Xen PV kernel: it has neither Xen's ELF notes nor a __xen_guest section")

    def notes(self, places: list[tuple[int, int]]) -> list[Note]:
        """Xen's notes in parts of the file, (offset, size) each."""
        if sum(size for _, size in places) > MAX_NOTES_SIZE:
            raise ImageError(f"more than {MAX_NOTES_SIZE >> 10} KiB of ELF notes")
        notes = []
        for offset, size in places:
            notes += read_notes(self.part(offset, size, "the ELF notes"))
        return notes

    def segments(self, paddr_offset: int) -> list[Segment]:
        """What is to be loaded, by ascending address; raises `ImageError` for any that can't be."""
        segments = []
        for p_type, flags, offset, _, paddr, file_size, size, _ in self.program_headers():
            if p_type != _PT_LOAD or not flags & _PF_RWX or not size:
                continue
            if file_size > size:
                raise ImageError(f"a segment has {file_size:#x} bytes in the file but only {size:#x} in memory")
            start = paddr - paddr_offset
            if start < 0 or start + size > _CANONICAL_LOW_END:
                raise ImageError(f"a segment of {size:#x} bytes at p_paddr {paddr:#x} is outside any memory")
            segments.append(Segment(start, self.part(offset, file_size, "a segment"), size))
        segments.sort(key=lambda segment: segment.start)
        for low, high in pairwise(segments):
            if low.start + low.size > high.start:
                raise ImageError(f"two segments overlap at p_paddr {high.start + paddr_offset:#x}")
        if not segments:
            raise ImageError("no segment to load")
        return segments

    def kernel(self) -> KernelImage:
        """The whole image, checked. Xen: elf_xen_addr_calc_check()."""
        said = self.parameters()
        if said.paddr_offset is not None and said.virt_base is None:
            raise ImageError("the kernel states PADDR_OFFSET but no VIRT_BASE")
        virt_base = said.virt_base or 0
        segments = self.segments(said.paddr_offset or 0)
        if said.bsd_symtab:
            symtab = self.bsd_symtab()
            if symtab:
                start = segments[-1].start + segments[-1].size + 7 & ~7
                segments.append(Segment(start, symtab, len(symtab)))
        start, end = segments[0].start, segments[-1].start + segments[-1].size
        entry = self.entry if said.entry is None else said.entry
        if virt_base & PAGE_MASK:
            raise ImageError(f"VIRT_BASE {virt_base:#x} is not the start of a page")
        if not is_guest_range(virt_base, end):
            raise ImageError(f"the kernel at {virt_base + start:#x} reaches into addresses that are not a guest's")
        if not virt_base + start <= entry <= virt_base + end:
            raise ImageError(f"the entry point {entry:#x} is outside the kernel")
        page = said.hypercall_page
        if page is not None and not virt_base <= page <= virt_base + end - 1:
            raise ImageError(f"the hypercall page {page:#x} is outside the kernel")
        return KernelImage(
            elf=self.data,
            parameters=said,
            segments=tuple(segments),
            entry=Vaddr(entry),
            virt_base=Vaddr(virt_base),
            start=start,
            end=end,
            hypercall_page=None if page is None else Vaddr(page & ~PAGE_MASK),
            init_p2m=_usable_init_p2m(said.init_p2m, virt_base, range(virt_base + start, virt_base + end)),
        )

    def bsd_symtab(self) -> bytes | None:
        """The symbol table as BSD kernels want it behind their image; None if the file has no symbols."""
        sections = self.sections()
        for symtab in sections:
            if symtab.type == _SHT_SYMTAB and symtab.link < len(sections):
                return build_bsd_symtab(self.data, symtab, sections[symtab.link])
        return None


def is_guest_range(vaddr: int, size: int) -> bool:
    """Whether [vaddr, vaddr + size) is canonical, in one half of the address space, and not Xen's."""
    end = vaddr + size
    return end <= _CANONICAL_LOW_END or (vaddr >= HYPERVISOR_VIRT_END and end <= _U64 + 1)


def _usable_init_p2m(vaddr: int | None, virt_base: int, kernel: range) -> Vaddr | None:
    """INIT_P2M if it can be honoured, else None: the list then follows the kernel. Xen: xc_dom_build_image()."""
    if vaddr is not None and vaddr in kernel:
        raise ImageError(f"INIT_P2M {vaddr:#x} is inside the kernel")
    if vaddr is None or vaddr >= virt_base or vaddr & PAGE_MASK:
        return None
    if HYPERVISOR_VIRT_START <= vaddr < HYPERVISOR_VIRT_END or not is_guest_range(vaddr, PAGE_SIZE):
        raise ImageError(f"INIT_P2M {vaddr:#x} is not a guest's address")
    return Vaddr(vaddr)
