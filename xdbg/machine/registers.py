"""The registers of the one CPU, live, and the names of registers and flag bits.

Intel SDM vol. 1, "Basic Program Execution Registers"; vol. 3, "Segment Descriptors".

Reading and writing goes to the engine's own state: there is no copy, so nothing needs to be fetched or written back.
Writing CS and SS sets the selector alone: behind them is then flat 64-bit code and data of the lowest privilege,
whatever the tables say. `load_code` gives both their descriptors, which may be those of 32-bit code. DS, ES, FS and GS
load a descriptor as `mov` to a segment register does.
"""

import ctypes
import struct
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr

from .clock import Clock
from .engine_state import CR, EFLAGS, EIP, GDT, HFLAGS, IDT, LDT, SEGMENT_SIZE, SEGMENTS, TR
from .paging import NotMappedError, read_virtual
from .ram import Ram

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

GPR_NAMES: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
"""In the order of `Cpu.gpr`, which is that of instruction encodings."""

CF: Final = 1 << 0
PF: Final = 1 << 2
AF: Final = 1 << 4
ZF: Final = 1 << 6
SF: Final = 1 << 7
TF: Final = 1 << 8
IF: Final = 1 << 9
DF: Final = 1 << 10
OF: Final = 1 << 11
IOPL: Final = 3 << 12
NT: Final = 1 << 14
RF: Final = 1 << 16
VM: Final = 1 << 17
AC: Final = 1 << 18

DR6_BS: Final = 1 << 14
"""Cause of a #DB: single step."""

ES, CS, SS, DS, FS, GS = range(6)
"""Segment registers, in the order of instruction encodings."""

FXSAVE_SIZE: Final = 512

_FPU_INITIAL: Final = struct.pack("<H22xI484x", 0x37F, 0x1F80)
"""FCW and MXCSR as FNINIT and RESET leave them; all registers empty."""

_ENV_SIZE: Final = 1024
_FLAGS_OF_CS: Final = (SEGMENTS + CS * SEGMENT_SIZE) // 4 + 5
_FLAT_CODE: Final = 0x00AF_FB00
_FLAT_DATA: Final = 0x00CF_F300
"""High words of the descriptors behind CS and SS: what a far return looks at."""
_LONG: Final = 1 << 21
"""The bit for 64-bit code in the high word of a descriptor."""
_COMPUTED: Final = CF | PF | AF | ZF | SF | DF | OF
_HFLAGS_CPL: Final = 3
_GP: Final = 13
_NP: Final = 11
_CPL: Final = 3
_U32: Final = 0xFFFF_FFFF


class SelectorError(Exception):
    """A selector that can not be loaded: hardware raises `vector` (#GP or #NP) with `error_code`."""

    def __init__(self, selector: int, why: str, vector: int = _GP) -> None:
        super().__init__(f"selector {selector:#x}: {why}")
        self.selector = selector
        self.vector = vector
        self.error_code = selector & 0xFFFC


class _Word:
    """A 64-bit word of a `Registers`' engine state."""

    def __init__(self, offset: int, doc: str) -> None:
        self._index = offset // 8
        self.__doc__ = doc

    def __get__(self, registers: "Registers", owner: type) -> int:
        return registers.env[self._index]

    def __set__(self, registers: "Registers", value: int) -> None:
        registers.env[self._index] = value


class _Selector:
    """A segment register whose descriptor is loaded with it."""

    def __init__(self, number: int, doc: str) -> None:
        self._number = number
        self.__doc__ = doc

    def __get__(self, registers: "Registers", owner: type) -> int:
        return registers.env32[(SEGMENTS + self._number * SEGMENT_SIZE) // 4]

    def __set__(self, registers: "Registers", selector: int) -> None:
        registers.load_segment(self._number, selector)


class _FlatSelector:
    """CS or SS: the high word of the descriptor is that of a flat segment."""

    def __init__(self, number: int, high: int, doc: str) -> None:
        self._at = (SEGMENTS + number * SEGMENT_SIZE) // 4
        self._high = high
        self.__doc__ = doc

    def __get__(self, registers: "Registers", owner: type) -> int:
        return registers.env32[self._at]

    def __set__(self, registers: "Registers", selector: int) -> None:
        env32 = registers.env32
        env32[self._at] = selector
        env32[self._at + 5] = self._high


class Registers:
    """`gpr` is a writable memoryview of the 16 general registers, unsigned 64-bit, indexed by RAX..R15."""

    rip = _Word(EIP, "The instruction pointer.")
    fs_base = _Word(SEGMENTS + FS * SEGMENT_SIZE + 8, "The base of FS.")
    gs_base = _Word(SEGMENTS + GS * SEGMENT_SIZE + 8, "The base of GS.")
    cs = _FlatSelector(CS, _FLAT_CODE, "The selector; writing it makes the code that of a flat 64-bit segment.")
    ss = _FlatSelector(SS, _FLAT_DATA, "The selector; writing it makes the stack that of a flat segment.")
    ds = _Selector(DS, "Writing loads the descriptor; raises `SelectorError`.")
    es = _Selector(ES, "Writing loads the descriptor; raises `SelectorError`.")
    fs = _Selector(FS, "Writing loads the descriptor, base included; raises `SelectorError`.")
    gs = _Selector(GS, "Writing loads the descriptor, base included; raises `SelectorError`.")

    def __init__(self, ram: Ram, library: ctypes.CDLL, clock: Clock, env: int) -> None:
        self._ram = ram
        self._library = library
        self._clock = clock
        self._argument = ctypes.c_void_p(ctypes.addressof(clock))
        self._fpu_image = ctypes.create_string_buffer(FXSAVE_SIZE)
        view = memoryview((ctypes.c_uint8 * _ENV_SIZE).from_address(env)).cast("B")
        self.env = view.cast("Q")
        self.env32 = view.cast("I")
        self.gpr = self.env[:16]
        shared = (ctypes.c_uint8 * Clock.engine.offset).from_address(ctypes.addressof(clock))
        self._words = memoryview(shared).cast("B").cast("Q")
        self.env32[HFLAGS // 4] |= _HFLAGS_CPL
        self.cs, self.ss = 0xE033, 0xE02B
        for number in (DS, ES, FS, GS):
            self.load_segment(number, 0)
        self.set_gdt(Vaddr(0), 0)
        self.set_ldt(Vaddr(0), 0)
        self.gpr[:] = memoryview(bytes(16 * 8)).cast("Q")
        self.rip = 0
        self.rflags = 2
        self.cr3 = Maddr(0)
        self.write_fpu(_FPU_INITIAL)

    @property
    def rflags(self) -> int:
        """RFLAGS, all bits."""
        return self._words[_RFLAGS]

    @rflags.setter
    def rflags(self, value: int) -> None:
        self._library.xdbg_set_rflags(self._argument, value)

    def clear_flags(self, mask: int) -> None:
        """Clear flags of RFLAGS, none of which may be CF, PF, AF, ZF, SF, DF or OF (those the engine has elsewhere)."""
        assert not mask & _COMPUTED
        self.env[EFLAGS // 8] &= ~mask
        self._words[_RFLAGS] &= ~mask

    @property
    def cr3(self) -> Maddr:
        """The machine address of the level 4 table. Writing flushes the TLB at the next entry."""
        return Maddr(self._words[_CR3])

    @cr3.setter
    def cr3(self, value: int) -> None:
        words = self._words
        words[_CR3] = value
        words[_CR3_PENDING] = 1

    @property
    def cr2(self) -> Vaddr:
        """The address of the last page fault."""
        return Vaddr(self._words[_CR2])

    @cr2.setter
    def cr2(self, value: int) -> None:
        self._words[_CR2] = value

    @property
    def cr0_ts(self) -> bool:
        """CR0.TS: x87 and SSE instructions are #NM."""
        return bool(self.env[CR // 8] & 8)

    @cr0_ts.setter
    def cr0_ts(self, value: bool) -> None:
        self._library.xdbg_set_cr0_ts(self._argument, int(value))

    def flush_tlb(self) -> None:
        """Forget all translations, at the next entry."""
        self._words[_TLB_PENDING] = 1

    def set_gdt(self, base: Vaddr, limit: int) -> None:
        """Where the descriptors of the GDT are; `limit` is the last valid offset."""
        self.env[(GDT + 8) // 8] = base
        self.env32[(GDT + 16) // 4] = limit

    def set_idt(self, base: Vaddr, limit: int) -> None:
        """What `sidt` shows; no exception goes through it."""
        self.env[IDT // 8 + 1] = base
        self.env32[IDT // 4 + 4] = limit

    def set_tr(self, selector: int) -> None:
        """What `str` shows."""
        self.env32[TR // 4] = selector

    def set_ldt(self, base: Vaddr, limit: int, selector: int = 0) -> None:
        """Where the descriptors of the LDT are; `limit` 0 for none. `selector` is what `sldt` shows."""
        self.env32[LDT // 4] = selector
        self.env[(LDT + 8) // 8] = base
        self.env32[(LDT + 16) // 4] = limit

    def table(self, which: int) -> tuple[Vaddr, int]:
        """Base and limit of a descriptor table: `engine_state.GDT` or `LDT`."""
        return Vaddr(self.env[which // 8 + 1]), self.env32[which // 4 + 4]

    def read_fpu(self) -> bytes:
        """x87 and SSE state as the 512-byte FXSAVE image. Intel SDM vol. 1, "FXSAVE Area"."""
        self._library.xdbg_read_fpu(self._argument, self._fpu_image)
        return self._fpu_image.raw

    def write_fpu(self, image: bytes) -> None:
        """Set x87 and SSE state from an FXSAVE image."""
        if len(image) != FXSAVE_SIZE:
            raise ValueError(f"an FXSAVE image has {FXSAVE_SIZE} bytes, not {len(image)}")
        self._library.xdbg_write_fpu(self._argument, image)

    def selector(self, number: int) -> int:
        """What a segment register (by number) holds."""
        return self.env32[(SEGMENTS + number * SEGMENT_SIZE) // 4]

    def segment_base(self, number: int) -> int:
        """The base of a segment register (by number)."""
        return self.env[(SEGMENTS + number * SEGMENT_SIZE) // 8 + 1]

    def put_selector(self, number: int, selector: int) -> None:
        """Write a segment register's selector alone; base and limit stay."""
        self.env32[(SEGMENTS + number * SEGMENT_SIZE) // 4] = selector

    @property
    def is_64bit(self) -> bool:
        """Whether the code behind CS is of 64 bits, else of 32."""
        return bool(self.env32[_FLAGS_OF_CS] & _LONG)

    def load_code(self, cs: int, code: int, ss: int, stack: int) -> None:
        """Give CS and SS these selectors and descriptors, which the caller has checked as `iret` does."""
        self._put_descriptor(CS, cs, code & _U32, code >> 32)
        self._put_descriptor(SS, ss, stack & _U32, stack >> 32)

    def load_segment(self, number: int, selector: int) -> None:
        """Load DS, ES, FS or GS (by number) as `mov` to it does; raises `SelectorError` and changes nothing."""
        low, high = (0, 0) if not selector & 0xFFFC else self._descriptor(selector)
        self._put_descriptor(number, selector, low, high)

    def _put_descriptor(self, number: int, selector: int, low: int, high: int) -> None:
        at = SEGMENTS + number * SEGMENT_SIZE
        limit = low & 0xFFFF | high & 0xF_0000
        self.env32[at // 4] = selector
        self.env[at // 8 + 1] = low >> 16 | (high & 0xFF) << 16 | high & 0xFF00_0000
        self.env32[at // 4 + 4] = limit << 12 | 0xFFF if high & 1 << 23 else limit
        self.env32[at // 4 + 5] = high

    def _descriptor(self, selector: int) -> tuple[int, int]:
        """The two words of a data (or readable code) descriptor."""
        table = LDT if selector & 4 else GDT
        base, limit = self.table(table)
        offset = selector & 0xFFF8
        if offset + 7 > limit:
            raise SelectorError(selector, "beyond the descriptor table's limit")
        try:
            raw = read_virtual(self._ram, self.cr3, base + offset, 8)
        except NotMappedError:
            raise SelectorError(selector, "its descriptor is not mapped") from None
        low, high = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
        system, code, conforming, readable = not high & 1 << 12, high & 1 << 11, high & 1 << 10, high & 1 << 9
        if system or (code and not readable):
            raise SelectorError(selector, "neither data nor readable code")
        if not (code and conforming) and (high >> 13 & 3) < max(_CPL, selector & 3):
            raise SelectorError(selector, "more privileged than the guest")
        if not high & 1 << 15:
            raise SelectorError(selector, "not present", _NP)
        return low, high


_RFLAGS: Final = Clock.rflags.offset // 8
_CR2: Final = Clock.cr2.offset // 8
_CR3: Final = Clock.cr3.offset // 8
_CR3_PENDING: Final = Clock.cr3_pending.offset // 8
_TLB_PENDING: Final = Clock.tlb_pending.offset // 8
