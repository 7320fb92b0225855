"""Tracepoints: defining them, starting and stopping the trace, and what is told of it."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from binascii import hexlify
from errno import ENOTSUP
from typing import TYPE_CHECKING

from xdbg.rsp.packets.session import Bare, Switch
from xdbg.rsp.packets.tracepoints import (
    BufferSize,
    DefineTracepoint,
    DefineVariable,
    NamedTracepoint,
    Notes,
    Number,
    ReadOnlyRanges,
    SourceOfTracepoint,
)
from xdbg.rsp.replies import Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import TargetError, Tracepoints
from xdbg.rsp.tracepoints import (
    Action,
    CollectMemory,
    CollectRegisters,
    Evaluate,
    TraceEnd,
    TraceStatus,
    TraceVariable,
    WholeTracepoint,
)

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection

_U64 = (1 << 64) - 1


@packet(b"QTinit", Bare, Tracepoints)
def init_trace(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """Forgets all tracepoints, and what they collected."""
    del request
    conn.select_frame(None)
    target.init_trace()
    return Ok()


@packet(b"QTDP:", DefineTracepoint, Tracepoints, feature="ConditionalTracepoints+")
def define_tracepoint(conn: Connection, target: Tracepoints, request: DefineTracepoint) -> Reply:
    """Defines a tracepoint of the current thread's process, or adds to its actions."""
    if request.special:
        raise TargetError(ENOTSUP, f"there are no {request.special} tracepoints")
    if request.definition is not None:
        target.define_tracepoint(conn.thread(), request.definition, more=request.more)
    elif request.tracepoint is not None:
        target.add_actions(request.tracepoint, request.actions, request.step_actions, more=request.more)
    return Ok()


@packet(b"QTDPsrc:", SourceOfTracepoint, Tracepoints, feature="TracepointSource+")
def add_source(conn: Connection, target: Tracepoints, request: SourceOfTracepoint) -> Reply:
    """Keeps what the user typed, for a client that comes later."""
    del conn
    target.add_source(request.tracepoint, request.source)
    return Ok()


@packet(b"QTEnable:", NamedTracepoint, Tracepoints, feature="EnableDisableTracepoints+")
def enable_tracepoint(conn: Connection, target: Tracepoints, request: NamedTracepoint) -> Reply:
    """Switches a tracepoint on, also while the trace runs."""
    del conn
    target.enable_tracepoint(request.tracepoint, enabled=True)
    return Ok()


@packet(b"QTDisable:", NamedTracepoint, Tracepoints)
def disable_tracepoint(conn: Connection, target: Tracepoints, request: NamedTracepoint) -> Reply:
    """Switches a tracepoint off, also while the trace runs."""
    del conn
    target.enable_tracepoint(request.tracepoint, enabled=False)
    return Ok()


@packet(b"QTDV:", DefineVariable, Tracepoints)
def define_variable(conn: Connection, target: Tracepoints, request: DefineVariable) -> Reply:
    """Defines a trace state variable."""
    del conn
    target.define_variable(request.variable)
    return Ok()


@packet(b"QTro", ReadOnlyRanges, Tracepoints)
def set_read_only(conn: Connection, target: Tracepoints, request: ReadOnlyRanges) -> Reply:
    """Says which memory never changes, and so need not be collected."""
    del conn
    target.set_read_only(request.ranges)
    return Ok()


@packet(b"QTStart", Bare, Tracepoints, feature="InstallInTrace+")
def start_trace(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """Starts the trace."""
    del request
    conn.select_frame(None)
    target.start_trace()
    return Ok()


@packet(b"QTStop", Bare, Tracepoints)
def stop_trace(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """Stops the trace; what was collected stays."""
    del conn, request
    target.stop_trace()
    return Ok()


@packet(b"QTDisconnected:", Switch, Tracepoints, feature="DisconnectedTracing+")
def set_disconnected_tracing(conn: Connection, target: Tracepoints, request: Switch) -> Reply:
    """Whether the trace goes on when the client leaves."""
    del conn
    target.set_disconnected_tracing(keeps=request.on)
    return Ok()


@packet(b"QTBuffer:circular:", Switch, Tracepoints)
def set_circular_buffer(conn: Connection, target: Tracepoints, request: Switch) -> Reply:
    """Whether new frames take the place of the oldest."""
    del conn
    target.set_circular_buffer(circular=request.on)
    return Ok()


@packet(b"QTBuffer:size:", BufferSize, Tracepoints, feature="QTBuffer:size+")
def set_buffer_size(conn: Connection, target: Tracepoints, request: BufferSize) -> Reply:
    """How large the buffer for frames is."""
    del conn
    target.set_buffer_size(request.size)
    return Ok()


@packet(b"QTNotes:", Notes, Tracepoints)
def set_notes(conn: Connection, target: Tracepoints, request: Notes) -> Reply:
    """Keeps who traces, and why."""
    del conn
    target.set_notes(user=request.user, notes=request.notes, stop=request.stop)
    return Ok()


@packet(b"qTStatus", Bare, Tracepoints, feature="tracenz+", observing=True)
def trace_status(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """Whether the trace runs, or why not, and how full the buffer is."""
    del conn, request
    return Text(_encode_status(target.trace_status()))


def _encode_status(status: TraceStatus) -> bytes:
    items = [b"T%d" % (status.end is None)]
    if status.end is not None:
        word = status.end.value.encode()
        if status.end in (TraceEnd.COMMAND, TraceEnd.ERROR):
            word += b":" + _hex(status.text)
        items.append(b"%s:%x" % (word, status.tracepoint))
    items += [
        b"tframes:%x" % status.frames,
        b"tcreated:%x" % status.created,
        b"tfree:%x" % status.free,
        b"tsize:%x" % status.size,
        b"circular:%d" % status.circular,
        b"disconn:%d" % status.disconnected,
        b"starttime:%x" % status.start_us,
        b"stoptime:%x" % status.stop_us,
        b"username:" + _hex(status.user),
        b"notes:" + _hex(status.notes),
    ]
    return b";".join(items)  # gdb refuses a semicolon at the end


@packet(b"qTP:", NamedTracepoint, Tracepoints, observing=True)
def tracepoint_status(conn: Connection, target: Tracepoints, request: NamedTracepoint) -> Reply:
    """How often a tracepoint was hit, and how much of the buffer its frames took."""
    del conn
    return Text(b"V%x:%x" % target.tracepoint_usage(request.tracepoint))


@packet(b"qTV:", Number, Tracepoints, observing=True)
def read_variable(conn: Connection, target: Tracepoints, request: Number) -> Reply:
    """The value of a trace state variable: the selected frame's, if there is one. ``U`` for an unknown one."""
    if conn.frame is not None:
        value = conn.frame.frame.variables().get(request.value)
    else:
        value = target.trace_variable(request.value)
    return Text(b"U" if value is None else b"V%x" % (value & _U64))


@packet(b"qTfP", Bare, Tracepoints, observing=True)
def first_tracepoint(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """The first piece of the definitions of all tracepoints."""
    del request
    conn.trace_pieces = [piece for whole in target.tracepoints() for piece in _pieces(whole)]
    return _next_piece(conn)


@packet(b"qTfV", Bare, Tracepoints, observing=True)
def first_variable(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """The first trace state variable."""
    del request
    conn.trace_pieces = [_variable(variable) for variable in target.trace_variables()]
    return _next_piece(conn)


@packet(b"qTsP", Bare, Tracepoints, observing=True)
@packet(b"qTsV", Bare, Tracepoints, observing=True)
def more_pieces(conn: Connection, target: Tracepoints, request: Bare) -> Reply:
    """The next piece of the list that qTfP or qTfV began; ``l`` when there are no more."""
    del target, request
    return _next_piece(conn)


def _next_piece(conn: Connection) -> Reply:
    return Text(conn.trace_pieces.pop(0) if conn.trace_pieces else b"l")


def _variable(variable: TraceVariable) -> bytes:
    fields = (variable.number, variable.initial & _U64, variable.builtin, _hex(variable.name))
    return b"%x:%x:%d:%s" % fields


def _pieces(whole: WholeTracepoint) -> list[bytes]:
    """``T``: the definition, ``A`` and ``S``: its actions and step actions, ``Z``: its source."""
    definition = whole.definition
    name = b"%x:%x:" % (definition.tracepoint.number, definition.tracepoint.vaddr)
    enabled = b"E" if definition.enabled else b"D"
    head = b"T%s%s:%x:%x" % (name, enabled, definition.steps, definition.passes)
    if definition.condition:
        head += b":" + _action(Evaluate(definition.condition))
    return [
        head,
        *[b"A" + name + _action(action) for action in whole.actions],
        *[b"S" + name + _action(action) for action in whole.step_actions],
        *[
            b"Z%s%s:%x:%x:%s" % (name, source.kind.encode(), source.start, source.total, hexlify(source.text))
            for source in whole.sources
        ],
    ]


def _action(action: Action) -> bytes:
    match action:
        case CollectRegisters(mask):
            return b"R%x" % mask
        case CollectMemory(base, offset, length):
            return b"M%x,%x,%x" % (0xFFFF_FFFF if base is None else base, offset & _U64, length)
        case Evaluate(code):
            return b"X%x,%s" % (len(code), hexlify(code))


def _hex(text: str) -> bytes:
    return hexlify(text.encode(errors="surrogateescape"))
