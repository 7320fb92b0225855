"""Where tracepoints are met, and the steps behind them: the trace among what looks at the guest as it runs.

A tracepoint is met where a breakpoint of its inferior would stop: one of the kernel at its address in any address
space, one of a process under that process's page tables, or, at an address of the upper half, while the kernel runs on
the process's behalf. It does not matter which inferiors gdb has resumed. Tracepoints of a process that gdb has let go
count only if the trace is to go on without gdb.

The steps of ``while-stepping`` are not taken by single-stepping: the guest is only entered for one instruction at a
time, so everything due in it happens when it would. The steps of a kernel's tracepoint are the instructions of the vcpu
that hit it, wherever they are, also in an upcall's handler. Those of a process's tracepoint are the instructions of
that process in user mode: one that enters the kernel is complete when the process is back, and one that faulted and is
tried again is one step. A process that gets other page tables on its way, or ends, takes no more steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.inferiors.address_space import KERNEL_HALF
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.points.agent import BreakpointAgent
from xdbg.debug.points.breakpoints import Breakpoints, ConditionalPoint
from xdbg.debug.points.conditions import Placement, predicate_for
from xdbg.debug.running.following import Following
from xdbg.debug.running.sources import Sources, StopSource
from xdbg.machine.exits import Exit
from xdbg.rsp.tracepoints import TraceEnd
from xdbg.xen.vcpu import Vcpu

from .definitions import Tracepoint
from .recording import Recording

_PURPOSE = "tracepoints"


@dataclass(slots=True)
class _Walk:
    """The steps behind one hit. `user_cr3`: those of a process; None: those of `vcpu`. `rip`, `count`: the last."""

    tracepoint: Tracepoint
    vcpu: Vcpu
    user_cr3: Maddr | None
    left: int
    rip: int
    count: int
    away: bool = False
    """The process has entered its kernel."""

    def is_on(self, vcpu: Vcpu) -> bool:
        """Whether the next instruction of a vcpu is a step."""
        if self.user_cr3 is None:
            return vcpu is self.vcpu
        return not vcpu.kernel_mode and vcpu.cr3 == self.user_cr3


class TraceSource(StopSource):
    """A member of `Sources` while a trace runs. It never stops anything."""

    def __init__(
        self,
        recording: Recording,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        following: Following,
        sources: Sources,
        agent: BreakpointAgent,
    ) -> None:
        self._recording = recording
        self._hv = recording.hv
        self._inferiors = inferiors
        self._breakpoints = breakpoints
        self._following = following
        self._sources = sources
        self._agent = agent
        self._walks: list[_Walk] = []
        self._tables: dict[int, tuple[Maddr, ...]] = {}
        """The page tables of each process that has tracepoints."""
        self._seen: tuple[int, int | None] | None = None
        """The vcpu's page tables when those of processes were last looked at."""

    def start(self) -> None:
        """The trace runs from the next resume on."""
        self._sources.add(self)

    def stop(self) -> None:
        """The trace has ended."""
        self._walks.clear()
        self._sources.remove(self)
        self._breakpoints.set_internal(_PURPOSE, ())
        self._following.install_breakpoints()

    # -- StopSource

    def prepare(self) -> None:
        """Tracepoints may be other ones, and processes attached or let go."""
        self._look_at_processes()
        self._place()

    def after(self, vcpu: Vcpu, came: Exit) -> None:
        """Processes may have other page tables now."""
        del came
        tables = (vcpu.guest_table, vcpu.guest_table_user)
        if tables != self._seen:
            self._seen = tables
            before = self._tables
            self._look_at_processes()
            if self._tables != before:
                self._place()
                self._following.install_breakpoints()

    def reached(self, vcpu: Vcpu, vaddr: Vaddr) -> None:
        """The vcpu is about to execute the instruction there."""
        recording = self._recording
        for tracepoint in recording.definitions.at(vaddr):
            self._agent.evaluations += tracepoint.weight(tracepoint.at_hit)
            if recording.runs and self._counts(vcpu, tracepoint) and recording.hit(vcpu, tracepoint):
                follows_process = tracepoint.pid != KERNEL_PID and not vcpu.kernel_mode
                user_cr3 = vcpu.cr3 if follows_process else None
                steps, count = tracepoint.definition.steps, self._hv.cpu.count
                self._walks.append(_Walk(tracepoint, vcpu, user_cr3, steps, vaddr, count))
        self._end_if_ended()

    def limit(self, vcpu: Vcpu, limit: int) -> int:
        """One instruction at a time while steps are due."""
        if self._walks and any(walk.is_on(vcpu) for walk in self._walks):
            return min(limit, self._hv.cpu.count + 1)
        return limit

    def ran(self, vcpu: Vcpu) -> None:
        """The vcpu has executed something, or not."""
        if not self._walks:
            return
        cpu = self._hv.cpu
        for walk in self._walks:
            if not walk.is_on(vcpu):
                walk.away = walk.away or vcpu is walk.vcpu
                continue
            moved = walk.rip != cpu.rip if walk.away else (walk.rip, walk.count) != (cpu.rip, cpu.count)
            walk.vcpu, walk.rip, walk.count, walk.away = vcpu, cpu.rip, cpu.count, False
            if moved and self._recording.runs:
                walk.left -= 1
                self._agent.evaluations += walk.tracepoint.weight(walk.tracepoint.at_step)
                self._recording.stepped(vcpu, walk.tracepoint)
                if not walk.left:
                    self._recording.complete(walk.tracepoint)
        self._walks = [walk for walk in self._walks if walk.left]
        self._end_if_ended()

    def clear(self) -> None:
        """The debugger has gone."""
        if not self._recording.keeps:
            self._recording.stop(TraceEnd.DISCONNECTED)
        self._end_if_ended()

    # -- inside

    def _end_if_ended(self) -> None:
        if not self._recording.runs:
            self.stop()

    def _counts(self, vcpu: Vcpu, tracepoint: Tracepoint) -> bool:
        """Whether what the vcpu is about to do is done by, or for, the tracepoint's inferior."""
        if tracepoint.pid == KERNEL_PID:
            return True
        tables = self._tables.get(tracepoint.pid, ())
        if tracepoint.vaddr < KERNEL_HALF:
            return vcpu.cr3 in tables
        user = vcpu.guest_table_user
        return vcpu.kernel_cr3 in tables or (user is not None and user << 12 in tables)

    def _look_at_processes(self) -> None:
        owners = dict.fromkeys(one.pid for one in self._recording.definitions if one.pid != KERNEL_PID)
        self._tables = {pid: self._tables_of(pid) for pid in owners}
        for walk in self._walks:
            if walk.user_cr3 is not None and walk.user_cr3 not in self._tables.get(walk.tracepoint.pid, ()):
                walk.left = 0
        self._walks = [walk for walk in self._walks if walk.left]

    def _tables_of(self, pid: int) -> tuple[Maddr, ...]:
        if pid in self._inferiors.process_ids():
            return self._inferiors.tables_of(pid)
        process = self._inferiors.profile.process(pid) if self._recording.keeps else None
        if process is None or process.ended:
            return ()
        return tuple(dict.fromkeys(cr3 for cr3 in (process.cr3, process.kernel_cr3) if cr3 is not None))

    def _place(self) -> None:
        """Stop points of our own wherever a tracepoint is to be met; the engine looks at conditions if it can."""
        points: list[ConditionalPoint] = []
        for one in self._recording.definitions:
            if one.complete and one.definition.enabled:
                conditions = (one.condition,) if one.condition is not None and one.condition.has_result else ()
                vaddr = Vaddr(one.vaddr)
                points += [
                    (vaddr, cr3, predicate_for(conditions, vaddr, Placement(cr3))) for cr3 in self._page_tables(one)
                ]
        self._breakpoints.set_internal(_PURPOSE, (), points)

    def _page_tables(self, tracepoint: Tracepoint) -> Iterable[Maddr | None]:
        if tracepoint.pid == KERNEL_PID or tracepoint.vaddr >= KERNEL_HALF:
            return (None,)
        return self._tables.get(tracepoint.pid, ())
