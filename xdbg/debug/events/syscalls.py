"""System calls that gdb wants to see: a process stops when it has entered one, and when it is back behind it.

At the entry the kernel has been entered and has executed nothing: the process shows rip behind the instruction, and
what it sets now its kernel will take. The return is told before the process's first instruction in user mode, however
long the call took and whatever came in between; after an exec that is the new program's first. A call that does not
return is told once. A child of a fork has made no call, and has no return from one.

They are caught in all attached processes that are covered: the packet names no process, and the thread that gdb has
chosen last may be anyone's. gdb drops what it does not want of an inferior. Numbers are those of the guest's kernel;
orig_rax has the number at both stops.
"""

from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.running.run_control import RunControl
from xdbg.debug.running.sources import StopSource
from xdbg.machine.exits import Exit, SyscallExit
from xdbg.machine.registers import RAX
from xdbg.rsp.replies import StopEvent, SyscallStop
from xdbg.rsp.signals import Signal
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu


class SyscallCatches(StopSource):
    """The caught system calls. Implements `SyscallCatching` of `rsp.target`."""

    def __init__(self, inferiors: Inferiors, run_control: RunControl) -> None:
        self._inferiors = inferiors
        self._hv = inferiors.domain.hv
        self._run_control = run_control
        self._stops = run_control.stops
        self._caught: frozenset[int] | None = frozenset()
        """None: all."""
        self._inside: dict[int, int] = {}
        """Processes whose entry was seen, and the number; they have not returned."""

    def catch_syscalls(self, numbers: frozenset[int] | None) -> None:
        """Turned off at each stop, and on again before it resumes: so what is under way stays known until then."""
        self._caught = numbers
        self._run_control.sources.add(self)

    def release(self, pid: int) -> None:
        """The debugger lets go of a process."""
        self._inside.pop(pid, None)

    # -- StopSource

    def prepare(self) -> None:
        """Forget what nobody waits for."""
        attached = self._inferiors.process_ids()
        self._inside = {
            pid: number for pid, number in self._inside.items() if pid in attached and self._catches(number)
        }
        if self._caught is not None and not self._caught:
            self._run_control.sources.remove(self)

    def after(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """Xen has handled an exit: perhaps that was the entry to a system call, or its end."""
        if vcpu.domain is not self._inferiors.domain:
            return None
        if not vcpu.kernel_mode:
            return self._returned(vcpu) if self._inside else None
        cpu = self._hv.cpu
        if not isinstance(came, SyscallExit) or cpu.rip != vcpu.syscall_callback.address:
            return None
        number = cpu.gpr[RAX]
        if not self._catches(number):
            return None
        for pid in self._inferiors.process_ids():
            if self._inferiors.is_behind(vcpu, pid):
                stop = self._stop(pid, vcpu, number, entry=True)
                if stop is not None:
                    self._inside[pid] = number
                return stop
        return None

    def clear(self) -> None:
        """The debugger has gone."""
        self._caught = frozenset()
        self._inside.clear()
        self._run_control.sources.remove(self)

    # -- inside

    def _catches(self, number: int) -> bool:
        return self._caught is None or number in self._caught

    def _returned(self, vcpu: Vcpu) -> StopEvent | None:
        for pid, number in self._inside.items():
            if self._inferiors.runs(vcpu, pid):
                del self._inside[pid]
                self._inferiors.returned[pid] = number
                return self._stop(pid, vcpu, number, entry=False)
        return None

    def _stop(self, pid: int, vcpu: Vcpu, number: int, *, entry: bool) -> StopEvent | None:
        thread = Thread(pid, pid)
        if not self._stops.covers(thread):
            return None
        return self._stops.reply(Signal.TRAP, thread, vcpu, (SyscallStop(number, entry),))
