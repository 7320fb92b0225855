"""The grant table of a domain: what others may do with its frames, and what it does with theirs.

The table is an array of version 1 entries in frames that Xen allocates and the domain maps (update_va_mapping with the
frame numbers of setup_table). It begins with one frame and grows when setup_table asks for more. Entries 0 and 1
are filled by the domain builder: the rings of console and xenstore, granted to domain 0.

The domain writes its entries as it likes. What Xen relies on is beside them: an `ActiveEntry` for each entry in use
(`grant_access`), and the domain's own mappings of others' frames (`maptrack`). The operations on the table are in
`grant_table_op`. Xen: struct grant_table, common/grant_table.c.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.grant_table import GrantEntryV1

from .events import MemoryWritten
from .heap import OutOfFramesError
from .maptrack import Maptrack

if TYPE_CHECKING:
    from .domain import Domain

INITIAL_GRANT_FRAMES: Final = 1
MAX_GRANT_FRAMES: Final = 64
"""Xen's default of gnttab_max_frames."""
ENTRIES_PER_FRAME: Final = PAGE_SIZE // GrantEntryV1.SIZE


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
    maptrack: Maptrack = field(default_factory=Maptrack)
    """The mappings that the domain itself has made of others' frames, by handle."""

    @classmethod
    def create(cls, domain: "Domain") -> Self:
        """The table of a new domain: one frame of invalid entries."""
        table = cls(domain)
        table.grow(INITIAL_GRANT_FRAMES)
        return table

    @property
    def nr_entries(self) -> int:
        """Grant references from 0 up to here exist."""
        return len(self.frames) * ENTRIES_PER_FRAME

    def entry_maddr(self, ref: int) -> Maddr:
        """Where the entry of a grant reference is in RAM; IndexError if the table does not reach so far."""
        if not 0 <= ref < self.nr_entries:
            raise IndexError(ref)
        frame, index = divmod(ref, ENTRIES_PER_FRAME)
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

    def store(self, ref: int, *, flags: int | None = None, frame: Mfn | None = None) -> None:
        """Write fields of an entry on Xen's own account; the observer is told."""
        entry = self.entry(ref)
        if flags is not None:
            entry.flags = flags
        if frame is not None:
            entry.frame = frame
        observer = self.domain.hv.observer
        if observer is not None:
            observer.observe(self.domain.vcpus[0], MemoryWritten(self.entry_maddr(ref), GrantEntryV1.SIZE))

    def grow(self, nr_frames: int) -> None:
        """Extend the table to `nr_frames`, or not at all; raises `OutOfFramesError`. Xen: gnttab_grow_table()."""
        heap = self.domain.hv.heap
        if heap.nr_free < nr_frames - len(self.frames):
            raise OutOfFramesError(nr_frames - len(self.frames))
        while len(self.frames) < nr_frames:
            self.frames.append(heap.alloc_shared(self.domain.domid))
