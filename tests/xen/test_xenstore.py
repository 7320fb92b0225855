"""The store: messages over the ring, the tree, permissions, watches and transactions."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.frames import Mfn
from xdbg.abi.xenstore import (
    XENSTORE_ERROR_PROTO,
    XENSTORE_ERROR_RINGIDX,
    XenstoreDomainInterface,
    XsdSockmsg,
    XsMsgType,
)
from xdbg.xen import xenstore
from xdbg.xen.event_channel import is_pending
from xdbg.xen.event_channel_op import send
from xdbg.xen.xenstore_home import make_console_keys
from xdbg.xen.xenstore_outbox import MAX_OUTSTANDING, MAX_WAITING
from xdbg.xen.xenstore_requests import MAX_TRANSACTIONS, MAX_WATCHES
from xdbg.xen.xenstore_tree import DOMID_PRIVILEGED, MAX_NODES, MAX_NODES_IN_TRANSACTION, View, XenstoreTree

OK = (XsMsgType.WRITE, b"OK\0")
Reply = tuple[int, bytes]


class Client:
    """A kernel's driver for the store: one request at a time, events put aside."""

    def __init__(self, guest: Any) -> None:
        self.guest = guest
        self.domain = guest.domain
        port = self.domain.event_channels.bind_backend(xenstore.BACKEND)
        self.domain.xenstore.connect(self.domain, guest.frames[3], port)
        self.ring = XenstoreDomainInterface.at(guest.hv.ram, guest.frames[3] * 4096)
        self.received = b""
        self.events: list[tuple[str, str]] = []
        self.req_id = 0

    def push(self, data: bytes) -> None:
        """Bytes into the request ring; they have to fit."""
        for byte in data:
            self.ring.req[self.ring.req_prod % 1024] = byte
            self.ring.req_prod += 1

    def kick(self) -> None:
        send(self.domain, self.domain.xenstore.port)

    def pull(self) -> None:
        """Everything out of the response ring, kicking for more until there is no more."""
        while self.ring.rsp_prod != self.ring.rsp_cons:
            count = self.ring.rsp_prod - self.ring.rsp_cons & 0xFFFF_FFFF
            self.received += bytes(self.ring.rsp[(self.ring.rsp_cons + i) % 1024] for i in range(count))
            self.ring.rsp_cons += count
            self.kick()

    def messages(self) -> list[tuple[XsdSockmsg, bytes]]:
        """The whole messages that have come."""
        self.pull()
        found = []
        while len(self.received) >= 16:
            header = XsdSockmsg.from_bytes(self.received)
            if len(self.received) < 16 + header.len:
                break
            found.append((header, self.received[16 : 16 + header.len]))
            self.received = self.received[16 + header.len :]
        return found

    def collect(self) -> list[Reply]:
        """The replies that have come; events go into `events`."""
        replies = []
        for header, payload in self.messages():
            if header.type == XsMsgType.WATCH_EVENT:
                path, token, rest = payload.decode().split("\0")
                assert rest == ""
                self.events.append((path, token))
            else:
                replies.append((header.type, payload))
        return replies

    def ask(self, kind: int, payload: bytes, tx: int = 0) -> Reply:
        """The type and payload of the reply to one request, sent in pieces if it is longer than the ring."""
        self.req_id += 1
        message = XsdSockmsg(type=kind, req_id=self.req_id, tx_id=tx, len=len(payload)).to_bytes() + payload
        for start in range(0, len(message), 700):
            self.push(message[start : start + 700])
            self.kick()
        replies = self.collect()
        assert len(replies) == 1
        return replies[0]

    def error(self, kind: int, payload: bytes, tx: int = 0) -> str:
        """The name of the error that a request comes back with; "" if it succeeds."""
        kind, reply = self.ask(kind, payload, tx)
        return reply.rstrip(b"\0").decode() if kind == XsMsgType.ERROR else ""

    def read(self, path: str, tx: int = 0) -> bytes:
        kind, value = self.ask(XsMsgType.READ, path.encode() + b"\0", tx)
        assert kind == XsMsgType.READ, value
        return value

    def write(self, path: str, value: bytes, tx: int = 0) -> None:
        assert self.ask(XsMsgType.WRITE, path.encode() + b"\0" + value, tx) == OK

    def directory(self, path: str, tx: int = 0) -> list[bytes]:
        kind, names = self.ask(XsMsgType.DIRECTORY, path.encode() + b"\0", tx)
        assert kind == XsMsgType.DIRECTORY, names
        return names.split(b"\0")[:-1]

    def start(self) -> int:
        kind, number = self.ask(XsMsgType.TRANSACTION_START, b"\0")
        assert kind == XsMsgType.TRANSACTION_START, number
        return int(number.rstrip(b"\0"))


@pytest.fixture
def client(guest: Any) -> Client:
    return Client(guest)


@pytest.fixture
def neighbours(neighbour: Any) -> Client:
    return Client(neighbour)


def test_a_domain_finds_its_keys(client: Client) -> None:
    assert client.read("domid") == b"1"
    assert client.read("/local/domain/1/name") == b"guest"
    assert client.read("memory/target") == b"256"
    assert client.read("store/port") == str(client.domain.xenstore.port).encode()
    assert client.read(client.read("vm").decode() + "/uuid") == b"00000000-0000-0000-0000-000000000001"
    assert client.ask(XsMsgType.GET_DOMAIN_PATH, b"7\0") == (XsMsgType.GET_DOMAIN_PATH, b"/local/domain/7\0")
    assert {b"device", b"control", b"memory"} <= set(client.directory("/local/domain/1"))


def test_what_a_domain_may_do_with_its_keys(client: Client) -> None:
    def permissions(path: str) -> bytes:
        return client.ask(XsMsgType.GET_PERMS, path.encode() + b"\0")[1]

    for path in ("/local/domain/1", "name", "device", "control", "memory/target", "cpu/0/availability", "store/port"):
        assert permissions(path) == b"n0\0r1\0", path
    for path in ("data", "drivers", "error", "attr", "feature", "control/shutdown", "control/feature-poweroff"):
        assert permissions(path) == b"n1\0", path
    for path in ("/", "/local", "/local/domain", "/local/domain/0", "/vm", "/libxl/1"):
        assert client.error(XsMsgType.READ, path.encode() + b"\0") == "EACCES", path


def test_a_reply_repeats_the_ids_of_its_request_and_comes_with_an_event(guest: Any, client: Client) -> None:
    payload = b"domid\0"
    client.push(XsdSockmsg(type=XsMsgType.READ, req_id=77, tx_id=0, len=len(payload)).to_bytes() + payload)
    client.kick()
    assert is_pending(guest.domain, client.domain.xenstore.port)
    [(header, value)] = client.messages()
    assert (header.type, header.req_id, header.tx_id, value) == (XsMsgType.READ, 77, 0, b"1")


def test_keys_are_made_with_their_parents_changed_and_removed(client: Client) -> None:
    client.write("data/a/b", b"one\0two")
    assert client.read("data/a/b") == b"one\0two"
    assert client.read("data/a") == b""
    assert client.directory("data") == [b"a"]
    client.write("data/a/b", b"")
    assert client.read("/local/domain/1/data/a/b") == b""
    assert client.ask(XsMsgType.MKDIR, b"data/a/c\0") == (XsMsgType.MKDIR, b"OK\0")
    assert client.ask(XsMsgType.MKDIR, b"data/a/b\0") == (XsMsgType.MKDIR, b"OK\0")
    assert client.directory("data/a") == [b"b", b"c"]
    assert client.ask(XsMsgType.RM, b"data/a\0") == (XsMsgType.RM, b"OK\0")
    assert client.error(XsMsgType.READ, b"data/a/b\0") == "ENOENT"
    assert client.directory("data") == []
    assert client.ask(XsMsgType.RM, b"data/a\0") == (XsMsgType.RM, b"OK\0"), "its parent is there"
    assert client.error(XsMsgType.RM, b"data/x/y\0") == "ENOENT"


def test_a_domain_keeps_to_its_own_keys(client: Client, neighbours: Client) -> None:
    neighbours.write("data/secret", b"x")
    for kind, payload in (
        (XsMsgType.READ, b"/local/domain/2/data/secret\0"),
        (XsMsgType.READ, b"/local/domain/2/nothing\0"),
        (XsMsgType.WRITE, b"/local/domain/2/data/secret\0y"),
        (XsMsgType.WRITE, b"/local/domain/2/data/new\0y"),
        (XsMsgType.MKDIR, b"/new\0"),
        (XsMsgType.RM, b"/local/domain/2/data\0"),
        (XsMsgType.RM, b"/\0"),
        (XsMsgType.WRITE, b"name\0renamed"),
        (XsMsgType.DIRECTORY, b"/local/domain\0"),
        (XsMsgType.SET_PERMS, b"name\0b1\0"),
    ):
        assert client.error(kind, payload) == "EACCES", payload
    assert client.read("name") == b"guest"


def test_permissions_let_another_domain_in(client: Client, neighbours: Client) -> None:
    neighbours.write("data/shared", b"x")
    path = b"/local/domain/2/data/shared\0"
    assert neighbours.ask(XsMsgType.SET_PERMS, b"data/shared\0n2\0r1\0")[1] == b"OK\0"
    assert client.ask(XsMsgType.READ, path) == (XsMsgType.READ, b"x")
    assert client.ask(XsMsgType.GET_PERMS, path) == (XsMsgType.GET_PERMS, b"n2\0r1\0")
    assert client.error(XsMsgType.WRITE, path + b"y") == "EACCES"
    neighbours.ask(XsMsgType.SET_PERMS, b"data/shared\0n2\0b1\0")
    assert client.ask(XsMsgType.WRITE, path + b"y") == OK
    assert neighbours.read("data/shared") == b"y"
    assert client.error(XsMsgType.SET_PERMS, path + b"b1\0") == "EACCES"
    assert neighbours.error(XsMsgType.SET_PERMS, b"data/shared\0b1\0") == "EPERM", "given away"


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (XsMsgType.READ, b"domid", "EINVAL"),
        (XsMsgType.READ, b"domid\0x\0", "EINVAL"),
        (XsMsgType.READ, b"", "EINVAL"),
        (XsMsgType.READ, b"data//x\0", "EINVAL"),
        (XsMsgType.READ, b"data/\0", "EINVAL"),
        (XsMsgType.READ, b"da ta\0", "EINVAL"),
        (XsMsgType.READ, b"@releaseDomain\0", "EINVAL"),
        (XsMsgType.READ, b"d\xe4ta\0", "EINVAL"),
        (XsMsgType.READ, b"x" * 2049 + b"\0", "EINVAL"),
        (XsMsgType.READ, b"/" + b"x" * 2048 + b"\0", "EINVAL"),
        (XsMsgType.READ, b"/" + b"x" * 2047 + b"\0", "EACCES"),
        (XsMsgType.READ, b"/local/domain/1/data/" + b"x" * 2043 + b"\0", "ENOENT"),
        (XsMsgType.READ, b"/local/domain/1/data/" + b"x" * 2044 + b"\0", "EINVAL"),
        (XsMsgType.READ, b"/local/domain/100000/" + b"x" * 2043 + b"\0", "EINVAL"),
        (XsMsgType.WRITE, b"data/x", "EINVAL"),
        (XsMsgType.WRITE, b"data/x\0" + b"v" * (2048 - 24 - 8), "ENOSPC"),
        (XsMsgType.WRITE, b"data/x\0" + b"v" * (2048 - 24 - 8 - 1), ""),
        (XsMsgType.SET_PERMS, b"data\0", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0x1\0", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0r\0", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0r1", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0r08\0", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0r1x\0", "EINVAL"),
        (XsMsgType.SET_PERMS, b"data\0n 0x1\0r-1\0", ""),
        (XsMsgType.SET_PERMS, b"data\0n7\0", "ENOENT"),
        (XsMsgType.SET_PERMS, b"nothing/at/all\0n7\0", "ENOENT"),
        (XsMsgType.SET_PERMS, b"data\0" + b"n1\0" * 6, "ENOSPC"),
        (XsMsgType.SET_PERMS, b"data\0" + b"n1\0" * 5, ""),
        (XsMsgType.SET_PERMS, b"@releaseDomain\0n1\0", "EACCES"),
        (XsMsgType.SET_PERMS, b"@elsewhere\0n1\0", "EINVAL"),
        (XsMsgType.WATCH, b"data\0token\0behind", ""),
        (XsMsgType.WATCH, b"@releaseDomain\0token\0", ""),
        (XsMsgType.WATCH, b"@" + b"x" * 2048 + b"\0token\0", "EINVAL"),
        (XsMsgType.WATCH, b"data\0", "EINVAL"),
        (XsMsgType.WATCH, b"da ta\0token\0", "EINVAL"),
        (XsMsgType.UNWATCH, b"data\0token\0", "ENOENT"),
        (XsMsgType.TRANSACTION_END, b"T\0", "ENOENT"),
        (XsMsgType.TRANSACTION_END, b"X\0", "EINVAL"),
        (XsMsgType.GET_DOMAIN_PATH, b"1", "EINVAL"),
        (XsMsgType.DIRECTORY_PART, b"data\0", "EINVAL"),
        (XsMsgType.IS_DOMAIN_INTRODUCED, b"1\0", "EACCES"),
        (XsMsgType.RELEASE, b"1\0", "EACCES"),
        (XsMsgType.RESUME, b"1\0", "EACCES"),
        (XsMsgType.SET_TARGET, b"1\x002\0", "EACCES"),
        (XsMsgType.INTRODUCE, b"1\0", "EACCES"),
        (XsMsgType.CONTROL, b"help\0", "EACCES"),
        (XsMsgType.WATCH_EVENT, b"", "ENOSYS"),
        (XsMsgType.ERROR, b"", "ENOSYS"),
        (99, b"", "ENOSYS"),
        (0xFFFF_FFFF, b"", "ENOSYS"),
    ],
)
def test_what_is_refused_and_how(client: Client, kind: int, payload: bytes, error: str) -> None:
    assert client.error(kind, payload) == error
    assert client.read("domid") == b"1"


@pytest.mark.parametrize(
    ("text", "path"),
    [(b"5", b"5"), (b"x", b"0"), (b" 12z", b"12"), (b"-1", b"4294967295"), (b"9" * 30, b"4294967295")],
)
def test_the_path_of_a_domain_is_made_of_whatever_number_there_is(client: Client, text: bytes, path: bytes) -> None:
    assert client.ask(XsMsgType.GET_DOMAIN_PATH, text + b"\0")[1] == b"/local/domain/" + path + b"\0"


def test_a_transaction_that_is_not_there_comes_before_what_else_is_wrong(client: Client) -> None:
    for kind, payload in (
        (XsMsgType.READ, b""),
        (XsMsgType.GET_DOMAIN_PATH, b"1\0"),
        (XsMsgType.TRANSACTION_START, b"\0"),
        (XsMsgType.TRANSACTION_END, b"X\0"),
        (XsMsgType.RESET_WATCHES, b"\0"),
    ):
        assert client.error(kind, payload, tx=9) == "ENOENT"
    assert client.error(XsMsgType.CONTROL, b"", tx=9) == "EACCES"
    assert client.error(20, b"", tx=9) == "ENOSYS"
    assert client.error(XsMsgType.WATCH, b"data\0t\0", tx=9) == ""
    assert client.error(XsMsgType.UNWATCH, b"data\0t\0", tx=9) == ""


def test_a_watch_fires_at_once_and_for_each_change_at_or_below_it(client: Client) -> None:
    assert client.ask(XsMsgType.WATCH, b"data\0t1\0") == (XsMsgType.WATCH, b"OK\0")
    assert client.ask(XsMsgType.WATCH, b"/local/domain/1/data/a\0t2\0") == (XsMsgType.WATCH, b"OK\0")
    assert client.events == [("data", "t1"), ("/local/domain/1/data/a", "t2")]
    client.events.clear()
    client.write("data/a/b", b"x")
    client.write("drivers/x", b"x")
    client.write("data", b"x")
    assert client.events == [
        ("data/a/b", "t1"),
        ("/local/domain/1/data/a/b", "t2"),
        ("data", "t1"),
    ]


def test_a_removal_tells_those_who_watch_what_was_below(client: Client) -> None:
    client.write("data/a/b", b"x")
    client.ask(XsMsgType.WATCH, b"data/a/b\0low\0")
    client.ask(XsMsgType.WATCH, b"data\0high\0")
    client.events.clear()
    client.ask(XsMsgType.RM, b"data/a\0")
    assert client.events == [("data/a/b", "low"), ("data/a", "high")]


def test_events_of_a_request_come_before_its_reply_and_a_watchs_first_after(client: Client) -> None:
    def kinds(kind: int, payload: bytes) -> list[int]:
        client.push(XsdSockmsg(type=kind, len=len(payload)).to_bytes() + payload)
        client.kick()
        return [header.type for header, _ in client.messages()]

    assert kinds(XsMsgType.WATCH, b"data\0t\0") == [XsMsgType.WATCH, XsMsgType.WATCH_EVENT]
    assert kinds(XsMsgType.WRITE, b"data/a\0x") == [XsMsgType.WATCH_EVENT, XsMsgType.WRITE]
    assert kinds(XsMsgType.RM, b"data/a\0") == [XsMsgType.WATCH_EVENT, XsMsgType.RM]


def test_an_event_that_waits_already_is_not_sent_again(client: Client) -> None:
    client.ask(XsMsgType.WATCH, b"data\0t\0")
    client.ask(XsMsgType.WATCH, b"data/a\0t\0")
    client.write("data/big", b"v" * 1500)
    client.events.clear()
    read = XsdSockmsg(type=XsMsgType.READ, len=9).to_bytes() + b"data/big\0"
    write = XsdSockmsg(type=XsMsgType.WRITE, len=8).to_bytes() + b"data/a\0x"
    client.push(read + write * 5 + read)
    client.kick()
    assert len(client.collect()) == 7
    assert client.events == [("data/a", "t")]
    client.write("data/a", b"")
    assert client.events == [("data/a", "t")] * 2


def test_a_watch_is_there_once_until_it_is_taken_back(client: Client) -> None:
    client.ask(XsMsgType.WATCH, b"data\0t\0")
    assert client.error(XsMsgType.WATCH, b"/local/domain/1/data\0t\0") == "EEXIST"
    assert client.ask(XsMsgType.UNWATCH, b"data\0t\0") == (XsMsgType.UNWATCH, b"OK\0")
    client.events.clear()
    client.write("data/x", b"")
    assert client.events == []


def test_watches_and_transactions_have_limits_and_are_dropped_together(client: Client) -> None:
    for number in range(MAX_WATCHES + 1):
        assert client.error(XsMsgType.WATCH, b"data\0%d\0" % number) == ""
    assert client.error(XsMsgType.WATCH, b"data\0more\0") == "E2BIG"
    for _ in range(MAX_TRANSACTIONS + 1):
        client.start()
    assert client.error(XsMsgType.TRANSACTION_START, b"\0") == "ENOSPC"
    assert client.ask(XsMsgType.RESET_WATCHES, b"\0") == (XsMsgType.RESET_WATCHES, b"OK\0")
    assert client.error(XsMsgType.WATCH, b"data\0more\0") == ""
    client.start()


def test_another_domain_hears_of_what_it_may_read(guest: Any, client: Client, neighbours: Client) -> None:
    client.write("data/open", b"")
    neighbours.ask(XsMsgType.WATCH, b"/local/domain/1/data\0t\0")
    neighbours.collect()
    neighbours.events.clear()

    def heard() -> list[str]:
        neighbours.collect()
        paths = [path.removeprefix("/local/domain/1/") for path, _ in neighbours.events]
        neighbours.events.clear()
        return paths

    client.ask(XsMsgType.SET_PERMS, b"data/open\0n1\0r2\0")
    assert is_pending(neighbours.domain, neighbours.domain.xenstore.port)
    assert heard() == ["data/open"]
    client.write("data/open", b"x")
    client.write("data/closed", b"x")
    client.write("data/open/below", b"x")
    assert heard() == ["data/open", "data/open/below"]
    client.ask(XsMsgType.SET_PERMS, b"data/open/below\0n1\0")
    assert heard() == ["data/open/below"]
    client.write("data/open/below", b"y")
    assert heard() == ["data/open/below"], "its parent may be read"
    client.ask(XsMsgType.SET_PERMS, b"data/open\0n1\0")
    assert heard() == ["data/open"], "it could read it until now"
    client.write("data/open/below", b"z")
    client.ask(XsMsgType.RM, b"data/open\0")
    assert heard() == []


def test_the_events_of_a_transaction_are_for_who_could_read_before_or_can_now(
    client: Client, neighbours: Client
) -> None:
    client.write("data/going", b"")
    client.ask(XsMsgType.SET_PERMS, b"data/going\0r1\0")
    neighbours.ask(XsMsgType.WATCH, b"/local/domain/1\0t\0")
    neighbours.collect()
    neighbours.events.clear()
    tx = client.start()
    client.write("data/new", b"", tx)
    client.ask(XsMsgType.SET_PERMS, b"data/new\0r1\0", tx)
    client.write("data/closed", b"", tx)
    client.ask(XsMsgType.RM, b"data/going\0", tx)
    client.ask(XsMsgType.TRANSACTION_END, b"T\0", tx)
    neighbours.collect()
    assert neighbours.events == [("/local/domain/1/data/new", "t"), ("/local/domain/1/data/going", "t")]


def test_a_permission_for_a_domain_that_is_not_there_is_worth_nothing_to_one_that_comes_later(
    client: Client, another: Callable[[], Any]
) -> None:
    client.write("data/a", b"x")
    client.ask(XsMsgType.SET_PERMS, b"data/a\0n1\0r2\0")
    assert client.ask(XsMsgType.GET_PERMS, b"data/a\0")[1] == b"n1\0r2\0"
    later = Client(another())
    assert later.error(XsMsgType.READ, b"/local/domain/1/data/a\0") == "EACCES"
    client.ask(XsMsgType.SET_PERMS, b"data/a\0n1\0r2\0")
    assert later.read("/local/domain/1/data/a") == b"x"


def test_the_tool_stack_writes_and_the_guest_hears_of_it(client: Client) -> None:
    client.ask(XsMsgType.WATCH, b"control/shutdown\0t\0")
    client.events.clear()
    xenstore.write(client.domain, "control/shutdown", "poweroff")
    client.collect()
    assert client.events == [("control/shutdown", "t")]
    assert client.read("control/shutdown") == b"poweroff"
    assert xenstore.read(client.domain, "control/shutdown") == b"poweroff"
    assert xenstore.read(client.domain, "control/nothing") is None


def test_a_transaction_is_seen_by_others_when_it_is_committed(client: Client) -> None:
    client.ask(XsMsgType.WATCH, b"data\0t\0")
    client.events.clear()
    tx = client.start()
    client.write("data/a", b"1", tx)
    client.write("data/b/c", b"2", tx)
    client.write("data/a", b"3", tx)
    assert client.read("data/a", tx) == b"3"
    assert client.directory("data", tx) == [b"a", b"b"]
    assert client.error(XsMsgType.READ, b"data/a\0") == "ENOENT"
    assert client.events == []
    assert client.ask(XsMsgType.TRANSACTION_END, b"T\0", tx) == (XsMsgType.TRANSACTION_END, b"OK\0")
    assert client.read("data/a") == b"3"
    assert client.events == [("data/a", "t"), ("data/b/c", "t")]
    assert client.error(XsMsgType.READ, b"data/a\0", tx) == "ENOENT", "it is over"


def test_a_transaction_can_be_given_up(client: Client) -> None:
    tx = client.start()
    client.write("data/a", b"1", tx)
    assert client.error(XsMsgType.TRANSACTION_START, b"\0", tx) == "EBUSY"
    assert client.ask(XsMsgType.TRANSACTION_END, b"F\0", tx) == (XsMsgType.TRANSACTION_END, b"OK\0")
    assert client.error(XsMsgType.READ, b"data/a\0") == "ENOENT"


def test_a_transaction_fails_if_what_it_saw_has_changed(client: Client) -> None:
    client.write("data/a", b"1")
    tx = client.start()
    assert client.read("data/a", tx) == b"1"
    client.write("data/a", b"2")
    assert client.read("data/a", tx) == b"1", "it sees what it saw"
    client.write("data/b", b"1", tx)
    assert client.error(XsMsgType.TRANSACTION_END, b"T\0", tx) == "EAGAIN"
    assert client.error(XsMsgType.READ, b"data/b\0") == "ENOENT"
    other = client.start()
    client.read("data/a", other)
    client.write("drivers/x", b"")
    client.write("data/b", b"1", other)
    assert client.error(XsMsgType.TRANSACTION_END, b"T\0", other) == ""


def test_a_transaction_whose_tree_was_removed_does_no_harm(client: Client) -> None:
    client.write("data/a/b", b"1")
    tx = client.start()
    client.read("data/a/b", tx)
    client.read("data/a", tx)
    client.ask(XsMsgType.RM, b"data\0")
    assert client.error(XsMsgType.RM, b"data/a\0", tx) == "EINVAL"
    assert client.error(XsMsgType.TRANSACTION_END, b"T\0", tx) == "EAGAIN"


def test_the_number_of_keys_is_limited_and_counted_right(client: Client) -> None:
    tree = client.domain.hv.xenstore_tree
    before = tree.owned[1]
    number = 0
    while tree.owned[1] + 2 <= MAX_NODES:
        View(tree, 1).write(f"/local/domain/1/data/{number % 60}/{number}", b"")
        number += 1
    while tree.owned[1] < MAX_NODES:
        client.write("drivers/last", b"")
    assert client.error(XsMsgType.WRITE, b"drivers/more\0x") == "ENOSPC"
    tx = client.start()
    assert client.error(XsMsgType.WRITE, b"drivers/more\0x", tx) == "ENOSPC"
    client.ask(XsMsgType.RM, b"data/0/0\0")
    tx = client.start()
    assert client.error(XsMsgType.WRITE, b"drivers/more\0x", tx) == ""
    assert client.error(XsMsgType.TRANSACTION_END, b"T\0", tx) == "ENOSPC", "one fewer than without a transaction"
    client.ask(XsMsgType.RM, b"data\0")
    assert tree.owned[1] == before - 1 + ("/local/domain/1/drivers/last" in tree.nodes)
    assert client.error(XsMsgType.WRITE, b"drivers/more\0x") == ""


def test_a_transaction_looks_at_a_limited_number_of_keys(client: Client) -> None:
    tx = client.start()
    results = {client.error(XsMsgType.READ, b"data/%d\0" % number, tx) for number in range(MAX_NODES_IN_TRANSACTION)}
    assert results == {"ENOENT", "ENOSPC"}


def test_a_long_directory_comes_in_parts(client: Client) -> None:
    tree = client.domain.hv.xenstore_tree
    names = [f"{number:03}" + "x" * 60 for number in range(100)]
    for name in names:
        View(tree, DOMID_PRIVILEGED).write(f"/local/domain/1/data/{name}", b"")
    assert client.error(XsMsgType.DIRECTORY, b"data\0") == "E2BIG"
    got = ""
    while True:
        kind, payload = client.ask(XsMsgType.DIRECTORY_PART, b"data\0%d\0" % len(got))
        assert kind == XsMsgType.DIRECTORY_PART
        generation, _, part = payload.decode().partition("\0")
        assert generation == str(tree.nodes["/local/domain/1/data"].generation)
        got += part
        if part.endswith("\0\0") or part == "\0":
            break
    assert got.split("\0")[:-2] == names


def test_a_request_may_come_byte_by_byte_round_the_end_of_the_ring(client: Client) -> None:
    for offset in (0, 1000, 1015, 1023):
        client.ring.req_cons = client.ring.req_prod = 0xFFFF_FC00 + offset
        client.ring.rsp_cons = client.ring.rsp_prod = 0xFFFF_FC00 + offset
        payload = b"data/x\0" + b"v" * 30
        message = XsdSockmsg(type=XsMsgType.WRITE, req_id=5, len=len(payload)).to_bytes() + payload
        for byte in message:
            client.ring.req[client.ring.req_prod % 1024] = byte
            client.ring.req_prod = client.ring.req_prod + 1 & 0xFFFF_FFFF
            client.kick()
        assert client.collect() == [OK]


def test_several_requests_at_once_are_answered_in_order_though_the_replies_do_not_fit(client: Client) -> None:
    client.write("data/big", b"v" * 1500)
    message = XsdSockmsg(type=XsMsgType.READ, len=9).to_bytes() + b"data/big\0"
    client.push(message * 40)
    client.kick()
    assert client.collect() == [(XsMsgType.READ, b"v" * 1500)] * 40


def test_requests_stay_in_the_ring_while_replies_pile_up(client: Client) -> None:
    client.write("data/big", b"v" * 2000)
    message = XsdSockmsg(type=XsMsgType.READ, len=9).to_bytes() + b"data/big\0"
    pushed = 0
    while client.ring.req_prod - client.ring.req_cons + len(message) <= 1024:
        client.push(message)
        client.kick()
        pushed += 1
        assert pushed < 1000
    assert client.domain.xenstore.outbox.nr_replies == MAX_OUTSTANDING
    assert pushed > MAX_OUTSTANDING
    assert client.collect() == [(XsMsgType.READ, b"v" * 2000)] * pushed


@pytest.mark.parametrize(
    ("field", "error"),
    [("req_prod", XENSTORE_ERROR_RINGIDX), ("rsp_cons", XENSTORE_ERROR_RINGIDX)],
)
def test_indices_more_than_a_ring_apart_end_the_connection(client: Client, field: str, error: int) -> None:
    client.read("domid")
    client.push(XsdSockmsg(type=XsMsgType.READ, len=6).to_bytes() + b"domid\0")
    setattr(client.ring, field, getattr(client.ring, field) + (1025 if field == "req_prod" else 1))
    client.kick()
    assert client.domain.xenstore.broken
    assert client.ring.error == error
    client.ring.req_prod = client.ring.req_cons
    client.push(XsdSockmsg(type=XsMsgType.READ, len=6).to_bytes() + b"domid\0")
    client.kick()
    assert client.ring.rsp_prod != 0
    assert not client.domain.xenstore.outbox.messages


def test_a_payload_over_the_limit_ends_the_connection(client: Client) -> None:
    client.push(XsdSockmsg(type=XsMsgType.WRITE, len=4097).to_bytes())
    client.kick()
    assert client.domain.xenstore.broken
    assert client.ring.error == XENSTORE_ERROR_PROTO


def test_a_domain_that_never_reads_its_events_loses_some(client: Client, neighbours: Client) -> None:
    client.write("data/x", b"")
    client.ask(XsMsgType.SET_PERMS, b"data/x\0r1\0")
    for number in range(MAX_WATCHES):
        neighbours.ask(XsMsgType.WATCH, b"/local/domain/1/data/x\0" + b"%04d" % number * 500 + b"\0")
    outbox = neighbours.domain.xenstore.outbox
    for number in range(100):
        client.write(f"data/x/{number}", b"")
    assert MAX_WAITING <= outbox.size < MAX_WAITING + 4096
    neighbours.collect()
    assert len(neighbours.events) > 1000
    assert (outbox.size, outbox.nr_replies, outbox.events) == (0, 0, {})
    assert neighbours.read("domid") == b"2"


def test_nothing_is_left_of_a_domain_that_is_destroyed(guest: Any, client: Client, neighbours: Client) -> None:
    neighbours.write("data/open", b"")
    neighbours.ask(XsMsgType.SET_PERMS, b"data/open\0n2\0b1\0")
    client.write("/local/domain/2/data/open/mine", b"")
    neighbours.ask(XsMsgType.WATCH, b"data\0t\0")
    neighbours.collect()
    neighbours.events.clear()
    make_console_keys(client.domain, Mfn(5), 2)
    del guest.hv.domains[1]
    xenstore.release(client.domain)
    tree = guest.hv.xenstore_tree
    assert [path for path in tree.nodes if "/1/" in path or path.endswith("/1")] == []
    assert tree.owned[1] == 0
    neighbours.collect()
    assert neighbours.events == [("data/open/mine", "t")]


_PATHS = st.sampled_from(["data", "data/a", "data/a/b", "data/b", "/", "/local/domain/1/data/a", "@x", "a//b"])
_REQUESTS = st.tuples(
    st.integers(0, 23),
    st.lists(st.one_of(_PATHS, st.sampled_from(["", "T", "F", "1", "n1", "r2", "0"])), max_size=3),
    st.booleans(),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_REQUESTS, max_size=20))
def test_no_requests_break_the_tree(client: Client, requests: list[tuple[int, list[str], bool, int]]) -> None:
    tree = client.domain.hv.xenstore_tree
    for kind, strings, terminated, tx in requests:
        payload = b"\0".join(text.encode() for text in strings) + (b"\0" if terminated else b"")
        client.ask(kind, payload, tx)
    for path, node in tree.nodes.items():
        for child in node.children:
            assert f"{path}/{child}".replace("//", "/") in tree.nodes
        if path != "/":
            parent, _, name = path.rpartition("/")
            assert name in tree.nodes[parent or "/"].children
    owners = [node.owner for node in tree.nodes.values()]
    assert {owner: count for owner, count in tree.owned.items() if count} == {o: owners.count(o) for o in set(owners)}


_ELSEWHERE = st.sampled_from(
    ["/", "/local", "/local/domain/2", "/local/domain/2/data", "/local/domain/2/data/a", "/local/domain/0", "/vm", "@x"]
)


def _of_others(tree: XenstoreTree, domid: int) -> dict[str, tuple[object, ...]]:
    """The nodes that are not the domain's own. That it may remove its own from their lists is its right."""
    return {
        path: (
            node.value,
            node.permissions,
            [name for name in node.children if tree.nodes[f"{path.rstrip('/')}/{name}"].owner != domid],
        )
        for path, node in tree.nodes.items()
        if node.owner != domid
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 23), st.one_of(_ELSEWHERE, _PATHS), st.sampled_from(["", "x\0", "n1\0", "b1\0r2\0"])),
        max_size=20,
    )
)
def test_no_requests_change_what_is_not_the_domains(
    client: Client, neighbours: Client, requests: list[tuple[int, str, str]]
) -> None:
    neighbours.write("data/a", b"secret")
    tree = client.domain.hv.xenstore_tree
    before = _of_others(tree, 1)
    for kind, path, rest in requests:
        _, answer = client.ask(kind, path.encode() + b"\0" + rest.encode())
        assert b"secret" not in answer
    assert _of_others(tree, 1) == before
    assert neighbours.read("data/a") == b"secret"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.binary(max_size=1024), st.tuples(*[st.integers(0, 0xFFFF_FFFF)] * 4)), max_size=4))
def test_no_bytes_or_indices_break_the_store(guest: Any, writes: list[tuple[bytes, tuple[int, ...]]]) -> None:
    state = guest.domain.xenstore
    if state.port == 0:
        Client(guest)
    state.broken = False
    ring = XenstoreDomainInterface.at(guest.hv.ram, guest.frames[3] * 4096)
    for data, indices in writes:
        ring.req[: len(data)] = data
        ring.req_cons, ring.req_prod, ring.rsp_cons, ring.rsp_prod = indices
        if len(data) % 2:
            ring.req_prod = ring.req_cons + len(data) & 0xFFFF_FFFF
            ring.rsp_cons = ring.rsp_prod
        send(guest.domain, state.port)
    assert state.outbox.size < MAX_WAITING
