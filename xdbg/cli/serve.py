"""xdbg serve: a domain that waits for gdb."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, names_of
from xdbg.session.listener import (
    DEFAULT_ADDRESS,
    Address,
    AddressError,
    Listener,
    StdioChannel,
    address_of,
    parse_address,
)
from xdbg.session.server import Server, end_on_signals

from .options import (
    UsageFailure,
    audit_option,
    console_number,
    console_option,
    domain_options,
    ended_by_limits,
    launch_domains,
    limit_options,
    limits_of,
    log_options,
    packet_log,
)


@click.command("serve")
@domain_options
@console_option
@limit_options
@audit_option
@log_options
@click.option(
    "--gdb",
    "address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT|unix:PATH|stdio",
    help="Where gdb connects; port 0 takes a free one. Of several domains this is the first one's; the others get the "
    "next ports, or PATH.NAME.",
)
@click.option(
    "--dump-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where `monitor dump-core` puts its files; default is the working directory.",
)
def command(
    what: tuple[Launch, ...],
    console: str | None,
    max_instructions: int | None,
    timeout: float | None,
    audit: int | None,
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
    names, several = names_of(what), len(what) > 1
    with ExitStack() as stack:
        listeners: list[Listener] = []
        if where.is_stdio and not several:
            channel = StdioChannel()
            terminal = Terminal(sys.stderr.buffer)
        else:
            channel = None
            for index, name in enumerate(names):
                listeners.append(_listen(where, index, name))
                stack.callback(listeners[-1].close)
            terminal = Terminal(sys.stdout.buffer, sys.stdin.fileno(), named=several)
        server = Server(
            lambda: launch_domains(what, audit),
            terminal,
            listeners=listeners,
            channel=channel,
            console=console_number(console, what),
            announce=lambda text: click.echo(f"xdbg: {text}", err=True),
            limits=limits_of(max_instructions, timeout),
            log=packet_log(log_path, what, overwrite=overwrite),
            dump_directory=dump_dir,
        )
        stack.callback(server.close)
        stack.enter_context(end_on_signals(server))
        for name, listener in zip(names, listeners, strict=False):
            click.echo(f"{f'{name}: ' if several else ''}target extended-remote {listener.name}")
        with ended_by_limits():
            server.serve()


def _listen(first: Address, index: int, name: str) -> Listener:
    try:
        return Listener(address_of(first, index, name))
    except AddressError as error:
        raise UsageFailure(str(error)) from error
