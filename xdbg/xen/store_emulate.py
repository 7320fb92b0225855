"""What the stores of `store_decode` do, worked out as values: memory, registers and flags. Intel SDM volume 2."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.abi.x86 import Rflags

from .store_decode import Store

_U64: Final = (1 << 64) - 1
_ARITHMETIC: Final = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF


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
