"""xdbg run: a domain from its first instruction to its end."""

import sys
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, Launched
from xdbg.session.run import Outcome, run_to_end

from .options import (
    EXIT_LIMIT,
    Cores,
    core_options,
    domain_options,
    launch_domain,
    limit_options,
    limits_of,
)

EXIT_STATUS = {Outcome.POWERED_OFF: 0, Outcome.CRASHED: 3, Outcome.LIMIT: EXIT_LIMIT, Outcome.STUCK: EXIT_LIMIT}


def report(launched: Launched, outcome: Outcome) -> int:
    """Say on stderr how it ended, unless it just powered off; the exit status."""
    match outcome:
        case Outcome.CRASHED:
            reason = launched.domain.shutdown_reason or "it asked for SHUTDOWN_crash"
            click.echo(f"xdbg: the domain crashed: {reason}", err=True)
        case Outcome.LIMIT | Outcome.STUCK:
            click.echo(f"xdbg: {outcome.value} after {launched.hv.cpu.count} instructions", err=True)
        case Outcome.POWERED_OFF:
            pass
    return EXIT_STATUS[outcome]


@click.command("run")
@domain_options
@limit_options
@core_options
def command(
    what: Launch,
    max_instructions: int | None,
    timeout: float | None,
    core: Path | None,
    xen_core: Path | None,
) -> None:
    """Run the domain of KERNEL, a bundled guest's name or a PV64 ELF kernel.

    The console is stdout and stdin. Exit status: 0 the domain powered off, 3 it crashed, 124 a limit was hit.
    """
    cores = Cores(core, xen_core)
    cores.check()
    launched = launch_domain(what)
    terminal = Terminal(sys.stdout.buffer, sys.stdin.fileno())
    outcome = run_to_end(launched, terminal, limits_of(max_instructions, timeout))
    cores.save(launched, outcome)
    sys.exit(report(launched, outcome))
