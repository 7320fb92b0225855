"""Catches: the guest stops when the hypervisor is about to do something for it, or to it.

=============  =======================================================================================================
hypercall      before Xen handles it; the vcpu stands at the `syscall`. One inside a multicall is seen only while Xen
               handles the whole: the stop comes when that is done
trap           before Xen handles it, and so before the guest's kernel hears of it: those that Xen itself repairs or
               emulates are caught too. A fault stands at its instruction, as it will when the guest goes on
upcall         when it has been delivered: at the first instruction of the event callback
crash          a SHUTDOWN_crash that the guest asks for: before Xen handles it. Any other comes out of what Xen finds
               while it handles something: then the domain has ended, and stands where the cause is
=============  =======================================================================================================

None is a breakpoint of gdb: the stop is a plain signal, SIGTRAP, or for a trap the one that a kernel would send to a
process. A line on gdb's console names what happened; ``monitor why`` tells it in full.

The catches that wait for what only an observer sees join the machine's observers, as long as there are any.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EINVAL, ENOSPC
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import SchedOp
from xdbg.abi.x86 import Vector
from xdbg.debug.console import Console
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.running.observers import Observers
from xdbg.debug.running.run_control import RunControl
from xdbg.debug.running.sources import StopSource, exit_length
from xdbg.debug.running.stops import CRASHES
from xdbg.machine.exits import ExceptionExit, Exit, IoExit, SyscallExit
from xdbg.machine.registers import R8, R9, R10, RAX, RDI, RDX, RSI
from xdbg.rsp.replies import StopEvent
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.trace.describing import Describer, read_guest, upcall
from xdbg.trace.text import lines
from xdbg.xen import hypercall
from xdbg.xen.events import DomainShutdown, HypercallEntered, Upcall, XenEvent
from xdbg.xen.traps import about_to_take
from xdbg.xen.vcpu import Vcpu

from .catch_events import CatchEvent, CatchRequest, CrashEvent, HypercallEvent, TrapEvent, UpcallEvent

MAX_CATCHES: Final = 256
"""Catches at a time."""
_MAX_TOLD: Final = 8
"""Entries of one multicall that are told."""
_U32: Final = 0xFFFF_FFFF
_NOT_HANDLED: Final = "Xen has not handled it yet: it does when the guest goes on"
_SIGNALS: Final[dict[int, int]] = {
    Vector.DE: Signal.FPE,
    Vector.UD: Signal.ILL,
    Vector.GP: Signal.SEGV,
    Vector.PF: Signal.SEGV,
    Vector.MF: Signal.FPE,
    Vector.XM: Signal.FPE,
}
"""What a kernel sends to a process for a trap; SIGTRAP for all others."""


@dataclass(frozen=True, slots=True)
class Catch:
    """One catch; `hits`: how often it has stopped the guest. A temporary one goes with its first stop."""

    number: int
    request: CatchRequest
    temporary: bool = False
    hits: int = 0


@dataclass(frozen=True, slots=True)
class _Delivered:
    """The last upcall: where and when it was delivered, for which ports, and the mode that it interrupted."""

    vcpu: Vcpu
    count: int
    ports: tuple[int, ...]
    kernel_mode: bool


class Catches(StopSource):
    """All catches of one domain. `console` takes the lines for gdb's console."""

    def __init__(
        self,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        run_control: RunControl,
        observers: Observers,
        describer: Describer,
        console: Console,
    ) -> None:
        self._inferiors = inferiors
        self._hv = inferiors.domain.hv
        self._breakpoints = breakpoints
        self._stops = run_control.stops
        self._following = run_control.following
        self._sources = run_control.sources
        self._observers = observers
        self._describer = describer
        self._console = console
        self._catches: dict[int, Catch] = {}
        self._by_kind: dict[type[CatchEvent], tuple[Catch, ...]] = {}
        self._next = 1
        self._callbacks: tuple[Vaddr, ...] = ()
        """Where there are stop points for upcalls."""
        self._in_batch: list[tuple[HypercallEntered, tuple[Catch, ...]]] = []
        self._delivered: _Delivered | None = None
        self._told: list[str] = []
        """What `explain` says of the last stop."""

    # -- the user's side

    def add(self, request: CatchRequest, *, temporary: bool = False) -> Catch:
        """One more, from now on. TargetError(ENOSPC) when there are too many."""
        if len(self._catches) >= MAX_CATCHES:
            raise TargetError(ENOSPC, f"there are {MAX_CATCHES} catches already")
        catch = Catch(self._next, request, temporary)
        self._next += 1
        self._catches[catch.number] = catch
        self._join()
        return catch

    def remove(self, number: int) -> None:
        """TargetError(EINVAL) if there is none with this number."""
        if self._catches.pop(number, None) is None:
            raise TargetError(EINVAL, f"there is no catch {number}")
        self._join()

    def clear(self) -> None:
        """Remove all."""
        self._catches.clear()
        self._in_batch.clear()
        self._delivered = None
        self._join()

    def __iter__(self) -> Iterator[Catch]:
        """By number."""
        return iter(tuple(self._catches.values()))

    def __len__(self) -> int:
        return len(self._catches)

    # -- StopSource

    def prepare(self) -> None:
        """Stop points at the event callbacks, if upcalls are to be caught."""
        self._in_batch.clear()
        self._delivered = None
        self._follow_callbacks()

    def before(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """A hypercall, a trap."""
        match came:
            case SyscallExit() if vcpu.kernel_mode:
                return self._hypercall(vcpu)
            case ExceptionExit():
                return self._trap(vcpu, came)
            case IoExit():
                # The engine has no I/O privilege check: this is the #GP that the CPU would have raised.
                return self._trap(vcpu, ExceptionExit(Vector.GP))
            case _:
                return None

    def after(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """The entries of a multicall."""
        del came
        self._follow_callbacks()
        if not self._in_batch:
            return None
        batch, self._in_batch = self._in_batch, []
        catches = tuple(dict.fromkeys(catch for _, caught in batch for catch in caught))
        told = [self._call_line(vcpu, event.nr, event.args, self._rip(), in_multicall=True) for event, _ in batch]
        rest = [f"... {len(told) - _MAX_TOLD} more of that multicall"] if len(told) > _MAX_TOLD else []
        note = "they have been handled: entries of a multicall can't be stopped at one by one"
        return self._stop(vcpu, catches, Signal.TRAP, told[0], [*told[:_MAX_TOLD], *rest], note)

    def reached(self, vcpu: Vcpu, vaddr: Vaddr) -> StopEvent | None:
        """The first instruction of the event callback: an upcall, unless the guest itself went there."""
        delivered = self._delivered
        if delivered is None or vaddr != vcpu.event_callback.address:
            return None
        if delivered.vcpu is not vcpu or delivered.count != self._hv.cpu.count:
            return None
        self._delivered = None
        wanted = [
            catch
            for catch in self._by_kind.get(UpcallEvent, ())
            if isinstance(event := catch.request.event, UpcallEvent) and event.port in (None, *delivered.ports)
        ]
        catches = self._for(vcpu, wanted, kernel_mode=delivered.kernel_mode)
        if not catches:
            return None
        ports = upcall(vcpu.domain, delivered.ports).ports
        named = ", ".join(f"{port.port} ({port.bound_to})" for port in ports) or "none"
        interrupted = "kernel" if delivered.kernel_mode else "user"
        line = f"upcall for pending ports {named}; it interrupted {interrupted} mode"
        note = "the bounce frame is on the stack, and the callback's first instruction is next"
        return self._stop(vcpu, catches, Signal.TRAP, line, [line], note)

    def explain(self) -> Sequence[str]:
        """The last stop in full."""
        return self._told

    # -- Observer

    def observe(self, vcpu: Vcpu, event: XenEvent) -> None:
        """What only an observer sees."""
        if vcpu.domain is not self._inferiors.domain:
            return
        match event:
            case HypercallEntered(nr, args, in_multicall=True):
                catches = self._of_hypercall(vcpu, nr, args)
                if catches:
                    self._in_batch.append((event, catches))
            case Upcall(ports):
                self._delivered = _Delivered(vcpu, self._hv.cpu.count, ports, vcpu.kernel_mode)
            case DomainShutdown(code) if code in CRASHES:
                self._count(self._by_kind.get(CrashEvent, ()))
            case _:
                pass

    # -- inside

    def _hypercall(self, vcpu: Vcpu) -> StopEvent | None:
        gpr = self._hv.cpu.gpr
        nr = gpr[RAX] & _U32
        entry = hypercall.TABLE.get(nr)
        args = (gpr[RDI], gpr[RSI], gpr[RDX], gpr[R10], gpr[R8], gpr[R9])[: entry.nr_args if entry is not None else 0]
        catches = self._of_hypercall(vcpu, nr, args)
        crash = self._by_kind.get(CrashEvent, ())
        if crash and not self._ends_in_crash(vcpu, nr, args):
            crash = ()
        if not catches and not crash:
            return None
        line = self._call_line(vcpu, nr, args, Vaddr(self._rip() + exit_length(SyscallExit())), in_multicall=False)
        return self._stop(vcpu, (*catches, *crash), Signal.TRAP, line, [line], _NOT_HANDLED)

    def _trap(self, vcpu: Vcpu, came: ExceptionExit) -> StopEvent | None:
        wanted = [
            catch
            for catch in self._by_kind.get(TrapEvent, ())
            if isinstance(event := catch.request.event, TrapEvent) and event.vector in (None, came.vector)
        ]
        catches = self._for(vcpu, wanted, kernel_mode=vcpu.kernel_mode)
        if not catches:
            return None
        taken = about_to_take(vcpu, came, Vaddr(self._rip() + exit_length(came)))
        told = list(lines(self._describer.exception(vcpu, taken)))
        first = told[0]
        if taken.cr2 is not None:
            first += f", {told[-1].strip()}"
        return self._stop(vcpu, catches, _SIGNALS.get(came.vector, Signal.TRAP), first, told, _NOT_HANDLED)

    def _ends_in_crash(self, vcpu: Vcpu, nr: int, args: tuple[int, ...]) -> bool:
        """Whether a hypercall asks Xen to end the domain as crashed."""
        if nr not in (Hypercall.SCHED_OP, Hypercall.SCHED_OP_COMPAT) or args[0] & _U32 != SchedOp.SHUTDOWN:
            return False
        latched = vcpu.domain.event_channels.latched_shutdown_code
        if latched is not None:
            return latched in CRASHES
        if nr == Hypercall.SCHED_OP_COMPAT:
            return args[1] & 0xFF in CRASHES
        reason = read_guest(vcpu, args[1], 4)
        return reason is not None and reason[0] in CRASHES

    def _of_hypercall(self, vcpu: Vcpu, nr: int, args: tuple[int, ...]) -> tuple[Catch, ...]:
        found = []
        commands: Sequence[int] | None = None
        for catch in self._by_kind.get(HypercallEvent, ()):
            event = catch.request.event
            if not isinstance(event, HypercallEvent) or event.number not in (None, nr):
                continue
            if event.command is not None:
                commands = self._describer.commands(vcpu, nr, args) if commands is None else commands
                if event.command not in commands:
                    continue
            found.append(catch)
        return self._for(vcpu, found, kernel_mode=True)

    def _for(self, vcpu: Vcpu, catches: Iterable[Catch], *, kernel_mode: bool) -> tuple[Catch, ...]:
        """Those of the catches whose mode and process are the vcpu's."""
        return tuple(
            catch
            for catch in catches
            if catch.request.kernel_mode in (None, kernel_mode)
            and (catch.request.pid is None or self._is_behind(vcpu, catch.request.pid))
        )

    def _is_behind(self, vcpu: Vcpu, pid: int) -> bool:
        current = self._inferiors.profile.current_pid(vcpu.vcpu_id)
        return current == pid if current is not None else self._inferiors.is_behind(vcpu, pid)

    def _call_line(self, vcpu: Vcpu, nr: int, args: tuple[int, ...], behind: Vaddr, *, in_multicall: bool) -> str:
        decoded = self._describer.call(vcpu, nr, args)
        traced = self._describer.hypercall(vcpu, nr, args, behind, decoded, in_multicall=in_multicall)
        return next(iter(lines(traced)))

    def _stop(
        self, vcpu: Vcpu, catches: Sequence[Catch], signal: int, line: str, told: Sequence[str], note: str
    ) -> StopEvent | None:
        """The stop, told for the closest covered thread; None when there is none."""
        thread = self._thread(vcpu)
        if thread is None:
            return None
        self._count(catches)
        numbers = ", ".join(str(catch.number) for catch in catches)
        title = f"catch {numbers}" if len(catches) == 1 else f"catches {numbers}"
        self._console.say(f"{title}: {line}")
        self._told = [f"{title} ({'; '.join(str(catch.request) for catch in catches)})", *told, note]
        return self._stops.reply(signal, thread, vcpu)

    def _thread(self, vcpu: Vcpu) -> Thread | None:
        """Whom the stop is told for: a process in user mode, the kernel, a process on whose behalf the kernel runs."""
        behind = (self._stops.thread_behind(vcpu, pid) for pid in self._inferiors.process_ids())
        for thread in (*self._stops.threads_on(vcpu), *behind):
            if thread is not None and self._stops.covers(thread):
                return thread
        return None

    def _count(self, catches: Sequence[Catch]) -> None:
        """These have stopped the guest."""
        for catch in catches:
            if catch.number in self._catches:
                if catch.temporary:
                    del self._catches[catch.number]
                else:
                    self._catches[catch.number] = replace(catch, hits=self._catches[catch.number].hits + 1)
        self._join()

    def _rip(self) -> Vaddr:
        return Vaddr(self._hv.cpu.rip)

    def _follow_callbacks(self) -> None:
        """A stop point at each vcpu's event callback, if upcalls are to be caught."""
        callbacks: tuple[Vaddr, ...] = ()
        if UpcallEvent in self._by_kind:
            addresses = (vcpu.event_callback.address for vcpu in self._inferiors.domain.vcpus)
            callbacks = tuple(dict.fromkeys(address for address in addresses if address))
        if callbacks != self._callbacks:
            self._callbacks = callbacks
            self._breakpoints.set_internal("upcalls to catch", ((address, None) for address in callbacks))
            self._following.install_breakpoints()

    def _join(self) -> None:
        """Be asked, and be told, only as long as that is needed."""
        self._by_kind = {}
        for catch in self._catches.values():
            kind = type(catch.request.event)
            self._by_kind[kind] = (*self._by_kind.get(kind, ()), catch)
        if self._catches:
            self._sources.add(self)
        else:
            self._sources.remove(self)
        if self._by_kind.keys() & {HypercallEvent, UpcallEvent, CrashEvent}:
            self._observers.add(self)
        else:
            self._observers.remove(self)
        self._follow_callbacks()
