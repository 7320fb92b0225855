"""Names for addresses in a trace: the kernel's symbols, and those of the process that runs.

Who has symbols implements `Symbols`; which process runs on a vcpu is known by a profile of the guest's kernel.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from xdbg.abi.frames import Vaddr
from xdbg.guestos.elf_file import ElfError
from xdbg.guestos.profile import Profile
from xdbg.guestos.symbols import SymbolTable
from xdbg.xen.vcpu import Vcpu


class Symbols(Protocol):
    """The symbols of one image."""

    def lookup(self, vaddr: Vaddr, /) -> tuple[str, int] | None:
        """The symbol that holds an address and the offset in it, or None."""


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """The process that a vcpu runs, in user mode or in the kernel on its behalf; `symbols` is None if it has none."""

    pid: int
    symbols: Symbols | None


class Processes(Protocol):
    """Knows the processes of a domain."""

    def current(self, vcpu: Vcpu, /) -> RunningProcess | None:
        """The process on a vcpu, or None when there is none or it is unknown. It may read memory and changes none."""


class ProfileKernel:
    """The kernel that a profile knows. Its symbols are read when they are first needed."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    @cached_property
    def table(self) -> SymbolTable:
        """Its symbols; none if its file has none."""
        try:
            return SymbolTable.from_elf(self._profile.file(self._profile.kernel_path) or b"")
        except ElfError:
            return SymbolTable(())

    def lookup(self, vaddr: Vaddr, /) -> tuple[str, int] | None:
        """As `Symbols`."""
        return self.table.lookup(vaddr)


class ProfileProcesses:
    """The processes that a profile of the kernel knows. Symbols of a program are read when they are first needed."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._programs: dict[tuple[str, int], SymbolTable | None] = {}

    def current(self, vcpu: Vcpu, /) -> RunningProcess | None:
        """The process on a vcpu of the profile's domain."""
        pid = self._profile.current_pid(vcpu.vcpu_id)
        process = None if pid is None else self._profile.process(pid)
        if process is None:
            return None
        return RunningProcess(process.pid, self._program(process.exec_path, process.load_base))

    def _program(self, path: str, load_base: int) -> SymbolTable | None:
        key = (path, load_base)
        if key not in self._programs:
            content = self._profile.file(path) if path else None
            try:
                self._programs[key] = None if content is None else SymbolTable.from_elf(content, bias=load_base)
            except ElfError:
                self._programs[key] = None
        return self._programs[key]


def symbol_at(vaddr: Vaddr, first: Symbols | None, second: Symbols | None = None) -> str | None:
    """The symbol of an address in the first of two images that knows it: "name", "name+0x1c", or None."""
    for symbols in (first, second):
        found = None if symbols is None else symbols.lookup(vaddr)
        if found is not None:
            name, offset = found
            return f"{name}+{offset:#x}" if offset else name
    return None
