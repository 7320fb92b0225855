"""Memory as a debugger sees it: through page tables, without the guest noticing."""

from collections.abc import Callable
from errno import EACCES, EFAULT

import pytest

from xdbg.abi.frames import Maddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, MACH2PHYS_VIRT_START
from xdbg.debug.inferiors.address_space import KERNEL_HALF, AddressSpace
from xdbg.debug.running.observers import Observers, StoreLog
from xdbg.machine.ram import Ram
from xdbg.rsp.target import TargetError
from xdbg.xen.events import MemoryWritten

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest


def test_reads_are_short_at_a_hole_and_fail_inside_of_it(small: Small) -> None:
    guest = small()
    space = guest.target.inferiors.space(guest.kernel)
    end = guest.at("_start")
    while True:
        try:
            space.translate(end)
        except Exception:  # noqa: BLE001 - the end of the mapping is looked for
            break
        end += 0x1000
    assert len(guest.target.read_memory(guest.kernel, end - 10, 100)) == 10
    for vaddr in (end, 0, 0x123456789000, 0x8000_0000_0000, (1 << 64) - 1):
        with pytest.raises(TargetError) as caught:
            guest.target.read_memory(guest.kernel, vaddr, 8)
        assert caught.value.errno == EFAULT


def test_xens_own_memory_is_readable_where_the_guest_can_read_it_and_never_written(small: Small) -> None:
    guest = small()
    before = guest.target.read_memory(guest.kernel, MACH2PHYS_VIRT_START, 16)
    for vaddr in (MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_START - 4, HYPERVISOR_VIRT_END - 1):
        with pytest.raises(TargetError) as caught:
            guest.target.write_memory(guest.kernel, vaddr, bytes(8))
        assert caught.value.errno in {EACCES, EFAULT}
    assert guest.target.read_memory(guest.kernel, MACH2PHYS_VIRT_START, 16) == before


def test_writes_are_all_or_nothing_and_ignore_rights(small: Small) -> None:
    guest = small()
    table = guest.target.domain.vcpus[0].guest_table
    space = guest.target.inferiors.space(guest.kernel)
    vaddr = guest.at("to")
    guest.target.write_memory(guest.kernel, vaddr, b"0123456789")
    assert guest.target.read_memory(guest.kernel, vaddr, 10) == b"0123456789"
    end = vaddr
    while len(guest.target.read_memory(guest.kernel, end, 0x2000)) == 0x2000:
        end += 0x1000
    before = guest.target.read_memory(guest.kernel, end + 0xF00, 0x100)
    with pytest.raises(TargetError):
        guest.target.write_memory(guest.kernel, end + 0xF00, bytes(0x3000))
    assert guest.target.read_memory(guest.kernel, end + 0xF00, 0x100) == before
    assert space.kernel_cr3 == table << 12


def test_reading_sets_no_accessed_bits(small: Small) -> None:
    guest = small()
    before = bytes(guest.target.hv.ram.buffer)
    for vaddr in range(guest.at("_start"), guest.at("_start") + 0x8000, 0x1000):
        guest.target.read_memory(guest.kernel, vaddr, 16)
    assert bytes(guest.target.hv.ram.buffer) == before


def test_the_lower_half_is_the_process_s_and_the_upper_the_kernel_s() -> None:
    ram = Ram(32 << 12)

    def table(cr3: int, slot: int, mfns: tuple[int, int, int], page: int) -> None:
        for above, below, index in zip((cr3, *mfns), (*mfns, page), (slot, 0, 0, 0), strict=True):
            ram.write_u64((above << 12) + 8 * index, below << 12 | 7)

    table(1, 0, (2, 3, 4), 20)
    table(1, 256, (5, 6, 7), 21)
    table(8, 0, (9, 10, 11), 22)
    for mfn, text in ((20, b"kernel low"), (21, b"kernel high"), (22, b"user low")):
        ram.write(mfn << 12, text)
    process = AddressSpace(ram, Maddr(1 << 12), Maddr(8 << 12))
    assert process.read(0, 8) == b"user low"
    assert process.read(KERNEL_HALF, 11) == b"kernel high"
    ram.write_u64(8 << 12, 0)
    assert process.read(0, 10) == b"kernel low", "what user mode does not map is looked for in kernel mode's table"
    assert AddressSpace(ram, Maddr(1 << 12)).read(0, 10) == b"kernel low"


def test_observers_share_the_one_place(small: Small) -> None:
    guest = small()
    hv, vcpu = guest.target.hv, guest.target.domain.vcpus[0]
    observers = Observers(hv)
    foreign, ours, more = StoreLog(), StoreLog(), StoreLog()
    hv.observer = foreign
    observers.add(ours)
    observers.add(ours)
    observers.add(more)
    assert hv.observer is not None
    hv.observer.observe(vcpu, MemoryWritten(Maddr(16), 4))
    assert [log.take() for log in (foreign, ours, more, more)] == [[(16, 4)], [(16, 4)], [(16, 4)], []]
    observers.remove(ours)
    observers.remove(ours)
    observers.remove(foreign)
    assert hv.observer is more
    observers.remove(more)
    assert hv.observer is None
