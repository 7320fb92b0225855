"""Two debuggers on two domains of one machine, whatever they do and whenever they come and go: the machine stands when
it has to, and computes what it computes without them.
"""

from contextlib import redirect_stderr
from functools import cache
from io import StringIO

from fuzz_machine import Screen, Wire
from hypothesis import given
from hypothesis import strategies as st
from test_server_fuzz import examples

from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.connection import State
from xdbg.rsp.framing import escape, frame
from xdbg.session import server as server_module
from xdbg.session.launch import MIB, Launch, Machine, launch_machine
from xdbg.session.packet_log import Entry, Header, PacketLog
from xdbg.session.replay import Replay
from xdbg.session.server import Server

DOMAINS = (Launch("tick", memory=8 * MIB), Launch("hello", memory=8 * MIB))
FOREVER = 1 << 40
NON_STOP = b"QNonStop:1"


@cache
def header() -> Header:
    return Header.of(DOMAINS)


@cache
def symbols(index: int) -> dict[str, int]:
    table = SymbolTable.from_elf(launch_machine([DOMAINS[index]]).domains[0].image.elf)
    return {name: table.address(name) for name in ("main", "printk", "hypercall_page")}


def outcome(machine: Machine) -> tuple[object, ...]:
    hv = machine.hv
    hv.run(FOREVER)
    codes = [launched.domain.shutdown_code for launched in machine.domains]
    return hv.cpu.count, hv.now(), codes, hash(bytes(hv.ram.buffer))


@cache
def undebugged() -> tuple[object, ...]:
    return outcome(launch_machine(DOMAINS))


class Pair:
    """A server of both domains, and a client of each that may be there or not."""

    def __init__(self) -> None:
        self.log = StringIO()
        log = PacketLog(self.log, header(), self._complain)
        with redirect_stderr(StringIO()):
            self.server = Server(lambda: launch_machine(DOMAINS), Screen(), log=log)  # type: ignore[arg-type] # a screen is as much of a terminal as it takes

    def _complain(self, text: str) -> None:
        raise AssertionError(text)

    @property
    def over(self) -> bool:
        """Whether a domain has come to its end: who leaves it then would have it made anew."""
        return any(one.launched.domain.shutdown_code is not None for one in self.server.served.domains)

    def act(self, who: int, action: bytes) -> None:
        clients = self.server.clients[who]
        client = clients.debugger
        if action == b"come":
            if client is None:
                clients.connect(Wire())
            return
        if client is None:
            return
        if action == b"vanish":
            client.take(b"")
        elif action == b"\x03":
            client.take(b"\x03")
        else:
            for name, vaddr in symbols(who).items():
                action = action.replace(b"<" + name.encode() + b">", b"%x" % vaddr)
            client.take(frame(escape(action)))
        self.server._dismiss()

    def turn(self, instructions: int) -> None:
        server_module.SLICE = instructions
        served = self.server.served
        held = any(domain.holds for domain in served.domains)
        before = served.hv.cpu.count, served.hv.now()
        self.server.advance()
        if held:
            assert (served.hv.cpu.count, served.hv.now()) == before, "the machine stands"

    def leave(self) -> None:
        """All debuggers go. That of a domain that has ended leaves its target only: else it would be made anew."""
        for clients in self.server.clients:
            if clients.debugger is not None and clients.domain.launched.domain.shutdown_code is None:
                clients.debugger.take(b"")
            elif clients.debugger is not None:
                clients.domain.target.disconnected()
        self.server._dismiss()

    def close(self) -> None:
        self.server.close()

    def entries(self) -> list[Entry]:
        _, *lines = self.log.getvalue().splitlines()
        return [Entry.decode(line, number) for number, line in enumerate(lines, 2)]


GO = (b"vCont;c", b"vCont;c", b"vCont;c", b"vCont;c:p400001.1", b"vCont;s:p400001.1;c")
ACTIONS = st.sampled_from(
    [
        *(*GO, *GO, *GO, b"vCont;r<printk>,<main>:p400001.1;c"),
        *(b"", b"", b"", b"come", b"come", b"come", b"vanish", b"D;400001", b"\x03", b"\x03", b"vCont;t", b"vCtrlC"),
        *(b"?", b"g", NON_STOP, b"QNonStop:0", b"vStopped", b"qSupported:multiprocess+"),
        *(b"Z0,<main>,1", b"Z0,<printk>,1", b"Z1,<hypercall_page>,1", b"Z2,<main>,8", b"z0,<printk>,1"),
    ]
)
STEPS = st.lists(
    st.tuples(ACTIONS, ACTIONS, st.sampled_from([1, 997, 50_000, 1_000_000])), min_size=4, max_size=24
)  # fmt: skip


@examples(10)
@given(
    begins=st.lists(st.sampled_from([b"Z0,<main>,1", b"Z0,<printk>,1", NON_STOP]), max_size=2),
    steps=STEPS,
    slice_length=st.sampled_from([9_973, 1_000_000]),
)
def test_two_debuggers_change_nothing_and_are_replayed_when_all_stops(begins, steps, slice_length, tmp_path_factory):
    pair = Pair()
    try:
        for action in (b"come", *begins, b"vCont;c"):
            pair.act(0, action)
            pair.act(1, action)
        for first, second, instructions in steps:
            for who, action in ((0, first), (1, second)):
                if action and not pair.over:
                    pair.act(who, action)
                pair.turn(instructions)
        for domain in pair.server.served.domains:
            connection = domain.connection
            assert connection is None or connection.state is not State.DISCONNECTED
        entries = pair.entries()
        if not any(entry.data == NON_STOP for entry in entries):  # in which requests may come between two instructions
            machine, scratch = launch_machine(DOMAINS), tmp_path_factory.getbasetemp()
            assert Replay(machine, scratch, slice_length=slice_length).run(entries) is None
        pair.leave()
        assert outcome(pair.server.served.machine) == undebugged()
    finally:
        pair.close()
