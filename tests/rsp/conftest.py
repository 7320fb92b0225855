"""Fixtures: a fake target, a connection to it, and helpers that speak packets."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for rsp_fake, which a server process imports too

from rsp_fake import FakeTarget

from xdbg.rsp.connection import Connection
from xdbg.rsp.framing import frame, unescape

GDB_FEATURES = b"qSupported:multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+;no-resumed+;xmlRegisters=i386"


class Client:
    """The other side: sends payloads, returns the payloads that come back, and checks all framing."""

    def __init__(self, target, *, features=GDB_FEATURES, ack=False):
        self.target = target
        self.connection = Connection(target)
        self.ack = True
        if features is not None:
            self.ask(features)
        if not ack:
            assert self.ask(b"QStartNoAckMode") == b"OK"
            self.ack = False

    def send(self, payload):
        self.connection.receive(frame(payload))
        return self.replies()

    def replies(self):
        data = self.connection.data_to_send()
        if self.ack:
            data = re.sub(rb"\+(?=\$|\Z)", b"", data)
        return payloads(data)

    def ask(self, payload):
        (reply,) = self.send(payload)
        return reply


def payloads(data):
    """The payloads in a stream of packets; anything else in it is an error."""
    found = re.findall(rb"\$([^$#]*)#([0-9a-f]{2})", data)
    assert b"".join(b"$%s#%s" % pair for pair in found) == data
    for payload, given in found:
        assert sum(payload) % 256 == int(given, 16)
    return [unescape(payload) for payload, _ in found]


@pytest.fixture
def target():
    return FakeTarget()


@pytest.fixture
def client(target):
    return Client(target)


@pytest.fixture
def make_client():
    return Client


@pytest.fixture
def parse_replies():
    return payloads
