"""Running a domain to its end with nobody debugging it."""

from enum import Enum

from xdbg.abi.sched import Shutdown
from xdbg.xen.setup import RunEnd

from .console import Terminal
from .launch import Launched
from .limits import Budget, Limits

SLICE = 2_000_000
"""Instructions between two looks at the terminal: a few milliseconds."""
NO_LIMITS = Limits()


class Outcome(Enum):
    """How a run ended."""

    POWERED_OFF = "powered off"
    CRASHED = "crashed"
    LIMIT = "limit reached"
    STUCK = "every vcpu waits for an event that can't come"


def run_to_end(launched: Launched, terminal: Terminal, limits: Limits = NO_LIMITS) -> Outcome:
    """Run until the domain has shut down or a limit is reached."""
    hv, domain = launched.hv, launched.domain
    budget = Budget(limits)
    while True:
        ended = hv.run(budget.slice_end(hv.cpu.count, SLICE))
        terminal.flush(domain)
        if domain.shutdown_code is not None:
            return Outcome.CRASHED if domain.shutdown_code == Shutdown.CRASH else Outcome.POWERED_OFF
        if budget.is_spent(hv.cpu.count):
            return Outcome.LIMIT
        if ended is RunEnd.IDLE:
            if terminal.input_fd is None:
                return Outcome.STUCK
            terminal.poll(domain, budget.seconds_left())
        else:
            terminal.poll(domain)
