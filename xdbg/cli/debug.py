"""xdbg debug: a domain and a gdb attached to it, in one command."""

import shutil
import sys
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.gdb_child import debug_with_child
from xdbg.session.launch import Launch, names_of

from .options import (
    UsageFailure,
    domain_options,
    ended_by_limits,
    launch_domains,
    limit_options,
    limits_of,
    log_options,
    packet_log,
)


@click.command("debug")
@domain_options
@limit_options
@log_options
@click.option("--gdb-program", default="gdb", show_default=True, help="The gdb to start.")
@click.argument("gdb_args", nargs=-1, type=click.UNPROCESSED)
def command(
    what: tuple[Launch, ...],
    max_instructions: int | None,
    timeout: float | None,
    log_path: Path | None,
    gdb_program: str,
    gdb_args: tuple[str, ...],
    *,
    overwrite: bool,
) -> None:
    """Serve the domain of KERNEL and start gdb attached to it; GDB_ARGS (after --) are gdb's.

    Of several domains gdb gets the first; where debuggers of the others connect is said on stderr. The domains'
    consoles go to stderr, too. The exit status is gdb's.
    """
    program = shutil.which(gdb_program)
    if program is None:
        raise UsageFailure(f"{gdb_program}: no such program; it can be named by --gdb-program")
    with ended_by_limits():
        status = debug_with_child(
            lambda: launch_domains(what),
            names_of(what),
            Terminal(sys.stderr.buffer, named=len(what) > 1),
            program,
            gdb_args,
            limits_of(max_instructions, timeout),
            packet_log(log_path, what, overwrite=overwrite),
            lambda text: click.echo(f"xdbg: {text}", err=True) if len(what) > 1 else None,
        )
    sys.exit(status)
