"""Packets about signals, system calls and events of processes."""

import pytest
from rsp_client import Client
from rsp_fake import KERNEL, EventTarget

from xdbg.rsp.signals import Signal, from_linux, name_of, to_linux


@pytest.fixture
def target() -> EventTarget:
    return EventTarget()


def test_what_a_part_implements_is_announced(target: EventTarget) -> None:
    features = set(Client(target).ask(b"qSupported").split(b";"))
    assert features >= {
        b"fork-events+",
        b"exec-events+",
        b"QPassSignals+",
        b"QProgramSignals+",
        b"QCatchSyscalls+",
        b"qXfer:siginfo:read+",
        b"qXfer:siginfo:write+",
    }
    assert b"vfork-events+" not in features


@pytest.mark.parametrize(
    ("offered", "fork", "execs"),
    [
        (b"fork-events+;exec-events+", True, True),
        (b"exec-events+;fork-events-", False, True),
        (b"swbreak+", False, False),
    ],
)
def test_the_target_learns_which_events_the_client_takes(
    target: EventTarget, offered: bytes, fork: bool, execs: bool
) -> None:
    Client(target, features=b"qSupported:multiprocess+;" + offered)
    assert target.part.events == {"fork": fork, "execs": execs}


@pytest.mark.parametrize(
    ("packet", "signals"),
    [
        (b"QPassSignals:", set()),
        (b"QPassSignals:e;10;14;97;", {14, 16, 20, 0x97}),
        (b"QPassSignals:b", {11}),
    ],
)
def test_signal_lists_replace_each_other(target: EventTarget, packet: bytes, signals: set[int]) -> None:
    client = Client(target)
    assert client.ask(b"QPassSignals:1;2") == b"OK"
    assert client.ask(packet) == b"OK"
    assert target.part.passed == signals
    assert client.ask(packet.replace(b"Pass", b"Program")) == b"OK"
    assert target.part.programs == signals


@pytest.mark.parametrize("bad", [b"x", b"1;;2", b"100", b"-1", b"1,2", b"1;" * 5000 + b"1"])
def test_bad_signal_lists_change_nothing(target: EventTarget, bad: bytes) -> None:
    client = Client(target)
    assert client.ask(b"QPassSignals:3") == b"OK"
    assert client.ask(b"QPassSignals:" + bad) == b"E22"
    assert target.part.passed == {3}


@pytest.mark.parametrize(
    ("argument", "numbers"), [(b"0", set()), (b"1", None), (b"1;1", {1}), (b"1;3b;e7", {0x3B, 0xE7})]
)
def test_system_calls_are_caught_all_some_or_none(
    target: EventTarget, argument: bytes, numbers: set[int] | None
) -> None:
    client = Client(target)
    assert client.ask(b"QCatchSyscalls:" + argument) == b"OK"
    assert target.part.caught == numbers


@pytest.mark.parametrize("bad", [b"", b"2", b"0;1", b"1;", b"1,1", b"11", b"1;x"])
def test_bad_lists_of_system_calls_change_nothing(target: EventTarget, bad: bytes) -> None:
    client = Client(target)
    assert client.ask(b"QCatchSyscalls:1;7") == b"OK"
    assert client.ask(b"QCatchSyscalls:" + bad) == b"E22"
    assert target.part.caught == {7}


def test_siginfo_is_read_in_pieces_and_written_as_bytes(target: EventTarget) -> None:
    client = Client(target)
    whole = bytes(range(128))
    assert client.ask(b"qXfer:siginfo:read::0,80") == b"l" + whole
    assert client.ask(b"qXfer:siginfo:read::0,10") == b"m" + whole[:16]
    assert client.ask(b"qXfer:siginfo:write::10:#$}:;*\0") == b"7"
    assert client.ask(b"qXfer:siginfo:read::10,8") == b"m#$}:;*\0\x17"
    assert client.ask(b"qXfer:siginfo:write::7f:ab") == b"E22"
    assert client.ask(b"qXfer:siginfo:write::0:") == b"0"
    assert client.ask(b"qXfer:siginfo:write:0") == b"E22"
    assert client.ask(b"Hgp%x.2" % KERNEL) == b"OK"
    assert client.ask(b"qXfer:siginfo:read::0,80") == b"E61"


def test_signals_of_linux_are_counted_otherwise_by_gdb() -> None:
    assert [from_linux(number) for number in (7, 10, 11, 17, 31)] == [
        Signal.BUS,
        Signal.USR1,
        Signal.SEGV,
        Signal.CHLD,
        Signal.SYS,
    ]
    for number in range(1, 32):
        signal = from_linux(number)
        assert to_linux(signal) == (None if signal is Signal.UNKNOWN else number)
    assert [from_linux(number) for number in (0, 16, 32, 255)] == [Signal.UNKNOWN] * 4
    assert [to_linux(signal) for signal in (0, Signal.EMT, Signal.LOST, 34, 255)] == [None] * 5
    assert [name_of(signal) for signal in (11, 200)] == ["SIGSEGV", "signal 200"]
