"""Agent expressions: refused for what can go wrong in any case, evaluated as the GDB manual says."""

import contextlib
import random
from collections.abc import Sequence

import pytest

from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import MAX_STACK, ExpressionError, Op, parse
from xdbg.rsp.agent_printf import FormatError, Piece, format_text, parse_format

MINUS = (1 << 64) - 1
LEAST = 1 << 63


class Context:
    """Registers 0 to 15 are ten times their number; memory repeats the lowest byte of each address, up to 0x1000."""

    def __init__(self) -> None:
        self.variables = {1: 5}
        self.recorded: list[object] = []
        self.printed: list[str] = []

    def read_register(self, number: int) -> int:
        if number > 15:
            raise UnreadableError("no such register")
        return number * 10

    def read_memory(self, vaddr: int, length: int) -> bytes:
        if vaddr + length > 0x1000:
            raise UnreadableError("nothing there")
        return bytes((vaddr + i) & 0xFF for i in range(length))

    def get_variable(self, number: int) -> int:
        return self.variables.get(number, 0)

    def set_variable(self, number: int, value: int) -> None:
        self.variables[number] = value

    def record_memory(self, vaddr: int, length: int) -> None:
        self.recorded.append(("memory", vaddr, length))

    def record_string(self, vaddr: int, limit: int) -> None:
        self.recorded.append(("string", vaddr, limit))

    def record_variable(self, number: int) -> None:
        self.recorded.append(("variable", number))

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        self.printed.append(format_text(pieces, arguments, lambda vaddr, limit: (b"%x" % vaddr)[:limit]))


def code(*parts: int | bytes) -> bytes:
    """Bytes of instructions; a number beyond a byte, and any in brackets of `const`, is written as a constant."""
    return b"".join(part if isinstance(part, bytes) else bytes([part]) for part in parts)


def const(value: int) -> bytes:
    return bytes([Op.CONST64]) + (value & MINUS).to_bytes(8, "big")


def run(*parts: int | bytes) -> int:
    return evaluate(parse(code(*parts, Op.END)), Context())


@pytest.mark.parametrize(
    ("left", "op", "right", "result"),
    [
        (MINUS, Op.ADD, 2, 1),
        (1, Op.SUB, 2, MINUS),
        (1 << 40, Op.MUL, 1 << 24, 0),
        (-7, Op.DIV_SIGNED, 2, -3),
        (7, Op.DIV_SIGNED, -2, -3),
        (LEAST, Op.DIV_SIGNED, -1, LEAST),
        (-7, Op.DIV_UNSIGNED, 2, (MINUS - 6) // 2),
        (-7, Op.REM_SIGNED, 2, -1),
        (7, Op.REM_SIGNED, -2, 1),
        (LEAST, Op.REM_SIGNED, -1, 0),
        (-7, Op.REM_UNSIGNED, 10, (MINUS - 6) % 10),
        (3, Op.LSH, 63, LEAST),
        (3, Op.LSH, 64, 0),
        (3, Op.LSH, -1, 0),
        (LEAST, Op.RSH_SIGNED, 63, MINUS),
        (LEAST, Op.RSH_SIGNED, 200, MINUS),
        (LEAST, Op.RSH_UNSIGNED, 63, 1),
        (LEAST, Op.RSH_UNSIGNED, 64, 0),
        (0b1100, Op.BIT_AND, 0b1010, 0b1000),
        (0b1100, Op.BIT_OR, 0b1010, 0b1110),
        (0b1100, Op.BIT_XOR, 0b1010, 0b0110),
        (-1, Op.EQUAL, MINUS, 1),
        (-1, Op.EQUAL, 1, 0),
        (-1, Op.LESS_SIGNED, 0, 1),
        (-1, Op.LESS_UNSIGNED, 0, 0),
        (0, Op.LESS_UNSIGNED, -1, 1),
    ],
)
def test_arithmetic_wraps_and_knows_signs(left, op, right, result):
    assert run(const(left), const(right), op) == result & MINUS


@pytest.mark.parametrize(
    ("parts", "result"),
    [
        ([Op.CONST8, 0xFF], 0xFF),
        ([Op.CONST16, 0x12, 0x34], 0x1234),
        ([Op.CONST32, 0x12, 0x34, 0x56, 0x78], 0x12345678),
        ([const(0x80), Op.EXT, 8], -0x80),
        ([const(0x17F), Op.EXT, 8], 0x7F),
        ([const(0x80), Op.EXT, 64], 0x80),
        ([const(-1), Op.ZERO_EXT, 32], 0xFFFF_FFFF),
        ([const(-1), Op.ZERO_EXT, 64], -1),
        ([const(-1), Op.ZERO_EXT, 0], 0),
        ([const(0), Op.LOG_NOT], 1),
        ([const(7), Op.LOG_NOT], 0),
        ([const(0), Op.BIT_NOT], -1),
        ([Op.REG, 0, 7], 70),
        ([const(0x110), Op.REF8], 0x10),
        ([const(0x110), Op.REF16], 0x1110),
        ([const(0x110), Op.REF32], 0x13121110),
        ([const(0x110), Op.REF64], 0x1716151413121110),
        ([const(1), const(2), Op.SWAP, Op.SUB], 1),
        ([const(5), Op.DUP, Op.MUL], 25),
        ([const(5), const(6), Op.POP], 5),
        ([const(1), const(2), const(3), Op.ROT], 2),
        ([const(1), const(2), const(3), Op.ROT, Op.POP], 1),
        ([const(1), const(2), const(3), Op.ROT, Op.POP, Op.POP], 3),
        ([const(1), const(2), const(3), Op.PICK, 2], 1),
        ([const(1), const(2), const(3), Op.PICK, 0], 3),
        ([Op.GETV, 0, 1], 5),
        ([const(9), Op.SETV, 0, 2, Op.GETV, 0, 2, Op.ADD], 18),
    ],
)
def test_values_and_the_stack(parts, result):
    assert run(*parts) == result & MINUS


def test_jumps_choose_a_way():
    parts = (Op.REG, 0, 3, Op.IF_GOTO, 0, 11, Op.CONST8, 1, Op.GOTO, 0, 13, Op.CONST8, 2)
    assert run(*parts) == 2
    assert run(Op.REG, 0, 0, *parts[3:]) == 1


def test_a_loop_ends_by_itself_or_by_the_budget():
    count_down = code(Op.CONST8, 5, Op.CONST8, 1, Op.SUB, Op.DUP, Op.IF_GOTO, 0, 2, Op.END)
    assert evaluate(parse(count_down), Context()) == 0
    with pytest.raises(ExpressionError, match="7 instructions"):
        evaluate(parse(code(Op.GOTO, 0, 0)), Context(), budget=7)


@pytest.mark.parametrize("op", [Op.DIV_SIGNED, Op.DIV_UNSIGNED, Op.REM_SIGNED, Op.REM_UNSIGNED])
def test_a_division_by_zero_is_an_error(op):
    with pytest.raises(ExpressionError, match="zero"):
        run(const(1), const(0), op)


def test_what_can_not_be_read_is_an_error():
    with pytest.raises(UnreadableError):
        run(const(0xFFF), Op.REF16)
    with pytest.raises(UnreadableError):
        run(Op.REG, 1, 0)


def test_recording_goes_to_the_context():
    context = Context()
    expression = parse(
        code(
            const(0x10), Op.TRACE_QUICK, 4, Op.TRACE16, 1, 0, const(8), Op.TRACE, const(0x20), const(-1), Op.TRACENZ,
            Op.TRACEV, 0, 1, Op.END,
        )
    )  # fmt: skip
    assert (evaluate(expression, context), expression.has_result) == (0, False)
    assert context.recorded == [
        ("memory", 0x10, 4), ("memory", 0x10, 256), ("memory", 0x10, 8), ("string", 0x20, 1 << 16), ("variable", 1),
    ]  # fmt: skip
    with pytest.raises(ExpressionError, match="to record"):
        run(const(0), const(1 << 20), Op.TRACE)


def printf(text: str, arguments: int) -> bytes:
    data = text.encode() + b"\0"
    return bytes([Op.PRINTF, arguments]) + len(data).to_bytes(2, "big") + data


def test_printf_takes_its_arguments_from_the_top():
    context = Context()
    values = code(const(0x123), const(-5), const(0), const(0))
    evaluate(parse(code(values, printf(r"a=%d s=%s\n", 2), Op.END)), context)
    assert context.printed == ["a=-5 s=123\n"]
    with pytest.raises(ExpressionError, match="printf itself"):
        evaluate(parse(code(const(0), const(1), printf("x", 0), Op.END)), context)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        bytes(9000),
        bytes([Op.CONST8]),
        bytes([Op.CONST8, 1]),  # no end
        bytes([0x01, Op.END]),  # float
        bytes([0x1B, Op.END]),
        bytes([0x00, Op.END]),
        bytes([0xFF]),
        bytes([Op.POP, Op.END]),
        bytes([Op.CONST8, 1, Op.ADD, Op.END]),
        bytes([Op.CONST8, 1, Op.PICK, 1, Op.END]),
        bytes([Op.CONST8, 1, Op.EXT, 0, Op.END]),
        bytes([Op.GOTO, 0, 9, Op.END]),  # outside
        bytes([Op.GOTO, 0, 4, Op.CONST16, 0, Op.END, Op.END]),  # into an instruction
        bytes([Op.GOTO, 0, 3]),
        bytes([Op.CONST8, 1, Op.GOTO, 0, 0]),  # grows for ever
        bytes([Op.CONST8, 1] * (MAX_STACK + 1) + [Op.END]),
        bytes([Op.REG, 0, 0, Op.IF_GOTO, 0, 8, Op.CONST8, 1, Op.END]),  # two heights at the end
        bytes([Op.CONST8, 0, Op.DUP]) + printf("%d", 0) + bytes([Op.END]),
        bytes([Op.CONST8, 0, Op.DUP]) + printf("%d", 1) + bytes([Op.END]),  # no argument there
        bytes([Op.CONST8, 0, Op.DUP]) + printf("%f", 1) + bytes([Op.END]),
        bytes([Op.CONST8, 0, Op.DUP, Op.PRINTF, 0, 0, 1, 65, Op.END]),  # no zero byte
        bytes([Op.CONST8, 0, Op.DUP, Op.PRINTF, 0, 0, 9, 65, 0]),
    ],
)
def test_what_goes_wrong_in_any_case_is_refused(bad):
    with pytest.raises(ExpressionError):
        parse(bad)


def test_an_expression_says_how_much_it_needs():
    expression = parse(code(const(1), const(2), const(3), Op.ADD, Op.ADD, Op.END))
    assert (expression.depth, expression.has_result) == (3, True)
    assert [one.height for one in expression.instructions] == [0, 1, 2, 3, 2, 1]


def test_any_bytes_are_refused_or_come_to_an_end():
    """Whatever the bytes are: a verified expression never touches a stack that it has not, and ends in its budget."""
    choose = random.Random(11)
    common = [op for op in Op if op is not Op.PRINTF]
    understood = 0
    for _ in range(20_000):
        parts = bytearray()
        for _ in range(choose.randrange(1, 14)):
            parts.append(choose.choice(common) if choose.random() < 0.7 else choose.randrange(12))
        parts.append(Op.END)
        try:
            expression = parse(bytes(parts))
        except ExpressionError:
            continue
        understood += 1
        with contextlib.suppress(ExpressionError):
            assert 0 <= evaluate(expression, Context(), budget=200) <= MINUS
    assert understood > 100


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        (r"a\tb\n\"\\\'\a\e%%", [], "a\tb\n\"\\'\a\x1b%"),
        ("%d %i %u", [MINUS, 1 << 31, MINUS], "-1 -2147483648 4294967295"),
        ("%ld %lu %lld %zu", [MINUS, MINUS, MINUS, 5], f"-1 {MINUS} -1 5"),
        ("%hhd %hx", [0x1FF, 0x12345], "-1 2345"),
        ("%x %#x %X %#o %p", [255, 255, 255, 8, 0x10], "ff 0xff FF 010 0x10"),
        ("%5d|%-5d|%05d|%+d|% d", [42, 42, -42, 42, 42], "   42|42   |-0042|+42| 42"),
        ("%.3d|%8.3x|%.0d", [5, 0xA, 0], "005|     00a|"),
        ("%c%3c", [65, 66], "A  B"),
        ("%s|%6s|%-6s|%.2s|%s", [0x1A, 0x1A, 0x1A, 0x123, 0], "1a|    1a|1a    |12|(null)"),
        ("no more", [], "no more"),
    ],
)
def test_printf_formats_as_c_does(text, values, result):
    assert format_text(parse_format(text), values, lambda vaddr, limit: (b"%x" % vaddr)[:limit]) == result


@pytest.mark.parametrize("text", ["%", "%f", "%lc", "%n", "%*d", r"\q", "\\", "%99999d", "%.99999d", "%Lx"])
def test_a_format_that_can_not_be_carried_out_is_refused(text):
    with pytest.raises(FormatError):
        parse_format(text)
