"""grant_table_op as far as there is nobody to grant to, and the entries that the domain builder makes."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.grant_table import (
    GTF_PERMIT_ACCESS,
    Gntst,
    GnttabGetVersion,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GrantEntryV1,
    Gtf,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.xen.grant_access import GrantError, acquire_grant, release_grant
from xdbg.xen.grant_table import MAX_GRANT_FRAMES

WRITABLE = PTE_PRESENT | PTE_RW | PTE_USER


def operate(guest: Any, op: Any, request: Any, count: Any = 1) -> Any:
    """(result, the request as Xen left it)"""
    result = guest.call(Hypercall.GRANT_TABLE_OP, op, guest.write(0, request.to_bytes()), count)
    return result, type(request).from_bytes(guest.hv.ram.read(guest.mfn(0) << 12, type(request).SIZE))


def test_the_table_begins_with_one_frame_and_grows_on_demand(guest: Any) -> None:
    result, size = operate(guest, GnttabOp.QUERY_SIZE, GnttabQuerySize(dom=DOMID_SELF))
    assert (result, size.status, size.nr_frames, size.max_nr_frames) == (0, Gntst.OKAY, 1, MAX_GRANT_FRAMES)
    result, setup = operate(guest, GnttabOp.SETUP_TABLE, GnttabSetupTable(DOMID_SELF, 4, 0, guest.va(1)))
    assert (result, setup.status) == (0, Gntst.OKAY)
    frames = [guest.entry(1, i) for i in range(4)]
    assert frames == guest.domain.grant_table.frames
    for mfn in frames:
        assert guest.map(20, mfn << 12 | WRITABLE) == 0
    assert operate(guest, GnttabOp.QUERY_SIZE, GnttabQuerySize(dom=DOMID_SELF))[1].nr_frames == 4


def test_a_frame_of_the_table_never_becomes_anything_else(guest: Any) -> None:
    mfn = guest.domain.grant_table.frames[0]
    assert guest.mmuext(0, mfn) == -Errno.EINVAL
    assert guest.hv.page_info.owner(mfn) == guest.domain.domid


def test_too_many_frames_are_refused(guest: Any) -> None:
    for nr_frames in (MAX_GRANT_FRAMES + 1, 0xFFFF_FFFF):
        result, setup = operate(guest, GnttabOp.SETUP_TABLE, GnttabSetupTable(DOMID_SELF, nr_frames, 0, guest.va(1)))
        assert (result, setup.status) == (0, Gntst.GENERAL_ERROR)


def test_a_machine_without_frames_says_so(guest: Any) -> None:
    while guest.hv.heap.nr_free > 2:
        guest.hv.heap.alloc(0x7FF2)
    result, setup = operate(guest, GnttabOp.SETUP_TABLE, GnttabSetupTable(DOMID_SELF, 10, 0, guest.va(1)))
    assert (result, setup.status) == (0, Gntst.GENERAL_ERROR)


def test_tables_of_other_domains_are_not_shown(guest: Any, neighbour: Any) -> None:
    for domid, status in ((neighbour.domain.domid, Gntst.PERMISSION_DENIED), (99, Gntst.BAD_DOMAIN)):
        assert operate(guest, GnttabOp.QUERY_SIZE, GnttabQuerySize(dom=domid))[1].status == status
        assert operate(guest, GnttabOp.SETUP_TABLE, GnttabSetupTable(domid, 1, 0, guest.va(1)))[1].status == status
    version = GnttabOp.GET_VERSION
    assert operate(guest, version, GnttabGetVersion(dom=neighbour.domain.domid))[0] == -Errno.EPERM
    assert operate(guest, version, GnttabGetVersion(dom=99))[0] == -Errno.ESRCH


@pytest.mark.parametrize(("version", "result"), [(1, 0), (2, -Errno.ENOSYS), (0, -Errno.EINVAL), (3, -Errno.EINVAL)])
def test_version_1_is_the_only_one(guest: Any, version: Any, result: Any) -> None:
    assert operate(guest, GnttabOp.SET_VERSION, GnttabSetVersion(version)) == (result, GnttabSetVersion(1))
    assert operate(guest, GnttabOp.GET_VERSION, GnttabGetVersion(dom=DOMID_SELF))[1].version == 1


def test_bad_calls(guest: Any) -> None:
    op = GnttabOp.QUERY_SIZE
    assert operate(guest, op, GnttabQuerySize(dom=DOMID_SELF), 2)[0] == -Errno.EINVAL
    assert operate(guest, op, GnttabQuerySize(dom=DOMID_SELF), 0xFFFF_FFFF)[0] == -Errno.EINVAL
    assert guest.call(Hypercall.GRANT_TABLE_OP, op, 0x1000, 1) == -Errno.EFAULT
    setup = GnttabSetupTable(DOMID_SELF, 1, 0, 0xFFFF_8000_0000_0000)
    assert operate(guest, GnttabOp.SETUP_TABLE, setup)[0] == -Errno.EFAULT
    assert guest.call(Hypercall.GRANT_TABLE_OP, 13, guest.va(0), 1) == -Errno.ENOSYS


def test_the_builder_fills_entries(guest: Any) -> None:
    table = guest.domain.grant_table
    table.set_entry(1, GTF_PERMIT_ACCESS, 0, Mfn(guest.mfn(20)))
    raw = guest.hv.ram.read((table.frames[0] << 12) + 8, 8)
    assert GrantEntryV1.from_bytes(raw) == GrantEntryV1(GTF_PERMIT_ACCESS, 0, guest.mfn(20))
    assert acquire_grant(guest.domain, 1, 0, readonly=False) == guest.mfn(20)
    assert table.entry(1).flags == GTF_PERMIT_ACCESS | Gtf.READING | Gtf.WRITING
    guest.make_read_only(20)
    assert guest.pin(20, 1) == -Errno.EINVAL, "the backend writes to it"
    guest.audit()
    release_grant(guest.domain, 1, 0, readonly=False)
    assert table.entry(1).flags == GTF_PERMIT_ACCESS
    assert guest.pin(20, 1) == 0
    guest.audit()
    with pytest.raises(GrantError) as refused:
        acquire_grant(guest.domain, 1, 0, readonly=False)
    assert refused.value.status == Gntst.GENERAL_ERROR, "a page table"
    guest.audit()
    with pytest.raises(IndexError):
        table.entry(table.nr_entries)
