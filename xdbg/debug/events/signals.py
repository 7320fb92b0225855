"""Signals: what stops a process before its kernel acts upon it, and what gdb makes of it.

A process that is covered stops when a signal is about to be acted upon: a fault at the instruction that faulted, with
its siginfo. Then it *stands at* this signal, until it is resumed

* with the same signal: the kernel acts, as if nobody had looked. The process ends, or a debugger inside the guest
  hears of it;
* with no signal: the kernel is made to drop it, and the process goes on where it was. One that faulted tries its
  instruction again. A trap on which a debugger inside the guest waits (its int3, its step) is not dropped: gdb itself
  always swallows SIGTRAP, and nobody would hear of it;
* with another one: the kernel acts upon that;
* not at all, because gdb resumes something else: as with the same signal.

A signal with which gdb resumes a process that stands at none is given to the guest's kernel, which acts upon it before
the process runs on; it does not stop there once more. What the kernel can't do is said on gdb's console. SIGKILL can
neither be stopped at nor dropped. All numbers but gdb's own in packets are those of Linux.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL, ENODATA, EPERM
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.debug.console import Console
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.inferiors.attached import KERNEL_PID, Inferiors
from xdbg.debug.running.sources import Sources
from xdbg.debug.running.stops import Stops
from xdbg.guestos.events import SignalInfo, Signalled
from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.signals import Signal, from_linux, name_of, to_linux
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread
from xdbg.xen.event_channel import mark_events_pending
from xdbg.xen.vcpu import Vcpu

from . import siginfo

_SIGKILL: Final = 9


@dataclass(slots=True)
class Standing:
    """A signal at which a process stands. `info` is what its kernel knows, or what gdb made of it."""

    event: Signalled
    info: SignalInfo


class Signals:
    """The signals of the attached processes. Implements `SignalFilter` and `SignalInformation` of `rsp.target`."""

    def __init__(self, inferiors: Inferiors, stops: Stops, sources: Sources, console: Console) -> None:
        self._inferiors = inferiors
        self._profile = inferiors.profile
        self._stops = stops
        self._sources = sources
        self._console = console
        self._standing: dict[int, Standing] = {}
        self._sent: dict[int, int] = {}
        """Signals that gdb has sent and whose arrival is no news to it, by pid."""
        self.passed: frozenset[int] = frozenset()
        """What `pass_signals` was told."""
        self.programs: frozenset[int] | None = None
        """What `program_signals` was told; None: nothing."""

    # -- what gdb asks for

    def pass_signals(self, signals: frozenset[int]) -> None:
        """No stop at these."""
        self.passed = signals

    def program_signals(self, signals: frozenset[int]) -> None:
        """A process that is let go of still gets these."""
        self.programs = signals

    def stands(self, thread: Thread) -> bool:
        """Whether a process stands at a signal."""
        return thread.pid in self._standing

    def read_siginfo(self, thread: Thread) -> bytes:
        """The signal at which a process stands. TargetError(ENODATA)."""
        return siginfo.encode(self._stands_at(thread).info)

    def write_siginfo(self, thread: Thread, offset: int, data: bytes) -> None:
        """Only noted; the kernel learns of it when the process is resumed with its signal. TargetError."""
        standing = self._stands_at(thread)
        image = bytearray(siginfo.encode(standing.info))
        if offset + len(data) > len(image):
            raise TargetError(EINVAL, f"a siginfo_t has {len(image)} bytes")
        image[offset : offset + len(data)] = data
        standing.info = siginfo.decode(bytes(image))

    # -- what happens

    def arrives(self, event: Signalled, vcpu: Vcpu) -> StopReply | None:
        """A signal is about to be acted upon. A stop if that is news to gdb, and its business."""
        thread = Thread(event.pid, event.pid)
        if self._sent.pop(event.pid, None) == event.info.signal or not self._stops.covers(thread):
            return None
        number = from_linux(event.info.signal)
        if event.info.signal == _SIGKILL or number in self.passed:
            return None
        self._standing[event.pid] = Standing(event, event.info)
        return self._stops.reply(number, thread, vcpu)

    def resume(self, last_stop: StopEvent) -> None:
        """The guest is about to run: processes go on with the signals that the resume's actions say."""
        standing, self._standing = self._standing, {}
        if self._inferiors.domain.shutdown_code is not None:
            return
        for pid, signal in standing.items():
            thread = Thread(pid, pid)
            wanted = self._stops.signal_for(thread)
            if wanted is None and self._stops.holding.on and self._stops.holding.holds(thread):
                self._standing[pid] = signal
            elif wanted is None or wanted == from_linux(signal.event.info.signal):
                self._let_go(signal)
            elif wanted != Signal.ZERO:
                self._replace(signal, wanted)
            elif not (signal.event.traced and signal.event.info.signal == to_linux(Signal.TRAP)):
                self._change(signal, None)
        named = (last_stop.thread, last_stop.signal) if isinstance(last_stop, StopReply) else None
        for thread in self._stops.covered():
            wanted = self._stops.signal_for(thread)
            if wanted and thread.pid not in standing:
                self._give(thread, wanted, known=(thread, wanted) == named)

    def kill(self, pid: int) -> None:
        """Ends a process as soon as its kernel runs again. TargetError(EPERM) if that can't be done to this one."""
        standing = self._standing.pop(pid, None)
        info = SignalInfo(_SIGKILL)
        if standing is not None and self._change(standing, info):
            return
        if not self._send(pid, info):
            raise TargetError(EPERM, f"the guest's kernel can't be made to end process {pid}")

    def release(self, pid: int) -> None:
        """The debugger lets go of a process: of the signal at which it stands it gets what QProgramSignals says."""
        self._sent.pop(pid, None)
        standing = self._standing.pop(pid, None)
        if standing is None:
            return
        programs = self.programs
        dropped = programs is not None and from_linux(standing.info.signal) not in programs
        if dropped and not standing.event.traced:
            self._change(standing, None)
        else:
            self._let_go(standing)

    def clear(self) -> None:
        """The debugger has gone."""
        for pid in list(self._standing):
            self.release(pid)
        self._sent.clear()
        self.passed = frozenset()
        self.programs = None

    # -- inside

    def _stands_at(self, thread: Thread) -> Standing:
        standing = self._standing.get(thread.pid)
        if standing is None:
            raise TargetError(ENODATA, "the thread does not stand at a signal")
        return standing

    def _let_go(self, standing: Standing) -> None:
        """The kernel acts upon the signal, as gdb may have changed it."""
        if standing.info != standing.event.info:
            self._change(standing, standing.info)

    def _replace(self, standing: Standing, signal: int) -> None:
        """Another signal in its place."""
        number = to_linux(signal)
        if number is None or not self._change(standing, SignalInfo(number)):
            self._change(standing, None)
            self._refuse(standing.event.pid, signal)

    def _change(self, standing: Standing, info: SignalInfo | None) -> bool:
        return self._store(self._profile.signal_writes(standing.event, info))

    def _give(self, thread: Thread, signal: int, *, known: bool) -> None:
        """A signal for a thread that stands at none. `known`: it is what the last stop named, and comes back.

        The TRAP of a breakpoint is no signal of the guest, even if the user has it passed. Nor is that of an exception
        that was caught before Xen had seen it: it is still to come, and may be none after all.
        """
        if known and (signal == Signal.TRAP or self._sources.stands_before):
            return
        if thread.pid == KERNEL_PID:
            if not known:
                self._console.say(f"A kernel gets no signals: {name_of(signal)} was dropped.")
            return
        number = to_linux(signal)
        if number is None or not self._send(thread.pid, SignalInfo(number)):
            self._refuse(thread.pid, signal)

    def _send(self, pid: int, info: SignalInfo) -> bool:
        if not self._store(self._profile.send_writes(pid, info)):
            return False
        if info.signal != _SIGKILL:
            self._sent[pid] = info.signal
        # Into the kernel at once, where it looks for signals on its way back.
        for vcpu in self._inferiors.domain.vcpus:
            if mark_events_pending(vcpu):
                vcpu.check_events = True
        return True

    def _refuse(self, pid: int, signal: int) -> None:
        self._console.say(f"The guest's kernel can't give {name_of(signal)} to process {pid}: it was dropped.")

    def _store(self, writes: Sequence[tuple[Vaddr, bytes]]) -> bool:
        """Into the kernel's memory; whether there was something to store."""
        domain = self._inferiors.domain
        space = AddressSpace(domain.hv.ram, domain.vcpus[0].kernel_cr3)
        for vaddr, data in writes:
            space.write(vaddr, data)
        if writes:
            self._inferiors.stale()
        return bool(writes)
