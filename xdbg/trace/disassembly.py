"""The instruction at an address, as text. A disassembler is made when it is first needed."""

from typing import Any

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Vaddr
from xdbg.machine.paging import NotMappedError, read_virtual
from xdbg.xen.vcpu import Vcpu

MAX_INSN = 15
"""The longest instruction of x86. SDM volume 2, "Instruction Format"."""


class Disassembler:
    """x86-64 in AT&T form, as gdb writes it."""

    def __init__(self) -> None:
        self._engines: dict[bool, Any] = {}

    def text(self, code: bytes, vaddr: Vaddr, *, is_64bit: bool = True) -> tuple[str, int] | None:
        """The first instruction of `code`, which stands at `vaddr`, and its length in bytes; None if it is none."""
        if is_64bit not in self._engines:
            self._engines[is_64bit] = _make_engine(is_64bit=is_64bit)
        for _, length, mnemonic, operands in self._engines[is_64bit].disasm_lite(code, vaddr, 1):
            return f"{mnemonic} {operands}".rstrip(), length
        return None


def _make_engine(*, is_64bit: bool) -> Any:
    import capstone  # noqa: PLC0415 - a run without a trace of exceptions need not load it

    mode = capstone.CS_MODE_64 if is_64bit else capstone.CS_MODE_32
    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, mode)  # type: ignore[no-untyped-call]
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    return engine


def read_code(vcpu: Vcpu, vaddr: Vaddr) -> bytes:
    """The bytes of at most one instruction at `vaddr` in the page table in use, as many as are mapped.

    Nothing is asked about rights: what the guest was refused is shown all the same.
    """
    ram, cr3 = vcpu.domain.hv.ram, vcpu.cr3
    in_page = min(MAX_INSN, PAGE_SIZE - (vaddr & PAGE_MASK))
    try:
        code = read_virtual(ram, cr3, vaddr, in_page)
        if in_page < MAX_INSN:
            try:
                code += read_virtual(ram, cr3, Vaddr(vaddr + in_page), MAX_INSN - in_page)
            except NotMappedError:
                return code
    except NotMappedError:
        return b""
    return code
