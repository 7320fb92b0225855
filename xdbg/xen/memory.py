"""Memory of a domain: memory_op, and its operations on lists of extents. Xen: common/memory.c, do_memory_op().

A domain may give frames back (decrease_reservation), take some up to its maximum (increase_reservation,
populate_physmap) and swap frames (exchange, see `memory_exchange`). A frame that is given back stays the domain's, and
unusable for anybody, while a PTE still maps it or it is a table in use. The first three return the number of extents
that were done and never an errno: a guest compares it with what it asked for. All other commands are in
`memory_queries`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import (
    MEMOP_CMD_MASK,
    MEMOP_EXTENT_SHIFT,
    XENMEMF_POPULATE_ON_DEMAND,
    XenMem,
    XenMemoryReservation,
)

from .continuation import BATCH, can_continue, create_continuation
from .faults import GuestFault, HypercallError
from .guest_access import read_struct
from .hypercall import hypercall
from .memory_exchange import exchange
from .memory_extents import (
    DOMU_MAX_ORDER,
    address_bits,
    alloc_domheap_pages,
    any_domain,
    extent_at,
    guest_remove_page,
    list_ok,
    node_ok,
    read_extent,
    set_pfns,
    write_extent,
)
from .memory_queries import QUERIES
from .vcpu import Vcpu

_MAX_EXTENTS: Final = 0xFFFF_FFFF >> MEMOP_EXTENT_SHIFT


@dataclass(frozen=True, slots=True)
class Request:
    """A checked reservation: `nr` extents of 2**`order` frames in the list at `start`; Xen: struct memop_args."""

    start: int
    nr: int
    order: int
    bits: int
    populate_on_demand: bool


Extents = Callable[[Vcpu, Request, int], bool]
"""Does one extent; False: it, and so the call, can go no further."""


@hypercall(Hypercall.MEMORY_OP)
def do_memory_op(vcpu: Vcpu, command: int, arg: int) -> int | None:
    """HYPERVISOR_memory_op(cmd, arg). The bits of `cmd` above the command are the extent to continue at."""
    op = command & MEMOP_CMD_MASK
    start = command >> MEMOP_EXTENT_SHIFT
    extents = _EXTENT_OPERATIONS.get(op)
    if extents is not None:
        return _reservation(vcpu, op, extents, start, arg)
    if op == XenMem.EXCHANGE:
        if start:
            raise HypercallError(Errno.EINVAL)
        return exchange(vcpu, arg)
    query = QUERIES.get(op)
    if query is None:
        raise HypercallError(Errno.ENOSYS)
    query.check_start(start)
    return query.answer(vcpu, arg)


def _reservation(vcpu: Vcpu, op: int, one_extent: Extents, start: int, arg: int) -> int | None:
    """How many extents were done, those of earlier pieces of the call included."""
    try:
        request = _check(vcpu, read_struct(vcpu, arg, XenMemoryReservation), op, start)
    except (GuestFault, HypercallError):
        return start
    if request is None:
        return start
    preemptible = request.nr - start > BATCH and can_continue(vcpu, Hypercall.MEMORY_OP)
    stop = start + BATCH if preemptible else request.nr
    for done in range(start, stop):
        try:
            if not one_extent(vcpu, request, done):
                return done
        except (GuestFault, HypercallError):
            return done
    if preemptible:
        create_continuation(vcpu, op | stop << MEMOP_EXTENT_SHIFT, arg)
        return None
    return stop


def _check(vcpu: Vcpu, given: XenMemoryReservation, op: int, start: int) -> Request | None:
    """The request, or None for one that makes no sense; -ESRCH. Xen: construct_memop_from_reservation()."""
    bits = address_bits(given.mem_flags)
    # Addresses as wide as the machine's are no limit.
    width = (vcpu.domain.hv.page_info.nr_frames - 1).bit_length() + PAGE_SHIFT
    if bits >= width:
        bits = 0
    if (
        not start < given.nr_extents <= _MAX_EXTENTS
        or any_domain(vcpu, given.domid) != vcpu.domain.domid
        or 0 < bits <= PAGE_SHIFT
        or not node_ok(given.mem_flags)
        or given.extent_order > DOMU_MAX_ORDER
    ):
        return None
    # Only increase_reservation can do without a list.
    if (given.extent_start or op != XenMem.INCREASE_RESERVATION) and not list_ok(given.extent_start, start):
        return None
    on_demand = op == XenMem.POPULATE_PHYSMAP and bool(given.mem_flags & XENMEMF_POPULATE_ON_DEMAND)
    return Request(given.extent_start, given.nr_extents, given.extent_order, bits, on_demand)


def _increase(vcpu: Vcpu, request: Request, index: int) -> bool:
    """Xen: increase_reservation(). A frame whose number can't be told is the domain's all the same."""
    mfn = alloc_domheap_pages(vcpu.domain, request.order, request.bits)
    if mfn is None:
        return False
    if request.start:
        write_extent(vcpu, extent_at(request.start, index), mfn)
    return True


def _populate(vcpu: Vcpu, request: Request, index: int) -> bool:
    """The extent names a pfn, and gets the frame that is there now. Xen: populate_physmap()."""
    at = extent_at(request.start, index)
    pfn = read_extent(vcpu, at)
    if request.populate_on_demand:
        return False
    mfn = alloc_domheap_pages(vcpu.domain, request.order, request.bits)
    if mfn is None:
        return False
    set_pfns(vcpu.domain, mfn, pfn, request.order)
    write_extent(vcpu, at, mfn)
    return True


def _decrease(vcpu: Vcpu, request: Request, index: int) -> bool:
    """Xen: decrease_reservation(). Frames of an extent before one that is refused are gone."""
    first = read_extent(vcpu, extent_at(request.start, index))
    for mfn in range(first, first + (1 << request.order)):
        guest_remove_page(vcpu.domain, mfn)
    return True


_EXTENT_OPERATIONS: Final[dict[int, Extents]] = {
    XenMem.INCREASE_RESERVATION: _increase,
    XenMem.DECREASE_RESERVATION: _decrease,
    XenMem.POPULATE_PHYSMAP: _populate,
}
