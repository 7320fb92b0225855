"""What any guest kernel must tell about itself, in terms that are the same for all kernels.

A profile reads the guest's memory anew each time it is asked: a debugger asks while the guest stands still, and what
was true at the last stop may be true no more. It never raises because of what it finds: a guest that has lost its mind
has fewer processes, not a debugger that fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xdbg.abi.frames import Maddr, Vaddr

from .events import GuestEvent, KernelRegisters, SignalInfo, Signalled


@dataclass(frozen=True, slots=True)
class Vma:
    """[start, end) of an address space. `prot`: 1 read, 2 write, 4 execute; `name` is a path, "[stack]", or empty."""

    start: Vaddr
    end: Vaddr
    prot: int
    offset: int
    name: str


@dataclass(frozen=True, slots=True)
class UserRegisters:
    """Registers of a process as its kernel saved them when it was last interrupted.

    `gpr` has rax rcx rdx rbx rsp rbp rsi rdi r8..r15, in that order. None: the kernel does not keep it.
    """

    gpr: tuple[int, ...]
    rip: Vaddr
    rflags: int
    cs: int
    ss: int
    fs_base: int | None = None
    gs_base: int | None = None
    fpu: bytes | None = None
    """The 512 bytes of FXSAVE."""
    orig_rax: int | None = None
    """The number of the system call that the process is in; None: it is in none."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the guest."""

    pid: int
    name: str
    state: str
    """In the kernel's own words, lower case."""
    parent_pid: int | None
    cr3: Maddr | None
    """The page table of its user mode; None: it has no address space."""
    kernel_cr3: Maddr | None
    """The page table of kernel mode on its behalf; None: it has no address space, or kernel and user mode share one."""
    exec_path: str
    """Its program, to be read by `Profile.file`; empty if unknown."""
    load_base: int
    """What to add to the addresses in the program's file."""
    entry: Vaddr
    auxv: bytes
    """Pairs of 64-bit words."""
    registers: UserRegisters | None
    """What the kernel saved. It is not the truth while the process is in user mode on a vcpu."""
    vmas: tuple[Vma, ...]
    vcpu_id: int | None
    """The vcpu that runs it or does something on its behalf; None: no vcpu does."""
    traced_by: int | None = None
    """The pid of a debugger inside the guest."""
    ended: bool = False
    """It has no memory and no registers any more; its parent has still to ask for its status."""
    exit_status: int | None = None
    exit_signal: int = 0
    """What ended it, by Linux's number; 0: it ended by itself."""


class Profile(Protocol):
    """The knowledge of one kernel."""

    @property
    def name(self) -> str:
        """Of the kernel, for people."""
        ...

    @property
    def kernel_path(self) -> str:
        """Where `file` has the kernel's own ELF file."""
        ...

    def processes(self) -> Sequence[Process]:
        """All processes, by pid; empty as long as the kernel has none."""
        ...

    def process(self, pid: int) -> Process | None:
        """The process of that number."""
        ...

    def current_pid(self, vcpu_id: int) -> int | None:
        """The process that a vcpu runs, in user mode or in the kernel on its behalf; None: none, or unknown."""
        ...

    @property
    def event_points(self) -> Sequence[Vaddr]:
        """The places of the kernel where something has just happened to a process; see `events`."""
        ...

    def event(self, vcpu: KernelRegisters) -> GuestEvent | None:
        """What has happened, a vcpu being about to execute one of `event_points`; None: nothing that counts."""
        ...

    def signal_writes(self, event: Signalled, info: SignalInfo | None) -> Sequence[tuple[Vaddr, bytes]]:
        """What to store where in the kernel's memory at that event, so that it acts upon another signal, or on none.

        A process that loses its signal goes on where it was. Empty: that can't be done.
        """
        ...

    def send_writes(self, pid: int, info: SignalInfo) -> Sequence[tuple[Vaddr, bytes]]:
        """What to store so that the kernel gives a process a signal when it is about to run it the next time.

        Empty: this process can't be given this signal.
        """
        ...

    def unsaved_registers(self, pid: int, vcpu: KernelRegisters) -> UserRegisters | None:
        """A process's registers while `vcpu` has just entered the kernel from it and has not saved all of them.

        None: what the kernel saved is the truth.
        """
        ...

    def unsaved_writes(
        self, pid: int, registers: UserRegisters, vcpu: KernelRegisters
    ) -> tuple[Sequence[tuple[Vaddr, bytes]], dict[int, int]]:
        """As `register_writes` where `unsaved_registers` is not None; and which of the vcpu's gpr are to be set."""
        ...

    def register_writes(self, pid: int, registers: UserRegisters) -> Sequence[tuple[Vaddr, bytes]]:
        """What to store where in the kernel's memory, so that it lets the process go on with these registers.

        Parts that are None stay. Empty: there is no such process, or the kernel keeps no registers of it.
        """
        ...

    def file(self, path: str) -> bytes | None:
        """A file as the guest has it, the kernel and programs with their debug information; None: there is none."""
        ...
