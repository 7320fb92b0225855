"""A dependency-free benchmark client for GDB Remote Serial Protocol servers.

    rspbench.py HOST:PORT --elf bench.elf [--name PEER] [--only a,b,...] [--json FILE]

The target runs workload/bench.elf (a mailbox loop: see bench.c). Every measure is repeated and
given as median [min, max]; each repeat is bounded in time, so a slow server does fewer operations,
not a longer run. What a server lacks is reported as a string that says why.
"""

import argparse
import json
import re
import socket
import statistics
import struct
import sys
import time
from binascii import unhexlify
from contextlib import suppress
from pathlib import Path

CMD_HOT, CMD_CPU, CMD_WATCH_FAR, CMD_WATCH_NEAR, CMD_NOP, CMD_CPU_EXIT = 1, 2, 3, 4, 9, 10
CPU_INSNS = 10  # instructions in one turn of cpu_loop
FLIPPED = [bytes((byte ^ 0x20,)) for byte in range(256)]
clock = time.perf_counter


class UnsupportedError(Exception):
    pass


def elf_symbols(path):
    """name -> address out of a 64-bit little-endian ELF's .symtab."""
    data = Path(path).read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise SystemExit(f"{path}: not a 64-bit little-endian ELF")
    (shoff,) = struct.unpack_from("<Q", data, 40)
    shentsize, shnum = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
    symbols = {}
    for _, kind, _, _, offset, size, link, _, _, entsize in sections:
        if kind != 2:
            continue
        strings = sections[link][4]
        for at in range(offset, offset + size, entsize):
            name, _, _, shndx, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if name and shndx:
                end = data.index(b"\0", strings + name)
                symbols[data[strings + name : end].decode()] = value
    return symbols


def unescape(data):
    """Undo }-escapes of a binary reply."""
    if b"}" not in data:
        return data
    first, *rest = data.split(b"}")
    return first + b"".join([FLIPPED[part[0]] + part[1:] for part in rest])


def expand(data):
    """Undo run-length encoding of a text reply."""
    if b"*" not in data:
        return data
    return re.sub(rb"(.)\*(.)", lambda m: m[1] * (m[2][0] - 28), data, flags=re.DOTALL)


class Rsp:
    def __init__(self, host, port, timeout, *, only_handshake=False):
        start = clock()
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(None)
        # a blocking socket with a kernel time-out: one system call a recv, unlike settimeout's two
        self.timeout(timeout)
        self.buffer = b""
        self.acks = True
        self.noise = 0
        reply = self.ask(
            b"qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;"
            b"exec-events+;vContSupported+;QThreadEvents+;no-resumed+;xmlRegisters=i386"
        )
        self.features = {}
        for item in reply.decode("latin1").split(";"):
            key, eq, value = item.partition("=")
            if eq:
                self.features[key] = value
            elif item[-1:] in "+-?":
                self.features[item[:-1]] = item[-1]
        if self.ask(b"QStartNoAckMode") == b"OK":
            self.acks = False
        self.handshake = clock() - start
        self.packet_size = int(self.features.get("PacketSize", "18f"), 16)
        if only_handshake:
            return
        self.vcont = self.ask(b"vCont?").decode("latin1")
        self.step_packet = b"vCont;s" if ";s" in self.vcont else b"s"
        self.cont_packet = b"vCont;c" if ";c" in self.vcont else b"c"
        self.first_stop = self.ask(b"?")
        self.binary_writes = None

    def ready(self):
        """Asks what a debugger has to know before it shows its prompt: target description, stop, threads, registers."""
        documents = ["target.xml"]
        for document in documents:
            text = self.transfer(document)
            documents += [name for name in re.findall(r'<xi:include href="([^"]+)"', text) if name not in documents]
        self.ask(b"?")
        packet = b"qfThreadInfo"
        while self.ask(packet)[:1] == b"m":
            packet = b"qsThreadInfo"
        self.ask(b"g")

    def transfer(self, document):
        """A document of the target description, in pieces as large as the server's packets."""
        text, more = b"", True
        while more:
            piece = self.ask(b"qXfer:features:read:%b:%x,%x" % (document.encode(), len(text), self.packet_size - 5))
            if piece[:1] not in (b"m", b"l"):
                raise UnsupportedError(f"qXfer of {document} answered {piece[:20]!r}")
            text += unescape(expand(piece[1:]))
            more = piece[:1] == b"m"
        return text.decode()

    def timeout(self, seconds):
        whole = int(seconds)
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6))
        )

    @staticmethod
    def frame(payload):
        return b"$%b#%02x" % (payload, sum(payload) & 255)

    def more(self):
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            raise TimeoutError("no reply in time") from None
        if not data:
            raise EOFError("server closed the connection")
        self.buffer = self.buffer + data if self.buffer else data

    def reply(self):
        """Next packet's payload, its escapes and runs left as they came."""
        while True:
            end, seen = self.buffer.find(b"#"), len(self.buffer)
            while end < 0 or len(self.buffer) < end + 3:
                self.more()
                if end < 0:
                    end, seen = self.buffer.find(b"#", seen), len(self.buffer)
            start = self.buffer.find(b"$", 0, end)
            payload, self.buffer = self.buffer[start + 1 : end], self.buffer[end + 3 :]
            if self.acks:
                self.sock.sendall(b"+")
            if start >= 0:
                return payload

    def send_frame(self, framed):
        self.sock.sendall(framed)

    def ask(self, payload):
        self.send_frame(self.frame(payload))
        return self.reply()

    def wait_stop(self):
        while True:
            reply = self.reply()
            if reply[:1] == b"O" and reply != b"OK":
                self.noise += 1
                continue
            return reply

    def resume(self, framed):
        self.send_frame(framed)
        return self.wait_stop()

    # memory
    def read(self, addr, size):
        reply = expand(self.ask(b"m%x,%x" % (addr, size)))
        if (reply[:1] == b"E" and len(reply) == 3) or not reply:
            raise UnsupportedError(f"m answered {reply!r}")
        return unhexlify(reply)

    def read_word(self, addr):
        return int.from_bytes(self.read(addr, 8), "little")

    def has_binary_writes(self, addr):
        """As gdb asks: an X of no bytes."""
        if self.binary_writes is None:
            self.binary_writes = self.ask(b"X%x,0:" % addr) == b"OK"
        return self.binary_writes

    def write_word(self, addr, value):
        data = value.to_bytes(8, "little")
        if self.has_binary_writes(addr):
            escaped = re.sub(rb"[#$}*]", lambda m: b"}" + bytes((m[0][0] ^ 0x20,)), data)
            reply = self.ask(b"X%x,8:%b" % (addr, escaped))
        else:
            reply = self.ask(b"M%x,8:%b" % (addr, data.hex().encode()))
        if reply != b"OK":
            raise UnsupportedError(f"memory write answered {reply!r}")


class Bench:
    def __init__(self, args):
        self.args = args
        self.sym = elf_symbols(args.elf)
        host, _, port = args.target.rpartition(":")
        self.host, self.port = host or "127.0.0.1", int(port)
        self.rsp = Rsp(self.host, self.port, args.timeout)
        self.results = {}
        self.z = b"1" if args.hardware else b"0"
        self.at_ready = False
        self.step = Rsp.frame(self.rsp.step_packet)
        self.cont = Rsp.frame(self.rsp.cont_packet)
        self.mips = None
        self.turns = {}
        self.lost = None

    # plumbing
    def bp(self, op, addr, extra=b""):
        packet = b"%b%b,%x,1%b" % (op, self.z, addr, extra)
        reply = self.rsp.ask(packet)
        if reply != b"OK":
            raise UnsupportedError(f"{packet.decode()} answered {reply.decode('latin1')!r}")

    def to_ready(self):
        """Continue to bench_ready from wherever the guest stands, all breakpoints removed."""
        seq = self.rsp.read_word(self.sym["bench_seq"])
        self.bp(b"Z", self.sym["bench_ready"])
        for _ in range(8):
            stop = self.rsp.resume(self.cont)
            if stop[:1] in b"WX":
                raise EOFError(f"guest ended: {stop!r}")
            if self.rsp.read_word(self.sym["bench_seq"]) != seq:
                break
        self.bp(b"z", self.sym["bench_ready"])

    def finish(self):
        """to_ready, where losing the guest spoils the session but not the sample just taken."""
        try:
            self.to_ready()
        except (TimeoutError, EOFError, OSError) as error:
            self.lost = f"{type(error).__name__} {error} on the way back to bench_ready"

    def command(self, cmd, arg):
        """At bench_ready: give the guest its next command."""
        self.rsp.write_word(self.sym["bench_cmd"], cmd)
        self.rsp.write_word(self.sym["bench_arg"], arg)

    def timed_run(self, cmd, arg, before=None, after=None):
        """From bench_ready to bench_done and back; seconds of the first leg."""
        self.command(cmd, arg)
        self.bp(b"Z", self.sym["bench_done"])
        if before:
            before()
        start = clock()
        self.rsp.resume(self.cont)
        took = clock() - start
        if after:
            after()
        self.bp(b"z", self.sym["bench_done"])
        self.to_ready()
        return took

    def rate(self, operation, limit=10**9, chunk=16):
        """Operations/s over one repeat's budget; operation runs chunk times between looks at the clock."""
        start, count = clock(), 0
        while count < limit:
            for _ in range(chunk):
                operation()
            count += chunk
            took = clock() - start
            if took > self.args.budget:
                break
        return count / took

    def size(self, seconds, most):
        """Turns of a ~10-instruction loop that take about so many seconds here."""
        return max(50, min(most, int((self.mips or 1) * 1e6 * seconds / CPU_INSNS)))

    def record(self, key, function, *args, repeats=None):
        if (self.args.only and key.split(".")[0] not in self.args.only) or key in self.args.skip:
            return
        samples, why = [], None
        began = clock()
        try:
            for _ in range(repeats or self.args.repeats):
                samples.append(function(*args))
                if self.lost:
                    why = f"then failed: {self.lost}"
                    break
                if clock() - began > self.args.measure_limit:
                    break
        except UnsupportedError as error:
            why = f"no: {error}"
        except (TimeoutError, EOFError, OSError) as error:
            why = f"failed: {type(error).__name__} {error}"
            self.results[key] = {"why": why, "samples": samples}
            raise
        self.results[key] = {"samples": samples} if not why else {"why": why, "samples": samples}
        if self.lost:
            raise EOFError(self.lost)

    # measures
    def a_connect(self):
        """Connections a second, each until the client knows what it needs, the one before it closed."""

        latest = self.rsp

        def once():
            nonlocal latest
            latest.sock.close()
            latest = Rsp(self.host, self.port, self.args.timeout, only_handshake=True)
            latest.ready()

        rate = self.rate(once, chunk=1)
        latest.sock.close()
        self.rsp = Rsp(self.host, self.port, self.args.timeout)
        return rate

    def b_roundtrip(self, payload):
        framed, rsp = Rsp.frame(payload), self.rsp

        def once():
            rsp.send_frame(framed)
            rsp.reply()

        return self.rate(once)

    def in_cpu_loop(self, turns):
        """Stand inside cpu_loop with no breakpoint set."""
        self.command(CMD_CPU, turns)
        self.bp(b"Z", self.sym["cpu_loop"])
        self.rsp.resume(self.cont)
        self.bp(b"z", self.sym["cpu_loop"])

    def c_step(self, then):
        turns = self.size(0.2, 10**6)
        self.in_cpu_loop(turns)
        rsp, step, then = self.rsp, self.step, [Rsp.frame(p) for p in then]

        def once():
            rsp.send_frame(step)
            rsp.wait_stop()
            for framed in then:
                rsp.send_frame(framed)
                rsp.reply()

        rate = self.rate(once, limit=turns * 9, chunk=4)
        self.finish()
        return rate

    def hot(self, extra=b""):
        turns = self.size(0.5, 200000)
        self.rsp.write_word(self.sym["hot_counter"], 0)
        self.command(CMD_HOT, turns)
        self.bp(b"Z", self.sym["hot_function"], extra)
        return turns

    def d_gdb_cycle(self):
        """c, stop, z0, s, stop, Z0: what gdb sends for `continue` over a breakpoint it stands on."""
        turns = self.hot()
        rsp, addr = self.rsp, self.sym["hot_function"]
        insert, remove = Rsp.frame(b"Z%b,%x,1" % (self.z, addr)), Rsp.frame(b"z%b,%x,1" % (self.z, addr))
        rsp.resume(self.cont)

        def once():
            rsp.send_frame(remove)
            rsp.reply()
            rsp.resume(self.step)
            rsp.send_frame(insert)
            rsp.reply()
            rsp.resume(self.cont)

        rate = self.rate(once, limit=turns - 8, chunk=4)
        self.bp(b"z", addr)
        self.finish()
        return rate

    def d_server_cycle(self):
        """c, stop, c, stop: the server steps over the breakpoint it stands on."""
        turns = self.hot()
        rsp = self.rsp
        rsp.resume(self.cont)
        before = rsp.read_word(self.sym["hot_counter"])
        for _ in range(4):
            rsp.resume(self.cont)
        moved = rsp.read_word(self.sym["hot_counter"]) - before
        rate = self.rate(lambda: rsp.resume(self.cont), limit=turns - 16, chunk=4) if moved == 4 else None
        self.bp(b"z", self.sym["hot_function"])
        self.finish()
        if rate is None:
            raise UnsupportedError(f"4 continues on a breakpoint moved {moved} hits: the client must step over")
        return rate

    def e_read(self, packet, unit):
        rsp, base, total = self.rsp, self.sym["big_buffer"], 1 << 20
        if packet == b"x":
            probe = rsp.ask(b"x%x,8" % base)
            want = rsp.read(base, 8)
            if unescape(probe) == want:
                head = 0
            elif probe[:1] == b"b" and unescape(probe[1:]) == want:
                head = 1
            else:
                raise UnsupportedError(f"x answered {probe!r}")
        frames = [Rsp.frame(b"%b%x,%x" % (packet, base + at, min(unit, total - at))) for at in range(0, total, unit)]
        start, done, i, got = clock(), 0, 0, 0
        while True:
            rsp.send_frame(frames[i])
            reply = rsp.reply()
            got = len(unescape(reply)) - head if packet == b"x" else len(unhexlify(expand(reply)))
            wanted = min(unit, total - i * unit)
            if not 0 < got <= wanted or (packet == b"m" and got != wanted):  # an x may answer less, to be asked again
                raise UnsupportedError(f"a read of {unit} bytes answered {got}")
            done += got
            i = (i + 1) % len(frames)
            if clock() - start > self.args.budget:
                return done / (clock() - start) / 1e6

    def best_unit(self, packet):
        """Bytes a reply may carry: two digits or an escaped byte each; a server that gives less is taken at that."""
        unit = min((self.rsp.packet_size - 5) // 2, 1 << 20)
        if packet == b"m":
            got = len(self.rsp.read(self.sym["big_buffer"], unit))
            return min(unit, got) or 1
        return unit

    def e_write(self, packet):
        rsp, base, total = self.rsp, self.sym["huge_buffer"], 1 << 20
        if packet == b"X" and not rsp.has_binary_writes(base):
            raise UnsupportedError("X not supported")
        unit = min(rsp.packet_size - 40, 1 << 20) if packet == b"X" else min((rsp.packet_size - 40) // 2, 1 << 20)
        body = (bytes(b for b in range(256) if b not in b"#$}*") * (unit // 252 + 1))[:unit]
        frames = [
            Rsp.frame(b"%b%x,%x:" % (packet, base + at, unit) + (body if packet == b"X" else body.hex().encode()))
            for at in range(0, total, unit)
        ]
        start, done, i = clock(), 0, 0
        while True:
            rsp.send_frame(frames[i])
            reply = rsp.reply()
            if reply != b"OK":
                raise UnsupportedError(f"{packet.decode()} of {unit} bytes answered {reply!r}")
            done += unit
            i = (i + 1) % len(frames)
            if clock() - start > self.args.budget:
                return done / (clock() - start) / 1e6

    def g_client(self):
        """Condition in the client: every hit costs a stop, g, an 8-byte m, z0, s, Z0, c."""
        turns = self.hot()
        rsp, addr = self.rsp, self.sym["hot_function"]
        insert, remove = Rsp.frame(b"Z%b,%x,1" % (self.z, addr)), Rsp.frame(b"z%b,%x,1" % (self.z, addr))
        g, m = Rsp.frame(b"g"), Rsp.frame(b"m%x,8" % self.sym["hot_counter"])
        rsp.resume(self.cont)

        def once():
            for framed in (g, m, remove):
                rsp.send_frame(framed)
                rsp.reply()
            rsp.resume(self.step)
            rsp.send_frame(insert)
            rsp.reply()
            rsp.resume(self.cont)

        rate = self.rate(once, limit=turns - 8, chunk=4)
        self.bp(b"z", addr)
        self.finish()
        return rate

    def g_target(self):
        """Condition as an agent expression: hot_counter == k || $rsp == 0, false k times, then true."""
        if self.rsp.features.get("ConditionalBreakpoints") != "+":
            raise UnsupportedError("no ConditionalBreakpoints+ in qSupported")
        k = getattr(self, "false_hits", 200)
        while True:
            self.rsp.write_word(self.sym["hot_counter"], 0)
            self.command(CMD_HOT, k + 100)
            counter_is_k = (
                b"\x25" + self.sym["hot_counter"].to_bytes(8, "big") + b"\x19\x24" + k.to_bytes(4, "big") + b"\x13"
            )
            code = b"\x26\x00\x07\x0e" + counter_is_k + b"\x10\x27"  # reg 7, log_not, ..., bit_or, end
            self.bp(b"Z", self.sym["hot_function"], b";X%x,%b" % (len(code), code.hex().encode()))
            start = clock()
            self.rsp.resume(self.cont)
            took = clock() - start
            hits = self.rsp.read_word(self.sym["hot_counter"])
            self.bp(b"z", self.sym["hot_function"])
            self.to_ready()
            if hits != k:
                raise UnsupportedError(f"condition hot_counter == {k} stopped at {hits}")
            if took > self.args.budget / 2 or k > 10**6:
                self.false_hits = k
                return k / took
            k = int(k * max(2, min(20, self.args.budget / max(took, 1e-6))))

    def h_loop(self, cmd, watch):
        """ns a turn of the watch loop up to its last store, with or without Z2 on watched_word."""
        key = (cmd, watch)
        turns = self.turns.get(key, 200)
        packet = b"2,%x,8" % self.sym["watched_word"]
        while True:
            self.command(cmd, turns)
            if watch:
                reply = self.rsp.ask(b"Z" + packet)
                if reply != b"OK":
                    raise UnsupportedError(f"Z2 answered {reply!r}")
            else:
                self.bp(b"Z", self.sym["bench_done"])
            start = clock()
            stop = self.rsp.resume(self.cont)
            took = clock() - start
            if watch:
                self.rsp.ask(b"z" + packet)
                self.watch_stop = stop[:60].decode("latin1")
            else:
                self.bp(b"z", self.sym["bench_done"])
            self.to_ready()
            if took > self.args.budget / 2 or turns >= 5 * 10**8:
                self.turns[key] = turns
                return took / turns * 1e9
            turns = int(turns * max(2, min(20, self.args.budget / max(took, 1e-6))))

    def i_mips(self, extra=None):
        key = ("cpu", extra)
        turns = self.turns.get(key, 200)
        before = (lambda: self.bp(b"Z", extra)) if extra else None
        after = (lambda: self.bp(b"z", extra)) if extra else None
        while True:
            took = self.timed_run(CMD_CPU, turns, before, after)
            if not extra:
                self.mips = turns * CPU_INSNS / took / 1e6
            if took > self.args.budget / 2 or turns >= 10**9:
                self.turns[key] = turns
                return turns * CPU_INSNS / took / 1e6
            turns = int(turns * max(2, min(20, self.args.budget / max(took, 1e-6))))

    def k_points(self):
        """1,000 words, each on a page of its own: every second page of a buffer that the loops do not touch."""
        base = self.sym["huge_buffer"]
        return [b"2,%x,8" % (base + 8192 * i + 64) for i in range(1000)]

    def k_watch(self, op):
        for point in self.k_points():
            reply = self.rsp.ask(op + point)
            if reply != b"OK":
                self.k_remove()
                raise UnsupportedError(f"{op.decode()}2 answered {reply!r}")

    def k_remove(self):
        for point in self.k_points():
            self.rsp.ask(b"z" + point)

    def k_mips(self):
        """i.mips, while 1,000 words elsewhere are watched."""
        self.k_watch(b"Z")
        self.rsp.resume(self.step)
        rate = self.i_mips()
        self.k_remove()
        return rate

    def k_set(self):
        """1,000 watch points, and a step with them."""
        self.k_remove()
        self.rsp.resume(self.step)
        start = clock()
        self.k_watch(b"Z")
        self.rsp.resume(self.step)
        return (clock() - start) * 1e3

    def k_again(self):
        """What gdb does at each stop: all out, all in again, and a step with them."""
        start = clock()
        self.k_watch(b"z")
        self.k_watch(b"Z")
        self.rsp.resume(self.step)
        return (clock() - start) * 1e3

    def i_exit(self):
        """MIPS of cpu_loop run to the guest's exit, no breakpoint anywhere (ends the session)."""
        turns = self.size(1.0, 10**9)
        self.command(CMD_CPU_EXIT, turns)
        start = clock()
        with suppress(EOFError, ConnectionError):
            self.rsp.resume(self.cont)
        return turns * CPU_INSNS / (clock() - start) / 1e6

    def j_reverse(self, packet):
        framed = Rsp.frame(packet)
        return self.rate(lambda: self.rsp.resume(framed), chunk=1)

    def run_reverse(self):
        """For a replay server: the guest runs its automatic program; nothing is written to it."""
        rsp, sym = self.rsp, self.sym
        self.results["a.handshake_ms"] = {"samples": [rsp.handshake * 1e3]}
        if rsp.features.get("ReverseStep") != "+":
            self.results["j.bs_per_s"] = {"why": "no: no ReverseStep+ in qSupported", "samples": []}
            return
        self.bp(b"Z", sym["hot_loop"])
        rsp.resume(self.cont)
        self.bp(b"z", sym["hot_loop"])
        for name, skip in (("near", 100), ("far", None)):
            if skip is None:
                self.bp(b"Z", sym["cpu_loop"])
                rsp.resume(self.cont)
                self.bp(b"z", sym["cpu_loop"])
            for _ in range(skip or 100):
                rsp.resume(self.step)
            self.record(f"j.bs_{name}_per_s", self.j_reverse, b"bs")
            self.bp(b"Z", sym["hot_function"])
            self.record(f"j.bc_{name}_per_s", self.j_reverse, b"bc", repeats=3)
            self.bp(b"z", sym["hot_function"])

    def run(self):
        rsp = self.rsp
        try:
            if self.args.reverse:
                return self.run_reverse()
            self.results["a.handshake_ms"] = {"samples": [rsp.handshake * 1e3]}
            self.to_ready()
            self.mips = self.args.mips
            if not self.mips:
                self.i_mips()
            self.record("b.qC_per_s", self.b_roundtrip, b"qC")
            self.record("b.?_per_s", self.b_roundtrip, b"?")
            self.record("c.step_per_s", self.c_step, [])
            self.record("c.step_g_per_s", self.c_step, [b"g"])
            self.record("d.gdb_cycle_per_s", self.d_gdb_cycle)
            self.record("d.server_cycle_per_s", self.d_server_cycle)
            try:
                unit = self.best_unit(b"m")
            except UnsupportedError:
                unit = 64
            self.unit = unit
            self.record("e.m_2k_MB_s", self.e_read, b"m", min(2040, unit))
            self.record("e.m_max_MB_s", self.e_read, b"m", unit)
            self.record("e.x_max_MB_s", self.e_read, b"x", self.best_unit(b"x"))
            self.record("e.M_max_MB_s", self.e_write, b"M")
            self.record("e.X_max_MB_s", self.e_write, b"X")
            self.record("f.g_per_s", self.b_roundtrip, b"g")
            self.record("g.client_false_per_s", self.g_client)
            self.record("g.target_false_per_s", self.g_target)
            self.record("h.far_plain_ns", self.h_loop, CMD_WATCH_FAR, False)
            self.record("h.far_watch_ns", self.h_loop, CMD_WATCH_FAR, True)
            self.record("h.near_plain_ns", self.h_loop, CMD_WATCH_NEAR, False)
            self.record("h.near_watch_ns", self.h_loop, CMD_WATCH_NEAR, True)
            self.record("i.mips", self.i_mips)
            self.record("i.mips_bp_elsewhere", self.i_mips, self.sym["hot_function"])
            self.record("i.mips_bp_same_page", self.i_mips, self.sym["cpu_never"])
            self.record("k.mips_1000_watches", self.k_mips, repeats=3)
            self.record("k.set_1000_watches_ms", self.k_set)
            self.record("k.again_1000_watches_ms", self.k_again)
            self.k_remove()
            if self.args.reconnect:
                self.record("a.connects_per_s", self.a_connect)
            if not self.args.no_exit:
                self.record("i.mips_to_exit", self.i_exit, repeats=1)
        except (TimeoutError, EOFError, OSError, UnsupportedError) as error:
            self.results["error"] = {"why": f"{type(error).__name__}: {error}", "samples": []}

    def report(self):
        return {
            "name": self.args.name,
            "packet_size": self.rsp.packet_size,
            "features": self.rsp.features,
            "vcont": self.rsp.vcont,
            "no_ack": not self.rsp.acks,
            "m_unit": getattr(self, "unit", None),
            "watch_stop": getattr(self, "watch_stop", None),
            "results": self.results,
        }


def show(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(results):
    lines = [f"{'measure':28}{'median':>14}{'min':>14}{'max':>14}{'n':>4}"]
    for key, entry in results.items():
        s = entry["samples"]
        if s:
            lines.append(f"{key:28}{show(statistics.median(s)):>14}{show(min(s)):>14}{show(max(s)):>14}{len(s):>4}")
        if entry.get("why"):
            lines.append(f"{key:28}  {entry['why']}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="HOST:PORT of the server")
    parser.add_argument("--elf", required=True, help="the benchmark guest, for its symbols")
    parser.add_argument("--name", default="server")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds of one repeat")
    parser.add_argument(
        "--measure-limit", type=float, default=10, help="no further repeat of a measure after so many seconds"
    )
    parser.add_argument("--timeout", type=float, default=30, help="seconds to wait for any one reply")
    parser.add_argument("--only", type=lambda s: set(s.split(",")), help="letters of the measures to run, as b,c,e")
    parser.add_argument(
        "--skip", type=lambda s: set(s.split(",")), default=set(), help="measures not to run, by key, as e.M_max_MB_s"
    )
    parser.add_argument("--mips", type=float, help="take the guest to be this fast, do not calibrate (code stays cold)")
    parser.add_argument("--hardware", action="store_true", help="Z1 in place of Z0")
    parser.add_argument("--reconnect", action="store_true", help="measure reconnecting (ends many servers)")
    parser.add_argument("--reverse", action="store_true", help="measure bs and bc on a replay")
    parser.add_argument("--no-exit", action="store_true", help="do not run the guest to its exit at the end")
    parser.add_argument("--json", help="also write the report here")
    args = parser.parse_args()
    bench = Bench(args)
    bench.run()
    report = bench.report()
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))
    print(json.dumps(report))
    print(table(report["results"]), file=sys.stderr)


if __name__ == "__main__":
    main()
