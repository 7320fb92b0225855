"""A gdb of our own, attached to the first domain of a machine; the others wait for debuggers beside it."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .console import Terminal
from .launch import Machine
from .limits import Limits
from .listener import Address, Listener, address_of
from .packet_log import PacketLog
from .server import Server

GDB_COMMANDS = Path(__file__).resolve().parent.parent / "gdbscripts" / "xen.py"
"""The script with gdb's `xen` commands."""
_SIGNALLED = 128


def debug_with_child(
    launch: Callable[[], Machine],
    names: Sequence[str],
    terminal: Terminal,
    program: str,
    arguments: Sequence[str],
    limits: Limits,
    log: PacketLog | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Start gdb on our terminal, attached over a unix socket, and serve it until it ends; its exit status.

    `names`: of the domains. Where the others wait, and what else there is to say, is told to `announce`.

    Raises what `launch` raises before gdb is started, and `LimitReached` when a limit ends the session, gdb included.
    Ctrl-C on the terminal is gdb's: it turns it into an interrupt that reaches us over the socket.
    """
    with TemporaryDirectory(prefix="xdbg-") as folder:
        socket = Address(path=str(Path(folder) / "gdb.sock"))
        listeners = [Listener(address_of(socket, index, name)) for index, name in enumerate(names)]
        server = Server(launch, terminal, listeners=listeners, limits=limits, log=log, announce=announce)
        for name, listener in list(zip(names, listeners, strict=True))[1:]:
            server.tell(f"{name}: target extended-remote {listener.name}")
        attach = f"target extended-remote {listeners[0].name}"
        command = [program, "-q", "-x", str(GDB_COMMANDS), "-ex", attach, *arguments]
        with subprocess.Popen(command, start_new_session=False) as gdb:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            ended = os.pidfd_open(gdb.pid)
            try:
                server.serve(until=ended)
            finally:
                os.close(ended)
                server.close()
                for listener in listeners:
                    listener.close()
                signal.signal(signal.SIGINT, before)
                if gdb.poll() is None:
                    gdb.terminate()
        return gdb.returncode if gdb.returncode >= 0 else _SIGNALLED - gdb.returncode
