"""The guest's own breakpoints: DR0-DR3 as its DR7 enables them. Intel SDM vol. 3, "Debug Registers"; see breakpoints.c.

They belong to the guest: they raise #DB in it, whoever looks on. One for execution is an address that is looked at
where code is; one for data becomes a watch of the frame that is mapped there now, and is looked up again whenever the
page tables may have changed. What the hypervisor does itself to the guest's memory does not count, as the hardware
would break in the hypervisor if at all.
"""

from collections.abc import Sequence
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.abi.x86 import (
    DEBUG_LENGTHS,
    DR7_ACTIVE_MASK,
    DR7_CONTROL_SHIFT,
    DR7_CONTROL_SIZE,
    DR7_DEFAULT,
    DebugAccess,
)

from .clock import NR_BREAKPOINTS, Clock
from .paging import NotMappedError, walk
from .ram import Ram
from .stoppoints import Access, Watch
from .watches import Watches

_ACCESSES: Final = {DebugAccess.WRITE: Access.WRITE, DebugAccess.READ_WRITE: Access.READ | Access.WRITE}


class Breakpoints:
    """Those of the vcpu whose registers are in the CPU."""

    def __init__(self, clock: Clock, ram: Ram, watches: Watches) -> None:
        self._clock = clock
        self._ram = ram
        self._watches = watches
        self._loaded: tuple[int, ...] = (0, 0, 0, 0, DR7_DEFAULT)
        self._data: dict[int, tuple[Vaddr, int, Access]] = {}
        """By number: address, length, and what is a hit."""
        self._looked_up = True
        self.has_data = False
        """Whether `follow` is to be called before each entry."""

    def load(self, addresses: Sequence[int], dr7: int) -> None:
        """Make these the breakpoints from the next entry on. `addresses` are DR0-DR3."""
        loaded = (*addresses[:NR_BREAKPOINTS], dr7)
        if loaded == self._loaded or not (dr7 | self._loaded[-1]) & DR7_ACTIVE_MASK:
            self._loaded = loaded
            return
        self._loaded = loaded
        clock, execute = self._clock, 0
        self._data = {}
        for number in range(NR_BREAKPOINTS):
            if not dr7 >> 2 * number & 3:
                continue
            control = dr7 >> DR7_CONTROL_SHIFT + DR7_CONTROL_SIZE * number
            length, access = DEBUG_LENGTHS[control >> 2 & 3], _ACCESSES.get(DebugAccess(control & 3))
            if control & 3 == DebugAccess.EXECUTE:
                clock.breakpoints[number] = addresses[number]
                execute |= 1 << number
            elif access is not None:
                vaddr = Vaddr(addresses[number] & -length)
                clock.breakpoints[number] = vaddr
                self._data[number] = vaddr, length, access
        clock.break_execute = execute
        self.has_data, self._looked_up = True, False

    def follow(self) -> None:
        """Find the frames behind the breakpoints for data in the address space that is about to be entered."""
        if self._looked_up and not self._watches.tables_may_differ:
            return
        self._looked_up = True
        found: dict[int, Watch] = {}
        for number, (vaddr, length, access) in self._data.items():
            try:
                maddr = walk(self._ram, self._clock.cr3, vaddr).maddr
            except NotMappedError:
                continue
            if maddr < self._ram.size:
                found[number] = Watch(maddr, length, access, number)
        self._clock.break_data = sum(1 << number for number in found)
        self._watches.set_guest_breakpoints(found)
        self.has_data = bool(self._data)
