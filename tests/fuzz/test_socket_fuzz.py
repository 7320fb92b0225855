"""The same through a real socket: clients of all kinds come to one server, one after the other."""

import re
import socket
from contextlib import suppress
from pathlib import Path

import fuzz_requests as fuzz
from fuzz_machine import TIMES
from hypothesis import given, settings
from hypothesis import strategies as st

from xdbg.rsp.framing import escape, frame

PROFILE = settings.get_profile("fuzz")
GROWTH_KB = 64 << 10
"""What the server's memory may grow by, whatever is sent to it: limits and caches, but nothing for each client."""


class Client:
    """A client that reads its answers, or does not care for them."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)

    def send(self, data):
        self._socket.sendall(data)

    def send_what_fits(self, data):
        self._socket.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            while True:
                self._socket.send(data)

    def ask(self, payload):
        self.send(frame(escape(payload)))
        received = b""
        while (found := re.search(rb"\$([^#]*)#[0-9a-f]{2}", received)) is None:
            received += self._socket.recv(1 << 16) or b"$the server has hung up#00"
        return found[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()


def resident_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def test_server_outlives_clients_of_all_kinds(xdbg_serve):
    """However a client speaks and however it leaves, the next finds a domain that stands still and can be read and
    stepped; the server does not complain, and does not grow."""
    guest = xdbg_serve("tasks", "--memory", "8M")

    @settings(PROFILE, max_examples=40 * max(TIMES, 1))
    @given(st.lists(fuzz.wire, max_size=20), st.booleans(), st.lists(fuzz.reading, max_size=5))
    def session(pieces, runs, payloads):
        with Client(guest.address) as client:
            if runs:
                client.send(frame(b"vCont;c"))
            with suppress(ConnectionError):  # it was disconnected for something that it said before
                client.send(b"".join(pieces))
        with Client(guest.address) as client:
            assert client.ask(b"qSupported:multiprocess+").startswith(b"PacketSize=")
            assert client.ask(b"?")[:1] in b"TWX"
            for payload in payloads:
                client.ask(payload)
            assert len(client.ask(b"g;thread:p400001.1;")) > 1000
            assert client.ask(b"vCont;s:p400001.1;c")[:1] in b"TWX"
        assert guest.alive

    session()
    before = resident_kb(guest.pid)
    session()
    assert resident_kb(guest.pid) - before < GROWTH_KB
    guest.stop()
    assert set(guest.errors.splitlines()) <= {"xdbg: the domain starts anew"}


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_domain_that_is_begun_anew_again_and_again_leaves_nothing(xdbg_serve):
    """By vRun in one session: neither memory nor descriptors of the domains before are kept."""
    guest = xdbg_serve("tasks", "--memory", "8M")

    def begin_anew(times):
        for _ in range(times):
            assert client.ask(b"vKill;400001") == b"OK"
            assert client.ask(b"vRun;")[:3] == b"T05"
            assert client.ask(b"vCont;s:p400001.1")[:1] == b"T"
        return resident_kb(guest.pid), descriptors(guest.pid)

    with Client(guest.address) as client:
        client.ask(b"!")
        memory, files = begin_anew(4)
        memory_then, files_then = begin_anew(12)
        assert files_then == files
        assert memory_then - memory < 24 << 10, "less than three domains of 8 MiB"
    guest.stop()
    assert set(guest.errors.splitlines()) == {"xdbg: the domain starts anew"}


def test_observers_that_flood_do_not_keep_the_debugger_waiting(xdbg_serve):
    """Two clients that send as much as the transport takes and never read: the debugger is answered in between, its
    guest runs and stops, and the server's memory stays where it is."""
    guest = xdbg_serve("tasks", "--memory", "8M")
    flood = frame(b"qXfer:features:read:target.xml:0,4000") * 200 + frame(b"mffffffff80100000,4000") * 200
    with Client(guest.address) as debugger, Client(guest.address) as first, Client(guest.address) as second:
        assert debugger.ask(b"?")[:3] == b"T05"
        before = resident_kb(guest.pid)
        for _ in range(30):
            for observer in (first, second):
                observer.send_what_fits(flood)
            assert len(debugger.ask(b"g")) == 2 * 560
            assert debugger.ask(b"vCont;s:p400001.1")[:1] == b"T"
        assert resident_kb(guest.pid) - before < 16 << 10
    assert guest.alive
    guest.stop()
    assert guest.errors == ""
