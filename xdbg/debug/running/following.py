"""Xen's part of an exit, and what it changes for the debugger.

While Xen handles an exit, page tables may come to mean something else, another address space may be loaded, a process
may have ended, and Xen itself stores to the guest's memory. Break points, watch points and attached processes follow
all that here, and nothing else is looked at: with no watch point and no attached process this costs two comparisons
an exit.

Which page tables an attached process has is asked anew when the vcpu's own pair of tables changes, and while one of
them ends. What watched addresses mean is asked anew then, after hypercalls that can change mappings, and after page
faults of the kernel, which may be writes to its page tables.
"""

from collections.abc import Callable, Sequence
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import Vector
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.inferiors.attached import Inferiors
from xdbg.debug.points.breakpoints import Breakpoints
from xdbg.debug.points.watchpoints import Watchpoints
from xdbg.machine.exits import ExceptionExit, Exit, SyscallExit, WatchExit
from xdbg.machine.paging import NotMappedError, walk
from xdbg.machine.registers import RAX
from xdbg.machine.stoppoints import Watch
from xdbg.rsp.replies import ExitReply, SignalledReply, StopEvent, StopReply
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

from .machine_run import MachineRun
from .observers import StoreLog
from .stops import Stops

Ending = tuple[int, int]
"""How a process ends: its status, and the signal that ends it by Linux's number, or 0."""

_INT3: Final = b"\xcc"
_REMAPPING: Final = frozenset(
    {
        Hypercall.MMU_UPDATE,
        Hypercall.UPDATE_VA_MAPPING,
        Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN,
        Hypercall.MMUEXT_OP,
        Hypercall.MULTICALL,
        Hypercall.MEMORY_OP,
        Hypercall.GRANT_TABLE_OP,
    }
)
"""The hypercalls that can change what a virtual address means."""


class Following:
    """Keeps the CPU's stop points and watches true while the guest runs."""

    def __init__(
        self,
        inferiors: Inferiors,
        breakpoints: Breakpoints,
        watchpoints: Watchpoints,
        stops: Stops,
        machine: MachineRun,
    ) -> None:
        self.hv = self._hv = inferiors.domain.hv
        self._machine = machine
        self._stop_points = machine.stop_points(inferiors.domain)
        self._inferiors = inferiors
        self._breakpoints = breakpoints
        self._watchpoints = watchpoints
        self._stops = stops
        self._stores = StoreLog()
        self.conditional: Callable[[Vcpu, Sequence[int]], StopReply | None] | None = None
        """Who is told of accesses that conditional watches are for."""
        self._tables: dict[int, tuple[int, int | None]] = {}
        self._ended: dict[int, Ending] = {}
        """Processes that have ended without gdb having been told, and how."""
        self._ending: dict[int, Ending] = {}
        """How attached processes are ending: their kernel may not keep it until they are looked at."""
        self._has_handled = False
        """The guest has been in its kernel since the processes were looked at."""
        self.stored_by_xen = False
        """The last hit of a watch point was a store of Xen's own."""
        self._planted: set[int] = set()
        """Machine addresses of int3 instructions that the debugger itself wrote."""

    # -- between runs

    def prepare(self) -> None:
        """The guest is about to run: bring the CPU in line."""
        if self._inferiors.has_processes and self._has_handled:
            self._look_at_processes()
        self.install_breakpoints()
        if self._watchpoints:
            self._follow()
        self._tables = {vcpu.vcpu_id: _tables(vcpu) for vcpu in self._inferiors.domain.vcpus}

    def install_breakpoints(self, *, moved: bool = False) -> None:
        """Bring the CPU's stop points in line; `moved`: page tables have changed."""
        self._breakpoints.install(self._stop_points, self._inferiors.placements, moved=moved)

    def forget(self) -> None:
        """The debugger has gone; what it wants to be run on stays behind."""
        self._breakpoints.leave()
        self._watchpoints.clear()
        self._planted.clear()
        self._ended.clear()
        self._ending.clear()
        self.withdraw()

    def withdraw(self) -> None:
        """Inferiors or their points have gone: take them out of the CPU at once."""
        self.install_breakpoints(moved=True)
        self._follow()

    def is_planted(self, maddr: int | None) -> bool:
        """Whether the debugger itself wrote an int3 there."""
        return maddr in self._planted

    def wrote_memory(self, space: AddressSpace, vaddr: int, data: bytes, before: bytes) -> None:
        """The debugger wrote memory where `before` was. A lone int3 is a breakpoint of a client without Z packets."""
        if data == _INT3 and before != data:
            self._planted.add(space.translate(vaddr).maddr)
        buffer = self._hv.ram.buffer
        self._planted = {maddr for maddr in self._planted if buffer[maddr] == _INT3[0]}
        self._inferiors.stale()

    # -- exits

    def handle(self, vcpu: Vcpu, came: Exit) -> StopEvent | None:
        """Let Xen handle an exit; a stop if that touched something watched, or ended an attached process."""
        watching = bool(self._watchpoints)
        remaps = watching and self._may_remap(vcpu, came)
        self._hv.handle(vcpu, came)
        self._has_handled = True
        tables = _tables(vcpu)
        if tables != self._tables.get(vcpu.vcpu_id) or self._ending:
            self._tables[vcpu.vcpu_id] = tables
            if self._inferiors.has_processes:
                self._look_at_processes()
                self.install_breakpoints(moved=True)
                remaps = watching
        stop = self.stored(vcpu) if watching else None
        if remaps:
            self._follow()
        if stop is None and self._ended:
            return self.ended()
        return stop

    def stored(self, vcpu: Vcpu) -> StopReply | None:
        """A stop if Xen stored to something watched since the last look: that counts as a write by the vcpu."""
        if not self._watchpoints:
            return None
        for maddr, length in self._stores.take():
            stop = self._accessed(vcpu, self._watchpoints.stored(maddr, length), maddr, length)
            if stop is not None:
                self._stores.take()
                self.stored_by_xen = True
                return stop
        return None

    def watched(self, vcpu: Vcpu, came: WatchExit) -> StopReply | None:
        """A stop if the guest's access to watched memory is the business of an inferior."""
        self._machine.watches.came = came
        return self.touched(vcpu, came)

    def touched(self, vcpu: Vcpu, came: WatchExit) -> StopReply | None:
        """The same for an access that another domain has made to a frame that it shares; `vcpu`: one of our own."""
        self.stored_by_xen = False
        return self._accessed(vcpu, came.watches, came.maddr, came.size)

    def _accessed(self, vcpu: Vcpu, touched: Sequence[Watch], maddr: int, size: int) -> StopReply | None:
        """A stop for one of gdb's watch points, or for one with a condition, which is evaluated in any case."""
        stop = self._stops.watch(vcpu, self._watchpoints.hits(touched, maddr, size))
        numbers = self._watchpoints.conditional(touched, maddr, size)
        own = self.conditional(vcpu, numbers) if numbers and self.conditional is not None else None
        return stop or own

    def own_int3(self, vcpu: Vcpu, came: Exit) -> StopReply | None:
        """A stop if the guest executed an int3 that the debugger wrote; Xen is not to handle it then.

        rip is put back on it. A gdb that was promised `swbreak` corrects nothing itself, and it must not be told so:
        it would resume without a word if the int3 is not one of its own breakpoints.
        """
        if not self._planted:
            return None
        if not (isinstance(came, ExceptionExit) and came.software and came.vector == Vector.BP):
            return None
        cpu = self._hv.cpu
        behind = cpu.rip
        try:
            maddr = walk(self._hv.ram, vcpu.cr3, Vaddr(behind - 1)).maddr
        except NotMappedError:
            return None
        if maddr not in self._planted:
            return None
        cpu.rip = Vaddr(behind - 1)
        stop = self._stops.own_int3(vcpu)
        if stop is None:
            cpu.rip = behind
        return stop

    def note_ending(self, pid: int, ending: Ending) -> None:
        """An attached process is about to end."""
        self._ending[pid] = ending

    def ended(self) -> ExitReply | SignalledReply | None:
        """The end of a process that gdb has not been told of and wants to know of now."""
        for pid, ending in self._ended.items():
            if self._stops.asked_for(Thread(pid, pid)):
                del self._ended[pid]
                return self._stops.exited(pid, *ending)
        return None

    @property
    def has_ended(self) -> bool:
        """Whether gdb has not been told of the end of a process."""
        return bool(self._ended)

    # -- inside

    def _may_remap(self, vcpu: Vcpu, came: Exit) -> bool:
        match came:
            case SyscallExit():
                return vcpu.kernel_mode and self._hv.cpu.gpr[RAX] & 0xFFFF_FFFF in _REMAPPING
            case ExceptionExit(vector):
                return vcpu.kernel_mode and vector == Vector.PF
            case _:
                return False

    def _follow(self) -> None:
        """Watch what the watch points mean now; with any, Xen's own stores are of interest too."""
        self._watchpoints.follow(self._machine.watches, self._inferiors.space_of)
        if self._watchpoints:
            self._machine.observers.add(self._stores)
        else:
            self._machine.observers.remove(self._stores)
            self._stores.take()

    def _look_at_processes(self) -> None:
        """Page tables of processes may be other ones, and processes may have ended."""
        self._has_handled = False
        for process in self._inferiors.refresh():
            pid = process.pid
            self._inferiors.detach(pid)
            self._breakpoints.forget(pid)
            self._watchpoints.forget(pid)
            self._ended[pid] = self._ending.pop(pid, (process.exit_status or 0, process.exit_signal))


def _tables(vcpu: Vcpu) -> tuple[int, int | None]:
    return vcpu.guest_table, vcpu.guest_table_user
