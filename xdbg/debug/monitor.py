"""The commands behind gdb's ``monitor``: one table, and its dispatch.

A command is a function with `@monitor("name", "ARGUMENTS")` in `commands`: it gets a `MonitorContext` and the words
behind its name, and yields lines. The first line of its docstring is what ``monitor help`` says. A name may be of two
words; the longest that fits is taken. What a user did wrong is a TargetError, and becomes one line. A client that only
observes is refused every command that is not marked for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, Final

from xdbg.rsp.registers import BY_NAME
from xdbg.rsp.table import OBSERVES_ONLY
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.xen.domain import Domain
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu

from .inferiors.address_space import AddressSpace
from .inferiors.attached import KERNEL_PID, Inferiors

if TYPE_CHECKING:
    from .target import DebugTarget


@dataclass(frozen=True, slots=True)
class MonitorContext:
    """What a command works on. `thread` is the one that gdb looks at, if there is any."""

    target: "DebugTarget"
    thread: Thread | None

    @property
    def hv(self) -> Hypervisor:
        """The machine."""
        return self.target.hv

    @property
    def domain(self) -> Domain:
        """The domain that is debugged."""
        return self.target.domain

    @property
    def inferiors(self) -> Inferiors:
        """The attached inferiors."""
        return self.target.inferiors

    @property
    def vcpu(self) -> Vcpu:
        """The vcpu of the thread, or the one that runs its process; the first where that is none."""
        thread = self.thread
        if thread is not None and thread.pid == KERNEL_PID:
            return self.inferiors.vcpu(thread)
        found = None if thread is None else self.inferiors.user_vcpu(thread.pid)
        return found if found is not None else self.domain.vcpus[0]

    @property
    def space(self) -> AddressSpace:
        """The memory of the thread, or the kernel's."""
        thread = self.thread
        return self.inferiors.space(thread if thread is not None else self.inferiors.vcpu_thread(self.domain.vcpus[0]))

    def symbol(self, vaddr: int) -> str:
        """An address with the kernel's name for it."""
        name = self.target.kernel_symbols.describe(vaddr)
        return f"{vaddr:#x}" if name.startswith("0x") else f"{vaddr:#x} <{name}>"


Command = Callable[[MonitorContext, Sequence[str]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One command of the table."""

    name: str
    arguments: str
    run: Command
    observing: bool

    @property
    def usage(self) -> str:
        """The name and what follows it."""
        return f"{self.name} {self.arguments}".rstrip()

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").partition("\n")[0]


_TABLE: Final[dict[str, Row]] = {}


def monitor(name: str, arguments: str = "", *, observing: bool = False) -> Callable[[Command], Command]:
    """Enter a command in the table. `observing`: it changes nothing, and observers may use it."""

    def enter(run: Command) -> Command:
        assert name not in _TABLE, name
        _TABLE[name] = Row(name, arguments, run, observing)
        return run

    return enter


def rows() -> list[Row]:
    """All commands, by name."""
    return [_TABLE[name] for name in sorted(_TABLE)]


def run_command(context: MonitorContext, line: str) -> Iterator[str]:
    """The output of a command, line by line with newlines. TargetError(EINVAL) for what can't be done."""
    words = line.split()
    for count in (2, 1):
        row = _TABLE.get(" ".join(words[:count])) if len(words) >= count else None
        if row is not None:
            if context.target.observing and not row.observing:
                raise TargetError(EPERM, OBSERVES_ONLY)
            for text in row.run(context, words[count:]):
                yield text + "\n"
            return
    if words:
        raise TargetError(EINVAL, f"no command {line.strip()!r}; `monitor help` lists all")
    yield from run_command(context, "help")


def arguments(words: Sequence[str], usage: str, least: int, most: int | None = None) -> Sequence[str]:
    """The words, if their number is right. TargetError(EINVAL) says how the command is used."""
    if not least <= len(words) <= (least if most is None else most):
        raise TargetError(EINVAL, f"usage: monitor {usage}")
    return words


def number(text: str, context: MonitorContext | None = None) -> int:
    """A number as in C, or hexadecimal without its 0x; with a context also `$rip` and its like. TargetError(EINVAL)."""
    if context is not None and text.startswith("$"):
        register = BY_NAME.get({"$pc": "rip", "$sp": "rsp"}.get(text, text[1:]))
        if register is None or context.thread is None:
            raise TargetError(EINVAL, f"no register {text}")
        return int.from_bytes(context.target.read_register(context.thread, register.number), "little")
    for base in (0, 16):
        try:
            value = int(text, base)
        except ValueError:
            continue
        if 0 <= value < 1 << 64:
            return value
    raise TargetError(EINVAL, f"{text} is no number below 2^64")
