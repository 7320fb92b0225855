"""What gdb sees as processes: the guest's kernel, and each process of the guest that it attached to.

The kernel has a number that no process of a guest can have (`KERNEL_PID`); its threads are the vcpus, numbered from
1. They show the vcpu as it is, in kernel mode or in user mode. It is attached from the beginning. All vcpus are threads
from the beginning, too, whether they are up, down or were never started: threads do not come and go with them. One
that was never started has registers of zero, and shows the memory of vcpu 0.

A process is attached by the guest's own pid; which processes there are, the guest's profile tells. It has one thread,
with the pid for its number. While a vcpu runs it in user mode its registers are the vcpu's, otherwise those that its
kernel saved and will restore. Its memory is read through its own page tables whether it runs or not.

"On behalf of a process" means here: with its page tables loaded. That needs no look into the guest's memory, so it
can be asked after each exit.
"""

from dataclasses import dataclass, field, replace
from errno import EEXIST, ENOTSUP, EPERM, ESRCH
from functools import cache
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, Maddr, Vaddr
from xdbg.debug.points.conditions import Placement
from xdbg.guestos.profile import Process, Profile, UserRegisters
from xdbg.machine.registers import RBP, RSP
from xdbg.rsp.registers import REGISTERS
from xdbg.rsp.target import TargetError, ThreadInfo
from xdbg.rsp.threadid import Thread
from xdbg.xen.domain import Domain
from xdbg.xen.vcpu import Vcpu

from .address_space import KERNEL_HALF, AddressSpace
from .process_registers import completed, entering, set_gpr
from .registers import Registers, expedited
from .vcpu_registers import expedited_of_vcpu, read_system, read_vcpu, rip_of, write_system, write_vcpu

KERNEL_PID: Final = 0x40_0001
"""The kernel's number as an inferior: above the largest pid of any guest."""


@cache
def _kernel_thread(vcpu_id: int) -> Thread:
    return Thread(KERNEL_PID, vcpu_id + 1)


@dataclass(slots=True)
class Inferiors:
    """The attached inferiors of one domain."""

    domain: Domain
    profile: Profile
    kernel_attached: bool = True
    _attached: dict[int, Process] = field(default_factory=dict)
    """Processes by pid, as they were when last looked at; page tables are looked up here."""
    _fresh: set[int] = field(default_factory=set)
    """The pids of those that have been looked at since the guest last ran."""
    returned: dict[int, int] = field(default_factory=dict)
    """Processes that stand behind a system call from which they have just returned, and its number."""

    # -- who there is

    def attach(self, pid: int) -> Thread:
        """Add an inferior; its thread. TargetError: ESRCH for no such process, EEXIST for one that is attached."""
        if pid in self.pids():
            raise TargetError(EEXIST, f"process {pid} is attached already")
        if pid == KERNEL_PID:
            self.kernel_attached = True
            return self.vcpu_thread(self.domain.vcpus[0])
        process = self.profile.process(pid)
        if process is None or process.ended or process.cr3 is None:
            raise TargetError(ESRCH, f"the guest has no process {pid} with memory of its own")
        self._attached[pid] = process
        self._fresh.add(pid)
        return Thread(pid, pid)

    def detach(self, pid: int) -> None:
        """Let go of an inferior; no error if it is not attached."""
        if pid == KERNEL_PID:
            self.kernel_attached = False
        self._attached.pop(pid, None)
        self._fresh.discard(pid)

    def only_kernel(self) -> None:
        """The state at the beginning of a session."""
        self.kernel_attached = True
        self._attached.clear()
        self._fresh.clear()

    def pids(self) -> list[int]:
        """The attached inferiors, the kernel first, then processes in the order in which they were attached."""
        return [KERNEL_PID, *self._attached] if self.kernel_attached else list(self._attached)

    @property
    def has_processes(self) -> bool:
        """Whether any process is attached."""
        return bool(self._attached)

    def stale(self) -> None:
        """The guest has run, or its memory was changed: what is known of its processes may be true no more."""
        self._fresh.clear()

    def refresh(self) -> list[Process]:
        """Look at all attached processes anew; those that have ended. They stay attached."""
        self.stale()
        return [seen for seen in [self._look(pid) for pid in list(self._attached)] if seen.ended]

    def _look(self, pid: int) -> Process:
        """The process as it is now; as it was, but ended, when the kernel knows it no more."""
        known = self._attached[pid]
        if pid not in self._fresh:
            found = self.profile.process(pid)
            if found is not None and not found.ended:
                self._attached[pid] = known = found
            else:
                return found if found is not None else _gone(known)
            self._fresh.add(pid)
        return known

    # -- threads

    def vcpu_thread(self, vcpu: Vcpu) -> Thread:
        """The kernel's thread that shows a vcpu."""
        return _kernel_thread(vcpu.vcpu_id)

    def threads(self) -> list[ThreadInfo]:
        """All threads of the attached inferiors, with names."""
        found = []
        if self.kernel_attached:
            for vcpu in self.domain.vcpus:
                thread = self.vcpu_thread(vcpu)
                found.append(ThreadInfo(thread, f"vcpu{vcpu.vcpu_id}", vcpu.vcpu_id, self.describe_vcpu(vcpu)))
        for pid in self._attached:
            process = self._look(pid)
            found.append(ThreadInfo(Thread(pid, pid), process.name, process.vcpu_id, process.state))
        return found

    def describe_vcpu(self, vcpu: Vcpu) -> str:
        """What a vcpu does, in some words."""
        if vcpu.domain.shutdown_code is not None:
            return "domain has ended"
        if not vcpu.is_initialised:
            return "not started"
        if not vcpu.is_up:
            return "down"
        if vcpu.blocked or vcpu.polling is not None:
            return "waits for an event"
        mode = "kernel mode" if vcpu.kernel_mode else "user mode"
        pid = self.profile.current_pid(vcpu.vcpu_id)
        return mode if pid is None else f"{mode}, process {pid}"

    def is_alive(self, thread: Thread) -> bool:
        """Whether `threads` has it."""
        if thread.pid == KERNEL_PID:
            return self.kernel_attached and 0 < thread.tid <= len(self.domain.vcpus)
        return thread.pid in self._attached and thread.tid == thread.pid

    def is_started(self, thread: Thread) -> bool:
        """Whether a thread can execute anything: not so a vcpu that was never started."""
        return thread.pid != KERNEL_PID or self.vcpu(thread).is_initialised

    def threads_of(self, pid: int) -> list[Thread]:
        """The threads of one inferior."""
        if pid == KERNEL_PID:
            return [self.vcpu_thread(vcpu) for vcpu in self.domain.vcpus]
        return [Thread(pid, pid)]

    def process(self, pid: int) -> Process:
        """An attached process as it is now. TargetError(ESRCH)."""
        if pid not in self._attached:
            raise TargetError(ESRCH, f"process {pid} is not attached")
        return self._look(pid)

    def find_process(self, pid: int) -> Process:
        """A process, attached or not. TargetError(ESRCH)."""
        process = self._look(pid) if pid in self._attached else self.profile.process(pid)
        if process is None:
            raise TargetError(ESRCH, f"the guest has no process {pid}")
        return process

    def process_ids(self) -> list[int]:
        """The attached processes."""
        return list(self._attached)

    # -- on which vcpu

    def vcpu(self, thread: Thread) -> Vcpu:
        """The vcpu of a kernel thread. TargetError(ESRCH)."""
        if thread.pid != KERNEL_PID or not 0 < thread.tid <= len(self.domain.vcpus):
            raise TargetError(ESRCH, "no such thread")
        return self.domain.vcpus[thread.tid - 1]

    def runs(self, vcpu: Vcpu, pid: int) -> bool:
        """Whether a vcpu is in user mode of an attached process."""
        return not vcpu.kernel_mode and pid in self._attached and vcpu.cr3 == self._attached[pid].cr3

    def is_behind(self, vcpu: Vcpu, pid: int) -> bool:
        """Whether a vcpu runs an attached process, or its kernel on that process's behalf."""
        process = self._attached.get(pid)
        if process is None:
            return False
        if vcpu.kernel_mode and process.kernel_cr3 is not None:
            return vcpu.kernel_cr3 == process.kernel_cr3
        if vcpu.guest_table_user is not None:
            return vcpu.guest_table_user << 12 == process.cr3
        return vcpu.cr3 == process.cr3

    def _behind(self, pid: int) -> Vcpu | None:
        """The vcpu whose kernel works on behalf of an attached process."""
        return next((vcpu for vcpu in self.domain.vcpus if vcpu.kernel_mode and self.is_behind(vcpu, pid)), None)

    def user_vcpu(self, pid: int) -> Vcpu | None:
        """The vcpu that is in user mode of an attached process."""
        return next((vcpu for vcpu in self.domain.vcpus if self.runs(vcpu, pid)), None)

    # -- memory

    def tables_of(self, pid: int) -> tuple[Maddr, ...]:
        """The page tables under which an attached process runs."""
        process = self._attached.get(pid)
        if process is None:
            return ()
        return tuple(dict.fromkeys(cr3 for cr3 in (process.cr3, process.kernel_cr3) if cr3 is not None))

    def placements(self, pid: int, vaddr: Vaddr) -> list[Placement]:
        """Under which page tables a breakpoint of an inferior stops, and what is exact there."""
        if pid == KERNEL_PID:
            return [Placement(None)]
        process = self._attached.get(pid)
        if process is None or process.cr3 is None:
            return []
        kernel = process.kernel_cr3
        tables = (process.cr3,) if kernel in (None, process.cr3) else (process.cr3, kernel)
        # With a table of its own for user mode, the CPU has the process's registers while it is in use. Else the kernel
        # may be at work behind the same table, and what it has saved is not known there.
        own = len(tables) > 1
        if vaddr < KERNEL_HALF:
            where = self.tables_of(pid)
        elif kernel is not None:
            where = (kernel, process.cr3)
        else:
            mfn = process.cr3 >> PAGE_SHIFT
            loaded = [vcpu.kernel_cr3 for vcpu in self.domain.vcpus if vcpu.guest_table_user == mfn]
            where = tuple(dict.fromkeys((process.cr3, *loaded)))
        return [Placement(cr3, tables, own and cr3 == process.cr3) for cr3 in where]

    def space(self, thread: Thread) -> AddressSpace:
        """The memory that a thread sees. TargetError(ESRCH)."""
        ram = self.domain.hv.ram
        if thread.pid == KERNEL_PID:
            vcpu = self.vcpu(thread)
            if not vcpu.is_initialised:
                vcpu = self.domain.vcpus[0]
            user = None if vcpu.guest_table_user is None else Maddr(vcpu.guest_table_user << 12)
            return AddressSpace(ram, vcpu.kernel_cr3, user)
        return self.space_of_process(self.process(thread.pid))

    def space_of(self, pid: int) -> AddressSpace | None:
        """The memory that the first thread of an inferior sees; None if it is not attached or has lost its memory."""
        if pid != KERNEL_PID and pid not in self._attached:
            return None
        try:
            return self.space(self.threads_of(pid)[0])
        except TargetError:
            return None

    def space_of_process(self, process: Process) -> AddressSpace:
        """The memory of any process. TargetError(ESRCH) when it has none."""
        if process.cr3 is None:
            raise TargetError(ESRCH, f"process {process.pid} has no memory")
        kernel = process.kernel_cr3 if process.kernel_cr3 is not None else self.domain.vcpus[0].kernel_cr3
        return AddressSpace(self.domain.hv.ram, kernel, process.cr3)

    # -- registers

    def read_registers(self, thread: Thread) -> Registers:
        """The registers that the `g` block shows. TargetError(ESRCH)."""
        if thread.pid == KERNEL_PID:
            return read_vcpu(self.vcpu(thread))
        process = self.process(thread.pid)
        vcpu = self.user_vcpu(thread.pid)
        if vcpu is not None:
            registers = read_vcpu(vcpu)
            number = self.returned.get(thread.pid)
            return registers if number is None else replace(registers, orig_rax=number)
        entered = entering(self.domain, self.profile, self._behind(thread.pid), thread.pid)
        saved = process.registers if entered is None else entered.registers
        if saved is None:
            raise TargetError(ESRCH, f"the kernel has saved no registers of process {thread.pid}")
        return completed(self.domain, process, saved)

    def write_registers(self, thread: Thread, new: Registers) -> None:
        """Change what differs. TargetError."""
        old = self.read_registers(thread)
        vcpu = self.vcpu(thread) if thread.pid == KERNEL_PID else self.user_vcpu(thread.pid)
        if vcpu is not None:
            write_vcpu(vcpu, old, new)
            return
        changed = old.changes(new)
        refused = [name for name in changed if name in ("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")]
        if refused:
            raise TargetError(ENOTSUP, f"{refused[0]} can only be changed while the process runs")
        process = self.process(thread.pid)
        working = None if process.vcpu_id is None else self.domain.vcpus[process.vcpu_id]
        fpu = new.fpu if "fpu" in changed else None
        if working is not None and fpu is not None:
            # The kernel works for the process and has left its FPU state where it was.
            live = read_vcpu(working)
            write_vcpu(working, live, replace(live, fpu=fpu))
        wanted = UserRegisters(new.gpr, Vaddr(new.rip), new.rflags, new.cs, new.ss, fpu=fpu)
        entered = entering(self.domain, self.profile, self._behind(thread.pid), thread.pid)
        if entered is None:
            stores = self.profile.register_writes(thread.pid, wanted)
        else:
            stores, gpr = self.profile.unsaved_writes(thread.pid, wanted, entered.kernel)
            set_gpr(entered.vcpu, gpr)
        if changed and not stores:
            raise TargetError(ESRCH, f"the registers of process {thread.pid} can't be changed now")
        space = self.space(thread)
        for vaddr, data in stores:
            space.write(vaddr, data)
        self.stale()

    def read_system(self, thread: Thread, number: int) -> bytes:
        """A register behind the `g` block: the vcpu's, but for a process's cr3. TargetError."""
        if thread.pid == KERNEL_PID:
            return read_system(self.vcpu(thread), number)
        process = self.process(thread.pid)
        vcpu = self.user_vcpu(thread.pid) or self.domain.vcpus[process.vcpu_id or 0]
        return read_system(vcpu, number, process.cr3)

    def write_system(self, thread: Thread, number: int, value: bytes) -> None:
        """Set a register behind the `g` block. TargetError. A process owns none: there they stay as they are."""
        present = self.read_system(thread, number)
        if thread.pid == KERNEL_PID:
            write_system(self.vcpu(thread), number, value, present)
        elif value != present and REGISTERS[number].name == "cr3":
            raise TargetError(EPERM, "cr3 can't be changed")

    def expedited(self, thread: Thread) -> dict[int, bytes]:
        """rip, rsp and rbp for a stop reply; none when they can't be known."""
        vcpu = self.vcpu(thread) if thread.pid == KERNEL_PID else self.user_vcpu(thread.pid)
        if vcpu is not None:
            return expedited_of_vcpu(vcpu)
        try:
            process = self.process(thread.pid)
        except TargetError:
            return {}
        entered = entering(self.domain, self.profile, self._behind(thread.pid), thread.pid)
        saved = process.registers if entered is None else entered.registers
        return {} if saved is None else expedited(saved.rip, saved.gpr[RSP], saved.gpr[RBP])

    def rip(self, thread: Thread) -> int:
        """Where a thread is. TargetError(ESRCH)."""
        vcpu = self.vcpu(thread) if thread.pid == KERNEL_PID else self.user_vcpu(thread.pid)
        return rip_of(vcpu) if vcpu is not None else self.read_registers(thread).rip


def _gone(process: Process) -> Process:
    """A process that its kernel has forgotten."""
    return Process(
        process.pid,
        process.name,
        "gone",
        None,
        None,
        None,
        process.exec_path,
        0,
        Vaddr(0),
        b"",
        None,
        (),
        None,
        ended=True,
    )
