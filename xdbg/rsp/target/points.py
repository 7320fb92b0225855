"""Break points and watch points."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol, runtime_checkable

from xdbg.rsp.threadid import Thread


class BreakpointKind(IntEnum):
    """Z0 and Z1. gdb may set both at one address; each is inserted and removed on its own."""

    SOFTWARE = 0
    HARDWARE = 1


class WatchKind(IntEnum):
    """Z2, Z3 and Z4: stop after a write, a read, or either."""

    WRITE = 2
    READ = 3
    ACCESS = 4


@runtime_checkable
class Breakpoints(Protocol):
    """Z0, Z1, z0, z1: stop before the instruction at `vaddr` is executed. Both methods are idempotent."""

    def insert_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """In the address space of `thread`. The page need not be mapped yet."""
        ...

    def remove_breakpoint(self, thread: Thread, kind: BreakpointKind, vaddr: int) -> None:
        """No error when there is none."""
        ...


@runtime_checkable
class BreakpointConditions(Protocol):
    """ConditionalBreakpoints: conditions in agent bytecode, evaluated by the target."""

    def set_breakpoint_conditions(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, conditions: Sequence[bytes]
    ) -> None:
        """Called after each `insert_breakpoint`; stop when any of them is not zero. None: stop always."""
        ...


@runtime_checkable
class BreakpointCommands(Protocol):
    """BreakpointCommands: agent bytecode run at each hit of a breakpoint (dprintf-style agent)."""

    def set_breakpoint_commands(
        self, thread: Thread, kind: BreakpointKind, vaddr: int, commands: Sequence[bytes], *, persist: bool
    ) -> None:
        """Called after each `insert_breakpoint`; `persist`: keep running them when gdb has left."""
        ...


@runtime_checkable
class Watchpoints(Protocol):
    """Z2 to Z4, z2 to z4: stop after the access. Any length, any number; both methods are idempotent."""

    def insert_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """Watches [vaddr, vaddr + length) in the address space of `thread`."""
        ...

    def remove_watchpoint(self, thread: Thread, kind: WatchKind, vaddr: int, length: int) -> None:
        """No error when there is none."""
        ...
