"""mmu_update and update_va_mapping: what is stored, what is refused, and what a refusal leaves."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_IO, DOMID_SELF, DOMID_XEN, MMU_UPDATE_PREEMPTED, MmuUpdateCmd, Uvmf
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_GLOBAL,
    PTE_NX,
    PTE_PCD,
    PTE_PRESENT,
    PTE_PSE,
    PTE_PWT,
    PTE_RW,
    PTE_USER,
)
from xdbg.machine.registers import R10, RAX, RDI, RDX, RSI
from xdbg.xen.continuation import BATCH
from xdbg.xen.hypercall import call
from xdbg.xen.page_table_types import PTE_GUEST_KERNEL

L4, L3, L2, L1, FREE = 4, 5, 6, 7, 8
WRITABLE = PTE_PRESENT | PTE_RW | PTE_USER
READ_ONLY = PTE_PRESENT | PTE_USER


def test_an_l1_entry_is_stored_and_the_old_frame_is_let_go(guest: Any) -> None:
    refs = guest.hv.page_info.refs
    before = refs[guest.mfn(20)], refs[guest.mfn(21)]
    assert guest.mmu_update((guest.slot(L1, 20), guest.pte(21))) == 0
    assert guest.entry(L1, 20) == guest.pte(21) | PTE_GLOBAL
    assert (refs[guest.mfn(20)], refs[guest.mfn(21)]) == (before[0] - 1, before[1] + 1)


def test_an_entry_without_user_gets_it_and_is_marked_as_the_kernels(guest: Any) -> None:
    assert guest.mmu_update((guest.slot(L1, 20), guest.pte(20, PTE_PRESENT | PTE_RW))) == 0
    assert guest.entry(L1, 20) == guest.pte(20, WRITABLE | PTE_GUEST_KERNEL)


def test_preserve_ad_keeps_accessed_and_dirty_and_a_normal_update_does_not(guest: Any) -> None:
    at = guest.slot(L1, 20)
    guest.hv.ram.write_u64(at, guest.entry(L1, 20) | PTE_ACCESSED | PTE_DIRTY)
    assert guest.mmu_update((at | MmuUpdateCmd.PT_UPDATE_PRESERVE_AD, guest.pte(20, READ_ONLY))) == 0
    assert guest.entry(L1, 20) == guest.pte(20, READ_ONLY | PTE_ACCESSED | PTE_DIRTY | PTE_GLOBAL)
    assert guest.mmu_update((at, guest.pte(20))) == 0
    assert guest.entry(L1, 20) == guest.pte(20) | PTE_GLOBAL


@pytest.mark.parametrize("bit", [PTE_PWT, PTE_PCD, PTE_PSE])
def test_l1_bits_that_are_not_the_guests_are_refused(guest: Any, bit: Any) -> None:
    before = guest.entry(L1, 20)
    assert guest.mmu_update((guest.slot(L1, 20), guest.pte(20) | bit)) == -Errno.EINVAL
    assert guest.entry(L1, 20) == before


def test_the_bits_for_software_are_the_guests(guest: Any) -> None:
    """Xen marks mappings by grant in bit 62 only if it is a debug build."""
    entry = guest.pte(20) | 0xE00 | 0x7FF << 52
    assert guest.mmu_update((guest.slot(L1, 20), entry)) == 0
    assert guest.entry(L1, 20) == entry


@pytest.mark.parametrize("bit", [PTE_PWT, PTE_PCD, PTE_PSE, PTE_GLOBAL])
@pytest.mark.parametrize(("table", "index", "target"), [(L4, 511, L3), (L3, 510, L2), (L2, 0, L1)])
def test_table_bits_that_are_not_the_guests_are_refused(
    guest: Any, bit: Any, table: Any, index: Any, target: Any
) -> None:
    before = guest.entry(table, index)
    assert guest.mmu_update((guest.slot(table, index), guest.pte(target) | bit)) == -Errno.EINVAL
    assert guest.entry(table, index) == before


def test_any_bits_may_stand_in_an_entry_that_is_not_present(guest: Any) -> None:
    value = ((1 << 64) - 1) & ~PTE_PRESENT
    assert guest.mmu_update((guest.slot(L1, 40), value)) == 0
    assert guest.entry(L1, 40) == value


@pytest.mark.parametrize("pfn", [L4, L3, L2, L1])
def test_a_table_can_be_mapped_read_only_but_not_writable(guest: Any, pfn: Any) -> None:
    assert guest.mmu_update((guest.slot(L1, 40), guest.pte(pfn, READ_ONLY))) == 0
    assert guest.mmu_update((guest.slot(L1, 40), guest.pte(pfn))) == -Errno.EBUSY
    assert guest.entry(L1, 40) == guest.pte(pfn, READ_ONLY | PTE_GLOBAL)


def test_frames_of_xen_of_nobody_and_of_another_domain_are_refused(guest: Any, neighbour: Any) -> None:
    slot = guest.slot(L1, 40)
    foreign = [neighbour.mfn(20), int(guest.hv.m2p.frame), guest.hv.page_info.nr_frames - 1, 0]
    for mfn in foreign:
        for flags in (WRITABLE, READ_ONLY):
            assert guest.mmu_update((slot, mfn << 12 | flags)) == -Errno.EBUSY
    assert guest.mmu_update((slot, guest.hv.page_info.nr_frames << 12 | READ_ONLY)) == -Errno.EPERM
    assert guest.mmu_update((slot, 0x000F_FFFF_FFFF_F000 | READ_ONLY)) == -Errno.EINVAL
    neighbour.audit()


def test_the_guest_maps_its_shared_info_and_its_grant_table(guest: Any) -> None:
    for mfn in (guest.domain.shared_info, guest.domain.grant_table.frames[0]):
        assert guest.map(20, mfn << 12 | WRITABLE) == 0


def test_xen_slots_of_an_l4_are_refused_and_their_neighbours_are_not(guest: Any) -> None:
    for slot in (256, 258, 260, 271):
        before = guest.entry(L4, slot)
        assert guest.mmu_update((guest.slot(L4, slot), 0)) == -Errno.EINVAL
        assert guest.entry(L4, slot) == before
    assert guest.mmu_update((guest.slot(L4, 255), 0), (guest.slot(L4, 272), 0)) == 0


def test_an_update_of_a_page_that_is_no_table_is_a_plain_store(guest: Any) -> None:
    assert guest.mmu_update((guest.slot(20, 3), 0xFFFF_FFFF_FFFF_FFFF)) == 0
    assert guest.entry(20, 3) == 0xFFFF_FFFF_FFFF_FFFF


def test_an_update_outside_the_domain_is_refused(guest: Any, neighbour: Any) -> None:
    frames = guest.hv.page_info.nr_frames
    for maddr in (neighbour.slot(L1, 40), guest.hv.m2p.frame << 12, 0, frames << 12, 0xFFFF_FFFF_FFFF_F000):
        assert guest.mmu_update((maddr, 0)) == -Errno.EINVAL


@pytest.mark.parametrize("command", [4, 5, 6, 7])
def test_unknown_commands_are_enosys(guest: Any, command: Any) -> None:
    assert guest.mmu_update((guest.slot(L1, 40) | command, 0)) == -Errno.ENOSYS


def test_the_done_count_tells_how_far_it_came(guest: Any) -> None:
    done = guest.va(1)
    good, bad = (guest.slot(L1, 40), 0), (guest.slot(L1, 41), guest.pte(L1))
    assert guest.mmu_update(good, good, bad, good, done=done) == -Errno.EBUSY
    assert guest.hv.ram.read_u32(guest.mfn(1) << 12) == 2
    assert guest.mmu_update(good, good, good, done=done) == 0
    assert guest.hv.ram.read_u32(guest.mfn(1) << 12) == 3


def test_a_list_that_leaves_mapped_memory_is_efault_at_that_point(guest: Any) -> None:
    last = guest.va(63) + 4096 - 16
    guest.write(63, (guest.slot(L1, 40)).to_bytes(8, "little") + bytes(8), 4096 - 16)
    assert guest.call(Hypercall.MMU_UPDATE, last, 2, guest.va(1), DOMID_SELF) == -Errno.EFAULT
    assert guest.hv.ram.read_u32(guest.mfn(1) << 12) == 1
    assert guest.call(Hypercall.MMU_UPDATE, 0xFFFF_8000_0000_0000, 1, 0, DOMID_SELF) == -Errno.EFAULT
    assert guest.call(Hypercall.MMU_UPDATE, 1 << 63 | 1, 1, 0, DOMID_SELF) == -Errno.EFAULT


def test_a_request_may_lie_across_two_pages(guest: Any) -> None:
    raw = guest.slot(L1, 40).to_bytes(8, "little") + (0x1234_0000).to_bytes(8, "little")
    guest.write(1, raw[:4], 4092)
    guest.write(2, raw[4:])
    assert guest.call(Hypercall.MMU_UPDATE, guest.va(1) + 4092, 1, 0, DOMID_SELF) == 0
    assert guest.entry(L1, 40) == 0x1234_0000


def test_foreign_domains_are_told_apart(guest: Any, neighbour: Any) -> None:
    slot = guest.slot(L1, 40)
    other = neighbour.domain.domid
    assert guest.mmu_update((slot, 0), foreigndom=other) == -Errno.EPERM
    assert guest.mmu_update((slot, 0), foreigndom=DOMID_XEN) == -Errno.EPERM
    assert guest.mmu_update((slot, 0), foreigndom=77) == -Errno.ESRCH
    assert guest.mmu_update((slot, 0), foreigndom=guest.domain.domid) == -Errno.ESRCH
    assert guest.mmu_update((slot, guest.pte(20)), foreigndom=DOMID_IO) == -Errno.EBUSY
    assert guest.mmu_update((slot, 1 << 44 | READ_ONLY), foreigndom=DOMID_IO) == -Errno.EPERM
    assert guest.mmu_update((slot, 0), foreigndom=(other + 1) << 16 | DOMID_SELF) == -Errno.EPERM
    assert guest.mmu_update((slot, 0), foreigndom=78 << 16 | DOMID_SELF) == -Errno.ESRCH
    assert guest.mmu_update((slot, 0), foreigndom=(guest.domain.domid + 1) << 16 | DOMID_SELF) == 0
    assert guest.mmu_update(foreigndom=other) == 0
    assert guest.mmu_update((slot, 0), foreigndom=0) == -Errno.EPERM, "domain 0 is there"
    assert guest.mmu_update((slot, 0), foreigndom=1 << 16 | DOMID_SELF) == -Errno.EPERM
    guest.write(1, b"\xff" * 4)
    assert guest.mmu_update((slot, 0), foreigndom=77, done=guest.va(1)) == -Errno.ESRCH
    assert guest.hv.ram.read_u32(guest.mfn(1) << 12) == 0, "nothing was done, and Xen says so"


def test_the_end_of_a_continued_call_returns_what_was_kept_for_it(guest: Any) -> None:
    for number in (Hypercall.MMU_UPDATE, Hypercall.MMUEXT_OP):
        assert guest.call(number, 0, MMU_UPDATE_PREEMPTED, 0, (1 << 32) - Errno.EINVAL) == -Errno.EINVAL
        assert guest.call(number, 0, MMU_UPDATE_PREEMPTED, 0, 0) == 0


def test_machphys_update_sets_the_m2p_of_own_frames_only(guest: Any, neighbour: Any) -> None:
    command = int(MmuUpdateCmd.MACHPHYS_UPDATE)
    assert guest.mmu_update((guest.mfn(20) << 12 | command, 0x1234)) == 0
    assert guest.hv.m2p.get(guest.mfn(20)) == 0x1234
    assert guest.hv.page_info.mfn_of(guest.domain.domid, 0x1234) == guest.mfn(20)
    assert guest.mmu_update((neighbour.mfn(20) << 12 | command, 7)) == -Errno.EINVAL
    assert guest.mmu_update((int(guest.hv.m2p.frame) << 12 | command, 7)) == -Errno.EINVAL
    for domid, errno in ((DOMID_IO, Errno.EINVAL), (DOMID_XEN, Errno.EPERM), (neighbour.domain.domid, Errno.EPERM)):
        assert guest.mmu_update((guest.mfn(20) << 12 | command, 7), foreigndom=domid) == -errno
    assert guest.mmu_update((guest.mfn(20) << 12 | command, 7), foreigndom=1 << 16 | DOMID_SELF) == -Errno.EPERM
    assert guest.hv.m2p.get(neighbour.mfn(20)) == 20


def test_a_long_list_is_done_in_pieces_that_the_guest_repeats(guest: Any) -> None:
    count = BATCH + 10
    raw = (guest.slot(L1, 40).to_bytes(8, "little") + bytes(8)) * 256
    for pfn in range(20, 20 + count * 16 // 4096 + 1):
        guest.write(pfn, raw)
    cpu = guest.hv.cpu
    cpu.rip = 0x1002
    cpu.gpr[RAX] = int(Hypercall.MMU_UPDATE)
    guest.write(1, bytes(4))
    assert call(guest.vcpu, Hypercall.MMU_UPDATE, (guest.va(20), count, guest.va(1), DOMID_SELF, 0, 0)) is None
    assert cpu.rip == 0x1000
    assert cpu.gpr[RDI] == guest.va(20) + BATCH * 16
    assert cpu.gpr[RSI] == 10 | MMU_UPDATE_PREEMPTED
    args = tuple(cpu.gpr[register] for register in (RDI, RSI, RDX, R10))
    assert call(guest.vcpu, Hypercall.MMU_UPDATE, (*args, 0, 0)) == 0
    assert guest.hv.ram.read_u32(guest.mfn(1) << 12) == count


def test_a_table_is_linked_in_when_no_mapping_of_it_writes(guest: Any) -> None:
    assert guest.mmu_update((guest.slot(L2, 5), guest.pte(FREE))) == -Errno.EINVAL
    guest.make_read_only(FREE)
    guest.write_entries(FREE, {0: guest.pte(30)})
    refs = guest.hv.page_info.refs[guest.mfn(30)]
    assert guest.mmu_update((guest.slot(L2, 5), guest.pte(FREE))) == 0
    assert guest.hv.page_info.refs[guest.mfn(30)] == refs + 1
    assert guest.mmu_update((guest.slot(L2, 5), 0)) == 0
    assert guest.hv.page_info.refs[guest.mfn(30)] == refs
    assert guest.map(FREE, guest.pte(FREE)) == 0


def test_mmu_update_flushes_after_a_change_above_l1_alone(guest: Any) -> None:
    guest.make_read_only(FREE)
    assert guest.pin(FREE, 1) == 0
    before = guest.hv.cpu.flushes
    assert guest.mmu_update((guest.slot(L1, 40), 0)) == 0
    assert guest.mmu_update((guest.slot(L2, 5), guest.pte(L1) | PTE_PSE)) == -Errno.EINVAL
    assert guest.hv.cpu.flushes == before
    assert guest.mmu_update((guest.slot(L2, 5), guest.pte(FREE)), (guest.slot(L2, 5), 0)) == 0
    assert guest.hv.cpu.flushes == before + 1, "once for the whole list"
    bad = (guest.slot(L2, 5), guest.pte(20))
    assert guest.mmu_update((guest.slot(L2, 5), guest.pte(FREE)), bad) == -Errno.EINVAL
    assert guest.hv.cpu.flushes == before + 2, "what came before the failure counts"


def test_update_va_mapping_changes_the_entry_of_an_address(guest: Any) -> None:
    assert guest.map(20, guest.pte(21, READ_ONLY | PTE_NX)) == 0
    assert guest.entry(L1, 20) == guest.pte(21, READ_ONLY | PTE_NX | PTE_GLOBAL)


@pytest.mark.parametrize(("flags", "flushes"), [(0, 0), (Uvmf.TLB_FLUSH, 1), (Uvmf.INVLPG | Uvmf.ALL, 1), (3, 0)])
def test_update_va_mapping_flushes_as_its_flags_say_unless_it_fails(guest: Any, flags: Any, flushes: Any) -> None:
    before = guest.hv.cpu.flushes
    assert guest.map(20, guest.pte(21, READ_ONLY), flags) == 0
    assert guest.map(20, guest.pte(L1), flags) == -Errno.EBUSY
    assert guest.hv.cpu.flushes - before == flushes


def test_update_va_mapping_reads_the_mask_of_vcpus(guest: Any) -> None:
    guest.write(1, (1).to_bytes(8, "little"))
    assert guest.map(20, guest.pte(20), guest.va(1) | Uvmf.TLB_FLUSH) == 0
    assert guest.map(20, guest.pte(20), 0x1000 | Uvmf.TLB_FLUSH) == -Errno.EFAULT


@pytest.mark.parametrize("va", [0, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000, 1 << 63, 0xFFFF_FFFF_FFFF_F000])
def test_update_va_mapping_of_an_address_without_an_l1_is_einval(guest: Any, va: Any) -> None:
    assert guest.call(Hypercall.UPDATE_VA_MAPPING, va, 0, 0) == -Errno.EINVAL


def test_update_va_mapping_otherdomain_knows_only_the_caller(guest: Any, neighbour: Any) -> None:
    number = Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN
    assert guest.call(number, guest.va(20), guest.pte(21), 0, DOMID_SELF) == 0
    assert guest.call(number, guest.va(20), neighbour.pte(21), 0, neighbour.domain.domid) == -Errno.EPERM
    assert guest.call(number, guest.va(20), 0, 0, 99) == -Errno.ESRCH
    assert guest.call(number, guest.va(20), 0, 0, 0) == -Errno.EPERM
    assert guest.call(number, guest.va(20), guest.pte(22), 0, DOMID_IO) == -Errno.EBUSY
    assert guest.call(number, guest.va(20), 0, 0, DOMID_IO) == 0


def test_a_frame_that_stops_being_writable_is_flushed_from_the_tlb(guest: Any) -> None:
    guest.make_read_only(FREE)
    before = guest.hv.cpu.flushes
    assert guest.pin(FREE, 1) == 0
    assert guest.hv.cpu.flushes > before
