"""Tracepoint packets, bytes in and bytes out, as gdb 13.1 sends them; and a target seen through a trace frame."""

import pytest
from rsp_client import Client, payloads
from rsp_fake import DATA, KERNEL, STACK, TEXT, FakeTracepoints, TracingTarget

from xdbg.rsp import registers
from xdbg.rsp.connection import Connection
from xdbg.rsp.framing import frame
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.rsp.tracepoints import (
    CollectMemory,
    CollectRegisters,
    Evaluate,
    FrameAt,
    FrameByNumber,
    FrameInRange,
    FrameOfTracepoint,
    TraceEnd,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)

HERE = TracepointId(7, TEXT)
THREAD = Thread(KERNEL, 1)
G_SIZE = registers.G_SIZE
RIP = TEXT.to_bytes(8, "little").hex().encode()


@pytest.fixture
def target() -> TracingTarget:
    return TracingTarget()


@pytest.fixture
def tracepoints(target: TracingTarget) -> FakeTracepoints:
    return target.tracepoints


REQUESTS = [
    (b"QTinit", "init"),
    (b"QTDP:7:%x:E:0:0" % TEXT, (THREAD, TracepointDefinition(HERE, True, 0, 0), False)),
    (b"QTDP:7:%x:D:1f:2-" % TEXT, (THREAD, TracepointDefinition(HERE, False, 0x1F, 2), True)),
    (
        b"QTDP:7:%x:E:0:0:X3,220127-" % TEXT,
        (THREAD, TracepointDefinition(HERE, True, 0, 0, b"\x22\x01\x27"), True),
    ),
    (b"QTDP:-7:%x:Rffffffffffffffffff" % TEXT, (HERE, (CollectRegisters((1 << 72) - 1),), (), False)),
    (
        b"QTDP:-7:%x:MFFFFFFFF,ffffffff80105db7,10X00000001,27M7,fffffffffffffff0,8-" % TEXT,
        (
            HERE,
            (CollectMemory(None, 0xFFFF_FFFF_8010_5DB7, 16), Evaluate(b"\x27"), CollectMemory(7, -16, 8)),
            (),
            True,
        ),
    ),
    (b"QTDP:-7:%x:SR1X1,27" % TEXT, (HERE, (), (CollectRegisters(1), Evaluate(b"\x27")), False)),
    (b"QTDP:-7:%x:M-1,10,4" % TEXT, (HERE, (CollectMemory(None, 16, 4),), (), False)),
    (b"QTDPsrc:7:%x:cond:0:3:783e33" % TEXT, (HERE, TracepointSource("cond", 0, 3, b"x>3"))),
    (b"QTEnable:7:%x" % TEXT, (HERE, True)),
    (b"QTDisable:7:%x" % TEXT, (HERE, False)),
    (b"QTDV:2:ffffffffffffffff:0:6e", TraceVariable(2, -1, "n")),
    (b"QTro:400000,401000:402000,403000", ((0x400000, 0x401000), (0x402000, 0x403000))),
    (b"QTro", ()),
    (b"QTStart", "start"),
    (b"QTStop", "stop"),
    (b"QTDisconnected:1", ("keeps", True)),
    (b"QTBuffer:circular:0", ("circular", False)),
    (b"QTBuffer:size:1000", ("size", 0x1000)),
    (b"QTBuffer:size:-1", ("size", None)),
    (b"QTNotes:user:6d65;notes:;", ("me", "", None)),
    (b"QTNotes:tstop:656e6f756768;", (None, None, "enough")),
]


@pytest.mark.parametrize(("request_", "told"), REQUESTS)
def test_a_request_reaches_the_target_as_this(
    client: Client, tracepoints: FakeTracepoints, request_: bytes, told: object
) -> None:
    assert client.ask(request_) == b"OK"
    assert tracepoints.told == [told]


@pytest.mark.parametrize(
    "request_",
    [
        b"QTinit:",
        b"QTDP:",
        b"QTDP:7:1000:E:0",
        b"QTDP:7:1000:Q:0:0",
        b"QTDP:7:1000:E:0:0:X3,2201",
        b"QTDP:7:1000:E:0:0:X1,27X1,27",
        b"QTDP:7:1000:E:0:0:Z",
        b"QTDP:7:1000:E:80000001:0",
        b"QTDP:-7:1000",
        b"QTDP:-7:1000:Q",
        b"QTDP:-7:1000:X2,27",
        b"QTDP:-7:1000:M1,2",
        b"QTDP:-7:1000:R" + b"f" * 65,
        b"QTDPsrc:7:1000:what:0:0:",
        b"QTDPsrc:7:1000:at:0:1:6",
        b"QTEnable:7",
        b"QTDV:0:0:0:6e",
        b"QTDV:2:0:0",
        b"QTro:1,2,3",
        b"QTDisconnected:2",
        b"QTBuffer:size:",
        b"QTNotes:what:00;",
        b"QTFrame:what:1",
        b"QTFrame:range:1",
        b"qTBuffer:1",
        b"qTP:7",
        b"qTV:",
    ],
)
def test_what_makes_no_sense_is_refused_and_does_not_reach_the_target(
    client: Client, tracepoints: FakeTracepoints, request_: bytes
) -> None:
    assert client.ask(request_) == b"E22"
    assert tracepoints.told == []


def test_fast_and_static_tracepoints_are_refused(client: Client, tracepoints: FakeTracepoints) -> None:
    assert client.ask(b"QTDP:7:1000:E:0:0:F5") == b"E95"
    assert client.ask(b"QTDP:7:1000:E:0:0:S") == b"E95"
    assert tracepoints.told == []
    for unknown in (b"qTMinFTPILen", b"qTfSTM", b"qTSTMat:1000", b"QTSave:2f", b"qTfPx"):
        assert client.ask(unknown) == b""


def test_the_status_is_told_in_words_that_gdb_knows(client: Client, tracepoints: FakeTracepoints) -> None:
    rest = b"tframes:2;tcreated:3;tfree:64;tsize:1000;circular:0;disconn:0;starttime:0;stoptime:0;username:;notes:"
    assert client.ask(b"qTStatus") == b"T0;tnotrun:0;" + rest
    tracepoints.state = TraceStatus(None, 0, "", 1, 1, 16, 32, True, True, 255, 0, "me", "why")
    assert client.ask(b"qTStatus") == (
        b"T1;tframes:1;tcreated:1;tfree:10;tsize:20;circular:1;disconn:1;starttime:ff;stoptime:0;"
        b"username:6d65;notes:776879"
    )
    for end, text, word in (
        (TraceEnd.COMMAND, "so", b"tstop:736f:0"),
        (TraceEnd.COMMAND, "", b"tstop::0"),
        (TraceEnd.FULL, "", b"tfull:0"),
        (TraceEnd.DISCONNECTED, "", b"tdisconnected:0"),
        (TraceEnd.PASSED, "", b"tpasscount:7"),
        (TraceEnd.ERROR, "bad", b"terror:626164:7"),
    ):
        by = 7 if end in (TraceEnd.PASSED, TraceEnd.ERROR) else 0
        tracepoints.state = TraceStatus(end, by, text, 2, 3, 100, 4096, False, False, 0, 0, "", "")
        assert client.ask(b"qTStatus") == b"T0;" + word + b";" + rest


def test_definitions_and_variables_are_listed_piece_by_piece(client: Client, tracepoints: FakeTracepoints) -> None:
    assert client.ask(b"qTfP") == b"l"
    assert client.ask(b"qTsP") == b"l"
    tracepoints.whole = [
        WholeTracepoint(
            TracepointDefinition(HERE, True, 2, 5, b"\x22\x01\x27"),
            (CollectRegisters(0x3FF), CollectMemory(None, 0x1000, 4)),
            (CollectMemory(6, -16, 8), Evaluate(b"\x27")),
            (TracepointSource("at", 0, 4, b"main"),),
        ),
        WholeTracepoint(TracepointDefinition(TracepointId(8, 1), False, 0, 0), (), (), ()),
    ]
    pieces = [client.ask(b"qTfP")]
    while pieces[-1] != b"l":
        pieces.append(client.ask(b"qTsP"))
    assert pieces == [
        b"T7:401000:E:2:5:X3,220127",
        b"A7:401000:R3ff",
        b"A7:401000:Mffffffff,1000,4",
        b"S7:401000:M6,fffffffffffffff0,8",
        b"S7:401000:X1,27",
        b"Z7:401000:at:0:4:6d61696e",
        b"T8:1:D:0:0",
        b"l",
    ]
    assert [client.ask(ask) for ask in (b"qTfV", b"qTsV", b"qTsV")] == [
        b"1:0:1:636c6f636b",
        b"2:ffffffffffffffff:0:6e",
        b"l",
    ]
    assert client.ask(b"qTP:7:%x" % TEXT) == b"V3:240"
    assert client.ask(b"qTP:8:1") == b"E02"
    assert [client.ask(b"qTV:%x" % number) for number in (1, 2, 3)] == [b"V5", b"Vffffffffffffffff", b"U"]


@pytest.mark.parametrize(
    ("request_", "search"),
    [
        (b"QTFrame:1", FrameByNumber(1)),
        (b"QTFrame:pc:401000", FrameAt(0x401000)),
        (b"QTFrame:tdp:7", FrameOfTracepoint(7)),
        (b"QTFrame:range:1:2", FrameInRange(1, 2)),
        (b"QTFrame:outside:1:2", FrameInRange(1, 2, outside=True)),
    ],
)
def test_a_search_goes_on_behind_the_selected_frame(
    client: Client, tracepoints: FakeTracepoints, request_: bytes, search: object
) -> None:
    assert client.ask(b"QTFrame:0") == b"F0T7"
    assert client.ask(request_) == b"F1T7"
    assert tracepoints.told[-1] == (search, 0)
    assert client.ask(b"QTFrame:ffffffff") == b"OK"
    client.ask(request_)
    assert tracepoints.told[-1] == (search, None)


def test_registers_and_memory_are_those_of_the_selected_frame(client: Client, target: TracingTarget) -> None:
    live = client.ask(b"g")
    assert client.ask(b"qXfer:traceframe-info:read::0,1000") == b"E61"
    assert client.ask(b"QTFrame:0") == b"F0T7"
    block = client.ask(b"g")
    assert block == bytes(index % 251 for index in range(G_SIZE)).hex().encode() != live
    assert client.ask(b"p10") == block[2 * 128 : 2 * 136]
    assert client.ask(b"p3e") == b"xx" * 8
    assert client.ask(b"p99") == b"E22"
    assert client.ask(b"m%x,10" % DATA) == bytes(range(16)).hex().encode()
    assert client.ask(b"m%x,20" % (DATA + 8)) == bytes(range(8, 16)).hex().encode()
    assert client.ask(b"x%x,4" % DATA) == b"b\0\1\2\3"
    assert client.ask(b"m%x,4" % STACK) == b"E14"
    assert client.ask(b"m%x,10" % TEXT) == b"90" * 8  # never changes, by the client's word
    assert client.ask(b"qSearch:memory:%x;10;\4" % DATA) == b"1,%x" % (DATA + 4)
    assert client.ask(b"qTV:2") == b"Vfffffffffffffffe"
    assert client.ask(b"qTV:1") == b"U"
    assert client.ask(b"qXfer:traceframe-info:read::0,1000") == (
        b'l<traceframe-info>\n<memory start="0x402000" length="0x10"/>\n<tvar id="2"/>\n</traceframe-info>\n'
    )
    before = {page: bytes(data) for page, data in target.pages.items()}
    for write in (b"M%x,1:00" % DATA, b"X%x,1:a" % DATA, b"P10=8877665544332211", b"G" + live):
        assert client.ask(write) == b"E01"
    assert {page: bytes(data) for page, data in target.pages.items()} == before
    assert client.ask(b"QTFrame:1") == b"F1T7"
    assert client.ask(b"g") == b"xx" * 128 + (TEXT + 1).to_bytes(8, "little").hex().encode() + b"xx" * (G_SIZE - 136)
    assert client.ask(b"p0") == b"xx" * 8
    assert client.ask(b"qXfer:traceframe-info:read::0,1000") == b"l<traceframe-info>\n</traceframe-info>\n"
    assert client.ask(b"QTFrame:2") == b"F-1"
    assert client.ask(b"p0") == b"xx" * 8
    assert client.ask(b"QTFrame:-1") == b"OK"
    assert client.ask(b"g") == live
    assert client.ask(b"p10") == RIP


@pytest.mark.parametrize("request_", [b"QTinit", b"QTStart"])
def test_a_new_trace_ends_the_look_at_a_frame(client: Client, request_: bytes) -> None:
    live = client.ask(b"g")
    client.ask(b"QTFrame:0")
    client.ask(request_)
    assert client.ask(b"g") == live


def test_a_selected_frame_is_one_clients_view(client: Client, target: TracingTarget) -> None:
    other = Client(target)
    client.ask(b"QTFrame:0")
    assert other.ask(b"p10") == RIP
    assert client.ask(b"p10") != RIP


def test_an_observer_looks_at_frames_and_defines_nothing(target: TracingTarget, tracepoints: FakeTracepoints) -> None:
    connection = Connection(target, observing=True)

    def ask(payload: bytes) -> bytes:
        connection.receive(frame(payload))
        (reply,) = payloads(connection.data_to_send().lstrip(b"+"))
        return reply

    for changing, _ in REQUESTS:
        assert ask(changing) == b"E01", changing
    assert tracepoints.told == []
    assert ask(b"qTStatus").startswith(b"T0;")
    assert ask(b"qTfP") == b"l"
    assert ask(b"QTFrame:0") == b"F0T7"
    assert ask(b"m%x,2" % DATA) == b"0001"
    assert ask(b"qTBuffer:0,2") == b"0001"


def test_a_frame_as_a_target_has_what_was_collected_and_the_threads_of_the_target(client: Client) -> None:
    client.ask(b"QTFrame:1")
    view = client.connection.frame
    assert view is not None
    assert view.threads() == client.target.threads()
    assert view.is_alive(THREAD)
    assert view.stop_status() == client.target.stop_status()
    for refused in (
        lambda: view.read_registers(THREAD),
        lambda: view.read_register(THREAD, 0),
        lambda: view.read_register(THREAD, 999),
    ):
        with pytest.raises(TargetError):
            refused()
    assert view.read_register(THREAD, registers.RIP) == (TEXT + 1).to_bytes(8, "little")


def test_the_buffer_is_read_in_pieces(client: Client) -> None:
    assert client.ask(b"qTBuffer:0,a") == bytes(range(10)).hex().encode()
    assert client.ask(b"qTBuffer:a,ffffffff") == bytes(range(10, 16)).hex().encode()
    assert client.ask(b"qTBuffer:10,10") == b"l"
    assert client.ask(b"qTBuffer:11,10") == b"E22"


def test_what_is_announced_of_tracepoints(client: Client) -> None:
    words = set(client.ask(b"qSupported").split(b";"))
    assert words >= {
        b"ConditionalTracepoints+",
        b"TracepointSource+",
        b"EnableDisableTracepoints+",
        b"InstallInTrace+",
        b"DisconnectedTracing+",
        b"QTBuffer:size+",
        b"tracenz+",
        b"qXfer:traceframe-info:read+",
    }
    assert not words & {b"FastTracepoints+", b"StaticTracepoints+", b"qXfer:statictrace:read+"}
