"""The handlers of all packets, by subject; importing this package fills the packet table."""

from . import (
    files,
    memory,
    monitor,
    points,
    registers,
    run,
    session,
    threads,
    traceframes,
    tracepoints,
    transfers,
)

__all__ = [
    "files",
    "memory",
    "monitor",
    "points",
    "registers",
    "run",
    "session",
    "threads",
    "traceframes",
    "tracepoints",
    "transfers",
]
