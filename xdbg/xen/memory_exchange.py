"""Frames swapped for others: XENMEM_exchange. Xen: memory_exchange(), common/memory.c; steal_page(), arch/x86/mm.c.

Extents of one size go for as much memory in extents of another. It goes chunk by chunk, a chunk being one extent of the
larger order: until its new frames are there, nothing of a chunk has changed. `nr_exchanged` tells how many `in` extents
are done, whether or not there is an errno. Only frames that nothing but their owner refers to can be swapped.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import XenMem, XenMemoryExchange

from .continuation import BATCH, can_continue, create_continuation
from .domain import Domain
from .faults import GuestFault, HypercallError
from .grant_transfer import can_steal
from .guest_access import copy_to_guest, read_struct
from .heap import OutOfFramesError
from .memory_extents import (
    DOMU_MAX_ORDER,
    address_bits,
    alloc_extent,
    extent_at,
    list_ok,
    node_ok,
    own_domain,
    read_extent,
    set_pfns,
    write_extent,
)
from .page_info import PGC_ALLOCATED
from .page_table_types import put_page
from .vcpu import Vcpu

_U64: Final = (1 << 64) - 1
_NR_EXCHANGED: Final = XenMemoryExchange.offset_of("nr_exchanged")


def exchange(vcpu: Vcpu, arg: int) -> int | None:
    """Carry a whole request out; -errno with what was done before. None: to be continued."""
    request = read_struct(vcpu, arg, XenMemoryExchange)
    given, wanted = request.in_, request.out
    try:
        if max(given.extent_order, wanted.extent_order) > DOMU_MAX_ORDER:
            raise HypercallError(Errno.EPERM)
        _check_sizes(request)
        if request.nr_exchanged == given.nr_extents:
            return 0
        order = max(given.extent_order, wanted.extent_order)
        in_per_chunk = 1 << order - given.extent_order
        chunk = request.nr_exchanged // in_per_chunk
        _check_lists(vcpu, request, chunk << order - wanted.extent_order)
        pages_done = 0
        while chunk < given.nr_extents // in_per_chunk:
            if pages_done >= BATCH and can_continue(vcpu, Hypercall.MEMORY_OP):
                _tell_exchanged(vcpu, arg, request.nr_exchanged)
                create_continuation(vcpu, int(XenMem.EXCHANGE), arg)
                return None
            request.nr_exchanged = chunk * in_per_chunk
            _exchange_chunk(vcpu, request, chunk, order)
            chunk += 1
            pages_done += 1 << order
            request.nr_exchanged = chunk * in_per_chunk
    except (HypercallError, GuestFault):
        _tell_exchanged(vcpu, arg, request.nr_exchanged)
        raise
    _tell_exchanged(vcpu, arg, given.nr_extents)
    return 0


def _tell_exchanged(vcpu: Vcpu, arg: int, nr: int) -> None:
    copy_to_guest(vcpu, arg + _NR_EXCHANGED, nr.to_bytes(8, "little"))


def _check_sizes(request: XenMemoryExchange) -> None:
    """-EINVAL unless both sides are the same amount of the same domain's memory."""
    given, wanted = request.in_, request.out
    if (
        request.nr_exchanged > given.nr_extents
        or given.domid != wanted.domid
        or _U64 >> given.extent_order < given.nr_extents
        or _U64 >> wanted.extent_order < wanted.nr_extents
        or given.nr_extents << given.extent_order != wanted.nr_extents << wanted.extent_order
    ):
        raise HypercallError(Errno.EINVAL)


def _check_lists(vcpu: Vcpu, request: XenMemoryExchange, first_wanted: int) -> None:
    """-EFAULT for lists that are not the guest's, -EINVAL for a NUMA node, -ESRCH and -EPERM for a domain."""
    given, wanted = request.in_, request.out
    if not list_ok(given.extent_start, request.nr_exchanged) or not list_ok(wanted.extent_start, first_wanted):
        raise HypercallError(Errno.EFAULT)
    if not node_ok(wanted.mem_flags):
        raise HypercallError(Errno.EINVAL)
    own_domain(vcpu, given.domid)


def _exchange_chunk(vcpu: Vcpu, request: XenMemoryExchange, chunk: int, order: int) -> None:
    """Swap 1 << `order` pages."""
    domain = vcpu.domain
    hv = domain.hv
    given, wanted = request.in_, request.out
    nr_given = 1 << order - given.extent_order
    nr_wanted = 1 << order - wanted.extent_order
    old: list[int] = []
    for index in range(chunk * nr_given, (chunk + 1) * nr_given):
        first = read_extent(vcpu, extent_at(given.extent_start, index))
        frames = range(first, first + (1 << given.extent_order))
        if not all(can_steal(domain, mfn) for mfn in frames):
            raise HypercallError(Errno.EINVAL)
        old.extend(frames)
    if len(set(old)) != len(old):
        raise HypercallError(Errno.EINVAL)
    new = _alloc_chunk(domain, nr_wanted, wanted.extent_order, address_bits(wanted.mem_flags))
    domain.nr_pages += 1 << order
    for mfn in old:
        hv.page_info.flags[mfn] &= ~PGC_ALLOCATED
        put_page(hv, mfn)
    fault = False
    for index, first_new in enumerate(new, chunk * nr_wanted):
        at = extent_at(wanted.extent_start, index)
        try:
            set_pfns(domain, first_new, read_extent(vcpu, at), wanted.extent_order)
            write_extent(vcpu, at, first_new)
        except GuestFault:
            fault = True
    if fault:
        raise HypercallError(Errno.EFAULT)


def _alloc_chunk(domain: Domain, nr: int, order: int, bits: int) -> list[Mfn]:
    """`nr` extents, all or none; -ENOMEM."""
    new: list[Mfn] = []
    try:
        for _ in range(nr):
            new.append(alloc_extent(domain, order, bits))
    except OutOfFramesError:
        for first in new:
            for frame in range(first, first + (1 << order)):
                domain.hv.page_info.refs[frame] = 0
                domain.hv.heap.free(Mfn(frame))
        raise HypercallError(Errno.ENOMEM) from None
    return new
