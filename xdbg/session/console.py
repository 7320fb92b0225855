"""The terminal's end of domains' consoles: output to a stream, input from a file descriptor.

Input reaches a domain between two slices of the run; output is taken at the same moment. The output of an only domain
goes through as it comes. Of several domains whole lines are shown, each with its domain's name before it; a line that
has no end yet waits for it, or for the end of the domain.
"""

import os
from select import select
from typing import BinaryIO

from xdbg.xen.console import send_input
from xdbg.xen.domain import Domain

_PIECE = 512
_LONGEST_LINE = 4096
"""Bytes after which a line is broken."""


class Terminal:
    """Connects consoles to `output` and, if given, to the descriptor `input_fd`. `named`: there are several domains."""

    def __init__(self, output: BinaryIO, input_fd: int | None = None, *, named: bool = False) -> None:
        self._output = output
        self._named = named
        self._begun: dict[str, bytes] = {}
        """The lines without an end, by the names of their domains."""
        self.input_fd = input_fd
        """Where input comes from; None when none can come, or none any more."""

    def flush(self, domain: Domain) -> None:
        """Show what the guest wrote."""
        data = domain.console.take_output()
        if self._named:
            data = self._lines(domain, data)
        if data:
            self._output.write(data)
            self._output.flush()

    def _lines(self, domain: Domain, data: bytes) -> bytes:
        """The lines that are complete now."""
        name = domain.name
        *lines, rest = (self._begun.get(name, b"") + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        if rest and domain.shutdown_code is not None:
            lines.append(rest)
            rest = b""
        self._begun[name] = rest
        return b"".join(f"{name}: ".encode() + line + b"\n" for line in lines)

    def poll(self, domain: Domain, timeout: float | None = 0) -> bytes:
        """Give the domain what has been typed; wait up to `timeout` s for it (None: for ever). The bytes given."""
        if self.input_fd is not None and select([self.input_fd], [], [], timeout)[0]:
            data = os.read(self.input_fd, _PIECE)
            if data:
                send_input(domain, data)
            else:
                self.input_fd = None
            return data
        return b""
