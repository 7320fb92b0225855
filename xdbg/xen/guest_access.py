"""Reading and writing guest memory on the guest's behalf. Xen: asm-x86/guest_access.h, uaccess.h.

Every pointer a guest passes is followed through its own kernel page table with its own rights: the page must be
present, user (PV64 kernel mappings are), and writable for a write. Xen's own range of addresses is never the guest's.
"""

from typing import Final, TypeVar

from xdbg.abi.cstruct import CStruct
from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Maddr, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, PTE_ADDR_MASK, PTE_PRESENT, PTE_PSE, PTE_RW, PTE_USER

from .events import MemoryWritten
from .faults import GuestFault
from .vcpu import Vcpu

S = TypeVar("S", bound=CStruct)

_CANONICAL_LOW_END = 1 << 47
_PRESENT_PSE: Final = PTE_PRESENT | PTE_PSE
_READABLE: Final = PTE_PRESENT | PTE_USER
_WRITABLE: Final = PTE_PRESENT | PTE_USER | PTE_RW
_ADDRESS_MASK = (1 << 64) - 1


def address_ok(vaddr: int, length: int = 1) -> bool:
    """Whether [vaddr, vaddr + length) is outside Xen's own range and canonical. Xen: access_ok()."""
    end = vaddr + length
    if vaddr < 0 or end > _ADDRESS_MASK + 1:
        return False
    return end <= _CANONICAL_LOW_END or vaddr >= HYPERVISOR_VIRT_END


def translate(vcpu: Vcpu, vaddr: int, *, write: bool = False) -> Maddr:
    """The machine address behind a guest kernel's pointer; raises `GuestFault`.

    Each hypercall with an argument in memory comes through here, so the walk stands here at length: four tables of
    4 KiB pages, which is all that a PV guest can have.
    """
    if not (0 <= vaddr < _CANONICAL_LOW_END or HYPERVISOR_VIRT_END <= vaddr <= _ADDRESS_MASK):
        raise GuestFault(Vaddr(vaddr), write=write)
    words = vcpu.domain.hv.ram.q
    try:
        rights = l4e = words[vcpu.cr3 >> 3 | vaddr >> 39 & 511]
        if l4e & _PRESENT_PSE == PTE_PRESENT:
            l3e = words[(l4e & PTE_ADDR_MASK) >> 3 | vaddr >> 30 & 511]
            rights &= l3e
            if l3e & _PRESENT_PSE == PTE_PRESENT:
                l2e = words[(l3e & PTE_ADDR_MASK) >> 3 | vaddr >> 21 & 511]
                rights &= l2e
                if l2e & _PRESENT_PSE == PTE_PRESENT:
                    l1e = words[(l2e & PTE_ADDR_MASK) >> 3 | vaddr >> 12 & 511]
                    rights &= l1e
                    needed = _WRITABLE if write else _READABLE
                    if rights & needed == needed and (l1e & PTE_ADDR_MASK) >> 3 < len(words):
                        return Maddr(l1e & PTE_ADDR_MASK | vaddr & PAGE_MASK)
    except IndexError:  # a table outside RAM
        pass
    raise GuestFault(Vaddr(vaddr), write=write)


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
    length = len(data)
    if 0 < length <= PAGE_SIZE - (vaddr & PAGE_MASK):
        maddr = translate(vcpu, vaddr, write=True)
        hv.ram.buffer[maddr : maddr + length] = data
        if hv.observer is not None:
            hv.observer.observe(vcpu, MemoryWritten(maddr, length))
        return
    done = 0
    for maddr, piece in _pieces(vcpu, vaddr, length, write=True):
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
