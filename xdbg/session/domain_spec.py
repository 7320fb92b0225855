"""Domains as a user writes them on the command line: ``kernel=ping,name=a,memory=64,extra="of a test"``, or one word.

The keys are those of xl's configuration files, with their meaning: memory is in MiB unless a unit follows. A value may
stand in quotes, and may have commas then. One word without ``=`` is a bundled guest, a kernel's file, or a
configuration file, which has a name that ends in ``.cfg``.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from .disks import DiskError, parse_disk
from .launch import MIB, Launch, LaunchError
from .xl_config import ShutdownAction, XlConfig, read_config
from .xl_syntax import ConfigError

CONFIG_SUFFIX: Final = ".cfg"

_PART: Final = re.compile(r"""(?P<key>\w+)=(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<plain>[^,"']*))(?:,|$)""")
_UNITS: Final = {"": MIB, "k": 1 << 10, "m": MIB, "g": 1 << 30}
_SIZE: Final = re.compile(r"(\d+)([kmg]?)(?:i?b)?", re.ASCII)


def parse_size(text: str) -> int | None:
    """An amount of memory in bytes: `128M`, `1G`; a bare number is in MiB. None if it is none."""
    found = _SIZE.fullmatch(text.lower())
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def parse_domain(text: str, complain: Callable[[str], None]) -> Launch:
    """The domain that `text` describes. `complain` is told what in a file has no effect. Raises `LaunchError`."""
    if "=" not in text:
        return from_word(text, complain)
    what = Launch("")
    seen: set[str] = set()
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise LaunchError(f"{text!r}: {text[at:]!r} is not KEY=VALUE")
        at = part.end()
        key = part["key"]
        value = next(value for value in (part["double"], part["single"], part["plain"]) if value is not None)
        if key not in _KEYS:
            raise LaunchError(f"{text!r}: no key {key!r}; there are {', '.join(_KEYS)}")
        if key in seen and key not in _REPEATED:
            raise LaunchError(f"{text!r}: {key} is there twice")
        seen.add(key)
        try:
            what = _KEYS[key](what, value)
        except (ValueError, DiskError) as error:
            raise LaunchError(f"{text!r}: {error}") from error
    if not what.kernel:
        raise LaunchError(f"{text!r}: there is no kernel")
    return what


def from_word(word: str, complain: Callable[[str], None]) -> Launch:
    """A bundled guest, a kernel's file or a configuration file. Raises `LaunchError`."""
    if not word.endswith(CONFIG_SUFFIX):
        return Launch(word)
    try:
        config = read_config(word)
    except ConfigError as error:
        raise LaunchError(str(error)) from error
    for line in (*config.ignored, *_without_effect(word, config)):
        complain(line)
    try:
        return from_config(config)
    except DiskError as error:
        raise LaunchError(f"{word}: {error}") from error


def from_config(config: XlConfig) -> Launch:
    """The domain of a configuration file. Raises `DiskError`."""
    return Launch(
        kernel=config.kernel,
        modules=() if config.ramdisk is None else (config.ramdisk,),
        append=config.command_line,
        memory=config.memory,
        vcpus=config.vcpus,
        name=config.name,
        disks=tuple(parse_disk(text) for text in config.disks),
    )


def _without_effect(path: str, config: XlConfig) -> Sequence[str]:
    """Lines on what a file asks for and does not get."""
    lines = []
    if config.max_memory != config.memory:
        lines.append(f"{path}: maxmem is ignored: a domain does not grow")
    if config.max_vcpus != config.vcpus:
        lines.append(f"{path}: maxvcpus is ignored: a domain has its vcpus")
    for key, action, default in (
        ("on_poweroff", config.on_poweroff, ShutdownAction.DESTROY),
        ("on_reboot", config.on_reboot, ShutdownAction.RESTART),
        ("on_crash", config.on_crash, ShutdownAction.DESTROY),
    ):
        if action not in (default, ShutdownAction.PRESERVE):
            lines.append(f"{path}: {key}={action.value} is ignored: a domain that has shut down is kept as it is")
    return lines


# -- keys


def _kernel(what: Launch, value: str) -> Launch:
    return replace(what, kernel=value)


def _name(what: Launch, value: str) -> Launch:
    if not re.fullmatch(r"[\w.+-]+", value, re.ASCII):
        raise ValueError(f"{value!r} is no name: letters, digits and . + - _")
    return replace(what, name=value)


def _memory(what: Launch, value: str) -> Launch:
    size = parse_size(value)
    if size is None:
        raise ValueError(f"{value!r} is no amount of memory such as 128 or 128M")
    return replace(what, memory=size)


def _vcpus(what: Launch, value: str) -> Launch:
    if not re.fullmatch(r"\d{1,4}", value, re.ASCII):
        raise ValueError(f"{value!r} is no number of vcpus")
    return replace(what, vcpus=int(value))


def _ramdisk(what: Launch, value: str) -> Launch:
    return replace(what, modules=(*what.modules, Path(value)))


def _extra(what: Launch, value: str) -> Launch:
    return replace(what, append=f"{what.append} {value}".strip())


def _root(what: Launch, value: str) -> Launch:
    return replace(what, append=f"root={value} {what.append}".strip())


def _disk(what: Launch, value: str) -> Launch:
    return replace(what, disks=(*what.disks, parse_disk(value)))


_KEYS: Final[dict[str, Callable[[Launch, str], Launch]]] = {
    "kernel": _kernel,
    "name": _name,
    "memory": _memory,
    "vcpus": _vcpus,
    "ramdisk": _ramdisk,
    "extra": _extra,
    "root": _root,
    "disk": _disk,
}
_REPEATED: Final = ("ramdisk", "disk")
