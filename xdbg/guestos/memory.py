"""A guest's memory as a profile sees it: bytes at virtual addresses, of the kernel or of an address space named by its cr3."""

import struct
from typing import Final, Protocol

from xdbg.abi.frames import Maddr

_U64: Final = struct.Struct("<Q")


class UnreadableError(Exception):
    """No memory is mapped at `vaddr`."""

    def __init__(self, vaddr: int) -> None:
        super().__init__(f"guest address {vaddr:#x} is not mapped")
        self.vaddr = vaddr


class GuestMemory(Protocol):
    """Whoever knows the guest's page tables; reading changes nothing in the guest."""

    def read_kernel(self, vaddr: int, length: int) -> bytes:
        """Exactly `length` bytes of the kernel's address space; raises `UnreadableError`."""
        ...

    def write_kernel(self, vaddr: int, data: bytes) -> None:
        """Change the kernel's memory on behalf of a debugger; raises `UnreadableError` before anything is changed."""
        ...

    def read(self, cr3: Maddr, vaddr: int, length: int) -> bytes:
        """Exactly `length` bytes of the address space that `cr3` leads to; raises `UnreadableError`."""
        ...


def read_u64(memory: GuestMemory, vaddr: int) -> int:
    """The 64-bit word at a kernel address; raises `UnreadableError`."""
    value: int = _U64.unpack(memory.read_kernel(vaddr, _U64.size))[0]
    return value
