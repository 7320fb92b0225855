"""The same through a real socket: clients of all kinds come to one server, one after the other."""

import re
import socket
from contextlib import suppress
from pathlib import Path

import fuzz_requests as fuzz
from conftest import TIMES
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
