"""A real server with a real domain in one process, driven as its loop drives it; only the sockets are missing.

What clients send is given in pieces, and the guest runs between them for as long as a test says.
"""

import os
import re
import weakref
import zlib
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from itertools import cycle
from pathlib import Path

from xdbg.rsp.connection import OUTPUT_LIMIT, WAITING_LIMIT, Connection, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame, unescape
from xdbg.session import gallery as gallery_module
from xdbg.session import server as server_module
from xdbg.session.client import Client
from xdbg.session.domain_clients import DomainClients
from xdbg.session.launch import Launch, Launched, launch_machine
from xdbg.session.packet_log import Entry, Header, PacketLog
from xdbg.session.replay import Difference, Replay
from xdbg.session.server import Server
from xdbg.xen.setup import RunEnd

TASKS = Launch("tasks", memory=8 << 20)
SLICE = 1_000_000
PATIENCE = 60_000_000
"""Instructions after which a client presses Ctrl-C: more than the guest ever takes by itself."""
TIMES = int(os.environ.get("XDBG_FUZZ", "0"))
"""How many times as many examples are made; 0: the few that are made each time."""
MAX_EVENTS = 64
"""Stops that one client of this guest can have waiting: it has fewer threads."""

PACKET = re.compile(rb"\+|-|[$%]([^$#]*)#([0-9a-f]{2})", re.DOTALL)


@dataclass(frozen=True)
class Undebugged:
    """All that a run computes."""

    console: bytes
    instructions: int
    memory: int


class Screen:
    """The domain's console: nobody types."""

    def __init__(self):
        self.output = b""

    def flush(self, domain):
        self.output += domain.console.take_output()


class Wire:
    """A client's end of a transport that takes all at once; `blocked`: nothing more, for the time being."""

    def __init__(self):
        self.stream = b""
        self.blocked = False
        self.connection: Connection | None = None

    def fileno(self):
        raise AssertionError("nobody waits here")

    def send(self, data):
        if self.blocked:
            return 0
        self.stream += data
        return len(data)

    def receive_now(self):
        return None

    def close(self):
        self.blocked = True

    def check(self, received=0):
        """What is kept of a client has its limits."""
        connection = self.connection
        assert connection._output_size <= OUTPUT_LIMIT + 3 * MAX_PAYLOAD
        assert connection._waiting_size <= WAITING_LIMIT
        assert len(connection._decoder) <= WAITING_LIMIT + received
        assert len(connection.files) <= 64
        assert len(connection.stops) <= MAX_EVENTS

    def take(self):
        """The packets since the last call, without acknowledgements and text for the console: sign and payload."""
        packets, self.stream = self.stream, b""
        found = []
        while packets:
            match = PACKET.match(packets)
            assert match is not None, f"the server sent what is no packet: {packets[:80]!r}"
            sign, packets = packets[:1], packets[match.end() :]
            if match[1] is None:
                continue
            assert sum(match[1]) % 256 == int(match[2], 16)
            assert len(match[1]) <= MAX_PAYLOAD
            if sign == b"%" or not re.match(rb"O[0-9a-f]", match[1]):
                found.append((sign, unescape(match[1])))
        return found


@cache
def _header():
    return Header.of([TASKS])


class Session:
    """The guest `tasks`, `started` instructions old, and a client that has just connected to it."""

    def __init__(self, started: int = 0, *, cores: Path = Path("/nonexistent"), logs: bool = False) -> None:
        self.screen = Screen()
        self.wire = Wire()
        self.wires: list[Wire] = []
        """Of the observers."""
        self.log_file = StringIO()
        log = PacketLog(self.log_file, _header(), self._complain) if logs else None
        with redirect_stderr(StringIO()):  # where a trace would go
            self.server = Server(lambda: launch_machine([TASKS]), self.screen, log=log, dump_directory=cores)
        weakref.finalize(self, _close, self.server._wake_read, self.server._wake_write)
        gallery_module.LASTING_S = 0.0  # observers are told of each stop at once
        if started:
            self.hv.run(started)
        self.connect()

    def _complain(self, text):
        raise AssertionError(text)

    @property
    def target(self):
        return self.server.served.domains[0].target

    @property
    def launched(self) -> Launched:
        return self.server.served.domains[0].launched

    @property
    def hv(self):
        return self.launched.hv

    @property
    def domain(self):
        return self.launched.domain

    @property
    def connection(self) -> Connection:
        return self.wire.connection

    @property
    def clients(self) -> DomainClients:
        return self.server.clients[0]

    # -- clients' lives

    def connect(self) -> None:
        self.wire = Wire()
        self.clients.connect(self.wire)
        self.wire.connection = self.clients.debugger.connection
        self.patience = self.hv.cpu.count + PATIENCE

    def observe(self) -> int:
        """One more client that only observes: its number."""
        wire = Wire()
        self.clients.gallery.admit(wire, self.target)
        wire.connection = self.clients.gallery.clients[-1].connection
        self.wires.append(wire)
        return len(self.wires) - 1

    def disconnect(self) -> None:
        """The transport breaks, unless the client has left by itself."""
        if self.clients.debugger is not None:
            self.clients.debugger.take(b"")
            self.server._dismiss()

    @property
    def state(self) -> State:
        return self.connection.state

    # -- bytes

    def send(self, data: bytes) -> None:
        client = self.clients.debugger
        if client is not None:
            client.take(data)
            self.wire.check(len(data))
            self.server._dismiss()

    def turn(self, instructions: int = SLICE) -> bool:
        """One turn of the server's loop; whether the guest is to go on."""
        server_module.SLICE = instructions
        client = self.clients.debugger
        if client is not None and self.state is State.RUNNING and self.hv.cpu.count >= self.patience:
            self._interrupt(client)
        again = self.server.advance()
        if not again and self.state is State.RUNNING and self.clients.debugger is not None:
            self._interrupt(client)  # it waits for input, and nobody types
            again = True
        self.clients.gallery.turn(self.target)
        self.wire.check()
        return again

    def _interrupt(self, client: Client) -> None:
        self.patience = self.hv.cpu.count + SLICE
        client.take(b"\x03")

    def wait(self, instructions: int = SLICE) -> None:
        """Until the guest stands still."""
        while self.state is State.RUNNING:
            self.turn(instructions)

    def answers(self) -> list[bytes]:
        """The answers since the last call, without what was shown on the client's console."""
        return [payload for _, payload in self.wire.take()]

    def ask(self, payload: bytes) -> list[bytes]:
        """One request, and its answer once the guest stands still."""
        self.send(frame(escape(payload)))
        self.wait()
        return self.answers()

    def observer_sends(self, number: int, data: bytes) -> None:
        wire = self.wires[number]
        clients = [client for client in self.clients.gallery.clients if client.connection is wire.connection]
        for client in clients:
            view = next(view for member, view in self.clients.gallery._members if member is client)
            view.look_again()
            client.take(data)
            wire.check(len(data))
        self.server._dismiss()

    def gallery_turns(self) -> None:
        """All requests of the observers are looked at."""
        while self.clients.gallery.turn(self.target):
            pass

    # -- the machine

    def fingerprint(self) -> tuple[object, ...]:
        """All of the machine that a guest could see."""
        hv = self.hv
        names = ("kernel_mode", "cr3", "blocked", "polling", "guest_table", "guest_table_user", "kernel_sp", "timers")
        vcpus = [[getattr(vcpu, name) for name in names] for vcpu in self.domain.vcpus]
        cpu = hv.cpu
        self.screen.flush(self.domain)
        return (
            cpu.count, cpu.rip, tuple(cpu.gpr), cpu.rflags, hv.now(), zlib.crc32(hv.ram.buffer), str(vcpus),
            self.screen.output, self.domain.shutdown_code,
        )  # fmt: skip

    def run_to_the_end(self) -> Undebugged:
        """The client goes, and the guest runs without a debugger."""
        launched, target = self.launched, self.target
        self.disconnect()
        limit = launched.hv.cpu.count + 10 * PATIENCE
        while launched.domain.shutdown_code is None and launched.hv.cpu.count < limit:  # it was made to loop for ever
            if target.run_free(limit) is RunEnd.IDLE:
                break
        self.screen.flush(launched.domain)
        return Undebugged(self.screen.output, launched.hv.cpu.count, zlib.crc32(launched.hv.ram.buffer))

    def assert_sane(self) -> None:
        """A fresh client is told that the guest stands still, reads it, makes one step of it, and goes."""
        self.disconnect()
        self.connect()
        (features,) = self.ask(b"qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386")
        assert features.startswith(b"PacketSize=")
        (status,) = self.ask(b"?")
        assert re.match(rb"T05.*thread:p400001\.1;", status), status
        assert self.ask(b"qfThreadInfo") == [b"mp400001.1"]
        (registers,) = self.ask(b"g")
        assert len(registers) == 2 * 560
        rip = int.from_bytes(bytes.fromhex(registers[256:272].decode()), "little")
        assert rip == self.target.inferiors.rip(self.target.threads()[0].thread)
        before = self.hv.cpu.count
        (stop,) = self.ask(b"vCont;s:p400001.1;c")
        assert self.hv.cpu.count >= before
        assert stop[:1] in b"TWX"
        self.disconnect()

    # -- the log

    def replay(self, scratch: Path, slice_length: int) -> Difference | None:
        """The first answer that is another one when the log of this session is replayed."""
        _, *lines = self.log_file.getvalue().splitlines()
        entries = [Entry.decode(line, number) for number, line in enumerate(lines, 2)]
        return Replay(launch_machine([TASKS]), scratch, slice_length=slice_length).run(entries)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, over and over."""
    pieces, place = [], 0
    for size in cycle(sizes):
        if place >= len(data):
            return pieces
        pieces.append(data[place : place + size])
        place += size
    return pieces
