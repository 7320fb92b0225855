"""The page of call stubs that Xen writes into a kernel that has room for it. Xen: pv_ring3_init_hypercall_page().

Entry N, 32 bytes each, keeps the two registers that `syscall` loses:

    push %rcx; push %r11; mov $N, %eax; syscall; pop %r11; pop %rcx; ret

HYPERVISOR_iret does not come back: its entry pushes rcx, r11 and rax, the first words of struct iret_context.
"""

import struct

from xdbg.abi.frames import PAGE_SIZE
from xdbg.abi.hypercalls import HYPERCALL_PAGE_ENTRY_SIZE, Hypercall

_SAVE = b"\x51\x41\x53"
_MOV_EAX = b"\xb8"
_SYSCALL = b"\x0f\x05"
_RESTORE_AND_RETURN = b"\x41\x5b\x59\xc3"
_PUSH_RAX = b"\x50"
_FILLER = b"\xcc"


def hypercall_page() -> bytes:
    """The content of the page; what is between the stubs is int3."""
    entries = []
    for number in range(PAGE_SIZE // HYPERCALL_PAGE_ENTRY_SIZE):
        call = _MOV_EAX + struct.pack("<I", number) + _SYSCALL
        stub = _SAVE + (_PUSH_RAX + call if number == Hypercall.IRET else call + _RESTORE_AND_RETURN)
        entries.append(stub.ljust(HYPERCALL_PAGE_ENTRY_SIZE, _FILLER))
    return b"".join(entries)
