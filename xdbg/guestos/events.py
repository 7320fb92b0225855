"""What happens to a guest's processes, in terms that are the same for all kernels.

A profile names the places of its kernel where something has just happened to a process (`Profile.event_points`). When
a vcpu is about to execute one of them, `Profile.event` says what it was, from the arguments in the vcpu's registers. By
then the event is complete:

`Forked`
    The child's registers and memory are whole and it has not run; the parent's saved registers are those with which
    it will go on. `vfork`: the child shares the parent's memory until it ends or executes a program.
`Spawned`
    As `Forked`, but the child already is another program.
`Execed`
    The new program is in place, before its first instruction.
`Exiting`
    The process still has its memory and registers, and will lose them.
`Signalled`
    A signal is about to be acted upon, and nothing has been done about it. The process's saved registers are those with
    which it would go on: for a fault, at the instruction that faulted. `Profile.signal_writes` changes or drops it.

Signals have the numbers and codes of Linux on x86-64, whatever the kernel's own are.
"""

from dataclasses import dataclass

from xdbg.abi.frames import Vaddr


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """A signal and its cause: what is of use in Linux's siginfo_t.

    `address` is that of a fault, `sender` the pid of the process that sent it.
    """

    signal: int
    code: int = 0
    address: int = 0
    sender: int = 0


@dataclass(frozen=True, slots=True)
class Forked:
    """A process has made a copy of itself. Linux: wake_up_new_task()."""

    parent: int
    child: int
    vfork: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process has made another one, which runs a program of its own."""

    parent: int
    child: int


@dataclass(frozen=True, slots=True)
class Execed:
    """A process has become the program at `path`. Linux: begin_new_exec()."""

    pid: int
    path: str


@dataclass(frozen=True, slots=True)
class Exiting:
    """A process ends: by a signal, or by itself with a status. Linux: do_exit()."""

    pid: int
    status: int
    signal: int = 0


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal is about to be acted upon. Linux: get_signal()."""

    pid: int
    info: SignalInfo
    where: Vaddr
    """The kernel's record of it, which `Profile.signal_writes` changes."""
    traced: bool = False
    """A debugger inside the guest is going to hear of it."""


GuestEvent = Forked | Spawned | Execed | Exiting | Signalled


@dataclass(frozen=True, slots=True)
class KernelRegisters:
    """A vcpu in kernel mode, as a profile sees it. `gpr`: rax rcx rdx rbx rsp rbp rsi rdi r8..r15."""

    gpr: tuple[int, ...]
    rip: Vaddr
