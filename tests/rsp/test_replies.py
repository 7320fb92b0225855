"""Every reply as payload, for gdb's features and for a client that offered none."""

from dataclasses import replace
from typing import Any

import pytest

from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.replies import (
    BinaryData,
    Cloned,
    Created,
    Error,
    Execed,
    ExitReply,
    Forked,
    HistoryEnd,
    HostIoError,
    HostIoResult,
    HwBreak,
    LibrariesChanged,
    NoResumed,
    Reply,
    SignalledReply,
    StopReason,
    StopReply,
    SwBreak,
    SyscallStop,
    ThreadExited,
    Threads,
    VforkDone,
    WatchHit,
    encode,
)
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread

GDB = ClientFeatures.parse(
    b"multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+;no-resumed+;error-message+;qRelocInsn+"
)
NONE = ClientFeatures()
THREAD = Thread(0x41, 0x43)


def stop(*reasons: StopReason, **more: Any) -> StopReply:
    return StopReply(Signal.TRAP, THREAD, reasons, **more)


@pytest.mark.parametrize(
    ("reply", "gdb", "none"),
    [
        (stop(), b"T05thread:p41.43;", b"T05thread:43;"),
        (StopReply(Signal.INT, THREAD, core=2), b"T02thread:p41.43;core:2;", b"T02thread:43;core:2;"),
        (stop(SwBreak()), b"T05swbreak:;thread:p41.43;", b"T05thread:43;"),
        (stop(HwBreak()), b"T05hwbreak:;thread:p41.43;", b"T05thread:43;"),
        (stop(WatchHit(2, 1 << 47)), b"T05watch:800000000000;thread:p41.43;", b"T05watch:800000000000;thread:43;"),
        (stop(WatchHit(3, 16)), b"T05rwatch:10;thread:p41.43;", b"T05rwatch:10;thread:43;"),
        (stop(WatchHit(4, 16)), b"T05awatch:10;thread:p41.43;", b"T05awatch:10;thread:43;"),
        (stop(Forked(Thread(0x44, 0x44))), b"T05fork:p44.44;thread:p41.43;", b"T05thread:43;"),
        (stop(Forked(Thread(0x44, 0x44), vfork=True)), b"T05vfork:p44.44;thread:p41.43;", b"T05thread:43;"),
        (stop(VforkDone()), b"T05vforkdone:;thread:p41.43;", b"T05thread:43;"),
        (stop(Execed("/a")), b"T05exec:2f61;thread:p41.43;", b"T05thread:43;"),
        (stop(LibrariesChanged()), b"T05library:;thread:p41.43;", b"T05library:;thread:43;"),
        (stop(SyscallStop(1, entry=True)), b"T05syscall_entry:1;thread:p41.43;", b"T05syscall_entry:1;thread:43;"),
        (stop(SyscallStop(1, entry=False)), b"T05syscall_return:1;thread:p41.43;", b"T05syscall_return:1;thread:43;"),
        (stop(HistoryEnd(begin=True)), b"T05replaylog:begin;thread:p41.43;", b"T05replaylog:begin;thread:43;"),
        (stop(registers={16: b"\x10", 6: b"\xff"}), b"T0510:10;6:ff;thread:p41.43;", b"T0510:10;6:ff;thread:43;"),
        (ExitReply(3, 0x41), b"W03;process:41", b"W03"),
        (ExitReply(256 + 3), b"W03", b"W03"),
        (SignalledReply(Signal.SEGV, 0x41), b"X0b;process:41", b"X0b"),
        (NoResumed(), b"N", b"S05"),
        (ThreadExited(3, Thread(0x41, 0x43)), b"w03;p41.43", b"w03;43"),
        (stop(Created()), b"T05create:;thread:p41.43;", b"T05create:;thread:43;"),
        (stop(Cloned(Thread(0x41, 0x44))), b"T05clone:p41.44;thread:p41.43;", b"T05clone:44;thread:43;"),
        (Error(14), b"E14", b"E14"),
        (Error(4), b"E04", b"E04"),
        (Error(110), b"E99", b"E99"),
        (Error(14, "no page at 0x10"), b"E.no page at 0x10", b"E14"),
        (Error(14, "#$}*\n\x03é"), "E.??????é".encode(), b"E14"),
        (Threads((THREAD, Thread(1, 2))), b"mp41.43,p1.2", b"m43,2"),
        (Threads(()), b"l", b"l"),
        (BinaryData(b"m", b"}#$*"), b"m}]}\x03}\x04}\x0a", b"m}]}\x03}\x04}\x0a"),
        (HostIoResult(16), b"F10", b"F10"),
        (HostIoResult(2, b"#a"), b"F2;}\x03a", b"F2;}\x03a"),
        (HostIoError(2), b"F-1,2", b"F-1,2"),
        (HostIoError(38), b"F-1,58", b"F-1,58"),
        (HostIoError(36), b"F-1,5b", b"F-1,5b"),
        (HostIoError(110), b"F-1,270f", b"F-1,270f"),
    ],
)  # fmt: skip
def test_a_reply_is_these_bytes(reply: Reply, gdb: bytes, none: bytes) -> None:
    assert encode(reply, GDB) == gdb
    assert encode(reply, NONE) == none


def test_all_watched_places_are_told_only_to_a_client_that_takes_several() -> None:
    reply = stop(WatchHit(2, 0x10), WatchHit(4, 0x20), LibrariesChanged())
    several = ClientFeatures.parse(b"multi-wp-addr+")
    assert encode(reply, several) == b"T05watch:10;awatch:20;library:;thread:43;"
    assert encode(reply, NONE) == b"T05watch:10;library:;thread:43;"


def test_a_stop_names_all_threads_and_where_they_are_if_that_is_known() -> None:
    other = Thread(0x41, 0x44)
    assert encode(stop(threads=((THREAD, 0x10), (other, 0x20))), GDB) == (
        b"T05thread:p41.43;threads:p41.43,p41.44;thread-pcs:10,20;"
    )
    assert encode(stop(threads=((THREAD, 0x10), (other, None))), GDB) == b"T05thread:p41.43;threads:p41.43,p41.44;"


def test_lldb_gets_the_text_of_an_error_behind_its_number() -> None:
    lldb = replace(NONE, error_strings=True)
    assert encode(Error(14, "no page"), lldb) == b"E14;" + b"no page".hex().encode()
    assert encode(Error(14), lldb) == b"E14"
