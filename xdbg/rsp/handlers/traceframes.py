"""Trace frames: selecting one, what it has, and the whole buffer for a trace file."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from errno import ENODATA
from typing import TYPE_CHECKING

from xdbg.rsp.framing import MAX_PAYLOAD
from xdbg.rsp.packets.tracepoints import ReadTraceBuffer, SelectFrame
from xdbg.rsp.packets.transfers import Transfer
from xdbg.rsp.replies import HexData, Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import TargetError, Tracepoints
from xdbg.rsp.tracepoints import TraceFrame

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"QTFrame:", SelectFrame, Tracepoints, observing=True)
def select_frame(conn: Connection, target: Tracepoints, request: SelectFrame) -> Reply:
    """Selects a trace frame: registers and memory are its from now on. ``F-1``: there is none, nothing changes."""
    if request.search is None:
        conn.select_frame(None)
        return Ok()
    after = None if conn.frame is None else conn.frame.frame.number
    frame = target.find_frame(request.search, after)
    if frame is None:
        return Text(b"F-1")
    conn.select_frame(frame)
    return Text(b"F%xT%x" % (frame.number, frame.tracepoint))


@packet(b"qTBuffer:", ReadTraceBuffer, Tracepoints, observing=True)
def read_trace_buffer(conn: Connection, target: Tracepoints, request: ReadTraceBuffer) -> Reply:
    """A piece of the buffer as it stands in a trace file; ``l`` at its end."""
    del conn
    data = target.read_trace_buffer(request.offset, min(request.length, MAX_PAYLOAD // 2))
    return HexData(data) if data else Text(b"l")


@packet(b"qXfer:traceframe-info:read:", Transfer, Tracepoints, feature="qXfer:traceframe-info:read+", observing=True)
def read_frame_info(conn: Connection, target: Tracepoints, request: Transfer) -> Reply:
    """Which memory and which trace state variables the selected frame has."""
    del target
    if conn.frame is None:
        raise TargetError(ENODATA, "no trace frame is selected")
    frame = conn.frame.frame
    return conn.transfer(f"traceframe-info {id(frame)}", request, lambda: _info(frame))


def _info(frame: TraceFrame) -> bytes:
    lines = [f'<memory start="0x{vaddr:x}" length="0x{length:x}"/>' for vaddr, length in frame.ranges()]
    lines += [f'<tvar id="{number}"/>' for number in frame.variables()]
    return "\n".join(["<traceframe-info>", *lines, "</traceframe-info>\n"]).encode()
