"""Why the CPU came back: one frozen value for each reason. `Cpu.enter` returns exactly one of them.

The state of the CPU at an exit is exact: `Cpu.count` instructions have retired, registers, RFLAGS and memory are
those between two instructions, and nothing of the next instruction has happened. What each exit says about RIP:

* `ExceptionExit`: a fault leaves RIP at the instruction and RFLAGS.RF set; `int3`, `int n` and a #DB leave it behind
  (but see `before`).
* `SyscallExit`: RIP is behind the `syscall`; RCX, R11 and RFLAGS are untouched (Xen sets them).
* `SysenterExit`, `IoExit`: RIP is at the instruction, which has not retired.
* `StopPointExit`: RIP is the stop point; the instruction there has not run.
* `WatchExit`: the instruction that touched the data has retired (as x86 reports data break points).
"""

from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr

from .stoppoints import Watch

_DB: Final = 1


@dataclass(frozen=True, slots=True)
class DeadlineExit:
    """`Cpu.count` has reached the deadline, exactly."""


@dataclass(frozen=True, slots=True)
class StepExit:
    """The one instruction of `Cpu.step` has retired without any other exit."""


@dataclass(frozen=True, slots=True)
class ExceptionExit:
    """An exception or a software interrupt.

    `error_code` is 0 where the vector has none. `software` is True for `int n` and `int3`, whose instruction was
    `length` bytes long. `cr2` is the faulting address of a #PF, else None. `dr6` holds the cause bits of a #DB (BS for
    a single step), else 0. `before`: the #DB is of the guest's own breakpoint at an instruction, which has not run.
    """

    vector: int
    error_code: int = 0
    software: bool = False
    cr2: Vaddr | None = None
    dr6: int = 0
    length: int = 0
    before: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether the instruction has not been executed and may be tried again."""
        return not self.software and (self.vector != _DB or self.before)


@dataclass(frozen=True, slots=True)
class SyscallExit:
    """`syscall` was executed."""


@dataclass(frozen=True, slots=True)
class SysenterExit:
    """`sysenter` is about to be executed."""


@dataclass(frozen=True, slots=True)
class IoExit:
    """`in`, `out`, `ins` or `outs` is about to be executed while `Cpu.io_allowed` is False."""

    port: int
    size: int
    write: bool


@dataclass(frozen=True, slots=True)
class StopPointExit:
    """An execution stop point: the instruction at `vaddr` is about to run."""

    vaddr: Vaddr


@dataclass(frozen=True, slots=True)
class WatchExit:
    """A watched byte was touched by the instruction that has just retired.

    `maddr` and `size` are the access (its first touched watched byte onwards), `write` its direction. `watches` are
    all watches that it hit, in the order in which they were added. `trap` is the #DB that the same instruction raised
    in the guest, by a breakpoint of its own or as a single step.
    """

    watches: tuple[Watch, ...]
    maddr: Maddr
    size: int
    write: bool
    trap: ExceptionExit | None = None


@dataclass(frozen=True, slots=True)
class EngineExit:
    """The guest did what no exception describes (a page table names a frame outside RAM): its domain must end."""

    reason: str


Exit = (
    DeadlineExit
    | StepExit
    | ExceptionExit
    | SyscallExit
    | SysenterExit
    | IoExit
    | StopPointExit
    | WatchExit
    | EngineExit
)
