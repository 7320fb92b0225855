"""The small language of ``monitor watch``: expressions as in C over registers, memory, symbols, and what was watched.

=========================================  ==========================================================
`12`, `0x1f`, `'c'`                        numbers and characters
`$rax`, `$eflags`, `$pc`                   a register of the thread that made the access
`new`, `old`                               the watched bytes after and before the access
`counter`                                  the *address* of a symbol, as in assembly
`u32[counter + 8]`, `*(s16 *)$rsi`         memory: u8 u16 u32 u64, s8 s16 s32 s64
`(s8)new`                                  the lowest bits, extended by their sign or by zeros
`! ~ - * / % + - << >> < <= > >=`          as in C, and with its precedences
`== != & ^ | && ||`                        the last two evaluate their right side only when it matters
=========================================  ==========================================================

All values have 64 bits. As in C an operation is unsigned when one side is: those sides are u64, registers, addresses,
and `new` and `old` of 8 bytes. Everything narrower fits into a signed value.

The result is an agent expression like those of gdb's own conditions; `new` and `old` are its variables 0 and 1.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.rsp.agent_expression import Expression, ExpressionError, Op, parse
from xdbg.rsp.registers import BY_NAME

NEW: Final = 0
OLD: Final = 1
"""The variables."""

MAX_TEXT: Final = 1000
_MAX_DEPTH: Final = 30
"""Brackets within brackets."""

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)(?![\w.])|(?P<char>'(?:[^'\\]|\\.)')|(?P<register>\$\w+)"
    r"|(?P<name>[A-Za-z_.@][\w.@]*)|(?P<sign><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>()\[\]]))"
)
_ALIASES: Final = {"pc": "rip", "sp": "rsp", "fp": "rbp"}
_ESCAPES: Final = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, "'": 39}
_TYPES: Final = {f"{sign}{bits}": (bits, sign == "s") for sign in "us" for bits in (8, 16, 32, 64)}
_LOADS: Final = {8: Op.REF8, 16: Op.REF16, 32: Op.REF32, 64: Op.REF64}
_WIDTH: Final = 64

_LEVELS: Final[tuple[dict[str, tuple[Op, Op]], ...]] = (
    # from the weakest to the strongest; each with its signed and its unsigned instruction
    {"|": (Op.BIT_OR, Op.BIT_OR)},
    {"^": (Op.BIT_XOR, Op.BIT_XOR)},
    {"&": (Op.BIT_AND, Op.BIT_AND)},
    {"==": (Op.EQUAL, Op.EQUAL), "!=": (Op.EQUAL, Op.EQUAL)},
    dict.fromkeys(("<", "<=", ">", ">="), (Op.LESS_SIGNED, Op.LESS_UNSIGNED)),
    {"<<": (Op.LSH, Op.LSH), ">>": (Op.RSH_SIGNED, Op.RSH_UNSIGNED)},
    {"+": (Op.ADD, Op.ADD), "-": (Op.SUB, Op.SUB)},
    {"*": (Op.MUL, Op.MUL), "/": (Op.DIV_SIGNED, Op.DIV_UNSIGNED), "%": (Op.REM_SIGNED, Op.REM_UNSIGNED)},
)
_INVERTED: Final = frozenset({"!=", "<=", ">="})
_SWAPPED: Final = frozenset({">", "<="})
_SHIFTS: Final = frozenset({"<<", ">>"})


class WatchSyntaxError(Exception):
    """A text that is no expression; the message says where."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Code that leaves one value, and whether that counts as unsigned. `label`s are still relative to the code."""

    code: bytes
    unsigned: bool = False


def compile_expression(text: str, address_of: Callable[[str], int | None], length: int | None = None) -> Expression:
    """The expression that a text means. WatchSyntaxError.

    `address_of`: where a symbol is; `length`: of what is watched, None: there is no `new` and `old`.
    """
    if len(text) > MAX_TEXT:
        raise WatchSyntaxError(f"an expression has at most {MAX_TEXT} characters")
    reader = _Reader(text, address_of, length)
    part = reader.disjunction()
    if reader.word:
        raise WatchSyntaxError(f"{reader.word!r} is not expected there")
    try:
        return parse(_linked(part.code) + bytes([Op.END]))
    except ExpressionError as error:
        raise WatchSyntaxError(str(error)) from error


class _Reader:
    """Recursive descent: one method for each kind of expression, the weakest operators first."""

    def __init__(self, text: str, address_of: Callable[[str], int | None], length: int | None) -> None:
        self._text = text
        self._address_of = address_of
        self._length = length
        self._place = 0
        self._depth = 0
        self.word = ""
        self._kind = ""
        self._next()

    def _next(self) -> str:
        """Go one word on; the one that was passed."""
        passed = self.word
        found = _TOKEN.match(self._text, self._place)
        if found is not None:
            self.word, self._kind, self._place = found[0].strip(), found.lastgroup or "", found.end()
        elif self._text[self._place :].strip():
            raise WatchSyntaxError(f"what is {self._text[self._place :].strip()[:20]!r}?")
        else:
            self.word = self._kind = ""
        return passed

    def _expect(self, word: str) -> None:
        if self.word != word:
            raise WatchSyntaxError(f"{word!r} is wanted" + (f" before {self.word!r}" if self.word else " at the end"))
        self._next()

    def disjunction(self) -> _Part:
        """The weakest of all: A || B."""
        return self._chosen("||", self._conjunction)

    def _conjunction(self) -> _Part:
        return self._chosen("&&", lambda: self._binary(0))

    def _chosen(self, sign: str, operand: Callable[[], _Part]) -> _Part:
        part = operand()
        while self.word == sign:
            self._next()
            right = operand()
            # `||`: a true left side is the result; `&&`: a false one is. The other side decides otherwise.
            left = part.code + (bytes([Op.LOG_NOT]) if sign == "&&" else b"")
            decided = _constant(int(sign == "||"))
            other = right.code + bytes([Op.LOG_NOT, Op.LOG_NOT]) + _jump(Op.GOTO, len(decided))
            part = _Part(left + _jump(Op.IF_GOTO, len(other)) + other + decided)
        return part

    def _binary(self, level: int) -> _Part:
        if level == len(_LEVELS):
            return self._unary()
        part = self._binary(level + 1)
        while self._kind == "sign" and self.word in _LEVELS[level]:
            sign = self._next()
            right = self._binary(level + 1)
            unsigned = part.unsigned or (right.unsigned and sign not in _SHIFTS)
            code = part.code + right.code + (bytes([Op.SWAP]) if sign in _SWAPPED else b"")
            code += bytes([_LEVELS[level][sign][unsigned]]) + (bytes([Op.LOG_NOT]) if sign in _INVERTED else b"")
            is_truth = level in (3, 4)
            part = _Part(code, unsigned and not is_truth)
        return part

    def _unary(self) -> _Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise WatchSyntaxError("too many brackets")
        try:
            return self._prefixed()
        finally:
            self._depth -= 1

    def _prefixed(self) -> _Part:
        match self.word:
            case "!":
                self._next()
                return _Part(self._unary().code + bytes([Op.LOG_NOT]))
            case "~":
                self._next()
                part = self._unary()
                return _Part(part.code + bytes([Op.BIT_NOT]), part.unsigned)
            case "-":
                self._next()
                part = self._unary()
                return _Part(_constant(0) + part.code + bytes([Op.SUB]), part.unsigned)
            case "*":
                self._next()
                self._expect("(")
                bits, is_signed = self._type()
                self._expect("*")
                self._expect(")")
                return _load(self._unary(), bits, is_signed=is_signed)
            case "(":
                return self._bracketed()
        return self._primary()

    def _bracketed(self) -> _Part:
        """A cast, or an expression in brackets."""
        self._next()
        if self.word in _TYPES:
            here = self._place, self.word, self._kind
            bits, is_signed = self._type()
            if self.word == ")":
                self._next()
                return _cast(self._unary(), bits, is_signed=is_signed)
            self._place, self.word, self._kind = here
        part = self.disjunction()
        self._expect(")")
        return part

    def _type(self) -> tuple[int, bool]:
        if self.word not in _TYPES:
            raise WatchSyntaxError(f"a type as u32 is wanted, not {self.word!r}")
        return _TYPES[self._next()]

    def _primary(self) -> _Part:
        kind, word = self._kind, self._next()
        match kind:
            case "number":
                value = int(word, 0) if word[:2].lower() == "0x" else int(word)
                if value >> _WIDTH:
                    raise WatchSyntaxError(f"{word} has more than 64 bits")
                return _Part(_constant(value), value >> _WIDTH - 1 != 0)
            case "char":
                return _Part(_constant(_character(word)))
            case "register":
                name = word[1:]
                register = BY_NAME.get(_ALIASES.get(name, name))
                if register is None or register.bitsize > _WIDTH:
                    raise WatchSyntaxError(f"no register {word} of at most 64 bits")
                return _Part(bytes([Op.REG]) + register.number.to_bytes(2, "big"), unsigned=True)
            case "name" if word in _TYPES and self.word == "[":
                self._next()
                part = self.disjunction()
                self._expect("]")
                bits, is_signed = _TYPES[word]
                return _load(part, bits, is_signed=is_signed)
            case "name" if word in ("new", "old") and self._length is not None:
                if self._length not in (1, 2, 4, 8):
                    raise WatchSyntaxError("new and old want a length of 1, 2, 4 or 8")
                variable = NEW if word == "new" else OLD
                return _Part(bytes([Op.GETV]) + variable.to_bytes(2, "big"), self._length == _WIDTH // 8)
            case "name":
                address = self._address_of(word)
                if address is None:
                    raise WatchSyntaxError(f"no symbol {word}")
                return _Part(_constant(address), unsigned=True)
        raise WatchSyntaxError(f"a value is wanted, not {word!r}" if word else "a value is wanted at the end")


def _constant(value: int) -> bytes:
    return bytes([Op.CONST64]) + value.to_bytes(8, "big")


def _character(word: str) -> int:
    text = word[1:-1]
    if not text.startswith("\\"):
        return ord(text)
    if text[1] not in _ESCAPES:
        raise WatchSyntaxError(f"what is {word}?")
    return _ESCAPES[text[1]]


def _load(address: _Part, bits: int, *, is_signed: bool) -> _Part:
    extended = bytes([Op.EXT, bits]) if is_signed else b""
    return _Part(address.code + bytes([_LOADS[bits]]) + extended, bits == _WIDTH and not is_signed)


def _cast(part: _Part, bits: int, *, is_signed: bool) -> _Part:
    return _Part(part.code + bytes([Op.EXT if is_signed else Op.ZERO_EXT, bits]), bits == _WIDTH and not is_signed)


def _jump(op: Op, distance: int) -> bytes:
    """A jump over `distance` bytes behind it; `_linked` makes offsets from the beginning of that."""
    return bytes([op]) + distance.to_bytes(2, "big")


_OPERANDS: Final = {Op.CONST64: 8, Op.REG: 2, Op.GETV: 2, Op.GOTO: 2, Op.IF_GOTO: 2, Op.EXT: 1, Op.ZERO_EXT: 1}
"""Bytes of operand of the instructions that are made here, where there are any."""


def _linked(code: bytes) -> bytes:
    """Distances of jumps become offsets."""
    linked = bytearray(code)
    place = 0
    while place < len(code):
        op = Op(code[place])
        behind = place + 1 + _OPERANDS.get(op, 0)
        if op in (Op.GOTO, Op.IF_GOTO):
            target = behind + int.from_bytes(code[place + 1 : behind], "big")
            linked[place + 1 : behind] = target.to_bytes(2, "big")
        place = behind
    return bytes(linked)
