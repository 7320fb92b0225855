"""Holds frames of RAM against stores or loads in the engine, whatever the guest's page tables say."""

import ctypes
from typing import Final

from .engine_state import EngineStateError, check

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
PROT_ALL: Final = 7


class Protection:
    """What the guest may do to frames of RAM, whatever its page tables say: bits 1 read, 2 write, 4 execute.

    The engine makes a region without write permission read-only for its page walk, too, which then could not set A
    and D bits in page tables there. So the region's own mark is taken back after each change: `bool readonly`, the
    third byte of a MemoryRegion, whose first is `bool ram`. The engine must find it as it left it at the next change.
    """

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle
        self._find = library.find_memory_mapping_x86_64
        self._find.restype = ctypes.c_void_p
        self._find.argtypes = [ctypes.c_void_p, ctypes.c_uint64]

    def set(self, maddr: int, size: int, before: int, after: int) -> None:
        """Change it from `before` to `after` for a range that was set as one before."""
        if not before & PROT_WRITE:
            self._mark_read_only(maddr, now=False, then=True)
        where = ctypes.c_uint64(maddr), ctypes.c_uint64(size)
        check(self._library.uc_mem_protect(self._handle, *where, ctypes.c_uint32(after)), f"protect {maddr:#x}")
        if not after & PROT_WRITE:
            self._mark_read_only(maddr, now=True, then=False)

    def _mark_read_only(self, maddr: int, *, now: bool, then: bool) -> None:
        region = self._find(self._handle, maddr)
        if not region:
            raise EngineStateError(f"no region at {maddr:#x}")
        ram, mark = (ctypes.c_uint8.from_address(region + at) for at in (0, 2))
        if ram.value != 1 or mark.value != now:
            raise EngineStateError("memory region not laid out as expected")
        mark.value = then
