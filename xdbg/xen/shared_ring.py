"""Rings in a page that a guest shares with Xen's own backends: the console's and the store's.

A ring is an array of bytes with two indices that run freely: the producer's and the consumer's. Byte N is at N modulo
the size, a power of two; what lies between the indices is in the ring. The page is the guest's: its indices may be
nonsense. So each call reads every index once, and nothing moves when they are more than a ring apart.

The guest may also give its page back or make a page table of it; then nobody may write there on its behalf. Domain 0
would hold a mapping that prevents that; this Xen looks each time instead.
"""

from dataclasses import dataclass

from xdbg.abi.frames import Maddr, Mfn, mfn_to_maddr

from .domain import Domain
from .events import MemoryWritten
from .page_info import PGT_NONE, PGT_WRITABLE_PAGE

_U32 = 0xFFFF_FFFF


class RingIndexError(Exception):
    """The guest's index is more than a ring away from the other one."""


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where in its page a ring of `size` bytes is: offsets of its bytes and of its two 32-bit indices."""

    data: int
    size: int
    consumer: int
    producer: int


def is_plain_memory(domain: Domain, mfn: Mfn) -> bool:
    """Whether a frame is the domain's and may be written to: no page table, no descriptors, not given back."""
    info = domain.hv.page_info
    return info.owner(mfn) == domain.domid and info.type_of(mfn) in (PGT_NONE, PGT_WRITABLE_PAGE)


def take(domain: Domain, page: Mfn, ring: RingLayout, limit: int | None = None) -> bytes:
    """Take the bytes that the guest has put into its ring, at most `limit` of them. Raises `RingIndexError`."""
    ram = domain.hv.ram
    base = mfn_to_maddr(page)
    consumer = ram.read_u32(base + ring.consumer)
    length = _distance(consumer, ram.read_u32(base + ring.producer), ring)
    if limit is not None:
        length = min(length, limit)
    if length == 0:
        return b""
    start = consumer % ring.size
    data = ram.read(base + ring.data, ring.size)
    store_u32(domain, Maddr(base + ring.consumer), consumer + length)
    return (data + data)[start : start + length]


def put(domain: Domain, page: Mfn, ring: RingLayout, waiting: bytearray) -> bool:
    """Move bytes from the front of `waiting` into the guest's ring while there is room; whether any fitted.

    Raises `RingIndexError`.
    """
    ram = domain.hv.ram
    base = mfn_to_maddr(page)
    producer = ram.read_u32(base + ring.producer)
    used = _distance(ram.read_u32(base + ring.consumer), producer, ring)
    length = min(len(waiting), ring.size - used)
    if length == 0:
        return False
    start = producer % ring.size
    first = min(length, ring.size - start)
    store(domain, Maddr(base + ring.data + start), waiting[:first])
    if length > first:
        store(domain, Maddr(base + ring.data), waiting[first:length])
    del waiting[:length]
    store_u32(domain, Maddr(base + ring.producer), producer + length)
    return True


def _distance(consumer: int, producer: int, ring: RingLayout) -> int:
    """How many bytes are in a ring with these indices."""
    length = producer - consumer & _U32
    if length > ring.size:
        raise RingIndexError
    return length


def store(domain: Domain, maddr: Maddr, data: bytes | bytearray) -> None:
    """Write to a guest's page on behalf of a backend."""
    hv = domain.hv
    hv.ram.write(maddr, data)
    if hv.observer is not None:
        hv.observer.observe(domain.vcpus[0], MemoryWritten(maddr, len(data)))


def store_u32(domain: Domain, maddr: Maddr, value: int) -> None:
    """Write a 32-bit word, cut to its size."""
    store(domain, maddr, (value & _U32).to_bytes(4, "little"))
