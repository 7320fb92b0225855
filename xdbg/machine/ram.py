"""The machine's RAM: one anonymous mapping; a machine address is an offset in it."""

import ctypes
import mmap
import struct

from xdbg.abi.frames import PAGE_SHIFT, Maddr, Mfn

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class OutsideRamError(Exception):
    """An access touched machine addresses that the machine does not have."""

    def __init__(self, maddr: int, length: int) -> None:
        super().__init__(f"machine address {maddr:#x} + {length:#x} is outside RAM")
        self.maddr = maddr
        self.length = length


class Ram:
    """`size` bytes of zeroed memory. `buffer` is the same memory as a writable byte view, `q` as 64-bit words.

    `host_address` is where the engine finds it. Writes through any of the views are seen by the guest at once;
    translated code notices them at the next `Cpu.enter` (see `cpu`).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._mmap = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.buffer = memoryview(self._mmap)
        self.q = self.buffer.cast("Q")
        self.host_address = ctypes.addressof(ctypes.c_char.from_buffer(self._mmap))

    @property
    def nr_frames(self) -> int:
        """How many frames there are: valid mfns are 0 <= mfn < nr_frames."""
        return self.size >> PAGE_SHIFT

    def check(self, maddr: int, length: int) -> None:
        """Raise `OutsideRamError` unless all of [maddr, maddr + length) is RAM."""
        if maddr < 0 or length < 0 or maddr + length > self.size:
            raise OutsideRamError(maddr, length)

    def read(self, maddr: int, length: int) -> bytes:
        """The bytes at a machine address."""
        self.check(maddr, length)
        return bytes(self.buffer[maddr : maddr + length])

    def write(self, maddr: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes at a machine address."""
        self.check(maddr, len(data))
        self.buffer[maddr : maddr + len(data)] = data

    def read_u32(self, maddr: int) -> int:
        """The little-endian 32-bit word at a machine address."""
        self.check(maddr, 4)
        return int(_U32.unpack_from(self.buffer, maddr)[0])

    def write_u32(self, maddr: int, value: int) -> None:
        """Store a little-endian 32-bit word."""
        self.check(maddr, 4)
        _U32.pack_into(self.buffer, maddr, value)

    def read_u64(self, maddr: int) -> int:
        """The little-endian 64-bit word at a machine address."""
        self.check(maddr, 8)
        return int(_U64.unpack_from(self.buffer, maddr)[0])

    def write_u64(self, maddr: int, value: int) -> None:
        """Store a little-endian 64-bit word."""
        self.check(maddr, 8)
        _U64.pack_into(self.buffer, maddr, value)

    def page(self, mfn: Mfn) -> memoryview:
        """A writable view of one frame."""
        start = Maddr(mfn << PAGE_SHIFT)
        self.check(start, 1 << PAGE_SHIFT)
        return self.buffer[start : start + (1 << PAGE_SHIFT)]
