"""memory_op: frames go back and come, and never one that something still refers to."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import (
    E820Entry,
    XenAddToPhysmap,
    XenAddToPhysmapBatch,
    XenForeignMemoryMap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMem,
    XenMemAccessOp,
    XenMemAcquireResource,
    XenMemoryDomain,
    XenMemoryExchange,
    XenMemoryMap,
    XenMemoryReservation,
    XenPodTarget,
    XenRemoveFromPhysmap,
    XenReservedDeviceMemoryMap,
    XenVnumaTopologyInfo,
)
from xdbg.abi.mmu import DOMID_SELF, DOMID_XEN
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.registers import RAX, RDI
from xdbg.xen.continuation import BATCH
from xdbg.xen.hypercall import call
from xdbg.xen.m2p import INVALID_M2P_ENTRY

L1 = 7
LIST = 1
READ_ONLY = PTE_PRESENT | PTE_USER
WRITABLE = READ_ONLY | PTE_RW


def frames(*numbers: int) -> bytes:
    return b"".join((number & (1 << 64) - 1).to_bytes(8, "little") for number in numbers)


def extents(
    guest: Any, op: Any, *numbers: int, order: Any = 0, domid: Any = DOMID_SELF, flags: Any = 0, nr: Any = None
) -> Any:
    start = guest.write(LIST, frames(*numbers)) if numbers else 0
    request = XenMemoryReservation(start, len(numbers) if nr is None else nr, order, flags, domid)
    return guest.call(Hypercall.MEMORY_OP, op, guest.write(0, request.to_bytes()))


def listed(guest: Any, index: Any) -> Any:
    return guest.entry(LIST, index)


def unmap(guest: Any, *pfns: int) -> None:
    for pfn in pfns:
        assert guest.map(pfn, 0) == 0


def test_a_frame_goes_back_and_another_comes(guest: Any) -> None:
    mfn = guest.mfn(20)
    guest.write(20, b"secret")
    unmap(guest, 20)
    free = guest.hv.heap.nr_free
    assert extents(guest, XenMem.DECREASE_RESERVATION, mfn) == 1
    assert guest.domain.nr_pages == 63
    assert guest.hv.heap.nr_free == free + 1
    assert guest.hv.m2p.get(Mfn(mfn)) == INVALID_M2P_ENTRY
    assert guest.hv.ram.page(Mfn(mfn)) == bytes(4096), "scrubbed"
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 20) == 1
    new = listed(guest, 0)
    assert guest.hv.page_info.owner(new) == guest.domain.domid
    assert guest.hv.m2p.get(Mfn(new)) == 20
    assert guest.domain.nr_pages == 64


def test_a_frame_that_is_still_mapped_is_nobodys_until_the_mapping_goes(guest: Any) -> None:
    mfn = guest.mfn(20)
    assert extents(guest, XenMem.DECREASE_RESERVATION, mfn) == 1
    assert guest.hv.page_info.owner(mfn) == guest.domain.domid
    guest.audit()
    flushes = guest.hv.cpu.flushes
    unmap(guest, 20)
    assert guest.hv.page_info.owner(mfn) is None
    assert guest.hv.cpu.flushes > flushes
    assert guest.domain.nr_pages == 63


def test_a_table_that_goes_back_stays_a_table_while_it_is_used(guest: Any) -> None:
    guest.make_read_only(8)
    assert guest.pin(8, 1) == 0
    unmap(guest, 8)
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(8)) == 1
    assert guest.hv.page_info.owner(guest.mfn(8)) == guest.domain.domid, "the pin keeps it"
    assert guest.domain.nr_pages == 64
    assert guest.unpin(8) == 0
    assert guest.hv.page_info.owner(guest.mfn(8)) is None
    assert guest.domain.nr_pages == 63
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(4)) == 1
    assert guest.map(20, guest.pte(4)) == -Errno.EBUSY
    assert guest.map(20, guest.pte(21)) == 0, "the page table still works"


def test_decrease_stops_at_the_first_frame_that_is_not_the_guests(guest: Any, neighbour: Any) -> None:
    unmap(guest, 20, 21)
    for bad in (neighbour.mfn(20), int(guest.hv.m2p.frame), neighbour.domain.shared_info, 1 << 60, -1):
        assert extents(guest, XenMem.DECREASE_RESERVATION, bad, guest.mfn(20)) == 0
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(20), guest.mfn(20), guest.mfn(21)) == 1
    neighbour.audit()


def test_an_extent_that_fails_midway_is_not_counted_and_not_restored(guest: Any, neighbour: Any) -> None:
    unmap(guest, 62, 63)
    assert guest.mfn(63) + 1 != neighbour.mfn(0)
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(62), order=2) == 0
    assert guest.domain.nr_pages == 62
    neighbour.audit()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_frame_of_xens_can_be_given_up_and_not_mapped_again(guest: Any, *, mapped: bool) -> None:
    shared = guest.domain.shared_info
    if mapped:
        assert guest.map(20, shared << 12 | WRITABLE) == 0
    assert extents(guest, XenMem.DECREASE_RESERVATION, shared) == 1
    guest.audit()
    unmap(guest, 20)
    assert guest.map(20, shared << 12 | READ_ONLY) == -Errno.EBUSY
    assert extents(guest, XenMem.DECREASE_RESERVATION, shared) == 0
    assert guest.hv.page_info.owner(shared) == DOMID_XEN
    assert guest.domain.nr_pages == 64


def test_everything_but_the_tables_in_use_goes_back_and_comes_again(guest: Any) -> None:
    keep = {0, LIST, 4, 5, 6, 7}
    pfns = [pfn for pfn in range(64) if pfn not in keep]
    free = guest.hv.heap.nr_free
    p2m = {pfn: guest.mfn(pfn) for pfn in pfns}
    for _ in range(3):
        unmap(guest, *pfns)
        assert extents(guest, XenMem.DECREASE_RESERVATION, *[p2m[pfn] for pfn in pfns]) == len(pfns)
        assert (guest.domain.nr_pages, guest.hv.heap.nr_free) == (6, free + 58)
        assert extents(guest, XenMem.POPULATE_PHYSMAP, *pfns) == len(pfns)
        p2m.update({pfn: listed(guest, index) for index, pfn in enumerate(pfns)})
        for pfn in pfns:
            assert guest.map(pfn, p2m[pfn] << 12 | WRITABLE) == 0
        guest.audit()
    assert (guest.domain.nr_pages, guest.hv.heap.nr_free) == (64, free)


def test_a_result_that_cannot_be_told_leaves_the_frame_with_the_domain(guest: Any) -> None:
    guest.domain.max_pages += 2
    request = XenMemoryReservation(0x1000, 1, 0, 0, DOMID_SELF)
    at = guest.write(0, request.to_bytes())
    assert guest.call(Hypercall.MEMORY_OP, XenMem.INCREASE_RESERVATION, at) == 0
    assert guest.domain.nr_pages == 65
    guest.write(LIST, frames(100))
    guest.make_read_only(LIST)
    at = guest.write(0, XenMemoryReservation(guest.va(LIST), 1, 0, 0, DOMID_SELF).to_bytes())
    assert guest.call(Hypercall.MEMORY_OP, XenMem.POPULATE_PHYSMAP, at) == 0
    assert guest.domain.nr_pages == 66
    assert guest.hv.page_info.mfn_of(guest.domain.domid, Pfn(100)) is not None


def test_addresses_may_be_limited_to_so_many_bits(guest: Any, new_guest: Any) -> None:
    guest.domain.max_pages += 4
    free = guest.hv.heap.free_map
    # All free frames from 128 on are wider than 19 bits, and all of the machine's fit into 20.
    low = [mfn for mfn, is_free in enumerate(free) if is_free and mfn < 128]
    assert low, "the machine has some"
    for mfn in low[:-1]:
        free[mfn] = 0
    assert extents(guest, XenMem.INCREASE_RESERVATION, 0, 0, flags=19) == 1
    assert listed(guest, 0) == low[-1]
    for mfn in low[:-1]:
        free[mfn] = 1
    assert extents(guest, XenMem.INCREASE_RESERVATION, 0, 0, flags=20) == 2


def test_extents_begin_at_multiples_of_their_size(guest: Any) -> None:
    guest.domain.max_pages += 64
    for order in (1, 2, 3, 4):
        assert extents(guest, XenMem.INCREASE_RESERVATION, 0, order=order) == 1
        assert listed(guest, 0) % (1 << order) == 0


def test_the_maximum_is_kept(guest: Any) -> None:
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100) == 0
    assert extents(guest, XenMem.INCREASE_RESERVATION, 0) == 0
    guest.domain.max_pages += 3
    assert extents(guest, XenMem.INCREASE_RESERVATION, nr=5) == 3
    assert guest.domain.nr_pages == 67


def test_an_extent_is_a_run_of_frames(guest: Any) -> None:
    guest.domain.max_pages += 8
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100, 200, order=2) == 2
    for index, pfn in ((0, 100), (1, 200)):
        assert [guest.hv.m2p.get(Mfn(listed(guest, index) + i)) for i in range(4)] == [pfn + i for i in range(4)]
    assert extents(guest, XenMem.DECREASE_RESERVATION, listed(guest, 1), order=2) == 1
    assert guest.domain.nr_pages == 68


@pytest.mark.parametrize(
    "change",
    [
        {"order": 10},
        {"domid": 77},
        {"domid": 0},
        {"flags": 12},
        {"flags": 1 << 16},
        {"flags": 1 << 17 | 1 << 8},
        {"nr": 1 << 40},
        {"nr": 0},
    ],
)
def test_a_request_that_makes_no_sense_does_nothing(guest: Any, change: Any) -> None:
    guest.domain.max_pages += 8
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100, **change) == 0
    assert guest.call(Hypercall.MEMORY_OP, XenMem.POPULATE_PHYSMAP, 0x1000) == 0


def test_a_wish_for_a_node_is_heard_and_an_order_is_not(guest: Any) -> None:
    guest.domain.max_pages += 8
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100, flags=5 << 8) == 1
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100, flags=1 << 17) == 1, "no node is named"


def test_the_first_argument_has_64_bits(guest: Any) -> None:
    at = guest.write(0, XenMemoryReservation(guest.va(LIST), 1, 0, 0, DOMID_SELF).to_bytes())
    assert guest.call(Hypercall.MEMORY_OP, XenMem.POPULATE_PHYSMAP | 1 << 40, at) == 1 << 34
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MAXIMUM_RAM_PAGE | 1 << 32, at) == -Errno.EINVAL


def test_the_machine_may_run_out(guest: Any) -> None:
    guest.domain.max_pages = 10_000
    free = guest.hv.heap.nr_free
    assert extents(guest, XenMem.INCREASE_RESERVATION, nr=1000) == free
    assert extents(guest, XenMem.INCREASE_RESERVATION, nr=1) == 0


def test_a_long_list_is_done_in_pieces(guest: Any) -> None:
    cpu = guest.hv.cpu
    request = XenMemoryReservation(0, BATCH + 1, 0, 0, DOMID_SELF)
    guest.domain.max_pages = 1 << 20
    cpu.rip, cpu.gpr[RAX] = 0x1002, int(Hypercall.MEMORY_OP)
    at = guest.write(0, request.to_bytes())
    freed = guest.hv.heap.nr_free
    assert call(guest.vcpu, Hypercall.MEMORY_OP, (int(XenMem.INCREASE_RESERVATION), at, 0, 0, 0, 0)) == freed
    unmap(guest, 20)
    guest.write(LIST, b"")
    again = XenMemoryReservation(guest.va(30), BATCH + 1, 0, 0, DOMID_SELF)
    raw = frames(*[guest.mfn(21)] * 512)
    for pfn in range(30, 39):
        guest.write(pfn, raw)
    at = guest.write(0, again.to_bytes())
    # A frame that is still mapped can be given back again and again; it is done only once.
    assert call(guest.vcpu, Hypercall.MEMORY_OP, (int(XenMem.DECREASE_RESERVATION), at, 0, 0, 0, 0)) is None
    assert cpu.rip == 0x1000
    assert call(guest.vcpu, Hypercall.MEMORY_OP, (cpu.gpr[RDI], at, 0, 0, 0, 0)) == BATCH + 1


def exchange(
    guest: Any,
    given: Any,
    wanted: Any,
    in_order: Any = 0,
    out_order: Any = 0,
    domid: Any = DOMID_SELF,
    done: Any = 0,
    flags: Any = 0,
    lists: Any = None,
) -> Any:
    old, new = guest.write(LIST, frames(*given)), guest.write(2, frames(*wanted))
    request = XenMemoryExchange(
        XenMemoryReservation(old if lists is None else lists, len(given), in_order, 0, domid),
        XenMemoryReservation(new, len(wanted), out_order, flags, domid),
        done,
    )
    result = guest.call(Hypercall.MEMORY_OP, XenMem.EXCHANGE, guest.write(0, request.to_bytes()))
    return result, guest.entry(0, 8)


def test_frames_are_swapped_for_a_contiguous_run(guest: Any) -> None:
    unmap(guest, 20, 30, 40, 50)
    old = [guest.mfn(pfn) for pfn in (20, 30, 40, 50)]
    assert exchange(guest, old, [300], out_order=2) == (0, 4)
    new = guest.entry(2, 0)
    assert [guest.hv.m2p.get(Mfn(new + i)) for i in range(4)] == [300, 301, 302, 303]
    assert guest.domain.nr_pages == 64
    assert all(guest.hv.page_info.owner(mfn) is None for mfn in old)


def test_a_run_is_swapped_for_single_frames(guest: Any) -> None:
    unmap(guest, 20, 21)
    assert exchange(guest, [guest.mfn(20)], [400, 500], in_order=1) == (0, 1)
    assert [guest.hv.m2p.get(Mfn(guest.entry(2, i))) for i in range(2)] == [400, 500]


def test_exchange_stops_where_a_frame_is_in_use_and_says_how_far_it_came(guest: Any, neighbour: Any) -> None:
    unmap(guest, 20, 21, 22)
    assert exchange(guest, [guest.mfn(20), guest.mfn(30)], [20, 30]) == (-Errno.EINVAL, 1)
    for bad in (guest.mfn(L1), neighbour.mfn(20), 1 << 50, guest.domain.shared_info):
        assert exchange(guest, [bad], [20]) == (-Errno.EINVAL, 0)
    assert exchange(guest, [guest.mfn(21)] * 2, [300], out_order=1) == (-Errno.EINVAL, 0)
    assert guest.hv.page_info.owner(guest.mfn(21)) == guest.domain.domid


def test_exchange_refuses_what_does_not_add_up(guest: Any, neighbour: Any) -> None:
    assert exchange(guest, [guest.mfn(20)], [1, 2]) == (-Errno.EINVAL, 0)
    assert exchange(guest, [guest.mfn(20)], [1], in_order=10, out_order=10) == (-Errno.EPERM, 0)
    assert exchange(guest, [guest.mfn(20)], [1], done=2) == (-Errno.EINVAL, 2)
    assert exchange(guest, [guest.mfn(20)], [1], domid=neighbour.domain.domid) == (-Errno.EPERM, 0)
    assert exchange(guest, [guest.mfn(20)], [1], domid=99) == (-Errno.ESRCH, 0)
    assert exchange(guest, [guest.mfn(20)], [1], domid=0) == (-Errno.EPERM, 0)
    assert exchange(guest, [guest.mfn(20)], [1], flags=1 << 17 | 3 << 8) == (-Errno.EINVAL, 0)
    assert exchange(guest, [guest.mfn(20)], [1], done=1) == (0, 1), "nothing is left to do"
    assert exchange(guest, [guest.mfn(20)], [1], lists=0xFFFF_8000_0000_0000) == (-Errno.EFAULT, 0)
    assert exchange(guest, [guest.mfn(20)], [1], lists=0x1000) == (-Errno.EFAULT, 0)


def test_exchange_fails_as_a_whole_chunk_when_the_machine_has_no_such_run(guest: Any) -> None:
    free = guest.hv.heap.free_map
    taken = [mfn for mfn, is_free in enumerate(free) if is_free and mfn % 2]
    for mfn in taken:
        free[mfn] = 0
    unmap(guest, 20, 21, 22, 23)
    nr_free = guest.hv.heap.nr_free
    assert exchange(guest, [guest.mfn(20), guest.mfn(21)], [300], out_order=1) == (-Errno.ENOMEM, 0)
    assert guest.hv.heap.nr_free == nr_free
    assert exchange(guest, [guest.mfn(20)], [300, 301, 302, 303], in_order=2) == (0, 1), "single frames there are"
    assert guest.hv.heap.nr_free == nr_free
    for mfn in taken:
        free[mfn] = 1


def test_the_new_frames_stay_when_their_numbers_cannot_be_told(guest: Any) -> None:
    unmap(guest, 20, 21)
    guest.write(2, frames(300, 301))
    guest.make_read_only(2)
    request = XenMemoryExchange(
        XenMemoryReservation(guest.write(LIST, frames(guest.mfn(20), guest.mfn(21))), 2, 0, 0, DOMID_SELF),
        XenMemoryReservation(guest.va(2), 2, 0, 0, DOMID_SELF),
        0,
    )
    assert guest.call(Hypercall.MEMORY_OP, XenMem.EXCHANGE, guest.write(0, request.to_bytes())) == -Errno.EFAULT
    assert guest.entry(0, 8) == 0, "the chunk does not count"
    assert guest.hv.page_info.owner(guest.mfn(20)) is None
    assert guest.hv.page_info.owner(guest.mfn(21)) == guest.domain.domid
    assert guest.domain.nr_pages == 64
    assert guest.hv.page_info.mfn_of(guest.domain.domid, Pfn(300)) is not None


def test_sizes_of_machine_and_domain(guest: Any, neighbour: Any) -> None:
    call_op = lambda op, domid: guest.call(Hypercall.MEMORY_OP, op, guest.write(0, XenMemoryDomain(domid).to_bytes()))
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MAXIMUM_RAM_PAGE, 0) == guest.hv.page_info.nr_frames
    assert call_op(XenMem.CURRENT_RESERVATION, DOMID_SELF) == 64
    assert call_op(XenMem.MAXIMUM_RESERVATION, guest.domain.domid) == 64
    assert call_op(XenMem.MAXIMUM_GPFN, DOMID_SELF) == 0
    assert call_op(XenMem.CURRENT_RESERVATION, neighbour.domain.domid) == -Errno.EPERM
    assert call_op(XenMem.CURRENT_RESERVATION, 99) == -Errno.ESRCH
    assert call_op(XenMem.MAXIMUM_GPFN, 0) == -Errno.EPERM
    assert guest.call(Hypercall.MEMORY_OP, XenMem.CURRENT_RESERVATION, 0x1000) == -Errno.EFAULT


def test_where_the_m2p_is(guest: Any) -> None:
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MAPPING, guest.va(0)) == 0
    found = XenMachphysMapping.from_bytes(guest.hv.ram.read(guest.mfn(0) << 12, XenMachphysMapping.SIZE))
    assert (found.v_start, found.v_end) == (0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000)
    request = guest.write(0, XenMachphysMfnList(4, guest.va(1), 0).to_bytes())
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MFN_LIST, request) == 0
    assert listed(guest, 0) == guest.hv.m2p.frame
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MAPPING, 0x1000) == -Errno.EFAULT


def test_a_domain_may_set_its_own_memory_map(guest: Any, neighbour: Any) -> None:
    table = b"".join(E820Entry(0x1000 * i, 0x1000, 1).to_bytes() for i in range(3))

    def put(nr: int, domid: int = DOMID_SELF, buffer: int = 0) -> int:
        guest.write(2, table)
        request = XenForeignMemoryMap(domid, XenMemoryMap(nr, buffer or guest.va(2)))
        return guest.call(Hypercall.MEMORY_OP, XenMem.SET_MEMORY_MAP, guest.write(0, request.to_bytes()))

    def get(nr: int) -> int:
        at = guest.write(0, XenMemoryMap(nr, guest.va(3)).to_bytes())
        return guest.call(Hypercall.MEMORY_OP, XenMem.MEMORY_MAP, at)

    assert get(1) == -Errno.ENOSYS
    assert [put(1025), put(1, 77), put(1, 0), put(1, neighbour.domain.domid), put(1, buffer=0x1000)] == [
        -Errno.EINVAL,
        -Errno.ESRCH,
        -Errno.EPERM,
        -Errno.EPERM,
        -Errno.EFAULT,
    ]
    assert get(1) == -Errno.ENOSYS
    assert put(3) == 0
    assert get(2) == 0
    assert guest.hv.ram.read(guest.mfn(3) << 12, 60) == table[:40] + bytes(20)
    assert get(9) == 0
    assert guest.hv.ram.read_u32(guest.mfn(0) << 12) == 3
    assert guest.hv.ram.read(guest.mfn(3) << 12, 60) == table
    assert put(0) == 0
    assert get(1) == -Errno.ENOSYS


OWN, OTHER, BACKENDS, NOBODY = DOMID_SELF, 2, 0, 77


@pytest.mark.parametrize(
    ("op", "request_", "result"),
    [
        (XenMem.MACHINE_MEMORY_MAP, XenMemoryMap(), -Errno.EPERM),
        (XenMem.ADD_TO_PHYSMAP, XenAddToPhysmap(domid=OWN, space=0), -Errno.EACCES),
        (XenMem.ADD_TO_PHYSMAP, XenAddToPhysmap(domid=OWN, space=99), -Errno.EACCES),
        (XenMem.ADD_TO_PHYSMAP, XenAddToPhysmap(domid=OTHER, space=0), -Errno.EACCES),
        (XenMem.ADD_TO_PHYSMAP, XenAddToPhysmap(domid=NOBODY, space=0), -Errno.ESRCH),
        (XenMem.ADD_TO_PHYSMAP, XenAddToPhysmap(domid=NOBODY, space=4), -Errno.ENOSYS),
        (XenMem.ADD_TO_PHYSMAP | 1 << 6, XenAddToPhysmap(domid=OWN), -Errno.EACCES),
        (XenMem.ADD_TO_PHYSMAP | 1 << 22, XenAddToPhysmap(domid=OWN), -Errno.EDOM),
        (XenMem.ADD_TO_PHYSMAP_BATCH, XenAddToPhysmapBatch(domid=OWN), -Errno.EACCES),
        (XenMem.ADD_TO_PHYSMAP_BATCH, XenAddToPhysmapBatch(domid=OWN, space=3), -Errno.EOPNOTSUPP),
        (XenMem.ADD_TO_PHYSMAP_BATCH, XenAddToPhysmapBatch(domid=NOBODY), -Errno.ESRCH),
        (XenMem.ADD_TO_PHYSMAP_BATCH | 1 << 22, XenAddToPhysmapBatch(domid=OWN), -Errno.EDOM),
        (XenMem.REMOVE_FROM_PHYSMAP, XenRemoveFromPhysmap(domid=OWN), -Errno.EACCES),
        (XenMem.REMOVE_FROM_PHYSMAP, XenRemoveFromPhysmap(domid=NOBODY), -Errno.ESRCH),
        (XenMem.REMOVE_FROM_PHYSMAP | 1 << 6, XenRemoveFromPhysmap(domid=OWN), -Errno.EINVAL),
        (XenMem.SET_POD_TARGET, XenPodTarget(domid=OWN), -Errno.EINVAL),
        (XenMem.GET_POD_TARGET, XenPodTarget(domid=BACKENDS), -Errno.EINVAL),
        (XenMem.GET_POD_TARGET, XenPodTarget(domid=NOBODY), -Errno.ESRCH),
        (XenMem.GET_POD_TARGET | 1 << 6, XenPodTarget(domid=OWN), -Errno.ENOSYS),
        (XenMem.GET_SHARING_FREED_PAGES, XenMemoryMap(), 0),
        (XenMem.GET_SHARING_SHARED_PAGES, XenMemoryMap(), 0),
        (XenMem.PAGING_OP, XenMemoryMap(), -Errno.ENOSYS),
        (XenMem.SHARING_OP, XenMemoryMap(), -Errno.ENOSYS),
        (XenMem.ACCESS_OP, XenMemAccessOp(domid=1), -Errno.EPERM),
        (XenMem.ACCESS_OP | 5 << 6, XenMemAccessOp(domid=OWN), -Errno.ESRCH),
        (XenMem.ACCESS_OP, XenMemAccessOp(domid=OTHER), -Errno.EINVAL),
        (XenMem.CLAIM_PAGES, XenMemoryReservation(0, 1, 0, 0, 1), -Errno.EPERM),
        (XenMem.CLAIM_PAGES, XenMemoryReservation(0, 1, 0, 0, OWN), -Errno.EINVAL),
        (XenMem.CLAIM_PAGES, XenMemoryReservation(1, 1, 0, 0, 1), -Errno.EINVAL),
        (XenMem.CLAIM_PAGES, XenMemoryReservation(0, 1, 1, 0, 1), -Errno.EINVAL),
        (XenMem.CLAIM_PAGES, XenMemoryReservation(0, 1, 0, 1, 1), -Errno.EINVAL),
        (XenMem.GET_VNUMAINFO, XenVnumaTopologyInfo(domid=OWN), -Errno.EOPNOTSUPP),
        (XenMem.GET_VNUMAINFO, XenVnumaTopologyInfo(domid=OTHER), -Errno.EPERM),
        (XenMem.GET_VNUMAINFO, XenVnumaTopologyInfo(domid=NOBODY), -Errno.ESRCH),
        (XenMem.GET_VNUMAINFO, XenVnumaTopologyInfo(domid=OWN, pad=1), -Errno.EINVAL),
        (XenMem.RESERVED_DEVICE_MEMORY_MAP, XenReservedDeviceMemoryMap(flags=1, nr_entries=4), 0),
        (XenMem.RESERVED_DEVICE_MEMORY_MAP, XenReservedDeviceMemoryMap(flags=2), -Errno.EINVAL),
        (XenMem.RESERVED_DEVICE_MEMORY_MAP, XenReservedDeviceMemoryMap(buffer=1 << 63), -Errno.EFAULT),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=1), -Errno.EPERM),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=OTHER, type=1), -Errno.EPERM),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=OWN), -Errno.ESRCH),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=OTHER, pad=1), -Errno.EINVAL),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=OTHER, frame=1 << 32), -Errno.EINVAL),
        (XenMem.ACQUIRE_RESOURCE, XenMemAcquireResource(domid=OTHER, frame=1, nr_frames=(1 << 32) - 1), -Errno.EINVAL),
        (XenMem.MACHPHYS_COMPAT_MFN_LIST, XenMachphysMfnList(), -Errno.EOPNOTSUPP),
        (XenMem.MACHPHYS_MAPPING | 1 << 6, XenMachphysMapping(), -Errno.ENOSYS),
        (XenMem.MAXIMUM_RAM_PAGE | 1 << 6, XenMachphysMapping(), -Errno.EINVAL),
        (XenMem.EXCHANGE | 1 << 6, XenMemoryExchange(), -Errno.EINVAL),
        (8, XenMemoryMap(), -Errno.ENOSYS),
        (63, XenMemoryMap(), -Errno.ENOSYS),
    ],
)
def test_what_a_pv_guest_gets_of_the_rest(guest: Any, neighbour: Any, op: Any, request_: Any, result: Any) -> None:
    assert neighbour.domain.domid == OTHER
    assert guest.call(Hypercall.MEMORY_OP, op, guest.write(0, request_.to_bytes())) == result


@pytest.mark.parametrize("op", sorted(set(XenMem) - {XenMem.INCREASE_RESERVATION, XenMem.DECREASE_RESERVATION}))
def test_a_request_outside_the_guests_memory_is_efault_or_what_comes_first(guest: Any, op: Any) -> None:
    for address in (0x1000, 0xFFFF_8200_0000_0000, 1 << 63, (1 << 64) - 4):
        result = guest.call(Hypercall.MEMORY_OP, op, address)
        early = {
            XenMem.POPULATE_PHYSMAP: 0,
            XenMem.MAXIMUM_RAM_PAGE: guest.hv.page_info.nr_frames,
            XenMem.MACHINE_MEMORY_MAP: -Errno.EPERM,
            XenMem.MACHPHYS_COMPAT_MFN_LIST: -Errno.EOPNOTSUPP,
            XenMem.GET_SHARING_FREED_PAGES: 0,
            XenMem.GET_SHARING_SHARED_PAGES: 0,
            XenMem.PAGING_OP: -Errno.ENOSYS,
            XenMem.SHARING_OP: -Errno.ENOSYS,
        }
        assert result == early.get(op, -Errno.EFAULT)


def test_pfns_are_found_whatever_order_the_frames_are_in(guest: Any) -> None:
    info, domid = guest.hv.page_info, guest.domain.domid
    assert info.mfn_of(domid, Pfn(33)) == guest.mfn(33)
    unmap(guest, 20, 33)
    assert exchange(guest, [guest.mfn(33), guest.mfn(20)], [20, 33])[0] == 0
    assert [info.mfn_of(domid, Pfn(pfn)) for pfn in (20, 33)] == [guest.entry(2, 0), guest.entry(2, 1)]
    assert info.mfn_of(domid, Pfn(1000)) is None
    assert info.mfn_of(domid, Pfn(INVALID_M2P_ENTRY)) is None
