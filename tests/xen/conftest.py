"""A domain without a CPU: RAM, page types and a page table are real, and hypercalls are called as the dispatcher calls
them. Time stands still unless a test moves it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.shared_info import SharedInfo, VcpuInfo
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.ram import Ram

# Handlers enter themselves in the hypercall table when their modules are imported.
from xdbg.xen import console, event_channel_op, physdev, sched_op, timer, vcpu_op, version, xenstore  # noqa: F401
from xdbg.xen.console import ConsoleState
from xdbg.xen.domain import Domain
from xdbg.xen.event_channel import EventChannels
from xdbg.xen.grant_table import GrantTable
from xdbg.xen.heap import Heap
from xdbg.xen.hypercall import call
from xdbg.xen.page_info import PageInfoTable
from xdbg.xen.system_time import init_wallclock, update_time_info
from xdbg.xen.vcpu import Vcpu
from xdbg.xen.xenstore import XenstoreState
from xdbg.xen.xenstore_tree import XenstoreTree

BASE = 0x40_0000
"""Where the guest's pages are mapped: writable ones, then one that is read-only, then nothing."""
NR_PAGES = 8


@dataclass
class StandInCpu:
    """As much of the CPU as hypercalls see that do not touch registers."""

    count: int = 0
    tsc_offset: int = 0
    io_allowed: bool = False

    def flush_tlb(self) -> None:
        """There is none."""


class StandInHypervisor:
    """As much of the hypervisor as the mechanisms under test see."""

    def __init__(self, nr_frames: int = 256) -> None:
        self.ram = Ram(nr_frames * PAGE_SIZE)
        self.page_info = PageInfoTable(nr_frames)
        self.heap = Heap(self.ram, self.page_info)
        self.cpu = StandInCpu()
        self.observer: Any = None
        self.domains: dict[int, Domain] = {}
        self.xenstore_tree = XenstoreTree()
        self.block_images: Any = None
        self.current: Vcpu | None = None
        self.next_tick_ns = 10_000_000
        self.slice_end_ns = 0

    def now(self) -> int:
        return self.cpu.count + self.cpu.tsc_offset

    def shutdown_domain(self, domain: Domain, code: int, reason: str = "") -> None:
        domain.shutdown_code = code
        domain.shutdown_reason = reason


@dataclass
class Guest:
    """One domain, and what a kernel in it would do."""

    hv: Any
    domain: Domain
    frames: list[Mfn]
    """Behind `BASE`: NR_PAGES writable frames and a read-only one."""
    events: list[Any] = field(default_factory=list)

    @property
    def vcpu(self) -> Vcpu:
        return self.domain.vcpus[0]

    @property
    def shared_info(self) -> SharedInfo:
        return SharedInfo.at(self.hv.ram, self.domain.shared_info_maddr)

    def info(self, vcpu_id: int = 0) -> VcpuInfo:
        return VcpuInfo.at(self.hv.ram, self.domain.vcpus[vcpu_id].vcpu_info)

    def call(self, number: Hypercall, *args: int, vcpu_id: int = 0) -> int:
        """The result of a hypercall; the registers that it does not need hold rubbish."""
        result = call(self.domain.vcpus[vcpu_id], number, (*args, *[0xDEAD] * (6 - len(args))))
        assert result is not None
        return result

    def put(self, data: Any, offset: int = 0) -> int:
        """Store a structure or bytes in the first pages; its address."""
        raw = data if isinstance(data, bytes) else data.to_bytes()
        maddr = self.maddr(BASE + offset)
        self.hv.ram.write(maddr, raw)
        return BASE + offset

    def get(self, kind: Any, offset: int = 0) -> Any:
        return kind.from_bytes(self.hv.ram.read(self.maddr(BASE + offset), kind.SIZE))

    def maddr(self, vaddr: int) -> Maddr:
        page, offset = divmod(vaddr - BASE, PAGE_SIZE)
        return Maddr(mfn_to_maddr(self.frames[page]) + offset)

    def add_vcpu(self) -> Vcpu:
        """Another vcpu, up, with the same page table."""
        vcpu = Vcpu(self.domain, len(self.domain.vcpus))
        offset = SharedInfo.offset_of("vcpu_info") + VcpuInfo.SIZE * vcpu.vcpu_id
        vcpu.vcpu_info = Maddr(self.domain.shared_info_maddr + offset)
        vcpu.guest_table = self.vcpu.guest_table
        vcpu.is_initialised = vcpu.is_up = True
        self.domain.vcpus.append(vcpu)
        self.info(vcpu.vcpu_id).evtchn_upcall_mask = 1
        return vcpu

    def observe(self, _vcpu: Vcpu, event: Any) -> None:
        self.events.append(event)

    @property
    def read_only(self) -> int:
        return BASE + NR_PAGES * PAGE_SIZE

    @property
    def unmapped(self) -> int:
        return BASE + (NR_PAGES + 1) * PAGE_SIZE


def make_guest(hv: StandInHypervisor, name: str = "guest") -> Guest:
    """A domain on a machine; it is the current one if it is the first."""
    domid = len(hv.domains) + 1
    domain = Domain(hv, domid, name, 64)
    domain.shared_info = hv.heap.alloc(DOMID_XEN)
    vcpu = Vcpu(domain, 0)
    vcpu.vcpu_info = domain.shared_info_maddr
    vcpu.is_initialised = vcpu.is_up = True
    domain.vcpus.append(vcpu)
    hv.domains[domid] = domain
    tables = [hv.heap.alloc(domid) for _ in range(4)]
    frames = [hv.heap.alloc(domid) for _ in range(NR_PAGES + 1)]
    indices = [BASE >> shift & 511 for shift in (39, 30, 21)]
    for table, index, below in zip(tables, indices, tables[1:], strict=False):
        hv.ram.write_u64(mfn_to_maddr(table) + index * 8, mfn_to_maddr(below) | PTE_PRESENT | PTE_RW | PTE_USER)
    for number, frame in enumerate(frames):
        flags = PTE_PRESENT | PTE_USER | (PTE_RW if number < NR_PAGES else 0)
        at = mfn_to_maddr(tables[3]) + ((BASE >> 12 & 511) + number) * 8
        hv.ram.write_u64(at, mfn_to_maddr(frame) | flags)
    vcpu.guest_table = tables[0]
    domain.event_channels = EventChannels.create(domain)
    domain.grant_table = GrantTable.create(domain)
    domain.console = ConsoleState.create(domain)
    domain.xenstore = XenstoreState.create(domain)
    if hv.current is None:
        hv.current = vcpu
    guest = Guest(hv, domain, frames)
    guest.info().evtchn_upcall_mask = 1
    init_wallclock(domain)
    update_time_info(vcpu)
    return guest


@pytest.fixture
def guest() -> Guest:
    """A domain alone on its machine."""
    return make_guest(StandInHypervisor())


@pytest.fixture
def neighbour(guest: Guest) -> Guest:
    """A second domain on the machine of `guest`."""
    return make_guest(guest.hv, "neighbour")


@pytest.fixture
def another(guest: Guest) -> Callable[[], Guest]:
    """Makes more domains on the machine of `guest`."""
    return lambda: make_guest(guest.hv)
