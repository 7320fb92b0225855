"""Which segment descriptors a guest may have in its GDT or LDT. Xen: check_descriptor(), pv/descriptor-tables.c.

Code and data segments of any base and limit are harmless: both modes of a guest run in ring 3. What would lead into
ring 0 is not: privilege levels below 3 are raised to 3; of the system descriptors only the call gate stays, with DPL 0,
so that using it faults and can be emulated; its own DPL is kept in the RPL of its selector.
"""

from typing import Final

from xdbg.abi.x86 import FIRST_RESERVED_GDT_BYTE, FLAT_KERNEL_CS
from xdbg.abi.x86_descriptors import SELECTOR_TI

_PRESENT: Final = 1 << 47
_S: Final = 1 << 44
_DPL: Final = 3 << 45
_TYPE: Final = 0xF << 40
_CALL_GATE: Final = 0xC << 40
_GATE_RESERVED: Final = 0xFF << 32
_SELECTOR: Final = 0xFFFF << 16
_GUEST_KERNEL_RPL: Final = 3


def check_descriptor(descriptor: int) -> int | None:
    """The descriptor as it may be stored, its DPL put right; None if a guest must not have it."""
    if not descriptor & _PRESENT:
        return descriptor
    dpl = descriptor >> 45 & 3
    descriptor |= _GUEST_KERNEL_RPL << 45
    # Type 0 is the second half of a call gate, and faults when it is used.
    if descriptor & _S or not descriptor & _TYPE:
        return descriptor
    if descriptor & _TYPE != _CALL_GATE or descriptor & _GATE_RESERVED:
        return None
    selector = descriptor >> 16 & 0xFFFF
    # Xen: guest_gate_selector_okay(): the guest's own part of the GDT, its kernel's flat segment, or its LDT.
    if selector >= FIRST_RESERVED_GDT_BYTE and selector != FLAT_KERNEL_CS and not selector & SELECTOR_TI:
        return None
    return descriptor & ~(_DPL | _SELECTOR) | (selector & ~3 | dpl) << 16


def is_harmless(descriptor: int) -> bool:
    """Whether a descriptor, as it is stored in a guest's table, leads nowhere but to ring 3."""
    if not descriptor & _PRESENT:
        return True
    if descriptor & _S or not descriptor & _TYPE:
        return descriptor & _DPL == _DPL
    return descriptor & (_TYPE | _DPL | _GATE_RESERVED) == _CALL_GATE
