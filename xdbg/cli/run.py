"""xdbg run: a domain from its first instruction to its end."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, Machine
from xdbg.session.run import Outcome, run_machine

from .options import (
    EXIT_LIMIT,
    Cores,
    audit_option,
    console_number,
    console_option,
    core_options,
    domain_options,
    launch_domains,
    limit_options,
    limits_of,
)

EXIT_STATUS = {Outcome.POWERED_OFF: 0, Outcome.CRASHED: 3, Outcome.LIMIT: EXIT_LIMIT, Outcome.STUCK: EXIT_LIMIT}


def report(machine: Machine, outcomes: Sequence[Outcome]) -> int:
    """Say on stderr how it ended, unless all just powered off; the exit status: of several domains the highest."""
    several = len(machine.domains) > 1
    for launched, outcome in zip(machine.domains, outcomes, strict=True):
        if outcome is Outcome.CRASHED:
            who = f"domain {launched.domain.name}" if several else "the domain"
            reason = launched.domain.shutdown_reason or "it asked for SHUTDOWN_crash"
            click.echo(f"xdbg: {who} crashed: {reason}", err=True)
    unfinished = [
        (launched.domain.name, outcome)
        for launched, outcome in zip(machine.domains, outcomes, strict=True)
        if outcome in (Outcome.LIMIT, Outcome.STUCK)
    ]
    if unfinished:
        _, outcome = unfinished[0]
        which = f" ({', '.join(name for name, _ in unfinished)})" if several else ""
        click.echo(f"xdbg: {outcome.value} after {machine.hv.cpu.count} instructions{which}", err=True)
    return max(EXIT_STATUS[outcome] for outcome in outcomes)


@click.command("run")
@domain_options
@console_option
@limit_options
@core_options
@audit_option
def command(
    what: tuple[Launch, ...],
    console: str | None,
    max_instructions: int | None,
    timeout: float | None,
    core: Path | None,
    xen_core: Path | None,
    audit: int | None,
) -> None:
    """Run the domain of KERNEL, a bundled guest's name or a PV64 kernel, or several domains.

    The console is stdout and stdin; with several, each line has its domain's name before it. Exit status: 0 the domain
    powered off, 3 it crashed, 124 a limit was hit; of several domains the highest.
    """
    cores = Cores(core, xen_core)
    cores.check()
    number = console_number(console, what)
    machine = launch_domains(what, audit)
    terminal = Terminal(sys.stdout.buffer, sys.stdin.fileno(), named=len(what) > 1)
    outcomes = run_machine(machine, terminal, limits_of(max_instructions, timeout), console=number)
    cores.save(machine, outcomes)
    sys.exit(report(machine, outcomes))
