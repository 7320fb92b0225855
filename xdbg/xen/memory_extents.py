"""Extents: runs of frames that a domain gets, and gives back one by one. Xen: common/memory.c, common/page_alloc.c.

What the operations on extents in `memory` and `memory_exchange` are made of. An extent of order N is 2**N frames in a
row that begin at a multiple of 2**N, as Xen's allocator hands them out.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SHIFT, Mfn
from xdbg.abi.memory import XENMEMF_EXACT_NODE_REQUEST
from xdbg.abi.mmu import DOMID_SELF

from .domain import Domain
from .domain_lookup import domain_exists
from .faults import HypercallError
from .guest_access import address_ok, copy_from_guest, copy_to_guest
from .heap import OutOfFramesError
from .page_info import PGC_ALLOCATED
from .page_table_types import put_page
from .vcpu import Vcpu

DOMU_MAX_ORDER: Final = 9
"""The largest extent that a domU may name. Xen: CONFIG_DOMU_MAX_ORDER."""
EXTENT_SIZE: Final = 8
_ADDRESS_BITS: Final = 0xFF
_NODE_SHIFT: Final = 8
_NODE_MASK: Final = 0xFF
_U64: Final = (1 << 64) - 1


# -- who is meant


def any_domain(vcpu: Vcpu, domid: int) -> int:
    """The domid that a request names; -ESRCH if there is none. Xen: rcu_lock_domain_by_any_id()."""
    if domid == DOMID_SELF:
        return vcpu.domain.domid
    if not domain_exists(vcpu.domain.hv, domid):
        raise HypercallError(Errno.ESRCH)
    return domid


def own_domain(vcpu: Vcpu, domid: int) -> Domain:
    """The caller's domain; -ESRCH for a domain that does not exist, -EPERM for another one. Xen: XSM_TARGET."""
    if any_domain(vcpu, domid) != vcpu.domain.domid:
        raise HypercallError(Errno.EPERM)
    return vcpu.domain


def remote_domain(vcpu: Vcpu, domid: int) -> int:
    """A domain that is not the caller's, by its number; -ESRCH, -EPERM. Xen: rcu_lock_remote_domain_by_id()."""
    if not domain_exists(vcpu.domain.hv, domid):
        raise HypercallError(Errno.ESRCH)
    if domid == vcpu.domain.domid:
        raise HypercallError(Errno.EPERM)
    return domid


# -- lists of extents in guest memory


def extent_at(start: int, index: int) -> int:
    """Where element `index` of a list at `start` is."""
    return start + index * EXTENT_SIZE & _U64


def list_ok(start: int, first: int) -> bool:
    """Whether a list may be used from element `first` on. Xen: guest_handle_subrange_okay(), which looks no further."""
    return address_ok(extent_at(start, first))


def read_extent(vcpu: Vcpu, at: int) -> int:
    """A frame number of a list; raises `GuestFault`."""
    return int.from_bytes(copy_from_guest(vcpu, at, EXTENT_SIZE), "little")


def write_extent(vcpu: Vcpu, at: int, frame: int) -> None:
    """Store a frame number in a list; raises `GuestFault`."""
    copy_to_guest(vcpu, at, frame.to_bytes(EXTENT_SIZE, "little"))


# -- limits that a request sets


def node_ok(mem_flags: int) -> bool:
    """A domU may wish for a NUMA node, and gets what there is; it may not insist. Xen: propagate_node()."""
    return not mem_flags >> _NODE_SHIFT & _NODE_MASK or not mem_flags & XENMEMF_EXACT_NODE_REQUEST


def address_bits(mem_flags: int) -> int:
    """How many bits the address of a frame may have; 0: any number. Xen: XENMEMF_get_address_bits()."""
    return mem_flags & _ADDRESS_BITS


def frame_limit(domain: Domain, bits: int) -> int:
    """The first frame whose address has more than `bits` bits (0: the machine's end)."""
    nr_frames = domain.hv.page_info.nr_frames
    return nr_frames if not bits else min(nr_frames, 1 << max(0, bits - PAGE_SHIFT))


# -- frames


def alloc_extent(domain: Domain, order: int, bits: int = 0) -> Mfn:
    """2**`order` frames for a domain, not counted as its pages yet; raises `OutOfFramesError`."""
    nr = 1 << order
    return domain.hv.heap.alloc(domain.domid, nr, align=nr, limit=frame_limit(domain, bits))


def alloc_domheap_pages(domain: Domain, order: int, bits: int) -> Mfn | None:
    """An extent for a domain; None if it has its maximum or the machine has no such extent. Xen: the same."""
    nr = 1 << order
    if domain.nr_pages + nr > domain.max_pages:
        return None
    try:
        mfn = alloc_extent(domain, order, bits)
    except OutOfFramesError:
        return None
    domain.nr_pages += nr
    return mfn


def set_pfns(domain: Domain, mfn: Mfn, pfn: int, order: int) -> None:
    """Pair an extent with pfns from `pfn` on. Xen: guest_physmap_add_page()."""
    for i in range(1 << order):
        domain.hv.m2p.set(Mfn(mfn + i), pfn + i & _U64)


def guest_remove_page(domain: Domain, mfn: int) -> None:
    """Take the owner's reference to a frame away; -EINVAL, -ENXIO. Xen: guest_remove_page().

    A pin stays, as does everything else that refers to the frame: it is the domain's until all of that has gone. One
    that Xen allocated for itself (shared_info, grant table) can't be mapped any more then, and remains Xen's.
    """
    hv = domain.hv
    info = hv.page_info
    if mfn >= info.nr_frames:
        raise HypercallError(Errno.EINVAL)
    if not info.get_page(mfn, domain.domid):
        raise HypercallError(Errno.ENXIO)
    put_page_alloc_ref(domain, mfn)
    put_page(hv, mfn)


def put_page_alloc_ref(domain: Domain, mfn: int) -> None:
    """End the owner's possession of a frame to which the caller holds a reference. Xen: the same."""
    info = domain.hv.page_info
    if info.flags[mfn] & PGC_ALLOCATED:
        info.flags[mfn] &= ~PGC_ALLOCATED
        put_page(domain.hv, mfn)
