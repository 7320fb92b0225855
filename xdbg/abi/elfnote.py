"""ELF notes by which a kernel tells the domain builder about itself. Xen public/elfnote.h.

A note's owner is "Xen"; its value is a NUL-terminated string or a number of 4 or 8 bytes. Any of them may be missing.
"""

from typing import Final

from xdbg.abi.cenum import CEnum

ELFNOTE_OWNER: Final = b"Xen"


class ElfNote(CEnum, prefix="XEN_ELFNOTE_"):
    """XEN_ELFNOTE_*: type of a note. Xen public/elfnote.h."""

    INFO = 0
    ENTRY = 1
    HYPERCALL_PAGE = 2
    VIRT_BASE = 3
    PADDR_OFFSET = 4
    XEN_VERSION = 5
    GUEST_OS = 6
    GUEST_VERSION = 7
    LOADER = 8
    PAE_MODE = 9
    FEATURES = 10
    BSD_SYMTAB = 11
    HV_START_LOW = 12
    L1_MFN_VALID = 13
    SUSPEND_CANCEL = 14
    INIT_P2M = 15
    MOD_START_PFN = 16
    SUPPORTED_FEATURES = 17
    PHYS32_ENTRY = 18
    CRASH_INFO = 0x1000001
    CRASH_REGS = 0x1000002
    DUMPCORE_NONE = 0x2000000
    DUMPCORE_HEADER = 0x2000001
    DUMPCORE_XEN_VERSION = 0x2000002
    DUMPCORE_FORMAT_VERSION = 0x2000003
