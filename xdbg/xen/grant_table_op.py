"""grant_table_op: the table itself, and the dispatch of what is done with grants. Xen: common/grant_table.c.

Mapping, copying and transferring take a list of operations, each of which gets a GNTST_* status of its own; the
hypercall's result is an errno only when the list can't be read or written. Long lists go in pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.abi.cstruct import CStruct
from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE
from xdbg.abi.grant_table import (
    GNTTAB_CACHE_CLEAN,
    GNTTAB_CACHE_INVAL,
    Gntst,
    GnttabCacheFlush,
    GnttabCopy,
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
    GrantEntryV1,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF

from .continuation import can_continue, create_continuation
from .domain import Domain
from .event_channel import BACKEND_DOMID
from .events import MemoryWritten
from .faults import GuestFault, HypercallError
from .grant_access import GrantError, write_status
from .grant_copy import gnttab_copy
from .grant_map import gnttab_map_grant_ref, gnttab_unmap_and_replace, gnttab_unmap_grant_ref
from .grant_table import MAX_GRANT_FRAMES
from .grant_transfer import gnttab_transfer
from .guest_access import address_ok, copy_to_guest, read_struct, write_struct
from .heap import OutOfFramesError
from .hypercall import hypercall
from .vcpu import Vcpu

GRANT_BATCH: Final = 512
"""Operations of a list between two continuations."""
_INT_MAX: Final = 0x7FFF_FFFF
_CMD_MASK: Final = 0xFFF
"""The bits above are where a long cache_flush goes on. Xen: GNTTABOP_CMD_MASK."""
_FRAME_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class _List:
    """An operation on a list of structures of one kind."""

    kind: type[CStruct]
    operate: Callable[[Vcpu, int, int], None]
    """Does so many, from an address on."""


@hypercall(Hypercall.GRANT_TABLE_OP)
def do_grant_table_op(vcpu: Vcpu, cmd: int, uop: int, count: int) -> int | None:
    """HYPERVISOR_grant_table_op(cmd, ops, count): map, unmap, copy and transfer grants, and set up the own table.

    Version 2 of the table is refused as by a Xen that limits its domains to version 1 (max_grant_version=1).
    """
    if count > _INT_MAX or (cmd & ~_CMD_MASK and cmd & _CMD_MASK != GnttabOp.CACHE_FLUSH):
        raise HypercallError(Errno.EINVAL)
    single = _SINGLE.get(cmd)
    if single is not None:
        return single(vcpu, uop, count)
    row = _LISTS.get(cmd & _CMD_MASK)
    if row is None:
        raise HypercallError(Errno.ENOSYS)
    if not address_ok(uop):
        raise HypercallError(Errno.EFAULT)
    now = min(count, GRANT_BATCH) if can_continue(vcpu, Hypercall.GRANT_TABLE_OP) else count
    row.operate(vcpu, uop, now)
    if now < count:
        create_continuation(vcpu, cmd & _CMD_MASK, uop + now * row.kind.SIZE, count - now)
        return None
    return 0


# -- the table


def _target(vcpu: Vcpu, domid: int) -> Domain:
    """The domain whose table is meant: the caller's own. GNTST_permission_denied for another, GNTST_bad_domain."""
    if domid in {DOMID_SELF, vcpu.domain.domid}:
        return vcpu.domain
    exists = domid in vcpu.domain.hv.domains or domid == BACKEND_DOMID
    raise GrantError(Gntst.PERMISSION_DENIED if exists else Gntst.BAD_DOMAIN)


def _only_one(count: int) -> None:
    if count != 1:
        raise HypercallError(Errno.EINVAL)


def _setup_table(vcpu: Vcpu, uop: int, count: int) -> int:
    """Grow the table to nr_frames and tell their frame numbers. Xen: gnttab_setup_table()."""
    _only_one(count)
    op = read_struct(vcpu, uop, GnttabSetupTable)
    if not address_ok(op.frame_list):
        raise HypercallError(Errno.EFAULT)
    status = Gntst.OKAY
    try:
        table = _target(vcpu, op.dom).grant_table
        if op.nr_frames > MAX_GRANT_FRAMES:
            raise GrantError(Gntst.GENERAL_ERROR)
        try:
            table.grow(op.nr_frames)
        except OutOfFramesError:
            raise GrantError(Gntst.GENERAL_ERROR) from None
        for index in range(op.nr_frames):
            try:
                at = op.frame_list + index * _FRAME_SIZE
                copy_to_guest(vcpu, at, table.frames[index].to_bytes(_FRAME_SIZE, "little"))
            except GuestFault:
                status = Gntst.BAD_VIRT_ADDR
    except GrantError as error:
        status = error.status
    write_status(vcpu, uop + GnttabSetupTable.offset_of("status"), status)
    return 0


def _query_size(vcpu: Vcpu, uop: int, count: int) -> int:
    """How many frames the table has, and may have. Xen: gnttab_query_size()."""
    _only_one(count)
    op = read_struct(vcpu, uop, GnttabQuerySize)
    try:
        op.nr_frames = len(_target(vcpu, op.dom).grant_table.frames)
        op.max_nr_frames = MAX_GRANT_FRAMES
        op.status = Gntst.OKAY
    except GrantError as error:
        op.status = error.status
    write_struct(vcpu, uop, op)
    return 0


def _set_version(vcpu: Vcpu, uop: int, _count: int) -> int:
    """Version 1 is granted, 2 is -ENOSYS; the one in use is told either way. Xen: gnttab_set_version()."""
    op = read_struct(vcpu, uop, GnttabSetVersion)
    asked = op.version
    op.version = vcpu.domain.grant_table.version
    write_struct(vcpu, uop, op)
    match asked:
        case 1:
            return 0
        case 2:
            raise HypercallError(Errno.ENOSYS)
        case _:
            raise HypercallError(Errno.EINVAL)


def _get_version(vcpu: Vcpu, uop: int, _count: int) -> int:
    """The version in use by a domain. Xen: gnttab_get_version()."""
    op = read_struct(vcpu, uop, GnttabGetVersion)
    try:
        version = _target(vcpu, op.dom).grant_table.version
    except GrantError as error:
        raise HypercallError(Errno.ESRCH if error.status == Gntst.BAD_DOMAIN else Errno.EPERM) from None
    copy_to_guest(vcpu, uop + GnttabGetVersion.offset_of("version"), version.to_bytes(4, "little"))
    return 0


def _get_status_frames(vcpu: Vcpu, uop: int, count: int) -> int:
    """Frames that only version 2 has: none can be told. Xen: gnttab_get_status_frames()."""
    _only_one(count)
    op = read_struct(vcpu, uop, GnttabGetStatusFrames)
    status = Gntst.OKAY
    try:
        _target(vcpu, op.dom)
        if op.nr_frames:
            raise GrantError(Gntst.GENERAL_ERROR)
    except GrantError as error:
        status = error.status
    write_status(vcpu, uop + GnttabGetStatusFrames.offset_of("status"), status)
    return 0


# -- lists of small operations


def _swap_grant_ref(vcpu: Vcpu, uop: int, count: int) -> None:
    """Let entries change places. Xen: gnttab_swap_grant_ref()."""
    for index in range(count):
        at = uop + index * GnttabSwapGrantRef.SIZE
        op = read_struct(vcpu, at, GnttabSwapGrantRef)
        write_status(vcpu, at + GnttabSwapGrantRef.offset_of("status"), _swap(vcpu, op.ref_a, op.ref_b))


def _swap(vcpu: Vcpu, ref_a: int, ref_b: int) -> Gntst:
    table = vcpu.domain.grant_table
    if max(ref_a, ref_b) >= table.nr_entries:
        return Gntst.BAD_GNTREF
    if ref_a == ref_b:
        return Gntst.OKAY
    if ref_a in table.active or ref_b in table.active:
        return Gntst.EAGAIN
    hv = vcpu.domain.hv
    places = table.entry_maddr(ref_a), table.entry_maddr(ref_b)
    entries = [hv.ram.read(maddr, GrantEntryV1.SIZE) for maddr in places]
    for maddr, entry in zip(places, reversed(entries), strict=True):
        hv.ram.write(maddr, entry)
        if hv.observer is not None:
            hv.observer.observe(vcpu, MemoryWritten(maddr, GrantEntryV1.SIZE))
    return Gntst.OKAY


def _cache_flush(vcpu: Vcpu, uop: int, count: int) -> None:
    """Clean caches: there is nothing to do but the checks, since memory and caches agree. Xen: gnttab_cache_flush()."""
    for index in range(count):
        _check_flush(vcpu.domain, read_struct(vcpu, uop + index * GnttabCacheFlush.SIZE, GnttabCacheFlush))


def _check_flush(domain: Domain, op: GnttabCacheFlush) -> None:
    """Xen: cache_flush(). x86 has no way to invalidate without writing back: -EOPNOTSUPP."""
    if op.offset >= PAGE_SIZE or op.offset + op.length > PAGE_SIZE or op.op & ~_CACHE_OPS:
        raise HypercallError(Errno.EINVAL)
    if not op.length or not op.op:
        return
    hv = domain.hv
    mfn = op.a.dev_bus_addr >> PAGE_SHIFT
    if mfn >= hv.page_info.nr_frames:
        raise HypercallError(Errno.EINVAL)
    owner = hv.domains.get(hv.page_info.owners[mfn])
    if owner is None:
        raise HypercallError(Errno.EPERM)
    if owner is not domain and not any(
        entry.domid == domain.domid and entry.mfn == mfn for entry in owner.grant_table.active.values()
    ):
        raise HypercallError(Errno.EINVAL)
    if not op.op & GNTTAB_CACHE_CLEAN:
        raise HypercallError(Errno.EOPNOTSUPP)


_CACHE_OPS: Final = GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL

_LISTS: Final[dict[int, _List]] = {
    GnttabOp.MAP_GRANT_REF: _List(GnttabMapGrantRef, gnttab_map_grant_ref),
    GnttabOp.UNMAP_GRANT_REF: _List(GnttabUnmapGrantRef, gnttab_unmap_grant_ref),
    GnttabOp.UNMAP_AND_REPLACE: _List(GnttabUnmapAndReplace, gnttab_unmap_and_replace),
    GnttabOp.COPY: _List(GnttabCopy, gnttab_copy),
    GnttabOp.TRANSFER: _List(GnttabTransfer, gnttab_transfer),
    GnttabOp.SWAP_GRANT_REF: _List(GnttabSwapGrantRef, _swap_grant_ref),
    GnttabOp.CACHE_FLUSH: _List(GnttabCacheFlush, _cache_flush),
}
"""Operations on a list."""

_SINGLE: Final[dict[int, Callable[[Vcpu, int, int], int]]] = {
    GnttabOp.SETUP_TABLE: _setup_table,
    GnttabOp.QUERY_SIZE: _query_size,
    GnttabOp.SET_VERSION: _set_version,
    GnttabOp.GET_VERSION: _get_version,
    GnttabOp.GET_STATUS_FRAMES: _get_status_frames,
}
"""Operations on one structure. Any other command, dump_table too, is -ENOSYS."""
