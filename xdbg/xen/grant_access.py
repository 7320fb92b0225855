"""Pins: how a granted frame is taken and given back. Xen: _set_status(), acquire_grant_for_copy().

An entry of version 1 is the granting domain's to write, at any time. So it is read once, when it is first used:

1. it must be of type GTF_permit_access, for the domain that asks; who wants to write may not find GTF_readonly;
2. GTF_reading, and GTF_writing for a writer, are set in the entry: the granting domain can't end the grant meanwhile;
3. the frame must be the granting domain's. It is kept in the active entry with a pin; as long as there are pins, the
   active entry is what counts;
4. each holder of a pin also holds a reference to the frame and, if it writes, a writable type: a granted page table
   can't be written, and a frame that its owner gives back is not anybody else's before the last user has let go.

With the last pin that writes GTF_writing goes, with the last one GTF_reading.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import Mfn
from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, GTF_TYPE_MASK, Gntst, Gtf

from .event_channel import BACKEND_DOMID
from .faults import HypercallError
from .grant_table import ENTRIES_PER_FRAME, ActiveEntry
from .guest_access import copy_to_guest
from .page_info import PGT_WRITABLE_PAGE
from .page_table_types import get_page_type, put_page, put_page_type

if TYPE_CHECKING:
    from .domain import Domain
    from .setup import Hypervisor
    from .vcpu import Vcpu

PIN_LIMIT: Final = 0x80
"""Pins of one kind that an entry can have; one more is GNTST_general_error. Xen: GNTPIN_incr2oflow_mask()."""


class GrantError(Exception):
    """A grant can't be used as asked: `status` is a GNTST_* value. Nothing has changed."""

    def __init__(self, status: Gntst) -> None:
        super().__init__(status)
        self.status = status


def granting_domain(hv: "Hypervisor", domid: int, ref: int) -> "Domain":
    """The domain that is said to grant `ref`; GNTST_bad_domain if there is none.

    Domain 0 is always there, but it grants nothing: its table has one frame of invalid entries.
    """
    domain = hv.domains.get(domid)
    if domain is None:
        if domid != BACKEND_DOMID:
            raise GrantError(Gntst.BAD_DOMAIN)
        raise GrantError(Gntst.GENERAL_ERROR if ref < ENTRIES_PER_FRAME else Gntst.BAD_GNTREF)
    return domain


def write_status(vcpu: "Vcpu", at: int, status: Gntst) -> None:
    """Store the status of one operation of a batch; raises `GuestFault`."""
    copy_to_guest(vcpu, at, status.to_bytes(2, "little", signed=True))


def acquire_grant(domain: "Domain", ref: int, for_domid: int, *, readonly: bool) -> Mfn:
    """The frame that `domain` grants to `for_domid` by `ref`, pinned for a CPU; raises `GrantError`.

    The caller holds a reference to the frame and, unless `readonly`, its writable type until `release_grant`.
    Xen: acquire_grant_for_copy().
    """
    entry = pin_entry(domain, ref, for_domid, host=1, device=0, readonly=readonly)
    try:
        # An l1e that was overwritten leaves its pin behind: the frame may be somebody else's meanwhile.
        if domain.hv.page_info.owner(entry.mfn) != domain.domid:
            raise GrantError(Gntst.BAD_DOMAIN)
        hold_frame(domain, entry.mfn, readonly=readonly)
    except GrantError:
        unpin_entry(domain, ref, host=1, device=0, readonly=readonly)
        raise
    return entry.mfn


def release_grant(domain: "Domain", ref: int, for_domid: int, *, readonly: bool) -> None:
    """Give back what `acquire_grant` with the same arguments took. Xen: release_grant_for_copy()."""
    entry = domain.grant_table.active[ref]
    assert entry.domid == for_domid
    release_frame(domain, entry.mfn, readonly=readonly)
    unpin_entry(domain, ref, host=1, device=0, readonly=readonly)


# -- pins


def pin_entry(domain: "Domain", ref: int, for_domid: int, *, host: int, device: int, readonly: bool) -> ActiveEntry:
    """Add `host` and `device` pins (0 or 1 each) to an entry, after the checks; the frame is not held by that.

    Raises `GrantError`: GNTST_bad_gntref, GNTST_general_error for an entry that does not allow it, GNTST_bad_page.
    """
    table = domain.grant_table
    if not 0 <= ref < table.nr_entries:
        raise GrantError(Gntst.BAD_GNTREF)
    active = table.active.get(ref)
    if active is not None and (active.domid != for_domid or _at_limit(active, host, device, readonly=readonly)):
        raise GrantError(Gntst.GENERAL_ERROR)
    if active is None or (not readonly and not active.writes):
        flags = _allowed_flags(domain, ref, for_domid, pinned=active is not None, readonly=readonly)
        if active is None:
            mfn = Mfn(table.entry(ref).frame)
            if domain.hv.page_info.owner(mfn) != domain.domid:
                raise GrantError(Gntst.BAD_PAGE)
            active = ActiveEntry(for_domid, mfn)
            table.active[ref] = active
        table.store(ref, flags=flags | Gtf.READING | (0 if readonly else Gtf.WRITING))
    if readonly:
        active.host_reads += host
        active.device_reads += device
    else:
        active.host_writes += host
        active.device_writes += device
    return active


def unpin_entry(domain: "Domain", ref: int, *, host: int, device: int, readonly: bool) -> None:
    """Take pins of an entry away, and the flags with the last ones."""
    table = domain.grant_table
    active = table.active[ref]
    if readonly:
        active.host_reads -= host
        active.device_reads -= device
    else:
        active.host_writes -= host
        active.device_writes -= device
    assert min(active.host_reads, active.device_reads, active.host_writes, active.device_writes) >= 0
    gone = 0
    if not readonly and not active.writes:
        gone |= Gtf.WRITING
    if not active.pins:
        gone |= Gtf.READING
        del table.active[ref]
    if gone:
        table.store(ref, flags=table.entry(ref).flags & ~gone)


def _at_limit(active: ActiveEntry, host: int, device: int, *, readonly: bool) -> bool:
    if readonly:
        counts = (active.host_reads * host, active.device_reads * device)
    else:
        counts = (active.host_writes * host, active.device_writes * device)
    return max(counts) >= PIN_LIMIT


def _allowed_flags(domain: "Domain", ref: int, for_domid: int, *, pinned: bool, readonly: bool) -> int:
    """The flags of an entry that permits the access; raises `GrantError`. Xen: _set_status_v1()."""
    shared = domain.grant_table.entry(ref)
    flags = shared.flags
    if not pinned and (flags & (GTF_TYPE_MASK | Gtf.SUB_PAGE) != GTF_PERMIT_ACCESS or shared.domid != for_domid):
        raise GrantError(Gntst.GENERAL_ERROR)
    if not readonly and flags & Gtf.READONLY:
        raise GrantError(Gntst.GENERAL_ERROR)
    return flags


# -- frames


def hold_frame(domain: "Domain", mfn: Mfn, *, readonly: bool) -> None:
    """Take a reference to a pinned frame of `domain`'s and, unless `readonly`, its writable type."""
    hv = domain.hv
    if not hv.page_info.get_page(mfn, domain.domid):
        raise GrantError(Gntst.GENERAL_ERROR)
    if not readonly:
        try:
            get_page_type(hv, mfn, PGT_WRITABLE_PAGE)
        except HypercallError:
            put_page(hv, mfn)
            raise GrantError(Gntst.GENERAL_ERROR) from None


def release_frame(domain: "Domain", mfn: Mfn, *, readonly: bool) -> None:
    """Give back what `hold_frame` took."""
    if not readonly:
        put_page_type(domain.hv, mfn)
    put_page(domain.hv, mfn)
