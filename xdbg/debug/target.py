"""The gdb target: one domain, split by capability as the protocol asks for it.

`DebugTarget` implements the basic protocols of `rsp.target` and holds nothing of its own: each method belongs to one
of the components. A protocol beyond those is implemented by a class of its own in `parts`.

=================  ========================================================
`inferiors`        who there is; registers and memory of each
`breakpoints`      Z0, Z1
`agent`            their conditions and commands
`watchpoints`      Z2, Z3, Z4; `conditional_watches`: those of ``monitor watch``
`run_control`      vCont, Ctrl-C, and what stops the guest (`stops`)
`non_stop`         the same when threads stop one by one
`thread_events`    threads that come and go
`events`           forks, execs, ends of processes
`signals`          their signals, siginfo
`syscalls`         QCatchSyscalls
`files`            what vFile serves
`catches`          stops at what the hypervisor does
`monitor`          the commands behind ``monitor``
`tracing`          tracepoints
=================  ========================================================

The session calls `connected` and `disconnected` as clients come and go, and `advance` while one of them waits for a
stop.
"""

from collections.abc import Iterable, Sequence
from errno import E2BIG, EINVAL, ENOENT
from typing import Final

from xdbg.abi.sched import Shutdown
from xdbg.guestos.profile import Profile
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.registers import G_REGISTERS, G_SIZE, RIP, description
from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, File, ResumeAction, TargetError, ThreadInfo, WatchKind
from xdbg.rsp.threadid import Thread
from xdbg.trace.describing import Describer
from xdbg.trace.symbols import ProfileKernel, ProfileProcesses
from xdbg.xen.domain import Domain
from xdbg.xen.setup import Hypervisor, RunEnd

from . import commands  # noqa: F401 - fills the table of monitor commands
from .client_list import ClientList
from .console import Console
from .cores.file import CoreFiles
from .events.catches import Catches
from .events.conditional_watches import ConditionalWatches
from .events.process_events import ProcessEvents
from .events.signals import Signals
from .events.syscalls import SyscallCatches
from .events.thread_events import ThreadEvents
from .inferiors.attached import KERNEL_PID, Inferiors
from .inferiors.files import GuestFiles
from .inferiors.load_addresses import ProgramPlaces
from .inferiors.memory_regions import GuestMemoryRegions
from .inferiors.os_tables import OsTables
from .inferiors.registers import decode, encode, read_one, with_one
from .monitor import MonitorContext, run_command
from .points.breakpoints import Breakpoints
from .points.watchpoints import Watchpoint, Watchpoints
from .running.lingering import Lingering
from .running.machine_run import MachineRun, Part
from .running.non_stop import NonStop
from .running.run_control import RunControl
from .trace_control import TraceControl
from .tracepoints.tracing import Tracing

MAX_WATCHED: Final = 64 << 20
"""Bytes of one watch point. Its pages are looked up at each resume: these take some 30 ms."""


class DebugTarget:
    """What gdb debugs: the kernel and the processes of `domain`."""

    observing = False
    """Whether its client may only look (`observing`)."""

    def __init__(self, hv: Hypervisor, domain: Domain, profile: Profile, machine: MachineRun | None = None) -> None:
        """`machine`: what it shares with the targets of other domains; its own if it is the only one."""
        assert domain.hv is hv
        self.machine = machine if machine is not None else MachineRun(hv)
        self.hv = hv
        self.domain = domain
        self.profile = profile
        self.observers = self.machine.observers
        """Where others who want to be told what the hypervisor does join in."""
        self.inferiors = Inferiors(domain, profile)
        self.breakpoints = Breakpoints(KERNEL_PID)
        self.watchpoints = Watchpoints()
        self.console = Console()
        """Text for the client's console: to be taken after each `advance`, before a stop is told.

        After `run_free` it is for the people at the server.
        """
        self.run_control = RunControl(self.inferiors, self.breakpoints, self.watchpoints, self.machine, self.console)
        self.files = GuestFiles(self.inferiors)
        self.tracing = Tracing(self.inferiors, self.breakpoints, self.run_control)
        self.agent = self.run_control.stops.agent
        self._lingering = Lingering(self.inferiors, self.agent, self.run_control.sources)
        self.non_stop = NonStop(self.inferiors, self.run_control)
        self.thread_events = ThreadEvents(self.inferiors, self.run_control.stops, self.run_control.sources)
        self.signals = Signals(self.inferiors, self.run_control.stops, self.run_control.sources, self.console)
        self.events = ProcessEvents(self.inferiors, self.breakpoints, self.watchpoints, self.run_control, self.signals)
        self.syscalls = SyscallCatches(self.inferiors, self.run_control)
        self._kernel = ProfileKernel(profile)
        self.describer = Describer(self._kernel, ProfileProcesses(profile))
        """Puts events and addresses into words."""
        self.catches = Catches(
            self.inferiors, self.breakpoints, self.run_control, self.observers, self.describer, self.console
        )
        self.conditional_watches = ConditionalWatches(
            self.inferiors,
            self.watchpoints,
            self.run_control.stops,
            self.run_control.following,
            self.run_control.sources,
            self.console,
        )
        self.parts: list[object] = [
            self.agent,
            self.non_stop,
            self.thread_events,
            self.signals,
            self.events,
            self.syscalls,
            GuestMemoryRegions(self.inferiors),
            ProgramPlaces(self.inferiors),
            OsTables(self.inferiors, self.describer),
            self.tracing,
        ]
        """What implements the protocols of `rsp.target` that the target does not implement itself."""
        self.trace: TraceControl | None = None
        """What ``monitor trace`` turns on and off; the session puts it there."""
        self.core_files: CoreFiles | None = None
        """Where ``monitor dump-core`` writes to; the session puts it there."""
        self.clients: ClientList | None = None
        """What ``monitor clients`` lists; the session puts it there."""

    # -- the session's side

    def connected(self) -> None:
        """A client has come: it finds the kernel attached, and the domain standing where it is."""
        self.inferiors.only_kernel()
        self.breakpoints.clear()
        self.run_control.following.withdraw()
        self.run_control.standstill()
        self.console.take()

    def succeed(self, before: "DebugTarget") -> None:
        """In place of another target under the same client, `connected`: what that has set once for all holds here."""
        self.non_stop.set_non_stop(before.non_stop.on)
        self.thread_events.report_threads(before.thread_events.every)
        self.events.report_process_events(fork=before.events.forks, execs=before.events.execs)
        self.signals.pass_signals(before.signals.passed)
        if before.signals.programs is not None:
            self.signals.program_signals(before.signals.programs)
        for catch in before.catches:
            self.catches.add(catch.request, temporary=catch.temporary)

    def disconnected(self) -> None:
        """The client has gone: nothing of it stays behind but a trace and commands of breakpoints that are to go on."""
        self.events.clear()
        self.syscalls.clear()
        # Before run control: as long as a process is attached, it has stop points for its events.
        self.inferiors.only_kernel()
        self.non_stop.forget()
        self.catches.clear()
        self.conditional_watches.clear()
        self.run_control.forget()
        if self.run_control.sources:
            self.run_control.prepare()

    def inherit(self, former: "DebugTarget") -> None:
        """Take over what was traced of a former domain in whose place the domain was built."""
        self.tracing.inherit(former.tracing)

    @property
    def idle(self) -> bool:
        """The last slice ended because nothing can run before there is console input."""
        return self.run_control.idle

    @property
    def runs(self) -> bool:
        """In non-stop: whether there is something to run or to tell."""
        return self.non_stop.on and self.non_stop.runs

    def run_free(self, limit: int) -> RunEnd:
        """Run the machine without a debugger, at most to instruction count `limit`."""
        if self.left_behind is None:
            return self.hv.run(limit)
        self.machine.advance([self.left_behind], limit)
        return RunEnd.LIMIT if self.hv.alive and not self.machine.idle else self.hv.idle_reason()

    @property
    def part(self) -> Part:
        """How the domain takes part in the run when a debugger has resumed it."""
        return self.non_stop if self.non_stop.on else self.run_control

    @property
    def left_behind(self) -> Part | None:
        """How it does without a debugger; None if nothing is left of one."""
        return self._lingering if len(self.breakpoints) or self.run_control.sources else None

    def stands_after(self, stop: StopEvent) -> bool:
        """Whether what a stop was told for has not been resumed since."""
        if self.non_stop.on:
            return self.non_stop.stands_after(stop)
        return self.run_control.last_stop is stop and not self.run_control.is_resumed

    def advance(self, limit: int) -> StopEvent | None:
        """Run the machine, at most to instruction count `limit`, and nobody debugs another domain of it.

        What gdb must be told, if anything.
        """
        [stop] = self.machine.advance([self.part], limit)
        if stop is not None:
            self.told(stop)
        return stop

    def told(self, stop: StopEvent) -> None:
        """The debugger is told this."""
        self.thread_events.told(stop)

    # -- Target

    def threads(self) -> Sequence[ThreadInfo]:
        """The vcpus, then the attached processes."""
        return self.inferiors.threads()

    def is_alive(self, thread: Thread) -> bool:
        """Whether it is attached."""
        return self.inferiors.is_alive(thread)

    def stop_status(self) -> StopEvent:
        """The last stop, as long as its thread is attached."""
        last = self.run_control.last_stop
        if isinstance(last, StopReply) and self.inferiors.is_alive(last.thread):
            return last
        return self.run_control.stops.standing()

    def read_registers(self, thread: Thread) -> bytes:
        """The `g` block."""
        return encode(self.inferiors.read_registers(thread))

    def write_registers(self, thread: Thread, block: bytes) -> None:
        """Sets what differs. TargetError(EINVAL) for a block of another length than `read_registers` gives."""
        if len(block) != G_SIZE:
            raise TargetError(EINVAL, f"the block of registers has {G_SIZE} bytes")
        self.inferiors.write_registers(thread, decode(block, self.inferiors.read_registers(thread)))

    def read_register(self, thread: Thread, regnum: int) -> bytes:
        """One register; those behind the `g` block are the vcpu's. TargetError(EINVAL) for an unknown one."""
        if regnum == RIP:
            return self.inferiors.rip(thread).to_bytes(8, "little")
        if 0 <= regnum < len(G_REGISTERS):
            return read_one(self.inferiors.read_registers(thread), regnum)
        return self.inferiors.read_system(thread, regnum)

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        """Sets one register."""
        if 0 <= regnum < len(G_REGISTERS):
            if len(value) != G_REGISTERS[regnum].size:
                raise TargetError(EINVAL, f"{G_REGISTERS[regnum].name} has {G_REGISTERS[regnum].size} bytes")
            self.inferiors.write_registers(thread, with_one(self.inferiors.read_registers(thread), regnum, value))
        else:
            self.inferiors.write_system(thread, regnum, value)

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        """What the thread would see, less its rights; short at a hole."""
        return self.inferiors.space(thread).read(vaddr, length)

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        """All or nothing."""
        self.non_stop.check_write(thread, vaddr, len(data))
        space = self.inferiors.space(thread)
        before = space.read(vaddr, 1)
        space.write(vaddr, data)
        self.run_control.following.wrote_memory(space, vaddr, data, before)

    # -- Resume

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Only noted; `advance` runs. Signals go to the guest's kernel at once."""
        (self.non_stop if self.non_stop.on else self.run_control).resume(actions)
        self.signals.resume(self.run_control.last_stop)

    def interrupt(self) -> None:
        """The next `advance` stops at once."""
        (self.non_stop if self.non_stop.on else self.run_control).interrupt()

    # -- Breakpoints, Watchpoints

    def insert_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """In force from the next resume on."""
        self.breakpoints.insert(self._owner(thread), kind, vaddr)

    def remove_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """As `insert_breakpoint`."""
        self.breakpoints.remove(thread.pid, kind, vaddr)

    def insert_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """In force from the next resume on. TargetError(E2BIG) for more than `MAX_WATCHED` bytes."""
        if length > MAX_WATCHED:
            raise TargetError(E2BIG, f"a watch point has at most {MAX_WATCHED} bytes")
        self.watchpoints.insert(Watchpoint(self._owner(thread), kind, vaddr, length))

    def remove_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """As `insert_watchpoint`."""
        self.watchpoints.remove(Watchpoint(thread.pid, kind, vaddr, length))

    def _owner(self, thread: Thread) -> int:
        if not self.inferiors.is_alive(thread):
            raise TargetError(EINVAL, "no such thread")
        return thread.pid

    # -- Description, ExecFile, Auxv, HostIo

    def target_xml(self, annex: str) -> bytes:
        """The registers."""
        return description(annex)

    def exec_file(self, pid: int) -> str:
        """The path of the kernel's or a process's program."""
        path = self.profile.kernel_path if pid == KERNEL_PID else self.inferiors.find_process(pid).exec_path
        if not path:
            raise TargetError(ENOENT, f"the program of process {pid} is not known")
        return path

    def auxv(self, thread: Thread) -> bytes:
        """What the process's kernel told its program at the start."""
        if thread.pid == KERNEL_PID:
            raise TargetError(ENOENT, "a kernel has no auxiliary vector")
        found = self.inferiors.process(thread.pid).auxv
        if not found:
            raise TargetError(ENOENT, f"the auxiliary vector of process {thread.pid} is not known")
        return found

    def open_file(self, pid: int, path: str) -> File:
        """A file of the guest."""
        return self.files.open(pid, path)

    def read_link(self, pid: int, path: str) -> str:
        """/proc/PID/exe and its like."""
        return self.files.read_link(pid, path)

    # -- Monitor

    def monitor(self, thread: Thread | None, command: str) -> Iterable[str]:
        """One line of ``monitor``."""
        return run_command(MonitorContext(self, thread), command)

    @property
    def kernel_symbols(self) -> SymbolTable:
        """The kernel's names, for monitor commands; none if its file has no symbols."""
        return self._kernel.table

    # -- Processes

    def attach(self, pid: int) -> StopReply:
        """The kernel, or a process of the guest; it stands still as everything does."""
        thread = self.inferiors.attach(pid)
        self.events.watch()
        registers = self.inferiors.expedited(thread)
        stop = StopReply(Signal.TRAP, thread, (), registers, self.domain.vcpus[0].vcpu_id)
        self.run_control.last_stop = stop
        return stop

    def detach(self, pid: int) -> None:
        """Its break and watch points go too."""
        self.events.release(pid)
        self.syscalls.release(pid)
        self.breakpoints.forget(pid)
        self.watchpoints.forget(pid)
        self.inferiors.detach(pid)
        self.non_stop.detached(pid)
        self.run_control.following.withdraw()

    def kill(self, pid: int) -> None:
        """The kernel's end is the domain's. A process ends when its kernel runs again. TargetError if it can't."""
        if pid == KERNEL_PID:
            self.hv.shutdown_domain(self.domain, Shutdown.POWEROFF, "killed by the debugger")
        else:
            self.inferiors.process(pid)
            self.signals.kill(pid)
        self.detach(pid)
