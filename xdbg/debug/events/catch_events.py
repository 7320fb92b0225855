"""What can be caught of the hypervisor's own doings: which event, in which mode, on whose behalf.

A user names them as the ABI does: a hypercall by name or number, with a sub-operation behind a slash
(``sched_op/block``, ``29/1``, ``mmuext_op/new_baseptr``); a trap by vector or name (``14``, ``pf``, ``#PF``, ``int3``);
an upcall by a port that it is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL
from typing import Final

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import NR_VECTORS, Vector
from xdbg.rsp.target import TargetError
from xdbg.trace.arguments import call_name
from xdbg.trace.decode import commands_of
from xdbg.trace.describing import vector_name
from xdbg.trace.structures import enum_name

_PREFIXES: Final = ("__hypervisor_", "hypervisor_")
_ALIASES: Final = {"int3": Vector.BP}
_MAX_PID: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class HypercallEvent:
    """A hypercall, before Xen handles it. None: any number, any sub-operation."""

    number: int | None = None
    command: int | None = None

    def __str__(self) -> str:
        """As a user would type it."""
        if self.number is None:
            return "hypercall"
        kind = commands_of(self.number)
        name = f"hypercall {call_name(self.number)}"
        if self.command is None:
            return name
        return f"{name}/{(enum_name(kind, self.command) if kind is not None else hex(self.command)).lower()}"


@dataclass(frozen=True, slots=True)
class TrapEvent:
    """An exception or software interrupt, before Xen and the guest's kernel see it. None: any vector."""

    vector: int | None = None

    def __str__(self) -> str:
        """As a user would type it."""
        return "trap" if self.vector is None else f"trap {vector_name(self.vector).removeprefix('vector ')}"


@dataclass(frozen=True, slots=True)
class UpcallEvent:
    """An upcall that has just been delivered. None: for any port."""

    port: int | None = None

    def __str__(self) -> str:
        """As a user would type it."""
        return "upcall" if self.port is None else f"upcall {self.port}"


@dataclass(frozen=True, slots=True)
class CrashEvent:
    """The end of the domain in a crash."""

    def __str__(self) -> str:
        """As a user would type it."""
        return "crash"


CatchEvent = HypercallEvent | TrapEvent | UpcallEvent | CrashEvent


@dataclass(frozen=True, slots=True)
class CatchRequest:
    """An event, and what else must hold: on behalf of process `pid`, in kernel or user mode. None: whatever it is."""

    event: CatchEvent
    pid: int | None = None
    kernel_mode: bool | None = None

    def __str__(self) -> str:
        """As a user would type it."""
        mode = {None: "", True: " kernel", False: " user"}[self.kernel_mode]
        return f"{self.event}{mode}" + ("" if self.pid is None else f" process {self.pid}")


def parse_request(words: Sequence[str]) -> CatchRequest:
    """From the words of a user: EVENT [NAME] [user|kernel] [process PID]. TargetError(EINVAL) says what is wrong."""
    if not words:
        raise TargetError(EINVAL, "catch what? hypercall, trap, upcall or crash")
    kind, rest = words[0].lower(), list(words[1:])
    pid: int | None = None
    kernel_mode: bool | None = None
    names: list[str] = []
    while rest:
        word = rest.pop(0)
        match word.lower():
            case "process":
                pid = _whole_number(rest.pop(0) if rest else "", _MAX_PID, "a process number")
            case "user" | "kernel" as mode if kernel_mode is None:
                kernel_mode = mode == "kernel"
            case _:
                names.append(word)
    if len(names) > 1:
        raise TargetError(EINVAL, f"{names[1]!r} is neither user, kernel nor process PID")
    name = names[0] if names else ""
    match kind:
        case "hypercall":
            if kernel_mode is False:
                raise TargetError(EINVAL, "in user mode a syscall is no hypercall: it goes to the guest's kernel")
            event: CatchEvent = _hypercall(name)
        case "trap":
            event = TrapEvent(_vector(name) if name else None)
        case "upcall":
            event = UpcallEvent(_whole_number(name, 1 << 32, "a port") if name else None)
        case "crash":
            if len(words) > 1:
                raise TargetError(EINVAL, "a crash is the whole domain's: it takes no more words")
            event = CrashEvent()
        case _:
            raise TargetError(EINVAL, f"no event {words[0]!r}; there are hypercall, trap, upcall and crash")
    return CatchRequest(event, pid, kernel_mode)


def _hypercall(text: str) -> HypercallEvent:
    if not text:
        return HypercallEvent()
    name, slash, sub = text.lower().partition("/")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    by_name = {member.name.lower(): int(member) for member in Hypercall}
    number = by_name[name] if name in by_name else _whole_number(name, 1 << 32, "a hypercall")
    if not slash:
        return HypercallEvent(number)
    kind = commands_of(number)
    if kind is None:
        raise TargetError(EINVAL, f"{call_name(number)} has no sub-operations")
    commands = {member.name.lower(): int(member) for member in kind}
    sub = sub.removeprefix(kind.c_prefix.lower())
    if sub in commands:
        return HypercallEvent(number, commands[sub])
    what = f"a sub-operation of {call_name(number)} ({', '.join(commands)})"
    return HypercallEvent(number, _whole_number(sub, 1 << 32, what))


def _vector(text: str) -> int:
    name = text.lower().removeprefix("#")
    if name in _ALIASES:
        return _ALIASES[name]
    by_name = {member.name.lower(): int(member) for member in Vector}
    return by_name[name] if name in by_name else _whole_number(text, NR_VECTORS, "a vector")


def _whole_number(text: str, limit: int, what: str) -> int:
    """A number below `limit`, as in C. TargetError(EINVAL)."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < limit:
        raise TargetError(EINVAL, f"{text or 'nothing'} is not {what}")
    return value
