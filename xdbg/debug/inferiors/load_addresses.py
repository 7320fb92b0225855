"""Where a program lies, against where its file would have it loaded.

A kernel's segments have physical addresses beside the virtual ones; a position-independent program is linked at 0 and
lies wherever its kernel put it. gdb's ``compare-sections`` knows neither: it asks by the file's load addresses (LMA).
"""

from xdbg.guestos.elf_file import PT_LOAD, ElfError, ElfFile
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread

from .attached import KERNEL_PID, Inferiors


class ProgramPlaces:
    """Implements `rsp.target.LoadAddresses` for the kernel and the attached processes."""

    def __init__(self, inferiors: Inferiors) -> None:
        self._inferiors = inferiors

    def loaded_at(self, thread: Thread, address: int, length: int) -> int:
        """The virtual address of what the program's file loads at `address`; see the protocol."""
        profile = self._inferiors.profile
        path, base = profile.kernel_path, 0
        if thread.pid != KERNEL_PID:
            try:
                process = self._inferiors.process(thread.pid)
            except TargetError:
                return address
            path, base = process.exec_path, process.load_base
        try:
            program = ElfFile(profile.file(path) or b"")
        except ElfError:
            return address
        for segment in program.segments:
            if segment.type == PT_LOAD and 0 <= address - segment.paddr <= segment.size - length:
                return (segment.vaddr + base + address - segment.paddr) % (1 << 64)
        return address
