"""(bytes in, bytes out) for every packet, on a fresh fake target with gdb's features agreed on."""

import zlib
from typing import Any

import pytest
from rsp_client import Client
from rsp_fake import DATA, KERNEL, STACK, TEXT, BareTarget, ExpressionTarget, FakeTarget, NonStopTarget

from xdbg.rsp import registers, table
from xdbg.rsp.connection import Departure, State
from xdbg.rsp.framing import MAX_PAYLOAD, escape
from xdbg.rsp.replies import ExitReply, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, WatchKind
from xdbg.rsp.threadid import ALL, EVERY_THREAD, Thread, ThreadId


class ZeroTarget(BareTarget):
    """All of its memory is there, and zero."""

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        del thread, vaddr
        return bytes(length)


TRIPLE = b"x86_64-unknown-unknown".hex().encode()
K1 = b"p%x.1" % KERNEL
K2 = b"p%x.2" % KERNEL

FSTAT = b"".join(
    number.to_bytes(size, "big")
    for number, size in [(0, 4), (0, 4), (0o100444, 4), (1, 4), (0, 4), (0, 4), (0, 4), (6, 8), (512, 8), (1, 8)]
) + bytes(12)
"""struct stat of a file of six bytes: device to device type, size, block size, blocks, three times."""
LSTAT = FSTAT.replace((0o100444).to_bytes(4, "big"), (0o120777).to_bytes(4, "big")).replace(
    (6).to_bytes(8, "big"), len("/proc/version").to_bytes(8, "big")
)

EXCHANGES = {
    "must reply empty": [(b"vMustReplyEmpty", b"")],
    "unknown packets": [
        (b"", b""),
        (b"qOffsets", b""),
        (b"qSymbol::", b""),
        (b"QNonStop:1", b""),
        (b"qTStatus", b""),
        (b"QPassSignals:", b""),
        (b"vCtrlC", b""),
        (b"jThreadsInfo", b""),
        (b"\xff\x00", b""),
        (b"vFoo;1", b""),
        (b"qXfer:memory-map:read::0,100", b""),
        (b"H", b""),
        (b"Hx1", b""),
        (b"Z5,1000,1", b""),
    ],
    "a name is not cut in mid-word": [
        (b"qCx", b""),
        (b"vContx", b""),
        (b"vKillAll", b""),
        (b"QStartNoAckModeX", b""),
    ],
    "extended mode": [(b"!", b"OK")],
    "stop status": [(b"?", b"T05thread:%s;" % K1)],
    "qAttached": [
        (b"qAttached", b"1"),
        (b"qAttached:%x" % KERNEL, b"1"),
        (b"qAttached:0", b"E22"),
        (b"qAttachedx", b""),
    ],
    "current thread": [
        (b"qC", b"QC" + K1),
        (b"Hg" + K2, b"OK"),
        (b"qC", b"QC" + K2),
        (b"Hgp0.0", b"OK"),
        (b"qC", b"QC" + K2),
        (b"Hg1", b"OK"),
        (b"qC", b"QC" + K1),
        (b"Hgp99.1", b"E03"),
        (b"Hgp-1.1", b"E22"),
        (b"Hg", b"E22"),
        (b"qC", b"QC" + K1),
        (b"Hc-1", b"OK"),
        (b"Hcz", b"E22"),
        (b"Hcp7.70", b"OK"),
        (b"c1000", b"E03"),
        (b"s", b"E03"),
    ],
    "thread alive": [(b"T" + K2, b"OK"), (b"Tp%x.3" % KERNEL, b"E03"), (b"T", b"E22"), (b"Tp1.-1", b"E03")],
    "thread list": [(b"qfThreadInfo", b"m" + K1 + b"," + K2), (b"qsThreadInfo", b"l")],
    "thread extra info": [(b"qThreadExtraInfo," + K1, b"vcpu0 running".hex().encode())],
    "qXfer threads": [
        (
            b"qXfer:threads:read::0,1000",
            b'l<?xml version="1.0"?>\n<threads>\n<thread id="%s" core="0" name="vcpu0">running</thread>\n'
            b'<thread id="%s" core="1" name="v&lt;&amp;&gt;&quot;1">idle &lt;&amp;&gt;</thread>\n'
            b"</threads>\n" % (K1, K2),
        )
    ],
    "one register": [
        (b"p10", TEXT.to_bytes(8, "little").hex().encode()),
        (b"p11", b"00000000"),
        (b"P10=8877665544332211", b"OK"),
        (b"p10", b"8877665544332211"),
        (b"p3e", b"0000000000000000"),
        (b"p42", b"00"),
        (b"p48", b"E22"),
        (b"p", b"E22"),
        (b"pzz", b"E22"),
        (b"p-1", b"E22"),
        (b"p1_0", b"E22"),
        (b"p 1", b"E22"),
        (b"p11111111111111111", b"E22"),
        (b"P10", b"E22"),
        (b"P10=88", b"E22"),
        (b"P10=887766554433221", b"E22"),
    ],
    "lldb names the thread in a suffix": [
        (b"P10=8877665544332211;thread:%s;" % K2, b"OK"),
        (b"p10;thread:0002;", b"8877665544332211"),
        (b"p10;thread:0001;", TEXT.to_bytes(8, "little").hex().encode()),
        (b"p10;thread:9;", b"E03"),
        (b"p10;thread:", b"E22"),
        (b"p10;foo", b"E22"),
    ],
    "memory": [
        (b"m%x,4" % TEXT, b"90909090"),
        (b"M%x,2:aBcD" % DATA, b"OK"),
        (b"m%x,4" % DATA, b"abcd0000"),
        (b"X%x,0:" % DATA, b"OK"),
        (b"X%x,5:}#$*," % DATA, b"OK"),
        (b"x%x,5" % DATA, b"b}#$*,"),
        (b"x0,0", b"b"),
        (b"m0,4", b"E14"),
        (b"x0,4", b"E14"),
        (b"m%x,0" % TEXT, b"E22"),
        (b"mffffffffffffffff,ffffffffffffffff", b"E14"),
        (b"m10000000000000000,1", b"E22"),
        (b"m%x" % TEXT, b"E22"),
        (b"m,", b"E22"),
        (b"m%x,-1" % TEXT, b"E22"),
        (b"M%x,2:abc" % DATA, b"E22"),
        (b"M%x,2:ab" % DATA, b"E22"),
        (b"M%x,1:zz" % DATA, b"E22"),
        (b"M%x,1" % DATA, b"E22"),
        (b"M%x,2:\xff\xff" % DATA, b"E22"),
        (b"X%x,2:a" % DATA, b"E22"),
        (b"X0,1:a", b"E14"),
        (b"M0,1:00", b"E14"),
    ],
    "a read is short at the end of what is mapped": [(b"m%x,ffff" % (STACK + 0xFFC), b"00" * 4)],
    "search": [
        (b"X%x,6:needle" % (DATA + 100), b"OK"),
        (b"qSearch:memory:%x;1000;needle" % DATA, b"1,%x" % (DATA + 100)),
        (b"qSearch:memory:%x;1000;needle" % (DATA + 100), b"1,%x" % (DATA + 100)),
        (b"qSearch:memory:%x;f9c;needle" % (DATA + 101), b"E14"),
        (b"qSearch:memory:%x;100;needle" % (DATA + 101), b"0"),
        (b"qSearch:memory:%x;105;needle" % DATA, b"1,%x" % (DATA + 100)),
        (b"qSearch:memory:%x;69;needle" % DATA, b"0"),
        (b"qSearch:memory:%x;1;n" % (DATA + 100), b"1,%x" % (DATA + 100)),
        (b"qSearch:memory:0;1000;needle", b"E14"),
        (b"qSearch:memory:%x;1000;" % DATA, b"E22"),
        (b"qSearch:memory:%x;1000" % DATA, b"E22"),
    ],
    "crc": [
        (b"X%x,9:123456789" % DATA, b"OK"),
        (b"qCRC:%x,9" % DATA, b"C376e6e7"),
        (b"qCRC:0,9", b"E14"),
        (b"qCRC:", b"E22"),
    ],
    "resume kinds": [(b"vCont?", b"vCont;c;C;s;S;t;r")],
    "all threads stay stopped": [(b"vCont;t", b"T05thread:%s;" % K1)],
    "malformed resumes": [
        (b"vCont;", b"E22"),
        (b"vCont;x", b"E22"),
        (b"vCont;C", b"E22"),
        (b"vCont;C5", b"E22"),
        (b"vCont;c:", b"E22"),
        (b"vCont;c:p-1.5", b"E22"),
        (b"vCont;c;", b"E22"),
        (b"vCont;r1", b"E22"),
        (b"cxyz", b"E22"),
        (b"C", b"E22"),
        (b"C05;", b"E22"),
        (b"S123", b"E22"),
        (b"vCont;C09", b"E01"),
        (b"c0", None),
    ],
    "features": [(b"qXfer:features:read:nothing.xml:0,100", b"E02"), (b"qXfer:features:read:target.xml", b"E22")],
    "exec file": [
        (b"qXfer:exec-file:read:%x:0,100" % KERNEL, b"l/boot/fake"),
        (b"qXfer:exec-file:read::0,5", b"m/boot"),
        (b"qXfer:exec-file:read::5,100", b"l/fake"),
        (b"qXfer:exec-file:read::100,100", b"l"),
        (b"qXfer:exec-file:read:7:0,100", b"E02"),
        (b"qXfer:exec-file:read:zz:0,100", b"E02"),
    ],
    "auxv": [(b"qXfer:auxv:read::0,1000", b"l" + bytes(range(256)) * 2)],
    "files": [
        (b"vFile:setfs:0", b"F0"),
        (b"vFile:open:%s,0,0" % b"just probing".hex().encode(), b"F-1,2"),
        (b"vFile:setfs:7", b"F0"),
        (b"vFile:open:%s,0,1c0" % b"/proc/version".hex().encode(), b"F0"),
        (b"vFile:open:%s,0,1c0" % b"/proc/version".hex().encode(), b"F1"),
        (b"vFile:pread:0,100,0", b"F6;}#$* 7"),
        (b"vFile:pread:0,2,1", b"F2;#$"),
        (b"vFile:pread:0,2,100", b"F0;"),
        (b"vFile:fstat:0", b"F40;" + FSTAT),
        (b"vFile:close:0", b"F0"),
        (b"vFile:close:0", b"F-1,9"),
        (b"vFile:pread:0,2,1", b"F-1,9"),
        (b"vFile:fstat:99", b"F-1,9"),
        (b"vFile:open:%s,0,0" % b"/proc/version".hex().encode(), b"F0"),
        (b"vFile:open:%s,1,0" % b"/proc/version".hex().encode(), b"F-1,1e"),
        (b"vFile:open:zz,0,0", b"F-1,16"),
        (b"vFile:readlink:%s" % b"/exe".hex().encode(), b"Fb;/link/7/exe"),
        (b"vFile:stat:%s" % b"/proc/version".hex().encode(), b"F40;" + FSTAT),
        (b"vFile:lstat:%s" % b"/proc/version".hex().encode(), b"F40;" + FSTAT),
        (b"vFile:stat:%s" % b"/link".hex().encode(), b"F40;" + FSTAT),
        (b"vFile:lstat:%s" % b"/link".hex().encode(), b"F40;" + LSTAT),
        (b"vFile:stat:%s" % b"/exe".hex().encode(), b"F-1,270f"),
        (b"vFile:stat:zz", b"F-1,16"),
        (b"vFile:unlink:00", b"F-1,58"),
        (b"vFile:pwrite:0,0,x", b"F-1,58"),
    ],
    "monitor": [
        (b"qRcmd,%s" % b"hi".hex().encode(), [b"O" + b"hi on 4194305\n".hex().encode(), b"OK"]),
        (
            b"qRcmd,%s" % b"fail".hex().encode(),
            [b"O" + b"fail on 4194305\n".hex().encode(), b"O" + b"it failed\n".hex().encode(), b"OK"],
        ),
        (b"qRcmd,6", b"E22"),
    ],
    "restart": [
        (b"qExecAndArgs", b"S;%s;%s;" % (b"/boot/fake".hex().encode(), b"quiet".hex().encode())),
        (b"vRun;", b"E01"),
        (b"R00", b"E01"),
        (b"!", b"OK"),
        (b"vRun;", b"E16"),
        (b"M%x,1:cc" % TEXT, b"OK"),
        (b"R00", None),
        (b"m%x,1" % TEXT, b"90"),
        (b"vKill;%x" % KERNEL, b"OK"),
        (b"vRun;%s" % b"/bin/sh".hex().encode(), b"E02"),
        (b"vRun;zz", b"E22"),
        (b"vRun;", b"T05thread:%s;" % K1),
        (b"qExecAndArgs", b"S;%s;%s;" % (b"/boot/fake".hex().encode(), b"quiet".hex().encode())),
        (b"D", b"OK"),
        (b"vRun;%s;%s;%s" % tuple(word.hex().encode() for word in (b"/boot/fake", b"a=1", b"b c")),
         b"T05thread:%s;" % K1),
        (b"qExecAndArgs", b"S;%s;%s;" % (b"/boot/fake".hex().encode(), b"a=1 b c".hex().encode())),
    ],
    "lldb": [
        (b"qHostInfo", b"triple:%s;ptrsize:8;endian:little;vm-page-size:4096;watchpoint_exceptions_received:after;"
         % TRIPLE),
        (b"qProcessInfo", b"pid:400001;triple:%s;ptrsize:8;endian:little;" % TRIPLE),
        (b"qRegisterInfo7", b"name:rsp;alt-name:sp;bitsize:64;offset:56;encoding:uint;format:hex;%s"
         % b"set:General Purpose Registers;gcc:7;dwarf:7;generic:sp;"),
        (b"qRegisterInfo3c", b"name:cr0;bitsize:64;encoding:uint;format:hex;set:System Registers;"),
        (b"qRegisterInfofff", b"E02"),
        (b"qRegisterInfo", b"E22"),
        (b"qRegisterInfox", b"E22"),
        (b"qMemoryRegionInfo:%x" % (TEXT + 5), b"start:%x;size:1000;permissions:rwx;name:%s;"
         % (TEXT, b"of 1".hex().encode())),
        (b"qMemoryRegionInfo:0", b"start:0;size:1000;"),
        (b"qMemoryRegionInfo:", b"E22"),
        (b"QThreadSuffixSupported", b"OK"),
        (b"?", b"T05thread:%s;" % K1),
        (b"QListThreadsInStopReply", b"OK"),
        (b"?", b"T05thread:%s;threads:%s,%s;thread-pcs:%x,%x;" % (K1, K1, K2, TEXT, TEXT)),
        (b"vAttach;9", b"E03"),
        (b"QEnableErrorStrings", b"OK"),
        (b"vAttach;9", b"E03;%s" % b"no such process".hex().encode()),
    ],
    "attach, look, detach, kill": [
        (b"!", b"OK"),
        (b"vAttach;9", b"E03"),
        (b"vAttach;7", b"T00thread:p7.7;"),
        (b"qC", b"QCp7.7"),
        (b"qfThreadInfo", b"m" + K1 + b"," + K2 + b",p7.7"),
        (b"vAttach;8", b"T00thread:p8.8;"),
        (b"D;7", b"OK"),
        (b"qC", b"QCp8.8"),
        (b"D;7", b"E03"),
        (b"vKill;8", b"OK"),
        (b"qC", b"QC" + K1),
        (b"D", b"OK"),
        (b"qfThreadInfo", b"l"),
        (b"qC", b"E03"),
        (b"m1000,1", b"E03"),
        (b"vAttach;7", b"T00thread:p7.7;"),
        (b"vAttach;", b"E22"),
        (b"vAttach;0", b"E22"),
        (b"D;", b"E22"),
        (b"Dx", b"E22"),
    ],
    "break points": [
        (b"Z0,%x,1" % TEXT, b"OK"),
        (b"Z0,%x,1" % TEXT, b"OK"),
        (b"Z1,%x,1" % TEXT, b"OK"),
        (b"z0,%x,1" % TEXT, b"OK"),
        (b"z0,%x,1" % TEXT, b"OK"),
        (b"Z0,0,1", b"E14"),
        (b"Z0,", b"E22"),
        (b"Z0", b"E22"),
        (b"Z0,%x" % TEXT, b"E22"),
        (b"z0,%x,1;X1,27" % TEXT, b"E22"),
        (b"Z0,%x,1;X3,220127" % TEXT, b""),
        (b"Z0,%x,1;cmds:0,X1,27" % TEXT, b""),
        (b"Z0,%x,1;X3,22" % TEXT, b"E22"),
        (b"Z0,%x,1;foo" % TEXT, b"E22"),
    ],
    "watch points": [
        (b"Z2,%x,100" % DATA, b"OK"),
        (b"Z3,%x,1" % DATA, b"OK"),
        (b"Z4,%x,ffffff" % DATA, b"OK"),
        (b"z2,%x,100" % DATA, b"OK"),
        (b"Z2,%x,0" % DATA, b"E22"),
        (b"Z2,ffffffffffffffff,2", b"E22"),
        (b"Z2,ffffffffffffffff,1", b"OK"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES.keys())
def test_each_request_gets_this_reply(client: Client, exchange: list[tuple[bytes, Any]]) -> None:
    for request, reply in exchange:
        expected = [] if reply is None else reply if isinstance(reply, list) else [reply]
        assert client.send(request) == expected, request


def test_qsupported_announces_exactly_what_the_target_implements(target: FakeTarget) -> None:
    everything = set(Client(target).ask(b"qSupported").split(b";"))
    assert everything == {
        b"PacketSize=40000",
        b"multiprocess+",
        b"error-message+",
        b"QStartNoAckMode+",
        b"binary-upload+",
        b"vContSupported+",
        b"no-resumed+",
        b"swbreak+",
        b"hwbreak+",
        b"qXfer:threads:read+",
        b"qXfer:features:read+",
        b"qXfer:exec-file:read+",
        b"qXfer:auxv:read+",
    }
    offered = set(Client(target, features=None).ask(b"qSupported:single-inf-arg+;multi-wp-addr+").split(b";"))
    assert offered == everything | {b"single-inf-arg+"}
    one_by_one = everything | {b"QNonStop+", b"QThreadEvents+", b"QThreadOptions=3"}
    assert set(Client(NonStopTarget()).ask(b"qSupported").split(b";")) == one_by_one
    expressions = {b"ConditionalBreakpoints+", b"BreakpointCommands+"}
    assert set(Client(ExpressionTarget()).ask(b"qSupported").split(b";")) == one_by_one | expressions
    assert set(Client(BareTarget()).ask(b"qSupported").split(b";")) == {
        b"PacketSize=40000",
        b"multiprocess+",
        b"error-message+",
        b"QStartNoAckMode+",
        b"binary-upload+",
        b"qXfer:threads:read+",
    }


def test_what_the_target_cannot_do_gets_the_empty_reply() -> None:
    client = Client(BareTarget())
    optional = [row for row in table.rows() if row.capability.__name__ != "Target"]
    assert len(optional) > 20
    for row in optional:
        assert client.ask(row.prefix + b"0") == b"", row


def test_every_row_of_the_table_says_in_a_line_what_it_is() -> None:
    assert all(row.summary.endswith((".", ":")) for row in table.rows())


def test_features_with_a_minus_or_a_value_are_not_agreed_on(target: FakeTarget) -> None:
    client = Client(target, features=b"qSupported:multiprocess-;swbreak=1;hwbreak?")
    assert client.ask(b"?") == b"T05thread:1;"
    assert client.ask(b"qC") == b"QC1"
    assert client.ask(b"qfThreadInfo") == b"m1,2"


def test_errors_have_text_for_a_client_that_takes_it(target: FakeTarget) -> None:
    client = Client(target, features=b"qSupported:error-message+")
    assert client.ask(b"vAttach;9") == b"E.no such process"
    assert client.ask(b"m0,1") == b"E14"
    assert client.send(b"qRcmd," + b"fail".hex().encode())[1:] == [b"E.it failed"]


def test_the_register_block_is_560_bytes_and_round_trips(client: Client, target: FakeTarget) -> None:
    block = bytes(i % 251 for i in range(560))
    assert client.ask(b"G" + block.hex().encode()) == b"OK"
    assert client.ask(b"g") == block.hex().encode()
    assert client.ask(b"p10") == block[128:136].hex().encode()
    assert client.ask(b"p39") == block[536:544].hex().encode()
    assert client.ask(b"g;thread:2;") == target.read_registers(Thread(KERNEL, 2)).hex().encode()
    assert client.ask(b"G" + block[1:].hex().encode()) == b"E22"
    assert client.ask(b"gg") == b"E22"


@pytest.mark.parametrize(
    ("payload", "actions"),
    [
        (b"vCont;c", [ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE)]),
        (b"vCont;c:p7.-1", [ResumeAction(ThreadId(7, ALL), ResumeKind.CONTINUE)]),
        (
            b"vCont;s:p7.8;c:p7.-1",
            [ResumeAction(ThreadId(7, 8), ResumeKind.STEP), ResumeAction(ThreadId(7, ALL), ResumeKind.CONTINUE)],
        ),
        (b"vCont;C0b:1", [ResumeAction(ThreadId(0, 1), ResumeKind.CONTINUE, Signal.SEGV)]),
        (b"vCont;S05", [ResumeAction(EVERY_THREAD, ResumeKind.STEP, 5)]),
        (
            b"vCont;t:p7.8;r10,20:-1",
            [
                ResumeAction(ThreadId(7, 8), ResumeKind.STOP),
                ResumeAction(EVERY_THREAD, ResumeKind.RANGE_STEP, start=0x10, end=0x20),
            ],
        ),
        (
            b"s",
            [
                ResumeAction(ThreadId(KERNEL, 1), ResumeKind.STEP),
                ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),
            ],
        ),
        (
            b"C0b",
            [
                ResumeAction(ThreadId(KERNEL, 1), ResumeKind.CONTINUE, 11),
                ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),
            ],
        ),
    ],
)
def test_a_resume_reaches_the_target_as_these_actions(
    client: Client, target: FakeTarget, payload: bytes, actions: list[ResumeAction]
) -> None:
    assert client.send(payload) == []
    assert client.connection.state is State.RUNNING
    assert list(target.actions) == actions


def test_the_old_step_is_for_the_thread_that_hc_chose_and_may_move_it(client: Client, target: FakeTarget) -> None:
    assert client.ask(b"Hc" + K2) == b"OK"
    assert client.send(b"S0b;1234") == []
    assert list(target.actions) == [ResumeAction(ThreadId(KERNEL, 2), ResumeKind.STEP, Signal.SEGV)]
    assert target.get(Thread(KERNEL, 2), "rip") == 0x1234


def test_a_refused_resume_leaves_the_client_in_control(client: Client) -> None:
    assert client.ask(b"vCont;C09") == b"E01"
    assert client.connection.state is State.IDLE
    assert client.ask(b"qC") == b"QC" + K1


def test_points_reach_the_target_for_the_process_of_the_current_thread(client: Client, target: FakeTarget) -> None:
    client.ask(b"vAttach;7")
    client.ask(b"Z0,1000,1")
    client.ask(b"Hg" + K1)
    client.ask(b"Z1,1000,1")
    client.ask(b"Z4,%x,1234" % DATA)
    assert target.points == {
        (7, BreakpointKind.SOFTWARE, 0x1000, 1),
        (KERNEL, BreakpointKind.HARDWARE, 0x1000, 1),
        (KERNEL, WatchKind.ACCESS, DATA, 0x1234),
    }
    client.ask(b"z0,1000,1")
    assert (7, BreakpointKind.SOFTWARE, 0x1000, 1) in target.points


def test_conditions_and_commands_reach_the_target_and_are_replaced() -> None:
    target = ExpressionTarget()
    client = Client(target)
    key = BreakpointKind.SOFTWARE, 0x1000
    assert client.ask(b"Z0,1000,1;X3,220127X2,2227;cmds:1,X1,27") == b"OK"
    assert target.conditions[key] == (b"\x22\x01\x27", b"\x22\x27")
    assert target.commands[key] == ((b"\x27",), True)
    assert client.ask(b"Z0,1000,1") == b"OK"
    assert target.conditions[key] == ()
    assert target.commands[key] == ((), False)
    assert client.ask(b"Z0,1000,1;X1,ff") == b"E22"
    assert target.points == set()


def test_a_document_is_the_same_until_its_end_is_read(client: Client, target: FakeTarget) -> None:
    whole = client.ask(b"qXfer:threads:read::0,10000")[1:]
    pieces = [client.ask(b"qXfer:threads:read::0,10")]
    target.infos.pop()
    while pieces[-1][:1] == b"m":
        pieces.append(client.ask(b"qXfer:threads:read::%x,10" % (16 * len(pieces))))
    assert b"".join(piece[1:] for piece in pieces) == whole
    assert client.ask(b"qXfer:threads:read::0,10000")[1:] != whole


def test_replies_are_never_longer_than_the_packet_size(client: Client, target: FakeTarget) -> None:
    target.pages = {0x1000000 + i * 0x1000: bytearray(b"#" * 0x1000) for i in range(100)}
    for request in (b"m1000000,7fffffff", b"x1000000,7fffffff"):
        client.connection.receive(b"$%s#%02x" % (request, sum(request) % 256))
        packet = client.connection.data_to_send()
        assert 0.7 * MAX_PAYLOAD < len(packet) <= MAX_PAYLOAD + 4


def test_a_search_finds_what_lies_across_its_chunks_and_gives_up_when_it_is_too_long(
    client: Client, target: FakeTarget
) -> None:
    target.pages = {number * 0x1000: bytearray(0x1000) for number in range(0x200)}
    target.pages[0x10000] = bytearray(b"\0" * 0xFFC + b"need")
    target.pages[0x11000] = bytearray(b"le" + b"\0" * 0xFFE)
    target.pages[0x20000 - 0x1000] = bytearray(b"\0" * 0xFFF + b"n")
    target.pages[0x20000] = bytearray(b"eedle" + b"\0" * 0xFFB)
    assert client.ask(b"qSearch:memory:0;100000;needle") == b"1,10ffc"
    assert client.ask(b"qSearch:memory:10ffd;100000;needle") == b"1,1ffff"
    assert Client(ZeroTarget()).ask(b"qSearch:memory:0;ffffffffffff;needle") == b"E27"


def test_the_crc_is_what_gdb_computes(client: Client, target: FakeTarget) -> None:
    target.pages[DATA][:] = bytes(i * 7 & 0xFF for i in range(0x1000))
    crc = 0xFFFFFFFF
    for byte in target.pages[DATA]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    assert client.ask(b"qCRC:%x,1000" % DATA) == b"C%x" % crc
    assert crc != zlib.crc32(target.pages[DATA])


def test_long_monitor_output_comes_in_pieces_that_any_client_takes(client: Client) -> None:
    *output, ok = client.send(b"qRcmd," + b"much".hex().encode())
    assert ok == b"OK"
    assert all(part[:1] == b"O" and len(part) < 0x4000 for part in output)
    assert bytes.fromhex(b"".join(part[1:] for part in output).decode()) == b"much on 4194305\n" + b"x" * 10000


def test_descriptors_run_out_with_an_error(client: Client) -> None:
    path = b"/proc/version".hex().encode()
    results = [client.ask(b"vFile:open:%s,0,0" % path) for _ in range(65)]
    assert results[63:] == [b"F3f", b"F-1,18"]


def test_detach_outside_of_extended_mode_ends_the_session_with_the_last_process(client: Client) -> None:
    client.ask(b"vAttach;7")
    assert client.ask(b"D;%x" % KERNEL) == b"OK"
    assert client.connection.state is State.IDLE
    assert client.ask(b"D;7") == b"OK"
    assert (client.connection.state, client.connection.departure) == (State.DISCONNECTED, Departure.DETACHED)
    assert client.send(b"qC") == []


def test_detach_in_extended_mode_keeps_the_session(client: Client) -> None:
    client.ask(b"!")
    assert client.ask(b"D") == b"OK"
    assert client.connection.state is State.IDLE


def test_kill_has_no_answer_and_ends_the_session(client: Client) -> None:
    assert client.send(b"k") == []
    assert (client.connection.state, client.connection.departure) == (State.DISCONNECTED, Departure.KILLED)


def test_killing_the_last_process_outside_of_extended_mode_ends_the_session(client: Client, target: FakeTarget) -> None:
    assert client.ask(b"vKill;%x" % KERNEL) == b"OK"
    assert (client.connection.departure, target.killed) == (Departure.KILLED, [KERNEL])


def test_a_target_without_processes_is_detached_as_a_whole() -> None:
    client = Client(BareTarget())
    assert client.ask(b"vAttach;7") == b""
    assert client.ask(b"D;%x" % KERNEL) == b"OK"
    assert client.connection.departure is Departure.DETACHED


def test_the_current_thread_is_the_one_that_the_stop_named(client: Client) -> None:
    client.send(b"vCont;c")
    client.connection.stop(StopReply(Signal.TRAP, Thread(KERNEL, 2)))
    assert client.replies() == [b"T05thread:%s;" % K2]
    assert client.ask(b"qC") == b"QC" + K2
    client.send(b"vCont;c")
    client.connection.stop(ExitReply(7, 99))
    assert client.replies() == [b"W07;process:63"]
    assert client.ask(b"qC") == b"QC" + K1


def test_the_description_lists_each_register_in_the_order_of_its_number(client: Client) -> None:
    text = client.ask(b"qXfer:features:read:target.xml:0,40000")[1:].decode()
    places = [text.index(f'<reg name="{register.name}"') for register in registers.REGISTERS]
    assert places == sorted(places)
    assert "xi:include" not in text
    assert client.ask(b"qXfer:features:read:sse.xml:0,40000")[1:].decode() in text


@pytest.mark.parametrize("fill", [b"a", b"}", b"a}", b"#aaaaaaaaaaaaaaa"])
def test_a_binary_read_is_answered_as_far_as_a_packet_goes(target: FakeTarget, fill: bytes) -> None:
    data = (fill * MAX_PAYLOAD)[:MAX_PAYLOAD]
    target.read_memory = lambda _, vaddr, length: data[vaddr : vaddr + length]  # type: ignore[method-assign]
    client = Client(target)
    for length in (100, MAX_PAYLOAD // 2 - 8, MAX_PAYLOAD):
        answer = client.ask(b"x0,%x" % length)[1:]
        assert data.startswith(answer)
        if len(answer) < length:
            assert len(escape(answer)) <= MAX_PAYLOAD - 16 < len(escape(data[: len(answer) + 1]))


def test_letting_go_of_what_is_not_attached_is_an_error_and_no_end(client: Client, target: FakeTarget) -> None:
    target.infos = []
    assert client.ask(b"D;7") == b"E03"
    assert client.connection.state is State.IDLE
    assert client.ask(b"D") == b"OK"
    assert client.connection.departure is Departure.DETACHED
