"""Virtual disks as a user names them: ``--disk FILE``, or what xl takes. xl-disk-configuration(5).

A disk is written as its image's file and then, in any order and divided by commas, what is known by its look: the
format (``raw``), the virtual device (``xvda``), the access. So all of these are understood::

    disk.img                             /images/a.img,raw,xvda,w
    disk.img,ro                          format=raw, vdev=xvdb, access=rw, target=/images/a,b.img
    file:/images/a.img,xvda,r            cd.iso,hdc:cdrom,r

``r`` and ``ro`` are for a disk that is not written to. With ``w`` and ``rw``, and by default, the domain may write, and
the image stays as it is: what was written is forgotten with the machine. Only ``write-through`` changes the file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from xdbg.xen.block_contents import Access

_ACCESS: Final = {
    "r": Access.READ_ONLY,
    "ro": Access.READ_ONLY,
    "w": Access.COPY_ON_WRITE,
    "rw": Access.COPY_ON_WRITE,
    "!": Access.COPY_ON_WRITE,
    "write-through": Access.WRITE_THROUGH,
}
_OTHER_FORMATS: Final = ("qcow", "qcow2", "qed", "vhd", "vhdx", "vdi", "vmdk")
_IGNORED: Final = ("discard", "no-discard", "direct-io-safe", "colo")
_IGNORED_KEYS: Final = ("backendtype", "type")
_PREFIX: Final = re.compile(r"(file|phy|raw|tap|tap2|aio|tapdisk|qcow|qcow2|vhd|qed):")
_KEY: Final = re.compile(r"([a-z][a-z-]*)=(.*)", re.DOTALL)
_TARGET: Final = re.compile(r"(?:^|,)\s*target=(.*)", re.DOTALL)
_NAMED: Final = re.compile(r"(xvd|hd|sd)([a-z]{1,4})([1-9][0-9]{0,2})?")
_NUMBERED: Final = re.compile(r"d([0-9]{1,7})(?:p([1-9][0-9]{0,2}))?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]{1,8}|[1-9][0-9]{0,9}")


class DiskError(Exception):
    """What the user wrote is no disk that can be had; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk for one domain. `vdev`: "xvda"; empty: the next that is free."""

    path: Path
    vdev: str = ""
    access: Access = Access.COPY_ON_WRITE
    cdrom: bool = False

    def __str__(self) -> str:
        """As `parse_disk` takes it."""
        words = ["format=raw", *([f"vdev={self.vdev}"] if self.vdev else []), f"access={self.access.value}"]
        return ",".join([*words, *(["cdrom"] if self.cdrom else []), f"target={self.path}"])


@dataclass(slots=True)
class _Words:
    """What has been found in a description so far."""

    text: str
    found: dict[str, str] = field(default_factory=dict)
    cdrom: bool = False

    def set(self, key: str, value: str) -> None:
        if key in self.found:
            raise DiskError(f"disk {self.text!r}: {key} is there twice: {self.found[key]} and {value}")
        self.found[key] = value

    def error(self, why: str) -> DiskError:
        return DiskError(f"disk {self.text!r}: {why}")


def parse_disk(text: str) -> Disk:
    """The disk that a user describes; whether the file is there is seen later. Raises `DiskError`."""
    words = _Words(text)
    target = _TARGET.search(text)
    rest = text
    if target is not None:
        words.set("target", target[1].strip())
        rest = text[: target.start()]
    for number, part in enumerate(rest.split(",")):
        _word(words, part.strip(), first=number == 0)
    path = words.found.get("target", "")
    if not path:
        raise words.error("there is no file")
    access = _ACCESS[words.found.get("access", "r" if words.cdrom else "w")]
    if words.cdrom and access is not Access.READ_ONLY:
        raise words.error("a CD-ROM is read only")
    return Disk(Path(path), words.found.get("vdev", ""), access, words.cdrom)


def _word(words: _Words, part: str, *, first: bool) -> None:
    """One of the parts between commas."""
    key = _KEY.fullmatch(part)
    if key is not None:
        _set_key(words, key[1], key[2].strip())
    elif first and "target" not in words.found:
        while (prefix := _PREFIX.match(part)) is not None:
            _check_format(words, prefix[1])
            part = part[prefix.end() :]
        words.set("target", part)
    elif part in _ACCESS:
        words.set("access", part)
    elif part == "raw" or part in _OTHER_FORMATS:
        _check_format(words, part)
    elif part in ("cdrom", "devtype=cdrom"):
        words.cdrom = True
    elif device_number(part.removesuffix(":cdrom")) is not None:
        words.cdrom |= part.endswith(":cdrom")
        words.set("vdev", part.removesuffix(":cdrom"))
    elif part and part not in _IGNORED:
        raise words.error(f"{part!r} is no access (r, w, write-through), no virtual device (xvda) and no format (raw)")


def _set_key(words: _Words, key: str, value: str) -> None:
    match key:
        case "format":
            _check_format(words, value)
        case "vdev":
            if device_number(value) is None:
                raise words.error(f"{value!r} is no virtual device such as xvda")
            words.set("vdev", value)
        case "access":
            if value not in _ACCESS:
                raise words.error(f"{value!r} is no access: r, w or write-through")
            words.set("access", value)
        case "devtype":
            if value not in ("disk", "cdrom"):
                raise words.error(f"{value!r} is neither a disk nor a cdrom")
            words.cdrom = value == "cdrom"
        case _ if key not in _IGNORED_KEYS:
            raise words.error(f"there is no key {key!r}; there are format, vdev, access, devtype and target")


def _check_format(words: _Words, name: str) -> None:
    if name in _OTHER_FORMATS:
        raise words.error(f"images in the format {name} can't be used: convert it to raw (qemu-img convert -O raw)")


def device_number(vdev: str) -> int | None:
    """The number of a virtual device by its name, None for what is no name. Xen: libxl__device_disk_dev_number()."""
    if _NUMBER.fullmatch(vdev):
        number = int(vdev, 0)
        return number if number < 1 << 31 else None
    named = _NAMED.fullmatch(vdev)
    numbered = _NUMBERED.fullmatch(vdev)
    if named is not None:
        kind, disk, partition = named[1], _letters(named[2]), int(named[3] or 0)
    elif numbered is not None:
        kind, disk, partition = "xvd", int(numbered[1]), int(numbered[2] or 0)
    else:
        return None
    match kind:
        case "xvd" if disk <= 15 and partition <= 15:
            return 202 << 8 | disk << 4 | partition
        case "xvd" if disk < 1 << 20 and partition <= 255:
            return 1 << 28 | disk << 8 | partition
        case "hd" if disk <= 3 and partition <= 63:
            return (3 if disk < 2 else 22) << 8 | (disk & 1) << 6 | partition
        case "sd" if disk <= 15 and partition <= 15:
            return 8 << 8 | disk << 4 | partition
        case _:
            return None


def _letters(text: str) -> int:
    """A disk's number by its letters: a is 0, z 25, aa 26."""
    number = 0
    for letter in text:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def with_devices(disks: Sequence[Disk]) -> list[tuple[int, Disk]]:
    """The disks of one domain with their numbers; one without a device gets the next that is free, from xvda on.

    Raises `DiskError` if two have the same.
    """
    named: dict[int, Disk] = {}
    for disk in disks:
        number = device_number(disk.vdev)
        if number is None:
            continue
        if number in named:
            raise DiskError(f"two disks are {disk.vdev}: {named[number].path} and {disk.path}")
        named[number] = disk
    free = (f"xvd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" if device_number(f"xvd{letter}") not in named)
    result = []
    for disk in disks:
        name = disk.vdev or next(free, None)
        number = None if name is None else device_number(name)
        if name is None or number is None:
            raise DiskError(f"{disk.path}: there are too many disks")
        result.append((number, replace(disk, vdev=name)))
    return result
