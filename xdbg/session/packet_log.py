"""The packet log: all that a debugger and the server said to each other, with the instruction count of each packet.

One JSON object in each line. The first describes the domain: `packet_log` (the format's number), `xdbg` (the version),
`kernel`, `modules`, `append`, `memory` as they were given, and the SHA-256 of kernel and modules. Every other line
has `at`, the instruction count, `ns`, the domain's time, and one of

=============  =======================================================================================
`in`           a request: its payload, without frame and escapes; null for one that was too long
`out`          a packet of the server: its payload as it was sent; a notification's has ``%`` before it
`interrupt`    true: the client's Ctrl-C takes effect
`typed`        input of the domain's console
`connect`      a client comes: its number
`disconnect`   it goes: how (`rsp.connection.Departure`)
=============  =======================================================================================

Bytes are written as the characters of the same numbers (latin-1). Acknowledgements and clients that only observe are
left out: they change nothing. A line is written when it happens, so that a crash of the server keeps all before it.

The answers of the server depend on these lines alone, so a log can be replayed (`replay`) wherever the kernel is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self, TextIO

from xdbg import __version__
from xdbg.rsp.connection import Departure
from xdbg.xen.setup import Hypervisor

from .launch import Launch, files_of

FORMAT: Final = 1
_ENCODING: Final = "latin-1"
_KINDS: Final = ("in", "out", "interrupt", "typed", "connect", "disconnect")


class PacketLogError(Exception):
    """A log can't be written or read; one line that says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the domain of a log was made of. Digests are SHA-256 in hexadecimal."""

    version: str
    launch: Launch
    kernel_digest: str
    module_digests: tuple[str, ...]

    @classmethod
    def of(cls, launch: Launch) -> Self:
        """For a log that begins now. Raises `LaunchError`."""
        kernel, modules = files_of(launch)
        return cls(__version__, launch, sha256(kernel).hexdigest(), tuple(sha256(data).hexdigest() for data in modules))

    def encode(self) -> str:
        """The first line."""
        what = self.launch
        return json.dumps(
            {
                "packet_log": FORMAT,
                "xdbg": self.version,
                "kernel": what.kernel,
                "kernel_sha256": self.kernel_digest,
                "modules": [str(path) for path in what.modules],
                "modules_sha256": list(self.module_digests),
                "append": what.append,
                "memory": what.memory,
                "vcpus": what.vcpus,
            }
        )

    @classmethod
    def decode(cls, line: str) -> Self:
        """From the first line. Raises `PacketLogError`."""
        try:
            found = json.loads(line)
            if found["packet_log"] != FORMAT:
                raise PacketLogError(f"it has format {found['packet_log']}, this xdbg reads {FORMAT}")
            launch = Launch(
                found["kernel"],
                tuple(map(Path, found["modules"])),
                found["append"],
                int(found["memory"]),
                int(found.get("vcpus", 0)),
            )
            return cls(found["xdbg"], launch, found["kernel_sha256"], tuple(found["modules_sha256"]))
        except (ValueError, TypeError, KeyError) as error:
            raise PacketLogError("it is no packet log") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `data`: bytes of `in`, `out` and `typed`, None for an oversized `in`; `word`: the others' value."""

    at: int
    ns: int
    kind: str
    data: bytes | None = None
    word: str = ""
    line: int = 0

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
        return json.dumps({"at": self.at, "ns": self.ns, self.kind: value})

    @classmethod
    def decode(cls, text: str, line: int) -> Self:
        """From line number `line`. Raises `PacketLogError`."""
        try:
            found = json.loads(text)
            at, ns = int(found["at"]), int(found["ns"])
            [kind] = [kind for kind in _KINDS if kind in found]
            value = found[kind]
            match kind:
                case "in" | "out" | "typed":
                    return cls(at, ns, kind, None if value is None else value.encode(_ENCODING), line=line)
                case "disconnect":
                    return cls(at, ns, kind, word=Departure(value).value, line=line)
                case _:
                    return cls(at, ns, kind, word=str(value), line=line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PacketLogError(f"line {line} is damaged") from error


class PacketLog:
    """Writes a log; the tap of the debugger's connection."""

    def __init__(self, file: TextIO, header: Header, complain: Callable[[str], None]) -> None:
        self._file: TextIO | None = file
        self._complain = complain
        self._hv: Hypervisor | None = None
        self._clients = 0
        self._put(header.encode())

    @classmethod
    def create(cls, path: Path, launch: Launch, complain: Callable[[str], None], *, overwrite: bool = False) -> Self:
        """A new log. `complain` is told if it can't be written any more. Raises `PacketLogError`, `LaunchError`."""
        header = Header.of(launch)
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

    # -- what happens

    def request(self, payload: bytes | None) -> None:
        """Of `Tap`."""
        self._note("in", payload)

    def reply(self, payload: bytes) -> None:
        """Of `Tap`."""
        self._note("out", payload)

    def interrupt(self) -> None:
        """Of `Tap`."""
        self._note("interrupt")

    def typed(self, data: bytes) -> None:
        """Input for the domain's console has come."""
        self._note("typed", data)

    def connected(self) -> None:
        """A debugger has come."""
        self._clients += 1
        self._note("connect", word=str(self._clients))

    def disconnected(self, departure: Departure) -> None:
        """It has gone."""
        self._note("disconnect", word=departure.value)

    def _note(self, kind: str, data: bytes | None = None, word: str = "") -> None:
        if self._hv is not None:
            self._put(Entry(self._hv.cpu.count, self._hv.now(), kind, data, word).encode())

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
        return Header.decode(lines[0]), [Entry.decode(text, number) for number, text in enumerate(lines[1:], 2)]
    except PacketLogError as error:
        raise PacketLogError(f"{path}: {error}") from error


def _whole_lines(file: TextIO) -> Iterator[str]:
    return (line for line in file if line.endswith("\n"))
