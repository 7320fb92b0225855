"""qRcmd: commands that a user types behind ``monitor``."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from typing import TYPE_CHECKING

from xdbg.rsp.packets.monitor import MonitorCommand
from xdbg.rsp.replies import Ok, Reply
from xdbg.rsp.table import packet
from xdbg.rsp.target import Monitor, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"qRcmd,", MonitorCommand, Monitor, observing=True)
def monitor(conn: Connection, target: Monitor, request: MonitorCommand) -> Reply:
    """Runs a command of the target; its output comes first, then the answer.

    A client that takes no text in errors would explain a failure as a "protocol error": it gets the text as output.
    """
    try:
        for text in target.monitor(conn.thread_if_any(), request.command):
            conn.show(text)
    except TargetError as error:
        if conn.client.error_message or not error.text:
            raise
        conn.show(f"{error.text}\n")
    return Ok()
