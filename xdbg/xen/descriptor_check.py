"""Which segment descriptors a guest may have in its GDT or LDT. Xen: check_descriptor(), pv/descriptor-tables.c.

Code and data segments of any base and limit are harmless: both modes of a guest run in ring 3. What would lead into
ring 0 is not: privilege levels below 3 are raised to 3; of the system descriptors only the call gate stays, with DPL 0,
so that using it faults and can be emulated; its own DPL is kept in the RPL of its selector.
"""

from typing import Final

from xdbg.abi.x86 import FLAT_RING3_CS32, FLAT_RING3_CS64

_PRESENT: Final = 1 << 47
_S: Final = 1 << 44
_DPL: Final = 3 << 45
_TYPE: Final = 0xF << 40
_CALL_GATE: Final = 0xC << 40
_GATE_RESERVED: Final = 0xFF << 32
_SELECTOR: Final = 0xFFFF << 16
_GUEST_KERNEL_RPL: Final = 3
_FIRST_RESERVED_SELECTOR: Final = 0xE000


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
    if not _gate_selector_okay(selector):
        return None
    return descriptor & ~(_DPL | _SELECTOR) | (selector & ~3 | dpl) << 16


def _gate_selector_okay(selector: int) -> bool:
    """Whether a gate may lead to this code selector. Xen: guest_gate_selector_okay()."""
    rpl = selector & 3
    return (
        selector & ~3 == 0  # the null selector: the gate is not meant to be used
        or (rpl == 3 and selector & ~3 < _FIRST_RESERVED_SELECTOR)
        or bool(selector & 4)
        or selector in {FLAT_RING3_CS32, FLAT_RING3_CS64}
    )
