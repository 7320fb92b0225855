"""Xen's own slots (256 to 271) of every L4 that a guest uses. Xen: init_xen_l4_slots(), asm-x86/config.h.

==== ======================================================================================================
slot what
==== ======================================================================================================
256  the M2P, read-only, readable in user mode, or nothing
260  the domain's own slot: each vcpu has 32 pages there, 16 for its GDT and 16 for its LDT
rest nothing: Xen itself does not run from the guest's tables here
==== ======================================================================================================

A GDT area begins with the guest's descriptor frames (pages 0 to 13, a page of zeroes where it has none), then Xen's own
descriptors (page 14): the flat segments that guests run with. The LDT's pages are mapped when they are first used. The
domain's slot is for supervisor mode alone: the CPU reads descriptors through it, the guest can't.

Slot 256 follows VMASST_TYPE_m2p_strict. Without it a table that is checked gets none, and the M2P when it becomes a
kernel's base pointer; with it every table gets the M2P when it is checked, and loses it as a base pointer of user mode.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import PAGE_SHIFT, Mfn, Vaddr
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.x86 import (
    FIRST_RESERVED_GDT_PAGE,
    PTE_ACCESSED,
    PTE_ADDR_MASK,
    PTE_DIRTY,
    PTE_NX,
    PTE_PRESENT,
    PTE_RW,
    PTE_USER,
    PTES_PER_TABLE,
)
from xdbg.abi.x86_descriptors import SegmentDescriptor

if TYPE_CHECKING:
    from .domain import Domain
    from .setup import Hypervisor
    from .vcpu import Vcpu

FIRST_XEN_SLOT: Final = 256
"""ROOT_PAGETABLE_FIRST_XEN_SLOT."""
LAST_XEN_SLOT: Final = 271
M2P_SLOT: Final = 256
PERDOMAIN_SLOT: Final = 260
PERDOMAIN_VIRT_START: Final = 0xFFFF_8200_0000_0000
VCPU_AREA_PAGES: Final = 32
"""GDT_LDT_VCPU_SHIFT: pages of one vcpu's GDT and LDT together."""
LDT_FIRST_PAGE: Final = 16
NR_LDT_PAGES: Final = 16
GDT_LIMIT: Final = (FIRST_RESERVED_GDT_PAGE + 1) * 4096 - 1
"""LAST_RESERVED_GDT_BYTE: the same for every guest, whatever it asked for."""
MAX_VCPUS: Final = PTES_PER_TABLE * PTES_PER_TABLE // VCPU_AREA_PAGES
"""Areas of vcpus that one L2 has room for."""

_HYPERVISOR_RW: Final = PTE_PRESENT | PTE_RW | PTE_ACCESSED | PTE_DIRTY | PTE_NX
"""Supervisor, writable: the CPU sets the accessed bit of a descriptor."""
_HYPERVISOR_RO: Final = _HYPERVISOR_RW & ~PTE_RW
_TABLE: Final = PTE_PRESENT | PTE_RW | PTE_ACCESSED
_M2P_TABLE: Final = PTE_PRESENT | PTE_USER | PTE_ACCESSED
_ZERO_PAGE: Final = 15
"""Page of the GDT area, behind the limit, that keeps the page of zeroes."""

_ACCESSED_CODE: Final = 0xB
_ACCESSED_DATA: Final = 0x3
_XEN_DESCRIPTORS: Final = (
    SegmentDescriptor(type=_ACCESSED_CODE, l=True, g=True),  # 0xe008: Xen's code
    SegmentDescriptor(type=_ACCESSED_DATA, db=True, g=True),  # 0xe010: Xen's data
    None,
    SegmentDescriptor(type=_ACCESSED_CODE, dpl=3, db=True, g=True),  # 0xe023: FLAT_RING3_CS32
    SegmentDescriptor(type=_ACCESSED_DATA, dpl=3, db=True, g=True),  # 0xe02b: FLAT_RING3_SS32, DS32
    SegmentDescriptor(type=_ACCESSED_CODE, dpl=3, l=True, g=True),  # 0xe033: FLAT_RING3_CS64
    SegmentDescriptor(type=_ACCESSED_CODE, db=True, g=True),  # 0xe038: Xen's 32-bit code
)
"""Xen's part of every GDT from 0xe008 on, accessed bits set so that no load writes to it. Xen: boot_gdt."""


def gdt_base(vcpu: "Vcpu") -> Vaddr:
    """Where the CPU finds the vcpu's GDT. Xen: GDT_VIRT_START()."""
    return Vaddr(PERDOMAIN_VIRT_START + vcpu.vcpu_id * (VCPU_AREA_PAGES << PAGE_SHIFT))


def ldt_shadow_base(vcpu: "Vcpu") -> Vaddr:
    """Where the CPU finds the vcpu's LDT. Xen: LDT_VIRT_START()."""
    return Vaddr(gdt_base(vcpu) + (LDT_FIRST_PAGE << PAGE_SHIFT))


def init_domain(domain: "Domain") -> None:
    """What Xen keeps for a domain: its own slot, and shared_info made mappable. Xen: arch_domain_create()."""
    hv = domain.hv
    if domain.domid in hv.page_info.perdomain_l3:
        return
    l3 = hv.heap.alloc(DOMID_XEN)
    l2 = hv.heap.alloc(DOMID_XEN)
    hv.ram.q[l3 * PTES_PER_TABLE] = l2 << PAGE_SHIFT | _TABLE
    hv.page_info.perdomain_l3[domain.domid] = l3
    if hv.page_info.owner(domain.shared_info) == DOMID_XEN:
        hv.page_info.share_with_guest(domain.shared_info, domain.domid)


def init_vcpu_area(vcpu: "Vcpu") -> None:
    """Map the vcpu's GDT area: no guest frames, Xen's descriptors. Xen: pv_vcpu_initialise()."""
    hv = vcpu.domain.hv
    l2 = _frame(hv, hv.page_info.perdomain_l3[vcpu.domain.domid] * PTES_PER_TABLE)
    at = l2 * PTES_PER_TABLE + vcpu.vcpu_id * VCPU_AREA_PAGES // PTES_PER_TABLE
    if not hv.ram.q[at]:
        hv.ram.q[at] = hv.heap.alloc(DOMID_XEN) << PAGE_SHIFT | _TABLE
    first = area_pte(vcpu)
    if vcpu.vcpu_id == 0:
        descriptors = hv.heap.alloc(DOMID_XEN)
        for i, descriptor in enumerate(_XEN_DESCRIPTORS):
            if descriptor is not None:
                hv.ram.q[descriptors * PTES_PER_TABLE + 1 + i] = descriptor.encode()
        hv.ram.q[first + FIRST_RESERVED_GDT_PAGE] = descriptors << PAGE_SHIFT | _HYPERVISOR_RO
        hv.ram.q[first + _ZERO_PAGE] = hv.heap.alloc(DOMID_XEN) << PAGE_SHIFT | _HYPERVISOR_RO
    else:
        boot = area_pte(vcpu.domain.vcpus[0])
        for page in (FIRST_RESERVED_GDT_PAGE, _ZERO_PAGE):
            hv.ram.q[first + page] = hv.ram.q[boot + page]
    for page in range(FIRST_RESERVED_GDT_PAGE):
        map_gdt_page(vcpu, page, None)


def area_pte(vcpu: "Vcpu") -> int:
    """Index in `ram.q` of the first of the 32 l1es of the vcpu's area."""
    hv = vcpu.domain.hv
    l2 = _frame(hv, hv.page_info.perdomain_l3[vcpu.domain.domid] * PTES_PER_TABLE)
    first_page = vcpu.vcpu_id * VCPU_AREA_PAGES
    l1 = _frame(hv, l2 * PTES_PER_TABLE + first_page // PTES_PER_TABLE)
    return l1 * PTES_PER_TABLE + first_page % PTES_PER_TABLE


def map_gdt_page(vcpu: "Vcpu", page: int, mfn: Mfn | None) -> None:
    """Put a guest's descriptor frame at page 0 to 13 of the GDT; None: the page of zeroes."""
    words = vcpu.domain.hv.ram.q
    first = area_pte(vcpu)
    words[first + page] = words[first + _ZERO_PAGE] if mfn is None else mfn << PAGE_SHIFT | _HYPERVISOR_RW


def map_ldt_page(vcpu: "Vcpu", page: int, mfn: Mfn | None) -> None:
    """Put a guest's descriptor frame at page 0 to 15 of the LDT; None: nothing."""
    entry = 0 if mfn is None else mfn << PAGE_SHIFT | _HYPERVISOR_RW
    vcpu.domain.hv.ram.q[area_pte(vcpu) + LDT_FIRST_PAGE + page] = entry


def ldt_pages(vcpu: "Vcpu") -> list[tuple[int, Mfn]]:
    """The pages of the LDT that are mapped: (page, frame)."""
    first = area_pte(vcpu) + LDT_FIRST_PAGE
    entries = vcpu.domain.hv.ram.q[first : first + NR_LDT_PAGES]
    return [(page, Mfn((entry & PTE_ADDR_MASK) >> PAGE_SHIFT)) for page, entry in enumerate(entries) if entry]


def map_ro_mpt(hv: "Hypervisor", l4_mfn: Mfn, *, present: bool) -> None:
    """Let an L4 show the M2P or not. Xen: fill_ro_mpt(), zap_ro_mpt()."""
    hv.ram.q[l4_mfn * PTES_PER_TABLE + M2P_SLOT] = hv.m2p.l3 << PAGE_SHIFT | _M2P_TABLE if present else 0


def install_xen_slots(hv: "Hypervisor", l4_mfn: Mfn, vcpu: "Vcpu") -> None:
    """Write slots 256 to 271 of a guest's L4. Xen: init_xen_l4_slots()."""
    install_domain_slots(hv, l4_mfn, vcpu.domain.domid)


def install_domain_slots(hv: "Hypervisor", l4_mfn: Mfn, domid: int) -> None:
    """Write slots 256 to 271 of an L4 of domain `domid`."""
    words = hv.ram.q
    first = l4_mfn * PTES_PER_TABLE
    for slot in range(FIRST_XEN_SLOT, LAST_XEN_SLOT + 1):
        words[first + slot] = 0
    if hv.domains[domid].vm_assist >> VmasstType.M2P_STRICT & 1:
        map_ro_mpt(hv, l4_mfn, present=True)
    words[first + PERDOMAIN_SLOT] = hv.page_info.perdomain_l3[domid] << PAGE_SHIFT | _TABLE


def _frame(hv: "Hypervisor", at: int) -> int:
    """The frame that the entry at an index of `ram.q` points at."""
    return (hv.ram.q[at] & PTE_ADDR_MASK) >> PAGE_SHIFT
