"""Beginning anew: what gdb's ``run`` and ``start`` are made of. GDB manual: "Packets".

The target runs one program, and only that can be started again. It must have ended before, or have been killed or
detached: gdb does so by itself when it is told to ``run`` what runs already.
"""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from binascii import hexlify
from errno import EBUSY, EPERM
from typing import TYPE_CHECKING

from xdbg.rsp.packets.session import Anything, Bare, RunProgram
from xdbg.rsp.replies import Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import Restart, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"qExecAndArgs", Bare, Restart, observing=True)
def program_and_arguments(conn: Connection, target: Restart, request: Bare) -> Reply:
    """The program that ``run`` starts, and its arguments."""
    del conn, request
    program = target.program
    path, arguments = (hexlify(word.encode(errors="surrogateescape")) for word in (program.path, program.arguments))
    return Text(b"S;%s;%s;" % (path, arguments))


@packet(b"vRun;", RunProgram, Restart)
def run_program(conn: Connection, target: Restart, request: RunProgram) -> Reply:
    """Starts the target's program anew; the stop before its first instruction is the answer. Extended mode only."""
    _in_extended_mode(conn)
    if target.program.pid in conn.pids():
        raise TargetError(EBUSY, "it runs already; kill it before it is started anew")
    former = conn.pids()
    conn.debug(target.restart(request.path, request.arguments), former)
    return conn.show_stop(conn.target.stop_status())


@packet(b"R", Anything, Restart)
def restart(conn: Connection, target: Restart, request: Anything) -> Reply | None:
    """The same without an answer, whether it has ended or not."""
    del request
    _in_extended_mode(conn)
    former = conn.pids()
    conn.debug(target.restart("", None), former)
    return None


def _in_extended_mode(conn: Connection) -> None:
    if not conn.extended:
        raise TargetError(EPERM, "this needs extended mode: connect by target extended-remote")
