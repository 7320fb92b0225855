"""A real domain with a real target and a real connection in one process, driven as the server drives them.

Only the socket is missing: what a client sends is given in pieces, and the guest runs between them.
"""

import re
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import cycle

from xdbg.debug.target import DebugTarget
from xdbg.guestos.bare import BareProfile
from xdbg.guestos.structures import Structures
from xdbg.guestos.symbols import SymbolTable
from xdbg.guestos.tasks import TasksProfile
from xdbg.rsp.connection import OUTPUT_LIMIT, WAITING_LIMIT, Connection, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape, frame, unescape
from xdbg.session.guest_memory import DomainMemory
from xdbg.session.launch import Launch, launch
from xdbg.xen.setup import RunEnd

MEMORY = 8 << 20
SLICE = 1_000_000
PATIENCE = 60_000_000
"""Instructions after which a client presses Ctrl-C: more than the guest ever takes by itself."""
NR_INSTRUCTIONS = 36_600_000
"""About how long it runs."""


@cache
def _structures(elf: bytes) -> tuple[SymbolTable, Structures]:
    return SymbolTable.from_elf(elf), Structures.from_elf(elf)


@dataclass(frozen=True)
class Undebugged:
    """All that a run computes."""

    console: bytes
    instructions: int
    memory: int


class Session:
    """The guest `tasks`, `started` instructions old, and a client that has just connected to it."""

    def __init__(self, started: int = 0) -> None:
        launched = launch(Launch("tasks", memory=MEMORY))
        self.hv, self.domain = launched.hv, launched.domain
        symbols, structures = _structures(launched.image.elf)
        kernel = BareProfile(launched.image.elf, launched.name)
        memory = DomainMemory(self.hv, self.domain)
        self.target = DebugTarget(
            self.hv, self.domain, TasksProfile(memory, symbols, structures, kernel, launched.modules)
        )
        if started:
            self.hv.run(started)
        self.acks = 0
        self.console = b""
        self.connect()

    # -- the client's life

    def connect(self) -> None:
        self.target.connected()
        self.connection = Connection(self.target)
        self.stream = b""
        self.patience = self.hv.cpu.count + PATIENCE

    def disconnect(self) -> None:
        """The transport breaks, unless the client has left by itself."""
        self.connection.lose()
        self.connection.data_to_send()
        self.target.disconnected()

    @property
    def state(self) -> State:
        return self.connection.state

    # -- bytes

    def send(self, data: bytes) -> None:
        """As the server does it: all answers are taken, then the requests go on that had to wait for room."""
        self.connection.receive(data)
        self._take(len(data))

    def turn(self, instructions: int = SLICE) -> None:
        """Let the guest run, if it is to run."""
        if self.state is not State.RUNNING:
            return
        stop = self.target.advance(self.hv.cpu.count + instructions)
        if stop is None and (self.target.idle or self.hv.cpu.count >= self.patience):
            self.patience = self.hv.cpu.count + SLICE
            self.target.interrupt()
        if stop is not None:
            self.connection.stop(stop)
            self._take(0)

    def wait(self, instructions: int = SLICE) -> None:
        """Until the guest stands still."""
        while self.state is State.RUNNING:
            self.turn(instructions)

    def answers(self) -> list[bytes]:
        """The answers since the last call, without what was shown on the client's console."""
        packets, self.stream = self.stream, b""
        found = []
        while packets:
            match = re.compile(rb"\+|-|[$%]([^$#]*)#([0-9a-f]{2})", re.DOTALL).match(packets)
            assert match is not None, f"the server sent what is no packet: {packets[:80]!r}"
            packets = packets[match.end() :]
            if match[1] is None:
                continue
            assert sum(match[1]) % 256 == int(match[2], 16)
            assert len(match[1]) <= MAX_PAYLOAD
            if not re.match(rb"O[0-9a-f]", match[1]):
                found.append(unescape(match[1]))
        return found

    def ask(self, payload: bytes) -> list[bytes]:
        """One request, and its answer once the guest stands still."""
        self.send(frame(escape(payload)))
        self.wait()
        return self.answers()

    def _take(self, received: int) -> None:
        connection = self.connection
        while True:
            throttled = connection.throttled
            assert connection._output_size <= OUTPUT_LIMIT + 3 * MAX_PAYLOAD
            assert connection._waiting_size <= WAITING_LIMIT
            assert len(connection._decoder) <= WAITING_LIMIT + received
            data = connection.data_to_send()
            self.stream += data
            if not throttled:
                return
            connection.receive(b"")

    # -- the machine

    def fingerprint(self) -> tuple[object, ...]:
        """All of the machine that a guest could see."""
        hv = self.hv
        names = ("kernel_mode", "cr3", "blocked", "polling", "guest_table", "guest_table_user", "kernel_sp", "timers")
        vcpus = [[getattr(vcpu, name) for name in names] for vcpu in self.domain.vcpus]
        cpu = hv.cpu
        return (
            cpu.count, cpu.rip, tuple(cpu.gpr), cpu.rflags, hv.now(), zlib.crc32(hv.ram.buffer), str(vcpus),
            len(self.domain.console.output), self.domain.shutdown_code,
        )  # fmt: skip

    def run_to_the_end(self) -> Undebugged:
        """Without a debugger."""
        self.disconnect()
        assert self.hv.run(self.hv.cpu.count + 10 * PATIENCE) is not RunEnd.LIMIT
        output = bytes(self.domain.console.output)
        return Undebugged(output, self.hv.cpu.count, zlib.crc32(self.hv.ram.buffer))

    def assert_sane(self) -> None:
        """A fresh client is told that the guest stands still, reads it, makes one step of it, and lets it go."""
        self.disconnect()
        if self.domain.shutdown_code is not None:
            return
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


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, over and over."""
    pieces, place = [], 0
    for size in cycle(sizes):
        if place >= len(data):
            return pieces
        pieces.append(data[place : place + size])
        place += size
    return pieces
