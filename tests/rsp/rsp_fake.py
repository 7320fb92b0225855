"""A target without a CPU: every instruction is one byte long and does nothing but go to the next.

Bytes of its text may be: 0x90 nothing, 0xcc trap of its own, 0xf4 end of the process, 0xb0 write to `DATA`, 0xa0 read
from it.
"""

import errno
from collections.abc import Iterator, Sequence

from xdbg.rsp import registers
from xdbg.rsp.replies import (
    ExitReply,
    HwBreak,
    StopEvent,
    StopReason,
    StopReply,
    SwBreak,
    WatchHit,
)
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import (
    BreakpointKind,
    FileStat,
    MemoryRegion,
    Program,
    ResumeAction,
    ResumeKind,
    TargetError,
    ThreadInfo,
    WatchKind,
    action_for,
)
from xdbg.rsp.threadid import Thread
from xdbg.rsp.tracepoints import (
    Action,
    FrameByNumber,
    FrameSearch,
    TraceEnd,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)

KERNEL = 0x400001
TEXT = 0x401000
DATA = 0x402000
STACK = 0x7FF000
PAGE = 0x1000


class FakeFile:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def stat(self) -> FileStat:
        return FileStat(len(self.data))

    def pread(self, count: int, offset: int) -> bytes:
        return self.data[offset : offset + count]


class BareTarget:
    """Threads, registers and memory; nothing that is optional."""

    def __init__(self) -> None:
        self.parts = ()
        self.infos = [
            ThreadInfo(Thread(KERNEL, 1), "vcpu0", 0, "running"),
            ThreadInfo(Thread(KERNEL, 2), 'v<&>"1', 1, "idle <&>"),
        ]
        self.regs = {}
        self.pages = {TEXT: bytearray(b"\x90" * PAGE), DATA: bytearray(PAGE), STACK: bytearray(PAGE)}
        self.status = StopReply(Signal.TRAP, self.infos[0].thread)
        for info in self.infos:
            self.add_registers(info.thread)

    def add_registers(self, thread: Thread) -> None:
        self.regs[thread] = [bytes(register.size) for register in registers.REGISTERS]
        self.set(thread, "rip", TEXT)
        self.set(thread, "rsp", STACK + 0x800)

    def set(self, thread: Thread, name: str, value: int) -> None:
        register = registers.BY_NAME[name]
        self.regs[thread][register.number] = value.to_bytes(register.size, "little")

    def get(self, thread: Thread, name: str) -> int:
        return int.from_bytes(self.regs[thread][registers.BY_NAME[name].number], "little")

    def threads(self) -> Sequence[ThreadInfo]:
        return tuple(self.infos)

    def is_alive(self, thread: Thread) -> bool:
        return any(info.thread == thread for info in self.infos)

    def stop_status(self) -> StopEvent:
        return self.status

    def read_registers(self, thread: Thread) -> bytes:
        return b"".join(self.regs[thread][: len(registers.G_REGISTERS)])

    def write_registers(self, thread: Thread, block: bytes) -> None:
        if len(block) != registers.G_SIZE:
            raise TargetError(errno.EINVAL, "a block has 560 bytes")
        for register in registers.G_REGISTERS:
            self.regs[thread][register.number] = block[register.offset : register.offset + register.size]

    def read_register(self, thread: Thread, regnum: int) -> bytes:
        if regnum >= len(registers.REGISTERS):
            raise TargetError(errno.EINVAL, "no such register")
        return self.regs[thread][regnum]

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        if len(value) != len(self.read_register(thread, regnum)):
            raise TargetError(errno.EINVAL, "wrong size")
        self.regs[thread][regnum] = value

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        del thread
        parts = []
        while length > 0 and (page := self.pages.get(vaddr & -PAGE)) is not None:
            part = bytes(page[vaddr % PAGE : vaddr % PAGE + length])
            parts.append(part)
            vaddr += len(part)
            length -= len(part)
        if not parts:
            raise TargetError(errno.EFAULT)
        return b"".join(parts)

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        if len(self.read_memory(thread, vaddr, len(data))) != len(data):
            raise TargetError(errno.EFAULT)
        for index, byte in enumerate(data, vaddr):
            self.pages[index & -PAGE][index % PAGE] = byte


class FakeTarget(BareTarget):
    """All capabilities of the protocol, except those of `ExpressionTarget`."""

    def __init__(self) -> None:
        super().__init__()
        self.points = set()
        self.actions = None
        self.interrupts = 0
        self.killed = []
        self.resumed = 0
        self.arguments = "quiet"

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        if any(action.signal == Signal.KILL for action in actions):
            raise TargetError(errno.EPERM, "no SIGKILL here")
        self.actions = tuple(actions)
        self.resumed += 1

    def interrupt(self) -> None:
        self.interrupts += 1

    def insert_breakpoint(self, thread: Thread, kind: int, vaddr: int) -> None:
        if vaddr == 0:
            raise TargetError(errno.EFAULT)
        self.points.add((thread.pid, kind, vaddr, 1))

    def remove_breakpoint(self, thread: Thread, kind: int, vaddr: int) -> None:
        self.points.discard((thread.pid, kind, vaddr, 1))

    def insert_watchpoint(self, thread: Thread, kind: int, vaddr: int, length: int) -> None:
        self.points.add((thread.pid, kind, vaddr, length))

    def remove_watchpoint(self, thread: Thread, kind: int, vaddr: int, length: int) -> None:
        self.points.discard((thread.pid, kind, vaddr, length))

    def target_xml(self, annex: str) -> bytes:
        return registers.description(annex)

    def exec_file(self, pid: int) -> str:
        if pid != KERNEL:
            raise TargetError(errno.ENOENT)
        return "/boot/fake"

    def auxv(self, thread: Thread) -> bytes:
        del thread
        return bytes(range(256)) * 2

    def open_file(self, pid: int, path: str) -> FakeFile:
        if path != "/proc/version":
            raise TargetError(errno.ENOENT)
        return FakeFile(b"}#$* %d" % pid)

    def read_link(self, pid: int, path: str) -> str:
        if path == "/proc/version":
            raise TargetError(errno.EINVAL)
        return "/proc/version" if path == "/link" else f"/link/{pid}{path}"

    def monitor(self, thread: Thread, command: str) -> Iterator[str]:
        yield f"{command} on {thread.pid if thread else None}\n"
        if command == "fail":
            raise TargetError(errno.EINVAL, "it failed")
        if command == "much":
            yield "x" * 10000

    def attach(self, pid: int) -> StopReply:
        if pid not in {7, 8}:
            raise TargetError(errno.ESRCH, "no such process")
        thread = Thread(pid, pid)
        self.infos.append(ThreadInfo(thread, f"process {pid}"))
        self.add_registers(thread)
        self.status = StopReply(Signal.ZERO, thread)
        return self.status

    def detach(self, pid: int) -> None:
        if all(info.thread.pid != pid for info in self.infos):
            raise TargetError(errno.ESRCH)
        self.infos = [info for info in self.infos if info.thread.pid != pid]

    def kill(self, pid: int) -> None:
        self.detach(pid)
        self.killed.append(pid)

    @property
    def program(self) -> Program:
        return Program(KERNEL, "/boot/fake", self.arguments)

    def restart(self, path: str, arguments: str | None) -> "FakeTarget":
        if path not in {"", "/boot/fake"}:
            raise TargetError(errno.ENOENT, "only the kernel")
        new = type(self)()
        new.arguments = self.arguments if arguments is None else arguments
        return new

    def memory_region(self, thread: Thread, vaddr: int) -> MemoryRegion:
        start = vaddr & -PAGE
        mapped = start in self.pages
        return MemoryRegion(start, PAGE, "rwx" if mapped else None, f"of {thread.tid}" if mapped else "")

    def run(self, limit: int = 10000) -> StopEvent:
        """Executes what the last `resume` asked for; returns the stop."""
        thread = next(i.thread for i in self.infos if (a := action_for(self.actions, i.thread)) and a.kind)
        for info in self.infos:
            action = action_for(self.actions, info.thread)
            if action is not None and action.kind in {ResumeKind.STEP, ResumeKind.RANGE_STEP}:
                thread = info.thread
        action = action_for(self.actions, thread)
        for count in range(limit):
            rip = self.get(thread, "rip")
            for kind, reason in ((BreakpointKind.SOFTWARE, SwBreak()), (BreakpointKind.HARDWARE, HwBreak())):
                if count and (thread.pid, kind, rip, 1) in self.points:
                    return self._stopped(thread, reason)
            opcode = self.read_memory(thread, rip, 1)[0]
            self.set(thread, "rip", rip + 1)
            if opcode == 0xF4:
                pid = thread.pid
                self.detach(pid)
                self.status = ExitReply(3, pid)
                return self.status
            if opcode == 0xCC:
                return self._stopped(thread)
            wanted = {0xB0: WatchKind.WRITE, 0xA0: WatchKind.READ}.get(opcode)
            if opcode == 0xB0:
                self.pages[DATA][0] += 1
            for _, kind, vaddr, length in sorted(self.points):
                if wanted and kind in {wanted, WatchKind.ACCESS} and vaddr <= DATA < vaddr + length:
                    return self._stopped(thread, WatchHit(kind, DATA))
            if action.kind is ResumeKind.STEP:
                return self._stopped(thread)
            if action.kind is ResumeKind.RANGE_STEP and not action.start <= rip + 1 < action.end:
                return self._stopped(thread)
        return self._stopped(thread, signal=Signal.INT)

    def _stopped(self, thread: Thread, *reasons: StopReason, signal: int = Signal.TRAP) -> StopReply:
        expedited = {n: self.regs[thread][n] for n in (registers.RBP, registers.RSP, registers.RIP)}
        self.status = StopReply(signal, thread, reasons, expedited, 0)
        return self.status


class NonStopTarget(FakeTarget):
    """Threads stop one by one: tests make the stops."""

    def __init__(self) -> None:
        super().__init__()
        self.held = {}
        self.thread_events = None
        self.options = {}

    def set_non_stop(self, on: bool) -> None:
        self.held = {info.thread: StopReply(Signal.ZERO, info.thread) for info in self.infos} if on else {}

    def stopped(self) -> Sequence[StopEvent]:
        return list(self.held.values())

    def report_threads(self, on: bool) -> None:
        self.thread_events = on

    def set_thread_options(self, options: dict[Thread, int]) -> None:
        self.options = options


class ExpressionTarget(NonStopTarget):
    """Takes conditions and commands in agent bytecode too."""

    def __init__(self) -> None:
        super().__init__()
        self.conditions = {}
        self.commands = {}

    def set_breakpoint_conditions(self, thread: Thread, kind: int, vaddr: int, conditions: Sequence[bytes]) -> None:
        del thread
        if b"\xff" in conditions:
            raise TargetError(errno.EINVAL, "unknown opcode")
        self.conditions[kind, vaddr] = conditions

    def set_breakpoint_commands(
        self, thread: Thread, kind: int, vaddr: int, commands: Sequence[bytes], *, persist: bool
    ) -> None:
        del thread
        self.commands[kind, vaddr] = (commands, persist)


class FakeFrame:
    """A frame with registers that count up from 1 and 16 bytes of memory at `DATA`; or with nothing but its place."""

    def __init__(self, number: int, *, full: bool) -> None:
        self.number = number
        self.tracepoint = 7
        self.rip = TEXT + number
        self.registers = bytes(index % 251 for index in range(registers.G_SIZE)) if full else None
        self.memory = {DATA: bytes(range(16))} if full else {}

    def read_memory(self, vaddr: int, length: int) -> bytes:
        for start, data in self.memory.items():
            if start <= vaddr < start + len(data):
                return data[vaddr - start :][:length]
        return b""

    def ranges(self) -> Sequence[tuple[int, int]]:
        return [(start, len(data)) for start, data in self.memory.items()]

    def variables(self) -> dict[int, int]:
        return {2: -2} if self.memory else {}


class FakeTracepoints:
    """Remembers what it is told; two frames are always there, the second with nothing collected."""

    def __init__(self) -> None:
        self.told = []
        self.whole = []
        self.state = TraceStatus(TraceEnd.NEVER_RUN, 0, "", 2, 3, 100, 4096, False, False, 0, 0, "", "")

    def init_trace(self) -> None:
        self.told.append("init")

    def define_tracepoint(self, thread: Thread, definition: TracepointDefinition, *, more: bool) -> None:
        self.told.append((thread, definition, more))

    def add_actions(
        self, tracepoint: TracepointId, actions: Sequence[Action], step_actions: Sequence[Action], *, more: bool
    ) -> None:
        self.told.append((tracepoint, actions, step_actions, more))

    def add_source(self, tracepoint: TracepointId, source: TracepointSource) -> None:
        self.told.append((tracepoint, source))

    def enable_tracepoint(self, tracepoint: TracepointId, *, enabled: bool) -> None:
        self.told.append((tracepoint, enabled))

    def tracepoints(self) -> Sequence[WholeTracepoint]:
        return self.whole

    def tracepoint_usage(self, tracepoint: TracepointId) -> tuple[int, int]:
        if tracepoint.number != 7:
            raise TargetError(errno.ENOENT, "no such tracepoint")
        return 3, 0x240

    def define_variable(self, variable: TraceVariable) -> None:
        self.told.append(variable)

    def trace_variables(self) -> Sequence[TraceVariable]:
        return [TraceVariable(1, 0, "clock", builtin=True), TraceVariable(2, -1, "n")]

    def trace_variable(self, number: int) -> int | None:
        return {1: 5, 2: -1}.get(number)

    def set_read_only(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.told.append(ranges)

    def is_read_only(self, vaddr: int) -> int:
        return TEXT + 8 - vaddr if TEXT <= vaddr < TEXT + 8 else 0

    def start_trace(self) -> None:
        self.told.append("start")

    def stop_trace(self) -> None:
        self.told.append("stop")

    def trace_status(self) -> TraceStatus:
        return self.state

    def set_disconnected_tracing(self, *, keeps: bool) -> None:
        self.told.append(("keeps", keeps))

    def set_circular_buffer(self, *, circular: bool) -> None:
        self.told.append(("circular", circular))

    def set_buffer_size(self, size: int | None) -> None:
        self.told.append(("size", size))

    def set_notes(self, *, user: str | None, notes: str | None, stop: str | None) -> None:
        self.told.append((user, notes, stop))

    def find_frame(self, search: FrameSearch, after: int | None) -> FakeFrame | None:
        self.told.append((search, after))
        number = search.number if isinstance(search, FrameByNumber) else 0 if after is None else after + 1
        return FakeFrame(number, full=number == 0) if number < 2 else None

    def read_trace_buffer(self, offset: int, length: int) -> bytes:
        if offset > 16:
            raise TargetError(errno.EINVAL, "beyond the end")
        return bytes(range(16))[offset : offset + length]


class TracingTarget(ExpressionTarget):
    """Has tracepoints too, as a part."""

    def __init__(self) -> None:
        super().__init__()
        self.tracepoints = FakeTracepoints()
        self.parts = (self.tracepoints,)


class EventPart:
    """Takes signals, system calls and events of processes, and notes what it was told."""

    def __init__(self) -> None:
        self.events = {}
        self.passed = self.programs = frozenset()
        self.caught = frozenset()
        self.siginfo = bytearray(range(128))

    def report_process_events(self, *, fork: bool, execs: bool) -> None:
        self.events = {"fork": fork, "execs": execs}

    def pass_signals(self, signals: frozenset[int]) -> None:
        self.passed = signals

    def program_signals(self, signals: frozenset[int]) -> None:
        self.programs = signals

    def read_siginfo(self, thread: Thread) -> bytes:
        if thread.tid != 1:
            raise TargetError(errno.ENODATA, "no signal")
        return bytes(self.siginfo)

    def write_siginfo(self, thread: Thread, offset: int, data: bytes) -> None:
        del thread
        if offset + len(data) > len(self.siginfo):
            raise TargetError(errno.EINVAL)
        self.siginfo[offset : offset + len(data)] = data

    def catch_syscalls(self, numbers: frozenset[int] | None) -> None:
        self.caught = numbers


class EventTarget(FakeTarget):
    """With such a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = EventPart()
        self.parts = (self.part,)
