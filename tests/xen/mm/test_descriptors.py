"""set_gdt, update_descriptor and the LDT: which descriptors and which frames a guest gets in."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MmuextOp
from xdbg.abi.x86 import FIRST_RESERVED_GDT_ENTRY, FLAT_KERNEL_CS, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.abi.x86_descriptors import SegmentDescriptor
from xdbg.machine.paging import walk
from xdbg.xen.descriptor_check import check_descriptor, is_harmless
from xdbg.xen.descriptor_tables import load_gdt, map_ldt_shadow_page
from xdbg.xen.page_info import PGT_NONE, PGT_SEG_DESC_PAGE
from xdbg.xen.xen_slots import GDT_LIMIT, gdt_base, ldt_shadow_base

L1, GDT = 7, 20
READ_ONLY = PTE_PRESENT | PTE_USER
CODE = SegmentDescriptor(type=0xB, dpl=3, l=True, g=True).encode()
DPL = 3 << 45


def gate(selector: Any, *, dpl: Any = 3, reserved: Any = 0, kind: Any = 0xC) -> Any:
    return selector << 16 | reserved << 32 | kind << 40 | dpl << 45 | 1 << 47 | 0x1234


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (0, 0),
        (0x00CF_1200_0000_FFFF, 0x00CF_1200_0000_FFFF),  # not present: anything goes
        (CODE, CODE),
        (CODE & ~DPL, CODE),  # privilege is raised to 3
        (CODE & ~DPL | 1 << 45, CODE),
        (SegmentDescriptor(base=0xFFFF_FFFF, limit=0, type=2, dpl=3).encode(),) * 2,
        (1 << 47, 1 << 47 | DPL),  # second half of a call gate
        (gate(0x33), gate(0x33, dpl=0)),
        (gate(0x33, dpl=1), gate(0x31, dpl=0)),
        (gate(FLAT_KERNEL_CS), gate(FLAT_KERNEL_CS, dpl=0)),
        (gate(0xE004), gate(0xE007, dpl=0)),  # an LDT selector
        (gate(0xE008), None),  # Xen's code segment
        (gate(0xE02B), None),
        (gate(0x33, reserved=1), None),
        *[
            (gate(0x33, kind=kind), None) for kind in (2, 5, 9, 11, 14, 15)
        ],  # LDT, task gate, TSS, interrupt, trap gates
    ],
)
def test_descriptors_as_xen_lets_them_in(given: Any, stored: Any) -> None:
    assert check_descriptor(given) == stored
    assert stored is None or is_harmless(stored)


def test_a_gdt_is_checked_mapped_and_let_go(guest: Any) -> None:
    guest.write(GDT, CODE.to_bytes(8, "little"), 16)
    guest.make_read_only(GDT)
    guest.write(0, guest.mfn(GDT).to_bytes(8, "little"))
    assert guest.call(Hypercall.SET_GDT, guest.va(0), 512) == 0
    assert guest.vcpu.gdt_frames == (guest.mfn(GDT),)
    assert walk(guest.hv.ram, guest.vcpu.cr3, gdt_base(guest.vcpu)).maddr == guest.mfn(GDT) << 12
    assert guest.map(GDT, guest.pte(GDT)) == -Errno.EBUSY, "descriptors are not mapped writable"
    guest.audit()
    assert guest.call(Hypercall.SET_GDT, 0, 0) == 0
    assert walk(guest.hv.ram, guest.vcpu.cr3, gdt_base(guest.vcpu)).maddr != guest.mfn(GDT) << 12
    assert guest.map(GDT, guest.pte(GDT)) == 0


def test_a_bad_gdt_leaves_the_old_one(guest: Any, neighbour: Any) -> None:
    guest.make_read_only(GDT)
    guest.write(0, guest.mfn(GDT).to_bytes(8, "little"))
    assert guest.call(Hypercall.SET_GDT, guest.va(0), 1) == 0
    guest.write(22, gate(0xE008).to_bytes(8, "little"), 4088)
    guest.make_read_only(21, 22)
    for bad in (
        guest.mfn(30),
        guest.mfn(22),
        guest.mfn(L1),
        neighbour.mfn(30),
        guest.hv.page_info.nr_frames,
        (1 << 64) - 1,
    ):
        guest.write(0, guest.mfn(21).to_bytes(8, "little") + bad.to_bytes(8, "little"))
        assert guest.call(Hypercall.SET_GDT, guest.va(0), 1024) == -Errno.EINVAL
    assert guest.vcpu.gdt_frames == (guest.mfn(GDT),)
    assert guest.hv.page_info.type_of(guest.mfn(21)) == PGT_NONE
    assert guest.call(Hypercall.SET_GDT, guest.va(0), FIRST_RESERVED_GDT_ENTRY + 1) == -Errno.EINVAL
    assert guest.call(Hypercall.SET_GDT, 0x1000, 1) == -Errno.EFAULT


def test_the_cpu_finds_the_guests_descriptors_and_then_xens(guest: Any) -> None:
    load_gdt(guest.vcpu)
    base, limit = guest.hv.cpu.gdt
    assert (base, limit) == (gdt_base(guest.vcpu), GDT_LIMIT)
    for page in range(15):
        found = walk(guest.hv.ram, guest.vcpu.cr3, base + page * 4096)
        assert not found.flags & PTE_USER, "the guest itself can't read them"
        assert bool(found.flags & PTE_RW) is False
    flat = walk(guest.hv.ram, guest.vcpu.cr3, base + 0xE033 - 3).maddr
    code = SegmentDescriptor.decode(guest.hv.ram.read_u64(flat))
    assert (code.dpl, code.l, code.is_code, code.present, code.type & 1) == (3, True, True, True, 1)


def test_update_descriptor_checks_address_and_descriptor(guest: Any, neighbour: Any) -> None:
    call = guest.call
    at = guest.mfn(30) << 12
    assert call(Hypercall.UPDATE_DESCRIPTOR, at + 8, CODE & ~DPL) == 0
    assert guest.entry(30, 1) == CODE
    assert call(Hypercall.UPDATE_DESCRIPTOR, at + 4, CODE) == -Errno.EINVAL
    assert call(Hypercall.UPDATE_DESCRIPTOR, at, gate(0xE008)) == -Errno.EINVAL
    assert call(Hypercall.UPDATE_DESCRIPTOR, guest.mfn(L1) << 12, CODE) == -Errno.EINVAL
    for mfn in (neighbour.mfn(30), int(guest.hv.m2p.frame), guest.hv.page_info.nr_frames, (1 << 52) - 1):
        assert call(Hypercall.UPDATE_DESCRIPTOR, mfn << 12, CODE) == -Errno.EINVAL


def test_update_descriptor_writes_to_a_live_gdt(guest: Any) -> None:
    guest.make_read_only(GDT)
    guest.write(0, guest.mfn(GDT).to_bytes(8, "little"))
    assert guest.call(Hypercall.SET_GDT, guest.va(0), 512) == 0
    assert guest.call(Hypercall.UPDATE_DESCRIPTOR, guest.mfn(GDT) << 12 | 16, CODE) == 0
    assert guest.entry(GDT, 2) == CODE
    assert guest.mmu_update((guest.slot(GDT, 2), 1 << 47)) == -Errno.EINVAL, "not by mmu_update"


def test_an_ldt_is_mapped_page_by_page_when_it_is_used_and_dropped_with_its_mapping(guest: Any) -> None:
    guest.write(20, CODE.to_bytes(8, "little"))
    guest.make_read_only(20, 21)
    assert guest.mmuext(MmuextOp.SET_LDT, guest.va(20), 1024) == 0
    assert guest.hv.cpu.ldt == (ldt_shadow_base(guest.vcpu), 1024 * 8 - 1)
    assert map_ldt_shadow_page(guest.vcpu, 8)
    assert walk(guest.hv.ram, guest.vcpu.cr3, ldt_shadow_base(guest.vcpu)).maddr == guest.mfn(20) << 12
    assert guest.hv.page_info.type_of(guest.mfn(20)) == PGT_SEG_DESC_PAGE
    guest.audit()
    assert not map_ldt_shadow_page(guest.vcpu, 8 << 12), "not mapped by the guest as descriptors"
    assert guest.map(20, guest.pte(20)) == -Errno.EBUSY
    assert guest.map(20, 0) == 0
    assert guest.hv.page_info.type_of(guest.mfn(20)) == PGT_NONE
    assert map_ldt_shadow_page(guest.vcpu, 4096)
    assert guest.mmuext(MmuextOp.SET_LDT, 0, 0) == 0
    assert guest.hv.page_info.type_of(guest.mfn(21)) == PGT_NONE


def test_a_new_base_pointer_drops_the_ldt(guest: Any) -> None:
    guest.make_read_only(20, 8)
    guest.write_entries(8, {511: guest.pte(5)})
    assert guest.mmuext(MmuextOp.SET_LDT, guest.va(20), 512) == 0
    assert map_ldt_shadow_page(guest.vcpu, 0)
    assert guest.mmuext(MmuextOp.NEW_BASEPTR, guest.mfn(8)) == 0
    assert guest.hv.page_info.type_of(guest.mfn(20)) == PGT_NONE


@pytest.mark.parametrize(
    ("base", "entries"),
    [(0xFFFF_FFFF_8000_0001, 1), (0xFFFF_8000_0000_0000, 1), (1 << 63, 1), (0xFFFF_FFFF_8000_0000, 8193)],
)
def test_bad_ldts_are_refused(guest: Any, base: Any, entries: Any) -> None:
    assert guest.mmuext(MmuextOp.SET_LDT, base, entries) == -Errno.EINVAL
    assert guest.vcpu.ldt_entries == 0
