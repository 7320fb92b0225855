"""Which exits are gdb's business, and what it is told of them.

The domain always runs as a whole: with one inferior resumed and another not, both execute. What vCont's actions
select is whose stops are told. A thread is *covered* when its action is to continue or to step; for a thread that is
not covered there are no stops at all, and what would have stopped it passes unnoticed. In non-stop a thread is covered
while it does not stand still (`holding`). Only vcpus that are not resumed while others are stand still: gdb steps one
over a breakpoint that it has taken out for that, and a user may want one alone to go on (`scheduler-locking`).

A breakpoint or watch point stops the inferior that set it. Where several did, a guest in user mode stops its process
and a guest in kernel mode its kernel. For a process a hit counts only while a vcpu runs it, or the kernel on its
behalf: another process that executes the same shared frame or writes to it is none of its business.

Only hits of gdb's own break and watch points carry a reason; gdb would take any other stop with a reason for a
breakpoint that it has just removed, and resume without a word. Everything else is a plain signal: TRAP for a step
that is done and for an int3 that the debugger itself wrote into memory, INT for Ctrl-C, ABRT for a domain that
crashed (the next resume then ends it). A domain that shuts down in an orderly way ends all inferiors, one stop reply
each.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from xdbg.abi.sched import Shutdown
from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.points.agent import BreakpointAgent
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.rsp.replies import ExitReply, NoResumed, SignalledReply, StopEvent, StopReason, StopReply, WatchHit
from xdbg.rsp.signals import Signal, from_linux
from xdbg.rsp.target import ResumeAction, ResumeKind, action_for
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .holding import Holding

CRASHES: Final = frozenset({Shutdown.CRASH, Shutdown.WATCHDOG})
"""Shutdown codes that mean that the domain did not want to end."""


class Stops:
    """Turns what happened into stop events, for the threads that the last resume covered."""

    def __init__(self, inferiors: Inferiors, breakpoints: Breakpoints, console: Console) -> None:
        self._inferiors = inferiors
        self._breakpoints = breakpoints
        self.holding = Holding(inferiors)
        """Which threads stand still in non-stop."""
        self.agent = BreakpointAgent(inferiors, breakpoints, console)
        self._actions: Sequence[ResumeAction] = ()
        self._crash_told = False
        self._crashed: Thread | None = None
        self._console = console
        self._in_kernel: tuple[StopReply, int] | None = None

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """These are the actions from now on."""
        self._actions = actions

    def covers(self, thread: Thread) -> bool:
        """Whether stops of a thread are told."""
        if not self._inferiors.is_alive(thread):
            return False
        return not self.holding.holds(thread) if self.holding.on else self.asked_for(thread)

    def asked_for(self, thread: Thread) -> bool:
        """Whether the actions resume a thread, be it attached still or not. In non-stop gdb is told of it anyway."""
        if self.holding.on:
            return True
        action = action_for(self._actions, thread)
        return action is not None and action.kind is not ResumeKind.STOP

    def steps(self, thread: Thread) -> bool:
        """Whether the actions have a thread step."""
        action = action_for(self._actions, thread)
        return action is not None and action.kind in (ResumeKind.STEP, ResumeKind.RANGE_STEP)

    def signal_for(self, thread: Thread) -> int | None:
        """The signal with which the actions resume a thread, in gdb's numbering; None: they do not resume it."""
        action = action_for(self._actions, thread)
        return None if action is None or action.kind is ResumeKind.STOP else action.signal

    def covered(self) -> list[Thread]:
        """All threads whose stops are told."""
        return [
            thread
            for pid in self._inferiors.pids()
            for thread in self._inferiors.threads_of(pid)
            if self.covers(thread)
        ]

    def covers_any(self) -> bool:
        """Whether `covered` has any."""
        inferiors = self._inferiors
        return any(self.covers(thread) for pid in inferiors.pids() for thread in inferiors.threads_of(pid))

    # -- what happened

    def breakpoint(self, vcpu: Vcpu, vaddr: int) -> StopReply | None:
        """The vcpu is about to execute a stop point. None if it is nobody's who is covered and wants to stop.

        Commands that belong to it are run.
        """
        stop: StopReply | None = None
        for pid in self._in_order(vcpu, self._breakpoints.pids_at(vaddr)):
            thread = self.thread_behind(vcpu, pid)
            reason = None if thread is None else self.agent.hit(vcpu, thread, vaddr)
            if thread is not None and reason is not None and stop is None:
                # A process for which the kernel is at work shows where it was in user mode, and gdb would take that
                # for a breakpoint which it has just removed.
                is_there = self._inferiors.rip(thread) == vaddr
                stop = self.reply(Signal.TRAP, thread, vcpu, (reason,) if is_there else ())
                if not is_there:
                    self._in_kernel = stop, vaddr
                    self._console.say(f"Breakpoint of process {pid} in its kernel, at {vaddr:#x}.")
        return stop

    def place_in_kernel(self, stop: StopEvent) -> int | None:
        """Where in its kernel a breakpoint of a process was reached, if that made this stop."""
        return self._in_kernel[1] if self._in_kernel is not None and self._in_kernel[0] is stop else None

    def watch(self, vcpu: Vcpu, hits: Sequence[tuple[int, WatchHit]]) -> StopReply | None:
        """Watched bytes were touched by the vcpu, or by Xen on its way. None if it is nobody's who is covered."""
        for pid in self._in_order(vcpu, dict.fromkeys(pid for pid, _ in hits)):
            thread = self.thread_behind(vcpu, pid)
            if thread is not None:
                by_place: dict[int, WatchHit] = {}
                for owner, hit in hits:
                    if owner == pid:
                        by_place.setdefault(hit.vaddr, hit)
                return self.reply(Signal.TRAP, thread, vcpu, tuple(by_place.values()))
        return None

    def step_done(self, thread: Thread, vcpu: Vcpu) -> StopReply:
        """A step is complete."""
        return self.reply(Signal.TRAP, thread, vcpu)

    def own_int3(self, vcpu: Vcpu) -> StopReply | None:
        """The vcpu has executed an int3 that the debugger wrote into memory."""
        for thread in self.threads_on(vcpu):
            if self.covers(thread):
                return self.reply(Signal.TRAP, thread, vcpu)
        return None

    def interrupted(self, vcpu: Vcpu) -> StopReply | NoResumed:
        """Ctrl-C: told for what the vcpu is doing now, if that is covered, or else for the first thread that is."""
        candidates = [thread for thread in self.threads_on(vcpu) if self.covers(thread)] or self.covered()
        return self.reply(Signal.INT, candidates[0], vcpu) if candidates else NoResumed()

    def standing(self) -> StopEvent:
        """The domain stands still and nothing has happened: the state at the beginning of a session."""
        pids = self._inferiors.pids()
        if not pids:
            return ExitReply(0)
        current = self._inferiors.domain.hv.current
        vcpu = self._inferiors.domain.vcpus[0]
        if current is not None and current.domain is vcpu.domain:
            vcpu = current
        kernel = self._inferiors.vcpu_thread(vcpu)
        thread = kernel if kernel.pid == pids[0] else self._inferiors.threads_of(pids[0])[0]
        return self.reply(Signal.TRAP, thread, vcpu)

    def exited(self, pid: int, status: int, signal: int = 0) -> ExitReply | SignalledReply:
        """A process of the guest has ended, by a signal (Linux's number) if that is not 0."""
        return SignalledReply(from_linux(signal), pid) if signal else ExitReply(status & 0xFF, pid)

    def domain_ended(self, vcpu: Vcpu) -> StopEvent:
        """The domain has shut down. A crash is first told as a signal, while everything can still be looked at."""
        code = self._inferiors.domain.shutdown_code
        crashed = code in CRASHES
        threads = self.covered()
        if crashed and not self._crash_told and threads:
            self._crash_told = True
            on_vcpu = [thread for thread in self.threads_on(vcpu) if thread in threads]
            return self.reply(Signal.ABRT, (on_vcpu or threads)[0], vcpu)
        if not threads:
            return NoResumed()
        return self._ends_with_domain(threads[0].pid)

    def next_end(self) -> StopEvent | None:
        """Non-stop: the domain has shut down, and the inferiors end one by one. None: there is nothing to tell.

        After a crash they do when the thread that it was told for has been resumed.
        """
        pids = self._inferiors.pids()
        if self._inferiors.domain.shutdown_code in CRASHES:
            if not self._crash_told and (threads := self.covered()):
                self._crash_told = True
                current = self._inferiors.domain.hv.current
                is_ours = current is not None and current.domain is self._inferiors.domain
                on_vcpu = [one for one in self.threads_on(current) if one in threads] if current and is_ours else []
                self._crashed = (on_vcpu or threads)[0]
                return self.reply(Signal.ABRT, self._crashed, self._inferiors.domain.vcpus[0])
            if self._crashed is not None and self.holding.holds(self._crashed):
                return None
        return self._ends_with_domain(pids[0]) if pids else None

    def _ends_with_domain(self, pid: int) -> ExitReply | SignalledReply:
        code = self._inferiors.domain.shutdown_code
        self._inferiors.detach(pid)
        self._breakpoints.forget(pid)
        if code in CRASHES:
            return SignalledReply(Signal.ABRT, pid)
        return ExitReply(0 if code == Shutdown.POWEROFF else (code or 0), pid)

    # -- what sources of stops make theirs of

    def _in_order(self, vcpu: Vcpu, pids: Iterable[int]) -> list[int]:
        """Processes before the kernel in user mode, behind it in kernel mode."""
        return sorted(pids, key=lambda pid: (pid == KERNEL_PID) != vcpu.kernel_mode)

    def thread_behind(self, vcpu: Vcpu, pid: int) -> Thread | None:
        """The thread of an inferior that a hit on the vcpu is told for, if it is covered."""
        if pid == KERNEL_PID:
            thread = self._inferiors.vcpu_thread(vcpu)
        elif self._inferiors.is_behind(vcpu, pid):
            thread = self._inferiors.threads_of(pid)[0]
        else:
            return None
        return thread if self.covers(thread) else None

    def threads_on(self, vcpu: Vcpu) -> list[Thread]:
        """The threads that show what the vcpu is doing, the closest first."""
        inferiors = self._inferiors
        threads = [Thread(pid, pid) for pid in inferiors.process_ids() if inferiors.runs(vcpu, pid)]
        return [*threads, inferiors.vcpu_thread(vcpu)]

    def reply(self, signal: int, thread: Thread, vcpu: Vcpu, reasons: tuple[StopReason, ...] = ()) -> StopReply:
        """A stop of `thread`, with the registers that gdb asks for first."""
        self._inferiors.stale()  # the kernel may have saved other registers since processes were looked at
        return StopReply(signal, thread, reasons, self._inferiors.expedited(thread), vcpu.vcpu_id)
