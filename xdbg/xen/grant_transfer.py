"""Giving a frame away: GNTTABOP_transfer. Xen: gnttab_transfer(), common/grant_table.c.

The receiver has set up an entry of type GTF_accept_transfer for the giver, and gave back a frame before. The giver's
frame must be nobody's but its own: no mapping, no type in use. It is taken from the giver first; when the receiver then
turns out not to accept it, it goes back to Xen and not to the giver.
"""

from typing import Final

from xdbg.abi.frames import Mfn
from xdbg.abi.grant_table import (
    GTF_ACCEPT_TRANSFER,
    GTF_TRANSFER_COMMITTED,
    GTF_TRANSFER_COMPLETED,
    Gntst,
    GnttabTransfer,
)

from .domain import Domain
from .event_channel import BACKEND_DOMID
from .grant_access import GrantError, write_status
from .guest_access import read_struct
from .page_info import PGC_ALLOCATED, PGC_XEN_HEAP
from .page_table_types import put_page
from .vcpu import Vcpu

_STATUS: Final = GnttabTransfer.offset_of("status")


def gnttab_transfer(vcpu: Vcpu, uop: int, count: int) -> None:
    """Give `count` frames away, each with its status."""
    for index in range(count):
        at = uop + index * GnttabTransfer.SIZE
        op = read_struct(vcpu, at, GnttabTransfer)
        status = Gntst.OKAY
        try:
            _transfer(vcpu.domain, op)
        except GrantError as error:
            status = error.status
        write_status(vcpu, at + _STATUS, status)


def can_steal(domain: Domain, mfn: int) -> bool:
    """Whether a frame is the domain's and nothing but its owner refers to it. Xen: steal_page()."""
    info = domain.hv.page_info
    return (
        info.owner(mfn) == domain.domid
        and not info.flags[mfn] & PGC_XEN_HEAP
        and bool(info.flags[mfn] & PGC_ALLOCATED)
        and info.refs[mfn] == 1
    )


def _transfer(giver: Domain, op: GnttabTransfer) -> None:
    hv = giver.hv
    info = hv.page_info
    mfn = Mfn(op.mfn)
    if not can_steal(giver, mfn):
        raise GrantError(Gntst.BAD_PAGE)
    hv.cpu.flush_tlb()
    try:
        receiver = hv.domains.get(op.domid)
        if receiver is None:
            raise GrantError(Gntst.GENERAL_ERROR if op.domid == BACKEND_DOMID else Gntst.BAD_DOMAIN)
        # The frame is the giver's no more when the receiver's are counted: it may give to itself.
        if receiver.nr_pages - (receiver is giver) >= receiver.max_pages:
            raise GrantError(Gntst.GENERAL_ERROR)
        _prepare(receiver, giver, op.ref)
    except GrantError:
        info.flags[mfn] &= ~PGC_ALLOCATED
        put_page(hv, mfn)
        raise
    giver.nr_pages -= 1
    receiver.nr_pages += 1
    info.assign(mfn, 1, receiver.domid)
    table = receiver.grant_table
    entry = table.entry(op.ref)
    hv.m2p.set(mfn, entry.frame)
    table.store(op.ref, frame=mfn, flags=entry.flags | GTF_TRANSFER_COMPLETED)


def _prepare(receiver: Domain, giver: Domain, ref: int) -> None:
    """Commit the receiver's entry, if it accepts a frame of the giver's. Xen: gnttab_prepare_for_transfer()."""
    table = receiver.grant_table
    if ref >= table.nr_entries:
        raise GrantError(Gntst.GENERAL_ERROR)
    entry = table.entry(ref)
    if entry.flags != GTF_ACCEPT_TRANSFER or entry.domid != giver.domid:
        raise GrantError(Gntst.GENERAL_ERROR)
    table.store(ref, flags=entry.flags | GTF_TRANSFER_COMMITTED)
