"""xdbg serve: a domain that waits for gdb."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch
from xdbg.session.listener import DEFAULT_ADDRESS, Address, AddressError, Listener, StdioChannel, parse_address
from xdbg.session.server import Server, end_on_signals

from .options import (
    UsageFailure,
    domain_options,
    ended_by_limits,
    launch_domain,
    limit_options,
    limits_of,
    log_options,
    packet_log,
)


@click.command("serve")
@domain_options
@limit_options
@log_options
@click.option(
    "--gdb",
    "address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT|unix:PATH|stdio",
    help="Where gdb connects; port 0 takes a free one.",
)
@click.option(
    "--dump-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where `monitor dump-core` puts its files; default is the working directory.",
)
def command(
    what: Launch,
    max_instructions: int | None,
    timeout: float | None,
    log_path: Path | None,
    address: str,
    dump_dir: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Serve the domain of KERNEL to gdb, stopped before its first instruction.

    When gdb has gone it can come again. While one debugs, further ones may connect to observe: they read all and change
    nothing. gdb -x "$(xdbg gdb-commands)" has the xen commands in it. Ctrl-C ends the server. With stdio, the console
    goes to stderr.
    """
    try:
        where = parse_address(address)
    except AddressError as error:
        raise UsageFailure(str(error)) from error
    with ExitStack() as stack:
        if where.is_stdio:
            listener, channel = None, StdioChannel()
            terminal = Terminal(sys.stderr.buffer)
        else:
            listener, channel = _listen(where), None
            stack.callback(listener.close)
            terminal = Terminal(sys.stdout.buffer, sys.stdin.fileno())
        server = Server(
            lambda: launch_domain(what),
            terminal,
            listener=listener,
            channel=channel,
            announce=lambda text: click.echo(f"xdbg: {text}", err=True),
            limits=limits_of(max_instructions, timeout),
            log=packet_log(log_path, what, overwrite=overwrite),
            dump_directory=dump_dir,
        )
        stack.callback(server.close)
        stack.enter_context(end_on_signals(server))
        if listener is not None:
            click.echo(f"target extended-remote {listener.name}")
        with ended_by_limits():
            server.serve()


def _listen(where: Address) -> Listener:
    try:
        return Listener(where)
    except AddressError as error:
        raise UsageFailure(str(error)) from error
