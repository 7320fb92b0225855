"""The client's side of a connection, for tests: speaks packets, and checks all that comes back."""

import re

from rsp_fake import BareTarget

from xdbg.rsp.connection import Connection
from xdbg.rsp.framing import escape, frame, unescape

GDB_FEATURES = (
    b"qSupported:multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+;no-resumed+;xmlRegisters=i386"
)


class Client:
    """The other side: sends payloads, returns the payloads that come back, and checks all framing."""

    def __init__(self, target: BareTarget, *, features: bytes | None = GDB_FEATURES, ack: bool = False) -> None:
        self.target = target
        self.connection = Connection(target)
        self.ack = True
        if features is not None:
            self.ask(features)
        if not ack:
            assert self.ask(b"QStartNoAckMode") == b"OK"
            self.ack = False

    def send(self, payload: bytes) -> list[bytes]:
        self.connection.receive(frame(escape(payload)))
        return self.replies()

    def replies(self) -> list[bytes]:
        data = self.connection.data_to_send()
        if self.ack:
            data = re.sub(rb"\+(?=\$|\Z)", b"", data)
        return payloads(data)

    def ask(self, payload: bytes) -> bytes:
        (reply,) = self.send(payload)
        return reply


def payloads(data: bytes) -> list[bytes]:
    """The payloads in a stream of packets; anything else in it is an error."""
    found = re.findall(rb"\$([^$#]*)#([0-9a-f]{2})", data)
    assert b"".join(b"$%s#%s" % pair for pair in found) == data
    for payload, given in found:
        assert sum(payload) % 256 == int(given, 16)
    return [unescape(payload) for payload, _ in found]
