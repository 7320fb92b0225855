"""Running a machine to the end of its domains with nobody debugging them."""

from enum import Enum

from xdbg.abi.sched import Shutdown
from xdbg.xen.setup import RunEnd

from .console import Terminal
from .launch import Launched, Machine
from .limits import Budget, Limits

SLICE = 2_000_000
"""Instructions between two looks at the terminal: a few milliseconds."""
NO_LIMITS = Limits()


class Outcome(Enum):
    """How the run of a domain ended."""

    POWERED_OFF = "powered off"
    CRASHED = "crashed"
    LIMIT = "limit reached"
    STUCK = "every vcpu waits for an event that can't come"


def run_to_end(launched: Launched, terminal: Terminal, limits: Limits = NO_LIMITS) -> Outcome:
    """Run the only domain of a machine until it has shut down or a limit is reached."""
    return run_machine(Machine(launched.hv, [launched]), terminal, limits)[0]


def run_machine(machine: Machine, terminal: Terminal, limits: Limits = NO_LIMITS, *, console: int = 0) -> list[Outcome]:
    """Run until all domains have shut down, none can go on, or a limit is reached; how it ended for each.

    Input goes to the domain with number `console`.
    """
    hv = machine.hv
    typed_at = machine.domains[console].domain
    budget = Budget(limits)
    while True:
        ended = hv.run(budget.slice_end(hv.cpu.count, SLICE))
        for launched in machine.domains:
            terminal.flush(launched.domain)
        if not hv.alive or budget.is_spent(hv.cpu.count):
            return [_outcome(launched, Outcome.LIMIT) for launched in machine.domains]
        if ended is RunEnd.IDLE:
            if terminal.input_fd is None or typed_at.shutdown_code is not None:
                return [_outcome(launched, Outcome.STUCK) for launched in machine.domains]
            terminal.poll(typed_at, budget.seconds_left())
        else:
            terminal.poll(typed_at)


def _outcome(launched: Launched, otherwise: Outcome) -> Outcome:
    match launched.domain.shutdown_code:
        case None:
            return otherwise
        case Shutdown.CRASH:
            return Outcome.CRASHED
        case _:
            return Outcome.POWERED_OFF
