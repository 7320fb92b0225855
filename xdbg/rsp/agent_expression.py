"""Agent expressions: the bytecode that gdb compiles conditions, printed values and traced values to.

`parse` takes the bytes apart once and refuses what could go wrong whatever the values are; `agent_evaluation` runs the
result.

Rules, as the GDB manual's "The GDB Agent Expression Mechanism" and gdbserver/ax.cc have them:

- Operands in the code are big-endian. A jump goes to an offset from the beginning, where an instruction begins.
- ``tracev`` and ``setv`` leave the stack as it is.
- ``printf`` pops a function and a channel, which must both be zero, and then its arguments, the first one on top.
- Floating point was never made work anywhere: it is refused.
- The height of the stack at a place is the same on each way there. So no check of the stack is needed at run time.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from xdbg.rsp.agent_printf import FormatError, Piece, parse_format

MAX_CODE: Final = 8192
"""Bytes of one expression; gdb itself makes none of more than some hundred."""
MAX_STACK: Final = 100
"""Values on the stack."""


class ExpressionError(Exception):
    """An expression that can't be understood, or that could not be evaluated."""


class Op(IntEnum):
    """The instructions; gdb's common/ax.def has the numbers."""

    ADD = 0x02
    SUB = 0x03
    MUL = 0x04
    DIV_SIGNED = 0x05
    DIV_UNSIGNED = 0x06
    REM_SIGNED = 0x07
    REM_UNSIGNED = 0x08
    LSH = 0x09
    RSH_SIGNED = 0x0A
    RSH_UNSIGNED = 0x0B
    TRACE = 0x0C
    TRACE_QUICK = 0x0D
    LOG_NOT = 0x0E
    BIT_AND = 0x0F
    BIT_OR = 0x10
    BIT_XOR = 0x11
    BIT_NOT = 0x12
    EQUAL = 0x13
    LESS_SIGNED = 0x14
    LESS_UNSIGNED = 0x15
    EXT = 0x16
    REF8 = 0x17
    REF16 = 0x18
    REF32 = 0x19
    REF64 = 0x1A
    IF_GOTO = 0x20
    GOTO = 0x21
    CONST8 = 0x22
    CONST16 = 0x23
    CONST32 = 0x24
    CONST64 = 0x25
    REG = 0x26
    END = 0x27
    DUP = 0x28
    POP = 0x29
    ZERO_EXT = 0x2A
    SWAP = 0x2B
    GETV = 0x2C
    SETV = 0x2D
    TRACEV = 0x2E
    TRACENZ = 0x2F
    TRACE16 = 0x30
    PICK = 0x32
    ROT = 0x33
    PRINTF = 0x34


_EFFECTS: Final[dict[Op, tuple[int, int, int]]] = {
    # bytes of operand, values that it needs, values that it leaves in their place
    **dict.fromkeys(
        (Op.ADD, Op.SUB, Op.MUL, Op.DIV_SIGNED, Op.DIV_UNSIGNED, Op.REM_SIGNED, Op.REM_UNSIGNED, Op.LSH,
         Op.RSH_SIGNED, Op.RSH_UNSIGNED, Op.BIT_AND, Op.BIT_OR, Op.BIT_XOR, Op.EQUAL, Op.LESS_SIGNED,
         Op.LESS_UNSIGNED),
        (0, 2, 1),
    ),
    **dict.fromkeys((Op.LOG_NOT, Op.BIT_NOT, Op.REF8, Op.REF16, Op.REF32, Op.REF64), (0, 1, 1)),
    Op.EXT: (1, 1, 1),
    Op.ZERO_EXT: (1, 1, 1),
    Op.TRACE: (0, 2, 0),
    Op.TRACENZ: (0, 2, 0),
    Op.TRACE_QUICK: (1, 1, 1),
    Op.TRACE16: (2, 1, 1),
    Op.IF_GOTO: (2, 1, 0),
    Op.GOTO: (2, 0, 0),
    Op.CONST8: (1, 0, 1),
    Op.CONST16: (2, 0, 1),
    Op.CONST32: (4, 0, 1),
    Op.CONST64: (8, 0, 1),
    Op.REG: (2, 0, 1),
    Op.END: (0, 0, 0),
    Op.DUP: (0, 1, 2),
    Op.POP: (0, 1, 0),
    Op.SWAP: (0, 2, 2),
    Op.ROT: (0, 3, 3),
    Op.PICK: (1, 0, 1),
    Op.GETV: (2, 0, 1),
    Op.SETV: (2, 1, 1),
    Op.TRACEV: (2, 0, 0),
    Op.PRINTF: (3, 2, 0),
}  # fmt: skip

REFERENCES: Final = {Op.REF8: 1, Op.REF16: 2, Op.REF32: 4, Op.REF64: 8}
"""How many bytes an instruction reads."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `operand` of a jump is the index of the instruction it goes to, of a printf its arguments.

    `height` is that of the stack before it; -1 where the expression never comes.
    """

    op: Op
    operand: int = 0
    format: tuple[Piece, ...] = ()
    height: int = -1


@dataclass(frozen=True, slots=True)
class Expression:
    """A verified expression. `depth`: the greatest height of its stack; `has_result`: each end leaves a value."""

    code: bytes
    instructions: tuple[Instruction, ...]
    depth: int
    has_result: bool


def parse(code: bytes) -> Expression:
    """The expression that `code` is. ExpressionError: unknown instructions, jumps that go astray, a stack that runs
    over or under, a path without an end, a printf without sense.
    """
    if not 0 < len(code) <= MAX_CODE:
        raise ExpressionError(f"an expression has 1 to {MAX_CODE} bytes")
    found = list(_decode(code))
    index_of = {offset: index for index, (offset, _) in enumerate(found)}
    instructions = [_aimed(instruction, index_of) for _, instruction in found]
    heights = _heights(instructions)
    ends = [height for instruction, height in zip(instructions, heights, strict=True) if instruction.op is Op.END]
    return Expression(
        code,
        tuple(
            Instruction(one.op, one.operand, one.format, height)
            for one, height in zip(instructions, heights, strict=True)
        ),
        max(_after(one, height) for one, height in zip(instructions, heights, strict=True)),
        all(height != 0 for height in ends),
    )


def _decode(code: bytes) -> Iterator[tuple[int, Instruction]]:
    """Each instruction with its offset; jumps still to offsets."""
    place = 0
    while place < len(code):
        start = place
        try:
            op = Op(code[place])
        except ValueError:
            raise ExpressionError(f"instruction {code[place]:#x} at {place} is not supported") from None
        size = _EFFECTS[op][0]
        operand = int.from_bytes(code[place + 1 : place + 1 + size], "big")
        place += 1 + size
        pieces: tuple[Piece, ...] = ()
        if op is Op.PRINTF and place <= len(code):
            operand, length = operand >> 16, operand & 0xFFFF
            pieces = _format(code[place : place + length], length, operand)
            place += length
        if place > len(code):
            raise ExpressionError(f"the instruction at {start} is cut short")
        if op is Op.EXT and operand == 0:
            raise ExpressionError(f"no bits to extend at {start}")
        yield start, Instruction(op, operand, pieces)


def _format(text: bytes, length: int, arguments: int) -> tuple[Piece, ...]:
    if len(text) < length or not text.endswith(b"\0"):
        raise ExpressionError("a format is not terminated")
    try:
        pieces = parse_format(text[:-1].decode("utf-8", "replace"))
    except FormatError as error:
        raise ExpressionError(str(error)) from error
    if sum(bool(piece.conversion) for piece in pieces) != arguments:
        raise ExpressionError("a format has another number of arguments")
    return pieces


def _aimed(instruction: Instruction, index_of: dict[int, int]) -> Instruction:
    """A jump, to the index of an instruction."""
    if instruction.op not in (Op.GOTO, Op.IF_GOTO):
        return instruction
    if instruction.operand not in index_of:
        raise ExpressionError(f"a jump to {instruction.operand}, where no instruction begins")
    return Instruction(instruction.op, index_of[instruction.operand])


def _after(instruction: Instruction, height: int) -> int:
    _, needs, leaves = _EFFECTS[instruction.op]
    arguments = instruction.operand if instruction.op is Op.PRINTF else 0
    return height - needs - arguments + leaves


def _needs(instruction: Instruction) -> int:
    match instruction.op:
        case Op.PRINTF:
            return 2 + instruction.operand
        case Op.PICK:
            return instruction.operand + 1
        case _:
            return _EFFECTS[instruction.op][1]


def _heights(instructions: Sequence[Instruction]) -> list[int]:
    """The height of the stack before each instruction."""
    heights = [-1] * len(instructions)
    heights[0] = 0
    waiting = deque([0])
    while waiting:
        index = waiting.popleft()
        instruction, height = instructions[index], heights[index]
        if height < _needs(instruction):
            raise ExpressionError("the stack runs empty")
        after = _after(instruction, height)
        if after > MAX_STACK:
            raise ExpressionError(f"more than {MAX_STACK} values on the stack")
        following = {Op.END: [], Op.GOTO: [instruction.operand], Op.IF_GOTO: [instruction.operand, index + 1]}
        for place in following.get(instruction.op, [index + 1]):
            if place >= len(instructions):
                raise ExpressionError("an expression without an end")
            if heights[place] == -1:
                heights[place] = after
                waiting.append(place)
            elif heights[place] != after:
                raise ExpressionError("the height of the stack depends on the way")
    return heights


# -- evaluation
