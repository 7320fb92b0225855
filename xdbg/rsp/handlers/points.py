"""Break points and watch points. The address space is that of the current thread: Z packets name no process."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from xdbg.rsp.packets.points import Point, SetPoint
from xdbg.rsp.replies import Empty, Ok, Reply
from xdbg.rsp.table import packet
from xdbg.rsp.target import (
    BreakpointCommands,
    BreakpointConditions,
    BreakpointKind,
    Breakpoints,
    TargetError,
    WatchKind,
    Watchpoints,
)

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"Z0", SetPoint, Breakpoints, skip=1)
@packet(b"Z1", SetPoint, Breakpoints, skip=1)
def insert_breakpoint(conn: Connection, target: Breakpoints, request: SetPoint) -> Reply:
    """Inserts a software (Z0) or hardware (Z1) breakpoint, with conditions and commands if the target knows them."""
    conditional = conn.capability(BreakpointConditions)
    commanding = conn.capability(BreakpointCommands)
    if (request.conditions and conditional is None) or (request.commands and commanding is None):
        return Empty()
    thread, kind, vaddr = conn.thread(), BreakpointKind(request.type), request.vaddr
    target.insert_breakpoint(thread, kind, vaddr)
    try:
        if conditional is not None:
            conditional.set_breakpoint_conditions(thread, kind, vaddr, request.conditions)
        if commanding is not None:
            commanding.set_breakpoint_commands(thread, kind, vaddr, request.commands, persist=request.persist)
    except TargetError:
        target.remove_breakpoint(thread, kind, vaddr)
        raise
    return Ok()


@packet(b"z0", Point, Breakpoints, skip=1)
@packet(b"z1", Point, Breakpoints, skip=1)
def remove_breakpoint(conn: Connection, target: Breakpoints, request: Point) -> Reply:
    """Removes a breakpoint of this kind; that there is none is no error."""
    target.remove_breakpoint(conn.thread(), BreakpointKind(request.type), request.vaddr)
    return Ok()


@packet(b"Z2", SetPoint, Watchpoints, skip=1)
@packet(b"Z3", SetPoint, Watchpoints, skip=1)
@packet(b"Z4", SetPoint, Watchpoints, skip=1)
def insert_watchpoint(conn: Connection, target: Watchpoints, request: SetPoint) -> Reply:
    """Watches a range for writes (Z2), reads (Z3) or both (Z4)."""
    if request.conditions or request.commands:
        return Empty()
    if not 0 < request.length <= (1 << 64) - request.vaddr:
        raise TargetError(EINVAL, "no range of addresses")
    target.insert_watchpoint(conn.thread(), WatchKind(request.type), request.vaddr, request.length)
    return Ok()


@packet(b"z2", Point, Watchpoints, skip=1)
@packet(b"z3", Point, Watchpoints, skip=1)
@packet(b"z4", Point, Watchpoints, skip=1)
def remove_watchpoint(conn: Connection, target: Watchpoints, request: Point) -> Reply:
    """Stops watching a range for this kind of access; that there is no such watch point is no error."""
    target.remove_watchpoint(conn.thread(), WatchKind(request.type), request.vaddr, request.length)
    return Ok()
