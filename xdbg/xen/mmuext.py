"""Pinning, base pointers, TLB, LDT and whole pages: mmuext_op. Xen: do_mmuext_op(), arch/x86/mm.c."""

from collections.abc import Callable
from struct import Struct
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Maddr, Mfn, Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MMU_UPDATE_PREEMPTED, MmuextOp

from .continuation import BATCH, can_continue, create_continuation
from .descriptor_tables import load_ldt
from .events import MemoryWritten
from .faults import GuestFault, HypercallError
from .guest_access import address_ok, copy_from_guest
from .hypercall import hypercall
from .mm import (
    as_int,
    check_target,
    get_pg_owner,
    guest_page,
    new_guest_cr3,
    new_user_baseptr,
    pin_table,
    read_done,
    read_vcpu_mask,
    unpin_table,
    write_done,
)
from .page_info import (
    PGT_L1_PAGE_TABLE,
    PGT_L2_PAGE_TABLE,
    PGT_L3_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_WRITABLE_PAGE,
)
from .page_table_types import destroy_ldt, get_page_and_type, put_page_and_type
from .vcpu import Vcpu

_MAX_LDT_ENTRIES: Final = 8192
_ZERO_PAGE: Final = bytes(PAGE_SIZE)

_MMUEXT_OP: Final = Struct("<I4xQQ")
"""struct mmuext_op: cmd, arg1, arg2. Unpacked by hand, since context switches are made of it."""

Operation = Callable[[Vcpu, int, int], None]
"""Carries out a command with arg1 and arg2 of struct mmuext_op."""


@hypercall(Hypercall.MMUEXT_OP)
def do_mmuext_op(vcpu: Vcpu, uops: int, count: int, pdone: int, uint32: int) -> int | None:
    """HYPERVISOR_mmuext_op(ops, count, done_out, foreigndom): operations in order, up to the first that fails.

    `done_out`, unless 0, gets how many were done. Only the caller's own domain is possible: another is -EPERM, or
    -ESRCH if there is no such domain. -ENOSYS for an unknown command.
    """
    done = 0
    if count & MMU_UPDATE_PREEMPTED:
        if count == MMU_UPDATE_PREEMPTED and not uops:
            return as_int(uint32)
        count &= ~MMU_UPDATE_PREEMPTED
        done = read_done(vcpu, pdone)
    if not address_ok(uops):
        raise HypercallError(Errno.EFAULT)
    check_target(vcpu, get_pg_owner(vcpu, uint32 & 0xFFFF))
    preemptible = count > BATCH and can_continue(vcpu, Hypercall.MMUEXT_OP)
    batch = BATCH if preemptible else count
    buffer = vcpu.domain.hv.ram.buffer
    i = 0
    try:
        while i < batch:
            at = uops + i * _MMUEXT_OP.size
            if at & PAGE_MASK <= PAGE_SIZE - _MMUEXT_OP.size:
                cmd, arg1, arg2 = _MMUEXT_OP.unpack_from(buffer, guest_page(vcpu, at) + (at & PAGE_MASK))
            else:
                cmd, arg1, arg2 = _MMUEXT_OP.unpack(copy_from_guest(vcpu, at, _MMUEXT_OP.size))
            operation = _OPERATIONS.get(cmd)
            if operation is None:
                raise HypercallError(Errno.ENOSYS)
            operation(vcpu, arg1, arg2)
            i += 1
    except (HypercallError, GuestFault):
        write_done(vcpu, pdone, done + i)
        raise
    write_done(vcpu, pdone, done + i)
    if preemptible:
        left = (count - i) | MMU_UPDATE_PREEMPTED
        create_continuation(vcpu, uops + i * _MMUEXT_OP.size, left, pdone, uint32)
        return None
    return 0


def _pin_l1(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    pin_table(vcpu.domain, mfn, PGT_L1_PAGE_TABLE)


def _pin_l2(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    pin_table(vcpu.domain, mfn, PGT_L2_PAGE_TABLE)


def _pin_l3(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    pin_table(vcpu.domain, mfn, PGT_L3_PAGE_TABLE)


def _pin_l4(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    pin_table(vcpu.domain, mfn, PGT_L4_PAGE_TABLE)


def _unpin(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    unpin_table(vcpu.domain, mfn)


def _new_baseptr(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    new_guest_cr3(vcpu, Mfn(mfn))


def _new_user_baseptr(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    new_user_baseptr(vcpu, Mfn(mfn))


def _flush(vcpu: Vcpu, _arg1: int, _arg2: int) -> None:
    """All or one page, here or on all vcpus: one CPU runs them all, and its TLB is flushed as a whole."""
    vcpu.domain.hv.cpu.flush_tlb()


def _flush_multi(vcpu: Vcpu, _arg1: int, vcpumask: int) -> None:
    try:
        read_vcpu_mask(vcpu, vcpumask)
    except GuestFault:
        raise HypercallError(Errno.EINVAL) from None
    vcpu.domain.hv.cpu.flush_tlb()


def _flush_cache(_vcpu: Vcpu, _arg1: int, _arg2: int) -> None:
    """Only a domain with devices may. Xen: cache_flush_permitted()."""
    raise HypercallError(Errno.EACCES)


def _set_ldt(vcpu: Vcpu, linear_addr: int, nr_ents: int) -> None:
    """The LDT's pages are mapped when a selector first needs them (`descriptor_tables.map_ldt_shadow_page`)."""
    entries = nr_ents & 0xFFFF_FFFF
    base = linear_addr if entries else 0
    if base & PAGE_MASK or not address_ok(base) or entries > _MAX_LDT_ENTRIES:
        raise HypercallError(Errno.EINVAL)
    if (entries, base) != (vcpu.ldt_entries, vcpu.ldt_base):
        destroy_ldt(vcpu.domain.hv, vcpu)
        vcpu.ldt_base = Vaddr(base)
        vcpu.ldt_entries = entries
        load_ldt(vcpu)


def _clear_page(vcpu: Vcpu, mfn: int, _arg2: int) -> None:
    _write_page(vcpu, mfn, _ZERO_PAGE)


def _copy_page(vcpu: Vcpu, mfn: int, src_mfn: int) -> None:
    hv = vcpu.domain.hv
    if hv.page_info.owner(src_mfn) != vcpu.domain.domid:
        raise HypercallError(Errno.EINVAL)
    _write_page(vcpu, mfn, bytes(hv.ram.page(Mfn(src_mfn))))


def _write_page(vcpu: Vcpu, mfn: int, data: bytes) -> None:
    """Fill a frame that is, or can be, a writable page of the domain; -EINVAL."""
    hv = vcpu.domain.hv
    get_page_and_type(hv, mfn, vcpu.domain.domid, PGT_WRITABLE_PAGE)
    hv.ram.buffer[mfn << PAGE_SHIFT : (mfn + 1) << PAGE_SHIFT] = data
    put_page_and_type(hv, mfn)
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(Maddr(mfn << PAGE_SHIFT), PAGE_SIZE))


def _mark_super(_vcpu: Vcpu, _arg1: int, _arg2: int) -> None:
    """Superpages of PV guests are gone from Xen."""
    raise HypercallError(Errno.EOPNOTSUPP)


_OPERATIONS: Final[dict[int, Operation]] = {
    MmuextOp.PIN_L1_TABLE: _pin_l1,
    MmuextOp.PIN_L2_TABLE: _pin_l2,
    MmuextOp.PIN_L3_TABLE: _pin_l3,
    MmuextOp.PIN_L4_TABLE: _pin_l4,
    MmuextOp.UNPIN_TABLE: _unpin,
    MmuextOp.NEW_BASEPTR: _new_baseptr,
    MmuextOp.NEW_USER_BASEPTR: _new_user_baseptr,
    MmuextOp.TLB_FLUSH_LOCAL: _flush,
    MmuextOp.INVLPG_LOCAL: _flush,
    MmuextOp.TLB_FLUSH_MULTI: _flush_multi,
    MmuextOp.INVLPG_MULTI: _flush_multi,
    MmuextOp.TLB_FLUSH_ALL: _flush,
    MmuextOp.INVLPG_ALL: _flush,
    MmuextOp.FLUSH_CACHE: _flush_cache,
    MmuextOp.FLUSH_CACHE_GLOBAL: _flush_cache,
    MmuextOp.SET_LDT: _set_ldt,
    MmuextOp.CLEAR_PAGE: _clear_page,
    MmuextOp.COPY_PAGE: _copy_page,
    MmuextOp.MARK_SUPER: _mark_super,
    MmuextOp.UNMARK_SUPER: _mark_super,
}
"""Each command and its function."""
