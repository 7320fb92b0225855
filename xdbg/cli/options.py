"""What the commands that start a domain have in common: KERNEL and its options, and their errors."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from xdbg.debug.cores.file import CoreFileError
from xdbg.session.core_files import save_core
from xdbg.session.launch import MAX_VCPUS, MIB, Launch, Launched, LaunchError, launch
from xdbg.session.limits import LimitReached, Limits
from xdbg.session.packet_log import PacketLog, PacketLogError
from xdbg.session.run import Outcome

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": MIB, "k": 1 << 10, "m": MIB, "g": 1 << 30}
EXIT_USAGE = 2
EXIT_LIMIT = 124


class MemorySize(click.ParamType[int]):
    """An amount of memory: `128M`, `1G`; a bare number is in MiB. In bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", str(value).lower())
        if found is None:
            self.fail(f"{value!r} is no amount of memory such as 128M", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


class UsageFailure(click.ClickException):
    """A mistake of the user's: one line, exit status 2."""

    exit_code = EXIT_USAGE


def domain_options(command: Callable[..., None]) -> Callable[..., None]:
    """KERNEL and the options that describe its domain; the command gets them as one, `what`."""

    @wraps(command)
    def with_launch(
        *, kernel: str, modules: tuple[Path, ...], append: str, memory: int, vcpus: int | None, **others: object
    ) -> None:
        command(what=Launch(kernel, tuple(modules), append, memory, vcpus or 0), **others)

    decorated = with_launch
    for decorate in reversed(
        (
            click.argument("kernel"),
            click.option(
                "--module",
                "modules",
                multiple=True,
                type=click.Path(path_type=Path),
                help="A module or initial RAM disk for the kernel; may be repeated.",
            ),
            click.option("--append", default="", metavar="TEXT", help="The kernel's command line."),
            click.option("--memory", type=MemorySize(), default="128M", show_default=True, help="The domain's memory."),
            click.option(
                "--vcpus",
                type=click.IntRange(1, MAX_VCPUS),
                metavar="N",
                help="Its vcpus; the default is 1, or what a bundled guest wants.",
            ),
        )
    ):
        decorated = decorate(decorated)
    return decorated


def limit_options(command: F) -> F:
    """Options that end a session; the command gets them by `limits_of`."""
    for decorate in reversed(
        (
            click.option(
                "--max-instructions", type=click.IntRange(min=0), metavar="N", help="Stop after N instructions."
            ),
            click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Stop after S seconds."),
        )
    ):
        command = decorate(command)
    return command


def log_options(command: F) -> F:
    """Options of a packet log; the command gets it by `packet_log`."""
    for decorate in reversed(
        (
            click.option(
                "--packet-log",
                "log_path",
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE",
                help="Write all packets to a new FILE, which `xdbg replay-packets` takes.",
            ),
            click.option("--overwrite", is_flag=True, help="FILE may exist already, and is replaced."),
        )
    ):
        command = decorate(command)
    return command


def packet_log(path: Path | None, launch: Launch, *, overwrite: bool) -> PacketLog | None:
    """The log that the options ask for; a mistake ends the command with one line."""
    if path is None:
        return None
    try:
        return PacketLog.create(path, launch, lambda text: click.echo(f"xdbg: {text}", err=True), overwrite=overwrite)
    except (PacketLogError, LaunchError) as error:
        raise UsageFailure(str(error)) from error


@dataclass(frozen=True, slots=True)
class Cores:
    """Which files a domain that crashes leaves."""

    core: Path | None
    xen_core: Path | None

    def check(self) -> None:
        """Refuse, before anything is run, a file that can't be a core's."""
        for option, path in self._named():
            if path.exists() or not path.parent.is_dir():
                raise UsageFailure(f"{option}: {path}: {'it exists already' if path.exists() else 'no such directory'}")
        if self.core is not None and self.core == self.xen_core:
            raise UsageFailure(f"--xen-core: {self.core}: it is the file of --core")

    def save(self, launched: Launched, outcome: Outcome) -> None:
        """Write what was asked for, if the domain has crashed."""
        if outcome is not Outcome.CRASHED:
            return
        for option, path in self._named():
            try:
                save_core(launched, path, with_segments=option == "--core")
            except CoreFileError as error:
                click.echo(f"xdbg: {option}: {error}", err=True)
            else:
                click.echo(f"xdbg: the core is in {path}", err=True)

    def _named(self) -> list[tuple[str, Path]]:
        both = (("--core", self.core), ("--xen-core", self.xen_core))
        return [(option, path) for option, path in both if path is not None]


def core_options(command: F) -> F:
    """--core FILE and --xen-core FILE, which make a `Cores`."""
    path = click.Path(path_type=Path)
    help_core = "If the domain crashes, write its core to this new file, for gdb, drgn and Xen's tools."
    help_xen = "The same without program headers, for crash with a Linux kernel and for what knows Xen's format alone."
    command = click.option("--xen-core", type=path, metavar="FILE", help=help_xen)(command)
    return click.option("--core", type=path, metavar="FILE", help=help_core)(command)


def limits_of(max_instructions: int | None, timeout: float | None) -> Limits:
    """The limits that the options describe."""
    return Limits(max_instructions, timeout)


@contextmanager
def ended_by_limits() -> Iterator[None]:
    """Ends the command with one line and status 124 when a limit is reached inside."""
    try:
        yield
    except LimitReached as reached:
        click.echo(f"xdbg: {reached}", err=True)
        sys.exit(EXIT_LIMIT)


def launch_domain(what: Launch) -> Launched:
    """The domain that the options describe; a mistake in them ends the command with one line."""
    try:
        return launch(what)
    except LaunchError as error:
        raise UsageFailure(str(error)) from error
