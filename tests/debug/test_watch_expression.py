"""The language of `monitor watch`: what C says of the same text."""

import contextlib
import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from xdbg.debug.points.watch_expression import WatchSyntaxError, compile_expression
from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import ExpressionError
from xdbg.rsp.agent_printf import Piece
from xdbg.rsp.registers import BY_NAME

MEMORY = bytes((7 * i + 0x81) & 0xFF for i in range(64))
SYMBOLS = {"counter": 16, "name.local": 8}
MASK = (1 << 64) - 1


class Context:
    """`MEMORY` at 0, registers with their numbers, new = -2 and old = 5."""

    def read_register(self, number: int) -> int:
        return number

    def read_memory(self, vaddr: int, length: int) -> bytes:
        if vaddr + length > len(MEMORY):
            raise UnreadableError("nothing there")
        return MEMORY[vaddr : vaddr + length]

    def get_variable(self, number: int) -> int:
        return (MASK - 1, 5)[number]

    def set_variable(self, number: int, value: int) -> None:
        raise AssertionError(number, value)

    def record_memory(self, vaddr: int, length: int) -> None:
        raise AssertionError(vaddr, length)

    def record_string(self, vaddr: int, limit: int) -> None:
        raise AssertionError(vaddr, limit)

    def record_variable(self, number: int) -> None:
        raise AssertionError(number)

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        raise AssertionError(pieces, arguments)


def value_of(text: str, length: int | None = 8) -> int:
    return evaluate(compile_expression(text, SYMBOLS.get, length), Context())


def word(at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(MEMORY[at : at + size], "little", signed=signed) & MASK


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("0x1F", 31),
        ("'a' + '\\n'", 107),
        ("$rip", BY_NAME["rip"].number),
        ("$pc == $rip && $sp == $rsp", 1),
        ("$eflags", BY_NAME["eflags"].number),
        ("counter", 16),
        ("name.local+1", 9),
        ("u8[counter]", word(16, 1)),
        ("u32[counter + 4]", word(20, 4)),
        ("*(u16 *)counter", word(16, 2)),
        ("*(s16*)(counter + 2)", word(18, 2, signed=True)),
        ("s64[0]", word(0, 8, signed=True)),
        ("*(u8 *)u8[57]", word(word(57, 1), 1)),
        ("old", 5),
        ("new == -2", 1),
        ("new > old", 1),  # of 8 bytes: unsigned
        ("(s64)new < old", 0),
        ("(s64)new < (s64)old", 1),
        ("(s8)255", MASK),
        ("(u8)-1", 255),
        ("(u8)(1) + (2)", 3),
        ("!0 + !5", 1),
        ("~0 == -1", 1),
        ("- - 3", 3),
        ("2 + 3 * 4 - 10 / 3 % 2", 13),
        ("(2 + 3) * 4", 20),
        ("1 << 4 + 1", 32),
        ("7 & 3 == 3", 1),
        ("1 | 2 ^ 2 & 3", 1),
        ("10 - 4 - 3", 3),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("-8 >> 1", -4),
        ("$rax - 1 > 0", 1),  # registers are unsigned
        ("-1 < 1", 1),
        ("0xffffffffffffffff > 1", 1),
        ("3 >= 3 && 3 <= 3 && !(3 > 3) && !(3 < 3) && 3 != 4", 1),
        ("0 && u8[9999]", 0),
        ("1 || u8[9999]", 1),
        ("5 && 6", 1),
        ("0 || 0 || 7", 1),
        ("1 && 0 || 1 && 1", 1),
        ("(((((1)))))", 1),
    ],
)
def test_values(text, value):
    assert value_of(text) == value & MASK


def test_new_and_old_are_signed_where_they_are_narrow():
    assert value_of("new < old", 4) == 1
    assert value_of("new < old", 8) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "1 +", "+", "(1", "1)", "u32[1", "u32", "u7[1]", "*1", "*(u8)1", "*(int *)1", "$nothing", "$xmm0", "$"),
        *("nosuch", "1 2", "'ab'", "'\\q'", "1.5", "08x", "a = 1", "1 ? 2 : 3", "0x1ffffffffffffffff", "f(1)", "1;2"),
        *("(" * 100 + "1" + ")" * 100, "-" * 200 + "1", "1" + " + 1" * 400),
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(WatchSyntaxError):
        compile_expression(text, SYMBOLS.get, 8)


def test_new_and_old_need_something_watched_of_a_words_length():
    for length in (None, 3, 16):
        with pytest.raises(WatchSyntaxError):
            compile_expression("new", SYMBOLS.get, length)


def test_any_text_is_an_expression_or_refused():
    choose = random.Random(3)
    tokens = ["1", "0x10", "$rax", "new", "u8[", "]", "(", ")", "*(u8 *)", "(s8)", *"+-*/%&|^~!<>", "&&", "||", "=="]
    understood = 0
    for _ in range(5000):
        text = " ".join(choose.choice(tokens) for _ in range(choose.randrange(1, 8)))
        try:
            expression = compile_expression(text, SYMBOLS.get, 8)
        except WatchSyntaxError:
            continue
        understood += 1
        with contextlib.suppress(ExpressionError):
            assert 0 <= evaluate(expression, Context()) <= MASK
    assert understood > 100


def _random_expression(choose: random.Random, depth: int) -> str:
    if depth == 0 or choose.random() < 0.15:
        return choose.choice(
            ["1", "2", "63", "5", "0xffffffffffffffff", "0x80", "(s8)200", "(u64)7", "(s32)0xfffffffe"]
        )
    kind = choose.randrange(10)
    inner = _random_expression(choose, depth - 1)
    if kind == 0:
        return f"{choose.choice('!~-')} ({inner})"
    if kind == 1:
        return f"({choose.choice(['u8', 's8', 'u16', 's32', 'u64', 's64'])})({inner})"
    other = _random_expression(choose, depth - 1)
    sign = choose.choice(["+", "-", "*", "&", "|", "^", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "+", "-"])
    return f"({inner} {sign} {other})" if kind > 4 else f"{inner} {sign} ({other})"


def test_the_same_text_in_c_has_the_same_value(tmp_path: Path) -> None:
    choose = random.Random(17)
    texts = [_random_expression(choose, 4) for _ in range(300)]
    # All of C's values are to have 64 bits here, too: numbers are long, and narrower casts go back to long.
    source = ["#include <stdio.h>", "typedef long s64; typedef unsigned long u64;"]
    source += [
        f"#define {sign}{bits}(x) ((long)({'un' if sign == 'u' else ''}signed {name})(x))"
        for bits, name in ((8, "char"), (16, "short"), (32, "int"))
        for sign in "us"
    ]
    source.append("int main(void) {")
    for text in texts:
        in_c = text
        for name in ("u8", "s8", "u16", "s32"):
            in_c = in_c.replace(f"({name})(", f"{name}(")
        in_c = in_c.replace("(s8)200", "s8(200)").replace("(s32)0xfffffffe", "s32(0xfffffffe)")
        in_c = "".join(
            f"{part}L" if part.isdecimal() or (part.startswith("0x") and part != "0xffffffffffffffff") else part
            for part in _numbers(in_c)
        )
        source.append(f'printf("%lu\\n", (u64)((s64)0 | ({in_c})));')
    source.append("}")
    (tmp_path / "values.c").write_text("\n".join(source))
    subprocess.run(
        ["gcc", "-w", "-fwrapv", "-o", tmp_path / "values", tmp_path / "values.c"], check=True, capture_output=True
    )
    expected = subprocess.run([tmp_path / "values"], check=True, capture_output=True, text=True).stdout.split()
    assert [str(value_of(text)) for text in texts] == expected


def _numbers(text: str) -> list[str]:
    """The text in pieces, numbers apart."""
    return re.split(r"(?<![\w])(0x[0-9a-f]+|\d+)(?![\w])", text)
