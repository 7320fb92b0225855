"""A gdb of our own, attached to a domain that is served to it alone."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .console import Terminal
from .launch import Launched
from .limits import Limits
from .listener import Listener, parse_address
from .packet_log import PacketLog
from .server import Server

GDB_COMMANDS = Path(__file__).resolve().parent.parent / "gdbscripts" / "xen.py"
"""The script with gdb's `xen` commands."""
_SIGNALLED = 128


def debug_with_child(
    launch: Callable[[], Launched],
    terminal: Terminal,
    program: str,
    arguments: Sequence[str],
    limits: Limits,
    log: PacketLog | None = None,
) -> int:
    """Start gdb on our terminal, attached over a unix socket, and serve it until it ends; its exit status.

    Raises what `launch` raises before gdb is started, and `LimitReached` when a limit ends the session, gdb included.
    Ctrl-C on the terminal is gdb's: it turns it into an interrupt that reaches us over the socket.
    """
    with TemporaryDirectory(prefix="xdbg-") as folder:
        listener = Listener(parse_address(f"unix:{Path(folder) / 'gdb.sock'}"))
        server = Server(launch, terminal, listener=listener, limits=limits, log=log)
        command = [program, "-q", "-x", str(GDB_COMMANDS), "-ex", f"target extended-remote {listener.name}", *arguments]
        with subprocess.Popen(command, start_new_session=False) as gdb:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            ended = os.pidfd_open(gdb.pid)
            try:
                server.serve(until=ended)
            finally:
                os.close(ended)
                server.close()
                listener.close()
                signal.signal(signal.SIGINT, before)
                if gdb.poll() is None:
                    gdb.terminate()
        return gdb.returncode if gdb.returncode >= 0 else _SIGNALLED - gdb.returncode
