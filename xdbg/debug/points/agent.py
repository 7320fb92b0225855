"""Conditions and commands of gdb's breakpoints, at the moment when one is reached.

The engine has already passed where a predicate did not hold (`conditions`); what arrives here is decided exactly, with
the registers and the memory of the thread that a stop would be told for.

* A breakpoint without conditions, or with any that is not zero, is hit. A condition that can't be evaluated counts as
  true: one stop too many is seen and passed on by gdb, one too few is lost.
* Commands of a breakpoint that is hit are run, and it does not stop. One without commands stops.
* What commands print goes to the console of the debugger. A command that can't be carried out says so there.
* With `persist` they are run on when the debugger has gone, if they were set through the kernel.
"""

from collections.abc import Sequence
from errno import EINVAL
from functools import lru_cache
from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE
from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.inferiors.registers import Registers, read_one
from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import Expression, ExpressionError, parse
from xdbg.rsp.agent_printf import Piece, format_text
from xdbg.rsp.registers import G_REGISTERS, REGISTERS, RIP
from xdbg.rsp.replies import HwBreak, SwBreak
from xdbg.rsp.target import BreakpointKind, TargetError
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .breakpoints import Actions, Breakpoints
from .conditions import GPR_OF

MAX_EXPRESSIONS: Final = 64
"""Conditions, and commands, of one breakpoint."""
_WORD: Final = 8

parse_cached = lru_cache(maxsize=1024)(parse)
"""gdb sends the same conditions again at each resume."""


class ThreadContext:
    """The thread that a hit on the vcpu is told for, as an expression sees it."""

    def __init__(self, inferiors: Inferiors, vcpu: Vcpu, thread: Thread, console: Console) -> None:
        self._inferiors = inferiors
        self._cpu = inferiors.domain.hv.cpu
        self._thread = thread
        self._console = console
        shown = thread.pid == KERNEL_PID or inferiors.runs(vcpu, thread.pid)
        self._live = shown and vcpu is inferiors.domain.hv.current
        """The CPU has its registers."""
        self._registers: Registers | None = None

    def read_register(self, number: int) -> int:
        """By gdb's number; UnreadableError for one of more than 64 bits."""
        if self._live and number in GPR_OF:
            return self._cpu.gpr[GPR_OF[number]]
        if self._live and number == RIP:
            return self._cpu.rip
        if number >= len(REGISTERS) or REGISTERS[number].size > _WORD:
            raise UnreadableError(f"no register {number} of at most 64 bits")
        try:
            if number >= len(G_REGISTERS):
                return int.from_bytes(self._inferiors.read_system(self._thread, number), "little")
            if self._registers is None:
                self._registers = self._inferiors.read_registers(self._thread)
            return int.from_bytes(read_one(self._registers, number), "little")
        except TargetError as error:
            raise UnreadableError(error.text) from error

    def read_memory(self, vaddr: int, length: int) -> bytes:
        """All of it, or UnreadableError."""
        try:
            data = self._inferiors.space(self._thread).read(vaddr, length)
        except TargetError as error:
            raise UnreadableError(error.text) from error
        if len(data) < length:
            raise UnreadableError(f"cannot read memory at {vaddr + len(data):#x}")
        return data

    def read_string(self, vaddr: int, limit: int) -> bytes:
        """The bytes before the first zero, at most `limit`."""
        found = b""
        while len(found) < limit:
            place = vaddr + len(found)
            part = self.read_memory(place, min(limit - len(found), PAGE_SIZE - (place & PAGE_MASK)))
            text, zero, _ = part.partition(b"\0")
            found += text
            if zero:
                break
        return found

    def get_variable(self, number: int) -> int:
        """There are none outside of tracepoints."""
        raise UnreadableError(f"there is no trace state variable {number} here")

    def set_variable(self, number: int, value: int) -> None:
        """As `get_variable`."""
        raise UnreadableError(f"{value} is for trace state variable {number}, which is not here")

    def record_memory(self, vaddr: int, length: int) -> None:
        """A breakpoint has no trace buffer."""
        raise ExpressionError(f"nothing records {length} bytes at {vaddr:#x}")

    def record_string(self, vaddr: int, limit: int) -> None:
        """As `record_memory`."""
        self.record_memory(vaddr, limit)

    def record_variable(self, number: int) -> None:
        """As `record_memory`."""
        raise ExpressionError(f"nothing records variable {number}")

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        """To the debugger's console."""
        self._console.write(format_text(pieces, arguments, self.read_string))


class BreakpointAgent:
    """BreakpointConditions and BreakpointCommands."""

    def __init__(self, inferiors: Inferiors, breakpoints: Breakpoints, console: Console) -> None:
        self._inferiors = inferiors
        self._breakpoints = breakpoints
        self.console = console
        self.evaluations = 0
        """Expressions evaluated since the beginning, by their weight: each takes some time."""

    def set_breakpoint_conditions(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, conditions: Sequence[bytes]
    ) -> None:
        """In force from the next resume on. TargetError(EINVAL) for what is no expression with a result."""
        parsed = _parse_all(conditions)
        if not all(expression.has_result for expression in parsed):
            raise TargetError(EINVAL, "a condition without a result")
        self._breakpoints.set_conditions(thread.pid, kind, vaddr, parsed)

    def set_breakpoint_commands(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, commands: Sequence[bytes], *, persist: bool
    ) -> None:
        """In force from the next resume on. TargetError(EINVAL) for what is no expression."""
        self._breakpoints.set_commands(thread.pid, kind, vaddr, _parse_all(commands), persist=persist)

    def hit(self, vcpu: Vcpu, thread: Thread, vaddr: int) -> SwBreak | HwBreak | None:
        """The vcpu has reached a breakpoint of the thread's inferior: run its commands; why it stops, if it does."""
        stopping: list[BreakpointKind] = []
        context: ThreadContext | None = None
        for kind, actions in self._breakpoints.actions(thread.pid, vaddr):
            if actions.conditions or actions.commands:
                context = context or ThreadContext(self._inferiors, vcpu, thread, self.console)
                if not self._holds(actions, context):
                    continue
                self._run(actions.commands, context)
            if not actions.commands:
                stopping.append(kind)
        if not stopping:
            return None
        return SwBreak() if BreakpointKind.SOFTWARE in stopping else HwBreak()

    def _holds(self, actions: Actions, context: ThreadContext) -> bool:
        for condition in actions.conditions:
            self.evaluations += condition.weight
            try:
                if evaluate(condition, context):
                    return True
            except ExpressionError:
                return True
        return not actions.conditions

    def _run(self, commands: Sequence[Expression], context: ThreadContext) -> None:
        for command in commands:
            self.evaluations += command.weight
            try:
                evaluate(command, context)
            except ExpressionError as error:
                self.console.write(f"a command of a breakpoint failed: {error}\n")


def _parse_all(codes: Sequence[bytes]) -> tuple[Expression, ...]:
    if len(codes) > MAX_EXPRESSIONS:
        raise TargetError(EINVAL, f"a breakpoint has at most {MAX_EXPRESSIONS} expressions")
    try:
        return tuple(map(parse_cached, codes))
    except ExpressionError as error:
        raise TargetError(EINVAL, str(error)) from error
