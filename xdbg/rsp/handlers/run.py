"""Letting the guest go on. The answer to these is the next stop; in non-stop it is OK, and stops are notified."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from typing import TYPE_CHECKING

from xdbg.rsp.packets.run import ResumeCurrent, ResumeThreads
from xdbg.rsp.packets.session import Bare, Switch
from xdbg.rsp.registers import RIP
from xdbg.rsp.replies import Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import NonStop, Resume, ResumeAction, ResumeKind
from xdbg.rsp.threadid import EVERY_THREAD

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"vCont?", Bare, Resume, feature="vContSupported+", observing=True)
def resume_kinds(conn: Connection, target: Resume, request: Bare) -> Reply:
    """The actions of vCont. Without s and S gdb would not step, without C it would not use vCont at all."""
    del conn, target, request
    return Text(b"vCont;c;C;s;S;t;r")


@packet(b"vCont;", ResumeThreads, Resume, observing=True)
def resume_threads(conn: Connection, target: Resume, request: ResumeThreads) -> Reply | None:
    """Threads continue, step, step through a range or stay, each by the leftmost action that covers it."""
    if not conn.non_stop and all(action.kind is ResumeKind.STOP for action in request.actions):
        return conn.show_stop(conn.target.stop_status())
    target.resume(request.actions)
    return _resumed(conn)


@packet(b"c", ResumeCurrent, Resume, skip=0, observing=True)
@packet(b"C", ResumeCurrent, Resume, skip=0)
@packet(b"s", ResumeCurrent, Resume, skip=0)
@packet(b"S", ResumeCurrent, Resume, skip=0)
def resume_current(conn: Connection, target: Resume, request: ResumeCurrent) -> Reply | None:
    """Continues or steps the threads that Hc chose, from a given address, with a given signal.

    As long as Hc chose no single thread, all others continue; step and signal are for the current one.
    """
    chosen = conn.resumed.exact()
    thread = conn.thread(conn.resumed if chosen is not None else None)
    if request.vaddr is not None:
        conn.target.write_register(thread, RIP, request.vaddr.to_bytes(8, "little"))
    actions = [ResumeAction(thread.pattern(), request.kind, request.signal)]
    if chosen is None:
        actions.append(ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE))
    target.resume(tuple(actions))
    return _resumed(conn)


@packet(b"vCtrlC", Bare, NonStop, observing=True)
def interrupt(conn: Connection, target: NonStop, request: Bare) -> Reply:
    """Ctrl-C in non-stop: one thread stops with SIGINT. Otherwise the guest stands still already."""
    del target, request
    resumable = conn.capability(Resume)
    if conn.non_stop and resumable is not None:
        resumable.interrupt()
    return Ok()


@packet(b"QNonStop:", Switch, NonStop, feature="QNonStop+", observing=True)
def set_non_stop(conn: Connection, target: NonStop, request: Switch) -> Reply:
    """Threads stop and go on each by itself (1), or all together (0), as at the beginning of a session."""
    target.set_non_stop(request.on)
    conn.enter_non_stop(on=request.on)
    return Ok()


@packet(b"vStopped", Bare, NonStop, observing=True)
def next_stop(conn: Connection, target: NonStop, request: Bare) -> Reply:
    """The client knows of the stop that it was last told; the next one, or OK when there are no more."""
    del target, request
    return conn.stops.confirm()


def _resumed(conn: Connection) -> Reply | None:
    if conn.non_stop:
        return Ok()
    conn.run()
    return None
