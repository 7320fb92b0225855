"""Makes a domain that is about to execute its kernel's first instruction. Xen: tools, xg_dom_boot.c, xg_dom_x86.c.

All frames of the domain are one run of machine frames, so a table of thousands of entries is one arithmetic series.
What a kernel finds is described in Xen's public/xen.h, "Start-of-day memory layout"; `dom_layout` works out where.
"""

import struct
from array import array
from collections.abc import Sequence
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE, Maddr, Mfn, Pfn, Vaddr, mfn_to_maddr
from xdbg.abi.grant_table import GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_PERMIT_ACCESS
from xdbg.abi.shared_info import XEN_LEGACY_MAX_VCPUS, SharedInfo, VcpuInfo
from xdbg.abi.start_info import MAX_GUEST_CMDLINE, START_INFO_MAGIC, Sif, StartInfo, XenMultibootModList
from xdbg.abi.x86 import (
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_DS64,
    FLAT_KERNEL_SS64,
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_RW,
    PTE_SIZE,
    PTE_USER,
    PTES_PER_TABLE,
    Rflags,
)
from xdbg.machine.registers import RSI, RSP

from . import console, mm, xenstore
from .dom_layout import Layout, Region, plan
from .domain import Domain
from .elf_image import KernelImage
from .elf_notes import ImageError
from .faults import HypercallError
from .grant_access import acquire_grant
from .hypercall_page import hypercall_page
from .ramdisk import ramdisk_content, ramdisk_size
from .xenstore_home import make_console_keys

BACKEND_DOMID: Final = 0
"""The domain in which the backends of console and xenstore seem to live."""

_TABLE_FLAGS: Final = PTE_PRESENT | PTE_RW | PTE_USER | PTE_ACCESSED | PTE_DIRTY
_PAGE_FLAGS: Final = PTE_PRESENT | PTE_RW | PTE_ACCESSED
"""Of an l1e; Xen adds PTE_USER to those of kernel pages when it takes the table."""
_INITIAL_FPU: Final = struct.pack("<HHBBHQQII", 0x37F, 0, 0, 0, 0, 0, 0, 0x1F80, 0xFFFF).ljust(512, b"\0")
"""FXSAVE image after FNINIT: x87 empty, 64-bit precision, all exceptions masked. SDM volume 1, "FXSAVE Area"."""
_L1_COVERS_SHIFT: Final = 21
_INDEX_BITS: Final = 9


def build_domain(
    domain: Domain, image: KernelImage, *, modules: Sequence[bytes] = (), command_line: bytes = b""
) -> None:
    """Load the kernel and its modules into a new domain of `domain.max_pages` frames; its vcpu 0 is then ready to run.

    One module is a RAM disk, see `ramdisk`; several make a list of modules (SIF_MULTIBOOT_MOD), see `pack_modules`.
    Raises `ImageError` if kernel, modules or command line do not fit; then the domain has been given nothing.
    """
    if len(command_line) >= MAX_GUEST_CMDLINE:
        raise ImageError(
            f"the command line has {len(command_line)} bytes; a kernel gets {MAX_GUEST_CMDLINE - 1} at most"
        )
    if not all(modules):
        raise ImageError("a module is empty")
    package = modules[0] if len(modules) == 1 else pack_modules(modules)
    single = len(modules) == 1
    layout = plan(image, domain.max_pages, ramdisk_size(package) if single else len(package))
    builder = _Builder(domain, layout)
    builder.load_kernel(image)
    builder.load_modules(ramdisk_content(package) if single else package)
    builder.fill_p2m()
    builder.write_page_tables()
    builder.hand_over_tables()
    flags = int(Sif.VIRT_P2M_4TOOLS)
    if len(modules) > 1:
        flags |= Sif.MULTIBOOT_MOD
    builder.connect_backends()
    builder.write_start_info(flags, command_line)
    builder.prepare_vcpu(image)


def pack_modules(modules: Sequence[bytes]) -> bytes:
    """Several modules as one: an array of XenMultibootModList with a zero one at its end, then each, page aligned.

    Addresses in it count from its beginning. Empty for no modules. Xen public/xen.h, SIF_MULTIBOOT_MOD.
    """
    if not modules:
        return b""
    # Each module's command line is the empty string behind the array.
    command_line = (len(modules) + 1) * XenMultibootModList.SIZE
    head = bytearray()
    body = bytearray()
    first = _page_align(command_line + 1)
    for module in modules:
        start = first + len(body)
        end = start + len(module) - 1
        if end >= 1 << 32:
            raise ImageError("the modules have more than 4 GiB")
        head += XenMultibootModList(start, end, command_line, 0).to_bytes()
        body += module
        body += bytes(-len(body) % PAGE_SIZE)
    return bytes(head.ljust(first, b"\0") + body)


def _page_align(size: int) -> int:
    """The next multiple of a page."""
    return size + -size % PAGE_SIZE


class _Builder:
    """Writes the parts of one domain to their places."""

    def __init__(self, domain: Domain, layout: Layout) -> None:
        self.domain = domain
        self.hv = domain.hv
        self.layout = layout
        self.base: Mfn = self.hv.heap.alloc(domain.domid, layout.nr_pages)
        """The machine frame of pfn 0; the others follow it."""
        domain.nr_pages = layout.nr_pages

    def mfn(self, pfn: int) -> Mfn:
        """The machine frame of a pfn."""
        return Mfn(self.base + pfn)

    def maddr(self, pfn: int) -> Maddr:
        """The machine address of a pfn's first byte."""
        return mfn_to_maddr(self.mfn(pfn))

    def load_kernel(self, image: KernelImage) -> None:
        """Copy the segments; what the file does not give stays zero."""
        start = self.maddr(0)
        for segment in image.segments:
            self.hv.ram.write(start + segment.start, segment.data)
        if image.hypercall_page is not None:
            self.hv.ram.write(start + image.hypercall_page - image.virt_base, hypercall_page())

    def load_modules(self, package: bytes) -> None:
        """Copy the modules."""
        if self.layout.modules is not None:
            self.hv.ram.write(self.maddr(self.layout.modules.pfn), package)

    def fill_p2m(self) -> None:
        """Write the p2m list, and the M2P entries that are its inverse."""
        nr_pages = self.layout.nr_pages
        at = self.maddr(self.layout.p2m.pfn) // PTE_SIZE
        self.hv.ram.q[at : at + nr_pages] = array("Q", range(self.base, self.base + nr_pages))
        self.hv.m2p.set_range(self.base, Pfn(0), nr_pages)

    def write_page_tables(self) -> None:
        """Fill the tables of all mappings; page-table pages are mapped read-only."""
        tables = self.layout.tables
        q = self.hv.ram.q
        for (level, prefix), pfn in tables.items():
            if level < 4:
                parent = tables[level + 1, prefix >> _INDEX_BITS]
                index = prefix % PTES_PER_TABLE
                q[self.maddr(parent) // PTE_SIZE + index] = self.maddr(pfn) | _TABLE_FLAGS
        for mapping in self.layout.mappings:
            self._map_pages(mapping.vaddr, mapping.region)
        tables_mapped_at = self.layout.vaddr(self.layout.page_tables.pfn)
        self._map_pages(tables_mapped_at, self.layout.page_tables, _PAGE_FLAGS & ~PTE_RW)

    def _map_pages(self, vaddr: Vaddr, region: Region, flags: int = _PAGE_FLAGS) -> None:
        """Write the L1 entries of a region, one L1 table at a time."""
        q = self.hv.ram.q
        pfn = region.pfn
        while pfn < region.end:
            index = (vaddr >> PAGE_SHIFT) % PTES_PER_TABLE
            count = min(PTES_PER_TABLE - index, region.end - pfn)
            l1 = self.layout.tables[1, (vaddr & (1 << 48) - 1) >> _L1_COVERS_SHIFT]
            at = self.maddr(l1) // PTE_SIZE + index
            first = self.maddr(pfn) | flags
            q[at : at + count] = array("Q", range(first, first + (count << PAGE_SHIFT), PAGE_SIZE))
            vaddr = Vaddr(vaddr + (count << PAGE_SHIFT))
            pfn += count

    def hand_over_tables(self) -> None:
        """Let Xen check the tables, add its own slots and make them those of vcpu 0."""
        try:
            mm.adopt_initial_tables(self.domain, self.mfn(self.layout.page_tables.pfn))
        except HypercallError as error:
            raise AssertionError("the domain builder made page tables that Xen refuses") from error

    def write_start_info(self, flags: int, command_line: bytes) -> None:
        """Fill the start_info page. Xen: start_info_x86_64()."""
        layout = self.layout
        info = StartInfo()
        info.magic = START_INFO_MAGIC
        info.nr_pages = layout.nr_pages
        info.shared_info = self.domain.shared_info_maddr
        info.store_mfn = self.mfn(layout.xenstore)
        info.store_evtchn = self.domain.xenstore.port
        info.console.domU.mfn = self.mfn(layout.console)
        info.console.domU.evtchn = self.domain.console.port
        info.pt_base = layout.vaddr(layout.page_tables.pfn)
        info.nr_pt_frames = layout.page_tables.pages
        info.mfn_list = layout.p2m_vaddr
        if layout.p2m_tables is not None:
            info.first_p2m_pfn = layout.p2m.pfn
            info.nr_p2m_frames = layout.p2m.pages + layout.p2m_tables.pages
        if layout.modules is not None:
            info.mod_len = layout.modules.pages * PAGE_SIZE
            info.mod_start = layout.vaddr(layout.modules.pfn)
            if not layout.modules_mapped:
                info.mod_start = layout.modules.pfn
                flags |= Sif.MOD_START_PFN
        info.flags = flags
        info.cmd_line = command_line
        self.hv.ram.write(self.maddr(layout.start_info), info.to_bytes())
        self.domain.start_info = self.mfn(layout.start_info)

    def connect_backends(self) -> None:
        """Give the domain its ports (xenstore 1, console 2) and grant the ring pages to the backends' domain."""
        domain = self.domain
        store_port = domain.event_channels.bind_backend(xenstore.BACKEND)
        console_port = domain.event_channels.bind_backend(console.BACKEND)
        store_ring, console_ring = self.mfn(self.layout.xenstore), self.mfn(self.layout.console)
        for ref, ring in ((GNTTAB_RESERVED_CONSOLE, console_ring), (GNTTAB_RESERVED_XENSTORE, store_ring)):
            domain.grant_table.set_entry(ref, GTF_PERMIT_ACCESS, BACKEND_DOMID, ring)
            acquire_grant(domain, ref, BACKEND_DOMID, readonly=False)
        domain.console.connect(console_ring, console_port)
        domain.xenstore.connect(domain, store_ring, store_port)
        make_console_keys(domain, console_ring, console_port)

    def prepare_vcpu(self, image: KernelImage) -> None:
        """Give vcpu 0 the registers of the entry point. Xen: vcpu_x86_64()."""
        layout = self.layout
        vcpu = self.domain.vcpus[0]
        for number in range(XEN_LEGACY_MAX_VCPUS):
            mask = SharedInfo.offset_of("vcpu_info") + number * VcpuInfo.SIZE + VcpuInfo.offset_of("evtchn_upcall_mask")
            self.hv.ram.buffer[self.domain.shared_info_maddr + mask] = 1
        vcpu.kernel_ss = FLAT_KERNEL_SS64
        vcpu.kernel_sp = Vaddr(layout.vaddr(layout.boot_stack) + PAGE_SIZE)
        cpu = self.hv.cpu
        others = cpu.save()
        cpu.gpr[:] = array("Q", bytes(8 * len(cpu.gpr)))
        cpu.gpr[RSP] = vcpu.kernel_sp
        cpu.gpr[RSI] = layout.vaddr(layout.start_info)
        cpu.rip = image.entry
        cpu.rflags = Rflags.IF | Rflags.FIXED
        cpu.cs, cpu.ss = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
        cpu.ds = cpu.es = cpu.fs = cpu.gs = FLAT_KERNEL_DS64
        cpu.fs_base = cpu.gs_base = 0
        cpu.cr2 = Vaddr(0)
        cpu.cr0_ts = False
        cpu.write_fpu(_INITIAL_FPU)
        vcpu.context = cpu.save()
        cpu.load(others)
        vcpu.is_initialised = True
        vcpu.is_up = True
