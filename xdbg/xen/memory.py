"""Memory of a domain: memory_op. Xen: common/memory.c, arch/x86/mm.c.

A domain may give frames back (decrease_reservation), take some up to its maximum (increase_reservation,
populate_physmap) and swap frames (exchange). A frame that is given back stays the domain's, and unusable for anybody,
while a PTE still maps it or it is a table in use. The first three return the number of extents that were done and never
an errno: a guest compares it with what it asked for.
"""

from collections.abc import Callable
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import (
    MEMOP_EXTENT_SHIFT,
    XENMEMF_POPULATE_ON_DEMAND,
    XenAddToPhysmap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMapSpace,
    XenMem,
    XenMemoryDomain,
    XenMemoryExchange,
    XenMemoryReservation,
)
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.shared_info import ArchSharedInfo, SharedInfo
from xdbg.abi.x86 import MACH2PHYS_NR_ENTRIES, MACH2PHYS_VIRT_END, MACH2PHYS_VIRT_START

from .continuation import BATCH, can_continue, create_continuation
from .domain import Domain
from .faults import GuestFault, HypercallError
from .grant_transfer import can_steal
from .guest_access import address_ok, copy_from_guest, copy_to_guest, read_struct, write_struct
from .heap import OutOfFramesError
from .hypercall import hypercall
from .page_info import PGC_ALLOCATED, PGC_XEN_HEAP, PGT_PINNED
from .page_table_types import put_page, put_page_and_type
from .vcpu import Vcpu

DOMU_MAX_ORDER: Final = 9
"""The largest extent that a domU may name. Xen: CONFIG_DOMU_MAX_ORDER."""
_EXTENT_SIZE: Final = 8
_MAX_EXTENTS: Final = 0xFFFF_FFFF >> MEMOP_EXTENT_SHIFT
_ADDRESS_BITS: Final = 0xFF
_PAGE_BITS: Final = 12
_U64: Final = (1 << 64) - 1
_M2P_EXTENT: Final = 512
"""Frames of the M2P that one extent of machphys_mfn_list stands for: 2 MiB."""

Extents = Callable[[Vcpu, XenMemoryReservation, int], bool]
"""Does one extent; False: it, and so the call, can go no further."""


@hypercall(Hypercall.MEMORY_OP)
def do_memory_op(vcpu: Vcpu, cmd: int, arg: int) -> int | None:
    """HYPERVISOR_memory_op(cmd, arg). The bits of `cmd` above the command are the extent to continue at."""
    op = cmd & (1 << MEMOP_EXTENT_SHIFT) - 1
    start = cmd >> MEMOP_EXTENT_SHIFT
    extents = _EXTENT_OPERATIONS.get(op)
    if extents is not None:
        return _reservation(vcpu, op, extents, start, arg)
    operation = _OPERATIONS.get(op)
    if operation is None:
        raise HypercallError(_REFUSED.get(op, Errno.ENOSYS))
    if start:
        raise HypercallError(Errno.EDOM if op == XenMem.ADD_TO_PHYSMAP else Errno.EINVAL)
    return operation(vcpu, arg)


def _is_self(vcpu: Vcpu, domid: int) -> bool:
    return domid in {DOMID_SELF, vcpu.domain.domid}


def _check_self(vcpu: Vcpu, domid: int) -> Domain:
    """The caller's domain; -ESRCH for a domain that does not exist, -EPERM for another one."""
    if not _is_self(vcpu, domid):
        raise HypercallError(Errno.EPERM if domid in vcpu.domain.hv.domains else Errno.ESRCH)
    return vcpu.domain


# -- extents: increase_reservation, decrease_reservation, populate_physmap


def _reservation(vcpu: Vcpu, op: int, one_extent: Extents, start: int, arg: int) -> int | None:
    """How many extents were done, those of earlier pieces of the call included."""
    try:
        reservation = read_struct(vcpu, arg, XenMemoryReservation)
    except GuestFault:
        return start
    address_bits = reservation.mem_flags & _ADDRESS_BITS
    if (
        not start < reservation.nr_extents <= _MAX_EXTENTS
        or not _is_self(vcpu, reservation.domid)
        or 0 < address_bits <= _PAGE_BITS
        or reservation.extent_order > DOMU_MAX_ORDER
        or not address_ok(reservation.extent_start)
        or (op == XenMem.POPULATE_PHYSMAP and reservation.mem_flags & XENMEMF_POPULATE_ON_DEMAND)
    ):
        return start
    end = reservation.nr_extents
    preemptible = end - start > BATCH and can_continue(vcpu, Hypercall.MEMORY_OP)
    stop = start + BATCH if preemptible else end
    for done in range(start, stop):
        try:
            if not one_extent(vcpu, reservation, done):
                return done
        except (GuestFault, HypercallError, OutOfFramesError):
            return done
    if preemptible:
        create_continuation(vcpu, op | stop << MEMOP_EXTENT_SHIFT, arg)
        return None
    return stop


def _extent_at(reservation: XenMemoryReservation, index: int) -> int:
    return int(reservation.extent_start + index * _EXTENT_SIZE) & _U64


def _read_extent(vcpu: Vcpu, at: int) -> int:
    return int.from_bytes(copy_from_guest(vcpu, at, _EXTENT_SIZE), "little")


def _write_extent(vcpu: Vcpu, at: int, frame: int) -> None:
    copy_to_guest(vcpu, at, frame.to_bytes(_EXTENT_SIZE, "little"))


def _increase(vcpu: Vcpu, reservation: XenMemoryReservation, index: int) -> bool:
    """Xen: increase_reservation()."""
    mfn = _alloc_domheap_pages(vcpu.domain, reservation.extent_order)
    if mfn is None:
        return False
    if reservation.extent_start:
        _write_extent(vcpu, _extent_at(reservation, index), mfn)
    return True


def _populate(vcpu: Vcpu, reservation: XenMemoryReservation, index: int) -> bool:
    """The extent names a pfn, and gets the frame that is there now. Xen: populate_physmap()."""
    at = _extent_at(reservation, index)
    pfn = _read_extent(vcpu, at)
    mfn = _alloc_domheap_pages(vcpu.domain, reservation.extent_order)
    if mfn is None:
        return False
    _set_pfns(vcpu.domain, mfn, pfn, reservation.extent_order)
    _write_extent(vcpu, at, mfn)
    return True


def _decrease(vcpu: Vcpu, reservation: XenMemoryReservation, index: int) -> bool:
    """Xen: decrease_reservation()."""
    first = _read_extent(vcpu, _extent_at(reservation, index))
    for mfn in range(first, first + (1 << reservation.extent_order)):
        _guest_remove_page(vcpu.domain, mfn)
    return True


def _alloc_domheap_pages(domain: Domain, order: int) -> Mfn | None:
    """An extent for a domain; None if it has its maximum or the machine has no more."""
    nr = 1 << order
    if domain.nr_pages + nr > domain.max_pages:
        return None
    mfn = domain.hv.heap.alloc(domain.domid, nr)
    domain.nr_pages += nr
    return mfn


def _set_pfns(domain: Domain, mfn: Mfn, pfn: int, order: int) -> None:
    for i in range(1 << order):
        domain.hv.m2p.set(Mfn(mfn + i), pfn + i & _U64)


def _guest_remove_page(domain: Domain, mfn: int) -> None:
    """Give a frame back: a pin goes, and the owner's reference. -EINVAL, -ENXIO. Xen: guest_remove_page()."""
    hv = domain.hv
    info = hv.page_info
    if mfn >= info.nr_frames:
        raise HypercallError(Errno.EINVAL)
    if info.flags[mfn] & PGC_XEN_HEAP or not info.get_page(mfn, domain.domid):
        raise HypercallError(Errno.ENXIO)
    if info.types[mfn] & PGT_PINNED:
        info.types[mfn] &= ~PGT_PINNED
        put_page_and_type(hv, mfn)
    if info.flags[mfn] & PGC_ALLOCATED:
        info.flags[mfn] &= ~PGC_ALLOCATED
        put_page(hv, mfn)
    put_page(hv, mfn)


_EXTENT_OPERATIONS: Final[dict[int, Extents]] = {
    XenMem.INCREASE_RESERVATION: _increase,
    XenMem.DECREASE_RESERVATION: _decrease,
    XenMem.POPULATE_PHYSMAP: _populate,
}


# -- exchange


def _exchange(vcpu: Vcpu, arg: int) -> int | None:
    """Swap extents of one size for as much memory in extents of another. Xen: memory_exchange().

    It goes chunk by chunk, a chunk being one extent of the larger order. `nr_exchanged` tells how many `in` extents are
    done, whether or not there is an errno.
    """
    exchange = read_struct(vcpu, arg, XenMemoryExchange)
    before = exchange.nr_exchanged
    try:
        _check_exchange(vcpu, exchange)
        pages_done = 0
        order = max(exchange.in_.extent_order, exchange.out.extent_order)
        in_per_chunk = 1 << order - exchange.in_.extent_order
        chunk = before // in_per_chunk
        while chunk < exchange.in_.nr_extents // in_per_chunk:
            if pages_done >= BATCH and can_continue(vcpu, Hypercall.MEMORY_OP):
                create_continuation(vcpu, int(XenMem.EXCHANGE), arg)
                return None
            _exchange_chunk(vcpu, exchange, chunk, order)
            chunk += 1
            pages_done += 1 << order
            exchange.nr_exchanged = chunk * in_per_chunk
        exchange.nr_exchanged = exchange.in_.nr_extents
    finally:
        _tell_exchanged(vcpu, arg, exchange)
    return 0


def _tell_exchanged(vcpu: Vcpu, arg: int, exchange: XenMemoryExchange) -> None:
    copy_to_guest(vcpu, arg + XenMemoryExchange.offset_of("nr_exchanged"), exchange.nr_exchanged.to_bytes(8, "little"))


def _check_exchange(vcpu: Vcpu, exchange: XenMemoryExchange) -> None:
    """Raise what is wrong with the request as a whole."""
    given, wanted = exchange.in_, exchange.out
    if max(given.extent_order, wanted.extent_order) > DOMU_MAX_ORDER:
        raise HypercallError(Errno.EPERM)
    if (
        exchange.nr_exchanged > given.nr_extents
        or given.domid != wanted.domid
        or _U64 >> given.extent_order < given.nr_extents
        or _U64 >> wanted.extent_order < wanted.nr_extents
        or given.nr_extents << given.extent_order != wanted.nr_extents << wanted.extent_order
    ):
        raise HypercallError(Errno.EINVAL)
    if not address_ok(given.extent_start) or not address_ok(wanted.extent_start):
        raise HypercallError(Errno.EFAULT)
    _check_self(vcpu, given.domid)


def _exchange_chunk(vcpu: Vcpu, exchange: XenMemoryExchange, chunk: int, order: int) -> None:
    """Swap 1 << `order` pages. Until the new frames are there, nothing has changed."""
    domain = vcpu.domain
    hv = domain.hv
    given, wanted = exchange.in_, exchange.out
    nr_given = 1 << order - given.extent_order
    nr_wanted = 1 << order - wanted.extent_order
    old: list[int] = []
    for index in range(chunk * nr_given, (chunk + 1) * nr_given):
        first = _read_extent(vcpu, _extent_at(given, index))
        old.extend(range(first, first + (1 << given.extent_order)))
    if len(set(old)) != len(old) or not all(can_steal(domain, mfn) for mfn in old):
        raise HypercallError(Errno.EINVAL)
    new: list[Mfn] = []
    try:
        for _ in range(nr_wanted):
            new.append(hv.heap.alloc(domain.domid, 1 << wanted.extent_order))
    except OutOfFramesError:
        for first_new in new:
            for frame in range(first_new, first_new + (1 << wanted.extent_order)):
                hv.page_info.refs[frame] = 0
                hv.heap.free(Mfn(frame))
        raise HypercallError(Errno.ENOMEM) from None
    domain.nr_pages += 1 << order
    for mfn in old:
        hv.page_info.flags[mfn] &= ~PGC_ALLOCATED
        put_page(hv, mfn)
    fault = False
    for index, first_new in enumerate(new, chunk * nr_wanted):
        at = _extent_at(wanted, index)
        try:
            _set_pfns(domain, first_new, _read_extent(vcpu, at), wanted.extent_order)
            _write_extent(vcpu, at, first_new)
        except GuestFault:
            fault = True
    if fault:
        raise HypercallError(Errno.EFAULT)


# -- the rest


def _maximum_ram_page(vcpu: Vcpu, _arg: int) -> int:
    """The highest mfn of the machine."""
    return vcpu.domain.hv.page_info.nr_frames - 1


def _current_reservation(vcpu: Vcpu, arg: int) -> int:
    return _check_self(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid).nr_pages


def _maximum_reservation(vcpu: Vcpu, arg: int) -> int:
    return _check_self(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid).max_pages


def _maximum_gpfn(vcpu: Vcpu, arg: int) -> int:
    """What the guest itself wrote into shared_info, as the number of its last pfn."""
    domain = _check_self(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid)
    at = domain.shared_info_maddr + SharedInfo.offset_of("arch") + ArchSharedInfo.offset_of("max_pfn")
    return max(domain.hv.ram.read_u64(at), 1) - 1


def _machphys_mfn_list(vcpu: Vcpu, arg: int) -> int:
    """The frames of the M2P, the first one of every 2 MiB."""
    request = read_struct(vcpu, arg, XenMachphysMfnList)
    frames = vcpu.domain.hv.m2p.table_frames[::_M2P_EXTENT][: request.max_extents]
    copy_to_guest(vcpu, request.extent_start, b"".join(mfn.to_bytes(8, "little") for mfn in frames))
    request.nr_extents = len(frames)
    write_struct(vcpu, arg, request)
    return 0


def _machphys_mapping(vcpu: Vcpu, arg: int) -> int:
    """Where the M2P is, and the highest mfn that it could have room for."""
    write_struct(vcpu, arg, XenMachphysMapping(MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_END, MACH2PHYS_NR_ENTRIES - 1))
    return 0


def _add_to_physmap(vcpu: Vcpu, arg: int) -> int:
    """Only domains whose p2m is Xen's have one to add to."""
    request = read_struct(vcpu, arg, XenAddToPhysmap)
    if request.space == XenMapSpace.GMFN_FOREIGN:
        raise HypercallError(Errno.ENOSYS)
    _check_self(vcpu, request.domid)
    raise HypercallError(Errno.EACCES)


_OPERATIONS: Final[dict[int, Callable[[Vcpu, int], int | None]]] = {
    XenMem.EXCHANGE: _exchange,
    XenMem.MAXIMUM_RAM_PAGE: _maximum_ram_page,
    XenMem.CURRENT_RESERVATION: _current_reservation,
    XenMem.MAXIMUM_RESERVATION: _maximum_reservation,
    XenMem.MAXIMUM_GPFN: _maximum_gpfn,
    XenMem.MACHPHYS_MFN_LIST: _machphys_mfn_list,
    XenMem.MACHPHYS_MAPPING: _machphys_mapping,
    XenMem.ADD_TO_PHYSMAP: _add_to_physmap,
}
"""The commands without extents."""

_REFUSED: Final[dict[int, Errno]] = {
    XenMem.ADD_TO_PHYSMAP_BATCH: Errno.EACCES,
    XenMem.REMOVE_FROM_PHYSMAP: Errno.EACCES,
    XenMem.MEMORY_MAP: Errno.ENOSYS,  # the toolstack gives a PV domU no E820 unless it is asked to
    XenMem.MACHINE_MEMORY_MAP: Errno.EPERM,
    XenMem.SET_MEMORY_MAP: Errno.EPERM,
    XenMem.SET_POD_TARGET: Errno.EINVAL,
    XenMem.GET_POD_TARGET: Errno.EINVAL,
    XenMem.CLAIM_PAGES: Errno.EPERM,
    XenMem.GET_VNUMAINFO: Errno.EOPNOTSUPP,
    XenMem.ACQUIRE_RESOURCE: Errno.EPERM,
}
"""What a PV domU never gets, and why; for any other command it is -ENOSYS."""
