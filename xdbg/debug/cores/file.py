"""The core of a whole domain, one ELF file for two kinds of readers.

Xen's tools, and what reads their cores, go by the sections (docs/misc/dump-core-format.txt): notes, the vcpus, the
shared info page, every page of the domain with its pfn and mfn. gdb goes by the program headers: notes with registers,
one thread a vcpu, and segments of virtual memory, which lead into the same pages. Frames that are mapped and have no
pfn (the grant table's) are in a section of our own, `.xdbg_frames`.

====================  ===========================================================
ELF header, program headers, notes for gdb
.note.Xen             nr_vcpus, nr_pages, version of Xen and of the format
.xen_prstatus         struct vcpu_guest_context, one a vcpu
.xen_shared_info      one page
.xdbg_frames          pages
.xen_pages            pages, in the order of pfns
.xen_p2m              pfn and mfn of each
.shstrtab, section headers
====================  ===========================================================

What the segments are is told by `core_segments`.

The file is written from front to back. Pages of zeroes are skipped, to be holes. It depends on the domain's state
alone: the same state gives the same bytes.
"""

from array import array
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from xdbg.abi.dump_core import (
    SECTION_NOTES,
    SECTION_P2M,
    SECTION_PAGES,
    SECTION_PRSTATUS,
    SECTION_SHARED_INFO,
    DumpcoreP2m,
)
from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE, Mfn
from xdbg.abi.vcpu import VcpuGuestContext
from xdbg.debug.running.stops import CRASHES
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.signals import Signal
from xdbg.xen.domain import Domain
from xdbg.xen.m2p import INVALID_M2P_ENTRY

from .notes import guest_context, vcpu_notes, vmcoreinfo_note, xen_notes
from .segments import SegmentList, find_segments, pages_of

_EHDR: Final = Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = Struct("<IIQQQQQQ")
_SHDR: Final = Struct("<IIQQQQIIQQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_ET_CORE, _EM_X86_64 = 4, 62
_PT_LOAD, _PT_NOTE = 1, 4
_PROGBITS, _STRTAB, _NOTE = 1, 3, 7
_ZEROES: Final = bytes(PAGE_SIZE)


class CoreFileError(Exception):
    """The file of a core can't be made or written; the text is one line that says why."""


class CoreSink(Protocol):
    """Where a core goes, from front to back."""

    def write(self, data: bytes | memoryview, /) -> object:
        """These bytes come next."""
        ...

    def skip(self, length: int, /) -> None:
        """So many zeroes come next."""
        ...


class CoreFiles(Protocol):
    """Where a debugger may have cores written."""

    def create(self, name: str) -> AbstractContextManager[CoreSink]:
        """A new file. Raises `CoreFileError`, also when it is being written."""
        ...


@dataclass(frozen=True, slots=True)
class CoreSummary:
    """What has been written. `left_out`, `repeats`: why some virtual memory is not shown, as `SegmentList` tells."""

    size: int
    nr_pages: int
    nr_segments: int
    left_out: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class _Section:
    """A section: `data`, or the pages in `frames`."""

    name: str
    kind: int
    align: int
    entry_size: int
    data: bytes = b""
    frames: tuple[Mfn, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data) + (len(self.frames) << PAGE_SHIFT)


def write_core(domain: Domain, symbols: SymbolTable, sink: CoreSink, *, with_segments: bool = True) -> CoreSummary:
    """Write the core of a domain as it is now. `symbols`: the kernel's, for what Linux tells of itself.

    Without segments the file has no program headers: exactly what Xen's own tools write, for readers that take any
    file with program headers for another format.
    """
    hv = domain.hv
    pages = pages_of(domain)
    vcpus = sorted(domain.vcpus, key=lambda vcpu: vcpu is not hv.current)
    contexts = b"".join(guest_context(vcpu) for vcpu in domain.vcpus)
    p2m = array("Q", (number for page in pages for number in page)).tobytes()
    others = _without_pfn(domain) if with_segments else ()
    before = (
        _Section(SECTION_NOTES, _NOTE, 4, 0, xen_notes(len(vcpus), len(pages))),
        _Section(SECTION_PRSTATUS, _PROGBITS, 8, VcpuGuestContext.SIZE, contexts),
    )
    paged = (
        _Section(SECTION_SHARED_INFO, _PROGBITS, PAGE_SIZE, PAGE_SIZE, frames=(domain.shared_info,)),
        *((_Section(".xdbg_frames", _PROGBITS, PAGE_SIZE, PAGE_SIZE, frames=others),) if others else ()),
        _Section(SECTION_PAGES, _PROGBITS, PAGE_SIZE, PAGE_SIZE, frames=tuple(mfn for _, mfn in pages)),
    )
    behind = _Section(SECTION_P2M, _PROGBITS, 8, DumpcoreP2m.SIZE, p2m)
    sections = (*before, *paged, behind)
    strings = _Section(".shstrtab", _STRTAB, 1, 0, _names(sections))
    sections = (*sections, strings)

    notes = b""
    memory = SegmentList((), left_out=False, repeats=False)
    if with_segments:
        signal = Signal.ABRT if domain.shutdown_code in CRASHES else Signal.ZERO
        notes = b"".join(vcpu_notes(vcpu, signal) for vcpu in vcpus) + vmcoreinfo_note(vcpus[0], symbols)
        memory = find_segments(vcpus[0], [mfn for section in paged for mfn in section.frames])
    nr_headers = len(memory.segments) + 1 if with_segments else 0
    notes_at = _EHDR.size + nr_headers * _PHDR.size
    places = _lay_out(sections, notes_at + len(notes))
    pages_at = places[len(before)]
    headers_at = -(-(places[-1] + strings.size) // 8) * 8

    out = _Output(sink)
    out.write(
        _EHDR.pack(
            *(_IDENT, _ET_CORE, _EM_X86_64, 1, 0),
            *(_EHDR.size if nr_headers else 0, headers_at, 0),
            *(_EHDR.size, _PHDR.size, nr_headers, _SHDR.size, len(sections) + 1, len(sections)),
        )
    )
    if with_segments:
        out.write(_PHDR.pack(_PT_NOTE, 0, notes_at, 0, 0, len(notes), 0, 4))
    for one in memory.segments:
        where = (pages_at + one.offset, one.vaddr, one.paddr)
        out.write(_PHDR.pack(_PT_LOAD, one.flags, *where, one.length, one.length, PAGE_SIZE))
    out.write(notes)
    for section, place in zip(sections, places, strict=True):
        out.skip_to(place)
        out.write(section.data)
        for mfn in section.frames:
            out.write_page(hv.ram.page(mfn))
    out.skip_to(headers_at)
    out.write(bytes(_SHDR.size))
    name_at = 1
    for section, place in zip(sections, places, strict=True):
        fixed = (place, section.size, 0, 0, section.align, section.entry_size)
        out.write(_SHDR.pack(name_at, section.kind, 0, 0, *fixed))
        name_at += len(section.name) + 1
    return CoreSummary(out.at, len(pages), len(memory.segments), memory.left_out, memory.repeats)


def _without_pfn(domain: Domain) -> tuple[Mfn, ...]:
    """The domain's frames that have no pfn, but for the shared info."""
    m2p = domain.hv.m2p
    owned = domain.hv.page_info.frames_of(domain.domid)
    return tuple(mfn for mfn in owned if m2p.get(mfn) == INVALID_M2P_ENTRY and mfn != domain.shared_info)


def _names(sections: Iterable[_Section]) -> bytes:
    """The names of the sections and that of this section of names itself, as an ELF string table."""
    return b"\0" + b"".join(section.name.encode() + b"\0" for section in sections) + b".shstrtab\0"


def _lay_out(sections: Iterable[_Section], at: int) -> list[int]:
    """Where each section begins in the file, one behind the other from `at` on."""
    places = []
    for section in sections:
        at = -(-at // section.align) * section.align
        places.append(at)
        at += section.size
    return places


class _Output:
    """A sink that knows where it is."""

    def __init__(self, sink: CoreSink) -> None:
        self._sink = sink
        self.at = 0

    def write(self, data: bytes | memoryview) -> None:
        """These bytes come next."""
        self._sink.write(data)
        self.at += len(data)

    def write_page(self, page: memoryview) -> None:
        """A page, as a hole if it is all zeroes."""
        if bytes(page) == _ZEROES:
            self._sink.skip(PAGE_SIZE)
            self.at += PAGE_SIZE
        else:
            self.write(page)

    def skip_to(self, place: int) -> None:
        """Zeroes up to there."""
        self._sink.skip(place - self.at)
        self.at = place
