"""Packets about the session itself: features, acknowledgements, attaching, detaching, killing."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from errno import ESRCH
from typing import TYPE_CHECKING

from xdbg.rsp import table
from xdbg.rsp.packets.session import Anything, Bare, OptionalProcess, Process, Supported
from xdbg.rsp.replies import Empty, Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import NonStop, Processes, ProcessEvents, Target, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"qSupported", Supported, observing=True)
def supported(conn: Connection, target: Target, request: Supported) -> Reply:
    """Both sides say what they can do."""
    del target
    conn.client = request.client
    events = conn.capability(ProcessEvents)
    if events is not None and not conn.observing:
        events.report_process_events(fork=request.client.fork_events, execs=request.client.exec_events)
    features = table.supported_features(conn.capabilities, request.client, observing=conn.observing)
    return Text(";".join(features).encode())


@packet(b"vMustReplyEmpty", Anything, observing=True)
def must_reply_empty(conn: Connection, target: Target, request: Anything) -> Reply:
    """The client finds out how "not supported" looks."""
    del conn, target, request
    return Empty()


@packet(b"QStartNoAckMode", Bare, feature="QStartNoAckMode+", observing=True)
def start_no_ack_mode(conn: Connection, target: Target, request: Bare) -> Reply:
    """No more acknowledgements: the transport is reliable."""
    del target, request
    conn.stop_acknowledging()
    return Ok()


@packet(b"!", Bare, observing=True)
def extended_mode(conn: Connection, target: Target, request: Bare) -> Reply:
    """The session goes on when the last process is detached or killed."""
    del target, request
    conn.extended = True
    return Ok()


@packet(b"?", Bare, observing=True)
def stop_status(conn: Connection, target: Target, request: Bare) -> Reply:
    """Why the target stands still; in non-stop, the first of the threads that do, or OK if none does."""
    del request
    non_stop = conn.capability(NonStop)
    if conn.non_stop and non_stop is not None:
        return conn.stops.begin(non_stop.stopped())
    return conn.show_stop(target.stop_status())


@packet(b"qAttached", OptionalProcess, observing=True)
def attached(conn: Connection, target: Target, request: OptionalProcess) -> Reply:
    """The process was there before the session (1): the client lets it live when it leaves."""
    del conn, target, request
    return Text(b"1")


@packet(b"vAttach;", Process, Processes, observing=True)
def attach(conn: Connection, target: Processes, request: Process) -> Reply:
    """One more process in this session; its stop is the answer. In non-stop it is OK, and the process goes on."""
    stop = target.attach(request.pid)
    return Ok() if conn.non_stop else conn.show_stop(stop)


@packet(b"D", OptionalProcess, observing=True)
def detach(conn: Connection, target: Target, request: OptionalProcess) -> Reply:
    """Lets go of one process, or of all. Outside of extended mode the session ends with the last."""
    processes = conn.capability(Processes)
    if request.pid is not None and request.pid not in conn.pids():
        if request.pid not in conn.left_behind:
            raise TargetError(ESRCH, f"process {request.pid} is not attached")
        conn.left_behind.discard(request.pid)
        return Ok()
    if processes is not None:
        for pid in conn.pids() if request.pid is None else [request.pid]:
            processes.detach(pid)
            conn.forget(pid)
    if processes is None or (not conn.extended and not target.threads()):
        conn.leave(killed=False)
    return Ok()


@packet(b"vKill;", Process, Processes)
def kill_process(conn: Connection, target: Processes, request: Process) -> Reply:
    """Ends one process. Outside of extended mode the session ends with the last."""
    target.kill(request.pid)
    conn.forget(request.pid)
    if not conn.extended and not conn.target.threads():
        conn.leave(killed=True)
    return Ok()


@packet(b"k", Anything)
def kill(conn: Connection, target: Target, request: Anything) -> None:
    """Ends the target and the session; has no answer."""
    del target, request
    conn.leave(killed=True)
