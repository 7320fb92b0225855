"""The ring between a frontend and the block backend. Xen: public/io/ring.h, Linux: drivers/block/xen-blkback/common.h.

A ring is 1 to 16 granted pages: a header with four indices that run freely, then 2^n entries. Request N is in entry N
modulo 2^n, and so is response N. The backend takes requests in order and answers each before it takes the next, so one
number says how far it has come: what it has taken and what it has answered.

1. The frontend's `req_prod` may not be more than a ring ahead of that number. If it is, the ring is halted: nothing is
   taken from it any more until the frontend connects anew.
2. A response is written, then `rsp_prod` moves; the frontend is notified if that passed its `rsp_event`.
3. When no request is left, `req_event` asks the frontend to notify of the next one.

An entry is as large as a request: 112 bytes for a frontend of 64 bits, 108 for one of 32, which has no padding.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xdbg.abi.blkif import BLKIF_MAX_SEGMENTS_PER_REQUEST, BlkifOp
from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr

from .shared_ring import store

if TYPE_CHECKING:
    from .domain import Domain

_HEADER: Final = 64
_REQ_PROD, _REQ_EVENT, _RSP_PROD, _RSP_EVENT = 0, 4, 8, 12
_U32 = 0xFFFF_FFFF
_SEGMENT = struct.Struct("<IBBxx")


@dataclass(frozen=True, slots=True)
class RingAbi:
    """How requests and responses lie in an entry of `size` bytes; the formats are those of `struct`."""

    size: int
    request: str
    """operation, nr_segments or flag, handle, id, sector_number; the segments or nr_sectors follow."""
    response: str
    """id, operation, status."""


X86_64: Final = RingAbi(112, "<BBHxxxxQQ", "<QBxhxxxx")
X86_32: Final = RingAbi(108, "<BBHQQ", "<QBxh")


@dataclass(frozen=True, slots=True)
class Segment:
    """Sectors `first` to `last` of a granted page take part."""

    ref: int
    first: int
    last: int

    @property
    def nr_sectors(self) -> int:
        """How many sectors, if the segment makes sense."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """A request as the frontend wrote it, nothing checked. `nr_sectors` counts for a discard."""

    operation: int
    nr_segments: int
    id: int
    sector: int
    segments: tuple[Segment, ...]
    nr_sectors: int


@dataclass(slots=True)
class BlockRing:
    """A connected ring: its pages and how far the backend has come."""

    pages: list[Mfn]
    refs: list[int]
    """The grants of the pages, to be given back."""
    abi: RingAbi
    done: int = 0
    """Requests taken, and answered, modulo 2^32."""
    halted: bool = False

    @property
    def nr_entries(self) -> int:
        """How many entries: the greatest power of two that fits. Xen: __RING_SIZE()."""
        fit = (len(self.pages) * PAGE_SIZE - _HEADER) // self.abi.size
        return 1 << fit.bit_length() - 1

    def attach(self, domain: "Domain") -> bool:
        """Begin where the last response was written; whether the indices allow it. Xen: BACK_RING_ATTACH()."""
        self.done = self._index(domain, _RSP_PROD)
        return self._index(domain, _REQ_PROD) - self.done & _U32 <= self.nr_entries

    def take(self, domain: "Domain") -> BlockRequest | None:
        """The next request, or None if there is none; then, the ring not being halted, the next one is told of."""
        if self.halted:
            return None
        ahead = self._index(domain, _REQ_PROD) - self.done & _U32
        if ahead > self.nr_entries:
            self.halted = True
            return None
        if ahead == 0:
            self._set_index(domain, _REQ_EVENT, self.done + 1)
            return None
        return self._parse(self._read(domain, self._entry(self.done), self.abi.size))

    def answer(self, domain: "Domain", request: BlockRequest, status: int) -> bool:
        """Answer the request that was taken last; whether the frontend wants to be notified."""
        response = struct.pack(self.abi.response, request.id, request.operation, status)
        self._write(domain, self._entry(self.done), response)
        old = self._index(domain, _RSP_PROD)
        self.done = self.done + 1 & _U32
        self._set_index(domain, _RSP_PROD, self.done)
        return self.done - self._index(domain, _RSP_EVENT) & _U32 < self.done - old & _U32

    def _parse(self, raw: bytes) -> BlockRequest:
        operation, count, _handle, request_id, sector = struct.unpack_from(self.abi.request, raw)
        at = struct.calcsize(self.abi.request)
        if operation == BlkifOp.DISCARD:
            (nr_sectors,) = struct.unpack_from("<Q", raw, at)
            return BlockRequest(operation, 0, request_id, sector, (), nr_sectors)
        segments = tuple(
            Segment(*_SEGMENT.unpack_from(raw, at + number * _SEGMENT.size))
            for number in range(min(count, BLKIF_MAX_SEGMENTS_PER_REQUEST))
        )
        return BlockRequest(operation, count, request_id, sector, segments, 0)

    def _entry(self, number: int) -> int:
        return _HEADER + (number & self.nr_entries - 1) * self.abi.size

    def _index(self, domain: "Domain", offset: int) -> int:
        return domain.hv.ram.read_u32(mfn_to_maddr(self.pages[0]) + offset)

    def _set_index(self, domain: "Domain", offset: int, value: int) -> None:
        store(domain, Maddr(mfn_to_maddr(self.pages[0]) + offset), (value & _U32).to_bytes(4, "little"))

    def _pieces(self, offset: int, length: int) -> list[tuple[Maddr, int]]:
        """Where the bytes from `offset` of the ring on are in RAM; an entry may lie across two pages."""
        pieces = []
        while length > 0:
            page, start = divmod(offset, PAGE_SIZE)
            piece = min(length, PAGE_SIZE - start)
            pieces.append((Maddr(mfn_to_maddr(self.pages[page]) + start), piece))
            offset += piece
            length -= piece
        return pieces

    def _read(self, domain: "Domain", offset: int, length: int) -> bytes:
        return b"".join(domain.hv.ram.read(maddr, piece) for maddr, piece in self._pieces(offset, length))

    def _write(self, domain: "Domain", offset: int, data: bytes) -> None:
        done = 0
        for maddr, piece in self._pieces(offset, len(data)):
            store(domain, maddr, data[done : done + piece])
            done += piece
