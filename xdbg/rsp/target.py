"""What gdb debugs, as the protocol sees it: one Protocol per capability.

A target implements `Target`, and as many of the other protocols as it can: itself, or by one of its `parts`. That
choice is the only switch: a packet whose capability the target lacks gets the empty reply ("not supported"), and
qSupported announces exactly what is implemented. Nothing here knows of sockets, packets or of what the target is made
of.

Rules for implementers:

- Everything is called while the guest stands still, except `Resume.interrupt`. In non-stop it stands still only for the
  length of the call.
- The `thread` that memory and breakpoint methods get says *whose* memory is meant: the address space of that thread's
  process. `threads()` lists only the processes that gdb is attached to; an empty list is legal (all were detached).
- A failure is `TargetError`, nothing else; it becomes ``E NN``, or ``E.text`` with a gdb that understands it.
- Nothing that only reads may change the guest, not even accessed bits.
- Addresses are plain integers below 2**64; lengths are positive and, for reads, at most half a packet.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from errno import EINVAL
from typing import Protocol, runtime_checkable

from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread, ThreadId
from xdbg.rsp.tracepoints import (
    Action,
    FrameSearch,
    TraceFrame,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)


class TargetError(Exception):
    """The target can't do what gdb asked.

    `errno` (Linux numbering) is sent as ``E NN``; `text` explains it to a client that takes text.
    """

    def __init__(self, errno: int = EINVAL, text: str = "") -> None:
        super().__init__(errno, text)
        self.errno = errno
        self.text = text


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A line of ``info threads``. `core` is the CPU that it runs on, `extra` free text in parentheses."""

    thread: Thread
    name: str = ""
    core: int | None = None
    extra: str = ""


class ResumeKind(Enum):
    """The actions of vCont; the value is the letter (``C`` and ``S`` are ``c`` and ``s`` with a signal)."""

    CONTINUE = b"c"
    STEP = b"s"
    STOP = b"t"
    RANGE_STEP = b"r"


@dataclass(frozen=True, slots=True)
class ResumeAction:
    """One action of vCont, for the threads that `pattern` covers.

    `signal` (gdb's numbering, 0 for none) is delivered on resume. A range step goes on while the thread's rip is in
    [`start`, `end`) and always makes at least one step.
    """

    pattern: ThreadId
    kind: ResumeKind
    signal: int = Signal.ZERO
    start: int = 0
    end: int = 0


def action_for(actions: Sequence[ResumeAction], thread: Thread) -> ResumeAction | None:
    """The action of a thread: the leftmost that covers it wins. None: the thread stays stopped."""
    for action in actions:
        if action.pattern.matches(thread):
            return action
    return None


class BreakpointKind(IntEnum):
    """Z0 and Z1. gdb may set both at one address; each is inserted and removed on its own."""

    SOFTWARE = 0
    HARDWARE = 1


class WatchKind(IntEnum):
    """Z2, Z3 and Z4: stop after a write, a read, or either."""

    WRITE = 2
    READ = 3
    ACCESS = 4


@dataclass(frozen=True, slots=True)
class FileStat:
    """What gdb learns of a file by vFile:fstat (struct stat of the File-I/O extension)."""

    size: int
    mode: int = 0o100444
    inode: int = 0
    mtime: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """[start, start + size) of an address space. `rights` of the letters rwx, None where nothing is mapped."""

    start: int
    size: int
    rights: str | None = None
    name: str = ""


class File(Protocol):
    """An open file that gdb reads."""

    def stat(self) -> FileStat:
        """Its size and mode."""
        ...

    def pread(self, count: int, offset: int) -> bytes:
        """At most `count` bytes from `offset`; none at the end of the file."""
        ...


@runtime_checkable
class Target(Protocol):
    """What each target must have: threads, registers, memory."""

    @property
    def parts(self) -> Sequence[object]:
        """Objects that implement protocols which the target itself does not. They stay the same for its life."""
        ...

    def threads(self) -> Sequence[ThreadInfo]:
        """The threads of all attached processes, in a stable order, the first process first."""
        ...

    def is_alive(self, thread: Thread) -> bool:
        """Whether `threads()` would list it."""
        ...

    def stop_status(self) -> StopEvent:
        """Why the target stands still now: the answer to ``?``, also before the first resume.

        With no process attached it is ``ExitReply(0)``.
        """
        ...

    def read_registers(self, thread: Thread) -> bytes:
        """The `g` block: 560 bytes, laid out as `registers` says."""
        ...

    def write_registers(self, thread: Thread, block: bytes) -> None:
        """Sets all registers of the `g` block (560 bytes)."""
        ...

    def read_register(self, thread: Thread, regnum: int) -> bytes:
        """One register by gdb's number, little-endian; those beyond the `g` block too. TargetError if unknown."""
        ...

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        """Sets one register; `value` has the register's size in `registers`, little-endian."""
        ...

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        """Memory from `vaddr`; may be short at an unreadable page. TargetError(EFAULT) when not one byte can be read.

        What the guest has put there: never a breakpoint instruction of ours.
        """
        ...

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        """Writes all of `data`, whatever the page's permissions; TargetError(EFAULT) if a page is missing."""
        ...


@runtime_checkable
class LoadAddresses(Protocol):
    """Programs that do not lie where their file says: a kernel with load addresses, a position-independent program."""

    def loaded_at(self, thread: Thread, address: int, length: int) -> int:
        """Where the program of a thread's process has what its file loads at `address`.

        `address` itself, unless all of [address, address + length) is loaded by the file.
        """
        ...


@runtime_checkable
class Resume(Protocol):
    """vCont, c, C, s, S and Ctrl-C."""

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Arranges how the threads go on; the guest is run afterwards by the session, never from in here.

        See `action_for`. The session answers later with `Connection.stop`. After a TargetError nothing has changed
        and the client stays in control.
        """
        ...

    def interrupt(self) -> None:
        """Ctrl-C: the guest shall stop soon with `Signal.INT`. Called while it runs; must be quick."""
        ...


@runtime_checkable
class NonStop(Protocol):
    """QNonStop: each thread stops and goes on by itself, and requests are answered while others run.

    `Resume.resume` then resumes those threads among the covered ones that stand still, and stops those that the
    action ``t`` covers; both are told as events of single threads (signal 0 for ``t``).
    """

    def set_non_stop(self, on: bool) -> None:
        """From now on so, or all together again. Nothing runs afterwards."""
        ...

    def stopped(self) -> Sequence[StopEvent]:
        """The last stop of each thread that stands still: the answer to ``?``. Signal 0: since before the session."""
        ...


class ThreadOptions(IntFlag):
    """Which events of a thread are told even though QThreadEvents is off. GDB manual: QThreadOptions."""

    CLONE = 1  #: it made another thread
    EXIT = 2  #: it ended, and its process goes on


@runtime_checkable
class ThreadEvents(Protocol):
    """QThreadEvents and QThreadOptions: threads that come and go within a process."""

    def report_threads(self, on: bool) -> None:
        """Whether new and ended threads of all processes are told."""
        ...

    def set_thread_options(self, options: Mapping[Thread, ThreadOptions]) -> None:
        """Replaces the options of these threads. New threads have none."""
        ...


@runtime_checkable
class Breakpoints(Protocol):
    """Z0, Z1, z0, z1: stop before the instruction at `vaddr` is executed. Both methods are idempotent."""

    def insert_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """In the address space of `thread`. The page need not be mapped yet."""
        ...

    def remove_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """No error when there is none."""
        ...


@runtime_checkable
class BreakpointConditions(Protocol):
    """ConditionalBreakpoints: conditions in agent bytecode, evaluated by the target."""

    def set_breakpoint_conditions(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, conditions: Sequence[bytes]
    ) -> None:
        """Called after each `insert_breakpoint`; stop when any of them is not zero. None: stop always."""
        ...


@runtime_checkable
class BreakpointCommands(Protocol):
    """BreakpointCommands: agent bytecode run at each hit of a breakpoint (dprintf-style agent)."""

    def set_breakpoint_commands(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, commands: Sequence[bytes], *, persist: bool
    ) -> None:
        """Called after each `insert_breakpoint`; `persist`: keep running them when gdb has left."""
        ...


@runtime_checkable
class Watchpoints(Protocol):
    """Z2 to Z4, z2 to z4: stop after the access. Any length, any number; both methods are idempotent."""

    def insert_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """Watches [vaddr, vaddr + length) in the address space of `thread`."""
        ...

    def remove_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """No error when there is none."""
        ...


@runtime_checkable
class Description(Protocol):
    """qXfer:features:read."""

    def target_xml(self, annex: str) -> bytes:
        """The document `annex`, first asked is "target.xml"; `registers.description` has ours."""
        ...


@runtime_checkable
class ExecFile(Protocol):
    """qXfer:exec-file:read."""

    def exec_file(self, pid: int) -> str:
        """The path of a process's program as `HostIo.open_file` takes it. TargetError(ENOENT) when unknown."""
        ...


@runtime_checkable
class Auxv(Protocol):
    """qXfer:auxv:read."""

    def auxv(self, thread: Thread) -> bytes:
        """The auxiliary vector of the thread's process: pairs of 64-bit words. TargetError when it has none."""
        ...


@dataclass(frozen=True, slots=True)
class OsTable:
    """A table of ``info os``: the names of its columns, and rows of as many texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class OsTableName:
    """A table that there is: its name, what it lists, and its title."""

    name: str
    description: str
    title: str


@runtime_checkable
class OsData(Protocol):
    """qXfer:osdata:read."""

    def os_tables(self) -> Sequence[OsTableName]:
        """All tables, in the order in which they are to be shown."""
        ...

    def os_table(self, name: str) -> OsTable:
        """One table, as things are now. TargetError(ENOENT) when there is none of that name."""
        ...


@runtime_checkable
class HostIo(Protocol):
    """vFile: the files that gdb may read. Read-only; descriptors are kept by the connection."""

    def open_file(self, pid: int, path: str) -> File:
        """A file as process `pid` sees it (0: as the target's root sees it). TargetError(ENOENT) and its like."""
        ...

    def read_link(self, pid: int, path: str) -> str:
        """Where a symbolic link points. TargetError(EINVAL) when it is none."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """qRcmd: the user's ``monitor COMMAND``."""

    def monitor(self, thread: Thread | None, command: str) -> Iterable[str]:
        """Output in pieces of any size, with newlines. `thread`: the one that gdb looks at, if there is any.

        TargetError, also in the middle: what was output is shown, then the error.
        """
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """What a target runs: `pid` as gdb sees it, `path` as `ExecFile` gives it, `arguments` as one line."""

    pid: int
    path: str
    arguments: str


@runtime_checkable
class Restart(Protocol):
    """vRun, R and qExecAndArgs: the one program that the target runs, again from its beginning."""

    @property
    def program(self) -> Program:
        """What runs now."""
        ...

    def restart(self, path: str, arguments: str | None) -> Target:
        """Ends what runs; what is to be debugged from now on, before its first instruction.

        `path` empty: the same program; another one is a TargetError, and nothing has changed. `arguments` None: the
        same as now.
        """
        ...


@runtime_checkable
class MemoryRegions(Protocol):
    """qMemoryRegionInfo."""

    def memory_region(self, thread: Thread, vaddr: int) -> MemoryRegion:
        """The region around an address, or the hole that it is in."""
        ...


@runtime_checkable
class Processes(Protocol):
    """vAttach, vKill and ``D;PID``: several processes in one session."""

    def attach(self, pid: int) -> StopReply:
        """Adds a process; its threads are listed from now on. The stop that gdb is shown (signal 0 or TRAP)."""
        ...

    def detach(self, pid: int) -> None:
        """Lets go of a process, its break and watch points included."""
        ...

    def kill(self, pid: int) -> None:
        """Ends a process. TargetError when that can't be done to this one."""
        ...


@runtime_checkable
class Tracepoints(Protocol):
    """QTDP, QTStart, QTFrame, qTStatus and all the others: data is collected where the guest comes by, without a stop.

    What they do is the target's own: it stays when a client leaves.
    """

    def init_trace(self) -> None:
        """Ends a trace; drops all tracepoints, variables that are not builtin, ranges and frames."""
        ...

    def define_tracepoint(self, thread: Thread, definition: TracepointDefinition, *, more: bool) -> None:
        """In the address space of `thread`. `more`: it is complete only with the actions that follow."""
        ...

    def add_actions(
        self, tracepoint: TracepointId, actions: Sequence[Action], step_actions: Sequence[Action], *, more: bool
    ) -> None:
        """More actions; those behind the first step action are step actions, too. TargetError(ENOENT)."""
        ...

    def add_source(self, tracepoint: TracepointId, source: TracepointSource) -> None:
        """A piece of source text. TargetError(ENOENT)."""
        ...

    def enable_tracepoint(self, tracepoint: TracepointId, *, enabled: bool) -> None:
        """Also while the trace runs. TargetError(ENOENT)."""
        ...

    def tracepoints(self) -> Sequence[WholeTracepoint]:
        """All that are defined."""
        ...

    def tracepoint_usage(self, tracepoint: TracepointId) -> tuple[int, int]:
        """How often it was hit, and the bytes that its frames took. TargetError(ENOENT)."""
        ...

    def define_variable(self, variable: TraceVariable) -> None:
        """A trace state variable; it has its initial value at once."""
        ...

    def trace_variables(self) -> Sequence[TraceVariable]:
        """All, those that are builtin too."""
        ...

    def trace_variable(self, number: int) -> int | None:
        """The present value; None if there is no such variable."""
        ...

    def set_read_only(self, ranges: Sequence[tuple[int, int]]) -> None:
        """(start, end) of memory that never changes, and is read from the guest while a frame is looked at."""
        ...

    def is_read_only(self, vaddr: int) -> int:
        """How many bytes from `vaddr` on are in such a range."""
        ...

    def start_trace(self) -> None:
        """From the next resume on, hits are collected. The buffer is emptied. TargetError: it runs already."""
        ...

    def stop_trace(self) -> None:
        """No error if none runs."""
        ...

    def trace_status(self) -> TraceStatus:
        """What the trace is doing."""
        ...

    def set_disconnected_tracing(self, *, keeps: bool) -> None:
        """Whether a trace goes on when the client leaves."""
        ...

    def set_circular_buffer(self, *, circular: bool) -> None:
        """Whether the oldest frames make room for new ones, instead of the trace ending."""
        ...

    def set_buffer_size(self, size: int | None) -> None:
        """Bytes; None is the target's choice. TargetError: while a trace runs, and for a size that is too large."""
        ...

    def set_notes(self, *, user: str | None, notes: str | None, stop: str | None) -> None:
        """Texts that trace_status tells again; None: unchanged."""
        ...

    def find_frame(self, search: FrameSearch, after: int | None) -> TraceFrame | None:
        """A frame; the searches begin behind frame number `after`, or with the first."""
        ...

    def read_trace_buffer(self, offset: int, length: int) -> bytes:
        """Frames as a trace file has them, one behind the other; nothing at the end. TargetError(EINVAL) beyond it."""
        ...


@runtime_checkable
class ProcessEvents(Protocol):
    """fork-events and exec-events: processes that make others, and that become another program."""

    def report_process_events(self, *, fork: bool, execs: bool) -> None:
        """What the client takes. Without `fork` a child is nobody's business, without `execs` a new program neither."""
        ...


@runtime_checkable
class SignalFilter(Protocol):
    """QPassSignals and QProgramSignals. Signals have gdb's numbers."""

    def pass_signals(self, signals: frozenset[int]) -> None:
        """Those at which processes don't stop: they just get them."""
        ...

    def program_signals(self, signals: frozenset[int]) -> None:
        """Those that a process which is let go of still gets, if it stands at one."""
        ...


@runtime_checkable
class SignalInformation(Protocol):
    """qXfer:siginfo: the signal at which a thread stands, as a siginfo_t of Linux on x86-64."""

    def read_siginfo(self, thread: Thread) -> bytes:
        """128 bytes. TargetError if the thread does not stand at a signal."""
        ...

    def write_siginfo(self, thread: Thread, offset: int, data: bytes) -> None:
        """Changes a part; the process gets the signal as it then is. TargetError as for reading."""
        ...


@runtime_checkable
class SyscallCatching(Protocol):
    """QCatchSyscalls."""

    def catch_syscalls(self, numbers: frozenset[int] | None) -> None:
        """Stop at the entry to and the return from these system calls; None: from all."""
        ...
