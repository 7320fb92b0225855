"""Where everything of a new domain goes, worked out before any of it is written. Xen: xg_dom_core.c, xg_dom_x86.c.

One run of pages, pfn 0 at VIRT_BASE, is mapped when the kernel starts, in this order:

    room below the kernel | kernel | modules | p2m list | start_info | xenstore ring | console ring |
    page tables: L4, L3s, L2s, L1s | boot stack | spare, at least 512 KiB, up to a 4 MiB boundary of vaddrs

Modules are mapped unless the kernel says MOD_START_PFN: then they follow the run. So does the p2m list if the kernel
says INIT_P2M: it is mapped there by tables of its own, which come right behind it and are mapped nowhere. The number of
page tables depends on the length of the run and the other way round; it is found by trying again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Vaddr
from xdbg.abi.x86 import VADDR_BITS

from .elf_image import KernelImage, is_guest_range
from .elf_notes import ImageError

_SPARE_PAGES: Final = (512 << 10) >> PAGE_SHIFT
_END_MASK: Final = (4 << 20) - 1
_VADDR_MASK: Final = (1 << VADDR_BITS) - 1
_COVERED_SHIFT: Final = {4: 48, 3: 39, 2: 30, 1: 21}
"""log2 of the bytes of address space that one table of each level covers."""
_P2M_ENTRY_SIZE: Final = 8

TableKey = tuple[int, int]
"""A page table by its level, 4 to 1, and the bits of the vaddr that it stands for."""


@dataclass(frozen=True, slots=True)
class Region:
    """`pages` frames from `pfn` on."""

    pfn: int
    pages: int

    @property
    def end(self) -> int:
        """The pfn behind it."""
        return self.pfn + self.pages


@dataclass(frozen=True, slots=True)
class Mapping:
    """`region` is mapped from `vaddr` on, read-write but for page tables."""

    vaddr: Vaddr
    region: Region


@dataclass(frozen=True, slots=True)
class Layout:
    """The place of each part; all pfns are below `nr_pages`."""

    nr_pages: int
    virt_base: Vaddr
    kernel: Region
    modules: Region | None
    modules_mapped: bool
    p2m: Region
    """The list alone; with INIT_P2M its page tables begin at its end."""
    p2m_vaddr: Vaddr
    p2m_tables: Region | None
    """The page tables of INIT_P2M."""
    start_info: int
    xenstore: int
    console: int
    page_tables: Region
    """Of the initial run, the L4 first."""
    boot_stack: int
    mappings: tuple[Mapping, ...]
    tables: dict[TableKey, int]
    """The pfn of each page table."""

    def vaddr(self, pfn: int) -> Vaddr:
        """Where a page of the initial run is mapped."""
        return Vaddr(self.virt_base + (pfn << PAGE_SHIFT))


def pages_for(size: int) -> int:
    """How many pages hold `size` bytes."""
    return (size + PAGE_MASK) >> PAGE_SHIFT


def tables_covering(vaddr: int, size: int) -> Iterator[TableKey]:
    """The page tables that map [vaddr, vaddr + size), top down and by ascending address."""
    first = vaddr & _VADDR_MASK
    last = first + size - 1
    for level, shift in _COVERED_SHIFT.items():
        for prefix in range(first >> shift, (last >> shift) + 1):
            yield level, prefix


def plan(image: KernelImage, nr_pages: int, modules_size: int) -> Layout:
    """The layout of a domain of `nr_pages` frames; raises `ImageError` if the kernel and its modules do not fit in."""
    memory = _Memory(nr_pages)
    kernel = Region(image.start >> PAGE_SHIFT, pages_for(image.end) - (image.start >> PAGE_SHIFT))
    memory.end = kernel.end
    unmapped = image.parameters.mod_start_pfn
    modules = memory.take(pages_for(modules_size)) if modules_size and not unmapped else None
    p2m_size = nr_pages * _P2M_ENTRY_SIZE
    p2m = memory.take(pages_for(p2m_size)) if image.init_p2m is None else None
    start_info, xenstore, console = (memory.take(1).pfn for _ in range(3))

    memory.check("the kernel and its modules")
    run_pages, keys = _initial_run(image.virt_base, memory.end)
    page_tables = memory.take(len(keys))
    tables = {key: page_tables.pfn + index for index, key in enumerate(keys)}
    boot_stack = memory.take(1).pfn
    memory.end = run_pages
    memory.check("the kernel and its initial mapping")
    mappings = [Mapping(image.virt_base, Region(0, run_pages))]

    if modules_size and unmapped:
        modules = memory.take(pages_for(modules_size))
    p2m_tables = None
    p2m_vaddr = Vaddr(image.virt_base + (p2m.pfn << PAGE_SHIFT)) if p2m is not None else Vaddr(0)
    if image.init_p2m is not None:
        p2m_vaddr = image.init_p2m
        p2m = memory.take(pages_for(p2m_size))
        end = p2m_vaddr + (p2m.pages << PAGE_SHIFT)
        if end > image.virt_base or not is_guest_range(p2m_vaddr, p2m.pages << PAGE_SHIFT):
            raise ImageError(f"the p2m list at INIT_P2M {p2m_vaddr:#x} would reach to {end:#x}")
        own = [key for key in tables_covering(p2m_vaddr, p2m.pages << PAGE_SHIFT) if key not in tables]
        p2m_tables = memory.take(len(own))
        tables |= {key: p2m_tables.pfn + index for index, key in enumerate(own)}
        mappings.append(Mapping(p2m_vaddr, p2m))
    memory.check("the kernel, its modules and its p2m list")
    assert p2m is not None
    return Layout(
        nr_pages=nr_pages,
        virt_base=image.virt_base,
        kernel=kernel,
        modules=modules,
        modules_mapped=not unmapped,
        p2m=p2m,
        p2m_vaddr=p2m_vaddr,
        p2m_tables=p2m_tables,
        start_info=start_info,
        xenstore=xenstore,
        console=console,
        page_tables=page_tables,
        boot_stack=boot_stack,
        mappings=tuple(mappings),
        tables=tables,
    )


class _Memory:
    """Pages given out one after the other; whether there were enough is asked when the sum is known."""

    def __init__(self, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.end = 0

    def take(self, pages: int) -> Region:
        """The next pages."""
        region = Region(self.end, pages)
        self.end += pages
        return region

    def check(self, what: str) -> None:
        """Raise `ImageError` if more was taken than there is."""
        if self.end > self.nr_pages:
            needed = self.end * PAGE_SIZE / (1 << 20)
            raise ImageError(
                f"{what} need {needed:.1f} MiB, the domain has {self.nr_pages * PAGE_SIZE / (1 << 20):.1f}"
            )


def _initial_run(virt_base: int, used_pages: int) -> tuple[int, list[TableKey]]:
    """The length in pages of the initial mapping, and its tables. Xen: alloc_pgtables_pv().

    `used_pages` come first; behind them are the tables, the boot stack and the spare pages.
    """
    extra = 1 + _SPARE_PAGES
    pages = extra
    used_end = virt_base + (used_pages << PAGE_SHIFT)
    while True:
        end = ((used_end + (pages << PAGE_SHIFT)) | _END_MASK) + 1
        if not is_guest_range(virt_base, end - virt_base):
            raise ImageError(f"the initial mapping would reach to {end:#x}")
        keys = list(tables_covering(virt_base, end - virt_base))
        pages = len(keys) + extra
        if used_end + (pages << PAGE_SHIFT) <= end:
            return (end - virt_base) >> PAGE_SHIFT, keys
