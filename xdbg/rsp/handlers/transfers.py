"""qXfer: documents that the client reads in pieces."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from errno import ENOENT
from typing import TYPE_CHECKING

from xdbg.rsp.osdata import index_document, table_document
from xdbg.rsp.packets.fields import number
from xdbg.rsp.packets.transfers import Transfer, TransferBack
from xdbg.rsp.replies import Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import Auxv, Description, ExecFile, OsData, SignalInformation, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"qXfer:features:read:", Transfer, Description, feature="qXfer:features:read+", observing=True)
def read_description(conn: Connection, target: Description, request: Transfer) -> Reply:
    """The target description: architecture and registers."""
    return conn.transfer("features", request, lambda: target.target_xml(request.annex))


@packet(b"qXfer:exec-file:read:", Transfer, ExecFile, feature="qXfer:exec-file:read+", observing=True)
def read_exec_file(conn: Connection, target: ExecFile, request: Transfer) -> Reply:
    """The path of the program that a process runs; the client reads it by vFile."""
    try:
        pid = number(request.annex.encode()) if request.annex else conn.thread().pid
    except ValueError:
        raise TargetError(ENOENT, "the annex is a process number") from None
    return conn.transfer("exec-file", request, lambda: target.exec_file(pid).encode(errors="surrogateescape"))


@packet(b"qXfer:auxv:read:", Transfer, Auxv, feature="qXfer:auxv:read+", observing=True)
def read_auxv(conn: Connection, target: Auxv, request: Transfer) -> Reply:
    """The auxiliary vector of the current thread's process: where its program was loaded."""
    thread = conn.thread()
    return conn.transfer(f"auxv {thread.pid}", request, lambda: target.auxv(thread))


@packet(b"qXfer:osdata:read:", Transfer, OsData, feature="qXfer:osdata:read+", observing=True)
def read_osdata(conn: Connection, target: OsData, request: Transfer) -> Reply:
    """A table of `info os`; without a name the list of all tables."""
    name = request.annex
    if name in {"", "types"}:
        return conn.transfer("osdata", request, lambda: index_document(target.os_tables()))
    return conn.transfer("osdata", request, lambda: table_document(name, target.os_table(name)))


@packet(b"qXfer:siginfo:read:", Transfer, SignalInformation, feature="qXfer:siginfo:read+", observing=True)
def read_siginfo(conn: Connection, target: SignalInformation, request: Transfer) -> Reply:
    """The signal at which the current thread stands, as its kernel would tell a debugger: a siginfo_t of Linux."""
    thread = conn.thread()
    return conn.transfer(f"siginfo {thread.pid}", request, lambda: target.read_siginfo(thread))


@packet(b"qXfer:siginfo:write:", TransferBack, SignalInformation, feature="qXfer:siginfo:write+")
def write_siginfo(conn: Connection, target: SignalInformation, request: TransferBack) -> Reply:
    """Changes the signal that the current thread's process is about to get."""
    target.write_siginfo(conn.thread(), request.offset, request.data)
    conn.forget_document()
    return Text(b"%x" % len(request.data))
