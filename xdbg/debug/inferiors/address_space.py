"""Whose memory a thread sees: two page tables, read and written from outside without the guest noticing.

A PV guest has two page tables for each process: one for kernel mode, which maps everything, and one for user mode.
Addresses of the upper half are looked up in the first; those of the lower half in the second, and in the first if
they are not mapped there. Permissions don't matter to a debugger. Accessed and dirty bits are left alone.
"""

from array import array
from dataclasses import dataclass
from errno import EACCES, EFAULT
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START
from xdbg.machine.clock import NOT_MAPPED, translate_pages
from xdbg.machine.paging import NotMappedError, Translation, read_virtual, walk, write_virtual
from xdbg.machine.ram import Ram
from xdbg.rsp.target import TargetError

KERNEL_HALF: Final = 0xFFFF_8000_0000_0000
"""Where the upper half of the address space begins: the same for all processes of a guest."""
_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """The page tables of one thread. `user_cr3` is None where there is only one."""

    ram: Ram
    kernel_cr3: Maddr
    user_cr3: Maddr | None = None

    def tables(self, vaddr: int) -> tuple[Maddr, ...]:
        """The page tables in which an address is looked up, in this order."""
        if vaddr >= KERNEL_HALF or self.user_cr3 is None or self.user_cr3 == self.kernel_cr3:
            return (self.kernel_cr3,)
        return (self.user_cr3, self.kernel_cr3)

    def translate(self, vaddr: int) -> Translation:
        """Where an address is in RAM. Raises the last `NotMappedError`."""
        *others, last = self.tables(vaddr)
        for cr3 in others:
            try:
                return walk(self.ram, cr3, Vaddr(vaddr))
            except NotMappedError:
                continue
        return walk(self.ram, last, Vaddr(vaddr))

    def frames(self, pages: "array[int]") -> "array[int]":
        """Where pages are in RAM, given by the addresses of their first bytes; `NOT_MAPPED` for those that are not."""
        found = pages[:]
        translate_pages(self.ram, self.kernel_cr3, found)
        if self.user_cr3 is None or self.user_cr3 == self.kernel_cr3:
            return found
        lower = [at for at, page in enumerate(pages) if page < KERNEL_HALF]
        users = array("Q", [pages[at] for at in lower])
        translate_pages(self.ram, self.user_cr3, users)
        for at, frame in zip(lower, users, strict=True):
            if frame != NOT_MAPPED:
                found[at] = frame
        return found

    def read(self, vaddr: int, length: int) -> bytes:
        """`length` bytes, or as many as are readable in one piece. TargetError(EFAULT) when there is not one."""
        length = min(length, _END - vaddr)
        error: NotMappedError | None = None
        for cr3 in self.tables(vaddr):
            try:
                return read_virtual(self.ram, cr3, Vaddr(vaddr), length)
            except NotMappedError as not_mapped:
                if not_mapped.done:
                    return not_mapped.done
                error = not_mapped
        raise TargetError(EFAULT, str(error) if error is not None else "no memory there")

    def write(self, vaddr: int, data: bytes) -> None:
        """Store all of `data`, whatever the pages' permissions. TargetError before anything is stored.

        EFAULT: not all of it is mapped. EACCES: it is Xen's own memory, which the domain could not do without.
        """
        if vaddr < HYPERVISOR_VIRT_END and vaddr + len(data) > HYPERVISOR_VIRT_START:
            raise TargetError(EACCES, "Xen's own memory can't be written")
        error: NotMappedError | None = None
        for cr3 in self.tables(vaddr):
            try:
                write_virtual(self.ram, cr3, Vaddr(vaddr), data)
            except NotMappedError as not_mapped:
                error = not_mapped
            else:
                return
        raise TargetError(EFAULT, str(error) if error is not None else "no memory there")
