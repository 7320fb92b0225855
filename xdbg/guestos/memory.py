"""A guest's memory as a profile sees it: bytes at virtual addresses, each in an address space named by its cr3."""

import struct
from typing import Final, Protocol

from xdbg.abi.frames import Maddr, Vaddr

_U64: Final = struct.Struct("<Q")


class GuestMemory(Protocol):
    """Whoever knows the guest's page tables. Reading changes nothing in the guest.

    All methods raise `machine.paging.NotMappedError` if not all of the memory is mapped.
    """

    def read_kernel(self, vaddr: Vaddr, length: int) -> bytes:
        """Bytes of the kernel's address space."""
        ...

    def read(self, cr3: Maddr, vaddr: Vaddr, length: int) -> bytes:
        """Bytes of the address space that `cr3` leads to."""
        ...


def read_u64(memory: GuestMemory, vaddr: Vaddr) -> int:
    """The 64-bit word at a kernel address; raises `NotMappedError`."""
    value: int = _U64.unpack(memory.read_kernel(vaddr, _U64.size))[0]
    return value
