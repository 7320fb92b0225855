"""xdbg gdb-commands: where gdb finds its `xen` commands."""

import click

from xdbg.session.gdb_child import GDB_COMMANDS


@click.command("gdb-commands")
def command() -> None:
    """Print the path of the script with gdb's xen commands: gdb -x "$(xdbg gdb-commands)".

    `help xen` in gdb lists them; `xdbg debug` loads them by itself.
    """
    click.echo(GDB_COMMANDS)
