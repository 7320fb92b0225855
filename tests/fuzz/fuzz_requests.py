"""Requests as a client might send them, drawn from the packet table itself: a new packet is fuzzed from its first day.

For the packets that are known here there are arguments that make sense; all others are given pieces of anything.
"""

from collections.abc import Sequence

from hypothesis import strategies as st

from xdbg.rsp import connection as _fills_the_table  # noqa: F401
from xdbg.rsp import table
from xdbg.rsp.framing import escape, frame

PREFIXES = [row.prefix for row in table.rows()]
KERNEL = b"400001"

PLACES = [
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
    "xp 0x7fffff 64", "xp 0xffffffffffffffff 4",
]  # fmt: skip


def _commands(lines: Sequence[str]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(lines).map(lambda line: line.encode().hex().encode())


actions = st.one_of(
    st.just(b";c"),
    st.sampled_from([b";c", b";s"]).flatmap(lambda kind: threads.map(lambda thread: kind + b":" + thread)),
    threads.map(lambda thread: b";s:%s;c:p-1.-1" % thread),
    st.tuples(places, threads).map(lambda it: b";r%s,ffffffff80106000:%s;c" % it),
    threads.map(lambda thread: b";t:" + thread),
)

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
}
"""What changes the guest, or may."""


def of(*groups: dict[bytes, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """Payloads of the packets in these groups."""
    return st.one_of([arguments.map(prefix.__add__) for group in groups for prefix, arguments in group.items()])


reading = of(READING)
harmless = of(READING, POINTS, RUNNING).filter(lambda payload: not leaves(payload))
detaching = of(READING, POINTS, RUNNING)
anything_valid = of(READING, POINTS, RUNNING, WRITING)

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
    lambda payload: payload[:1] not in (b"k", b"D") and not payload.startswith(b"vKill")
)
"""A valid packet that is cut, or has a byte too much or too little, or its end twice."""

requests = st.one_of(anything_valid, nearly_valid, strange, st.binary(max_size=30)).filter(
    lambda payload: not leaves(payload)
)
"""What keeps the client in the session."""


def leaves(payload: bytes) -> bool:
    """Whether a request may end the session, or choose another protocol for it.

    That of a process does when no other is left, so it is left out as well where that matters.
    """
    return payload[:1] == b"k" or payload == b"D" or payload.startswith((b"D;", b"vKill;400001", b"QNonStop:1"))


wire = st.one_of(
    requests.map(lambda payload: frame(escape(payload))),
    st.sampled_from([b"\x03", b"+", b"-", b"$", b"#", b"}", b"*", b"$#00", b"$g#00", b"$k#6b", b"$D#44", b"\x03\x03"]),
    st.binary(max_size=60),
    requests.map(lambda payload: frame(escape(payload))[:-1]),
    requests.map(lambda payload: b"$" + payload + b"#zz"),
)
"""Bytes as they may come out of a socket."""
