"""Mapping grants: map_grant_ref, unmap_grant_ref, unmap_and_replace. Xen: common/grant_table.c.

A mapping has a **host** part (an l1e), a **device** part (for DMA; to a guest without devices it is a machine address
and nothing more), or both. Each part is one pin of the entry and one reference to the frame, with the writable type
unless the mapping is read-only. The handle names the mapping until both parts are unmapped.

Unmapping goes in batches: first entries and handles of up to 32 go, then the TLB is flushed, and only then what they
held is given back.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import Mfn, mfn_to_maddr
from xdbg.abi.grant_table import Gntmap, Gntst, GnttabMapGrantRef, GnttabUnmapAndReplace, GnttabUnmapGrantRef

from .domain import Domain
from .faults import DomainCrash
from .grant_access import (
    GrantError,
    granting_domain,
    hold_frame,
    pin_entry,
    release_frame,
    unpin_entry,
    write_status,
)
from .grant_pv import create_grant_pv_mapping, replace_grant_pv_mapping
from .guest_access import read_struct, write_struct
from .maptrack import GrantMapping
from .vcpu import Vcpu

_UNMAP_BATCH: Final = 32
"""Xen: GNTTAB_UNMAP_BATCH_SIZE."""
_PARTS: Final = Gntmap.HOST_MAP | Gntmap.DEVICE_MAP
_KEPT_FLAGS: Final = 0xFFFF
"""The flags that a mapping remembers."""


# -- map_grant_ref


def gnttab_map_grant_ref(vcpu: Vcpu, uop: int, count: int) -> None:
    """Map `count` grants, each with its status."""
    for index in range(count):
        at = uop + index * GnttabMapGrantRef.SIZE
        op = read_struct(vcpu, at, GnttabMapGrantRef)
        try:
            map_grant_ref(vcpu, op)
            op.status = Gntst.OKAY
        except GrantError as error:
            op.status = error.status
        write_struct(vcpu, at, op)


def map_grant_ref(vcpu: Vcpu, op: GnttabMapGrantRef) -> None:
    """Map one grant and fill in its handle and bus address; raises `GrantError`, and has then done nothing."""
    domain = vcpu.domain
    if not op.flags & _PARTS:
        raise GrantError(Gntst.BAD_GNTREF)
    granter = granting_domain(domain.hv, op.dom, op.ref)
    maptrack = domain.grant_table.maptrack
    handle = maptrack.take(vcpu.vcpu_id, len(domain.vcpus))
    if handle is None:
        raise GrantError(Gntst.NO_DEVICE_SPACE)
    with ExitStack() as undo:
        undo.callback(maptrack.put, handle)
        mfn = _hold(vcpu, granter, op, undo)
        undo.pop_all()
    maptrack.mappings[handle] = GrantMapping(op.dom, op.ref, op.flags & _KEPT_FLAGS)
    op.dev_bus_addr = mfn_to_maddr(mfn)
    op.handle = handle


def _hold(vcpu: Vcpu, granter: Domain, op: GnttabMapGrantRef, undo: ExitStack) -> Mfn:
    """Pin the entry, hold the frame once for each part, and write the l1e."""
    host = bool(op.flags & Gntmap.HOST_MAP)
    device = bool(op.flags & Gntmap.DEVICE_MAP)
    readonly = bool(op.flags & Gntmap.READONLY)
    mfn = pin_entry(granter, op.ref, vcpu.domain.domid, host=host, device=device, readonly=readonly).mfn
    undo.callback(unpin_entry, granter, op.ref, host=host, device=device, readonly=readonly)
    for _ in range(host + device):
        hold_frame(granter, mfn, readonly=readonly)
        undo.callback(release_frame, granter, mfn, readonly=readonly)
    if host:
        create_grant_pv_mapping(vcpu, op.host_addr, mfn, op.flags)
    return mfn


# -- unmap_grant_ref, unmap_and_replace


@dataclass(frozen=True, slots=True)
class _Unmapped:
    """What an unmapping has to give back after the flush."""

    granter: Domain
    ref: int
    mfn: Mfn
    host: bool
    device: bool
    readonly: bool

    def complete(self) -> None:
        """Xen: unmap_common_complete()."""
        for _ in range(self.host + self.device):
            release_frame(self.granter, self.mfn, readonly=self.readonly)
        unpin_entry(self.granter, self.ref, host=self.host, device=self.device, readonly=self.readonly)


@dataclass(frozen=True, slots=True)
class _Request:
    """What the two forms of the operation ask for. Xen: struct gnttab_unmap_common."""

    handle: int
    host_addr: int
    dev_bus_addr: int = 0
    new_addr: int = 0


def gnttab_unmap_grant_ref(vcpu: Vcpu, uop: int, count: int) -> None:
    """Unmap `count` mappings by handle, each with its status."""
    _unmap_all(vcpu, uop, count, GnttabUnmapGrantRef)


def gnttab_unmap_and_replace(vcpu: Vcpu, uop: int, count: int) -> None:
    """Unmap `count` mappings by handle, each replaced by the page that is mapped at its `new_addr`."""
    _unmap_all(vcpu, uop, count, GnttabUnmapAndReplace)


def _read_request(vcpu: Vcpu, at: int, kind: type[GnttabUnmapGrantRef | GnttabUnmapAndReplace]) -> _Request:
    match read_struct(vcpu, at, kind):
        case GnttabUnmapGrantRef() as op:
            return _Request(op.handle, op.host_addr, dev_bus_addr=op.dev_bus_addr)
        case op:
            return _Request(op.handle, op.host_addr, new_addr=op.new_addr)


def _unmap_all(vcpu: Vcpu, uop: int, count: int, kind: type[GnttabUnmapGrantRef | GnttabUnmapAndReplace]) -> None:
    """Carry out `count` operations in batches; what is done is completed even if a pointer goes bad."""
    for first in range(0, count, _UNMAP_BATCH):
        done: list[_Unmapped] = []
        try:
            for index in range(first, min(count, first + _UNMAP_BATCH)):
                at = uop + index * kind.SIZE
                request = _read_request(vcpu, at, kind)
                status = Gntst.OKAY
                try:
                    done.append(_unmap_common(vcpu, request))
                except GrantError as error:
                    status = error.status
                write_status(vcpu, at + kind.offset_of("status"), status)
        finally:
            vcpu.domain.hv.cpu.flush_tlb()
            for unmapped in done:
                unmapped.complete()


def _unmap_common(vcpu: Vcpu, request: _Request) -> _Unmapped:
    """Take the l1e and the handle of the parts that are named; raises `GrantError`. Xen: unmap_common().

    A part that is not named by an address stays mapped, and it is no error to name none.
    """
    maptrack = vcpu.domain.grant_table.maptrack
    mapping = maptrack.mappings.get(request.handle)
    if mapping is None:
        raise GrantError(Gntst.BAD_HANDLE)
    granter = vcpu.domain.hv.domains.get(mapping.domid)
    if granter is None:
        raise DomainCrash(f"unmaps a grant of domain {mapping.domid}, which does not exist")
    mfn = granter.grant_table.active[mapping.ref].mfn
    if request.dev_bus_addr and request.dev_bus_addr != mfn_to_maddr(mfn):
        raise GrantError(Gntst.GENERAL_ERROR)
    host = bool(request.host_addr and mapping.flags & Gntmap.HOST_MAP)
    device = bool(request.dev_bus_addr and mapping.flags & Gntmap.DEVICE_MAP)
    readonly = bool(mapping.flags & Gntmap.READONLY)
    if host:
        replace_grant_pv_mapping(vcpu, request.host_addr, mfn, request.new_addr, mapping.flags)
        mapping.flags &= ~Gntmap.HOST_MAP
    if device:
        mapping.flags &= ~Gntmap.DEVICE_MAP
    if not mapping.flags & _PARTS:
        maptrack.put(request.handle)
    return _Unmapped(granter, mapping.ref, mfn, host, device, readonly)


# -- a domain that goes away


def gnttab_release_mappings(domain: Domain) -> None:
    """End all mappings of a domain that is dying. Xen: gnttab_release_mappings.

    Their l1es go with its page tables and give back what they hold then; what a device part holds is given back here.
    """
    maptrack = domain.grant_table.maptrack
    for handle in sorted(maptrack.mappings):
        mapping = maptrack.mappings[handle]
        granter = domain.hv.domains.get(mapping.domid)
        if granter is not None:
            host = bool(mapping.flags & Gntmap.HOST_MAP)
            device = bool(mapping.flags & Gntmap.DEVICE_MAP)
            readonly = bool(mapping.flags & Gntmap.READONLY)
            if device:
                release_frame(granter, granter.grant_table.active[mapping.ref].mfn, readonly=readonly)
            unpin_entry(granter, mapping.ref, host=host, device=device, readonly=readonly)
        maptrack.put(handle)
