"""What the commands that start a domain have in common: KERNEL and its options, and their errors."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from xdbg.debug.cores.file import CoreFileError
from xdbg.session.core_files import save_core
from xdbg.session.disks import Disk, DiskError, parse_disk
from xdbg.session.domain_spec import from_word, parse_domain, parse_size
from xdbg.session.launch import MAX_VCPUS, Launch, Launched, LaunchError, Machine, launch_machine, names_of
from xdbg.session.limits import LimitReached, Limits
from xdbg.session.packet_log import PacketLog, PacketLogError
from xdbg.session.run import Outcome

F = TypeVar("F", bound=Callable[..., Any])

EXIT_USAGE = 2
EXIT_LIMIT = 124


class MemorySize(click.ParamType[int]):
    """An amount of memory: `128M`, `1G`; a bare number is in MiB. In bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        size = parse_size(str(value))
        if size is None:
            self.fail(f"{value!r} is no amount of memory such as 128M", param, ctx)
        return size


class DiskDescription(click.ParamType[Disk]):
    """A disk as `parse_disk` has it."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Disk:
        """What is to be opened."""
        try:
            return value if isinstance(value, Disk) else parse_disk(str(value))
        except DiskError as error:
            self.fail(str(error), param, ctx)


class UsageFailure(click.ClickException):
    """A mistake of the user's: one line, exit status 2."""

    exit_code = EXIT_USAGE


def domain_options(command: Callable[..., None]) -> Callable[..., None]:
    """KERNEL and the options that describe domains; the command gets them as one, `what`: a `Launch` for each.

    With --domain there is no KERNEL: a word in its place is the first of the command's own arguments.
    """

    @wraps(command)
    def with_launch(*, kernel: str | None, specs: tuple[str, ...], **given: Any) -> None:
        options = {name: given.pop(name) for name in _DOMAIN_OPTIONS}
        if specs:
            given = _without_kernel(kernel, given)
        context = click.get_current_context()
        chosen = [name for name in _DOMAIN_OPTIONS if context.get_parameter_source(name) is not _DEFAULT]
        try:
            if specs:
                if chosen:
                    raise UsageFailure(f"{_option(chosen[0])} is for KERNEL; with --domain it is part of SPEC")
                what = [parse_domain(spec, _note) for spec in specs]
            elif kernel is None:
                raise UsageFailure("KERNEL or --domain says what is to be run; `xdbg guests` lists bundled guests")
            else:
                what = [replace(from_word(kernel, _note), **{name: options[name] for name in chosen})]
            names_of(what)
        except LaunchError as error:
            raise UsageFailure(str(error)) from error
        command(what=tuple(what), **given)

    decorated = with_launch
    for decorate in reversed(
        (
            click.argument("kernel", required=False),
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
            click.option(
                "--disk",
                "disks",
                multiple=True,
                type=DiskDescription(),
                help="A disk: an image's FILE, with ,ro to be read only; or as xl has it. The file is not written to, "
                "except with ,write-through. May be repeated.",
            ),
            click.option(
                "--domain",
                "specs",
                multiple=True,
                metavar="SPEC",
                help="Instead of KERNEL, one of several domains: a guest's name, a .cfg file as xl has it, or "
                "kernel=...,name=...,memory=...,vcpus=...,ramdisk=...,extra=...,disk=...; may be repeated.",
            ),
        )
    ):
        decorated = decorate(decorated)
    return decorated


_DOMAIN_OPTIONS = ("modules", "append", "memory", "vcpus", "disks")
_DEFAULT = click.core.ParameterSource.DEFAULT


def _option(name: str) -> str:
    """How a user types it."""
    return "--" + name.removesuffix("s") if name in ("modules", "disks") else f"--{name}"


def _without_kernel(word: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The word in KERNEL's place belongs to what follows it; UsageFailure if nothing may follow."""
    if word is None:
        return given
    if "gdb_args" not in given:
        raise UsageFailure(f"{word}: with --domain there is no KERNEL; name it by one more --domain")
    return given | {"gdb_args": (word, *given["gdb_args"])}


def _note(line: str) -> None:
    click.echo(f"xdbg: {line}", err=True)


def console_option(command: F) -> F:
    """--console NAME; the command gets its number by `console_number`."""
    help_text = "The domain that input goes to; default is the first."
    return click.option("--console", metavar="NAME", help=help_text)(command)


def console_number(console: str | None, what: Sequence[Launch]) -> int:
    """The number of the domain that the option names; a mistake ends the command with one line."""
    names = names_of(what)
    if console is None:
        return 0
    if console not in names:
        raise UsageFailure(f"--console: there is no domain {console}, only {', '.join(names)}")
    return names.index(console)


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


def packet_log(path: Path | None, what: Sequence[Launch], *, overwrite: bool) -> PacketLog | None:
    """The log that the options ask for; a mistake ends the command with one line."""
    if path is None:
        return None
    try:
        return PacketLog.create(path, what, _note, overwrite=overwrite)
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

    def save(self, machine: Machine, outcomes: Sequence[Outcome]) -> None:
        """Write what was asked for of each domain that has crashed; of several, into files with their names behind."""
        for launched, outcome in zip(machine.domains, outcomes, strict=True):
            if outcome is Outcome.CRASHED:
                behind = f".{launched.domain.name}" if len(machine.domains) > 1 else ""
                self._save(launched, behind)

    def _save(self, launched: Launched, behind: str) -> None:
        for option, named in self._named():
            path = named.with_name(named.name + behind)
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


def audit_option(command: F) -> F:
    """--audit N."""
    help_text = "After every N exits recount all types and references of frames; a difference ends the program."
    return click.option("--audit", type=click.IntRange(min=1), default=None, metavar="N", help=help_text)(command)


def limits_of(max_instructions: int | None, timeout: float | None) -> Limits:
    """The limits that the options describe."""
    return Limits(max_instructions, timeout)


@contextmanager
def ended_by_limits() -> Iterator[None]:
    """Ends the command with one line and status 124 when a limit is reached inside; 2 if no domain can be made anew."""
    try:
        yield
    except LimitReached as reached:
        click.echo(f"xdbg: {reached}", err=True)
        sys.exit(EXIT_LIMIT)
    except LaunchError as error:
        raise UsageFailure(str(error)) from error


def launch_domains(what: Sequence[Launch], audit: int | None = None) -> Machine:
    """The machine that the options describe; a mistake in them ends the command with one line."""
    try:
        return launch_machine(what, audit_every=audit or 0)
    except LaunchError as error:
        raise UsageFailure(str(error)) from error
