"""The grant table of a domain and grant_table_op. Xen: common/grant_table.c.

The table is an array of version 1 entries in frames that Xen allocates and the domain maps (update_va_mapping with the
frame numbers of setup_table). It begins with one frame and grows when setup_table asks for more. Entries 0 and 1
are filled by the domain builder: the rings of console and xenstore, granted to domain 0.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.grant_table import (
    Gntst,
    GnttabGetVersion,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GrantEntryV1,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF

from .faults import HypercallError
from .guest_access import copy_to_guest, read_struct, write_struct
from .heap import OutOfFramesError
from .hypercall import hypercall
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .domain import Domain

INITIAL_GRANT_FRAMES: Final = 1
MAX_GRANT_FRAMES: Final = 64
"""Xen's default of gnttab_max_frames."""
_ENTRIES_PER_FRAME: Final = PAGE_SIZE // GrantEntryV1.SIZE
_INT_MAX: Final = 0x7FFF_FFFF


@dataclass(slots=True)
class ActiveEntry:
    """An entry in use: to whom, which frame, and how often. Xen: struct active_grant_entry.

    While there are pins these count, not what the granting domain writes into its table meanwhile.
    """

    domid: int
    mfn: Mfn
    host_writes: int = 0
    """Pins by which a CPU writes: mappings, copies under way. Xen: GNTPIN_hstw."""
    host_reads: int = 0
    device_writes: int = 0
    """Pins of mappings for devices. Xen: GNTPIN_devw."""
    device_reads: int = 0

    @property
    def writes(self) -> int:
        """Pins that write."""
        return self.host_writes + self.device_writes

    @property
    def pins(self) -> int:
        """All pins."""
        return self.host_writes + self.host_reads + self.device_writes + self.device_reads


@dataclass(slots=True, eq=False)
class GrantTable:
    """The table of `domain`: `frames` hold the entries; `version` is 1, the only one that is offered."""

    domain: "Domain"
    frames: list[Mfn] = field(default_factory=list)
    version: int = 1
    active: dict[int, ActiveEntry] = field(default_factory=dict)
    """The entries that are in use, by grant reference; those that are not have no pins and are not kept."""

    @classmethod
    def create(cls, domain: "Domain") -> Self:
        """The table of a new domain: one frame of invalid entries."""
        table = cls(domain)
        table.grow(INITIAL_GRANT_FRAMES)
        return table

    @property
    def nr_entries(self) -> int:
        """Grant references from 0 up to here exist."""
        return len(self.frames) * _ENTRIES_PER_FRAME

    def entry_maddr(self, ref: int) -> Maddr:
        """Where the entry of a grant reference is in RAM; IndexError if the table does not reach so far."""
        if not 0 <= ref < self.nr_entries:
            raise IndexError(ref)
        frame, index = divmod(ref, _ENTRIES_PER_FRAME)
        return Maddr(mfn_to_maddr(self.frames[frame]) + index * GrantEntryV1.SIZE)

    def entry(self, ref: int) -> GrantEntryV1:
        """A live view of the entry of a grant reference; IndexError if the table does not reach so far."""
        return GrantEntryV1.at(self.domain.hv.ram, self.entry_maddr(ref))

    def set_entry(self, ref: int, flags: int, domid: int, frame: Mfn) -> None:
        """Fill an entry on the domain's behalf, as its builder does; `frame` is a gfn, for PV an mfn."""
        entry = self.entry(ref)
        entry.domid = domid
        entry.frame = frame
        entry.flags = flags

    def grow(self, nr_frames: int) -> None:
        """Extend the table to `nr_frames`; raises `OutOfFramesError`. Xen: gnttab_grow_table()."""
        while len(self.frames) < nr_frames:
            self.frames.append(self.domain.hv.heap.alloc_shared(self.domain.domid))


@hypercall(Hypercall.GRANT_TABLE_OP)
def do_grant_table_op(vcpu: Vcpu, cmd: int, uop: int, count: int) -> int:
    """HYPERVISOR_grant_table_op(cmd, ops, count): query_size, setup_table, set_version, get_version.

    There is no other domain's memory to map or copy here: those operations are -ENOSYS, as in a Xen built without them.
    """
    if count > _INT_MAX:
        raise HypercallError(Errno.EINVAL)
    match cmd:
        case GnttabOp.SETUP_TABLE:
            return _setup_table(vcpu, uop, count)
        case GnttabOp.QUERY_SIZE:
            return _query_size(vcpu, uop, count)
        case GnttabOp.SET_VERSION:
            return _set_version(vcpu, uop)
        case GnttabOp.GET_VERSION:
            return _get_version(vcpu, uop)
        case _:
            raise HypercallError(Errno.ENOSYS)


def _status_of_domid(vcpu: Vcpu, domid: int) -> Gntst:
    """Whether the caller may look at the table of `domid`: only at its own."""
    if domid in {DOMID_SELF, vcpu.domain.domid}:
        return Gntst.OKAY
    return Gntst.PERMISSION_DENIED if domid in vcpu.domain.hv.domains else Gntst.BAD_DOMAIN


def _setup_table(vcpu: Vcpu, uop: int, count: int) -> int:
    """Grow the table to nr_frames and tell their frame numbers. Xen: gnttab_setup_table()."""
    if count != 1:
        raise HypercallError(Errno.EINVAL)
    op = read_struct(vcpu, uop, GnttabSetupTable)
    table = vcpu.domain.grant_table
    status = _status_of_domid(vcpu, op.dom)
    if status == Gntst.OKAY:
        if op.nr_frames > MAX_GRANT_FRAMES:
            status = Gntst.GENERAL_ERROR
        else:
            try:
                table.grow(op.nr_frames)
            except OutOfFramesError:
                status = Gntst.GENERAL_ERROR
    if status == Gntst.OKAY and op.nr_frames:
        frames = b"".join(mfn.to_bytes(8, "little") for mfn in table.frames[: op.nr_frames])
        copy_to_guest(vcpu, op.frame_list, frames)
    op.status = status
    write_struct(vcpu, uop, op)
    return 0


def _query_size(vcpu: Vcpu, uop: int, count: int) -> int:
    """How many frames the table has, and may have. Xen: gnttab_query_size()."""
    if count != 1:
        raise HypercallError(Errno.EINVAL)
    op = read_struct(vcpu, uop, GnttabQuerySize)
    op.status = _status_of_domid(vcpu, op.dom)
    if op.status == Gntst.OKAY:
        op.nr_frames = len(vcpu.domain.grant_table.frames)
        op.max_nr_frames = MAX_GRANT_FRAMES
    write_struct(vcpu, uop, op)
    return 0


def _set_version(vcpu: Vcpu, uop: int) -> int:
    """Version 1 is granted, 2 is -ENOSYS; the one in use is told either way. Xen: gnttab_set_version()."""
    op = read_struct(vcpu, uop, GnttabSetVersion)
    asked = op.version
    op.version = vcpu.domain.grant_table.version
    write_struct(vcpu, uop, op)
    match asked:
        case 1:
            return 0
        case 2:
            raise HypercallError(Errno.ENOSYS)
        case _:
            raise HypercallError(Errno.EINVAL)


def _get_version(vcpu: Vcpu, uop: int) -> int:
    """The version in use by a domain. Xen: gnttab_get_version()."""
    op = read_struct(vcpu, uop, GnttabGetVersion)
    match _status_of_domid(vcpu, op.dom):
        case Gntst.BAD_DOMAIN:
            raise HypercallError(Errno.ESRCH)
        case Gntst.PERMISSION_DENIED:
            raise HypercallError(Errno.EPERM)
        case _:
            op.version = vcpu.domain.grant_table.version
    write_struct(vcpu, uop, op)
    return 0
