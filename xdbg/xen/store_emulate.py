"""The instructions by which a guest kernel writes to its page tables: decoded, and their effect worked out as values.

Xen uses its x86 emulator here (x86_emulate.c). This one knows the stores of at most 8 bytes that kernels use on page
table entries: mov, movnti, xchg, cmpxchg, xadd, and, or, xor, add, sub, adc, sbb, inc, dec, not, neg, bts, btr, btc,
stos and movs (one element at a time), locked or not, in any addressing form. For any other `decode_store` says None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import capstone
from capstone import x86

from xdbg.abi.x86 import Rflags

from .vcpu import Vcpu

_U64: Final = (1 << 64) - 1
_MAX_STORE: Final = 8
_ARITHMETIC: Final = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF
_REP_PREFIXES: Final = frozenset({0xF2, 0xF3})

_ENGINE: Final = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)  # type: ignore[no-untyped-call]
_ENGINE.detail = True


def _registers() -> dict[int, tuple[int, int, int]]:
    """Capstone's register -> (index in `Cpu.gpr`, size, shift)."""
    legacy = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    low = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
    names = {}
    for index in range(16):
        if index < len(legacy):
            forms = ((f"r{legacy[index]}", 8), (f"e{legacy[index]}", 4), (legacy[index], 2), (low[index], 1))
        else:
            forms = ((f"r{index}", 8), (f"r{index}d", 4), (f"r{index}w", 2), (f"r{index}b", 1))
        names.update({name: (index, size, 0) for name, size in forms})
    names.update({name: (index, 1, 8) for index, name in enumerate(("ah", "ch", "dh", "bh"))})
    return {getattr(x86, f"X86_REG_{name.upper()}"): where for name, where in names.items()}


_REGISTERS: Final = _registers()


@dataclass(frozen=True, slots=True)
class Register:
    """A general register, or a part of one: `size` bytes of `Cpu.gpr[index]` from bit `shift` on."""

    index: int
    size: int
    shift: int

    def read(self, vcpu: Vcpu) -> int:
        """Its value."""
        return int(vcpu.domain.hv.cpu.gpr[self.index]) >> self.shift & (1 << 8 * self.size) - 1

    def write(self, vcpu: Vcpu, value: int) -> None:
        """Give it a value: 32 bits clear the upper half, 8 and 16 leave the rest alone."""
        gpr = vcpu.domain.hv.cpu.gpr
        if self.size >= 4:
            gpr[self.index] = value
        else:
            mask = (1 << 8 * self.size) - 1 << self.shift
            gpr[self.index] = gpr[self.index] & ~mask & _U64 | value << self.shift


@dataclass(frozen=True, slots=True)
class Store:
    """A decoded store: `name` of the operation, `size` bytes at [segment base + base + index * scale + displacement].

    `source` is a register, an immediate value, or None; `rip_relative`, `address_mask` as the addressing form has them.
    """

    name: str
    length: int
    size: int
    segment: str
    base: Register | None
    index: Register | None
    scale: int
    displacement: int
    rip_relative: bool
    address_mask: int
    source: Register | int | None
    repeated: bool

    @property
    def is_string(self) -> bool:
        """Whether it is stos or movs, which move on in memory."""
        return self.name in {"stos", "movs"}

    def address(self, vcpu: Vcpu) -> int:
        """The address that it writes to."""
        cpu = vcpu.domain.hv.cpu
        address = self.displacement
        if self.base is not None:
            address += self.base.read(vcpu)
        if self.index is not None:
            address += self.index.read(vcpu) * self.scale
        if self.rip_relative:
            address += cpu.rip + self.length
        if self.name in _BIT_OPERATIONS and isinstance(self.source, Register):
            bits = 8 * self.size
            offset = self.source.read(vcpu)
            address += ((offset ^ 1 << bits - 1) - (1 << bits - 1)) // bits * self.size
        address &= self.address_mask
        match self.segment:
            case "fs":
                address += cpu.fs_base
            case "gs":
                address += cpu.gs_base
        return address & _U64


@lru_cache(maxsize=1024)
def decode_store(code: bytes) -> Store | None:
    """The store that the bytes begin with; None if they are something else. A pure function, so remembered."""
    instruction = next(_ENGINE.disasm(code, 0, 1), None)  # type: ignore[no-untyped-call]
    if instruction is None or not instruction.operands or len(instruction.operands) > 2:
        return None
    name = _BASE_NAMES.get(instruction.insn_name(), instruction.insn_name())
    target = instruction.operands[0]
    if name not in _OPERATIONS or target.type != x86.X86_OP_MEM or target.size > _MAX_STORE:
        return None
    source: Register | int | None = None
    if len(instruction.operands) == 2:
        operand = instruction.operands[1]
        if operand.type == x86.X86_OP_REG:
            source = _register(operand.reg)
            if source is None:
                return None
        elif operand.type == x86.X86_OP_IMM:
            source = operand.imm & (1 << 8 * target.size) - 1
    memory = target.mem
    return Store(
        name=name,
        length=instruction.size,
        size=target.size,
        segment=instruction.reg_name(memory.segment) or "" if memory.segment else "",
        base=_register(memory.base),
        index=_register(memory.index),
        scale=memory.scale,
        displacement=memory.disp,
        rip_relative=memory.base == x86.X86_REG_RIP,
        address_mask=(1 << 8 * instruction.addr_size) - 1,
        source=source,
        repeated=instruction.prefix[0] in _REP_PREFIXES,
    )


def _register(number: int) -> Register | None:
    where = _REGISTERS.get(number)
    return Register(*where) if where is not None else None


# -- what the operations do


@dataclass(frozen=True, slots=True)
class Effect:
    """What a store does: `value` is written (None: nothing), `source` and `accumulator` are loaded, unless None."""

    value: int | None
    rflags: int
    source: int | None = None
    accumulator: int | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an operation works on: memory, source operand, rax, RFLAGS; `bits` is the operand size."""

    memory: int
    source: int
    accumulator: int
    rflags: int
    bits: int

    @property
    def carry(self) -> int:
        """CF as a number."""
        return self.rflags & Rflags.CF


Operation = Callable[[Inputs], Effect]


def _with_flags(given: Inputs, result: int, *, carry: int, overflow: int, adjust: int) -> int:
    """RFLAGS after an arithmetic operation."""
    rflags = given.rflags & ~_ARITHMETIC & _U64
    rflags |= Rflags.CF * carry | Rflags.OF * overflow | Rflags.AF * adjust
    rflags |= Rflags.ZF * (result == 0) | Rflags.SF * (result >> given.bits - 1)
    return rflags | Rflags.PF * ((result & 0xFF).bit_count() % 2 == 0)


def _sum(given: Inputs, a: int, b: int, carry: int = 0) -> tuple[int, int]:
    """(a + b + carry, RFLAGS)."""
    result = a + b + carry & (1 << given.bits) - 1
    overflow = ((a ^ result) & (b ^ result)) >> given.bits - 1
    rflags = _with_flags(
        given, result, carry=a + b + carry >> given.bits, overflow=overflow, adjust=(a ^ b ^ result) >> 4 & 1
    )
    return result, rflags


def _difference(given: Inputs, a: int, b: int, borrow: int = 0) -> tuple[int, int]:
    """(a - b - borrow, RFLAGS)."""
    result = a - b - borrow & (1 << given.bits) - 1
    overflow = ((a ^ b) & (a ^ result)) >> given.bits - 1
    rflags = _with_flags(given, result, carry=int(a < b + borrow), overflow=overflow, adjust=(a ^ b ^ result) >> 4 & 1)
    return result, rflags


def _logic(given: Inputs, result: int) -> Effect:
    return Effect(result, _with_flags(given, result, carry=0, overflow=0, adjust=0))


def _keeping_carry(given: Inputs, result: tuple[int, int]) -> Effect:
    return Effect(result[0], result[1] & ~Rflags.CF | given.carry)


def _bit(given: Inputs, change: Callable[[int, int], int]) -> Effect:
    bit = 1 << given.source % given.bits
    rflags = given.rflags & ~Rflags.CF | Rflags.CF * bool(given.memory & bit)
    return Effect(change(given.memory, bit), rflags)


def _cmpxchg(given: Inputs) -> Effect:
    rflags = _difference(given, given.accumulator, given.memory)[1]
    if rflags & Rflags.ZF:
        return Effect(given.source, rflags)
    return Effect(None, rflags, accumulator=given.memory)


def _xadd(given: Inputs) -> Effect:
    result, rflags = _sum(given, given.memory, given.source)
    return Effect(result, rflags, source=given.memory)


def _ones(given: Inputs) -> int:
    return (1 << given.bits) - 1


_BIT_OPERATIONS: Final = frozenset({"bts", "btr", "btc"})
_BASE_NAMES: Final = {
    "movabs": "mov",
    "movnti": "mov",
    **{f"{name}{suffix}": name for name in ("stos", "movs") for suffix in "bwdq"},
}
_OPERATIONS: Final[dict[str, Operation]] = {
    "mov": lambda given: Effect(given.source, given.rflags),
    "stos": lambda given: Effect(given.source, given.rflags),
    "movs": lambda given: Effect(given.source, given.rflags),
    "xchg": lambda given: Effect(given.source, given.rflags, source=given.memory),
    "cmpxchg": _cmpxchg,
    "xadd": _xadd,
    "and": lambda given: _logic(given, given.memory & given.source),
    "or": lambda given: _logic(given, given.memory | given.source),
    "xor": lambda given: _logic(given, given.memory ^ given.source),
    "add": lambda given: Effect(*_sum(given, given.memory, given.source)),
    "adc": lambda given: Effect(*_sum(given, given.memory, given.source, given.carry)),
    "sub": lambda given: Effect(*_difference(given, given.memory, given.source)),
    "sbb": lambda given: Effect(*_difference(given, given.memory, given.source, given.carry)),
    "inc": lambda given: _keeping_carry(given, _sum(given, given.memory, 1)),
    "dec": lambda given: _keeping_carry(given, _difference(given, given.memory, 1)),
    "neg": lambda given: Effect(*_difference(given, 0, given.memory)),
    "not": lambda given: Effect(given.memory ^ _ones(given), given.rflags),
    "bts": lambda given: _bit(given, lambda value, bit: value | bit),
    "btr": lambda given: _bit(given, lambda value, bit: value & ~bit),
    "btc": lambda given: _bit(given, lambda value, bit: value ^ bit),
}
"""Each operation that is known."""


def effect_of(store: Store, given: Inputs) -> Effect:
    """What the store does with these inputs."""
    return _OPERATIONS[store.name](given)
