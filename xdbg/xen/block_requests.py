"""What the block backend does with one request. Linux: drivers/block/xen-blkback/blkback.c; Xen: public/io/blkif.h.

A request is checked before anything is touched: a known operation, 1 to 11 segments (a flush may have none), each
segment within a page, the sectors on the disk, no write to a disk that is read-only. Then all its pages are taken by
their grants, written to only by a read; then the sectors move; then the pages are given back. Anything that is wrong
makes the response BLKIF_RSP_ERROR, an operation that is not offered BLKIF_RSP_EOPNOTSUPP. `handle` is not looked at.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.blkif import BLKIF_MAX_SEGMENTS_PER_REQUEST, BlkifOp, BlkifRsp
from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr

from .block_contents import SECTOR_SIZE, Access, BlockContents, BlockError
from .block_ring import BlockRequest, Segment
from .event_channel import BACKEND_DOMID
from .grant_access import GrantError, acquire_grant, release_grant
from .shared_ring import store

if TYPE_CHECKING:
    from .domain import Domain

_FLUSHES = frozenset({BlkifOp.WRITE_BARRIER, BlkifOp.FLUSH_DISKCACHE})
_MOVES = frozenset({BlkifOp.READ, BlkifOp.WRITE}) | _FLUSHES
_SECTORS_PER_PAGE: Final = PAGE_SIZE // SECTOR_SIZE
_U64 = (1 << 64) - 1


def carry_out(domain: "Domain", contents: BlockContents, request: BlockRequest) -> BlkifRsp:
    """Do what a request asks for; the status of its response. Linux: dispatch_rw_block_io(), dispatch_discard_io()."""
    if request.operation == BlkifOp.DISCARD:
        # Checked as if there were something to discard with.
        allowed = _is_allowed(contents, request.sector, request.nr_sectors, write=True)
        return BlkifRsp.EOPNOTSUPP if allowed else BlkifRsp.ERROR
    if request.operation not in _MOVES:
        return BlkifRsp.EOPNOTSUPP
    if request.nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST:
        return BlkifRsp.ERROR
    if request.nr_segments == 0 and request.operation not in _FLUSHES:
        return BlkifRsp.ERROR
    if any(not segment.first <= segment.last < _SECTORS_PER_PAGE for segment in request.segments):
        return BlkifRsp.ERROR
    count = sum(segment.nr_sectors for segment in request.segments)
    if not _is_allowed(contents, request.sector, count, write=request.operation != BlkifOp.READ):
        return BlkifRsp.ERROR
    try:
        _move(domain, contents, request)
    except (GrantError, BlockError):
        return BlkifRsp.ERROR
    return BlkifRsp.OKAY


def _is_allowed(contents: BlockContents, sector: int, count: int, *, write: bool) -> bool:
    """Whether the sectors are on the disk and may be used so. Linux: xen_vbd_translate()."""
    if write and contents.access is Access.READ_ONLY:
        return False
    end = sector + count
    return count == 0 or (end <= _U64 and end <= contents.nr_sectors)


def _move(domain: "Domain", contents: BlockContents, request: BlockRequest) -> None:
    """Move the sectors of a request that has been checked; raises `GrantError` or `BlockError`, and has moved none."""
    images = domain.hv.block_images
    if images is None:
        raise BlockError("there are no images")
    reads = request.operation == BlkifOp.READ
    taken: list[tuple[Segment, Mfn]] = []
    try:
        for segment in request.segments:
            mfn = acquire_grant(domain, segment.ref, BACKEND_DOMID, readonly=not reads)
            taken.append((segment, mfn))
        if reads:
            count = sum(segment.nr_sectors for segment in request.segments)
            _scatter(domain, taken, contents.read(images, request.sector, count))
            return
        if request.operation in _FLUSHES:
            contents.flush(images)
        if taken:
            contents.write(images, request.sector, _gather(domain, taken))
        if request.operation == BlkifOp.WRITE_BARRIER:
            contents.flush(images)
    finally:
        for segment, _ in reversed(taken):
            release_grant(domain, segment.ref, BACKEND_DOMID, readonly=not reads)


def _scatter(domain: "Domain", taken: list[tuple[Segment, Mfn]], data: bytes) -> None:
    done = 0
    for segment, mfn in taken:
        length = segment.nr_sectors * SECTOR_SIZE
        store(domain, Maddr(mfn_to_maddr(mfn) + segment.first * SECTOR_SIZE), data[done : done + length])
        done += length


def _gather(domain: "Domain", taken: list[tuple[Segment, Mfn]]) -> bytes:
    return b"".join(
        domain.hv.ram.read(mfn_to_maddr(mfn) + segment.first * SECTOR_SIZE, segment.nr_sectors * SECTOR_SIZE)
        for segment, mfn in taken
    )
