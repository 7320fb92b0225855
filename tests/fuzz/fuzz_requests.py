"""Requests as a client might send them, drawn from the packet table itself: a new packet is fuzzed from its first day.

For the packets that are known here there are arguments that make sense; all others are given pieces of anything.
"""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp import connection as _fills_the_table  # noqa: F401
from xdbg.rsp import table
from xdbg.rsp.agent_expression import Op
from xdbg.rsp.framing import escape, frame

PREFIXES = [row.prefix for row in table.rows()]
KERNEL = b"400001"

_TASKS = Path(__file__).resolve().parent.parent.parent / "build" / "guests" / "tasks.elf"
_NAMES = [
    "address_space_switch", "entry_event", "entry_syscall", "event_handle", "on_syscall", "on_exception", "block",
    "memcpy", "console_write", "page_alloc",
]  # fmt: skip
SYMBOLS = SymbolTable.from_elf(_TASKS.read_bytes())
CODE = [symbol.address for name in _NAMES if (symbol := SYMBOLS.get(name)) is not None]
"""Places that the guest comes to, often and rarely."""

PLACES = [
    *CODE,
    0xFFFFFFFF80100000, 0xFFFFFFFF80105DB7, 0xFFFFFFFF80110C40, 0xFFFFFFFF8010DEC8, 0xFFFFFFFF803FFFF8,
    0xFFFF800000000000, 0xFFFF820000000000, 0xFFFF87FFFFFFFFFF, 0x401000, 0x401020, 0x404100, 0x7FFFFFFFEE90,
    0x555555555000, 0x555555558000, 0, 0xFFF, 0x1000, 0x7FFFFFFFFFFF, 0x800000000000, 0xFFFFFFFFFFFFFFFF,
]  # fmt: skip
LENGTHS = [0, 1, 2, 4, 8, 16, 0x100, 0x1000, 0x4001, 0x10000, 0x20000, 0x100000, 0xFFFFFFFFFFFFFFFF]
PATHS = [
    "/boot/tasks.elf", "/bin/counter", "/bin/debuggee", "/proc/2/maps", "/proc/2/smaps", "/proc/self/stat",
    "/proc/4194305/status", "/proc/2/exe", "/proc/2/task/2/maps", "/proc/99/maps", "/etc/passwd", "/", "", "\0",
    "../../../etc/passwd", "/proc/self/../../../etc/passwd", "just probing", "/proc/2/auxv", "/proc/2/comm",
]  # fmt: skip
ANNEXES = [b"", b"target.xml", b"p2", b"2", b"400001", b"99", b"processes", b"<x>", b"../x"]

places = st.builds(lambda at, off: b"%x" % ((at + off) & (2**64 - 1)), st.sampled_from(PLACES), st.integers(-9, 40))
code_places = st.one_of(st.sampled_from(CODE).map(lambda at: b"%x" % at), places)
lengths = st.sampled_from(LENGTHS).map(lambda n: b"%x" % n)
small = st.integers(0, 80).map(lambda n: b"%x" % n)
THREADS = [
    b"p400001.1", b"p2.2", b"p3.3", b"p9.9", b"p2.-1", b"p400001.-1", b"p-1.-1", b"p0.0", b"p2.1", b"0", b"-1", b"1",
    b"p400001.2", b"p1.1", b"p63.63",
]  # fmt: skip
threads = st.sampled_from(THREADS)
pids = st.sampled_from([b"400001", b"2", b"3", b"4", b"5", b"9", b"63", b"1", b"0", b"7fffffff"])
hexed = st.sampled_from(PATHS).map(lambda path: path.encode().hex().encode())
ranges = st.tuples(places, lengths).map(b",".join)
short_ranges = st.tuples(places, st.sampled_from([b"1", b"4", b"8", b"40", b"100"])).map(b",".join)
data = st.binary(min_size=1, max_size=16)
pieces = st.tuples(st.sampled_from(ANNEXES), st.sampled_from(LENGTHS), st.sampled_from(LENGTHS)).map(
    lambda it: b"%s:%x,%x" % it
)
READING_COMMANDS = [
    "", "help", "help p2m", "when", "ps", "regs xen", "info domain", "info vcpu", "info vcpu 0", "info vcpu 9", "traps",
    "events", "translate 0x401000", "translate $rip", "walk 0xffffffff80100000", "walk $rsp", "walk 0",
    "p2m 3", "p2m x", "m2p 0x47", "m2p 99999999", "nonsense", "\0", "xp 0x1000",
    "xp 0x7fffff 64", "xp 0xffffffffffffffff 4", "why", "catch", "watch", "trace", "step-mask", "clients",
]  # fmt: skip
SETTING_COMMANDS = [
    "catch hypercall", "catch hypercall sched_op/block", "tcatch hypercall iret", "catch trap", "catch trap pf user",
    "catch trap int3 process 7", "catch upcall", "catch upcall 1 user", "tcatch upcall", "catch crash", "uncatch all",
    "uncatch 1", "unwatch all", "unwatch 2", "trace on", "trace on exception,iret", "trace off", "catch nonsense",
    "watch ticks", "watch 0xffffffff80110c40 8 rw if new != old", "watch u64[$rsp] 8 w if new > old + 1 && $rdi",
    "watch 0xffffffff8010dec8 4096 w if u64[0] == 1", "watch 0x404100 64 rw if 1 / 0", "watch $rsp 16 r", "watch 0 0",
    "dump-core a.core", "dump-core b.core xen", "dump-core ../c.core", "dump-core",
]  # fmt: skip
"""What the guest does not notice, though the debugger does."""


def _commands(lines: Sequence[str]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(lines).map(lambda line: line.encode().hex().encode())


actions = st.one_of(
    st.just(b";c"),
    st.sampled_from([b";c", b";s"]).flatmap(lambda kind: threads.map(lambda thread: kind + b":" + thread)),
    threads.map(lambda thread: b";s:%s;c:p-1.-1" % thread),
    st.tuples(places, threads).map(lambda it: b";r%s,ffffffff80106000:%s;c" % it),
    threads.map(lambda thread: b";t:" + thread),
)

# -- agent expressions

_VALUES = [0, 1, 2, 63, 64, 255, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 8, 0x404100, *CODE[:2]]
_BINARY = [
    Op.ADD, Op.SUB, Op.MUL, Op.DIV_SIGNED, Op.DIV_UNSIGNED, Op.REM_SIGNED, Op.REM_UNSIGNED, Op.LSH, Op.RSH_SIGNED,
    Op.RSH_UNSIGNED, Op.BIT_AND, Op.BIT_OR, Op.BIT_XOR, Op.EQUAL, Op.LESS_SIGNED, Op.LESS_UNSIGNED,
]  # fmt: skip
_words = st.one_of(
    st.sampled_from(_VALUES).map(lambda value: bytes([Op.CONST64]) + value.to_bytes(8, "big")),
    st.sampled_from([0, 4, 5, 7, 16, 17, 50, 300]).map(lambda number: bytes([Op.REG]) + number.to_bytes(2, "big")),
)
_sums = st.tuples(_words, _words, st.sampled_from(_BINARY), st.sampled_from([b"", b"\x17", b"\x1a", b"\x16\x08"])).map(
    lambda it: it[0] + it[1] + bytes([it[2]]) + it[3]
)
_loops = st.sampled_from(
    [b"\x22\x00\x21\x00\x02", b"\x22\x01\x20\x00\x00\x22\x00", b"\x23\x07\x00\x22\x01\x03\x28\x20\x00\x03"]
)
"""One that never ends, one that ends only for the budget, and a long one that ends with 0."""
conditions = st.one_of(_words, _sums, _sums, _loops, st.just(b"\x22\x00")).map(lambda code: code + bytes([Op.END]))
"""Agent expressions with a result, most of them."""
_printf = b"\x22\x05\x22\x00\x22\x00\x34\x01\x00\x04%d\n\x00\x27"
commands = st.one_of(st.just(_printf), conditions)
recording = st.one_of(
    st.sampled_from([b"\x26\x00\x04\x0d\x08\x27", b"\x22\x01\x2d\x00\x01\x2e\x00\x01\x27", b"\x2e\x00\x01\x27"]),
    conditions,
)
codes = st.one_of(conditions, st.binary(min_size=1, max_size=12))


def _counted(code: bytes) -> bytes:
    return b"X%x,%s" % (len(code), code.hex().encode())


conditional = st.builds(
    lambda at, found, printed, persist: (
        b",%s,1;" % at
        + b"".join(map(_counted, found))
        + (b";cmds:%d,%s" % (persist, b"".join(map(_counted, printed))) if printed else b"")
    ),
    code_places,
    st.lists(codes, min_size=1, max_size=3),
    st.lists(commands, max_size=2),
    st.integers(0, 1),
)

# -- tracepoints

traced = st.tuples(st.integers(1, 3), st.sampled_from(CODE[:4]))
_names = traced.map(lambda it: b"%x:%x" % it)
_definitions = st.builds(
    lambda it, enabled, steps, passes, code: (
        b"%x:%x:%s:%x:%x" % (*it, enabled, steps, passes) + (b":" + _counted(code) if code else b"")
    ),
    traced,
    st.sampled_from([b"E", b"E", b"D"]),
    st.sampled_from([0, 0, 0, 3, 20]),
    st.sampled_from([0, 0, 1, 5]),
    st.one_of(st.just(b""), conditions),
)
_actions = st.lists(
    st.one_of(
        st.sampled_from([b"R1ffff", b"R03", b"M-1,404100,8", b"M7,0,40", b"M7,fffffffffffffff8,10000", b"M5,0,8"]),
        recording.map(_counted),
        short_ranges.map(lambda it: b"M-1,%s" % it),
    ),
    min_size=1,
    max_size=3,
).map(b"".join)
TRACING: dict[bytes, st.SearchStrategy[bytes]] = {
    b"QTinit": st.just(b""),
    b"QTDP:": st.one_of(
        _definitions,
        st.builds(lambda it, row, more: b"-%s:%s%s" % (it, row, more), _names, _actions, st.sampled_from([b"", b"-"])),
        st.builds(lambda it, row: b"-%s:S%s" % (it, row), _names, _actions),
        _definitions.map(lambda it: it + b"-"),
    ),
    b"QTDPsrc:": _names.map(lambda it: it + b":cmd:0:3:616263"),
    b"QTEnable:": _names,
    b"QTDisable:": _names,
    b"QTDV:": st.sampled_from([b"1:0:0:61", b"2:ffffffffffffffff:0:62", b"0:0:0:", b"80000000:1:0:61"]),
    b"QTro": st.sampled_from([b"", b":ffffffff80100000,ffffffff80106000", b":1,0:5,5"]),
    b"QTStart": st.just(b""),
    b"QTStop": st.just(b""),
    b"QTDisconnected:": st.sampled_from([b"0", b"1"]),
    b"QTBuffer:circular:": st.sampled_from([b"0", b"1"]),
    b"QTBuffer:size:": st.sampled_from([b"-1", b"0", b"40", b"400", b"10000", b"ffffffffffff"]),
    b"QTNotes:": st.sampled_from([b"user:61", b"notes:62;tstop:63", b"", b"x:61"]),
}
"""Traces of what happens."""


def _set_up(it: tuple[int, int], enabled: bytes, row: bytes, stepping: bytes) -> list[bytes]:
    name = b"%x:%x" % it
    steps = b"S" + stepping if stepping else b""
    return [
        b"QTDP:%s:%s:%d:0-" % (name, enabled, 4 if stepping else 0),
        b"QTDP:-%s:%s%s" % (name, row, steps),
        b"QTStart",
    ]


trace_set_up = st.builds(
    _set_up, traced, st.sampled_from([b"E", b"E", b"E", b"D"]), _actions, st.one_of(st.just(b""), _actions)
)
"""A trace that has begun: several requests."""

SIGNALS = [b"", b"0b", b"5;b", b"e;14;17;2d;97", b"100"]
SETTING: dict[bytes, st.SearchStrategy[bytes]] = {
    b"Z0": conditional,
    b"Z1": conditional,
    b"QPassSignals:": st.sampled_from(SIGNALS),
    b"QProgramSignals:": st.sampled_from(["0b", "5;b;e;f;97"]).map(str.encode),
    b"QCatchSyscalls:": st.sampled_from([b"0", b"1", b"1;1;3c", b"1;27", b"2", b"1;"]),
    b"QThreadEvents:": st.sampled_from([b"0", b"1", b"2"]),
    b"QThreadOptions;": st.one_of(
        st.sampled_from([b"0", b"1", b"3", b"ff"]), threads.map(lambda thread: b"3:%s;2" % thread)
    ),
    b"QThreadSuffixSupported": st.just(b""),
    b"QListThreadsInStopReply": st.just(b""),
    b"QEnableErrorStrings": st.just(b""),
    b"QNonStop:0": st.just(b""),
    b"qRcmd,": _commands(SETTING_COMMANDS),
    b"qSupported": st.sampled_from(
        [b":multiprocess+;fork-events+;exec-events+;no-resumed+;swbreak+;hwbreak+", b":multiprocess+"]
    ),
}
"""What the debugger is to be told of. The guest never notices."""

READING: dict[bytes, st.SearchStrategy[bytes]] = {
    b"!": st.just(b""),
    b"?": st.just(b""),
    b"g": st.one_of(st.just(b""), threads.map(lambda thread: b";thread:%s;" % thread)),
    b"p": small,
    b"m": ranges,
    b"x": ranges,
    b"T": threads,
    b"Hg": threads,
    b"Hc": threads,
    b"qAttached": st.one_of(st.just(b""), pids.map(lambda pid: b":" + pid)),
    b"qC": st.just(b""),
    b"qCRC:": short_ranges,
    b"qRcmd,": _commands(READING_COMMANDS),
    b"qSearch:memory:": st.tuples(places, st.sampled_from([b"10", b"1000", b"20000"]), data).map(b";".join),
    b"qSupported": st.sampled_from([b"", b":multiprocess+", b":multiprocess+;swbreak+;error-message+", b":x;;=", b":"]),
    b"qThreadExtraInfo,": threads,
    b"qXfer:auxv:read:": pieces,
    b"qXfer:exec-file:read:": pieces,
    b"qXfer:features:read:": pieces,
    b"qXfer:threads:read:": pieces,
    b"qfThreadInfo": st.just(b""),
    b"qsThreadInfo": st.just(b""),
    b"vCont?": st.just(b""),
    b"vFile:": st.sampled_from([b"pwrite:0,0,x", b"unlink:2f", b"", b"open", b"stat:2f"]),
    b"vFile:open:": hexed.map(lambda path: path + b",0,0"),
    b"vFile:pread:": st.tuples(small, lengths, lengths).map(b",".join),
    b"vFile:fstat:": small,
    b"vFile:close:": small,
    b"vFile:readlink:": hexed,
    b"vFile:setfs:": pids,
    b"vMustReplyEmpty": st.just(b""),
    b"vFile:stat:": hexed,
    b"vFile:lstat:": hexed,
    b"vCtrlC": st.just(b""),
    b"vStopped": st.just(b""),
    b"qHostInfo": st.just(b""),
    b"qProcessInfo": st.just(b""),
    b"qRegisterInfo": small,
    b"qMemoryRegionInfo:": places,
    b"qExecAndArgs": st.just(b""),
    b"qXfer:osdata:read:": st.builds(
        lambda name, at, size: b"%s:%x,%x" % (name, at, size),
        st.sampled_from([b"", b"types", b"processes", b"domains", b"vcpus", b"traps", b"p2m", b"event-channels", b"x"]),
        st.sampled_from(LENGTHS),
        st.sampled_from(LENGTHS),
    ),
    b"qXfer:siginfo:read:": pieces,
    b"qXfer:traceframe-info:read:": pieces,
    b"QTFrame:": st.one_of(
        small,
        st.sampled_from([b"-1", b"0", b"0", b"ffffffff", b"tdp:1", b"range:0:ffffffffffffffff", b"outside:5:1"]),
        code_places.map(lambda at: b"pc:" + at),
    ),
    b"qTStatus": st.just(b""),
    b"qTP:": _names,
    b"qTV:": small,
    b"qTfP": st.just(b""),
    b"qTsP": st.just(b""),
    b"qTfV": st.just(b""),
    b"qTsV": st.just(b""),
    b"qTBuffer:": st.tuples(lengths, lengths).map(b",".join),
}
"""What only looks."""

POINTS: dict[bytes, st.SearchStrategy[bytes]] = {
    prefix: (places.map(lambda at: b",%s,1" % at) if prefix[1:] in b"01" else short_ranges.map(lambda r: b"," + r))
    for prefix in PREFIXES
    if prefix[:1] in b"Zz" and len(prefix) == 2
}
"""What the guest never sees."""

RUNNING: dict[bytes, st.SearchStrategy[bytes]] = {
    b"vCont": actions,
    b"c": st.just(b""),
    b"s": st.just(b""),
    b"vAttach;": pids.filter(lambda pid: pid != KERNEL),
    b"D": pids.filter(lambda pid: pid != KERNEL).map(lambda pid: b";" + pid),
}
"""What lets the guest run on, or changes who is looked at."""

WRITING: dict[bytes, st.SearchStrategy[bytes]] = {
    b"G": st.binary(min_size=560, max_size=560).map(lambda block: block.hex().encode()),
    b"M": st.tuples(places, data).map(lambda it: b"%s,%x:%s" % (it[0], len(it[1]), it[1].hex().encode())),
    b"X": st.tuples(places, data).map(lambda it: b"%s,%x:%s" % (it[0], len(it[1]), it[1])),
    b"P": st.tuples(small, st.sampled_from([b"00", b"0000000000000000", b"0010108000000000", b"ff" * 8, b"7856"])).map(
        b"=".join
    ),
    b"c": places,
    b"s": places,
    b"C": st.sampled_from([b"05", b"0b", b"09", b"05;401000"]),
    b"S": st.sampled_from([b"05", b"0b"]),
    b"vCont;C": st.sampled_from([b"05", b"0b:p2.2", b"02;c"]),
    b"vKill;": pids.filter(lambda pid: pid != KERNEL),
    b"qRcmd,": _commands(["step-mask off", "step-mask on"]),
    b"qXfer:siginfo:write:": st.tuples(small, data).map(lambda it: b":%s:%s" % it),
}
"""What changes the guest, or may."""

RESTARTING = [
    [b"!", b"vKill;400001", b"vRun;"],
    [b"!", b"vKill;400001", b"vRun;2f626f6f742f7461736b732e656c66;61"],
    [b"!", b"vKill;400001", b"vRun;2f62696e2f7368", b"vRun;", b"vRun;"],
    [b"!", b"D;400001", b"vRun;"],
    [b"!", b"R00", b"?"],
    [b"vRun;", b"R00"],
]
"""The domain is begun anew, or it is tried to."""


def of(*groups: dict[bytes, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """Payloads of the packets in these groups."""
    return st.one_of([arguments.map(prefix.__add__) for group in groups for prefix, arguments in group.items()])


reading = of(READING)
watching = of(POINTS, TRACING, SETTING, RUNNING, RUNNING).filter(lambda payload: not leaves(payload))
"""A client that is busy with the guest, and changes nothing."""
harmless = of(READING, POINTS, TRACING, SETTING, RUNNING).filter(lambda payload: not leaves(payload))
detaching = of(READING, POINTS, RUNNING)
anything_valid = of(READING, POINTS, TRACING, SETTING, RUNNING, WRITING)

MARKS = [b",", b":", b";", b"=", b"/", b"X1,27", b"cmds:", b"00", b"c", b"s", b"thread:", b"-", b"zz", b"read:"]
atoms = st.one_of(
    places, lengths, threads, pids, hexed, data,
    st.sampled_from(MARKS),
)  # fmt: skip
strange = st.builds(
    lambda prefix, parts: prefix + b"".join(parts),
    st.sampled_from([prefix for prefix in PREFIXES if prefix not in (b"k", b"D", b"vKill;")]),
    st.lists(atoms, max_size=6),
)
"""Any packet of the table with arguments of any kind."""


def _spoilt(payload: bytes, at: int, how: int, byte: int) -> bytes:
    at %= len(payload) + 1
    replaced = (payload[:at], bytes([byte]) + payload[at:], payload[:at] + payload[at + 1 :], payload + payload[at:])
    return replaced[how]


nearly_valid = st.builds(_spoilt, anything_valid, st.integers(0, 60), st.integers(0, 3), st.integers(0, 255)).filter(
    lambda payload: payload[:1] not in (b"k", b"D", b"R") and not payload.startswith((b"vKill", b"vRun"))
)
"""A valid packet that is cut, or has a byte too much or too little, or its end twice."""

requests = st.one_of(anything_valid, nearly_valid, strange, st.binary(max_size=30)).filter(
    lambda payload: not leaves(payload)
)
"""What keeps the client in the session."""


def leaves(payload: bytes) -> bool:
    """Whether a request may end the session, choose another protocol for it, or put another guest in its place.

    That of a process does when no other is left, so it is left out as well where that matters.
    """
    return (
        payload[:1] in (b"k", b"R")
        or payload.startswith(
            (b"D;", b"vKill;400001", b"QNonStop:1", b"vRun;"),
        )
        or payload == b"D"
    )


wire = st.one_of(
    requests.map(lambda payload: frame(escape(payload))),
    st.sampled_from([b"\x03", b"+", b"-", b"$", b"#", b"}", b"*", b"$#00", b"$g#00", b"$k#6b", b"$D#44", b"\x03\x03"]),
    st.binary(max_size=60),
    requests.map(lambda payload: frame(escape(payload))[:-1]),
    requests.map(lambda payload: b"$" + payload + b"#zz"),
    st.sampled_from(RESTARTING).map(lambda payloads: b"".join(frame(payload) for payload in payloads)),
    st.sampled_from([b"QNonStop:1", b"QNonStop:0", b"vStopped", b"vCtrlC", b"D;2", b"D;400001"]).map(frame),
)
"""Bytes as they may come out of a socket."""
