"""The end of a domain: all that it held is free again, and nobody else loses anything."""

import hashlib
from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn, Pfn, mfn_to_maddr
from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, Gntmap, GnttabMapGrantRef, GnttabOp, GnttabUnmapGrantRef
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import XenMem, XenMemoryReservation
from xdbg.abi.mmu import DOMID_SELF, MmuextOp
from xdbg.abi.vcpu import VcpuOp, VcpuRegisterVcpuInfo
from xdbg.session.launch import Launch, launch
from xdbg.xen.audit import audit
from xdbg.xen.domain_kill import destroy_domain, reap
from xdbg.xen.mm import adopt_initial_tables
from xdbg.xen.setup import Hypervisor

from . import conftest as paged

L4, L3, L2, L1 = 4, 5, 6, 7
READ_ONLY = 5
REF = 8


def add_domain(hv: Hypervisor, nr_vcpus: int = 1) -> Any:
    """A domain as `conftest` has it, on a real machine."""
    domain = hv.create_domain("paged", paged.NR_PAGES, nr_vcpus)
    base = hv.heap.alloc(domain.domid, paged.NR_PAGES)
    domain.nr_pages = paged.NR_PAGES
    hv.m2p.set_range(base, Pfn(0), paged.NR_PAGES)
    guest = paged.PagedGuest(hv, domain, base)
    guest.write_entries(L4, {511: guest.pte(L3)})
    guest.write_entries(L3, {510: guest.pte(L2)})
    guest.write_entries(L2, {0: guest.pte(L1)})
    flags = {pfn: READ_ONLY if L4 <= pfn <= L1 else 7 for pfn in range(paged.NR_PAGES)}
    guest.write_entries(L1, {pfn: guest.pte(pfn, flags[pfn]) for pfn in flags})
    adopt_initial_tables(domain, Mfn(guest.mfn(L4)))
    return guest


@pytest.fixture
def hv() -> Hypervisor:
    return Hypervisor(4 * paged.NR_PAGES)


@pytest.fixture
def guest(hv: Hypervisor) -> Any:
    return add_domain(hv, nr_vcpus=2)


@pytest.fixture
def other(guest: Any) -> Any:
    return add_domain(guest.hv)


def end(guest: Any, nr_free: int) -> None:
    """Destroy a domain whose frames nobody else has; the heap is then as it was before."""
    hv = guest.hv
    destroy_domain(guest.domain)
    audit(hv)
    assert hv.heap.nr_free == nr_free
    assert guest.domain.domid not in hv.domains
    assert guest.domain.domid not in hv.page_info.owners
    assert hv.schedule() is None
    destroy_domain(guest.domain)


def test_a_domain_leaves_the_heap_as_it_was(hv: Hypervisor) -> None:
    before = hv.heap.nr_free
    for nr_vcpus in (1, 3, 20):
        end(add_domain(hv, nr_vcpus), before)
    assert list(hv.domains) == []
    assert hv.nr_vcpus == 0
    assert add_domain(hv).domain.domid == 4, "no domid is given twice"


def test_whatever_it_holds_it_gives_back(hv: Hypervisor) -> None:
    before = hv.heap.nr_free
    guest = add_domain(hv, nr_vcpus=2)
    guest.make_read_only(8, 9, 10, 11, 12, 20)
    assert guest.pin(8, 4) == 0
    assert guest.mmuext(MmuextOp.NEW_USER_BASEPTR, guest.mfn(9)) == 0
    assert guest.pin(10, 2) == guest.pin(11, 2) == 0
    assert guest.mmu_update((guest.slot(10, 1), guest.pte(11, READ_ONLY))) == 0, "a linear mapping"
    assert guest.mmu_update((guest.slot(L4, 100), guest.pte(L4, READ_ONLY))) == 0, "a recursive one"
    at = guest.write(0, guest.mfn(20).to_bytes(8, "little"))
    assert guest.call(Hypercall.SET_GDT, at, 512) == 0
    info = VcpuRegisterVcpuInfo(mfn=guest.mfn(30), offset=64)
    assert guest.call(Hypercall.VCPU_OP, VcpuOp.REGISTER_VCPU_INFO, 0, guest.write(0, info.to_bytes())) == 0
    assert guest.map(21, guest.domain.shared_info << 12 | 7) == 0
    for mfn in (guest.domain.grant_table.frames[0], guest.mfn(40), guest.mfn(8)):
        at = guest.write(0, XenMemoryReservation(guest.va(1), 1, 0, 0, DOMID_SELF).to_bytes())
        guest.write(1, int(mfn).to_bytes(8, "little"))
        assert guest.call(Hypercall.MEMORY_OP, XenMem.DECREASE_RESERVATION, at) == 1
    audit(hv)
    end(guest, before)


def grant(guest: Any, to: int, pfn: int) -> None:
    guest.domain.grant_table.set_entry(REF, GTF_PERMIT_ACCESS, to, guest.mfn(pfn))


def map_grant(guest: Any, granter: int, pfn: int, flags: int = Gntmap.HOST_MAP) -> Any:
    op = GnttabMapGrantRef(host_addr=guest.va(pfn), flags=flags, ref=REF, dom=granter)
    at = guest.write(0, op.to_bytes())
    assert guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.MAP_GRANT_REF, at, 1) == 0
    return GnttabMapGrantRef.from_bytes(guest.hv.ram.read(guest.mfn(0) << 12, GnttabMapGrantRef.SIZE))


def unmap_grant(guest: Any, pfn: int, handle: int, device: int = 0) -> int:
    op = GnttabUnmapGrantRef(host_addr=guest.va(pfn), dev_bus_addr=device, handle=handle)
    at = guest.write(0, op.to_bytes())
    assert guest.call(Hypercall.GRANT_TABLE_OP, GnttabOp.UNMAP_GRANT_REF, at, 1) == 0
    return GnttabUnmapGrantRef.from_bytes(guest.hv.ram.read(guest.mfn(0) << 12, GnttabUnmapGrantRef.SIZE)).status


@pytest.mark.parametrize("flags", [Gntmap.HOST_MAP, Gntmap.HOST_MAP | Gntmap.READONLY, Gntmap.HOST_MAP | 1])
def test_a_domain_that_goes_lets_go_of_what_others_granted(guest: Any, other: Any, flags: int) -> None:
    hv, frame = guest.hv, guest.mfn(30)
    grant(guest, other.domain.domid, 30)
    refs, types = hv.page_info.refs[frame], hv.page_info.types[frame]
    assert map_grant(other, guest.domain.domid, 20, flags).status == 0
    assert hv.page_info.refs[frame] > refs
    audit(hv)
    destroy_domain(other.domain)
    audit(hv)
    assert other.domain.domid not in hv.domains
    assert (hv.page_info.refs[frame], hv.page_info.types[frame]) == (refs, types)
    assert guest.domain.grant_table.active == {}
    assert guest.domain.grant_table.entry(REF).flags == GTF_PERMIT_ACCESS


@pytest.mark.parametrize("flags", [Gntmap.HOST_MAP, Gntmap.HOST_MAP | Gntmap.READONLY, Gntmap.HOST_MAP | 1])
def test_a_frame_that_is_mapped_elsewhere_outlives_its_domain(hv: Hypervisor, flags: int) -> None:
    mapper = add_domain(hv)
    before = hv.heap.nr_free
    granter = add_domain(hv)
    domid, frame = granter.domain.domid, granter.mfn(30)
    granter.write(30, b"still here")
    grant(granter, mapper.domain.domid, 30)
    mapped = map_grant(mapper, domid, 20, flags)
    assert mapped.status == 0
    destroy_domain(granter.domain)
    audit(hv)
    assert hv.page_info.owner(frame) == domid
    assert hv.ram.read(frame << 12, 10) == b"still here"
    assert granter.domain.nr_pages == 1
    assert granter.domain.describe()["state"] == "dying"
    assert hv.heap.nr_free < before
    device = mfn_to_maddr(frame) if flags & Gntmap.DEVICE_MAP else 0
    assert unmap_grant(mapper, 20, mapped.handle, device) == 0
    assert hv.page_info.owner(frame) is None
    assert hv.ram.read(frame << 12, 10) == bytes(10)
    reap(hv)
    audit(hv)
    assert domid not in hv.domains
    assert hv.heap.nr_free == before


def test_an_overwritten_mapping_keeps_no_frame_of_a_dying_domain(hv: Hypervisor) -> None:
    mapper = add_domain(hv)
    before = hv.heap.nr_free
    granter = add_domain(hv)
    grant(granter, mapper.domain.domid, 30)
    assert map_grant(mapper, granter.domain.domid, 20).status == 0
    destroy_domain(granter.domain)
    assert mapper.map(20, 0) == 0
    assert hv.schedule() is None, "nobody runs; dying domains are looked at"
    audit(hv)
    assert hv.heap.nr_free == before


def test_others_keep_their_memory_and_frames_of_the_dead_are_refused(guest: Any, other: Any) -> None:
    hv = guest.hv
    first, last = guest.mfn(0), guest.mfn(paged.NR_PAGES)
    digest = hashlib.sha256(hv.ram.buffer[first << 12 : last << 12]).digest()
    counts = (hv.page_info.refs[first:last], hv.page_info.types[first:last])
    mfn = other.mfn(30)
    destroy_domain(other.domain)
    assert digest == hashlib.sha256(hv.ram.buffer[first << 12 : last << 12]).digest()
    assert counts == (hv.page_info.refs[first:last], hv.page_info.types[first:last])
    assert guest.map(20, mfn << 12 | 7) == -Errno.EBUSY
    assert guest.mmu_update((0, 0), foreigndom=other.domain.domid) == -Errno.ESRCH
    audit(hv)


@pytest.mark.parametrize(("kernel", "append"), [("hello", ""), ("tasks", ""), ("crash", "fault")])
def test_a_guest_that_ran_leaves_nothing_behind(kernel: str, append: str) -> None:
    launched = launch(Launch(kernel, append=append, memory=32 << 20))
    hv = launched.hv
    hv.run(2_000_000)
    audit(hv)
    empty = Hypervisor(32 << 8)
    destroy_domain(launched.domain)
    audit(hv)
    assert hv.heap.nr_free == empty.heap.nr_free
