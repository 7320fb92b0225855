"""Thread ids of the remote protocol. GDB manual: "Packets", thread-id syntax.

Two types, because the wire's thread-id is used for two things. A `ThreadId` is a *pattern*: its process and its
thread may each be a number, "any" (0) or "all" (-1), and it must be resolved before anything is read through it.
A `Thread` is one existing thread. Patterns come from gdb; a target only ever hands out threads.

=========== ======================== ================================
wire        pattern                  meaning
=========== ======================== ================================
``p1.2``    ThreadId(1, 2)           thread 2 of process 1
``p1.-1``   ThreadId(1, ALL)         all threads of process 1
``p1``      ThreadId(1, ALL)         the same
``p1.0``    ThreadId(1, ANY)         some thread of process 1
``2``       ThreadId(ANY, 2)         thread 2, whichever process has it
``0``       ThreadId(ANY, ANY)       some thread
``-1``      ThreadId(ALL, ALL)       everything
=========== ======================== ================================

Numbers are hexadecimal on the wire.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

ANY: Final = 0
"""In a pattern: one process or thread, the receiver chooses."""
ALL: Final = -1
"""In a pattern: each process or thread."""

_PATTERN: Final = re.compile(rb"(?:p(-1|[0-9a-fA-F]{1,16})(?:\.(-1|[0-9a-fA-F]{1,16}))?|(-1|[0-9a-fA-F]{1,16}))\Z")


@dataclass(frozen=True, slots=True, order=True)
class Thread:
    """One existing thread: positive process and thread numbers as gdb sees them."""

    pid: int
    tid: int

    def encode(self, *, multiprocess: bool) -> bytes:
        """The wire form: ``pPID.TID`` once multiprocess has been agreed on, ``TID`` otherwise."""
        return b"p%x.%x" % (self.pid, self.tid) if multiprocess else b"%x" % self.tid

    def pattern(self) -> "ThreadId":
        """The pattern that matches this thread and no other."""
        return ThreadId(self.pid, self.tid)


@dataclass(frozen=True, slots=True)
class ThreadId:
    """A pattern over threads; see the table in this module's docstring."""

    pid: int
    tid: int

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """The pattern that a packet names. ValueError when it is none ("all processes, thread 2" included)."""
        found = _PATTERN.match(text)
        if found is None:
            raise ValueError(f"not a thread id: {text[:40]!r}")
        pid_text, tid_text, plain = found.groups()
        if plain is not None:
            tid = int(plain, 16)
            return cls(ALL if tid == ALL else ANY, tid)
        pid = int(pid_text, 16)
        tid = ALL if tid_text is None else int(tid_text, 16)
        if pid == ALL and tid != ALL:
            raise ValueError("one thread of all processes means nothing")
        return cls(pid, tid)

    def encode(self, *, multiprocess: bool) -> bytes:
        """The wire form; without multiprocess the process is left out."""
        tid = b"-1" if self.tid == ALL else b"%x" % self.tid
        if not multiprocess:
            return tid
        return b"p%s.%s" % (b"-1" if self.pid == ALL else b"%x" % self.pid, tid)

    def matches(self, thread: Thread) -> bool:
        """Whether the pattern covers a thread; "any" covers each, the choice among them is the caller's."""
        return (self.pid <= 0 or self.pid == thread.pid) and (self.tid <= 0 or self.tid == thread.tid)

    def exact(self) -> Thread | None:
        """The thread itself when both numbers are given, else None."""
        return Thread(self.pid, self.tid) if self.pid > 0 and self.tid > 0 else None


EVERY_THREAD: Final = ThreadId(ALL, ALL)
"""What a packet without a thread id means."""
