"""Letting the guest go on. The answer to these is the next stop."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xdbg.rsp.packets.run import ResumeCurrent, ResumeThreads
from xdbg.rsp.packets.session import Bare
from xdbg.rsp.registers import RIP
from xdbg.rsp.replies import Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import Resume, ResumeAction, ResumeKind
from xdbg.rsp.threadid import EVERY_THREAD

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"vCont?", Bare, Resume, feature="vContSupported+")
def resume_kinds(conn: Connection, target: Resume, request: Bare) -> Reply:
    """The actions of vCont. Without s and S gdb would not step, without C it would not use vCont at all."""
    del conn, target, request
    return Text(b"vCont;c;C;s;S;t;r")


@packet(b"vCont;", ResumeThreads, Resume)
def resume_threads(conn: Connection, target: Resume, request: ResumeThreads) -> Reply | None:
    """Threads continue, step, step through a range or stay, each by the leftmost action that covers it."""
    if all(action.kind is ResumeKind.STOP for action in request.actions):
        return conn.show_stop(conn.target.stop_status())
    target.resume(request.actions)
    conn.run(stepping=_steps(request.actions))
    return None


@packet(b"c", ResumeCurrent, Resume, skip=0)
@packet(b"C", ResumeCurrent, Resume, skip=0)
@packet(b"s", ResumeCurrent, Resume, skip=0)
@packet(b"S", ResumeCurrent, Resume, skip=0)
def resume_current(conn: Connection, target: Resume, request: ResumeCurrent) -> None:
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
    conn.run(stepping=_steps(actions))


def _steps(actions: Iterable[ResumeAction]) -> bool:
    return any(action.kind in {ResumeKind.STEP, ResumeKind.RANGE_STEP} for action in actions)
