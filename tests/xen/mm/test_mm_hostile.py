"""A guest that does whatever it likes with memory.

The invariant, after any operations in any order: every hypercall returns a result or an errno, nothing else escapes;
the audit finds no difference, so no entry reaches a frame that is not the guest's and no table is writable; and the
other domain's memory is what it was.
"""

import hashlib
import random
from typing import Any

import pytest

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import XenMem, XenMemoryExchange, XenMemoryReservation
from xdbg.abi.mmu import DOMID_SELF
from xdbg.xen.audit import audit
from xdbg.xen.descriptor_tables import map_ldt_shadow_page
from xdbg.xen.page_info import PGT_WRITABLE_PAGE

from . import conftest as paged

TABLES = range(4, 20)
"""Pages that the guest plays tables with; the rest are data."""
ARGUMENTS = 0

L1 = 7
SLOTS = (0, 1, 2, 20, 100, 255, 256, 260, 271, 272, 510, 511)
FLAGS = (0, 1, 3, 5, 5, 7, 7, 7, 7, 0x107, 0x87, 0x17, 7 | 1 << 63, 7 | 1 << 52, 7 | 1 << 62, 0x67)
EDGES = (0, 7, (1 << 64) - 1, 0xFFFF_8000_0000_0000)
NR_WALKS = 6
STEPS = 2500
"""Operations of one walk; the machine is new after every 200, the audit runs after each."""


def operation(rnd: random.Random) -> tuple[Any, ...]:
    """Some operation, as `Hostile.run` takes it."""

    def page() -> int:
        return rnd.choice((L1, rnd.choice(TABLES), rnd.choice(TABLES), rnd.randrange(20, 64)))

    def word() -> int:
        return rnd.choice((rnd.choice(EDGES), rnd.getrandbits(64), rnd.getrandbits(20)))

    slot, flags = rnd.choice(SLOTS), rnd.choice(FLAGS)
    return rnd.choice(
        (
            ("update", page(), slot, page(), flags, rnd.choice((0, 0, 0, 1, 2, 3))),
            ("foreign", page(), slot, rnd.randrange(256), flags),
            ("garbage", word(), word()),
            ("map", page(), page(), flags),
            ("read_only", rnd.choice(TABLES)),
            ("poke", page(), slot, page(), flags),
            ("poke_foreign", page(), slot, rnd.randrange(256), flags),
            ("mmuext", rnd.randrange(22), page(), page()),
            ("mmuext", rnd.choice((0, 1, 2, 3, 4, 5, 15)), page(), page()),
            ("mmuext_garbage", rnd.randrange(22), word(), word()),
            ("tree", rnd.randrange(8, 13), rnd.random() < 0.5, rnd.choice((0, 0, page(), 256 + rnd.randrange(256)))),
            ("linear", rnd.randrange(8, 14), rnd.randrange(8, 14), rnd.choice((1, 2, 3)), slot),
            ("gdt", page(), page(), rnd.choice((0, 1, 512, 513, 1024))),
            ("ldt", page()),
            ("descriptor", page(), slot, word()),
            ("decrease", page()),
            ("populate", page(), rnd.choice((0, 0, 1))),
            ("exchange", page(), page()),
        )
    )


class Hostile:
    """Carries the operations out, by hypercalls and by stores to pages that the guest may write."""

    def __init__(self) -> None:
        self.hv = paged.StandInHypervisor(256)
        self.guest = paged.build(self.hv)
        self.victim = paged.build(self.hv)
        self.victims_state = self.digest()
        self.mfns = [self.guest.mfn(pfn) for pfn in range(paged.NR_PAGES)]
        """What the guest believes its frames to be."""

    def digest(self) -> str:
        """The victim's memory and everything that Xen keeps of it."""
        first, last = self.victim.mfn(0), self.victim.mfn(paged.NR_PAGES)
        info = self.hv.page_info
        state = hashlib.sha256(self.hv.ram.buffer[first << 12 : last << 12])
        for array in (info.owners, info.refs, info.types):
            state.update(array[first:last].tobytes())
        return state.hexdigest()

    def argument(self, raw: bytes) -> int:
        """Where the argument is; the page may be gone by now, then the call has to deal with that."""
        mfn = self.mfns[ARGUMENTS]
        if self.hv.page_info.owner(mfn) == self.guest.domain.domid:
            self.hv.ram.write(mfn << 12, raw)
        return self.guest.va(ARGUMENTS)

    def mmu_update(self, ptr: int, value: int) -> int:
        raw = ptr.to_bytes(8, "little") + value.to_bytes(8, "little")
        return self.guest.call(Hypercall.MMU_UPDATE, self.argument(raw), 1, 0, DOMID_SELF)

    def mmuext(self, cmd: int, arg1: int, arg2: int) -> int:
        raw = cmd.to_bytes(8, "little") + arg1.to_bytes(8, "little") + arg2.to_bytes(8, "little")
        return self.guest.call(Hypercall.MMUEXT_OP, self.argument(raw), 1, 0, DOMID_SELF)

    def memory_op(self, op: int, request: Any) -> int:
        return self.guest.call(Hypercall.MEMORY_OP, op, self.argument(request.to_bytes()))

    def run(self, operation: Any) -> None:
        guest = self.guest
        match operation:
            case ("update", page, slot, target, flags, command):
                self.mmu_update(self.mfns[page] << 12 | slot * 8 | command, self.mfns[target] << 12 | flags)
            case ("foreign", page, slot, mfn, flags):
                self.mmu_update(self.mfns[page] << 12 | slot * 8, mfn << 12 | flags)
            case ("garbage", ptr, value):
                self.mmu_update(ptr, value)
            case ("map", page, target, flags):
                guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(page), self.mfns[target] << 12 | flags, 0)
            case ("read_only", page):
                guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(page), self.mfns[page] << 12 | 5, 0)
            case ("poke", page, slot, target, flags):
                self.poke(page, slot, self.mfns[target] << 12 | flags)
            case ("mmuext", cmd, page, other):
                self.mmuext(cmd, self.mfns[page], self.mfns[other])
            case ("mmuext_garbage", cmd, arg1, arg2):
                self.mmuext(cmd, arg1, arg2)
            case ("poke_foreign", page, slot, mfn, flags):
                self.poke(page, slot, mfn << 12 | flags)
            case ("tree", first, pin, bad):
                for page in range(first, first + 4):
                    guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(page), self.mfns[page] << 12 | 7, 0)
                    self.wipe(page)
                    self.poke(page, 3, self.mfns[page + 1 if page < first + 3 else 30] << 12 | 7)
                    if bad:
                        self.poke(page, 5, (self.mfns[bad] if bad < 256 else bad - 256) << 12 | 7)
                    guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(page), self.mfns[page] << 12 | 5, 0)
                self.mmuext(3 if pin else 5, self.mfns[first], 0)
            case ("linear", page, target, level, slot):
                for table in (page, target):
                    self.wipe(table)
                    guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(table), self.mfns[table] << 12 | 5, 0)
                    self.mmuext(level, self.mfns[table], 0)
                self.mmu_update(self.mfns[page] << 12 | slot * 8, self.mfns[target] << 12 | 5)
            case ("gdt", page, other, entries):
                raw = self.mfns[page].to_bytes(8, "little") + self.mfns[other].to_bytes(8, "little")
                guest.call(Hypercall.SET_GDT, self.argument(raw), entries)
            case ("ldt", page):
                self.wipe(page)
                guest.call(Hypercall.UPDATE_VA_MAPPING, guest.va(page), self.mfns[page] << 12 | 5, 0)
                self.mmuext(13, guest.va(page), 512)
                map_ldt_shadow_page(guest.vcpu, 0)
            case ("descriptor", page, slot, value):
                guest.call(Hypercall.UPDATE_DESCRIPTOR, self.mfns[page] << 12 | slot * 8, value)
            case ("decrease", page):
                self.poke(1, 0, self.mfns[page])
                self.memory_op(XenMem.DECREASE_RESERVATION, XenMemoryReservation(guest.va(1), 1, 0, 0, DOMID_SELF))
            case ("populate", page, order):
                self.poke(1, 0, page)
                request = XenMemoryReservation(guest.va(1), 1, order, 0, DOMID_SELF)
                if self.memory_op(XenMem.POPULATE_PHYSMAP, request) == 1:
                    self.mfns[page] = self.hv.ram.read_u64(self.mfns[1] << 12)
            case ("exchange", page, other):
                self.poke(1, 0, self.mfns[page])
                self.poke(1, 1, other)
                swap = XenMemoryExchange(
                    XenMemoryReservation(guest.va(1), 1, 0, 0, DOMID_SELF),
                    XenMemoryReservation(guest.va(1) + 8, 1, 0, 0, DOMID_SELF),
                    0,
                )
                if self.memory_op(XenMem.EXCHANGE, swap) == 0:
                    self.mfns[page] = self.hv.ram.read_u64((self.mfns[1] << 12) + 8)

    def writable(self, page: int) -> bool:
        """Whether the guest may have a mapping through which it writes to the page."""
        info = self.hv.page_info
        mfn = self.mfns[page]
        return info.owner(mfn) == self.guest.domain.domid and info.type_of(mfn) == PGT_WRITABLE_PAGE

    def poke(self, page: int, slot: int, value: int) -> None:
        """A store by the guest itself."""
        if self.writable(page):
            self.hv.ram.write_u64((self.mfns[page] << 12) + slot * 8, value)

    def wipe(self, page: int) -> None:
        """The same, for the whole page."""
        if self.writable(page):
            self.hv.ram.write(self.mfns[page] << 12, bytes(4096))


@pytest.mark.parametrize("seed", range(NR_WALKS))
def test_nothing_a_guest_does_breaks_the_rules_of_memory(seed: int) -> None:
    rnd = random.Random(seed)
    for _ in range(0, STEPS, 200):
        hostile = Hostile()
        for _ in range(200):
            hostile.run(operation(rnd))
            audit(hostile.hv, scrubbed=False)
        hostile.guest.audit()
        assert hostile.digest() == hostile.victims_state
