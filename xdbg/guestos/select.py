"""Which profile a kernel gets. A new one is a class with `detect` and a row in `_KNOWN`."""

from collections.abc import Sequence
from typing import Final

from .bare import BareProfile
from .elf_file import ElfError
from .memory import GuestMemory
from .profile import Profile
from .symbols import SymbolTable
from .tasks import TasksProfile

_KNOWN: Final = (TasksProfile,)


def select_profile(kernel_name: str, kernel_elf: bytes, modules: Sequence[bytes], memory: GuestMemory) -> Profile:
    """The profile of the kernel in an ELF file; `kernel_name` is the last part of the path that its file gets.

    `modules` are what the domain was given beside the kernel. Debug information is read only if the symbols look like
    those of a kernel that is known: the many others cost nothing.
    """
    bare = BareProfile(kernel_elf, kernel_name)
    try:
        symbols = SymbolTable.from_elf(kernel_elf)
    except ElfError:
        return bare
    for known in _KNOWN:
        profile = known.detect(memory, symbols, bare, modules)
        if profile is not None:
            return profile
    return bare
