"""Which threads there are, and which of them the next packets speak of."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from errno import ESRCH
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

from xdbg.rsp.framing import MAX_PAYLOAD
from xdbg.rsp.packets.session import Bare, Switch
from xdbg.rsp.packets.threads import SelectThread, SetThreadOptions
from xdbg.rsp.packets.transfers import Transfer
from xdbg.rsp.replies import CurrentThread, HexData, Ok, Reply, Threads
from xdbg.rsp.table import packet
from xdbg.rsp.target import Target, TargetError, ThreadEvents, ThreadInfo, ThreadOptions

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


_THREADS_PER_REPLY: Final = MAX_PAYLOAD // 40
"""An id has at most 35 characters."""


@packet(b"qC", Bare, observing=True)
def current_thread(conn: Connection, target: Target, request: Bare) -> Reply:
    """The thread that the next packets speak of."""
    del target, request
    return CurrentThread(conn.thread())


@packet(b"Hg", SelectThread, observing=True)
def select_thread(conn: Connection, target: Target, request: SelectThread) -> Reply:
    """Chooses the thread for registers, memory and breakpoints."""
    del target
    conn.select(request.pattern)
    return Ok()


@packet(b"Hc", SelectThread, observing=True)
def select_resumed(conn: Connection, target: Target, request: SelectThread) -> Reply:
    """Chooses the threads for c, C, s and S."""
    del target
    conn.resumed = request.pattern
    return Ok()


@packet(b"T", SelectThread, observing=True)
def is_alive(conn: Connection, target: Target, request: SelectThread) -> Reply:
    """Whether a thread still exists."""
    del target
    conn.thread(request.pattern)
    return Ok()


@packet(b"qfThreadInfo", Bare, observing=True)
def first_threads(conn: Connection, target: Target, request: Bare) -> Reply:
    """The threads of all attached processes."""
    del request
    conn.shown()
    conn.unlisted = [info.thread for info in target.threads()]
    return _listed(conn)


@packet(b"qsThreadInfo", Bare, observing=True)
def more_threads(conn: Connection, target: Target, request: Bare) -> Reply:
    """The rest of the list that qfThreadInfo began."""
    del target, request
    return _listed(conn)


def _listed(conn: Connection) -> Reply:
    part, conn.unlisted = conn.unlisted[:_THREADS_PER_REPLY], conn.unlisted[_THREADS_PER_REPLY:]
    return Threads(tuple(part))


@packet(b"qThreadExtraInfo,", SelectThread, observing=True)
def thread_extra_info(conn: Connection, target: Target, request: SelectThread) -> Reply:
    """A thread's name and what else there is to say of it."""
    thread = conn.thread(request.pattern)
    for info in target.threads():
        if info.thread == thread:
            return HexData(" ".join(filter(None, (info.name, info.extra))).encode(errors="replace"))
    raise TargetError(ESRCH)


@packet(b"QThreadEvents:", Switch, ThreadEvents, feature="QThreadEvents+")
def report_threads(conn: Connection, target: ThreadEvents, request: Switch) -> Reply:
    """Whether threads that come and go within a process are told as stops."""
    del conn
    target.report_threads(request.on)
    return Ok()


@packet(b"QThreadOptions;", SetThreadOptions, ThreadEvents, feature=f"QThreadOptions={sum(ThreadOptions):x}")
def set_thread_options(conn: Connection, target: ThreadEvents, request: SetThreadOptions) -> Reply:
    """Which of these events are told of single threads: 1 that it made another one, 2 that it ended."""
    chosen = {}
    for info in conn.target.threads():
        for options, pattern in request.entries:
            if pattern.matches(info.thread):
                chosen[info.thread] = options
    target.set_thread_options(chosen)
    return Ok()


@packet(b"qXfer:threads:read:", Transfer, feature="qXfer:threads:read+", observing=True)
def thread_list(conn: Connection, target: Target, request: Transfer) -> Reply:
    """All threads with names, CPUs and texts in one XML document."""

    def document() -> bytes:
        lines = [_thread_element(conn, info) for info in target.threads()]
        return "\n".join(['<?xml version="1.0"?>', "<threads>", *lines, "</threads>\n"]).encode(errors="replace")

    conn.shown()
    return conn.transfer("threads", request, document)


def _thread_element(conn: Connection, info: ThreadInfo) -> str:
    attributes = [f'id="{info.thread.encode(multiprocess=conn.client.multiprocess).decode()}"']
    if info.core is not None:
        attributes.append(f'core="{info.core}"')
    if info.name:
        attributes.append(f"name={_attribute(info.name)}")
    return f"<thread {' '.join(attributes)}>{_attribute(info.extra)[1:-1] if info.extra else ''}</thread>"


def _attribute(text: str) -> str:
    """Quoted for XML; what XML can't hold (a process may call itself anything) is shown as a question mark."""
    return quoteattr("".join(c if c.isprintable() else "?" for c in text), {'"': "&quot;"})
