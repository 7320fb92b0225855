"""What a domain's configuration file for xl means here. Xen: docs/man/xl.cfg.5, tools/xl/xl_parse.c.

The keys of a PV domain that mean something here are `name`, `type` (`builder`), `kernel`, `ramdisk`, `cmdline` or
`root` and `extra`, `memory`, `maxmem`, `vcpus`, `maxvcpus`, `disk`, `on_poweroff`, `on_reboot` and `on_crash`. Any
other key is passed over with one line, `XlConfig.ignored`, so that the files that people have can be used as they are.
Where xl warns of a value and goes on without it (no number, a string for a list), it is an error here.

Relative paths count from the working directory, as xl has it, not from the file's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Final

from .xl_syntax import ConfigError, Setting, parse_settings

MAX_CONFIG_SIZE: Final = 1 << 20
"""Bytes of a file; one of xl's has a few hundred."""

_MIB: Final = 1 << 20
_DEFAULT_MEMORY: Final = 32
"""MiB. Xen: libxl__domain_build_info_setdefault()."""
_MAX_NUMBER: Final = 1 << 31
_NUMBER: Final = re.compile(r"0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*)", re.ASCII)

_KEYS: Final = (
    *(
        "name",
        "type",
        "builder",
        "kernel",
        "ramdisk",
        "cmdline",
        "root",
        "extra",
        "memory",
        "maxmem",
        "vcpus",
        "maxvcpus",
    ),
    *("disk", "bootloader", "on_poweroff", "on_reboot", "on_crash"),
)
"""The keys that are looked at."""


class ShutdownAction(Enum):
    """What becomes of a domain that has shut down. Xen: libxl_action_on_shutdown; xl.cfg(5), "Event Actions"."""

    DESTROY = "destroy"
    RESTART = "restart"
    RENAME_RESTART = "rename-restart"
    PRESERVE = "preserve"
    COREDUMP_DESTROY = "coredump-destroy"
    COREDUMP_RESTART = "coredump-restart"
    SOFT_RESET = "soft-reset"


@dataclass(frozen=True, slots=True)
class XlConfig:
    """One PV domain, as its file describes it; memory is in bytes."""

    name: str
    kernel: str
    """A path, as it is written."""
    ramdisk: Path | None
    command_line: str
    memory: int
    max_memory: int
    """At least `memory`: what the domain may grow to."""
    vcpus: int
    max_vcpus: int
    """At least `vcpus`: what the domain may bring up."""
    disks: tuple[str, ...]
    """Each a disk's specification, in the syntax of xl-disk-configuration(5)."""
    on_poweroff: ShutdownAction
    on_reboot: ShutdownAction
    on_crash: ShutdownAction
    ignored: tuple[str, ...]
    """What in the file has no effect: lines for the user, FILE:LINE: and why."""


def read_config(path: str | Path) -> XlConfig:
    """The domain in a file. Raises `ConfigError`, and nothing else."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CONFIG_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{path}: {reason or error}") from error
    if len(data) > MAX_CONFIG_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_SIZE >> 10} KiB, so no configuration file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None
    return parse_config(text, str(path))


def parse_config(text: str, source: str) -> XlConfig:
    """The domain in the text of a file whose name is `source`. Raises `ConfigError`, and nothing else."""
    return _Reader(parse_settings(text, source), source).config()


class _Reader:
    """Asks a file's settings for what is wanted, and complains by line."""

    def __init__(self, settings: Mapping[str, Setting], source: str) -> None:
        self.settings = settings
        self.source = source

    def config(self) -> XlConfig:
        """The whole domain."""
        self._check_type()
        if self._text("bootloader"):
            raise self._error("bootloader", "there are no boot loaders here: name the kernel and its ramdisk instead")
        name = self._text("name")
        kernel = self._text("kernel")
        for key, value in (("name", name), ("kernel", kernel)):
            if not value:
                raise ConfigError(f"{self.source}: there is no {key}")
        command_line, unused = self._command_line()
        memory = self._number("memory", self._number("maxmem", _DEFAULT_MEMORY))
        max_memory = self._number("maxmem", memory)
        vcpus = self._number("vcpus", 1)
        max_vcpus = self._number("maxvcpus", vcpus)
        if "vcpus" not in self.settings:
            vcpus = min(vcpus, max_vcpus)
        for key, low_key, high, low in (
            ("maxmem", "memory", max_memory, memory),
            ("maxvcpus", "vcpus", max_vcpus, vcpus),
        ):
            if high < low:
                raise self._error(key, f"{key} is {high}, less than {low_key}, {low}")
        ramdisk = self._text("ramdisk")
        return XlConfig(
            name=name,
            kernel=kernel,
            ramdisk=Path(ramdisk) if ramdisk else None,
            command_line=command_line,
            memory=memory * _MIB,
            max_memory=max_memory * _MIB,
            vcpus=vcpus,
            max_vcpus=max_vcpus,
            disks=self._strings("disk"),
            on_poweroff=self._action("on_poweroff", ShutdownAction.DESTROY),
            on_reboot=self._action("on_reboot", ShutdownAction.RESTART),
            on_crash=self._action("on_crash", ShutdownAction.DESTROY),
            ignored=(*unused, *self._ignored()),
        )

    def _check_type(self) -> None:
        """Only PV domains, whichever of the two keys says so."""
        for key, pv in (("type", "pv"), ("builder", "generic")):
            value = self._text(key)
            if value and value != pv:
                raise self._error(key, f"{value!a} is no PV domain: only {key}={pv!r} can be run")

    def _command_line(self) -> tuple[str, list[str]]:
        """The kernel's command line, and lines on keys without effect. Xen: parse_cmdline()."""
        if "cmdline" in self.settings:
            unused = [key for key in ("root", "extra") if key in self.settings]
            return self._text("cmdline"), [
                str(self._error(key, f"{key} is ignored: cmdline says all")) for key in unused
            ]
        root, extra = self._text("root"), self._text("extra")
        return " ".join(part for part in (f"root={root}" if root else "", extra) if part), []

    def _ignored(self) -> list[str]:
        lines = []
        for key in self.settings:
            if key not in _KEYS:
                like = get_close_matches(key, _KEYS, 1)
                what = f"{key} is ignored: it means nothing here"
                lines.append(str(self._error(key, f"{what} (is it {like[0]}?)" if like else what)))
        return lines

    def _text(self, key: str) -> str:
        """A string; empty if there is none."""
        setting = self.settings.get(key)
        if setting is None:
            return ""
        if not isinstance(setting.value, str):
            raise self._error(key, f"{key} is a list, not a string")
        if "\0" in setting.value:
            raise self._error(key, f"{key} has a NUL in it")
        return setting.value

    def _number(self, key: str, default: int) -> int:
        """A number above 0, in C's notation."""
        text = self._text(key)
        if key not in self.settings:
            return default
        if self.settings[key].added:
            raise self._error(key, f"{key} is a number: += is for strings and lists")
        found = _NUMBER.fullmatch(text)
        if found is None:
            raise self._error(key, f"{key} is not a number")
        hexadecimal, octal, decimal = found.groups()
        digits, base = (hexadecimal, 16) if hexadecimal else (octal, 8) if octal else (decimal, 10)
        value = int(digits, base) if len(digits) <= _MAX_NUMBER.bit_length() else _MAX_NUMBER
        if not 0 < value < _MAX_NUMBER:
            raise self._error(key, f"{key} is {'0' if not value else 'too large'}")
        return value

    def _strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if there is none."""
        setting = self.settings.get(key)
        if setting is None:
            return ()
        if isinstance(setting.value, str):
            raise self._error(key, f"{key} is a string, not a list of strings")
        strings = []
        for value in setting.value:
            if not isinstance(value, str) or "\0" in value:
                raise self._error(key, f"{key} has something in it that is no string")
            strings.append(value)
        return tuple(strings)

    def _action(self, key: str, default: ShutdownAction) -> ShutdownAction:
        text = self._text(key)
        if key not in self.settings:
            return default
        for action in ShutdownAction:
            if action.value == text:
                return action
        raise self._error(key, f"{key} is none of {', '.join(action.value for action in ShutdownAction)}")

    def _error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.source}:{self.settings[key].line}: {what}")
