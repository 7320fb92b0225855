"""siginfo_t of Linux on x86-64, 128 bytes: what gdb shows as $_siginfo. Linux: include/uapi/asm-generic/siginfo.h.

si_signo, si_errno and si_code are followed, at 16, by a union: for a fault the address, otherwise pid and uid of the
sender.
"""

from struct import Struct
from typing import Final

from xdbg.guestos.events import SignalInfo

SIZE: Final = 128
_HEAD: Final = Struct("<iii4x")
_ADDRESS: Final = Struct("<Q")
_SENDER: Final = Struct("<iI")
_FAULTS: Final = frozenset({4, 5, 7, 8, 11})
"""SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV."""


def encode(info: SignalInfo) -> bytes:
    """The structure."""
    head = _HEAD.pack(info.signal, 0, info.code)
    union = _ADDRESS.pack(info.address) if _is_fault(info.signal, info.code) else _SENDER.pack(info.sender, 0)
    return (head + union).ljust(SIZE, b"\0")


def decode(data: bytes) -> SignalInfo:
    """What the structure says; `data` has `SIZE` bytes."""
    signal, _, code = _HEAD.unpack_from(data)
    if _is_fault(signal, code):
        return SignalInfo(signal & 0xFF, code, address=_ADDRESS.unpack_from(data, _HEAD.size)[0])
    return SignalInfo(signal & 0xFF, code, sender=_SENDER.unpack_from(data, _HEAD.size)[0])


def _is_fault(signal: int, code: int) -> bool:
    """SI_USER is 0, and the other codes of senders are negative."""
    return signal in _FAULTS and code > 0
