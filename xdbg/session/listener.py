"""Where debuggers come from: a TCP port on loopback, a unix socket, or our own stdin and stdout.

`HOST:PORT`, `:PORT` and `PORT` name a TCP port (0: any free one), `unix:PATH` a socket in the file system, `stdio` the
process's own descriptors, as `target remote | xdbg serve ... --gdb stdio` wants. Nothing but loopback is listened on
unless another host is named.
"""

import os
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DEFAULT_ADDRESS = "127.0.0.1:1234"
_LOOPBACK = "127.0.0.1"
_RECEIVE_SIZE = 1 << 18
_BACKLOG = 8
_MAX_PORT = 0xFFFF


class AddressError(Exception):
    """The address can't be served; one line that says why."""


class Channel(Protocol):
    """Two-way bytes with one debugger."""

    def fileno(self) -> int:
        """What to wait on for input."""

    def receive(self) -> bytes:
        """What has come, b"" when the other side has gone. Blocks if nothing is there."""

    def receive_now(self) -> bytes | None:
        """The same, but None if nothing is there."""

    def send(self, data: bytes) -> int:
        """Send what there is room for; how many bytes that was. Raises `OSError` when the other side has gone."""

    def close(self) -> None:
        """End it."""


class SocketChannel:
    """A connected socket."""

    def __init__(self, connection: socket.socket, buffer: memoryview) -> None:
        """`buffer` is used while something is received, and may be another channel's, too."""
        self._socket = connection
        self._buffer = buffer
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> bytes:
        """What has come; b"" also when the connection was reset."""
        try:
            return self._buffer[: self._socket.recv_into(self._buffer)].tobytes()
        except OSError:
            return b""

    def receive_now(self) -> bytes | None:
        """What has come; None if nothing has."""
        try:
            return self._buffer[: self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)].tobytes()
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send(self, data: bytes) -> int:
        """Send what there is room for: a client that does not read must not hold up the rest."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class StdioChannel:
    """The process's stdin and stdout. Nothing else may write to stdout."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()

    def fileno(self) -> int:
        """The descriptor of stdin."""
        return self._input

    def receive(self) -> bytes:
        """What has come on stdin."""
        try:
            return os.read(self._input, _RECEIVE_SIZE)
        except OSError:
            return b""

    def receive_now(self) -> bytes | None:
        """None: a pipe is always waited for."""
        return None

    def send(self, data: bytes) -> int:
        """Write all of it to stdout."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]
        return len(data)

    def close(self) -> None:
        """Nothing to do: the descriptors belong to the process."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. Exactly one of `path` and `host` is set, neither for stdio."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_stdio(self) -> bool:
        """Whether it is our own stdin and stdout."""
        return not self.host and not self.path


def parse_address(text: str) -> Address:
    """What `--gdb` takes. Raises `AddressError`."""
    if text == "stdio":
        return Address()
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise AddressError("unix: needs a path")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise AddressError(f"{text!r} is no address: HOST:PORT, unix:PATH or stdio")
    return Address(host=host.strip("[]") or _LOOPBACK, port=int(port))


def address_of(first: Address, index: int, name: str) -> Address:
    """Where domain number `index` is served, `name`, when the first one is at `first`. Raises `AddressError`.

    A TCP port is followed by the next ones, 0 by 0, PATH by PATH.NAME.
    """
    if first.is_stdio:
        raise AddressError("stdio is for one domain")
    if not index:
        return first
    if first.path:
        return Address(path=f"{first.path}.{name}")
    port = first.port + index if first.port else 0
    if port > _MAX_PORT:
        raise AddressError(f"there is no port {port} for domain {name}")
    return Address(host=first.host, port=port)


class Listener:
    """Waits for debuggers at an address that is not stdio."""

    def __init__(self, address: Address) -> None:
        self._path = address.path
        # One buffer for all: to allocate this much at each look, or for each client, costs more than the look.
        self._buffer = memoryview(bytearray(_RECEIVE_SIZE))
        try:
            if address.path:
                self._socket = _unix_socket(address.path)
            else:
                self._socket = socket.create_server(
                    (address.host, address.port),
                    family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
                    backlog=_BACKLOG,
                )
        except OSError as error:
            where = address.path or f"{address.host}:{address.port}"
            raise AddressError(f"can't listen on {where}: {error.strerror or error}") from error
        self._host = address.host

    @property
    def name(self) -> str:
        """What to type after `target extended-remote`."""
        if self._path:
            return self._path
        port = self._socket.getsockname()[1]
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    def fileno(self) -> int:
        """The listening socket's descriptor."""
        return self._socket.fileno()

    def accept(self) -> SocketChannel:
        """The next debugger."""
        connection, _ = self._socket.accept()
        return SocketChannel(connection, self._buffer)

    def close(self) -> None:
        """Stop listening; a unix socket's file goes too."""
        self._socket.close()
        if self._path:
            with suppress(OSError):
                Path(self._path).unlink()


def _unix_socket(path: str) -> socket.socket:
    """A listening unix socket; a stale one that nobody listens on is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(path)
        except OSError:
            if not _is_stale(path):
                raise
            Path(path).unlink()
            listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
