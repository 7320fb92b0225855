"""The profile of a kernel that nobody here knows: no processes, and one file, the kernel."""

from collections.abc import Sequence
from typing import Final

from xdbg.abi.frames import Vaddr

from .events import GuestEvent, KernelRegisters, SignalInfo, Signalled
from .profile import Process, UserRegisters

KERNEL_DIRECTORY: Final = "/boot/"
"""Where profiles put the kernel's own file."""


class BareProfile:
    """Any kernel, of which only the ELF file is known."""

    def __init__(self, kernel_elf: bytes, kernel_name: str = "kernel") -> None:
        self.kernel_elf = kernel_elf
        self._kernel_path = KERNEL_DIRECTORY + kernel_name

    @property
    def name(self) -> str:
        """Of the profile, not of the kernel: that is unknown."""
        return "bare"

    @property
    def kernel_path(self) -> str:
        """Where `file` has the kernel."""
        return self._kernel_path

    def processes(self) -> Sequence[Process]:
        """None."""
        return ()

    def process(self, pid: int) -> Process | None:
        """None."""
        del pid
        return None

    def current_pid(self, vcpu_id: int) -> int | None:
        """Unknown."""
        del vcpu_id
        return None

    @property
    def event_points(self) -> Sequence[Vaddr]:
        """None."""
        return ()

    def event(self, vcpu: KernelRegisters) -> GuestEvent | None:
        """Unknown."""
        del vcpu
        return None

    def signal_writes(self, event: Signalled, info: SignalInfo | None) -> Sequence[tuple[Vaddr, bytes]]:
        """Nothing can be done."""
        del event, info
        return ()

    def send_writes(self, pid: int, info: SignalInfo) -> Sequence[tuple[Vaddr, bytes]]:
        """Nothing can be done."""
        del pid, info
        return ()

    def unsaved_registers(self, pid: int, vcpu: KernelRegisters) -> UserRegisters | None:
        """Unknown."""
        del pid, vcpu
        return None

    def unsaved_writes(
        self, pid: int, registers: UserRegisters, vcpu: KernelRegisters
    ) -> tuple[Sequence[tuple[Vaddr, bytes]], dict[int, int]]:
        """None."""
        del pid, registers, vcpu
        return (), {}

    def register_writes(self, pid: int, registers: UserRegisters) -> Sequence[tuple[Vaddr, bytes]]:
        """None."""
        del pid, registers
        return ()

    def file(self, path: str) -> bytes | None:
        """The kernel, by its path."""
        return self.kernel_elf if path == self._kernel_path else None
