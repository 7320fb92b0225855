"""Names for addresses in a trace: the kernel's symbols, and those of the process that runs.

Who has symbols implements `Symbols`; which process runs on a vcpu is the business of whoever knows the guest kernel.
"""

from typing import Protocol

from xdbg.abi.frames import Vaddr
from xdbg.xen.vcpu import Vcpu


class Symbols(Protocol):
    """The symbols of one image."""

    def lookup(self, vaddr: Vaddr, /) -> tuple[str, int] | None:
        """The symbol that holds an address and the offset in it, or None."""


class ProcessSymbols(Protocol):
    """Knows the processes of a guest kernel."""

    def current(self, vcpu: Vcpu, /) -> Symbols | None:
        """The symbols of the process that runs on a vcpu, or None when there is none or it is unknown.

        It may read memory and must change nothing.
        """


class Symbolizer:
    """Looks addresses up: of kernel mode in the kernel, of user mode in the process and then in the kernel.

    A small kernel has its user code in its own image, hence the second look.
    """

    def __init__(self, kernel: Symbols | None = None, processes: ProcessSymbols | None = None) -> None:
        self._kernel = kernel
        self._processes = processes

    def name(self, vcpu: Vcpu, vaddr: Vaddr, *, kernel_mode: bool) -> str | None:
        """ "name" or "name+0x1c", or None."""
        found = None
        if not kernel_mode and self._processes is not None:
            process = self._processes.current(vcpu)
            if process is not None:
                found = process.lookup(vaddr)
        if found is None and self._kernel is not None:
            found = self._kernel.lookup(vaddr)
        if found is None:
            return None
        symbol, offset = found
        return f"{symbol}+{offset:#x}" if offset else symbol
