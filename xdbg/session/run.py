"""Running a domain to its end with nobody debugging it."""

import time
from enum import Enum

from xdbg.abi.sched import Shutdown
from xdbg.xen.setup import RunEnd

from .console import Terminal
from .launch import Launched

SLICE = 2_000_000
"""Instructions between two looks at the terminal: a few milliseconds."""


class Outcome(Enum):
    """How a run ended."""

    POWERED_OFF = "powered off"
    CRASHED = "crashed"
    LIMIT = "limit reached"
    STUCK = "every vcpu waits for an event that can't come"


def run_to_end(
    launched: Launched, terminal: Terminal, *, max_instructions: int | None = None, timeout: float | None = None
) -> Outcome:
    """Run until the domain has shut down, an instruction limit is reached, or `timeout` s of the host's time passed."""
    hv, domain = launched.hv, launched.domain
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        limit = hv.cpu.count + SLICE
        if max_instructions is not None:
            limit = min(limit, max_instructions)
        ended = hv.run(limit)
        terminal.flush(domain)
        if domain.shutdown_code is not None:
            return Outcome.CRASHED if domain.shutdown_code == Shutdown.CRASH else Outcome.POWERED_OFF
        if max_instructions is not None and hv.cpu.count >= max_instructions:
            return Outcome.LIMIT
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return Outcome.LIMIT
        if ended is RunEnd.IDLE:
            if terminal.input_fd is None:
                return Outcome.STUCK
            terminal.poll(domain, left)
        else:
            terminal.poll(domain)
