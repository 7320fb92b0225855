"""xdbg replay-packets: whether what a packet log tells happens again."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from xdbg import __version__
from xdbg.session.launch import LaunchError
from xdbg.session.packet_log import DomainHeader, Header, PacketLogError, read_log
from xdbg.session.replay import Replay

from .options import UsageFailure, launch_domains


@click.command("replay-packets")
@click.argument("log", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kernel", help="Where the log's kernel is, if not where it was.")
@click.option(
    "--module", "modules", multiple=True, type=click.Path(path_type=Path), help="The same for its modules, all of them."
)
def command(log: Path, kernel: str | None, modules: tuple[Path, ...]) -> None:
    """Give the requests of LOG to a fresh machine and compare the answers with those in LOG.

    LOG was written by --packet-log; --kernel and --module are for one of a single domain. Exit status: 0 all answers
    are equal, 1 one is not, 2 it can't be replayed.
    """
    try:
        header, entries = read_log(log)
        what = [domain.launch for domain in header.domains]
        if len(what) == 1:
            what = [replace(what[0], kernel=kernel or what[0].kernel, modules=tuple(modules) or what[0].modules)]
        elif kernel or modules:
            raise UsageFailure("the log is of several domains: --kernel and --module say of none which it is")
        for logged, here in zip(header.domains, Header.of(what).domains, strict=True):
            _check(logged, here)
    except (PacketLogError, LaunchError) as error:
        raise UsageFailure(str(error)) from error
    if header.version != __version__:
        click.echo(f"xdbg: the log is of version {header.version}, this is {__version__}", err=True)
    with TemporaryDirectory(prefix="xdbg-") as scratch:
        machine = launch_domains(what)
        found = Replay(machine, Path(scratch)).run(entries)
    if found is None:
        requests = sum(entry.kind == "in" for entry in entries)
        answers = sum(entry.kind == "out" for entry in entries)
        click.echo(f"{requests + answers} packets, all {answers} answers equal")
        return
    click.echo(f"line {found.line}, instruction {found.at}: {found.what}, but now {found.instead}")
    click.echo(f"the last request was {found.request}")
    sys.exit(1)


def _check(logged: DomainHeader, here: DomainHeader) -> None:
    """The same kernel and modules, or `PacketLogError`."""
    if logged.kernel_digest != here.kernel_digest:
        raise PacketLogError(f"{here.launch.kernel} is another kernel than the log's; --kernel says where that is")
    if logged.module_digests != here.module_digests:
        raise PacketLogError("the modules are others than the log's; --module says where those are")
    if logged.disk_digests != here.disk_digests:
        raise PacketLogError("what is on the disks is not what was when the log was made")
