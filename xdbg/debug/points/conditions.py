"""gdb's conditions as predicates of stop points, which the engine evaluates by itself.

A predicate may stop where the condition does not hold, since each stop is looked at again with the condition itself
(`breakpoint_agent`); it never passes where the condition holds. So an expression is translated only if its values are
the same there:

* general registers and rip are the CPU's, which are those of the thread only while the CPU runs it: see
  `Placement.registers`. Flags, segments and what lies behind are not looked at by predicates;
* memory is read through the thread's page tables;
* trace state variables, printing and recording have no place in a predicate.

What can't be translated has no predicate: then each hit is an exit, and the condition is evaluated here.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.machine.predicate import Predicate, PredicateOp, Step
from xdbg.machine.registers import GPR_NAMES
from xdbg.rsp.agent_expression import REFERENCES, Expression, Instruction, Op
from xdbg.rsp.registers import REGISTERS, RIP

MAX_STEPS: Final = 4096
"""Steps of one predicate; longer ones are evaluated here."""

GPR_OF: Final = {
    register.number: GPR_NAMES.index(register.name) for register in REGISTERS if register.name in GPR_NAMES
}
"""Which general register of the CPU gdb's number means."""

_SAME_NAME: Final = {
    Op[op.name]: op
    for op in PredicateOp
    if op.name in Op.__members__ and op not in (PredicateOp.END, PredicateOp.GOTO, PredicateOp.IF_GOTO)
}
_CONSTANTS: Final = frozenset({Op.CONST8, Op.CONST16, Op.CONST32, Op.CONST64})


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a breakpoint of an inferior stops: under page table `cr3` (None: any).

    `tables`: through which its thread's memory is read, as in `Predicate`; `registers`: the thread's are the CPU's.
    """

    cr3: Maddr | None
    tables: tuple[Maddr | None, ...] = (None,)
    registers: bool = True


@lru_cache(maxsize=4096)
def predicate_for(conditions: tuple[Expression, ...], vaddr: Vaddr, placement: Placement) -> Predicate | None:
    """What is to hold for any of the conditions to be true at `vaddr`; None: no predicate can tell.

    The same question gets the same object, so that stop points which have not changed are found equal.
    """
    if not conditions:
        return None
    steps: list[Step] = []
    for number, expression in enumerate(conditions):
        translated = _translate(expression, vaddr, placement, len(steps), is_last=number == len(conditions) - 1)
        if translated is None or len(steps) + len(translated) > MAX_STEPS:
            return None
        steps += translated
    return Predicate(tuple(steps), placement.tables)


def _translate(
    expression: Expression, vaddr: Vaddr, placement: Placement, start: int, *, is_last: bool
) -> list[Step] | None:
    """The steps of one expression, which begin at index `start`. An end that is not the last goes on behind them."""
    steps: list[Step] = []
    behind = start + len(expression.instructions)
    for instruction in expression.instructions:
        step = _step(instruction, vaddr, placement)
        if step is None:
            return None
        if step.op in (PredicateOp.GOTO, PredicateOp.IF_GOTO):
            step = replace(step, operand=start + step.operand)
        elif step.op is PredicateOp.END and not is_last:
            step = Step(PredicateOp.OR_ELSE, behind)
        steps.append(step)
    return steps


def _step(instruction: Instruction, vaddr: Vaddr, placement: Placement) -> Step | None:
    op, operand = instruction.op, instruction.operand
    if op in _CONSTANTS:
        return Step(PredicateOp.CONST, value=operand)
    if op in REFERENCES:
        return Step(PredicateOp.LOAD, REFERENCES[op])
    if op in _SAME_NAME:
        return Step(_SAME_NAME[op], operand)
    match op:
        case Op.END:
            return Step(PredicateOp.END)
        case Op.GOTO:
            return Step(PredicateOp.GOTO, operand)
        case Op.IF_GOTO:
            return Step(PredicateOp.IF_GOTO, operand)
        case Op.REG if placement.registers and operand == RIP:
            return Step(PredicateOp.CONST, value=vaddr)
        case Op.REG if placement.registers and operand in GPR_OF:
            return Step(PredicateOp.REGISTER, GPR_OF[operand])
    return None
