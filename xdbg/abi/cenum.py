"""Names for the numbers of a C header, the common prefix dropped.

`EVTCHNOP_bind_virq` is `EvtchnOp.BIND_VIRQ`: the class keeps the prefix in `c_prefix`, a member is the rest in
capitals; a digit in front becomes a word (`4gb_segments` is FOUR_GB_SEGMENTS). A test compares each value with the C
header. A class without a prefix names numbers of the processor, which are in no header of Xen.

Bits are IntEnum as well, not IntFlag: `rflags & Rflags.IF` is then an operation of plain integers, eight times as fast.
"""

from enum import IntEnum
from typing import ClassVar


class CEnum(IntEnum):
    """Base of the enumerations of the ABI: `class EvtchnOp(CEnum, prefix="EVTCHNOP_")`."""

    c_prefix: ClassVar[str]

    def __init_subclass__(cls, *, prefix: str = "") -> None:
        cls.c_prefix = prefix

    @classmethod
    def name_of(cls, value: int) -> str:
        """The member's name, or the number in hex if the ABI knows none."""
        member = cls._value2member_map_.get(value)
        return hex(value) if member is None else member.name


class CBits(CEnum):
    """Base of the sets of bits of the ABI; members may also be masks of several bits."""

    @classmethod
    def names_in(cls, value: int) -> str:
        """The bits that are set, as "CF|ZF", lowest first; what has no name in hex; "0" if none is set."""
        names = []
        rest = value
        for member in sorted(cls):
            if member and value & member == member:
                names.append(member.name)
                rest &= ~member
        if rest:
            names.append(hex(rest))
        return "|".join(names) or "0"
