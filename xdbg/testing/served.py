"""A guest that is served to gdb by a process of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_END_S = 30
_PIECE = 1 << 16


class ServedGuest:
    """`xdbg serve` running. `address` is what to type after `target extended-remote`.

    With `domains`, each as `xdbg serve --domain` takes it, there is no `kernel`; `addresses` are theirs by name, and
    `address` the first one's.
    """

    def __init__(
        self,
        kernel: str | Path | None,
        options: Sequence[str] = (),
        *,
        address: str = "127.0.0.1:0",
        domains: Sequence[str] = (),
    ) -> None:
        what = [] if kernel is None else [str(kernel)]
        for domain in domains:
            what += ["--domain", domain]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xdbg", "serve", *what, "--gdb", address, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.addresses: dict[str, str] = {}
        for _ in range(max(1, len(domains))):
            name, found, where = self._process.stdout.readline().decode().rpartition("target extended-remote ")
            if not found:
                _, errors = self._process.communicate(timeout=_END_S)
                raise RuntimeError(f"xdbg serve did not start: {errors.decode().strip()}")
            self.addresses[name.removesuffix(": ")] = where.strip()
        self.address = next(iter(self.addresses.values()))
        self._console: list[bytes] = []
        self._errors: list[bytes] = []
        self._drains = [
            _drain(self._process.stdout, self._console),
            _drain(self._process.stderr, self._errors),
        ]

    def stop(self) -> str:
        """End the server; everything that the guest wrote on its console."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(_END_S)
        for drain in self._drains:
            drain.join(_END_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return self.console

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    @property
    def console(self) -> str:
        """What has come from the guest's console so far; complete after `stop`."""
        return b"".join(self._console).decode(errors="replace")

    @property
    def errors(self) -> str:
        """What the server itself said on stderr so far."""
        return b"".join(self._errors).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _drain(stream: IO[bytes], into: list[bytes]) -> threading.Thread:
    """Keep reading, so that the server never waits for us."""

    def read() -> None:
        while data := os.read(stream.fileno(), _PIECE):
            into.append(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def serve_domains(*domains: str, options: Sequence[str] = (), address: str = "127.0.0.1:0") -> ServedGuest:
    """Serve several domains on one machine, each as `xdbg serve --domain` takes it."""
    return ServedGuest(None, options, address=address, domains=domains)


def serve(kernel: str | Path, *options: str, address: str = "127.0.0.1:0") -> ServedGuest:
    """Serve a bundled guest (by name) or a kernel of your own (by path); `options` are those of `xdbg serve`."""
    return ServedGuest(kernel, options, address=address)
