"""Gates of the IDT and segment descriptors, as values that can be coded and decoded.

SDM volume 3, "Segment Descriptors", "IDT Descriptors".
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from xdbg.abi.cenum import CEnum

SEGMENT_DESCRIPTOR_SIZE: Final = 8
SELECTOR_RPL: Final = 0x3
"""Fields of a selector: requested privilege, table (LDT if set), and the byte offset of the descriptor."""
SELECTOR_TI: Final = 0x4
SELECTOR_OFFSET: Final = 0xFFF8


class SystemType(CEnum):
    """Type of a descriptor whose `s` is 0, in 64-bit mode. SDM volume 3, "System Descriptor Types"."""

    LDT = 0x2
    TSS_AVAILABLE = 0x9
    TSS_BUSY = 0xB
    CALL_GATE = 0xC
    INTERRUPT_GATE = 0xE
    TRAP_GATE = 0xF


@dataclass(frozen=True, slots=True)
class IdtGate:
    """A 64-bit interrupt or trap gate; `int n` needs CPL <= dpl. SDM volume 3, "64-Bit Mode IDT"."""

    SIZE: ClassVar[int] = 16

    offset: int
    selector: int
    ist: int = 0
    type: int = SystemType.INTERRUPT_GATE
    dpl: int = 0
    present: bool = True

    def to_bytes(self) -> bytes:
        """The 16 bytes of the gate."""
        value = (
            (self.offset & 0xFFFF)
            | self.selector << 16
            | self.ist << 32
            | self.type << 40
            | self.dpl << 45
            | self.present << 47
            | (self.offset >> 16) << 48
        )
        return value.to_bytes(self.SIZE, "little")

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """The gate in the first 16 bytes of `data`; reserved bits are dropped. ValueError if there are fewer."""
        if len(data) < cls.SIZE:
            raise ValueError(f"a gate has {cls.SIZE} bytes, not {len(data)}")
        value = int.from_bytes(data[: cls.SIZE], "little")
        return cls(
            offset=(value & 0xFFFF) | (value >> 48 & 0xFFFF_FFFF_FFFF) << 16,
            selector=value >> 16 & 0xFFFF,
            ist=value >> 32 & 7,
            type=value >> 40 & 0xF,
            dpl=value >> 45 & 3,
            present=bool(value >> 47 & 1),
        )


@dataclass(frozen=True, slots=True)
class SegmentDescriptor:
    """An 8-byte descriptor of a GDT or LDT. SDM volume 3, "Segment Descriptors".

    `limit` is the raw field of 20 bits: in pages of 4 KiB if `g`. `type` is the raw field of 4 bits; `s` is True for
    code and data.
    """

    base: int = 0
    limit: int = 0xFFFFF
    type: int = 0
    s: bool = True
    dpl: int = 0
    present: bool = True
    avl: bool = False
    l: bool = False  # noqa: E741 - the bit's name in the SDM
    db: bool = False
    g: bool = False

    @property
    def last_byte(self) -> int:
        """The largest valid offset: the limit in bytes."""
        return self.limit << 12 | 0xFFF if self.g else self.limit

    @property
    def is_code(self) -> bool:
        """True for a code segment."""
        return self.s and bool(self.type & 8)

    def encode(self) -> int:
        """The descriptor as the 64-bit number that update_descriptor takes."""
        return (
            (self.limit & 0xFFFF)
            | (self.base & 0xFFFFFF) << 16
            | self.type << 40
            | self.s << 44
            | self.dpl << 45
            | self.present << 47
            | (self.limit >> 16 & 0xF) << 48
            | self.avl << 52
            | self.l << 53
            | self.db << 54
            | self.g << 55
            | (self.base >> 24 & 0xFF) << 56
        )

    @classmethod
    def decode(cls, value: int) -> Self:
        """The descriptor in a 64-bit number; every bit has its field."""
        return cls(
            base=(value >> 16 & 0xFFFFFF) | (value >> 56 & 0xFF) << 24,
            limit=(value & 0xFFFF) | (value >> 48 & 0xF) << 16,
            type=value >> 40 & 0xF,
            s=bool(value >> 44 & 1),
            dpl=value >> 45 & 3,
            present=bool(value >> 47 & 1),
            avl=bool(value >> 52 & 1),
            l=bool(value >> 53 & 1),
            db=bool(value >> 54 & 1),
            g=bool(value >> 55 & 1),
        )
