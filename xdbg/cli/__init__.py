"""The command line: `xdbg COMMAND`. One module per command; each is imported when it is called."""

from errno import EPIPE
from importlib import import_module
from typing import Any

import click

from xdbg import __version__
from xdbg.xen.faults import AuditError

EXIT_BUG = 70
"""EX_SOFTWARE."""

_COMMANDS = {
    "guests": "the bundled guests, one line each",
    "run": "run a domain to its end",
    "serve": "wait for gdb before the domain's first instruction",
    "debug": "serve, and start gdb attached to it",
    "replay-packets": "replay a packet log, and compare the answers",
    "gdb-commands": "where the script with gdb's xen commands is",
    "trace": "run, and dump the way of every trap, hypercall and event",
}


class BugFound(click.ClickException):
    """A mistake of the program's own."""

    exit_code = EXIT_BUG


class _Commands(click.Group):
    """Commands by module name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuditError as found:
            raise BugFound(f"the audit found what must not be\n{found}") from found
        except OSError as error:
            # A reader that has gone is click's business; anything else that the host refuses is told in a line.
            if error.errno == EPIPE:
                raise
            raise click.ClickException(error.strerror or str(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xdbg")
def main() -> None:
    """Run and debug paravirt Xen domains on an emulated CPU."""
