"""xdbg trace: the way of every trap, hypercall and event of a domain."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch
from xdbg.session.run import run_machine
from xdbg.session.trace import make_recorder
from xdbg.trace.events import DEFAULT_KINDS, EVENT_KINDS, parse_kinds
from xdbg.trace.formats import FORMATS

from .options import (
    Cores,
    UsageFailure,
    audit_option,
    console_number,
    console_option,
    core_options,
    domain_options,
    launch_domains,
    limit_options,
    limits_of,
)
from .run import report


@click.command("trace", epilog="Events: " + "; ".join(f"{name}: {what}" for name, what in EVENT_KINDS.items()))
@domain_options
@console_option
@limit_options
@core_options
@audit_option
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where the dump goes; default stdout.")
@click.option(
    "--events",
    metavar="LIST",
    help=f"What to dump, separated by commas, or all; default {','.join(sorted(DEFAULT_KINDS))}.",
)
def command(
    what: tuple[Launch, ...],
    console: str | None,
    max_instructions: int | None,
    timeout: float | None,
    core: Path | None,
    xen_core: Path | None,
    audit: int | None,
    form: str,
    output: Path | None,
    events: str | None,
) -> None:
    """Run the domain of KERNEL, or several, and dump what happens on the way of each trap, hypercall and event.

    The console goes to stderr when the dump is on stdout, else to stdout. Exit status as of `xdbg run`.
    """
    try:
        kinds = DEFAULT_KINDS if events is None else parse_kinds(events)
    except ValueError as error:
        raise UsageFailure(f"--events: {error}") from error
    cores = Cores(core, xen_core)
    cores.check()
    number = console_number(console, what)
    machine = launch_domains(what, audit)
    with ExitStack() as stack:
        stream: TextIO = sys.stdout
        if output is not None:
            try:
                stream = stack.enter_context(output.open("w", encoding="utf-8", newline="\n"))
            except OSError as error:
                raise UsageFailure(f"{output}: {error.strerror or error}") from error
        machine.hv.observer = make_recorder(machine.domains, stream, form, kinds)
        shown = sys.stderr.buffer if output is None else sys.stdout.buffer
        terminal = Terminal(shown, sys.stdin.fileno(), named=len(what) > 1)
        outcomes = run_machine(machine, terminal, limits_of(max_instructions, timeout), console=number)
    cores.save(machine, outcomes)
    sys.exit(report(machine, outcomes))
