"""All that a vcpu owns of the CPU, as plain data: what is exchanged when another vcpu is scheduled."""

import ctypes
import struct
from dataclasses import dataclass

from .clock import Clock
from .registers import FS, FXSAVE_SIZE, GPR_NAMES, GS

_SEGMENT = struct.Struct("<I4xQII")
_HEAD = struct.Struct("<20Q")
_SEGMENTS_AT = tuple(_HEAD.size + number * _SEGMENT.size for number in range(6))
_FPU_AT = _HEAD.size + 6 * _SEGMENT.size


@dataclass(frozen=True, slots=True)
class CpuState:
    """General registers, RIP, RFLAGS, CR2, CR0.TS, segment registers with their descriptors, FPU; not CR3, GDT or
    `count`.

    `image` is `struct state` of state.c: plain numbers, the same in every process.
    """

    image: bytes

    @property
    def gpr(self) -> dict[str, int]:
        """The general registers by name."""
        return dict(zip(GPR_NAMES, _HEAD.unpack_from(self.image), strict=False))

    @property
    def rip(self) -> int:
        """The instruction pointer."""
        return int(_HEAD.unpack_from(self.image)[16])

    @property
    def rflags(self) -> int:
        """RFLAGS."""
        return int(_HEAD.unpack_from(self.image)[17])

    @property
    def selectors(self) -> tuple[int, ...]:
        """ES, CS, SS, DS, FS, GS: in the order of instruction encodings."""
        return tuple(_SEGMENT.unpack_from(self.image, at)[0] for at in _SEGMENTS_AT)

    @property
    def fs_base(self) -> int:
        """The base of FS."""
        return int(_SEGMENT.unpack_from(self.image, _SEGMENTS_AT[FS])[1])

    @property
    def gs_base(self) -> int:
        """The base of GS."""
        return int(_SEGMENT.unpack_from(self.image, _SEGMENTS_AT[GS])[1])

    @property
    def fpu(self) -> bytes:
        """The FXSAVE image."""
        return self.image[_FPU_AT:]

    @classmethod
    def take(cls, library: ctypes.CDLL, clock: Clock) -> "CpuState":
        """The CPU's present state."""
        buffer = ctypes.create_string_buffer(_FPU_AT + FXSAVE_SIZE)
        library.xdbg_save(ctypes.byref(clock), buffer)
        return cls(buffer.raw)

    def put(self, library: ctypes.CDLL, clock: Clock) -> None:
        """Make it the CPU's state."""
        library.xdbg_load(ctypes.byref(clock), self.image)
