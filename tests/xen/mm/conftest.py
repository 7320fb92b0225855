"""A domain under direct paging on a machine without an engine: RAM, heap, M2P, page types and tables are the real ones.

The domain has `NR_PAGES` frames, mapped at `VIRT_BASE` + pfn * 4096; its tables are pfns 4 to 7 (L4, L3, L2, L1),
mapped read-only. Pages 8 and up are free, page 0 to 3 hold arguments of hypercalls.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from xdbg.abi.frames import PAGE_SIZE, Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF, DOMID_XEN, MmuextOp, MmuextOpArg1, MmuextOpArg2, MmuextOpStruct
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.ram import Ram
from xdbg.xen import grant_table_op, memory, mm, mmuext  # noqa: F401 - handlers enter themselves in the table
from xdbg.xen.audit import audit
from xdbg.xen.descriptor_tables import init_vcpu
from xdbg.xen.domain import Domain
from xdbg.xen.grant_table import GrantTable
from xdbg.xen.heap import Heap
from xdbg.xen.hypercall import call
from xdbg.xen.m2p import M2p
from xdbg.xen.mm import adopt_initial_tables
from xdbg.xen.page_info import PageInfoTable
from xdbg.xen.vcpu import Vcpu

VIRT_BASE = 0xFFFF_FFFF_8000_0000
NR_PAGES = 64
L4, L3, L2, L1 = 4, 5, 6, 7
FREE = 8
TABLE = PTE_PRESENT | PTE_RW | PTE_USER
READ_ONLY = PTE_PRESENT | PTE_USER


@dataclass
class StandInCpu:
    """The registers that paging looks at."""

    count: int = 0
    tsc_offset: int = 0
    rip: int = 0
    rflags: int = 2
    is_64bit: bool = True
    cr3: int = 0
    fs_base: int = 0
    gs_base: int = 0
    gdt: tuple[int, int] = (0, 0)
    ldt: tuple[int, int] = (0, 0)
    gpr: list[int] = field(default_factory=lambda: [0] * 16)
    flushes: int = 0
    ldt_selector: int = 0

    def flush_tlb(self) -> None:
        self.flushes += 1

    def set_ldt(self, base: int, limit: int, selector: int = 0) -> None:
        self.ldt = (base, limit)
        self.ldt_selector = selector

    def set_gdt(self, base: int, limit: int) -> None:
        self.gdt = (base, limit)


class StandInHypervisor:
    """As much of the hypervisor as memory needs."""

    def __init__(self, nr_frames: int) -> None:
        self.ram = Ram(nr_frames * PAGE_SIZE)
        self.cpu = StandInCpu()
        self.observer: Any = None
        self.page_info = PageInfoTable(nr_frames)
        self.heap = Heap(self.ram, self.page_info)
        self.m2p = M2p(self)  # type: ignore[arg-type]
        self.domains: dict[int, Domain] = {}
        self.current: Vcpu | None = None

    def set_guest_cr2(self, vcpu: Vcpu, cr2: int) -> None:
        self.ram.write_u64(vcpu.vcpu_info + 16, cr2)


@dataclass
class PagedGuest:
    """One domain, and what a kernel in it would do."""

    hv: Any
    domain: Domain
    base: Mfn
    """The frame of pfn 0; the others follow."""

    @property
    def vcpu(self) -> Vcpu:
        return self.domain.vcpus[0]

    def mfn(self, pfn: int) -> int:
        return self.base + pfn

    def va(self, pfn: int) -> int:
        return VIRT_BASE + pfn * PAGE_SIZE

    def slot(self, pfn: int, index: int) -> int:
        """Machine address of an entry of the table at `pfn`."""
        return self.mfn(pfn) * PAGE_SIZE + index * 8

    def entry(self, pfn: int, index: int) -> int:
        return self.hv.ram.read_u64(self.slot(pfn, index))

    def pte(self, pfn: int, flags: int = TABLE) -> int:
        return self.mfn(pfn) << 12 | flags

    def write(self, pfn: int, data: bytes, offset: int = 0) -> int:
        """Store bytes in a page, whatever it is; their virtual address."""
        self.hv.ram.write(self.mfn(pfn) * PAGE_SIZE + offset, data)
        return self.va(pfn) + offset

    def write_entries(self, pfn: int, entries: dict[int, int]) -> None:
        for index, value in entries.items():
            self.hv.ram.write_u64(self.slot(pfn, index), value)

    def call(self, number: Hypercall, *args: int) -> int:
        result = call(self.vcpu, number, (*args, *[0xDEAD] * (6 - len(args))))
        assert result is not None
        return result

    def mmu_update(self, *requests: tuple[int, int], foreigndom: int = DOMID_SELF, done: int = 0) -> int:
        raw = b"".join(ptr.to_bytes(8, "little") + value.to_bytes(8, "little") for ptr, value in requests)
        return self.call(Hypercall.MMU_UPDATE, self.write(0, raw), len(requests), done, foreigndom)

    def mmuext(self, cmd: int, arg1: int = 0, arg2: int = 0, foreigndom: int = DOMID_SELF) -> int:
        op = MmuextOpStruct(cmd, MmuextOpArg1(mfn=arg1), MmuextOpArg2(src_mfn=arg2))
        return self.call(Hypercall.MMUEXT_OP, self.write(0, op.to_bytes()), 1, 0, foreigndom)

    def pin(self, pfn: int, level: int) -> int:
        return self.mmuext(MmuextOp.PIN_L1_TABLE + level - 1, self.mfn(pfn))

    def unpin(self, pfn: int) -> int:
        return self.mmuext(MmuextOp.UNPIN_TABLE, self.mfn(pfn))

    def map(self, pfn: int, value: int, flags: int = 0) -> int:
        """update_va_mapping of the address where `pfn` is mapped at first."""
        return self.call(Hypercall.UPDATE_VA_MAPPING, self.va(pfn), value, flags)

    def make_read_only(self, *pfns: int) -> None:
        for pfn in pfns:
            assert self.map(pfn, self.pte(pfn, READ_ONLY)) == 0

    def audit(self) -> None:
        audit(self.hv)


def build(hv: StandInHypervisor, max_pages: int = NR_PAGES) -> PagedGuest:
    domid = len(hv.domains) + 1
    domain = Domain(hv, domid, f"guest{domid}", max_pages)  # type: ignore[arg-type]
    hv.domains[domid] = domain
    domain.shared_info = hv.heap.alloc(DOMID_XEN)
    vcpu = Vcpu(domain, 0)
    vcpu.vcpu_info = domain.shared_info_maddr
    domain.vcpus.append(vcpu)
    init_vcpu(vcpu)
    domain.grant_table = GrantTable.create(domain)
    base = hv.heap.alloc(domid, NR_PAGES)
    domain.nr_pages = NR_PAGES
    hv.m2p.set_range(base, Pfn(0), NR_PAGES)
    guest = PagedGuest(hv, domain, base)
    guest.write_entries(L4, {511: guest.pte(L3)})
    guest.write_entries(L3, {510: guest.pte(L2)})
    guest.write_entries(L2, {0: guest.pte(L1)})
    guest.write_entries(L1, {pfn: guest.pte(pfn, READ_ONLY if L4 <= pfn <= L1 else TABLE) for pfn in range(NR_PAGES)})
    adopt_initial_tables(domain, Mfn(guest.mfn(L4)))
    if hv.current is None:
        hv.current = vcpu
        hv.cpu.cr3 = vcpu.cr3
    return guest


@pytest.fixture
def guest() -> Iterator[PagedGuest]:
    """A domain; whatever a test does with it, the counts must be right at the end."""
    built = build(StandInHypervisor(256))
    built.audit()
    yield built
    built.audit()


@pytest.fixture
def neighbour(guest: PagedGuest) -> PagedGuest:
    """A second domain on the machine of `guest`."""
    return build(guest.hv)


@pytest.fixture
def new_guest() -> Callable[[], PagedGuest]:
    """Makes domains, each on a machine of its own."""
    return lambda: build(StandInHypervisor(256))
