"""GDT and LDT of a vcpu. Xen: arch/x86/pv/descriptor-tables.c, pv/mm.c.

The guest hands over frames, not addresses: each is checked descriptor by descriptor and becomes a page of descriptors,
which nobody can map writable while it is one. Xen maps the frames itself (`xen_slots`) and points the CPU there. Pages
of the LDT are found through the guest's own page tables, one at a time, when the CPU first touches them.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SHIFT, Maddr, Mfn, Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import FIRST_RESERVED_GDT_ENTRY, PTE_ADDR_MASK, PTE_PRESENT, PTES_PER_TABLE
from xdbg.abi.x86_descriptors import SELECTOR_OFFSET, SELECTOR_TI
from xdbg.machine.paging import NotMappedError, walk

from .descriptor_check import check_descriptor
from .events import MemoryWritten
from .faults import HypercallError
from .guest_access import copy_from_guest
from .hypercall import hypercall
from .mm import guest_l1e
from .page_info import PGT_SEG_DESC_PAGE, PGT_TYPE_MASK, PGT_WRITABLE_PAGE
from .page_table_types import get_page_and_type, get_page_type, put_page_and_type, put_page_type
from .vcpu import Vcpu
from .xen_slots import (
    GDT_LIMIT,
    NR_LDT_PAGES,
    gdt_base,
    init_domain,
    init_vcpu_area,
    ldt_pages,
    ldt_shadow_base,
    map_gdt_page,
    map_ldt_page,
)

_DESCRIPTOR_SIZE: Final = 8
_LDT_SELECTOR: Final = 0xE050
"""Of Xen's own descriptor of the LDT. Xen: LDT_SELECTOR."""


def init_vcpu(vcpu: Vcpu) -> None:
    """Give a new vcpu its place in the domain's own slot, with an empty GDT. Xen: pv_vcpu_initialise()."""
    init_domain(vcpu.domain)
    init_vcpu_area(vcpu)


def load_gdt(vcpu: Vcpu) -> None:
    """Point the CPU at the vcpu's GDT and LDT."""
    vcpu.domain.hv.cpu.set_gdt(gdt_base(vcpu), GDT_LIMIT)
    load_ldt(vcpu)


def load_ldt(vcpu: Vcpu) -> None:
    """Point the CPU at the vcpu's LDT, or at none. Xen: load_LDT()."""
    cpu = vcpu.domain.hv.cpu
    if vcpu.ldt_entries:
        cpu.set_ldt(ldt_shadow_base(vcpu), vcpu.ldt_entries * _DESCRIPTOR_SIZE - 1, _LDT_SELECTOR)
    else:
        cpu.set_ldt(Vaddr(0), 0)


@hypercall(Hypercall.SET_GDT)
def do_set_gdt(vcpu: Vcpu, frame_list: int, uint32: int) -> int:
    """HYPERVISOR_set_gdt(frames, entries): the frames, 512 descriptors each, are the GDT from now on.

    -EINVAL for too many entries or a frame that can't be descriptors; then the old GDT stays.
    """
    entries = uint32
    if entries > FIRST_RESERVED_GDT_ENTRY:
        raise HypercallError(Errno.EINVAL)
    nr_frames = -(-entries // PTES_PER_TABLE)
    raw = copy_from_guest(vcpu, frame_list, 8 * nr_frames) if nr_frames else b""
    set_gdt(vcpu, tuple(Mfn(int.from_bytes(raw[i : i + 8], "little")) for i in range(0, len(raw), 8)), entries)
    vcpu.domain.hv.cpu.flush_tlb()
    return 0


def set_gdt(vcpu: Vcpu, frames: tuple[Mfn, ...], entries: int) -> None:
    """Replace a vcpu's GDT; -EINVAL, and the old one stays. Xen: pv_set_gdt()."""
    hv = vcpu.domain.hv
    taken: list[Mfn] = []
    try:
        for mfn in frames:
            get_page_and_type(hv, mfn, vcpu.domain.domid, PGT_SEG_DESC_PAGE)
            taken.append(mfn)
    except HypercallError:
        for mfn in taken:
            put_page_and_type(hv, mfn)
        raise
    destroy_gdt(vcpu)
    for page, mfn in enumerate(frames):
        map_gdt_page(vcpu, page, mfn)
    vcpu.gdt_frames = frames
    vcpu.gdt_entries = entries


def destroy_gdt(vcpu: Vcpu) -> None:
    """Take the guest's frames out of a vcpu's GDT. Xen: pv_destroy_gdt()."""
    frames = vcpu.gdt_frames
    vcpu.gdt_frames = ()
    vcpu.gdt_entries = 0
    for page, mfn in enumerate(frames):
        map_gdt_page(vcpu, page, None)
        put_page_and_type(vcpu.domain.hv, mfn)


@hypercall(Hypercall.UPDATE_DESCRIPTOR)
def do_update_descriptor(vcpu: Vcpu, maddr: int, descriptor: int) -> int:
    """HYPERVISOR_update_descriptor(maddr, descriptor): store one checked descriptor in a page of the domain's.

    -EINVAL for an address that is not a multiple of 8 or not the domain's, a descriptor that is not allowed, a table.
    """
    hv = vcpu.domain.hv
    mfn = maddr >> PAGE_SHIFT
    checked = check_descriptor(descriptor)
    if maddr % _DESCRIPTOR_SIZE or checked is None or hv.page_info.owner(mfn) != vcpu.domain.domid:
        raise HypercallError(Errno.EINVAL)
    is_descriptors = hv.page_info.types[mfn] & PGT_TYPE_MASK == PGT_SEG_DESC_PAGE
    get_page_type(hv, mfn, PGT_SEG_DESC_PAGE if is_descriptors else PGT_WRITABLE_PAGE)
    hv.ram.q[maddr // _DESCRIPTOR_SIZE] = checked
    put_page_type(hv, mfn)
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(Maddr(maddr), _DESCRIPTOR_SIZE))
    return 0


def map_ldt_shadow_page(vcpu: Vcpu, offset: int) -> bool:
    """Map the page of the guest's LDT that holds byte `offset`; False if it can't be. Xen: pv_map_ldt_shadow_page()."""
    hv = vcpu.domain.hv
    if offset >= vcpu.ldt_entries * _DESCRIPTOR_SIZE:
        return False
    page = offset >> PAGE_SHIFT
    if any(mapped == page for mapped, _ in ldt_pages(vcpu)):
        return True
    at = guest_l1e(vcpu, vcpu.ldt_base + offset)
    if at is None:
        return False
    l1e = hv.ram.q[at]
    if not l1e & PTE_PRESENT:
        return False
    mfn = Mfn((l1e & PTE_ADDR_MASK) >> PAGE_SHIFT)
    try:
        get_page_and_type(hv, mfn, vcpu.domain.domid, PGT_SEG_DESC_PAGE)
    except HypercallError:
        return False
    map_ldt_page(vcpu, page, mfn)
    return True


def read_descriptor(vcpu: Vcpu, selector: int) -> int | None:
    """The descriptor that a selector names in the GDT or LDT of the current vcpu; None if there is none."""
    offset = selector & SELECTOR_OFFSET
    if selector & SELECTOR_TI:
        if offset >= vcpu.ldt_entries * _DESCRIPTOR_SIZE or not map_ldt_shadow_page(vcpu, offset):
            return None
        vaddr = ldt_shadow_base(vcpu) + offset
    else:
        vaddr = gdt_base(vcpu) + offset
    hv = vcpu.domain.hv
    try:
        return hv.ram.read_u64(walk(hv.ram, vcpu.cr3, Vaddr(vaddr)).maddr)
    except NotMappedError:
        return None


def ldt_offset(vcpu: Vcpu, vaddr: int) -> int | None:
    """The offset in the vcpu's LDT that an address of its area stands for; None if it is elsewhere."""
    offset = vaddr - ldt_shadow_base(vcpu)
    return offset if 0 <= offset < min(vcpu.ldt_entries * _DESCRIPTOR_SIZE, NR_LDT_PAGES << PAGE_SHIFT) else None
