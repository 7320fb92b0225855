"""Recounts every reference and type from scratch, and compares with what Xen keeps. Xen: audit_p2m() in spirit.

What may hold a frame is listed here once more, independently of the code that counts: the owner's possession, pins,
base pointers, GDTs, LDTs, entries of the tables that are in use, and the frames that Xen shares. Then the rules of the
box are checked on each entry: no l1e of a domain reaches a frame that is neither its own nor granted to it
(`grant_audit`), none that writes reaches a table or descriptors, no higher entry reaches what is not a table one level
down, and Xen's slots are as Xen writes them.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import INVALID_MFN, PAGE_SHIFT, Mfn
from xdbg.abi.mmu import DOMID_INVALID, DOMID_XEN
from xdbg.abi.x86 import PTE_ADDR_MASK, PTE_PRESENT, PTE_RW, PTE_USER, PTES_PER_TABLE

from . import grant_audit
from .descriptor_check import is_harmless
from .page_info import (
    PGC_ALLOCATED,
    PGC_XEN_HEAP,
    PGT_COUNT_MASK,
    PGT_L1_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_PINNED,
    PGT_SEG_DESC_PAGE,
    PGT_TYPE_MASK,
    PGT_VALIDATED,
    PGT_WRITABLE_PAGE,
)
from .page_table_types import L1_DISALLOW_MASK, TABLE_DISALLOW_MASK, guest_slots
from .xen_slots import FIRST_XEN_SLOT, LAST_XEN_SLOT, M2P_SLOT, PERDOMAIN_SLOT, ldt_pages

if TYPE_CHECKING:
    from .setup import Hypervisor

_OTHER_XEN_SLOTS: Final = frozenset(range(FIRST_XEN_SLOT, LAST_XEN_SLOT + 1)) - {M2P_SLOT, PERDOMAIN_SLOT}


class AuditError(Exception):
    """What Xen keeps of its frames is not what it should be: every difference, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(slots=True)
class _Recount:
    """Counts from scratch: references, type counts by (frame, type), linear mappings; and what is wrong."""

    refs: Counter[int] = field(default_factory=Counter)
    types: Counter[tuple[int, int]] = field(default_factory=Counter)
    linear_entries: Counter[int] = field(default_factory=Counter)
    linear_uses: Counter[int] = field(default_factory=Counter)
    foreign: grant_audit.Foreign = field(default_factory=Counter)
    """l1es of frames of other domains."""
    problems: list[str] = field(default_factory=list)

    def hold(self, mfn: int, pgt: int) -> None:
        """A reference with a type."""
        self.refs[mfn] += 1
        self.types[mfn, pgt] += 1


def audit(hv: "Hypervisor") -> None:
    """Compare everything; raises `AuditError`."""
    count = _Recount()
    _owners(hv, count)
    _vcpus(hv, count)
    info = hv.page_info
    for mfn, type_info in enumerate(info.types):
        if type_info & PGT_COUNT_MASK:
            pgt = type_info & PGT_TYPE_MASK
            if not type_info & PGT_VALIDATED:
                count.problems.append(f"{info.describe(mfn)}: in use without being checked")
            if pgt == PGT_L1_PAGE_TABLE:
                _l1_table(hv, count, mfn)
            elif pgt <= PGT_L4_PAGE_TABLE:
                _table(hv, count, mfn, pgt)
            elif pgt == PGT_SEG_DESC_PAGE:
                _descriptors(hv, count, mfn)
    _compare(hv, count)
    count.problems += grant_audit.problems(hv, count.foreign)
    if count.problems:
        raise AuditError(count.problems)


def _owners(hv: "Hypervisor", count: _Recount) -> None:
    """Owners' references and pins; free frames; the pages that each domain is said to have."""
    info = hv.page_info
    owned: Counter[int] = Counter()
    for mfn, owner in enumerate(info.owners):
        flags = info.flags[mfn]
        if (owner == DOMID_INVALID) != bool(hv.heap.free_map[mfn]) and mfn:
            count.problems.append(f"{info.describe(mfn)}: the heap thinks otherwise")
        if owner == DOMID_INVALID:
            if info.refs[mfn] or info.types[mfn] or flags:
                count.problems.append(f"{info.describe(mfn)}: free, but held")
            if any(hv.ram.q[mfn * PTES_PER_TABLE : (mfn + 1) * PTES_PER_TABLE]) and mfn:
                count.problems.append(f"{info.describe(mfn)}: free, but not scrubbed")
            continue
        if flags & PGC_ALLOCATED or owner == DOMID_XEN:
            count.refs[mfn] += 1
        if flags & PGC_XEN_HEAP:
            if owner != DOMID_XEN:
                count.types[mfn, PGT_WRITABLE_PAGE] += 1
        else:
            owned[owner] += 1
        if info.types[mfn] & PGT_PINNED:
            count.hold(mfn, info.types[mfn] & PGT_TYPE_MASK)
    for domid, domain in hv.domains.items():
        if domain.nr_pages != owned[domid]:
            count.problems.append(f"domain {domid} has {owned[domid]} frames, not {domain.nr_pages}")


def _vcpus(hv: "Hypervisor", count: _Recount) -> None:
    """Base pointers, GDTs and LDTs, vcpu_info where the guest put it, rings that backends have mapped."""
    for domain in hv.domains.values():
        for vcpu in domain.vcpus:
            if vcpu.guest_table != INVALID_MFN:
                count.hold(vcpu.guest_table, PGT_L4_PAGE_TABLE)
            if vcpu.guest_table_user is not None:
                count.hold(vcpu.guest_table_user, PGT_L4_PAGE_TABLE)
            for mfn in vcpu.gdt_frames:
                count.hold(mfn, PGT_SEG_DESC_PAGE)
            for _, mfn in ldt_pages(vcpu):
                count.hold(mfn, PGT_SEG_DESC_PAGE)
            if vcpu.vcpu_info >> PAGE_SHIFT != domain.shared_info:
                count.hold(vcpu.vcpu_info >> PAGE_SHIFT, PGT_WRITABLE_PAGE)
        if domain.pirqs.eoi_frame is not None:
            count.hold(domain.pirqs.eoi_frame, PGT_WRITABLE_PAGE)
    for mfn, writes in grant_audit.held_frames(hv):
        if writes:
            count.hold(mfn, PGT_WRITABLE_PAGE)
        else:
            count.refs[mfn] += 1


def _entries(hv: "Hypervisor", table: int) -> list[int]:
    return hv.ram.q[table * PTES_PER_TABLE : (table + 1) * PTES_PER_TABLE].tolist()


def _l1_table(hv: "Hypervisor", count: _Recount, table: int) -> None:
    info = hv.page_info
    for slot, l1e in enumerate(_entries(hv, table)):
        if not l1e & PTE_PRESENT:
            continue
        mfn = (l1e & PTE_ADDR_MASK) >> PAGE_SHIFT
        where = f"L1 {table:#x} slot {slot} = {l1e:#x}"
        if l1e & L1_DISALLOW_MASK or not l1e & PTE_USER:
            count.problems.append(f"{where}: bits that are not allowed")
        owner = info.owner(mfn)
        if owner != info.owners[table]:
            if owner not in hv.domains:
                count.problems.append(f"{where}: a frame of nobody, or of Xen")
                continue
            count.foreign[info.owners[table], mfn, bool(l1e & PTE_RW)] += 1
        if l1e & PTE_RW:
            count.hold(mfn, PGT_WRITABLE_PAGE)
        else:
            count.refs[mfn] += 1


def _table(hv: "Hypervisor", count: _Recount, table: int, pgt: int) -> None:
    info = hv.page_info
    entries = _entries(hv, table)
    for slots in guest_slots(pgt):
        for slot in slots:
            entry = entries[slot]
            if not entry & PTE_PRESENT:
                continue
            mfn = (entry & PTE_ADDR_MASK) >> PAGE_SHIFT
            where = f"table {table:#x} slot {slot} = {entry:#x}"
            if entry & TABLE_DISALLOW_MASK or not entry & PTE_USER:
                count.problems.append(f"{where}: bits that are not allowed")
            if info.owner(mfn) != info.owners[table]:
                count.problems.append(f"{where}: a frame of somebody else")
            elif info.type_of(mfn) == pgt:
                if entry & PTE_RW:
                    count.problems.append(f"{where}: a linear mapping that writes")
                if mfn != table:
                    count.hold(mfn, pgt)
                    count.linear_entries[table] += 1
                    count.linear_uses[mfn] += 1
            else:
                count.hold(mfn, pgt - PGT_L1_PAGE_TABLE)
    if pgt == PGT_L4_PAGE_TABLE:
        _xen_slots(hv, count, table, entries)


def _xen_slots(hv: "Hypervisor", count: _Recount, table: int, entries: list[int]) -> None:
    m2p = (entries[M2P_SLOT] & PTE_ADDR_MASK) >> PAGE_SHIFT
    perdomain = (entries[PERDOMAIN_SLOT] & PTE_ADDR_MASK) >> PAGE_SHIFT
    if (
        (entries[M2P_SLOT] and (m2p != hv.m2p.l3 or entries[M2P_SLOT] & PTE_RW))
        or perdomain != hv.page_info.perdomain_l3[hv.page_info.owners[table]]
        or entries[PERDOMAIN_SLOT] & PTE_USER
        or any(entries[slot] for slot in _OTHER_XEN_SLOTS)
    ):
        count.problems.append(f"L4 {table:#x}: Xen's slots are not as Xen writes them")


def _descriptors(hv: "Hypervisor", count: _Recount, page: int) -> None:
    for index, descriptor in enumerate(_entries(hv, page)):
        if not is_harmless(descriptor):
            count.problems.append(f"descriptors {page:#x}: number {index} is {descriptor:#x}")


def _compare(hv: "Hypervisor", count: _Recount) -> None:
    """Xen's counts against the recount."""
    info = hv.page_info
    for mfn, refs in enumerate(info.refs):
        if refs != count.refs[mfn]:
            count.problems.append(f"{info.describe(mfn)}: {count.refs[mfn]} references were found")
    by_frame: dict[int, dict[int, int]] = {}
    for (mfn, pgt), found in count.types.items():
        by_frame.setdefault(mfn, {})[pgt] = found
    for mfn, type_info in enumerate(info.types):
        kept = type_info & PGT_COUNT_MASK
        found_types = by_frame.get(mfn, {})
        if found_types != ({type_info & PGT_TYPE_MASK: kept} if kept else {}):
            count.problems.append(f"{info.describe(Mfn(mfn))}: type counts {found_types} were found")
    for mfn in sorted(count.linear_entries.keys() & count.linear_uses.keys()):
        count.problems.append(f"{info.describe(mfn)}: a chain of linear mappings")
    linear = count.linear_entries.copy()
    linear.subtract(count.linear_uses)
    if {mfn: number for mfn, number in linear.items() if number} != info.linear:
        count.problems.append(f"linear counts {info.linear} are kept, {dict(linear)} were found")
