"""The evaluation of agent expressions over an `ExpressionContext`, the state of the target at that moment.

Values are 64 bits wide and wrap around; comparison, division and shifts come in a signed and an unsigned form. A shift
by 64 or more leaves only the sign, or nothing. A division by zero is an error; the least number divided by -1 is
itself. Recording (``trace`` and its like) goes to the context. GDB manual: "The GDB Agent Expression Mechanism".
"""

from collections.abc import Sequence
from typing import Final, Protocol

from xdbg.rsp.agent_expression import REFERENCES, Expression, ExpressionError, Instruction, Op
from xdbg.rsp.agent_printf import Piece

BUDGET: Final = 10_000
"""Instructions that one evaluation may execute."""
MAX_RECORDED: Final = 1 << 16
"""Bytes that one ``trace`` may record."""

_MASK: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_WIDTH: Final = 64


class UnreadableError(ExpressionError):
    """Memory or a register that an expression wants is not there."""


class ExpressionContext(Protocol):
    """What an expression works on. What can't be read raises `UnreadableError`."""

    def read_register(self, number: int) -> int:
        """A register by gdb's number, as an unsigned value."""
        ...

    def read_memory(self, vaddr: int, length: int) -> bytes:
        """Exactly `length` bytes."""
        ...

    def get_variable(self, number: int) -> int:
        """A trace state variable."""
        ...

    def set_variable(self, number: int, value: int) -> None:
        """Sets a trace state variable."""
        ...

    def record_memory(self, vaddr: int, length: int) -> None:
        """Records memory in the trace buffer."""
        ...

    def record_string(self, vaddr: int, limit: int) -> None:
        """Records memory up to and with a zero byte, at most `limit` bytes."""
        ...

    def record_variable(self, number: int) -> None:
        """Records a trace state variable."""
        ...

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        """Output as of printf; `agent_printf.format_text` makes the text."""
        ...


def evaluate(expression: Expression, context: ExpressionContext, budget: int = BUDGET) -> int:
    """The value on top of the stack at the end, unsigned; 0 if the stack is empty then.

    ExpressionError: a division by zero, unreadable memory, or more than `budget` instructions.
    """
    stack: list[int] = []
    instructions = expression.instructions
    place = 0
    for _ in range(budget):
        instruction = instructions[place]
        op, operand = instruction.op, instruction.operand
        place += 1
        match op:
            case Op.END:
                return stack[-1] if stack else 0
            case Op.CONST8 | Op.CONST16 | Op.CONST32 | Op.CONST64:
                stack.append(operand)
            case Op.REG:
                stack.append(context.read_register(operand) & _MASK)
            case Op.REF8 | Op.REF16 | Op.REF32 | Op.REF64:
                length = REFERENCES[op]
                data = context.read_memory(stack.pop(), length)
                if len(data) != length:
                    raise UnreadableError("memory can't be read")
                stack.append(int.from_bytes(data, "little"))
            case Op.GOTO:
                place = operand
            case Op.IF_GOTO:
                if stack.pop():
                    place = operand
            case Op.LOG_NOT:
                stack.append(int(not stack.pop()))
            case Op.BIT_NOT:
                stack.append(stack.pop() ^ _MASK)
            case Op.EXT:
                stack.append(sign_extended(stack.pop(), operand))
            case Op.ZERO_EXT:
                stack.append(stack.pop() & (1 << min(operand, _WIDTH)) - 1)
            case Op.DUP:
                stack.append(stack[-1])
            case Op.POP:
                stack.pop()
            case Op.SWAP:
                stack[-1], stack[-2] = stack[-2], stack[-1]
            case Op.ROT:
                stack.insert(-2, stack.pop())
            case Op.PICK:
                stack.append(stack[-1 - operand])
            case Op.GETV:
                stack.append(context.get_variable(operand) & _MASK)
            case Op.SETV:
                context.set_variable(operand, stack[-1])
            case Op.TRACE | Op.TRACENZ | Op.TRACE_QUICK | Op.TRACE16 | Op.TRACEV:
                _record(op, operand, stack, context)
            case Op.PRINTF:
                _print(instruction, stack, context)
            case _:
                right, left = stack.pop(), stack.pop()
                stack.append(_binary(op, left, right))
    raise ExpressionError(f"not at its end after {budget} instructions")


def signed(value: int) -> int:
    """The number that 64 bits are as a two's complement."""
    return value - (1 << _WIDTH) if value & _SIGN else value


def sign_extended(value: int, bits: int) -> int:
    """The lowest `bits` bits, the highest of them repeated up to 64 bits; unchanged from 64 bits on."""
    if bits >= _WIDTH:
        return value
    top = 1 << bits - 1
    return ((value & (1 << bits) - 1) ^ top) - top & _MASK


def _binary(op: Op, left: int, right: int) -> int:
    match op:
        case Op.ADD:
            return left + right & _MASK
        case Op.SUB:
            return left - right & _MASK
        case Op.MUL:
            return left * right & _MASK
        case Op.BIT_AND:
            return left & right
        case Op.BIT_OR:
            return left | right
        case Op.BIT_XOR:
            return left ^ right
        case Op.EQUAL:
            return int(left == right)
        case Op.LESS_SIGNED:
            return int(signed(left) < signed(right))
        case Op.LESS_UNSIGNED:
            return int(left < right)
        case Op.LSH:
            return left << right & _MASK if right < _WIDTH else 0
        case Op.RSH_UNSIGNED:
            return left >> right if right < _WIDTH else 0
        case Op.RSH_SIGNED:
            return signed(left) >> min(right, _WIDTH - 1) & _MASK
        case _:
            return _divided(op, left, right)


def _divided(op: Op, left: int, right: int) -> int:
    if right == 0:
        raise ExpressionError("division by zero")
    match op:
        case Op.DIV_UNSIGNED:
            return left // right
        case Op.REM_UNSIGNED:
            return left % right
    dividend, divisor = signed(left), signed(right)
    quotient = abs(dividend) // abs(divisor)  # C rounds to zero
    if (dividend < 0) != (divisor < 0):
        quotient = -quotient
    return (quotient if op is Op.DIV_SIGNED else dividend - quotient * divisor) & _MASK


def _record(op: Op, operand: int, stack: list[int], context: ExpressionContext) -> None:
    match op:
        case Op.TRACEV:
            context.record_variable(operand)
        case Op.TRACE_QUICK | Op.TRACE16:
            context.record_memory(stack[-1], operand)
        case _:
            length, vaddr = stack.pop(), stack.pop()
            if op is Op.TRACENZ:  # gdb says "no limit" by the greatest number
                context.record_string(vaddr, min(length, MAX_RECORDED))
            elif length > MAX_RECORDED:
                raise ExpressionError(f"more than {MAX_RECORDED} bytes to record")
            else:
                context.record_memory(vaddr, length)


def _print(instruction: Instruction, stack: list[int], context: ExpressionContext) -> None:
    function, channel = stack.pop(), stack.pop()
    if function or channel:
        raise ExpressionError("only printf itself can be called")
    context.print(instruction.format, [stack.pop() for _ in range(instruction.operand)])
