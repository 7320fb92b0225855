"""memory_op: frames go back and come, and never one that something still refers to."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import (
    XenAddToPhysmap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMem,
    XenMemoryDomain,
    XenMemoryExchange,
    XenMemoryReservation,
)
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.x86 import PTE_PRESENT, PTE_USER
from xdbg.machine.registers import RAX, RDI
from xdbg.xen.continuation import BATCH
from xdbg.xen.hypercall import call
from xdbg.xen.m2p import INVALID_M2P_ENTRY

L1 = 7
LIST = 1
READ_ONLY = PTE_PRESENT | PTE_USER


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
    assert guest.hv.page_info.owner(guest.mfn(8)) is None, "the pin went with it"
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(4)) == 1
    assert guest.map(20, guest.pte(4)) == -Errno.EBUSY
    assert guest.map(20, guest.pte(21)) == 0, "the page table still works"


def test_decrease_stops_at_the_first_frame_that_is_not_the_guests(guest: Any, neighbour: Any) -> None:
    unmap(guest, 20, 21)
    for bad in (neighbour.mfn(20), int(guest.hv.m2p.frame), guest.domain.shared_info, 1 << 60, -1):
        assert extents(guest, XenMem.DECREASE_RESERVATION, bad, guest.mfn(20)) == 0
    assert extents(guest, XenMem.DECREASE_RESERVATION, guest.mfn(20), guest.mfn(20), guest.mfn(21)) == 1
    neighbour.audit()


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
    "change", [{"order": 10}, {"domid": 77}, {"flags": 12}, {"flags": 1 << 16}, {"nr": 1 << 40}, {"nr": 0}]
)
def test_a_request_that_makes_no_sense_does_nothing(guest: Any, change: Any) -> None:
    guest.domain.max_pages += 8
    assert extents(guest, XenMem.POPULATE_PHYSMAP, 100, **change) == 0
    assert guest.call(Hypercall.MEMORY_OP, XenMem.POPULATE_PHYSMAP, 0x1000) == 0


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
    guest: Any, given: Any, wanted: Any, in_order: Any = 0, out_order: Any = 0, domid: Any = DOMID_SELF, done: Any = 0
) -> Any:
    request = XenMemoryExchange(
        XenMemoryReservation(guest.write(LIST, frames(*given)), len(given), in_order, 0, domid),
        XenMemoryReservation(guest.write(2, frames(*wanted)), len(wanted), out_order, 0, domid),
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


def test_sizes_of_machine_and_domain(guest: Any, neighbour: Any) -> None:
    call_op = lambda op, domid: guest.call(Hypercall.MEMORY_OP, op, guest.write(0, XenMemoryDomain(domid).to_bytes()))
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MAXIMUM_RAM_PAGE, 0) == guest.hv.page_info.nr_frames - 1
    assert call_op(XenMem.CURRENT_RESERVATION, DOMID_SELF) == 64
    assert call_op(XenMem.MAXIMUM_RESERVATION, guest.domain.domid) == 64
    assert call_op(XenMem.MAXIMUM_GPFN, DOMID_SELF) == 0
    assert call_op(XenMem.CURRENT_RESERVATION, neighbour.domain.domid) == -Errno.EPERM
    assert call_op(XenMem.CURRENT_RESERVATION, 99) == -Errno.ESRCH


def test_where_the_m2p_is(guest: Any) -> None:
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MAPPING, guest.va(0)) == 0
    found = XenMachphysMapping.from_bytes(guest.hv.ram.read(guest.mfn(0) << 12, XenMachphysMapping.SIZE))
    assert (found.v_start, found.v_end) == (0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000)
    request = guest.write(0, XenMachphysMfnList(4, guest.va(1), 0).to_bytes())
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MFN_LIST, request) == 0
    assert listed(guest, 0) == guest.hv.m2p.frame
    assert guest.call(Hypercall.MEMORY_OP, XenMem.MACHPHYS_MAPPING, 0x1000) == -Errno.EFAULT


@pytest.mark.parametrize(
    ("op", "errno"),
    [
        (XenMem.MEMORY_MAP, Errno.ENOSYS),
        (XenMem.MACHINE_MEMORY_MAP, Errno.EPERM),
        (XenMem.CLAIM_PAGES, Errno.EPERM),
        (XenMem.GET_VNUMAINFO, Errno.EOPNOTSUPP),
        (8, Errno.ENOSYS),
        (63, Errno.ENOSYS),
        (XenMem.MAXIMUM_RAM_PAGE | 1 << 6, Errno.EINVAL),
        (XenMem.ADD_TO_PHYSMAP | 1 << 6, Errno.EDOM),
    ],
)
def test_what_a_pv_guest_does_not_get(guest: Any, op: Any, errno: Any) -> None:
    assert guest.call(Hypercall.MEMORY_OP, op, guest.va(0)) == -errno


def test_add_to_physmap_is_for_translated_domains(guest: Any) -> None:
    for space, errno in ((0, Errno.EACCES), (1, Errno.EACCES), (4, Errno.ENOSYS)):
        request = guest.write(0, XenAddToPhysmap(DOMID_SELF, 0, space, 0, 0).to_bytes())
        assert guest.call(Hypercall.MEMORY_OP, XenMem.ADD_TO_PHYSMAP, request) == -errno


def test_pfns_are_found_whatever_order_the_frames_are_in(guest: Any) -> None:
    info, domid = guest.hv.page_info, guest.domain.domid
    assert info.mfn_of(domid, Pfn(33)) == guest.mfn(33)
    unmap(guest, 20, 33)
    assert exchange(guest, [guest.mfn(33), guest.mfn(20)], [20, 33])[0] == 0
    assert [info.mfn_of(domid, Pfn(pfn)) for pfn in (20, 33)] == [guest.entry(2, 0), guest.entry(2, 1)]
    assert info.mfn_of(domid, Pfn(1000)) is None
    assert info.mfn_of(domid, Pfn(INVALID_M2P_ENTRY)) is None
