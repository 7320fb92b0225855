"""The terminal's end of a domain's console: output to a stream, input from a file descriptor.

Input reaches the domain between two slices of its run; output is taken at the same moment.
"""

import os
from select import select
from typing import BinaryIO

from xdbg.xen.console import send_input
from xdbg.xen.domain import Domain

_PIECE = 512


class Terminal:
    """Connects a domain's console to `output` and, if given, to the descriptor `input_fd`."""

    def __init__(self, output: BinaryIO, input_fd: int | None = None) -> None:
        self._output = output
        self.input_fd = input_fd
        """Where input comes from; None when none can come, or none any more."""

    def flush(self, domain: Domain) -> None:
        """Show what the guest wrote."""
        data = domain.console.take_output()
        if data:
            self._output.write(data)
            self._output.flush()

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
