"""The virtual IDT of a PV guest: what set_trap_table takes. Xen public/arch-x86/xen.h."""

from typing import Final

from xdbg.abi.cstruct import U8, U16, U64, CStruct, abi

TI_DPL_MASK: Final = 0x3
"""Bits of `flags`: least privileged virtual ring from which `int n` may use the entry. Xen: TI_GET_DPL."""
TI_IF: Final = 0x4
"""Bit of `flags`: deliver with the upcall mask set, as an interrupt gate clears RFLAGS.IF. Xen: TI_GET_IF."""


@abi(size=16)
class TrapInfo(CStruct):
    """struct trap_info: one virtual gate; a table of them ends with an entry whose address is 0.

    Xen public/arch-x86/xen.h.
    """

    vector: U8
    flags: U8
    cs: U16
    address: U64

    @property
    def dpl(self) -> int:
        """The gate's DPL, 0 to 3; guest kernel mode counts as ring 1. Xen: TI_GET_DPL."""
        return self.flags & TI_DPL_MASK

    @property
    def masks_events(self) -> bool:
        """True if entering the handler sets the upcall mask. Xen: TI_GET_IF."""
        return bool(self.flags & TI_IF)
