"""The packet log: all that a debugger and the server said to each other, with the instruction count of each packet.

One JSON object in each line. The first describes the domain: `packet_log` (the format's number), `xdbg` (the version),
`kernel`, `modules`, `append`, `memory` and so on as they were given, and the SHA-256 of kernel and modules. Of several
domains each has such a description of its own in the list `domains`. Every other line has `at`, the instruction count,
`ns`, the machine's time, with several domains `domain`, the number in that list of the one that it is about, and one of

=============  =======================================================================================
`in`           a request: its payload, without frame and escapes; null for one that was too long
`out`          a packet of the server: its payload as it was sent; a notification's has ``%`` before it
`interrupt`    true: the client's Ctrl-C takes effect
`typed`        input of the domain's console
`connect`      a debugger comes: its number
`disconnect`   it goes: how (`rsp.connection.Departure`)
=============  =======================================================================================

Bytes are written as the characters of the same numbers (latin-1). Acknowledgements and clients that only observe are
left out: they change nothing. A line is written when it happens, so that a crash of the server keeps all before it.

The answers of the server depend on these lines alone, so a log can be replayed (`replay`) wherever the kernel is.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self, TextIO

from xdbg import __version__
from xdbg.rsp.connection import Departure
from xdbg.xen.setup import Hypervisor

from .disk_images import digest_of
from .disks import DiskError, parse_disk
from .launch import Launch, LaunchError, disks_of, files_of

FORMAT: Final = 1
_ENCODING: Final = "latin-1"
_KINDS: Final = ("in", "out", "interrupt", "typed", "connect", "disconnect")


class PacketLogError(Exception):
    """A log can't be written or read; one line that says why."""


@dataclass(frozen=True, slots=True)
class DomainHeader:
    """What a domain of a log was made of. Digests are SHA-256 in hexadecimal."""

    launch: Launch
    kernel_digest: str
    module_digests: tuple[str, ...]
    disk_digests: tuple[str, ...] = ()

    @classmethod
    def of(cls, launch: Launch) -> Self:
        """With the files as they are now. Raises `LaunchError`."""
        kernel, modules = files_of(launch)
        try:
            disks = tuple(digest_of(disk) for disk in disks_of(launch))
        except DiskError as error:
            raise LaunchError(str(error)) from error
        return cls(launch, sha256(kernel).hexdigest(), tuple(sha256(data).hexdigest() for data in modules), disks)

    def encode(self) -> dict[str, Any]:
        """As a JSON object."""
        what = self.launch
        named = {"name": what.name} if what.name else {}
        disks: dict[str, Any] = {"disks": [str(disk) for disk in what.disks]} if what.disks else {}
        if self.disk_digests:
            disks["disks_sha256"] = list(self.disk_digests)
        return {
            **named,
            **disks,
            "kernel": what.kernel,
            "kernel_sha256": self.kernel_digest,
            "modules": [str(path) for path in what.modules],
            "modules_sha256": list(self.module_digests),
            "append": what.append,
            "memory": what.memory,
            "vcpus": what.vcpus,
        }

    @classmethod
    def decode(cls, found: dict[str, Any]) -> Self:
        """From a JSON object. Raises what a damaged one makes Python raise."""
        launch = Launch(
            found["kernel"],
            tuple(map(Path, found["modules"])),
            found["append"],
            int(found["memory"]),
            int(found.get("vcpus", 0)),
            str(found.get("name", "")),
            tuple(map(parse_disk, found.get("disks", []))),
        )
        digests = tuple(found["modules_sha256"]), tuple(found.get("disks_sha256", []))
        return cls(launch, found["kernel_sha256"], *digests)


@dataclass(frozen=True, slots=True)
class Header:
    """What the machine of a log was made of."""

    version: str
    domains: tuple[DomainHeader, ...]

    @classmethod
    def of(cls, launches: Sequence[Launch]) -> Self:
        """For a log that begins now. Raises `LaunchError`."""
        return cls(__version__, tuple(DomainHeader.of(launch) for launch in launches))

    def encode(self) -> str:
        """The first line."""
        first: dict[str, Any] = {"packet_log": FORMAT, "xdbg": self.version}
        described = [domain.encode() for domain in self.domains]
        return json.dumps(first | (described[0] if len(described) == 1 else {"domains": described}))

    @classmethod
    def decode(cls, line: str) -> Self:
        """From the first line. Raises `PacketLogError`."""
        try:
            found = json.loads(line)
            if found["packet_log"] != FORMAT:
                raise PacketLogError(f"it has format {found['packet_log']}, this xdbg reads {FORMAT}")
            domains = found.get("domains", [found])
            return cls(found["xdbg"], tuple(DomainHeader.decode(one) for one in domains))
        except (ValueError, TypeError, KeyError, AttributeError, DiskError) as error:
            raise PacketLogError("it is no packet log") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `data`: bytes of `in`, `out` and `typed`, None for an oversized `in`; `word`: the others' value.

    `domain`: the number of the domain that it is about, in the header; None where there is only one.
    """

    at: int
    ns: int
    kind: str
    data: bytes | None = None
    word: str = ""
    line: int = 0
    domain: int | None = None

    def encode(self) -> str:
        """The line."""
        value: Any = self.word
        match self.kind:
            case "in" | "out" | "typed":
                value = None if self.data is None else self.data.decode(_ENCODING)
            case "interrupt":
                value = True
            case "connect":
                value = int(self.word)
        where = {} if self.domain is None else {"domain": self.domain}
        return json.dumps({"at": self.at, "ns": self.ns, **where, self.kind: value})

    @classmethod
    def decode(cls, text: str, line: int) -> Self:
        """From line number `line`. Raises `PacketLogError`."""
        try:
            found = json.loads(text)
            at, ns = int(found["at"]), int(found["ns"])
            domain = int(found["domain"]) if "domain" in found else None
            [kind] = [kind for kind in _KINDS if kind in found]
            value = found[kind]
            match kind:
                case "in" | "out" | "typed":
                    return cls(at, ns, kind, None if value is None else value.encode(_ENCODING), "", line, domain)
                case "disconnect":
                    return cls(at, ns, kind, None, Departure(value).value, line, domain)
                case _:
                    return cls(at, ns, kind, None, str(value), line, domain)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PacketLogError(f"line {line} is damaged") from error


class PacketLog:
    """Writes a log."""

    def __init__(self, file: TextIO, header: Header, complain: Callable[[str], None]) -> None:
        self._file: TextIO | None = file
        self._complain = complain
        self._hv: Hypervisor | None = None
        self._clients = 0
        several = len(header.domains) > 1
        self.domains = [DomainLog(self, index if several else None) for index in range(len(header.domains))]
        """What belongs to each domain."""
        self._put(header.encode())

    @classmethod
    def create(
        cls, path: Path, launches: Sequence[Launch], complain: Callable[[str], None], *, overwrite: bool = False
    ) -> Self:
        """A new log. `complain` is told if it can't be written any more. Raises `PacketLogError`, `LaunchError`."""
        header = Header.of(launches)
        try:
            file = path.open("w" if overwrite else "x", encoding="ascii", buffering=1)
        except FileExistsError as error:
            raise PacketLogError(f"{path} exists already; --overwrite replaces it") from error
        except OSError as error:
            raise PacketLogError(f"can't write {path}: {error.strerror or error}") from error
        return cls(file, header, complain)

    def close(self) -> None:
        """It is complete."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def begin(self, hv: Hypervisor) -> None:
        """The instructions of this machine count from now on."""
        self._hv = hv

    def next_client(self) -> int:
        """The number of a debugger that comes."""
        self._clients += 1
        return self._clients

    def note(self, domain: int | None, kind: str, data: bytes | None = None, word: str = "") -> None:
        """Write a line."""
        if self._hv is not None:
            self._put(Entry(self._hv.cpu.count, self._hv.now(), kind, data, word, domain=domain).encode())

    def _put(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
        except OSError as error:
            self._complain(f"the packet log ends here: {error.strerror or error}")
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                return


class DomainLog:
    """The part of one domain in a log: the tap of its debugger's connection."""

    def __init__(self, log: PacketLog, domain: int | None) -> None:
        self._log = log
        self._domain = domain

    def request(self, payload: bytes | None) -> None:
        """Of `Tap`."""
        self._log.note(self._domain, "in", payload)

    def reply(self, payload: bytes) -> None:
        """Of `Tap`."""
        self._log.note(self._domain, "out", payload)

    def interrupt(self) -> None:
        """Of `Tap`."""
        self._log.note(self._domain, "interrupt")

    def typed(self, data: bytes) -> None:
        """Input for the domain's console has come."""
        self._log.note(self._domain, "typed", data)

    def connected(self) -> None:
        """A debugger has come."""
        self._log.note(self._domain, "connect", word=str(self._log.next_client()))

    def disconnected(self, departure: Departure) -> None:
        """It has gone."""
        self._log.note(self._domain, "disconnect", word=departure.value)


def read_log(path: Path) -> tuple[Header, list[Entry]]:
    """A log as it was written; a last line that is not complete is left out. Raises `PacketLogError`."""
    try:
        with path.open(encoding="ascii") as file:
            lines = list(_whole_lines(file))
    except OSError as error:
        raise PacketLogError(f"can't read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PacketLogError(f"{path}: it is no packet log") from error
    try:
        if not lines:
            raise PacketLogError("it is empty")
        header = Header.decode(lines[0])
        entries = [Entry.decode(text, number) for number, text in enumerate(lines[1:], 2)]
        for entry in entries:
            if not 0 <= (entry.domain or 0) < len(header.domains):
                raise PacketLogError(f"line {entry.line} is about a domain that there is not")
        return header, entries
    except PacketLogError as error:
        raise PacketLogError(f"{path}: {error}") from error


def _whole_lines(file: TextIO) -> Iterator[str]:
    return (line for line in file if line.endswith("\n"))
