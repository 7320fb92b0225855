"""Trace state variables: 64-bit counters that conditions and actions read and set while the guest runs.

Variable 1, ``$trace_timestamp``, is builtin: the guest's time in microseconds. gdb numbers its own from 2 when it has
seen that.
"""

from collections.abc import Callable
from errno import E2BIG, EPERM
from typing import Final

from xdbg.rsp.agent_evaluation import signed
from xdbg.rsp.agent_expression import ExpressionError
from xdbg.rsp.target import TargetError
from xdbg.rsp.tracepoints import TraceVariable

TIMESTAMP: Final = TraceVariable(1, 0, "trace_timestamp", builtin=True)
_MAX: Final = 4096
_MAX_NAME: Final = 256
_MASK: Final = (1 << 64) - 1


class TraceVariables:
    """All variables of one target. `now_us`: the guest's clock."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._defined: dict[int, TraceVariable] = {TIMESTAMP.number: TIMESTAMP}
        self._values: dict[int, int] = {}

    def clear(self) -> None:
        """Only the builtin one is left."""
        self._defined = {TIMESTAMP.number: TIMESTAMP}
        self._values.clear()

    def inherit(self, former: "TraceVariables") -> None:
        """The variables and values of another target."""
        for variable in former.all():
            self.define(variable)
            if not variable.builtin:
                self.set(variable.number, former.get(variable.number))

    def define(self, variable: TraceVariable) -> None:
        """A variable with its initial value. The builtin one stays as it is; TargetError(E2BIG): too many."""
        if variable.number == TIMESTAMP.number:
            if variable.name != TIMESTAMP.name:
                raise TargetError(EPERM, f"variable {variable.number} is ${TIMESTAMP.name}")
            return
        if len(variable.name) > _MAX_NAME or (variable.number not in self._defined and len(self._defined) >= _MAX):
            raise TargetError(E2BIG, "too many trace state variables, or too long a name")
        self._defined[variable.number] = variable
        self._values[variable.number] = variable.initial

    def all(self) -> tuple[TraceVariable, ...]:
        """In the order in which they were defined."""
        return tuple(self._defined.values())

    def reset(self) -> None:
        """A trace starts: all have their initial values."""
        for variable in self._defined.values():
            if not variable.builtin:
                self._values[variable.number] = variable.initial

    def find(self, number: int) -> int | None:
        """A value, with a sign; None if there is no such variable."""
        if number == TIMESTAMP.number:
            return self._now_us()
        return self._values.get(number)

    def get(self, number: int) -> int:
        """As `find`, for expressions: ExpressionError if there is none."""
        value = self.find(number)
        if value is None:
            raise ExpressionError(f"there is no trace state variable {number}")
        return value

    def set(self, number: int, value: int) -> None:
        """64 bits. ExpressionError for an unknown variable, and for the builtin one."""
        if number not in self._values:
            raise ExpressionError(f"trace state variable {number} can't be set")
        self._values[number] = signed(value & _MASK)
