"""Letting the guest run: vCont and Ctrl-C, all threads together or one by one, and threads that come and go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Protocol, runtime_checkable

from xdbg.rsp.replies import StopEvent
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread, ThreadId


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
