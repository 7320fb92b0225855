"""What a range of addresses is: the regions of an address space, for a debugger that asks about one address at a time.

A region is a run of pages with the same rights in the page tables, or a run of addresses without any page. It ends at
the ends of the memory areas that the guest's kernel knows, whose names it gets. A guest can make its page tables as
long to look through as it likes, so one answer goes no further than the multiples of `WINDOW` around the address in
mapped memory, and than `MAX_HOLES` entries of page tables in a hole: what is longer is told in parts.
"""

from dataclasses import dataclass
from typing import Final

from xdbg.abi.frames import PAGE_SIZE, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START
from xdbg.guestos.profile import Vma
from xdbg.machine.paging import PTE_NX, PTE_RW, NotMappedError, walk
from xdbg.rsp.target import MemoryRegion, TargetError
from xdbg.rsp.threadid import Thread

from .address_space import KERNEL_HALF, AddressSpace
from .attached import KERNEL_PID, Inferiors

WINDOW: Final = 128 << 20
"""Of 4 KiB pages these are some 50 ms of looking."""
MAX_HOLES: Final = 1 << 14
"""On each side of the address; a few hundred are usual."""
_LOWER_END: Final = 1 << 47
_END: Final = 1 << 64
_XEN: Final = Vma(Vaddr(HYPERVISOR_VIRT_START), Vaddr(HYPERVISOR_VIRT_END), 0, 0, "[xen]")


@dataclass(frozen=True, slots=True)
class _Page:
    """A page, or the hole that one entry of a page table leaves."""

    start: int
    end: int
    rights: str | None


class GuestMemoryRegions:
    """`MemoryRegions` of a domain."""

    def __init__(self, inferiors: Inferiors) -> None:
        self._inferiors = inferiors

    def memory_region(self, thread: Thread, vaddr: int) -> MemoryRegion:
        """The region around `vaddr` as `thread` sees it. TargetError(ESRCH)."""
        if _LOWER_END <= vaddr < KERNEL_HALF:
            return MemoryRegion(_LOWER_END, KERNEL_HALF - _LOWER_END)
        space = self._inferiors.space(thread)
        area, low, high = _around(vaddr, self._areas(thread))
        page = _page(space, vaddr)
        if page.rights is not None:
            window = vaddr & -WINDOW
            low, high = max(low, min(window, page.start)), min(high, max(window + WINDOW, page.end))
        start, end, rights = max(page.start, low), min(page.end, high), page.rights
        most = MAX_HOLES if rights is None else WINDOW // PAGE_SIZE
        for _ in range(most):
            if start <= low or (page := _page(space, start - 1)).rights != rights:
                break
            start = max(page.start, low)
        for _ in range(most):
            if end >= high or (page := _page(space, end)).rights != rights:
                break
            end = min(page.end, high)
        return MemoryRegion(start, end - start, rights, area.name if area is not None else "")

    def _areas(self, thread: Thread) -> tuple[Vma, ...]:
        """What the kernel knows of the memory of the thread's process, or of the one that the vcpu is in."""
        inferiors = self._inferiors
        pid = thread.pid
        if pid == KERNEL_PID:
            current = inferiors.profile.current_pid(inferiors.vcpu(thread).vcpu_id)
            if current is None:
                return (_XEN,)
            pid = current
        try:
            return (*inferiors.find_process(pid).vmas, _XEN)
        except TargetError:
            return (_XEN,)


def _around(vaddr: int, areas: tuple[Vma, ...]) -> tuple[Vma | None, int, int]:
    """The area that an address is in, and how far it or the gap between areas extends within its half."""
    low, high = (KERNEL_HALF, _END) if vaddr >= KERNEL_HALF else (0, _LOWER_END)
    for area in areas:
        if area.start <= vaddr < area.end:
            return area, area.start, area.end
        if area.end <= vaddr:
            low = max(low, area.end)
        else:
            high = min(high, area.start)
    return None, low, high


def _page(space: AddressSpace, vaddr: int) -> _Page:
    hole = 64
    for cr3 in space.tables(vaddr):
        try:
            found = walk(space.ram, cr3, vaddr)
        except NotMappedError as error:
            hole = min(hole, 3 + 9 * error.level)
        else:
            size = 1 << 3 + 9 * found.level
            writable, executable = found.flags & PTE_RW, not found.flags & PTE_NX
            rights = f"r{'w' if writable else ''}{'x' if executable else ''}"
            return _Page(vaddr & -size, (vaddr & -size) + size, rights)
    return _Page(vaddr & -(1 << hole), (vaddr & -(1 << hole)) + (1 << hole), None)
