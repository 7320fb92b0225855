"""Messages that wait for a domain to make room in its ring, and their limits. Xen: send_reply(), send_event().

Replies always wait; so that they are not many, no request is taken from a domain with `MAX_OUTSTANDING` of them. An
event is not sent again while an equal one waits, and is lost if `MAX_WAITING` bytes do.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from xdbg.abi.xenstore import XENSTORE_PAYLOAD_MAX, XsdSockmsg, XsMsgType

MAX_OUTSTANDING: Final = 20
"""Replies that may wait before requests are left in the ring. Xen: quota_req_outstanding."""
MAX_WAITING: Final = (2 << 20) + (512 << 10)
"""Bytes that wait before events are dropped. Xen: quota_memory_per_domain_hard, which counts what else it has, too."""


@dataclass(slots=True)
class Message:
    """A message on its way to the domain: what is left of its bytes; `event`: the payload, if it is an event's."""

    left: bytearray
    size: int
    """How many bytes it had at first."""
    event: bytes | None = None


@dataclass(slots=True)
class Outbox:
    """What one domain has not been given yet, in order."""

    messages: deque[Message] = field(default_factory=deque)
    nr_replies: int = 0
    size: int = 0
    """Bytes of all messages, also of those that have begun to be sent."""
    events: dict[bytes, int] = field(default_factory=dict)
    """How many events with a payload wait."""

    def reply(self, kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        """Queue a reply."""
        self._append(_message(kind, req_id, tx_id, payload))
        self.nr_replies += 1

    def event(self, path: str, token: str) -> None:
        """Queue a watch event, unless an equal one waits, too much waits, or it does not fit into a message."""
        payload = f"{path}\0{token}\0".encode("latin-1")
        repeated = payload in self.events and not path.startswith("@")
        if len(payload) > XENSTORE_PAYLOAD_MAX or repeated or self.size >= MAX_WAITING:
            return
        message = _message(XsMsgType.WATCH_EVENT, 0, 0, payload)
        message.event = payload
        self._append(message)
        self.events[payload] = self.events.get(payload, 0) + 1

    def _append(self, message: Message) -> None:
        self.messages.append(message)
        self.size += message.size

    def drop_sent(self) -> None:
        """The first message has been sent whole."""
        message = self.messages.popleft()
        self.size -= message.size
        if message.event is None:
            self.nr_replies -= 1
            return
        self.events[message.event] -= 1
        if not self.events[message.event]:
            del self.events[message.event]


def _message(kind: int, req_id: int, tx_id: int, payload: bytes) -> Message:
    header = XsdSockmsg()
    header.type = kind
    header.req_id = req_id
    header.tx_id = tx_id
    header.len = len(payload)
    return Message(bytearray(header.to_bytes() + payload), XsdSockmsg.SIZE + len(payload))
