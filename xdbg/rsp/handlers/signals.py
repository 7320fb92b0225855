"""Which signals and system calls stop a process."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from typing import TYPE_CHECKING

from xdbg.rsp.packets.signals import CatchSyscalls, SignalList
from xdbg.rsp.replies import Ok, Reply
from xdbg.rsp.table import packet
from xdbg.rsp.target import SignalFilter, SyscallCatching

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"QPassSignals:", SignalList, SignalFilter, feature="QPassSignals+")
def pass_signals(conn: Connection, target: SignalFilter, request: SignalList) -> Reply:
    """The signals that processes get without a stop."""
    del conn
    target.pass_signals(request.signals)
    return Ok()


@packet(b"QProgramSignals:", SignalList, SignalFilter, feature="QProgramSignals+")
def program_signals(conn: Connection, target: SignalFilter, request: SignalList) -> Reply:
    """The signals that a process at which one is due still gets when the client leaves it."""
    del conn
    target.program_signals(request.signals)
    return Ok()


@packet(b"QCatchSyscalls:", CatchSyscalls, SyscallCatching, feature="QCatchSyscalls+")
def catch_syscalls(conn: Connection, target: SyscallCatching, request: CatchSyscalls) -> Reply:
    """System calls, all or some: a process stops when it enters one and when it has returned."""
    del conn
    target.catch_syscalls(request.numbers)
    return Ok()
