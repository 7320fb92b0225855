"""Copying between frames: GNTTABOP_copy. Xen: gnttab_copy(), common/grant_table.c.

Either side is a grant of any domain, or a frame of the caller's own. A granted frame is pinned for the copy, to read
or to write; it stays so while the operations that follow in the list name the same one, until something fails or the
list ends. So a list costs one pin for each change of frame.
"""

from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.grant_table import Gntcopy, Gntst, GnttabCopy, GnttabCopyPtr
from xdbg.abi.mmu import DOMID_SELF

from .domain import Domain
from .event_channel import BACKEND_DOMID
from .events import MemoryWritten
from .grant_access import (
    GrantError,
    acquire_grant,
    granting_domain,
    hold_frame,
    release_frame,
    release_grant,
    write_status,
)
from .guest_access import read_struct
from .vcpu import Vcpu

_STATUS: Final = GnttabCopy.offset_of("status")


@dataclass(slots=True)
class _Side:
    """The frame that one side of the copies uses now. Xen: struct gnttab_copy_buf."""

    readonly: bool
    domid: int | None = None
    """As the guest names it; None: not yet looked for."""
    domain: Domain | None = None
    by_ref: bool = False
    frame: int = 0
    """The grant reference, or the gmfn."""
    mfn: Mfn | None = None
    """The frame; None: none is held."""

    def names(self, ptr: GnttabCopyPtr, *, by_ref: bool) -> bool:
        """Whether the frame that is held is the one that is asked for."""
        return self.mfn is not None and (self.by_ref, self.frame) == (by_ref, _frame(ptr, by_ref=by_ref))

    def claim(self, caller: Domain, ptr: GnttabCopyPtr, *, by_ref: bool) -> Mfn:
        """Hold another frame; raises `GrantError`, and holds none then. Xen: gnttab_copy_claim_buf()."""
        self.release(caller)
        assert self.domid is not None
        frame = _frame(ptr, by_ref=by_ref)
        if by_ref:
            domain = self.domain or granting_domain(caller.hv, self.domid, frame)
            mfn = acquire_grant(domain, frame, caller.domid, readonly=self.readonly)
        else:
            mfn = Mfn(frame)
            if caller.hv.page_info.owner(mfn) != caller.domid:
                raise GrantError(Gntst.BAD_PAGE)
            hold_frame(caller, mfn, readonly=self.readonly)
        self.by_ref, self.frame, self.mfn = by_ref, frame, mfn
        return mfn

    def release(self, caller: Domain) -> None:
        """Hold nothing. Xen: gnttab_copy_release_buf()."""
        if self.mfn is None:
            return
        if self.by_ref:
            assert self.domain is not None
            release_grant(self.domain, self.frame, caller.domid, readonly=self.readonly)
        else:
            release_frame(caller, self.mfn, readonly=self.readonly)
        self.mfn = None


def _frame(ptr: GnttabCopyPtr, *, by_ref: bool) -> int:
    return int(ptr.u.ref) if by_ref else int(ptr.u.gmfn)


def gnttab_copy(vcpu: Vcpu, uop: int, count: int) -> None:
    """Carry out `count` copies in order, each with its status."""
    caller = vcpu.domain
    source = _Side(readonly=True)
    dest = _Side(readonly=False)
    try:
        for index in range(count):
            at = uop + index * GnttabCopy.SIZE
            op = read_struct(vcpu, at, GnttabCopy)
            status = Gntst.OKAY
            try:
                _copy_one(vcpu, op, source, dest)
            except GrantError as error:
                status = error.status
                source.release(caller)
                dest.release(caller)
            write_status(vcpu, at + _STATUS, status)
    finally:
        source.release(caller)
        dest.release(caller)


def _copy_one(vcpu: Vcpu, op: GnttabCopy, source: _Side, dest: _Side) -> None:
    """Xen: gnttab_copy_one()."""
    caller = vcpu.domain
    from_ref = bool(op.flags & Gntcopy.SOURCE_GREF)
    to_ref = bool(op.flags & Gntcopy.DEST_GREF)
    if (source.domid, dest.domid) != (op.source.domid, op.dest.domid):
        source.release(caller)
        dest.release(caller)
        source.domid = dest.domid = None
        domains = [_find(caller, op.source, by_ref=from_ref), _find(caller, op.dest, by_ref=to_ref)]
        source.domain, dest.domain = domains
        source.domid, dest.domid = op.source.domid, op.dest.domid
    for side, ptr, by_ref in ((source, op.source, from_ref), (dest, op.dest, to_ref)):
        if not side.names(ptr, by_ref=by_ref):
            side.claim(caller, ptr, by_ref=by_ref)
    assert source.mfn is not None
    assert dest.mfn is not None
    _copy_bytes(vcpu, op, source.mfn, dest.mfn)


def _find(caller: Domain, ptr: GnttabCopyPtr, *, by_ref: bool) -> Domain | None:
    """The domain of one side; None for domain 0, which has no grants. Xen: gnttab_copy_lock_domain()."""
    if ptr.domid == DOMID_SELF:
        return caller
    if not by_ref:
        raise GrantError(Gntst.PERMISSION_DENIED)
    domain = caller.hv.domains.get(ptr.domid)
    if domain is None and ptr.domid != BACKEND_DOMID:
        raise GrantError(Gntst.BAD_DOMAIN)
    return domain


def _copy_bytes(vcpu: Vcpu, op: GnttabCopy, source: Mfn, dest: Mfn) -> None:
    """Xen: gnttab_copy_buf()."""
    if max(op.source.offset, op.dest.offset) + op.len > PAGE_SIZE:
        raise GrantError(Gntst.BAD_COPY_ARG)
    if not op.len:
        return
    hv = vcpu.domain.hv
    to = Maddr(mfn_to_maddr(dest) + op.dest.offset)
    hv.ram.write(to, hv.ram.read(mfn_to_maddr(source) + op.source.offset, op.len))
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(to, op.len))
