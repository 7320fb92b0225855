"""Direct paging: mmu_update, update_va_mapping, and the tables a vcpu runs on. Xen: arch/x86/mm.c.

A PV guest's page tables hold machine frames and are used by the CPU as they are. The guest can read them but not write
them: it asks for each change, and Xen checks it (`page_table_entries`). What a table is, and how a frame comes to be
one, is in `page_table_types`.

TLB: the update of an L1 entry flushes nothing. The guest flushes what it wants gone; Xen flushes on its own after
mmu_update changed a higher table, and where a stale translation could reach what is not the guest's any more.
"""

from contextlib import suppress
from struct import Struct
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Maddr, Mfn, Vaddr
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.mmu import (
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    MMU_UPDATE_PREEMPTED,
    MmuUpdate,
    MmuUpdateCmd,
    Uvmf,
)
from xdbg.abi.x86 import PTE_ADDR_MASK, PTE_PRESENT, PTE_PSE, PTE_SIZE, PTES_PER_TABLE

from .continuation import BATCH, can_continue, create_continuation
from .domain import Domain
from .domain_lookup import domain_exists
from .events import MemoryWritten
from .faults import GuestFault, HypercallError
from .guest_access import address_ok, copy_from_guest, copy_to_guest
from .hypercall import hypercall
from .page_info import (
    PGT_COUNT_MASK,
    PGT_L1_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_PINNED,
    PGT_SEG_DESC_PAGE,
    PGT_TYPE_MASK,
    PGT_WRITABLE_PAGE,
)
from .page_table_entries import mod_l1_entry, mod_table_entry
from .page_table_types import (
    destroy_ldt,
    get_page_and_type,
    get_page_type,
    put_page,
    put_page_and_type,
    put_page_type,
)
from .vcpu import Vcpu
from .xen_slots import map_ro_mpt

_CMD_MASK: Final = PTE_SIZE - 1
"""Bits of a request's `ptr` that are the command."""
_MMU_UPDATE: Final = Struct("<QQ")
_UNSIGNED_INT: Final = 4


# -- who is meant


def get_pg_owner(vcpu: Vcpu, domid: int) -> int:
    """The domid that a `foreigndom` argument means; -ESRCH if there is no such domain. Xen: get_pg_owner().

    A domain may not name itself by its number.
    """
    domain = vcpu.domain
    if domid == DOMID_SELF:
        return domain.domid
    if domid in {DOMID_IO, DOMID_XEN} or (domid != domain.domid and domain_exists(domain.hv, domid)):
        return domid
    raise HypercallError(Errno.ESRCH)


def check_target(vcpu: Vcpu, domid: int) -> None:
    """-EPERM for a domain other than the caller's own. Xen: XSM_TARGET."""
    if domid != vcpu.domain.domid:
        raise HypercallError(Errno.EPERM)


def read_vcpu_mask(vcpu: Vcpu, at: int) -> int:
    """A bit set of vcpus in guest memory, as long as the domain has vcpus. Xen: vcpumask_to_pcpumask()."""
    words = -(-len(vcpu.domain.vcpus) // 64)
    return int.from_bytes(copy_from_guest(vcpu, at, 8 * words), "little")


# -- mmu_update


@hypercall(Hypercall.MMU_UPDATE)
def do_mmu_update(vcpu: Vcpu, ureqs: int, count: int, pdone: int, uint32: int) -> int | None:
    """HYPERVISOR_mmu_update(reqs, count, done_out, foreigndom): store page table entries, or M2P entries.

    The requests are carried out in order up to the first that fails; `done_out`, unless 0, gets how many were done.
    """
    hv = vcpu.domain.hv
    done = 0
    if count & MMU_UPDATE_PREEMPTED:
        if count == MMU_UPDATE_PREEMPTED and not ureqs:
            return as_int(uint32)
        count &= ~MMU_UPDATE_PREEMPTED
        done = read_done(vcpu, pdone)
    if not address_ok(ureqs):
        raise HypercallError(Errno.EFAULT)
    pt_domid = _pt_owner(vcpu, uint32 >> 16)
    try:
        pg_domid = get_pg_owner(vcpu, uint32 & 0xFFFF)
    except HypercallError:
        write_done(vcpu, pdone, done)
        raise
    apply = _apply_update if pt_domid == vcpu.domain.domid else _refuse_update
    preemptible = count > BATCH and can_continue(vcpu, Hypercall.MMU_UPDATE)
    batch = BATCH if preemptible else count

    buffer = hv.ram.buffer
    observer = hv.observer
    page = -1
    maddr = 0
    at = ureqs
    i = 0
    tables_changed = False
    try:
        for i in range(batch):  # noqa: B007 - where an exception leaves it
            # One walk for each page of requests; a translation that a request itself takes away stays as in a TLB.
            if at >> PAGE_SHIFT == page:
                ptr, value = _MMU_UPDATE.unpack_from(buffer, maddr + (at & PAGE_MASK))
            elif at & PAGE_MASK <= PAGE_SIZE - MmuUpdate.SIZE:
                page = at >> PAGE_SHIFT
                maddr = guest_page(vcpu, at)
                ptr, value = _MMU_UPDATE.unpack_from(buffer, maddr + (at & PAGE_MASK))
            else:
                page = -1
                ptr, value = _MMU_UPDATE.unpack(copy_from_guest(vcpu, at, MmuUpdate.SIZE))
            if apply(vcpu, ptr, value, pg_domid):
                tables_changed = True
            if observer is not None:
                observer.observe(vcpu, MemoryWritten(Maddr(ptr & ~_CMD_MASK), PTE_SIZE))
            at += MmuUpdate.SIZE
        i = batch
    except (HypercallError, GuestFault):
        write_done(vcpu, pdone, done + i)
        raise
    finally:
        if tables_changed:
            hv.cpu.flush_tlb()
    if preemptible:
        write_done(vcpu, pdone, done + i)
        create_continuation(vcpu, at, (count - i) | MMU_UPDATE_PREEMPTED, pdone, uint32)
        return None
    write_done(vcpu, pdone, done + i)
    return 0


def as_int(value: int) -> int:
    """A 32-bit word as C's int."""
    return value - (1 << 32) if value >> 31 else value


def _pt_owner(vcpu: Vcpu, number: int) -> int:
    """Whose page tables are meant: 0 the caller's own, else that of domid `number` - 1."""
    if not number:
        return vcpu.domain.domid
    if not domain_exists(vcpu.domain.hv, number - 1):
        raise HypercallError(Errno.ESRCH)
    return number - 1


def read_done(vcpu: Vcpu, pdone: int) -> int:
    """What earlier pieces of the same call have done."""
    if not pdone:
        return 0
    try:
        return int.from_bytes(copy_from_guest(vcpu, pdone, _UNSIGNED_INT), "little")
    except GuestFault:
        return 0


def write_done(vcpu: Vcpu, pdone: int, done: int) -> None:
    """Tell how many requests were done; a pointer that can't be written is ignored, as in Xen."""
    if pdone:
        with suppress(GuestFault):
            copy_to_guest(vcpu, pdone, (done & 0xFFFF_FFFF).to_bytes(_UNSIGNED_INT, "little"))


def _refuse_update(vcpu: Vcpu, ptr: int, value: int, pg_domid: int) -> bool:
    """A request on another domain's tables."""
    if ptr & _CMD_MASK > MmuUpdateCmd.PT_UPDATE_NO_TRANSLATE:
        raise HypercallError(Errno.ENOSYS)
    raise HypercallError(Errno.EPERM)


def _apply_update(vcpu: Vcpu, ptr: int, value: int, pg_domid: int) -> bool:
    """One request of mmu_update: `ptr` is a machine address with the command in its low bits.

    True if an L2 or higher table has changed: the TLB is then flushed at the end.
    """
    cmd = ptr & _CMD_MASK
    if cmd == MmuUpdateCmd.MACHPHYS_UPDATE:
        _machphys_update(vcpu, ptr >> PAGE_SHIFT, value, pg_domid)
        return False
    if cmd > MmuUpdateCmd.PT_UPDATE_NO_TRANSLATE:
        raise HypercallError(Errno.ENOSYS)
    domain = vcpu.domain
    hv = domain.hv
    domid = domain.domid
    if pg_domid not in {domid, DOMID_IO}:
        raise HypercallError(Errno.EPERM)
    info = hv.page_info
    mfn = ptr >> PAGE_SHIFT
    if mfn >= info.nr_frames or info.owners[mfn] != domid:
        raise HypercallError(Errno.EINVAL)
    type_info = info.types[mfn]
    pgt = type_info & PGT_TYPE_MASK if type_info & PGT_COUNT_MASK else 0
    preserve_ad = cmd == MmuUpdateCmd.PT_UPDATE_PRESERVE_AD
    if pgt == PGT_L1_PAGE_TABLE:
        mod_l1_entry(hv, ptr >> 3, value, pg_domid, preserve_ad=preserve_ad)
    elif pgt == PGT_WRITABLE_PAGE:
        hv.ram.q[ptr >> 3] = value
    elif not pgt:
        get_page_type(hv, mfn, PGT_WRITABLE_PAGE)
        hv.ram.q[ptr >> 3] = value
        put_page_type(hv, mfn)
    elif pgt == PGT_SEG_DESC_PAGE or pg_domid != domid:
        raise HypercallError(Errno.EINVAL)
    else:
        mod_table_entry(hv, ptr >> 3, value, pgt, domid, preserve_ad=preserve_ad)
        return True
    return False


def _machphys_update(vcpu: Vcpu, mfn: int, pfn: int, pg_domid: int) -> None:
    """MMU_MACHPHYS_UPDATE: the guest pairs one of its own frames with a pfn of its choice.

    DOMID_IO passes the check of rights, as for a PTE, and then owns no RAM: -EINVAL.
    """
    if pg_domid != DOMID_IO:
        check_target(vcpu, pg_domid)
    hv = vcpu.domain.hv
    if hv.page_info.owner(mfn) != pg_domid:
        raise HypercallError(Errno.EINVAL)
    hv.m2p.set(Mfn(mfn), pfn)


# -- update_va_mapping


@hypercall(Hypercall.UPDATE_VA_MAPPING)
def do_update_va_mapping(vcpu: Vcpu, va: int, value: int, flags: int) -> int:
    """HYPERVISOR_update_va_mapping(va, val, flags): store the l1e of a virtual address, and flush as UVMF_* says."""
    return _update_va_mapping(vcpu, va, value, flags, vcpu.domain.domid)


@hypercall(Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN)
def do_update_va_mapping_otherdomain(vcpu: Vcpu, va: int, value: int, flags: int, uint32: int) -> int:
    """HYPERVISOR_update_va_mapping_otherdomain(va, val, flags, domid): the same with a frame of another domain.

    -ESRCH for no such domain, -EPERM for any but the caller's own (DOMID_SELF).
    """
    return _update_va_mapping(vcpu, va, value, flags, get_pg_owner(vcpu, uint32 & 0xFFFF))


def _update_va_mapping(vcpu: Vcpu, va: int, value: int, flags: int, pg_domid: int) -> int:
    """Xen: __do_update_va_mapping(). -EINVAL if no L1 table of the domain's holds the address's entry."""
    hv = vcpu.domain.hv
    domid = vcpu.domain.domid
    if pg_domid not in {domid, DOMID_IO}:
        raise HypercallError(Errno.EPERM)
    at = guest_l1e(vcpu, va)
    if at is None:
        raise HypercallError(Errno.EINVAL)
    mfn = at // PTES_PER_TABLE
    if hv.page_info.owner(mfn) != domid or hv.page_info.type_of(mfn) != PGT_L1_PAGE_TABLE:
        raise HypercallError(Errno.EINVAL)
    mod_l1_entry(hv, at, value, pg_domid)
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(Maddr(at * PTE_SIZE), PTE_SIZE))
    _flush_as_asked(vcpu, flags)
    return 0


def _flush_as_asked(vcpu: Vcpu, flags: int) -> None:
    """UVMF_*: flush after an update. -EFAULT for a bad vcpu mask, and the update stays.

    One CPU runs all vcpus and forgets its TLB between two of them: local, some and all are the same.
    """
    kind = flags & Uvmf.FLUSHTYPE_MASK
    if kind not in {Uvmf.TLB_FLUSH, Uvmf.INVLPG}:
        return
    mask = flags & ~Uvmf.FLUSHTYPE_MASK
    if mask not in {Uvmf.LOCAL, Uvmf.ALL}:
        read_vcpu_mask(vcpu, mask)
    vcpu.domain.hv.cpu.flush_tlb()


def guest_l1e(vcpu: Vcpu, va: int) -> int | None:
    """Index in `ram.q` of the l1e of an address in the kernel's address space; None if no L1 covers it.

    Xen: map_guest_l1e().
    """
    if not address_ok(va):
        return None
    words = vcpu.domain.hv.ram.q
    nr_words = len(words)
    at = vcpu.guest_table * PTES_PER_TABLE + (va >> 39 & 511)
    for shift in (30, 21, 12):
        entry = words[at]
        if entry & (PTE_PRESENT | PTE_PSE) != PTE_PRESENT:
            return None
        at = (entry & PTE_ADDR_MASK) // PTE_SIZE + (va >> shift & 511)
        if at >= nr_words:
            return None
    return at


def guest_page(vcpu: Vcpu, va: int) -> Maddr:
    """Where the page of an address in the kernel's address space begins in RAM; raises `GuestFault`.

    What `guest_access.translate` finds for reading, sooner: every entry that Xen has checked allows user mode.
    """
    at = guest_l1e(vcpu, va)
    if at is not None:
        l1e = vcpu.domain.hv.ram.q[at]
        if l1e & PTE_PRESENT:
            return Maddr(l1e & PTE_ADDR_MASK)
    raise GuestFault(Vaddr(va))


# -- base pointers


def new_guest_cr3(vcpu: Vcpu, mfn: Mfn) -> None:
    """Run the kernel on another L4; -EINVAL if the frame can't be one. Xen: new_guest_cr3()."""
    hv = vcpu.domain.hv
    old = vcpu.guest_table
    if mfn != old:
        get_page_and_type(hv, mfn, vcpu.domain.domid, PGT_L4_PAGE_TABLE)
        destroy_ldt(hv, vcpu)
        if not vcpu.domain.vm_assist >> VmasstType.M2P_STRICT & 1:
            map_ro_mpt(hv, mfn, present=True)
        vcpu.guest_table = mfn
        if old != INVALID_MFN:
            put_page_and_type(hv, old)
    if vcpu is hv.current and vcpu.kernel_mode:
        hv.cpu.cr3 = vcpu.cr3


def new_user_baseptr(vcpu: Vcpu, mfn: Mfn) -> None:
    """Run user mode on another L4, none for 0; -EINVAL if the frame can't be one. Xen: MMUEXT_NEW_USER_BASEPTR."""
    domain = vcpu.domain
    old = vcpu.guest_table_user
    if mfn == (old or 0):
        return
    if mfn:
        get_page_and_type(domain.hv, mfn, domain.domid, PGT_L4_PAGE_TABLE)
        if domain.vm_assist >> VmasstType.M2P_STRICT & 1:
            map_ro_mpt(domain.hv, mfn, present=False)
    vcpu.guest_table_user = mfn or None
    if old is not None:
        put_page_and_type(domain.hv, old)
    if vcpu is domain.hv.current and not vcpu.kernel_mode:
        domain.hv.cpu.cr3 = vcpu.cr3


def pin_table(domain: Domain, mfn: int, pgt: int) -> None:
    """Keep a frame a checked table of type `pgt` until it is unpinned; -EINVAL. Xen: MMUEXT_PIN_L1_TABLE etc."""
    hv = domain.hv
    get_page_and_type(hv, mfn, domain.domid, pgt)
    if hv.page_info.types[mfn] & PGT_PINNED:
        put_page_and_type(hv, mfn)
        raise HypercallError(Errno.EINVAL)
    hv.page_info.types[mfn] |= PGT_PINNED


def unpin_table(domain: Domain, mfn: int) -> None:
    """End a pin; -EINVAL if the frame is not pinned, or not the domain's. Xen: MMUEXT_UNPIN_TABLE."""
    hv = domain.hv
    if not hv.page_info.get_page(mfn, domain.domid):
        raise HypercallError(Errno.EINVAL)
    try:
        if not hv.page_info.types[mfn] & PGT_PINNED:
            raise HypercallError(Errno.EINVAL)
        hv.page_info.types[mfn] &= ~PGT_PINNED
        put_page_and_type(hv, mfn)
    finally:
        put_page(hv, mfn)


def adopt_initial_tables(domain: Domain, l4_mfn: Mfn) -> None:
    """Check the tables that a domain builder wrote, pin their L4 and make it vcpu 0's; raises `HypercallError`.

    Xen's toolstack does it with MMUEXT_PIN_L4_TABLE and the cr3 of the vcpu's context.
    """
    pin_table(domain, l4_mfn, PGT_L4_PAGE_TABLE)
    new_guest_cr3(domain.vcpus[0], l4_mfn)
