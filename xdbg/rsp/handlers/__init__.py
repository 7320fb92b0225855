"""The handlers of all packets, by subject; importing this package fills the packet table."""

from . import (
    files,
    lldb,
    memory,
    monitor,
    points,
    registers,
    restart,
    run,
    session,
    signals,
    threads,
    traceframes,
    tracepoints,
    transfers,
)

__all__ = [
    "files",
    "lldb",
    "memory",
    "monitor",
    "points",
    "registers",
    "restart",
    "run",
    "session",
    "signals",
    "threads",
    "traceframes",
    "tracepoints",
    "transfers",
]
