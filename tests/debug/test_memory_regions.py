"""The regions of an address space, as they are told for one address at a time."""

from collections.abc import Callable, Iterator
from errno import ESRCH
from itertools import pairwise

import pytest

from xdbg.abi.x86 import HYPERVISOR_VIRT_START
from xdbg.debug.inferiors import memory_regions
from xdbg.debug.inferiors.address_space import KERNEL_HALF
from xdbg.debug.inferiors.memory_regions import GuestMemoryRegions
from xdbg.machine.paging import PTE_NX, PTE_RW, NotMappedError
from xdbg.rsp.target import MemoryRegion, TargetError
from xdbg.rsp.threadid import Thread

PAGE = 0x1000
Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest


def all_regions(regions: GuestMemoryRegions, thread: Thread) -> Iterator[MemoryRegion]:
    vaddr = 0
    while vaddr < 1 << 64:
        region = regions.memory_region(thread, vaddr)
        assert region.start == vaddr
        yield region
        vaddr += region.size


def rights(guest: "Debugged", thread: Thread, vaddr: int) -> str | None:  # type: ignore[name-defined] # noqa: F821
    try:
        flags = guest.target.inferiors.space(thread).translate(vaddr).flags
    except NotMappedError:
        return None
    return f"r{'w' if flags & PTE_RW else ''}{'' if flags & PTE_NX else 'x'}"


def test_regions_cover_the_address_space_and_have_the_rights_of_each_of_their_pages(small: Make) -> None:
    guest = small()
    regions = GuestMemoryRegions(guest.target.inferiors)
    found = list(all_regions(regions, guest.kernel))
    for region in found:
        inside = (region.start, region.start + region.size // 2 & -PAGE, region.start + region.size - PAGE)
        for vaddr in inside:
            assert rights(guest, guest.kernel, vaddr) == region.rights
            assert regions.memory_region(guest.kernel, vaddr + PAGE - 1) == region
    for one, other in pairwise(found):
        halves = other.start in {1 << 47, KERNEL_HALF}
        assert halves or (one.rights, one.name) != (other.rights, other.name)
    assert MemoryRegion(1 << 47, KERNEL_HALF - (1 << 47)) in found
    text = regions.memory_region(guest.kernel, guest.at("_start"))
    assert text.rights is not None
    assert text.start <= guest.at("_start") < text.start + text.size
    assert regions.memory_region(guest.kernel, HYPERVISOR_VIRT_START).name == "[xen]"


def test_a_long_run_is_told_in_parts_that_touch(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = small()
    regions = GuestMemoryRegions(guest.target.inferiors)
    whole = [region for region in all_regions(regions, guest.kernel) if region.rights]
    monkeypatch.setattr(memory_regions, "WINDOW", 4 * PAGE)
    parts = [region for region in all_regions(regions, guest.kernel) if region.rights]
    assert len(parts) > len(whole)
    assert sum(region.size for region in parts) == sum(region.size for region in whole)
    assert {region.size for region in parts} <= {PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE}


def test_a_hole_of_many_small_holes_is_not_looked_through_to_its_end(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = small()
    regions = GuestMemoryRegions(guest.target.inferiors)
    whole = regions.memory_region(guest.kernel, 1 << 45)
    monkeypatch.setattr(memory_regions, "MAX_HOLES", 3)
    part = regions.memory_region(guest.kernel, 1 << 45)
    assert part.rights is whole.rights is None
    assert part.size == 7 << 39 < whole.size
    assert part.start <= 1 << 45 < part.start + part.size


def test_regions_of_a_process_have_the_names_that_its_kernel_knows(bundled: Make) -> None:
    guest = bundled("tasks")
    guest.brk("task_sleep")
    guest.cont()
    init = Thread(1, 1)
    guest.target.attach(1)
    found = [region for region in all_regions(GuestMemoryRegions(guest.target.inferiors), init) if region.rights]
    user = [region for region in found if region.start < 1 << 47]
    assert {region.name for region in user} == {"/bin/init", "[stack]"}
    assert {(region.name, region.rights) for region in user} >= {("/bin/init", "rx"), ("[stack]", "rw")}
    assert all(region.name in {"", "[xen]"} for region in found if region.start >= KERNEL_HALF)
    # The kernel shows the process that its vcpu is in.
    current = guest.target.profile.current_pid(0)
    assert current not in {None, 1}
    assert GuestMemoryRegions(guest.target.inferiors).memory_region(guest.kernel, 0x401000).name == "/bin/counter"


def test_no_such_thread(small: Make) -> None:
    guest = small()
    with pytest.raises(TargetError) as caught:
        GuestMemoryRegions(guest.target.inferiors).memory_region(Thread(5, 5), 0x1000)
    assert caught.value.errno == ESRCH
