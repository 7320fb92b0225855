"""What a client reads beside registers and memory: documents, files, tables, and the text of monitor commands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xdbg.rsp.threadid import Thread


@runtime_checkable
class Description(Protocol):
    """qXfer:features:read."""

    def target_xml(self, annex: str) -> bytes:
        """The document `annex`, first asked is "target.xml"; `registers.description` has ours."""
        ...


@runtime_checkable
class ExecFile(Protocol):
    """qXfer:exec-file:read."""

    def exec_file(self, pid: int) -> str:
        """The path of a process's program as `HostIo.open_file` takes it. TargetError(ENOENT) when unknown."""
        ...


@runtime_checkable
class Auxv(Protocol):
    """qXfer:auxv:read."""

    def auxv(self, thread: Thread) -> bytes:
        """The auxiliary vector of the thread's process: pairs of 64-bit words. TargetError when it has none."""
        ...


@dataclass(frozen=True, slots=True)
class FileStat:
    """What gdb learns of a file by vFile:fstat (struct stat of the File-I/O extension)."""

    size: int
    mode: int = 0o100444
    inode: int = 0
    mtime: int = 0


class File(Protocol):
    """An open file that gdb reads."""

    def stat(self) -> FileStat:
        """Its size and mode."""
        ...

    def pread(self, count: int, offset: int) -> bytes:
        """At most `count` bytes from `offset`; none at the end of the file."""
        ...


@runtime_checkable
class HostIo(Protocol):
    """vFile: the files that gdb may read. Read-only; descriptors are kept by the connection."""

    def open_file(self, pid: int, path: str) -> File:
        """A file as process `pid` sees it (0: as the target's root sees it). TargetError(ENOENT) and its like."""
        ...

    def read_link(self, pid: int, path: str) -> str:
        """Where a symbolic link points. TargetError(EINVAL) when it is none."""
        ...


@dataclass(frozen=True, slots=True)
class OsTable:
    """A table of ``info os``: the names of its columns, and rows of as many texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class OsTableName:
    """A table that there is: its name, what it lists, and its title."""

    name: str
    description: str
    title: str


@runtime_checkable
class OsData(Protocol):
    """qXfer:osdata:read."""

    def os_tables(self) -> Sequence[OsTableName]:
        """All tables, in the order in which they are to be shown."""
        ...

    def os_table(self, name: str) -> OsTable:
        """One table, as things are now. TargetError(ENOENT) when there is none of that name."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """[start, start + size) of an address space. `rights` of the letters rwx, None where nothing is mapped."""

    start: int
    size: int
    rights: str | None = None
    name: str = ""


@runtime_checkable
class MemoryRegions(Protocol):
    """qMemoryRegionInfo."""

    def memory_region(self, thread: Thread, vaddr: int) -> MemoryRegion:
        """The region around an address, or the hole that it is in."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """qRcmd: the user's ``monitor COMMAND``."""

    def monitor(self, thread: Thread | None, command: str) -> Iterable[str]:
        """Output in pieces of any size, with newlines. `thread`: the one that gdb looks at, if there is any.

        TargetError, also in the middle: what was output is shown, then the error.
        """
        ...
