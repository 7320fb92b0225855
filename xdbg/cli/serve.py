"""xdbg serve: a domain that waits for gdb."""

import sys
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.listener import DEFAULT_ADDRESS, AddressError, Listener, StdioChannel, parse_address
from xdbg.session.server import Server, end_on_signals

from .options import UsageFailure, domain_options, launch_domain


@click.command("serve")
@domain_options
@click.option(
    "--gdb",
    "address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT|unix:PATH|stdio",
    help="Where gdb connects; port 0 takes a free one.",
)
def command(kernel: str, modules: tuple[Path, ...], append: str, memory: int, address: str) -> None:
    """Serve the domain of KERNEL to gdb, stopped before its first instruction.

    When gdb has gone it can come again. Ctrl-C ends the server. With stdio, the console goes to stderr.
    """
    try:
        where = parse_address(address)
    except AddressError as error:
        raise UsageFailure(str(error)) from error
    launch_domain(kernel, modules, append, memory)
    try:
        listener = None if where.is_stdio else Listener(where)
    except AddressError as error:
        raise UsageFailure(str(error)) from error
    if listener is None:
        terminal = Terminal(sys.stderr.buffer)
        channel = StdioChannel()
    else:
        terminal = Terminal(sys.stdout.buffer, sys.stdin.fileno())
        channel = None
        click.echo(f"target extended-remote {listener.name}")
    server = Server(
        lambda: launch_domain(kernel, modules, append, memory),
        terminal,
        listener=listener,
        channel=channel,
        announce=lambda text: click.echo(f"xdbg: {text}", err=True),
    )
    end_on_signals(server)
    try:
        server.serve()
    finally:
        server.close()
        if listener is not None:
            listener.close()
