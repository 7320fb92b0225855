"""xdbg replay-packets: whether what a packet log tells happens again."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from xdbg import __version__
from xdbg.session.launch import LaunchError
from xdbg.session.packet_log import Header, PacketLogError, read_log
from xdbg.session.replay import Replay

from .options import UsageFailure, launch_domain


@click.command("replay-packets")
@click.argument("log", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kernel", help="Where the log's kernel is, if not where it was.")
@click.option(
    "--module", "modules", multiple=True, type=click.Path(path_type=Path), help="The same for its modules, all of them."
)
def command(log: Path, kernel: str | None, modules: tuple[Path, ...]) -> None:
    """Give the requests of LOG to a fresh domain and compare the answers with those in LOG.

    LOG was written by --packet-log. Exit status: 0 all answers are equal, 1 one is not, 2 it can't be replayed.
    """
    try:
        header, entries = read_log(log)
        what = replace(
            header.launch, kernel=kernel or header.launch.kernel, modules=tuple(modules) or header.launch.modules
        )
        _check(header, Header.of(what))
    except (PacketLogError, LaunchError) as error:
        raise UsageFailure(str(error)) from error
    if header.version != __version__:
        click.echo(f"xdbg: the log is of version {header.version}, this is {__version__}", err=True)
    with TemporaryDirectory(prefix="xdbg-") as scratch:
        domain = launch_domain(what)
        found = Replay(domain, Path(scratch)).run(entries)
    if found is None:
        requests = sum(entry.kind == "in" for entry in entries)
        answers = sum(entry.kind == "out" for entry in entries)
        click.echo(f"{requests + answers} packets, all {answers} answers equal")
        return
    click.echo(f"line {found.line}, instruction {found.at}: {found.what}, but now {found.instead}")
    click.echo(f"the last request was {found.request}")
    sys.exit(1)


def _check(logged: Header, here: Header) -> None:
    """The same kernel and modules, or `PacketLogError`."""
    if logged.kernel_digest != here.kernel_digest:
        raise PacketLogError(f"{here.launch.kernel} is another kernel than the log's; --kernel says where that is")
    if logged.module_digests != here.module_digests:
        raise PacketLogError("the modules are others than the log's; --module says where those are")
