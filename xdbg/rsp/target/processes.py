"""Processes: attaching, starting anew, and what happens to them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xdbg.rsp.replies import StopReply
from xdbg.rsp.target.basics import Target
from xdbg.rsp.threadid import Thread


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
