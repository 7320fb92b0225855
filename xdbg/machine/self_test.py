"""Runs a few instructions in each new CPU, to see that the engine's hidden state was found and does what it is taken
to do.

The first frames of RAM are borrowed and given back as they were. It also makes the engine run a block to its end
once: only then does it begin to announce translations, which the clock needs.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import Maddr, Vaddr

from .engine_state import EngineStateError
from .exits import DeadlineExit, ExceptionExit, Exit, StepExit, SyscallExit
from .registers import RAX, RBX, RCX, RDX

if TYPE_CHECKING:
    from .cpu import Cpu

_BORROWED: Final = 5 * 4096
_CODE: Final = 0x4000
_CODE_READ_ONLY: Final = _CODE | 5
_TABLE: Final = 7

#   0: 90              nop
#   1: 48 ff c0        inc rax
#   4: 01 c3           add ebx, eax
#   6: 48 ff c1        inc rcx
#   9: eb f6           jmp 1
#  16: 48 89 02        mov [rdx], rax
#  19: 0f 05           syscall
_LOOP: Final = bytes.fromhex("90 48ffc0 01c3 48ffc1 ebf6")
_TRAPS: Final = bytes.fromhex("488902 0f05")


def self_test(cpu: "Cpu") -> None:
    """Raise `EngineStateError` if the engine does not behave; leaves RAM and registers as in a new CPU."""
    ram = cpu.ram
    if ram.size < _BORROWED:
        raise EngineStateError(f"RAM must have {_BORROWED} bytes at least")
    borrowed = ram.read(Maddr(0), _BORROWED)
    ram.write(Maddr(0), bytes(_BORROWED))
    for table in range(3):
        ram.write_u64(table << 12, (table + 1) << 12 | _TABLE)
    ram.write_u64(3 << 12, _CODE_READ_ONLY)
    ram.write(Maddr(_CODE), _LOOP)
    ram.write(Maddr(_CODE + 16), _TRAPS)
    new = cpu.save()
    cpu.cr3 = Maddr(0)
    _check(cpu)
    ram.write(Maddr(0), borrowed)
    cpu.load(new)
    cpu.count = 0
    cpu.flush_tlb()


def _check(cpu: "Cpu") -> None:
    gpr = cpu.gpr
    cpu.rip = 0
    _expect("a step", cpu.step(), StepExit(), cpu.rip, 1)
    _expect("a deadline inside a block", cpu.enter(100), DeadlineExit(), gpr[RAX] * 100 + gpr[RCX], 2525)
    _expect("RFLAGS", DeadlineExit(), DeadlineExit(), cpu.rflags & 0x8D5, 0)
    cpu.ram.write(Maddr(_CODE + 4), bytes.fromhex("6690"))
    before = gpr[RBX]
    _expect("rewritten code", cpu.enter(200), DeadlineExit(), gpr[RBX], before)
    cpu.rip, gpr[RDX] = 16, 0x123456
    not_present = ExceptionExit(14, 6, cr2=Vaddr(0x123456))
    for _ in range(3):  # unless cured, the second is a double fault
        _expect("a page fault", cpu.enter(300), not_present, cpu.rip, 16)
    gpr[RDX] = 0
    read_only = ExceptionExit(14, 7, cr2=Vaddr(0))
    _expect("a write to a read-only page", cpu.enter(300), read_only, cpu.rip, 16)
    cpu.rip = 19
    _expect("a system call", cpu.enter(300), SyscallExit(), cpu.rip, 21)
    _expect("the count", DeadlineExit(), DeadlineExit(), cpu.count, 201)


def _expect(what: str, found: Exit, expected: Exit, value: int, wanted: int) -> None:
    if found != expected or value != wanted:
        raise EngineStateError(f"{what}: {found} and {value:#x}, not {expected} and {wanted:#x}")
