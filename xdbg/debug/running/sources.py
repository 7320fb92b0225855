"""What may want the guest stopped beside break points, watch points and steps: one class per reason, in one list.

A source is asked at three moments, and answers with a stop or with None:

`before`
    The guest has made an exit, and Xen has not looked at it. Registers and instruction count are those before the
    instruction (but behind it for a single step's #DB). When the guest is resumed after a stop, the instruction is
    executed, makes its exit again, and no source is asked a second time.
`after`
    Xen has handled that exit; the guest is where it goes on.
`reached`
    The guest is about to execute one of the source's own stop points (`Breakpoints.set_internal`). With a breakpoint
    of gdb at the same place both are told, one after the other.

`limit` and `ran` are for those that must see each instruction; they
stop nothing.

The list holds only those that want to be asked, so that a source that is not in use costs nothing. Order is the order
of joining, and the first stop wins.
"""

from collections.abc import Sequence
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.machine.exits import ExceptionExit, Exit, SyscallExit, WatchExit
from xdbg.rsp.replies import StopEvent
from xdbg.xen.vcpu import Vcpu

from .following import Following
from .places import Place, Places, place_of

_SYSCALL_LENGTH: Final = 2


class StopSource:
    """A reason for stops. What it does not override never stops anything."""

    def prepare(self) -> None:
        """The guest is about to run after a resume: stop points of its own are set here."""

    def due(self) -> StopEvent | None:
        """What happened earlier and has to be told now, as the guest is about to run after a resume."""
        return None

    def before(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """An exit that the guest caused, before Xen handles it."""
        del vcpu, came
        return None

    def after(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """The same exit, when Xen has handled it."""
        del vcpu, came
        return None

    def reached(self, vcpu: Vcpu, vaddr: Vaddr) -> StopEvent | None:
        """A stop point was reached; it may be another's."""
        del vcpu, vaddr
        return None

    def limit(self, vcpu: Vcpu, limit: int) -> int:
        """The instruction count to which the vcpu may run before `ran` is called; `limit` or less."""
        del vcpu
        return limit

    def ran(self, vcpu: Vcpu) -> None:
        """The vcpu has run, and Xen has handled what came of it; it may be that nothing was executed."""

    def explain(self) -> Sequence[str]:
        """The last stop that it made, line by line, for people; empty: there is no more to tell than the reply does."""
        return ()

    def clear(self) -> None:
        """The debugger has gone: nothing that it wanted counts any more."""


class Sources:
    """The sources of one domain's stops, and the way of an exit through them and through Xen."""

    def __init__(self, following: Following, breakpoints: Breakpoints) -> None:
        self._hv = following.hv
        self._following = following
        self._breakpoints = breakpoints
        self._members: list[StopSource] = []
        self._explained: tuple[StopEvent, tuple[str, ...]] | None = None
        """The last stop that a source made, and what it says about it."""
        self._passes: dict[Vcpu, Place] = {}
        """Where a source has stopped a vcpu before the instruction: it goes past the next time."""
        self._stopped_before: Place | None = None
        """... the last time."""
        self._arrived = Places()
        """The stop points at which the sources have been asked, and that have not been left."""
        self.leaves_breakpoint = False
        """A source has stopped at a stop point where a breakpoint of gdb has still to be told."""
        self._deferred: dict[Vcpu, tuple[Place, Exit]] = {}
        """A vcpu's exit behind its instruction that Xen has still to handle: a step's #DB can't be made again."""

    def add(self, source: StopSource) -> None:
        """From now on it is asked. Idempotent."""
        if source not in self._members:
            self._members = [*self._members, source]  # the old list may be under way

    def remove(self, source: StopSource) -> None:
        """It is asked no more; no error if it was not."""
        self._members = [member for member in self._members if member is not source]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._members)

    @property
    def stands_before(self) -> bool:
        """A source has stopped the guest before an instruction that it has seen the exit of."""
        place = self._stopped_before
        return place is not None and self._passes.get(place[0]) == place == place_of(place[0])

    def prepare(self) -> None:
        """The guest is about to run after a resume."""
        for source in list(self._members):
            source.prepare()

    def due(self) -> StopEvent | None:
        """What has to be told before the guest runs."""
        for source in self._members:
            stop = source.due()
            if stop is not None:
                return stop
        return None

    def clear(self) -> None:
        """The debugger has gone."""
        for source in list(self._members):
            source.clear()
        self._passes.clear()
        self._deferred.clear()
        self._stopped_before = self._explained = None
        if not self._members:  # a trace that goes on has met what is there
            self._arrived.clear()
        self.leaves_breakpoint = False

    def told(self, stop: StopEvent, lines: Sequence[str]) -> None:
        """A source has made a stop outside of those moments, and says this about it."""
        self._explained = stop, tuple(lines)

    def explanation(self, stop: StopEvent) -> Sequence[str]:
        """What the source says that has made this stop; empty: none has."""
        return self._explained[1] if self._explained is not None and self._explained[0] is stop else ()

    # -- exits

    def handle(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """An exit that the guest caused: the debugger's look at it, Xen's part, and a second look."""
        following = self._following
        stop: StopEvent | None = following.own_int3(vcpu, came)
        if stop is not None:
            return stop
        if self._members:
            stop = self._before(vcpu, came)
            if stop is not None:
                return stop
        return self._xen(vcpu, came)

    def take_deferred(self, vcpu: Vcpu) -> Exit | None:
        """The exit that the vcpu has made before the last stop and that Xen has not seen, if it is still there."""
        if not self._deferred:
            return None
        place, came = self._deferred.get(vcpu, (None, None))
        if place != place_of(vcpu):
            return None
        del self._deferred[vcpu]
        return came

    def handle_deferred(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """Xen's part of what `take_deferred` gave."""
        return self._xen(vcpu, came)

    def watched(self, vcpu: Vcpu, came: WatchExit) -> StopEvent | None:
        """Watched memory was touched. A #DB of the guest's by the same instruction comes after the stop."""
        stop = self._following.watched(vcpu, came)
        if came.trap is None:
            return stop
        if stop is None:
            return self.handle(vcpu, came.trap)
        self._deferred[vcpu] = (place_of(vcpu), came.trap)
        return stop

    def reached(self, vcpu: Vcpu, vaddr: Vaddr) -> StopEvent | None:
        """A stop point has been reached. The sources are asked once for each time that the guest comes there."""
        self.leaves_breakpoint = False
        if not self._members:
            return None
        place = place_of(vcpu)
        if place in self._arrived:
            return None
        self._arrived.add(place)
        for source in self._members:
            stop = source.reached(vcpu, vaddr)
            if stop is not None:
                self._explained = stop, tuple(source.explain())
                self.leaves_breakpoint = bool(self._breakpoints.pids_at(vaddr))
                return stop
        return None

    def leaving(self, vcpu: Vcpu) -> StopEvent | None:
        """The vcpu goes on from where it is, past a stop point that may be there.

        It may have come here by a step, and then the sources are asked now.
        """
        here = Vaddr(self._hv.cpu.rip)
        stop = self.reached(vcpu, here) if self._members and self._breakpoints.is_internal(here) else None
        if stop is None and self._arrived:
            self._arrived.take(place_of(vcpu))
        return stop

    def stayed(self, vcpu: Vcpu) -> None:
        """It did not go on after all."""
        self._arrived.add(place_of(vcpu))

    def moved(self, place: Place) -> None:
        """The debugger has put the vcpu of the last stop elsewhere."""
        self._arrived.take(place)

    def limit(self, vcpu: Vcpu, limit: int) -> int:
        """To which instruction count the vcpu may run."""
        for source in self._members:
            limit = source.limit(vcpu, limit)
        return limit

    def ran(self, vcpu: Vcpu) -> None:
        """The vcpu has run."""
        for source in self._members:
            source.ran(vcpu)

    # -- inside

    def _xen(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        stop = self._following.handle(vcpu, came)
        for source in tuple(self._members):
            told = source.after(vcpu, came)
            if stop is None and told is not None:
                stop = told
                self._explained = stop, tuple(source.explain())
                # The guest stands where it goes on, perhaps at a breakpoint that has still to be told.
                self.leaves_breakpoint = bool(self._breakpoints.pids_at(self._hv.cpu.rip))
        return stop

    def _before(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        cpu, length = self._hv.cpu, exit_length(came)
        behind = cpu.rip
        if length:
            cpu.rip = Vaddr(behind - length)
            cpu.count -= 1
        here = place_of(vcpu)
        if here == self._passes.get(vcpu):
            del self._passes[vcpu]
        else:
            for source in self._members:
                stop = source.before(vcpu, came)
                if stop is not None:
                    self._explained = stop, tuple(source.explain())
                    if _is_trap(came):
                        self._deferred[vcpu] = (here, came)
                    else:
                        self._passes[vcpu] = self._stopped_before = here
                    return stop
        if length:
            cpu.rip = behind
            cpu.count += 1
        return None


def exit_length(came: Exit) -> int:
    """How far rip is behind the beginning of the instruction that made an exit, if that can be executed again."""
    match came:
        case SyscallExit():
            return _SYSCALL_LENGTH
        case ExceptionExit(software=True, length=length):
            return length
        case _:
            return 0


def _is_trap(came: Exit) -> bool:
    """Whether the exit came behind an instruction that can't be made to cause it again."""
    return isinstance(came, ExceptionExit) and came.dr6 != 0 and not came.before
