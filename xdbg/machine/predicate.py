"""Predicates: programs of words that the compiled part evaluates when the guest comes to a stop point.

A predicate that comes out as zero lets the guest pass without an exit and without any change; see predicate.c for how
it is evaluated, and what is exact there. One that can't be evaluated stops.

A program is a row of steps over a stack of 64-bit words, which is empty at the beginning; jumps go to the index of a
step. Arithmetic wraps around; shifts by 64 and more leave the sign or nothing.
"""

import ctypes
from dataclasses import dataclass
from enum import IntEnum

from xdbg.abi.frames import Maddr

from .clock import ANY_CR3, PredicateEntry, PredicateStep


class PredicateOp(IntEnum):
    """enum predicate_op of predicate.c."""

    END = 0
    OR_ELSE = 1
    CONST = 2
    REGISTER = 3
    LOAD = 4
    GOTO = 5
    IF_GOTO = 6
    DUP = 7
    POP = 8
    SWAP = 9
    ROT = 10
    PICK = 11
    LOG_NOT = 12
    BIT_NOT = 13
    EXT = 14
    ZERO_EXT = 15
    ADD = 16
    SUB = 17
    MUL = 18
    DIV_SIGNED = 19
    DIV_UNSIGNED = 20
    REM_SIGNED = 21
    REM_UNSIGNED = 22
    LSH = 23
    RSH_SIGNED = 24
    RSH_UNSIGNED = 25
    BIT_AND = 26
    BIT_OR = 27
    BIT_XOR = 28
    EQUAL = 29
    LESS_SIGNED = 30
    LESS_UNSIGNED = 31


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `operand`: a register as in `Cpu.gpr`, a size in bytes, a number of bits, a place in the stack (0 is
    the top), or the index of a step; `value` is CONST's.
    """

    op: PredicateOp
    operand: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Predicate:
    """A program, and whose memory it reads. It is equal to itself only: comparing programs costs more than it saves.

    An address of the lower half is looked up in the first of `tables` (one or two) that maps it, one of the upper half
    in the last. None: the table in use.
    """

    steps: tuple[Step, ...]
    tables: tuple[Maddr | None, ...] = (None,)


class LoadedPredicate:
    """A predicate in the form that the compiled part reads, for as long as this lives."""

    def __init__(self, predicate: Predicate) -> None:
        assert 1 <= len(predicate.tables) <= 2
        self._steps = (PredicateStep * len(predicate.steps))(
            *(PredicateStep(step.op, step.operand, step.value) for step in predicate.steps)
        )
        tables = [ANY_CR3 if table is None else table for table in predicate.tables]
        self._entry = PredicateEntry(
            nr_tables=len(tables),
            tables=(ctypes.c_uint64 * 2)(*tables),
            nr_steps=len(predicate.steps),
            steps=ctypes.addressof(self._steps),
        )
        self.address = ctypes.addressof(self._entry)
