"""Replaying a packet log: the logged requests to a fresh machine without any client, and its answers compared.

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

from xdbg.rsp.connection import Departure
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame
from xdbg.rsp.tap import Tap
from xdbg.xen.console import send_input

from .launch import Machine
from .packet_log import Entry
from .served_domain import ServedDomain, Surroundings
from .served_machine import ServedMachine

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
    """A machine that goes through a log again. Files that the user's commands write go to the folder `scratch`.

    `slice_length`: instructions that it runs at most at a time.
    """

    def __init__(self, machine: Machine, scratch: Path, *, slice_length: int = SLICE) -> None:
        self._slice = slice_length
        self._said: list[_Said] = []
        """What the server has sent and the log has not been compared with."""
        self._request = "nothing"
        self.compared = 0
        """Packets of the server that came as they were logged."""
        self._served = ServedMachine(lambda: machine, self, Surroundings(StringIO(), scratch))
        self._served.begin()

    def run(self, entries: Sequence[Entry]) -> Difference | None:
        """Go through the log; the first difference, None if there is none."""
        place = 0
        while place < len(entries):
            entry = entries[place]
            place += 1
            if entry.kind != "out":
                self._run_to(entry)
                if self._said:
                    return self._difference(entry, _name(entry), f"{_shown(self._said[0].payload)} is sent")
                self._act(entry)
                continue
            data, of_text = entry.data or b"", _is_text(entry.data)
            while of_text and place < len(entries) and _goes_on(entry, entries[place]):
                entry = entries[place]
                data += (entry.data or b"")[1:]
                place += 1
            came = self._next(entry, len(data) if of_text else 1)
            if came is None:
                return self._difference(entry, f"{_shown(data)} was sent", "nothing is sent")
            payload = came.payload
            if payload != data:
                return self._difference(entry, f"{_shown(data, payload)} was sent", f"{_shown(payload, data)} is sent")
            if came.domain is not self._domain_of(entry):
                why = f"the same is sent to the debugger of {came.domain.name}"
                return self._difference(entry, f"{_shown(data)} was sent", why)
            if came.at != entry.at and not of_text:
                why = f"the same is sent at instruction {came.at}"
                return self._difference(entry, f"{_shown(data)} was sent", why)
            self.compared += 1
        if self._said:
            last = entries[-1] if entries else Entry(0, 0, "out", b"")
            return self._difference(last, "the log ends", f"{_shown(self._said[0].payload)} is sent")
        return None

    # -- Household

    def tap(self, domain: ServedDomain) -> Tap:
        """What the server sends is kept."""
        return _Ear(self, domain)

    def staged(self, domain: ServedDomain) -> None:
        """Nothing."""

    def leaves(self, domain: ServedDomain) -> None:
        """Nothing."""

    def tell(self, text: str) -> None:
        """Nobody is there."""

    def asked(self, payload: bytes | None) -> None:
        """A request is answered now."""
        self._request = _shown(payload or b"a packet that is too long")

    def said(self, domain: ServedDomain, payload: bytes) -> None:
        """A packet is sent to a debugger."""
        self._said.append(_Said(self._served.hv.cpu.count, domain, payload))

    # -- the log's part

    def _domain_of(self, entry: Entry) -> ServedDomain:
        return self._served.domains[entry.domain or 0]

    def _act(self, entry: Entry) -> None:
        domain = self._domain_of(entry)
        connection = domain.connection
        match entry.kind:
            case "connect":
                self._served.connect(domain)
            case "typed":
                send_input(domain.launched.domain, entry.data or b"")
            case "disconnect" if connection is not None:
                self._served.disconnect(domain, Departure(entry.word))
            case "interrupt" if connection is not None:
                connection.receive(b"\x03")
            case "in" if connection is not None:
                data = b"a" * (MAX_PAYLOAD + 1) if entry.data is None else escape(entry.data)
                connection.receive(frame(data))
        if connection is not None:
            connection.data_to_send()

    def _run_to(self, entry: Entry) -> None:
        """Run the machine, if it runs, to where the line was written; it may stop before."""
        hv = self._served.hv
        while self._served.runs and not self._said:
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
        served = self._served
        happened = served.advance(limit)
        for domain in served.domains:
            domain.launched.domain.console.take_output()
            if domain.connection is not None:
                domain.connection.data_to_send()
        return not served.idle and all(one.stop is None for one in happened)

    def _next(self, entry: Entry, length: int) -> "_Said | None":
        """What the server sends next; None if it is nothing for much longer than the log says.

        Console text is run for until it has the logged `length`, and taken as one.
        """
        hv = self._served.hv
        if self._served.is_held and not self._said:
            self._slice_to(hv.cpu.count)
        while self._served.runs and sum(len(one.payload) for one in self._said) < length and hv.cpu.count <= entry.at:
            count = hv.cpu.count
            # Text was sent where a slice ended, a stop reply when the guest has seen what is behind this instruction.
            limit = entry.at if length > 1 and count < entry.at else entry.at + self._slice
            if not self._slice_to(min(limit, count + self._slice)):
                break
        if not self._said:
            return None
        first = self._said.pop(0)
        at, payload = first.at, first.payload
        while self._said and _is_text(payload) and _is_text(self._said[0].payload):
            if self._said[0].domain is not first.domain:
                break
            more = self._said.pop(0)
            at, payload = more.at, payload + more.payload[1:]
        return _Said(at, first.domain, payload)

    def _difference(self, entry: Entry, what: str, instead: str) -> Difference:
        return Difference(entry.line, entry.at, self._request, what, instead)


@dataclass(frozen=True, slots=True)
class _Said:
    """A packet of the server's: at which instruction count, and to the debugger of which domain."""

    at: int
    domain: ServedDomain
    payload: bytes


class _Ear:
    """`Tap` of one debugger's connection."""

    def __init__(self, replay: Replay, domain: ServedDomain) -> None:
        self._replay = replay
        self._domain = domain

    def request(self, payload: bytes | None) -> None:
        """Of `Tap`."""
        self._replay.asked(payload)

    def reply(self, payload: bytes) -> None:
        """Of `Tap`."""
        self._replay.said(self._domain, payload)

    def interrupt(self) -> None:
        """Of `Tap`."""


def _goes_on(entry: Entry, following: Entry) -> bool:
    """Whether the next line of the log has more of a text for the same console."""
    return following.kind == "out" and following.domain == entry.domain and _is_text(following.data)


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
