"""What gdb debugs, as the protocol sees it: one Protocol per capability.

A target implements `Target`, and as many of the other protocols as it can: itself, or by one of its `parts`. That
choice is the only switch: a packet whose capability the target lacks gets the empty reply ("not supported"), and
qSupported announces exactly what is implemented. Nothing here knows of sockets, packets or of what the target is made
of.

Rules for implementers:

- Everything is called while the guest stands still, except `Resume.interrupt`. In non-stop it stands still only for the
  length of the call.
- The `thread` that memory and breakpoint methods get says *whose* memory is meant: the address space of that thread's
  process. `threads()` lists only the processes that gdb is attached to; an empty list is legal (all were detached).
- A failure is `TargetError`, nothing else; it becomes ``E NN``, or ``E.text`` with a gdb that understands it.
- Nothing that only reads may change the guest, not even accessed bits.
- Addresses are plain integers below 2**64; lengths are positive and, for reads, at most half a packet.
"""

from xdbg.rsp.target.basics import LoadAddresses, Target, TargetError, ThreadInfo
from xdbg.rsp.target.documents import (
    Auxv,
    Description,
    ExecFile,
    File,
    FileStat,
    HostIo,
    MemoryRegion,
    MemoryRegions,
    Monitor,
    OsData,
    OsTable,
    OsTableName,
)
from xdbg.rsp.target.points import (
    BreakpointCommands,
    BreakpointConditions,
    BreakpointKind,
    Breakpoints,
    WatchKind,
    Watchpoints,
)
from xdbg.rsp.target.processes import (
    Processes,
    ProcessEvents,
    Program,
    Restart,
    SignalFilter,
    SignalInformation,
    SyscallCatching,
)
from xdbg.rsp.target.running import NonStop, Resume, ResumeAction, ResumeKind, ThreadEvents, ThreadOptions, action_for
from xdbg.rsp.target.tracing import Tracepoints

__all__ = [
    "Auxv",
    "BreakpointCommands",
    "BreakpointConditions",
    "BreakpointKind",
    "Breakpoints",
    "Description",
    "ExecFile",
    "File",
    "FileStat",
    "HostIo",
    "LoadAddresses",
    "MemoryRegion",
    "MemoryRegions",
    "Monitor",
    "NonStop",
    "OsData",
    "OsTable",
    "OsTableName",
    "ProcessEvents",
    "Processes",
    "Program",
    "Restart",
    "Resume",
    "ResumeAction",
    "ResumeKind",
    "SignalFilter",
    "SignalInformation",
    "SyscallCatching",
    "Target",
    "TargetError",
    "ThreadEvents",
    "ThreadInfo",
    "ThreadOptions",
    "Tracepoints",
    "WatchKind",
    "Watchpoints",
    "action_for",
]
