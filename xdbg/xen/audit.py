"""Recounts every reference and type from scratch, and compares with what Xen keeps. Xen: audit_p2m() in spirit.

What may hold a frame is listed here once more, independently of the code that counts: the owner's possession, pins,
base pointers, GDTs, LDTs, entries of the tables that are in use, and the frames that Xen shares. Then the rules of the
box are checked on each entry: no l1e of a domain reaches a frame that is neither its own nor granted to it
(`grant_audit`), none that writes reaches a table or descriptors, no higher entry reaches what is not a table one level
down, and Xen's slots are as Xen writes them.

Frames and entries are looked at in bulk, as arrays over the machine's own: 128 MiB take a few milliseconds.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from xdbg.abi.frames import INVALID_MFN, PAGE_SHIFT
from xdbg.abi.mmu import DOMID_INVALID, DOMID_XEN
from xdbg.abi.x86 import PTE_ADDR_MASK, PTE_PRESENT, PTE_RW, PTE_USER, PTES_PER_TABLE

from . import grant_audit
from .descriptor_check import is_harmless
from .faults import AuditError
from .page_info import (
    PGC_ALLOCATED,
    PGC_XEN_HEAP,
    PGT_COUNT_MASK,
    PGT_L1_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_PINNED,
    PGT_SEG_DESC_PAGE,
    PGT_TYPE_MASK,
    PGT_TYPE_SHIFT,
    PGT_VALIDATED,
    PGT_WRITABLE_PAGE,
)
from .page_table_types import L1_DISALLOW_MASK, TABLE_DISALLOW_MASK
from .xen_slots import FIRST_XEN_SLOT, LAST_XEN_SLOT, M2P_SLOT, PERDOMAIN_SLOT, ldt_pages

if TYPE_CHECKING:
    from .setup import Hypervisor

Words = NDArray[np.uint64]
Counts = NDArray[np.int64]

_NR_TYPES: Final = (PGT_TYPE_MASK >> PGT_TYPE_SHIFT) + 1
_XEN_SLOTS: Final = range(FIRST_XEN_SLOT, LAST_XEN_SLOT + 1)
_OTHER_XEN_SLOTS: Final = [slot for slot in _XEN_SLOTS if slot not in {M2P_SLOT, PERDOMAIN_SLOT}]
_AT_ONCE: Final = 256
"""Frames whose contents are looked at together."""
_MOST: Final = 50
"""Problems of one kind that are told."""


def audit(hv: "Hypervisor", *, scrubbed: bool = True) -> None:
    """Compare everything; raises `AuditError`. `scrubbed`: whether free frames are zero takes longest to see."""
    problems = _Recount(hv).problems(scrubbed=scrubbed)
    if problems:
        raise AuditError(problems)


class _Recount:
    """Counts from scratch: references, type counts by (type, frame), linear mappings; and what is wrong."""

    def __init__(self, hv: "Hypervisor") -> None:
        info = hv.page_info
        self.hv = hv
        self.info = info
        self.nr_frames = info.nr_frames
        self.words = np.frombuffer(hv.ram.buffer, np.uint64).reshape(info.nr_frames, PTES_PER_TABLE)
        self.owners = np.frombuffer(info.owners, np.uint16)
        self.kept_refs = np.frombuffer(info.refs, np.uint32)
        self.kept_types = np.frombuffer(info.types, np.uint32)
        self.flags = np.frombuffer(info.flags, np.uint8)
        self.type_numbers = (self.kept_types & PGT_TYPE_MASK) >> PGT_TYPE_SHIFT
        self.in_use = self.kept_types & PGT_COUNT_MASK != 0
        self.refs: Counts = np.zeros(info.nr_frames, np.int64)
        self.types: Counts = np.zeros((_NR_TYPES, info.nr_frames), np.int64)
        self.linear_entries: Counts = np.zeros(info.nr_frames, np.int64)
        self.linear_uses: Counts = np.zeros(info.nr_frames, np.int64)
        self.foreign: grant_audit.Foreign = Counter()
        """l1es of frames of other domains."""
        self.found: list[str] = []

    def problems(self, *, scrubbed: bool) -> list[str]:
        """Every difference, a line each."""
        self._owners(scrubbed=scrubbed)
        self._vcpus()
        self._tell(self.in_use & (self.kept_types & PGT_VALIDATED == 0), "in use without being checked")
        self._l1_tables()
        for pgt in range(PGT_L1_PAGE_TABLE, PGT_L4_PAGE_TABLE, PGT_L1_PAGE_TABLE):
            self._tables(pgt + PGT_L1_PAGE_TABLE)
        self._descriptors()
        self._compare()
        self.found += grant_audit.problems(self.hv, self.foreign)
        return self.found

    # -- counting

    def hold(self, mfn: int, pgt: int) -> None:
        """A reference with a type."""
        self.refs[mfn] += 1
        self.types[pgt >> PGT_TYPE_SHIFT, mfn] += 1

    def hold_all(self, mfns: Counts, pgt: int) -> None:
        """A reference with a type for each."""
        counts = np.bincount(mfns, minlength=self.nr_frames)
        self.refs += counts
        self.types[pgt >> PGT_TYPE_SHIFT] += counts

    def _tell(self, wrong: NDArray[np.bool_], text: str) -> None:
        """A line for each frame that is marked."""
        self.found += [f"{self.info.describe(mfn)}: {text}" for mfn in np.flatnonzero(wrong)[:_MOST].tolist()]

    # -- what holds frames

    def _owners(self, *, scrubbed: bool) -> None:
        """Owners' references and pins; free frames; the pages that each domain is said to have."""
        free = self.owners == DOMID_INVALID
        listed = np.frombuffer(self.hv.heap.free_map, np.uint8) != 0
        differ = free != listed
        differ[0] = False
        self._tell(differ, "the heap thinks otherwise")
        held = (self.kept_refs != 0) | (self.kept_types != 0) | (self.flags != 0)
        self._tell(free & held, "free, but held")
        if scrubbed:
            frames = np.flatnonzero(free)[1:]
            for first in range(0, len(frames), _AT_ONCE):
                some = frames[first : first + _AT_ONCE]
                for mfn in some[self.words[some].any(axis=1)].tolist():
                    self.found.append(f"{self.info.describe(mfn)}: free, but not scrubbed")
        xens = self.owners == DOMID_XEN
        from_heap = self.flags & PGC_XEN_HEAP != 0
        self.refs += ~free & ((self.flags & PGC_ALLOCATED != 0) | xens)
        self.types[PGT_WRITABLE_PAGE >> PGT_TYPE_SHIFT] += from_heap & ~xens
        pinned = np.flatnonzero(self.kept_types & PGT_PINNED)
        self.refs[pinned] += 1
        self.types[self.type_numbers[pinned], pinned] += 1
        owned = np.bincount(self.owners[~free & ~from_heap], minlength=DOMID_INVALID)
        for domid, domain in self.hv.domains.items():
            if domain.nr_pages != owned[domid]:
                self.found.append(f"domain {domid} has {owned[domid]} frames, not {domain.nr_pages}")

    def _vcpus(self) -> None:
        """Base pointers, GDTs and LDTs, vcpu_info where the guest put it, rings that backends have mapped."""
        for domain in self.hv.domains.values():
            for vcpu in domain.vcpus:
                if vcpu.guest_table != INVALID_MFN:
                    self.hold(vcpu.guest_table, PGT_L4_PAGE_TABLE)
                if vcpu.guest_table_user is not None:
                    self.hold(vcpu.guest_table_user, PGT_L4_PAGE_TABLE)
                for mfn in vcpu.gdt_frames:
                    self.hold(mfn, PGT_SEG_DESC_PAGE)
                for _, mfn in ldt_pages(vcpu):
                    self.hold(mfn, PGT_SEG_DESC_PAGE)
                if vcpu.vcpu_info >> PAGE_SHIFT != domain.shared_info:
                    self.hold(vcpu.vcpu_info >> PAGE_SHIFT, PGT_WRITABLE_PAGE)
            if domain.pirqs.eoi_frame is not None:
                self.hold(domain.pirqs.eoi_frame, PGT_WRITABLE_PAGE)
        for mfn, writes in grant_audit.held_frames(self.hv):
            if writes:
                self.hold(mfn, PGT_WRITABLE_PAGE)
            else:
                self.refs[mfn] += 1

    def _entries(self, tables: Counts, words: Words, disallowed: int) -> tuple[Counts, Words, Counts]:
        """(table, entry, frame) of each present entry, those outside RAM told and left out."""
        rows, slots = np.nonzero(words & PTE_PRESENT)
        entries = words[rows, slots]
        mfns = ((entries & PTE_ADDR_MASK) >> PAGE_SHIFT).astype(np.int64)
        wrong = (entries & (disallowed | PTE_USER) != PTE_USER) | (mfns >= self.nr_frames)
        for at in np.flatnonzero(wrong)[:_MOST].tolist():
            where = f"table {tables[rows[at]]:#x} slot {slots[at]} = {int(entries[at]):#x}"
            self.found.append(f"{where}: bits or a frame that are not allowed")
        inside = mfns < self.nr_frames
        return tables[rows[inside]], entries[inside], mfns[inside]

    def _in_use_as(self, pgt: int) -> Counts:
        return np.flatnonzero(self.in_use & (self.type_numbers == pgt >> PGT_TYPE_SHIFT))

    def _l1_tables(self) -> None:
        tables = self._in_use_as(PGT_L1_PAGE_TABLE)
        tables, entries, mfns = self._entries(tables, self.words[tables], L1_DISALLOW_MASK)
        good = np.ones(len(mfns), bool)
        for at in np.flatnonzero(self.owners[mfns] != self.owners[tables]).tolist():
            table, entry, mfn = int(tables[at]), int(entries[at]), int(mfns[at])
            if self.info.owner(mfn) not in self.hv.domains:
                self.found.append(f"L1 {table:#x}, entry {entry:#x}: a frame of nobody, or of Xen")
                good[at] = False
            else:
                self.foreign[self.info.owners[table], mfn, bool(entry & PTE_RW)] += 1
        writes = entries & PTE_RW != 0
        self.hold_all(mfns[good & writes], PGT_WRITABLE_PAGE)
        self.refs += np.bincount(mfns[good & ~writes], minlength=self.nr_frames)

    def _tables(self, pgt: int) -> None:
        """The entries of all L2, L3 or L4 tables."""
        tables = self._in_use_as(pgt)
        words = self.words[tables]
        if pgt == PGT_L4_PAGE_TABLE:
            for table, slots in zip(
                tables.tolist(), words[:, FIRST_XEN_SLOT : LAST_XEN_SLOT + 1].tolist(), strict=True
            ):
                self._xen_slots(table, dict(zip(_XEN_SLOTS, slots, strict=True)))
            words[:, FIRST_XEN_SLOT : LAST_XEN_SLOT + 1] = 0
        tables, entries, mfns = self._entries(tables, words, TABLE_DISALLOW_MASK)
        own = self.owners[mfns] == self.owners[tables]
        linear = own & self.in_use[mfns] & (self.type_numbers[mfns] == pgt >> PGT_TYPE_SHIFT)
        for wrong, text in ((~own, "a frame of somebody else"), (linear & (entries & PTE_RW != 0), "a writing linear")):
            for at in np.flatnonzero(wrong)[:_MOST].tolist():
                self.found.append(f"table {tables[at]:#x}, entry {int(entries[at]):#x}: {text} entry")
        other = linear & (mfns != tables)
        self.hold_all(mfns[other], pgt)
        self.linear_entries += np.bincount(tables[other], minlength=self.nr_frames)
        self.linear_uses += np.bincount(mfns[other], minlength=self.nr_frames)
        self.hold_all(mfns[own & ~linear], pgt - PGT_L1_PAGE_TABLE)

    def _xen_slots(self, table: int, entries: dict[int, int]) -> None:
        m2p = (entries[M2P_SLOT] & PTE_ADDR_MASK) >> PAGE_SHIFT
        perdomain = (entries[PERDOMAIN_SLOT] & PTE_ADDR_MASK) >> PAGE_SHIFT
        if (
            (entries[M2P_SLOT] and (m2p != self.hv.m2p.l3 or entries[M2P_SLOT] & PTE_RW))
            or perdomain != self.info.perdomain_l3.get(self.info.owners[table])
            or entries[PERDOMAIN_SLOT] & PTE_USER
            or any(entries[slot] for slot in _OTHER_XEN_SLOTS)
        ):
            self.found.append(f"L4 {table:#x}: Xen's slots are not as Xen writes them")

    def _descriptors(self) -> None:
        for page in self._in_use_as(PGT_SEG_DESC_PAGE).tolist():
            for index in np.flatnonzero(self.words[page]).tolist():
                descriptor = int(self.words[page, index])
                if not is_harmless(descriptor):
                    self.found.append(f"descriptors {page:#x}: number {index} is {descriptor:#x}")

    # -- Xen's counts against the recount

    def _compare(self) -> None:
        for mfn in np.flatnonzero(self.kept_refs != self.refs)[:_MOST].tolist():
            self.found.append(f"{self.info.describe(mfn)}: {self.refs[mfn]} references were found")
        kept = (self.kept_types & PGT_COUNT_MASK).astype(np.int64)
        total = self.types.sum(axis=0)
        of_its_type = self.types[self.type_numbers, np.arange(self.nr_frames)]
        for mfn in np.flatnonzero((kept != total) | (kept != of_its_type))[:_MOST].tolist():
            self.found.append(f"{self.info.describe(mfn)}: type counts {dict(self._types_of(mfn))} were found")
        self._tell((self.linear_entries != 0) & (self.linear_uses != 0), "a chain of linear mappings")
        balance = self.linear_entries - self.linear_uses
        linear = {mfn: int(balance[mfn]) for mfn in np.flatnonzero(balance).tolist()}
        if linear != self.info.linear:
            self.found.append(f"linear counts {self.info.linear} are kept, {linear} were found")

    def _types_of(self, mfn: int) -> Iterator[tuple[int, int]]:
        return ((number, int(found)) for number, found in enumerate(self.types[:, mfn]) if found)
