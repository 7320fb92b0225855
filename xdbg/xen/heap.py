"""Xen's allocator of frames. Xen: common/page_alloc.c.

A free frame is always zero: it is scrubbed when it is freed, so nothing of one domain is ever seen by another. The
lowest fit is taken, so the same machine always gives the same frames. Frame 0 is never given to anybody.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import PAGE_SHIFT, PAGE_SIZE, Mfn
from xdbg.abi.mmu import DOMID_XEN

from .page_info import PGC_ALLOCATED, PGC_XEN_HEAP, PageInfoTable

if TYPE_CHECKING:
    from xdbg.machine.ram import Ram

_ZERO_PAGE: Final = bytes(PAGE_SIZE)


class OutOfFramesError(Exception):
    """No run of `nr` free frames is left."""

    def __init__(self, nr: int) -> None:
        super().__init__(f"the machine has no {nr} free frames in a row")
        self.nr = nr


class Heap:
    """The free frames of the machine; `free_map` holds 1 for each of them."""

    __slots__ = ("free_map", "page_info", "ram")

    def __init__(self, ram: "Ram", page_info: PageInfoTable) -> None:
        self.ram = ram
        self.page_info = page_info
        self.free_map = bytearray(b"\1") * page_info.nr_frames
        self.free_map[0] = 0

    @property
    def nr_free(self) -> int:
        """How many frames nobody owns."""
        return self.free_map.count(1)

    def has_room(self, nr: int) -> bool:
        """Whether `alloc` would find `nr` frames in a row."""
        return b"\1" * nr in self.free_map

    def alloc(self, domid: int, nr: int = 1, *, align: int = 1, limit: int | None = None) -> Mfn:
        """The first of `nr` frames in a row, all zero, now owned by `domid`; raises `OutOfFramesError`.

        It is a multiple of `align`; all of them are below frame `limit`. With DOMID_XEN they are Xen's own.
        """
        end = self.page_info.nr_frames if limit is None else limit
        run = b"\1" * nr
        start = self.free_map.find(run, 0, end)
        while start >= 0 and start % align:
            start = self.free_map.find(run, start - start % align + align, end)
        if start < 0 or nr < 1:
            raise OutOfFramesError(nr)
        self.free_map[start : start + nr] = bytes(nr)
        self.page_info.assign(start, nr, domid, PGC_XEN_HEAP if domid == DOMID_XEN else PGC_ALLOCATED)
        return Mfn(start)

    def alloc_shared(self, domid: int) -> Mfn:
        """One zeroed frame of Xen's that `domid` may map: shared_info, grant table."""
        mfn = self.alloc(DOMID_XEN)
        self.page_info.share_with_guest(mfn, domid)
        return mfn

    def free(self, mfn: Mfn) -> None:
        """Take back a frame to which nothing refers any more, and scrub it."""
        self.page_info.release(mfn)
        self.ram.buffer[mfn << PAGE_SHIFT : (mfn + 1) << PAGE_SHIFT] = _ZERO_PAGE
        self.free_map[mfn] = 1
