"""Monitor commands about watches with conditions."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from errno import EINVAL
from typing import Final

from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.monitor import MonitorContext, arguments, monitor, number
from xdbg.debug.points.agent import ThreadContext
from xdbg.debug.points.watch_expression import WatchSyntaxError, compile_expression
from xdbg.guestos.elf_file import ElfError
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.agent_evaluation import evaluate
from xdbg.rsp.agent_expression import Expression, ExpressionError
from xdbg.rsp.target import TargetError, WatchKind

MAX_LENGTH: Final = 64 << 20
_USAGE: Final = "watch [PLACE [LENGTH] [r|w|rw] [if CONDITION]]"
_KINDS: Final = {"w": WatchKind.WRITE, "r": WatchKind.READ, "rw": WatchKind.ACCESS}
_NAME: Final = re.compile(r"[A-Za-z_.][\w.@]*\Z")
_WORD: Final = 8


@monitor("watch", "[PLACE [LENGTH] [r|w|rw] [if CONDITION]]")
def watch(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The watches; with a PLACE (SYMBOL+8, 0x1000, u64[$rdi]) one more: watch counter 8 w if new > old + 1 && $rdi"""
    watches = context.target.conditional_watches
    if not words:
        lines = [f"{at:6}  {one.hits:8}  {one.stops:8}  {one.point.vaddr:#18x}  {one}" for at, one in watches]
        yield from ["number      hits     stops             address  watch", *lines] if lines else ["no watches"]
        return
    words, condition = list(words), ""
    if "if" in words:
        at = words.index("if")
        words, condition = words[:at], " ".join(words[at + 1 :])
        if not condition:
            raise TargetError(EINVAL, f"usage: monitor {_USAGE}")
    kind = _KINDS[words.pop()] if words and words[-1] in _KINDS else WatchKind.WRITE
    place, *lengths = arguments(words, _USAGE, 1, 2)
    thread = context.thread
    if thread is None:
        raise TargetError(EINVAL, "no thread is selected, whose memory would be watched")
    symbols = _symbols(context)
    length = number(lengths[0]) if lengths else _size_of(symbols, place)
    vaddr = _value(context, _compile(place, symbols, None))
    if not 0 < length <= min(MAX_LENGTH, (1 << 64) - vaddr):
        raise TargetError(EINVAL, f"{length} bytes can't be watched there")
    expression = _compile(condition, symbols, length) if condition else None
    at, made = watches.add(thread.pid, kind, vaddr, length, place, expression, condition)
    yield f"watch {at}: {made}, at {vaddr:#x}"


@monitor("unwatch", "N|all")
def unwatch(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Remove a watch, or all"""
    (which,) = arguments(words, "unwatch N|all", 1)
    watches = context.target.conditional_watches
    if which == "all":
        watches.clear()
    elif which.isdecimal():
        watches.remove(int(which))
    else:
        raise TargetError(EINVAL, "usage: monitor unwatch N|all")
    yield f"{len(list(watches))} left"


Symbols = Callable[[str], tuple[int, int] | None]


def _symbols(context: MonitorContext) -> Symbols:
    """Address and size by name: of the process that gdb looks at, then of the kernel."""
    tables = [context.target.kernel_symbols]
    assert context.thread is not None
    if context.thread.pid != KERNEL_PID:
        process = context.inferiors.process(context.thread.pid)
        content = context.target.profile.file(process.exec_path)
        with suppress(ElfError):
            tables.insert(0, SymbolTable.from_elf(content or b"", bias=process.load_base))

    def find(name: str) -> tuple[int, int] | None:
        found = next((symbol for table in tables if (symbol := table.get(name)) is not None), None)
        return None if found is None else (found.address, found.size)

    return find


def _size_of(symbols: Symbols, place: str) -> int:
    """That of a variable named alone, or a word."""
    found = symbols(place) if _NAME.match(place) else None
    return found[1] if found is not None and found[1] else _WORD


def _compile(text: str, symbols: Symbols, length: int | None) -> Expression:
    try:
        return compile_expression(text, lambda name: None if (found := symbols(name)) is None else found[0], length)
    except WatchSyntaxError as error:
        raise TargetError(EINVAL, f"{text}: {error}") from error


def _value(context: MonitorContext, expression: Expression) -> int:
    assert context.thread is not None
    thread_context = ThreadContext(context.inferiors, context.vcpu, context.thread, context.target.console)
    try:
        return evaluate(expression, thread_context)
    except ExpressionError as error:
        raise TargetError(EINVAL, str(error)) from error
