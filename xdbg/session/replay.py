"""Replaying a packet log: the logged requests to a fresh domain without any client, and its answers compared.

The guest is run to exactly the instruction count of each line before that is acted on. Where the server's slices ended
does not matter to the guest, but console text of breakpoint commands is sent at their ends: pieces of it that follow
each other are compared as one.

Commands of the user are executed again, too; the files that they write are thrown away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from xdbg.debug.target import DebugTarget
from xdbg.rsp.connection import Connection, Departure, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame
from xdbg.xen.console import send_input
from xdbg.xen.setup import RunEnd

from .core_files import CoreFiles
from .launch import Launched
from .packet_log import Entry
from .staging import make_target

SLICE: Final = 1_000_000
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line of a log that does not come again. `what` and `instead` are for people."""

    line: int
    at: int
    request: str
    what: str
    instead: str


class Replay:
    """One domain that goes through a log again. Files that the user's commands write go to the folder `scratch`.

    `slice_length`: instructions that it runs at most at a time.
    """

    def __init__(self, launched: Launched, scratch: Path, *, slice_length: int = SLICE) -> None:
        self._scratch = scratch
        self._slice = slice_length
        self._first = launched
        self._connection: Connection | None = None
        self._free = False
        self._said: list[tuple[int, bytes]] = []
        """What the server has sent and the log has not been compared with: instruction count, payload."""
        self._request = "nothing"
        self.compared = 0
        """Packets of the server that came as they were logged."""
        self._stage(launched)

    def run(self, entries: Sequence[Entry]) -> Difference | None:
        """Go through the log; the first difference, None if there is none."""
        place = 0
        while place < len(entries):
            entry = entries[place]
            place += 1
            if entry.kind != "out":
                self._run_to(entry)
                if self._said:
                    return self._difference(entry, _name(entry), f"{_shown(self._said[0][1])} is sent")
                self._act(entry)
                continue
            data, of_text = entry.data or b"", _is_text(entry.data)
            while of_text and place < len(entries) and entries[place].kind == "out" and _is_text(entries[place].data):
                entry = entries[place]
                data += (entry.data or b"")[1:]
                place += 1
            came = self._next(entry, len(data) if of_text else 1)
            if came is None:
                return self._difference(entry, f"{_shown(data)} was sent", "nothing is sent")
            at, payload = came
            if payload != data:
                return self._difference(entry, f"{_shown(data, payload)} was sent", f"{_shown(payload, data)} is sent")
            if at != entry.at and not of_text:
                return self._difference(entry, f"{_shown(data)} was sent", f"the same is sent at instruction {at}")
            self.compared += 1
        if self._said:
            last = entries[-1] if entries else Entry(0, 0, "out", b"")
            return self._difference(last, "the log ends", f"{_shown(self._said[0][1])} is sent")
        return None

    # -- the server's part

    def replace(self, launched: Launched) -> DebugTarget:
        """Of `Stage`: the client wants the domain anew."""
        before = self._target
        self._stage(launched, before)
        self._target.connected()
        self._target.succeed(before)
        before.disconnected()
        return self._target

    def _stage(self, launched: Launched, former: DebugTarget | None = None) -> None:
        self._launched = launched
        self._target = make_target(launched, self, StringIO(), CoreFiles(self._scratch))
        if former is not None:
            self._target.inherit(former)
        self._free = False

    def _connect(self) -> None:
        if self._launched.domain.shutdown_code is not None:
            self._stage(self._first.again(), self._target)
        self._free = False
        self._target.connected()
        self._connection = Connection(self._target)
        self._connection.tap = self

    def _disconnect(self, departure: Departure) -> None:
        self._connection = None
        detached = departure is Departure.DETACHED or not self._target.threads()
        self._target.disconnected()
        if departure is Departure.KILLED or self._launched.domain.shutdown_code is not None:
            self._stage(self._first.again(), self._target)
        elif detached:
            self._free = True

    # -- Tap

    def request(self, payload: bytes | None) -> None:
        """Of `Tap`."""
        self._request = _shown(payload or b"a packet that is too long")

    def reply(self, payload: bytes) -> None:
        """Of `Tap`."""
        self._said.append((self._launched.hv.cpu.count, payload))

    def interrupt(self) -> None:
        """Of `Tap`."""

    # -- the log's part

    def _act(self, entry: Entry) -> None:
        connection = self._connection
        match entry.kind:
            case "connect":
                self._connect()
            case "typed":
                send_input(self._launched.domain, entry.data or b"")
            case "disconnect" if connection is not None:
                self._disconnect(Departure(entry.word))
            case "interrupt" if connection is not None:
                connection.receive(b"\x03")
            case "in" if connection is not None:
                data = b"a" * (MAX_PAYLOAD + 1) if entry.data is None else escape(entry.data)
                connection.receive(frame(data))
        if connection is not None:
            connection.data_to_send()

    @property
    def _runs(self) -> bool:
        connection = self._connection
        if connection is None:
            return self._free
        return connection.state is State.RUNNING or self._target.runs

    def _run_to(self, entry: Entry) -> None:
        """Run the guest, if it runs, to where the line was written; it may stop before."""
        hv = self._launched.hv
        while self._runs and not self._said:
            count, now = hv.cpu.count, hv.now()
            if count >= entry.at and now >= entry.ns:
                return
            goes_on = self._slice_to(min(max(entry.at, count), count + self._slice))
            if (hv.cpu.count, hv.now()) == (count, now):
                # Time has passed without instructions: a vcpu spins.
                if not goes_on or count < entry.at:
                    return
                self._slice_to(count + 1)
                if (hv.cpu.count, hv.now()) == (count, now):
                    return

    def _slice_to(self, limit: int) -> bool:
        """Run to an instruction count; whether there is more to do."""
        domain, connection = self._launched.domain, self._connection
        if connection is None:
            ended = self._target.run_free(limit)
            domain.console.take_output()
            self._target.console.take()
            return ended is RunEnd.LIMIT
        stop = self._target.advance(limit)
        domain.console.take_output()
        said = self._target.console.take()
        if said:
            connection.output(said)
        if stop is not None:
            connection.stop(stop)
        connection.data_to_send()
        return stop is None and not self._target.idle

    def _next(self, entry: Entry, length: int) -> tuple[int, bytes] | None:
        """What the server sends next; None if it is nothing for much longer than the log says.

        Console text is run for until it has the logged `length`, and taken as one.
        """
        hv = self._launched.hv
        while self._runs and sum(len(payload) for _, payload in self._said) < length and hv.cpu.count <= entry.at:
            count = hv.cpu.count
            # Text was sent where a slice ended, a stop reply when the guest has seen what is behind this instruction.
            limit = entry.at if length > 1 and count < entry.at else entry.at + self._slice
            if not self._slice_to(min(limit, count + self._slice)):
                break
        if not self._said:
            return None
        at, payload = self._said.pop(0)
        while self._said and _is_text(payload) and _is_text(self._said[0][1]):
            at, more = self._said.pop(0)
            payload += more[1:]
        return at, payload

    def _difference(self, entry: Entry, what: str, instead: str) -> Difference:
        return Difference(entry.line, entry.at, self._request, what, instead)


def _is_text(payload: bytes | None) -> bool:
    """Whether it is text for the client's console."""
    return payload is not None and payload[:1] == b"O" and payload != b"OK"


def _name(entry: Entry) -> str:
    match entry.kind:
        case "in":
            return f"the request {_shown(entry.data or b'')} came"
        case "interrupt":
            return "an interrupt came"
        case "typed":
            return "console input came"
        case _:
            return f"a client came or went ({entry.kind})"


def _shown(payload: bytes, other: bytes = b"") -> str:
    """The payload, or of a long one the part where it first differs."""
    start = 0
    if other and len(payload) > _SHOWN:
        differs = next((at for at, (a, b) in enumerate(zip(payload, other, strict=False)) if a != b), 0)
        start = max(0, differs - _SHOWN // 2)
    part = payload[start : start + _SHOWN]
    where = f" (from byte {start} of {len(payload)})" if len(part) < len(payload) else ""
    return repr(part.decode("latin-1")) + where
