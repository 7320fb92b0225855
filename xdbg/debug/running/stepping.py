"""Single steps and range steps, one instruction of one thread at a time.

A *kernel thread* (a vcpu) executes exactly one instruction, then Xen's part of the exit that it caused: the step ends
behind a hypercall, at the first instruction of an exception's handler, or in user mode after an iret. An upcall that
is delivered at that moment would turn each step into one to the event callback. Unless `over_upcalls` is off, its
handler is run as a whole, and the step ends (or begins) where it returns to.

A *process* takes one instruction in user mode. If it does not run, the domain runs until it does. An instruction that
enters the kernel (a system call, an int3) is complete when the process is back in user mode. One that faults is tried
again when the kernel returns to it; when it returns elsewhere, the step ends there.

A range step repeats this as long as rip stays in the range. It ends at a breakpoint inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.inferiors.vcpu_registers import rip_of
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.machine.exits import ExceptionExit, Exit, IoExit, StepExit, WatchExit
from xdbg.machine.registers import RSP
from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.target import ResumeAction, ResumeKind, TargetError, action_for
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .following import Following
from .sources import Sources
from .stops import Stops

_FRAME: Final = Struct("<7Q")
"""A bounce frame without an error code: rcx, r11, rip, cs, rflags, rsp, ss."""


@dataclass(slots=True)
class StepPlan:
    """A step that is under way. With an `end` it goes on while rip is in [start, end)."""

    thread: Thread
    start: int = 0
    end: int = 0
    returns_to: tuple[int, int, Maddr] | None = None
    """An upcall's handler runs; it returns to this rip, rsp and page table."""
    executed: bool = False
    """The instruction is done, and only that return is waited for."""
    in_kernel: bool = False
    """The process's instruction entered the kernel."""
    fault_rip: int | None = None
    """... and it was a fault of the instruction there."""


class Stepping:
    """The steps that the last resume asked for."""

    def __init__(
        self, inferiors: Inferiors, breakpoints: Breakpoints, stops: Stops, following: Following, sources: Sources
    ) -> None:
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self._breakpoints = breakpoints
        self._stops = stops
        self._following = following
        self._sources = sources
        self._plans: dict[Thread, StepPlan] = {}
        self.over_upcalls = True

    def plan(self, actions: Sequence[ResumeAction]) -> None:
        """These are the actions from now on."""
        self._plans.clear()
        for thread in self._stops.covered():
            action = action_for(actions, thread)
            if action is not None:
                self.plan_thread(thread, action)

    def plan_thread(self, thread: Thread, action: ResumeAction) -> None:
        """One thread that stood still goes on: by a step if the action is one."""
        if action.kind in (ResumeKind.STEP, ResumeKind.RANGE_STEP):
            self._plans[thread] = StepPlan(thread, action.start, action.end)

    def drop(self, thread: Thread) -> None:
        """One thread stands still: it has no step to do any more."""
        plan = self._plans.pop(thread, None)
        if plan is not None and plan.returns_to is not None:
            self._install()

    def forget_process(self, pid: int) -> None:
        """A process has left: none of its threads has a step to do."""
        for thread in [thread for thread in self._plans if thread.pid == pid]:
            self.drop(thread)

    def clear(self) -> None:
        """Drop all steps."""
        if self._plans:
            installed = any(plan.returns_to is not None for plan in self._plans.values())
            self._plans.clear()
            if installed:
                self._install()

    def __bool__(self) -> bool:
        """Whether any thread is to step."""
        return bool(self._plans)

    @property
    def has_process(self) -> bool:
        """Whether any process is to step."""
        return any(thread.pid != KERNEL_PID for thread in self._plans)

    # -- upcalls

    def places(self) -> tuple[tuple[Vcpu, int], ...]:
        """Where the vcpus are that are to step, before something is delivered to them."""
        if not self.over_upcalls:
            return ()
        return tuple(
            (vcpu, rip_of(vcpu))
            for thread, plan in self._plans.items()
            if thread.pid == KERNEL_PID and plan.returns_to is None
            for vcpu in (self._inferiors.vcpu(thread),)
        )

    def note_upcall(self, vcpu: Vcpu, before: Sequence[tuple[Vcpu, int]]) -> None:
        """If an upcall was delivered to a vcpu that is to step, its handler runs first."""
        for stepping, rip in before:
            if stepping is vcpu and self._hv.cpu.rip != rip:
                self._plans[self._inferiors.vcpu_thread(vcpu)].returns_to = self._interrupted(vcpu)
                self._install()

    def returned(self, vcpu: Vcpu, vaddr: Vaddr) -> tuple[bool, StopReply | None]:
        """Whether a stop point is where an upcall's handler returned to; the stop, if a step is complete by that."""
        place = (vaddr, self._hv.cpu.gpr[RSP], vcpu.cr3)
        for plan in self._plans.values():
            if plan.returns_to == place:
                plan.returns_to = None
                self._install()
                if not plan.executed:
                    return True, None
                plan.executed = False
                return True, self._done(vcpu, plan)
        return False, None

    def _interrupted(self, vcpu: Vcpu) -> tuple[int, int, Maddr] | None:
        """Where the handler that the vcpu is about to enter returns to, from its bounce frame."""
        space = AddressSpace(self._hv.ram, vcpu.kernel_cr3)
        try:
            frame = space.read(self._hv.cpu.gpr[RSP], _FRAME.size)
        except TargetError:
            return None
        if len(frame) < _FRAME.size:
            return None
        _, _, rip, cs, _, rsp, _ = _FRAME.unpack(frame)
        user = cs & 3 == 3 and vcpu.guest_table_user is not None
        return rip, rsp, Maddr((vcpu.guest_table_user or 0) << 12) if user else vcpu.kernel_cr3

    def _install(self) -> None:
        """A stop point of our own wherever a handler returns to."""
        places = [plan.returns_to for plan in self._plans.values() if plan.returns_to is not None]
        self._breakpoints.set_internal("upcalls", ((Vaddr(rip), cr3) for rip, _, cr3 in places))
        self._following.install_breakpoints()

    # -- steps

    def due(self, vcpu: Vcpu) -> StepPlan | None:
        """The step that the vcpu is to take now."""
        if not vcpu.kernel_mode:
            for thread, plan in self._plans.items():
                if thread.pid != KERNEL_PID and self._inferiors.runs(vcpu, thread.pid):
                    return plan
        found = self._plans.get(self._inferiors.vcpu_thread(vcpu))
        return found if found is not None and found.returns_to is None else None

    def take(self, vcpu: Vcpu, plan: StepPlan) -> StopEvent | None:
        """Execute one instruction; the stop, if that was the whole step or if something else came up."""
        cpu = self._hv.cpu
        is_process = plan.thread.pid != KERNEL_PID
        if is_process and plan.in_kernel:
            plan.in_kernel = False
            if cpu.rip != plan.fault_rip:
                return self._done(vcpu, plan)
        rip, mode = cpu.rip, vcpu.kernel_mode
        sources = self._sources
        came = sources.take_deferred(vcpu)
        if came is not None:
            stop = sources.handle_deferred(vcpu, came)
        else:
            stop = sources.leaving(vcpu)
            if stop is not None:
                return stop
            came = self._hv.step(vcpu)
            if isinstance(came, StepExit):
                return self._done(vcpu, plan)
            if isinstance(came, WatchExit):
                stop = sources.watched(vcpu, came)
                if stop is not None or came.trap is None:
                    return stop or self._done(vcpu, plan)
                came = came.trap
            else:
                stop = sources.handle(vcpu, came)
        if stop is not None or vcpu.domain.shutdown_code is not None:
            return stop
        if is_process:
            return self._process_handled(vcpu, plan, came, rip)
        if _is_fault(came) and cpu.rip == rip and vcpu.kernel_mode is mode:
            return None  # Xen has repaired the cause, and the instruction has still to be executed
        if self.over_upcalls and cpu.rip == vcpu.event_callback.address != rip:
            plan.returns_to = self._interrupted(vcpu)
            if plan.returns_to is not None:
                plan.executed = True
                self._install()
                return None
        return self._done(vcpu, plan)

    def _process_handled(self, vcpu: Vcpu, plan: StepPlan, came: Exit, rip: int) -> StopReply | None:
        """A process's instruction at `rip` made an exit, and Xen has handled it."""
        if self._inferiors.runs(vcpu, plan.thread.pid):
            # Xen did all of it: an instruction was emulated, or the cause of a fault repaired.
            return None if self._hv.cpu.rip == rip else self._done(vcpu, plan)
        plan.in_kernel = True
        plan.fault_rip = rip if _is_fault(came) else None
        return None

    def _done(self, vcpu: Vcpu, plan: StepPlan) -> StopReply | None:
        """The instruction is done: the step too, unless it is a range step that is still in its range."""
        rip = self._hv.cpu.rip
        # A breakpoint where the step has led to is reached by that; its commands are run.
        reached = self._stops.breakpoint(vcpu, rip) if self._breakpoints.pids_at(rip) else None
        if plan.start <= rip < plan.end:
            return reached
        return self._stops.step_done(plan.thread, vcpu)


def _is_fault(came: Exit) -> bool:
    """Whether the instruction has not been executed: it can be tried again."""
    match came:
        case ExceptionExit():
            return came.is_fault
        case IoExit():
            return True
        case _:
            return False
