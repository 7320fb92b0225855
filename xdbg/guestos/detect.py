"""Which profile a kernel gets. A new one is a class with `detect` and a row in `_KNOWN`."""

from typing import Final

from .bare import BareProfile
from .memory import GuestMemory
from .profile import Profile
from .symbols import SymbolTable
from .tasks import TasksProfile

_KNOWN: Final = (TasksProfile,)


def profile_of(kernel_elf: bytes, symbols: SymbolTable, memory: GuestMemory, *, kernel_name: str = "kernel") -> Profile:
    """The profile of the kernel in an ELF file; `kernel_name` is the last part of the path that its file gets.

    Debug information is read only if the symbols look like those of a kernel that is known.
    """
    bare = BareProfile(kernel_elf, kernel_name)
    for known in _KNOWN:
        profile = known.detect(kernel_elf, symbols, memory, bare)
        if profile is not None:
            return profile
    return bare
