"""Reading and writing guest memory on the guest's behalf. Xen: asm-x86/guest_access.h, uaccess.h.

Every pointer a guest passes is followed through its own kernel page table with its own rights: the page must be
present, user (PV64 kernel mappings are), and writable for a write. Xen's own range of addresses is never the guest's.
"""

from typing import TypeVar

from xdbg.abi.cstruct import CStruct
from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Maddr, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, PTE_RW, PTE_USER
from xdbg.machine.paging import NotMappedError, walk

from .events import MemoryWritten
from .faults import GuestFault
from .vcpu import Vcpu

S = TypeVar("S", bound=CStruct)

_CANONICAL_LOW_END = 1 << 47
_ADDRESS_MASK = (1 << 64) - 1


def address_ok(vaddr: int, length: int = 1) -> bool:
    """Whether [vaddr, vaddr + length) is outside Xen's own range and canonical. Xen: access_ok()."""
    end = vaddr + length
    if vaddr < 0 or end > _ADDRESS_MASK + 1:
        return False
    return end <= _CANONICAL_LOW_END or vaddr >= HYPERVISOR_VIRT_END


def translate(vcpu: Vcpu, vaddr: int, *, write: bool = False) -> Maddr:
    """The machine address behind a guest kernel's pointer; raises `GuestFault`."""
    if not address_ok(vaddr):
        raise GuestFault(Vaddr(vaddr), write=write)
    try:
        found = walk(vcpu.domain.hv.ram, vcpu.cr3, Vaddr(vaddr))
    except NotMappedError:
        raise GuestFault(Vaddr(vaddr), write=write) from None
    if not found.flags & PTE_USER or (write and not found.flags & PTE_RW):
        raise GuestFault(Vaddr(vaddr), write=write)
    if found.maddr >= vcpu.domain.hv.ram.size:
        raise GuestFault(Vaddr(vaddr), write=write)
    return found.maddr


def _pieces(vcpu: Vcpu, vaddr: int, length: int, *, write: bool) -> list[tuple[Maddr, int]]:
    """The machine ranges behind a guest range, page by page; nothing is touched before all are known."""
    pieces = []
    while length > 0:
        piece = min(length, PAGE_SIZE - (vaddr & PAGE_MASK))
        pieces.append((translate(vcpu, vaddr, write=write), piece))
        vaddr += piece
        length -= piece
    return pieces


def copy_from_guest(vcpu: Vcpu, vaddr: int, length: int) -> bytes:
    """`length` bytes at a guest address; raises `GuestFault` at the first byte that can't be read. None never fault."""
    buffer = vcpu.domain.hv.ram.buffer
    if length > 0 and (vaddr & PAGE_MASK) + length <= PAGE_SIZE:
        maddr = translate(vcpu, vaddr)
        return bytes(buffer[maddr : maddr + length])
    return b"".join(bytes(buffer[maddr : maddr + piece]) for maddr, piece in _pieces(vcpu, vaddr, length, write=False))


def copy_to_guest(vcpu: Vcpu, vaddr: int, data: bytes | bytearray | memoryview) -> None:
    """Store bytes at a guest address; raises `GuestFault` before anything is stored."""
    hv = vcpu.domain.hv
    done = 0
    for maddr, piece in _pieces(vcpu, vaddr, len(data), write=True):
        hv.ram.buffer[maddr : maddr + piece] = data[done : done + piece]
        if hv.observer is not None:
            hv.observer.observe(vcpu, MemoryWritten(maddr, piece))
        done += piece


def read_struct(vcpu: Vcpu, vaddr: int, kind: type[S]) -> S:
    """A copy of a C structure at a guest address; raises `GuestFault`."""
    return kind.from_bytes(copy_from_guest(vcpu, vaddr, kind.SIZE))


def write_struct(vcpu: Vcpu, vaddr: int, value: CStruct) -> None:
    """Store a C structure at a guest address; raises `GuestFault`."""
    copy_to_guest(vcpu, vaddr, value.to_bytes())


def copy_string(vcpu: Vcpu, vaddr: int, text: bytes, size: int) -> None:
    """Store `text` cut to `size - 1` bytes, its NUL and zeroes up to `size`."""
    copy_to_guest(vcpu, vaddr, text[: size - 1].ljust(size, b"\0"))
