"""What no debugger sends: a running server refuses it, loses nothing, and goes on."""

import random
import socket
from contextlib import suppress

import pytest

from xdbg.testing import GdbSession

LIMIT_S = 60


class RawClient:
    """A client that sends any bytes, and reads packets."""

    def __init__(self, guest):
        host, _, port = guest.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=LIMIT_S)
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_until_full(self, data):
        """Sends it again and again, until the other side has not taken anything for a moment."""
        self.socket.settimeout(0.2)
        with suppress(TimeoutError):
            while True:
                self.send(data)

    def receive(self):
        """The payload of the next packet; b"" is an empty one. ConnectionError: the server has closed."""
        while True:
            start = self.data.find(b"$")
            end = self.data.find(b"#", start)
            if 0 <= start < end and len(self.data) >= end + 3:
                payload = self.data[start + 1 : end]
                self.data = self.data[end + 3 :]
                return payload
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                raise ConnectionError(self.data)
            self.data += more

    def ask(self, payload):
        self.send(frame(payload))
        return self.receive()


def frame(payload):
    return b"$%s#%02x" % (payload, sum(payload) & 0xFF)


@pytest.fixture(scope="module")
def guest():
    from xdbg.testing import serve

    with serve("hello") as served:
        yield served


@pytest.fixture
def client(guest):
    with RawClient(guest) as raw:
        assert raw.ask(b"QStartNoAckMode") == b"OK"
        raw.send(b"+")
        yield raw


def still_serves(client):
    assert client.ask(b"qC").startswith(b"QC")
    assert len(client.ask(b"g")) == 2 * 560


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"#00#ff###",
        b"$$$$$#00",
        b"}}}}",
        b"\x03\x03\x03",
        b"$\xff\xfe}#zz",
        b"+-+-+-",
        b"$#00$#00"[:4],
    ],
)
def test_garbage_between_packets_is_skipped(client, garbage):
    client.send(garbage)
    client.send(frame(b"qC"))
    while not client.receive().startswith(b"QC"):
        pass
    still_serves(client)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(guest, seed):
    noise = random.Random(seed)
    with RawClient(guest) as raw:
        # No packet that would resume or kill the guest: chance would have to find its checksum, too.
        raw.send(noise.randbytes(200_000))
        raw.socket.shutdown(socket.SHUT_WR)
        while raw.socket.recv(1 << 16):
            pass
    with RawClient(guest) as raw:
        assert raw.ask(b"qC").startswith(b"QC")


@pytest.mark.parametrize(
    "payload",
    [
        b"m",
        b"m,",
        b"m0",
        b"m0,",
        b"m,4",
        b"mzz,4",
        b"m0,fffffffffffffffff",
        b"m-1,4",
        b"M0,4:00",
        b"M0,1:zz",
        b"X0,4:\x01",
        b"Z0",
        b"Z0,",
        b"Z9,0,1",
        b"Z2,0,ffffffffffffffff",
        b"z0,0",
        b"P",
        b"P10",
        b"P10=",
        b"P10=00",
        b"Pfff=00",
        b"p",
        b"pzz",
        b"pffffffff",
        b"G00",
        b"H",
        b"Hgzz",
        b"Hgp99999.1",
        b"T",
        b"Tp1.99",
        b"vCont;",
        b"vCont;q",
        b"vCont;c:zz",
        b"vCont;r",
        b"vCont;r0",
        b"vAttach;",
        b"vAttach;ffffffffff",
        b"vKill;zz",
        b"vFile:",
        b"vFile:open",
        b"vFile:open:zz,0,0",
        b"vFile:pread:0,ffffffff,ffffffffffffffff",
        b"vFile:pread:-1,1,0",
        b"vFile:close:99",
        b"qXfer:features:read",
        b"qXfer:features:read:target.xml",
        b"qXfer:features:read:../../etc/passwd:0,100",
        b"qXfer:features:read:target.xml:zz,1",
        b"qXfer:exec-file:read:zz:0,1",
        b"qXfer:auxv:read::0,100",
        b"qXfer:nothing:read::0,100",
        b"qRcmd,",
        b"qRcmd,z",
        b"qRcmd,666",
        b"qCRC:",
        b"qCRC:0,ffffffffffffffff",
        b"qSearch:memory:",
        b"qSearch:memory:0;10",
        b"qSearch:memory:0;ffffffffffffffff;x",
        b"D;zz",
        b"D;99999",
        b"QPassSignals",
    ],
)
def test_a_malformed_packet_gets_one_answer_and_no_more(client, payload):
    registers = client.ask(b"g")
    reply = client.ask(payload)
    assert reply[:1] in {b"", b"E", b"F", b"O", b"l"}, reply
    if payload.startswith(b"qRcmd") and reply.startswith(b"O") and reply != b"OK":
        while (reply := client.receive()) != b"OK":
            assert reply[:1] in {b"O", b"E"}
            if reply[:1] == b"E":
                break
    assert client.ask(b"qC").startswith(b"QC")
    assert client.ask(b"g") == registers


def test_a_packet_without_an_end_is_not_kept_for_ever(guest):
    with RawClient(guest) as raw:
        raw.send(b"$" + b"a" * (4 << 20))
        raw.send(b"#00" + frame(b"qC"))
        replies = [raw.receive(), raw.receive()]
    assert replies[0].startswith(b"E")
    assert replies[1].startswith(b"QC")


@pytest.mark.parametrize("payload", [b"m0," + b"0" * 300_000 + b"4", b"qSupported:" + b"x;" * 150_000])
def test_an_oversized_packet_is_refused_in_its_turn(client, payload):
    client.send(frame(b"qC") + frame(payload) + frame(b"qC"))
    assert client.receive().startswith(b"QC")
    assert client.receive().startswith(b"E")
    assert client.receive().startswith(b"QC")


def test_the_longest_read_is_answered_short_or_refused(client):
    assert client.ask(b"mffffffff80100000,7fffffff")[:1] != b""
    still_serves(client)


def test_a_thousand_pipelined_packets_are_answered_in_order(client):
    places = [0xFFFFFFFF80100000 + 16 * i for i in range(1000)]
    whole = bytes.fromhex(client.ask(b"m%x,4000" % places[0]).decode())
    client.send(b"".join(frame(b"m%x,10" % place) for place in places))
    for place in places:
        offset = place - places[0]
        assert bytes.fromhex(client.receive().decode()) == whole[offset : offset + 16]


def test_packets_in_single_bytes(client):
    for byte in frame(b"qC"):
        client.send(bytes([byte]))
    assert client.receive().startswith(b"QC")


def test_a_wrong_checksum_is_not_answered_but_refused(guest):
    with RawClient(guest) as raw:
        raw.send(b"$qC#00")
        assert raw.socket.recv(1) == b"-"
        raw.send(frame(b"qC"))
        assert raw.receive().startswith(b"QC")


@pytest.mark.parametrize("vaddr", ["0", "1000", "7fffffffffff", "800000000000", "ffff880000000000", "ffffffffffffffff"])
def test_unmapped_memory_is_an_error_and_no_fault_of_the_guest(client, vaddr):
    registers = client.ask(b"g")
    assert client.ask(f"m{vaddr},8".encode()).startswith(b"E")
    assert client.ask(f"M{vaddr},1:00".encode()).startswith(b"E")
    assert client.ask(f"X{vaddr},1:a".encode()).startswith(b"E")
    assert client.ask(b"g") == registers


def test_a_client_that_does_not_read_holds_up_nobody(xdbg_serve):
    guest = xdbg_serve("hello")
    with RawClient(guest) as raw:
        raw.send_until_full(frame(b"mffffffff80100000,4000") * 20)
        with RawClient(guest) as second:
            assert second.ask(b"qC").startswith(b"QC"), "it observes"
    with GdbSession(guest.address) as gdb:
        assert gdb.run("info symbol $pc").startswith("_start")


def test_the_server_can_be_ended_while_a_client_does_not_read(xdbg_serve):
    guest = xdbg_serve("hello")
    with RawClient(guest) as raw:
        raw.send_until_full(frame(b"mffffffff80100000,4000") * 20)
        guest.stop()
    assert not guest.alive


def test_answers_that_a_client_reads_late_are_all_there(guest):
    with RawClient(guest) as raw:
        raw.send(frame(b"QStartNoAckMode"))
        raw.send(frame(b"mffffffff80100000,4000") * 400)
        answers = [raw.receive() for _ in range(401)]
    assert len(set(answers[1:])) == 1
    assert len(answers[1]) == 0x8000


@pytest.mark.parametrize("end", [b"", b"$", b"$g", b"$g#", b"$g#6", b"$vCont;c#", b"\x03", b"$X0,4:}"])
def test_a_client_that_vanishes_in_mid_packet_leaves_the_next_unharmed(guest, end):
    with RawClient(guest) as raw:
        raw.ask(b"qC")
        raw.send(end)
    with RawClient(guest) as raw:
        assert raw.ask(b"?").startswith(b"T05")


def test_a_client_that_vanishes_while_the_guest_runs(xdbg_serve):
    guest = xdbg_serve("crash", "--append", "loop")
    with RawClient(guest) as raw:
        raw.send(frame(b"vCont;c"))
    with RawClient(guest) as raw:
        assert raw.ask(b"?").startswith(b"T05")
        raw.send(frame(b"vCont;c") + b"\x03")
        assert raw.receive().startswith(b"T02")


def test_requests_while_the_guest_runs_wait_for_the_stop(xdbg_serve):
    guest = xdbg_serve("crash", "--append", "loop")
    with RawClient(guest) as raw:
        raw.send(frame(b"vCont;c") + frame(b"qC") + frame(b"g"))
        raw.send(b"\x03")
        assert raw.receive().startswith(b"T02")
        assert raw.receive().startswith(b"QC")
        assert len(raw.receive()) == 2 * 560


def test_a_flood_while_the_guest_runs_ends_the_connection_and_not_the_server(xdbg_serve):
    guest = xdbg_serve("crash", "--append", "loop")
    with RawClient(guest) as raw:
        raw.send(frame(b"vCont;c"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            raw.send_until_full(frame(b"g") * 10_000)
    with RawClient(guest) as raw:
        assert raw.ask(b"qC").startswith(b"QC")
