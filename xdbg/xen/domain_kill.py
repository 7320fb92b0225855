"""The end of a domain: what it held is given back. Xen: domain_kill(), common/domain.c, arch/x86/domain.c.

A domain that has shut down is still there: its memory can be looked at, and its event channels stay as they are. When
it is destroyed

1. its vcpus run no more;
2. its event channels are closed; the far ends, in other domains, are unbound again and wait for its domid;
3. its mappings of other domains' grants are undone, and Xen's own backends let go of what it had granted to them;
4. its keys in the store are removed, and who watches the store is told;
5. page tables, descriptor tables and registered pages of each vcpu are given back, and with them what their entries
   hold; then pins, from the L4 tables down;
6. it gives up the possession of each of its frames. All that nothing else refers to are free, and zero.

A frame that another domain has mapped by a grant stays the dying domain's until that mapping is gone. So long the
domain remains as well, without vcpus, so that the mapping can be undone properly; with its last frame it is forgotten,
and what Xen allocated for it is free (`reap`). Its domid is not given to another domain.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import INVALID_MFN, PAGE_SHIFT, Maddr, Mfn, maddr_to_mfn, mfn_to_maddr
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.sched import Shutdown
from xdbg.abi.x86 import PTE_ADDR_MASK, PTES_PER_TABLE

from . import event_channel_op, xenstore
from .descriptor_tables import destroy_gdt
from .domain import Domain
from .event_channel import BACKEND_DOMID
from .grant_access import release_grant
from .grant_map import gnttab_release_mappings
from .page_info import (
    PGC_ALLOCATED,
    PGT_L1_PAGE_TABLE,
    PGT_L2_PAGE_TABLE,
    PGT_L3_PAGE_TABLE,
    PGT_L4_PAGE_TABLE,
    PGT_PINNED,
    PGT_TYPE_MASK,
)
from .page_table_types import destroy_ldt, put_page, put_page_and_type
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .setup import Hypervisor

_TABLES_BELOW_PERDOMAIN_L3: Final = 2
"""Levels: an L2, and L1s below it."""
_LEVELS: Final = (PGT_L4_PAGE_TABLE, PGT_L3_PAGE_TABLE, PGT_L2_PAGE_TABLE, PGT_L1_PAGE_TABLE)


def destroy_domain(domain: Domain) -> None:
    """Give back all that a domain holds, and forget it; nothing happens if that was done. Xen: domain_kill()."""
    hv = domain.hv
    if domain.is_dying:
        return
    hv.shutdown_domain(domain, Shutdown.POWEROFF, "destroyed")
    domain.is_dying = True
    _take_from_cpu(domain)
    event_channel_op.destroy(domain)
    gnttab_release_mappings(domain)
    _release_grants(domain)
    xenstore.release(domain)
    for vcpu in domain.vcpus:
        _destroy_vcpu(vcpu)
    if domain.pirqs.eoi_frame is not None:
        put_page_and_type(hv, domain.pirqs.eoi_frame)
        domain.pirqs.eoi_frame = None
    _relinquish_memory(domain)
    hv.dying.append(domain.domid)
    reap(hv)


def reap(hv: "Hypervisor") -> None:
    """Forget the dying domains that have no frames left. Xen: complete_domain_destroy()."""
    for domid in list(hv.dying):
        domain = hv.domains[domid]
        own = (domain.shared_info, *domain.grant_table.frames)
        if domain.nr_pages or any(hv.page_info.owners[mfn] != DOMID_XEN for mfn in own):
            continue
        hv.dying.remove(domid)
        del hv.domains[domid]
        hv.nr_vcpus -= len(domain.vcpus)
        for mfn in own:
            _free_frame(hv, mfn)
        _free_tables(hv, hv.page_info.perdomain_l3.pop(domid), _TABLES_BELOW_PERDOMAIN_L3, {})
        hv.cpu.flush_tlb()


def _take_from_cpu(domain: Domain) -> None:
    """None of its vcpus has the CPU any more; its registers can still be looked at."""
    hv = domain.hv
    if hv.running is not None and hv.running.domain is domain:
        hv.running = None
    if hv.current is not None and hv.current.domain is domain:
        hv.current.context = hv.cpu.save()
        hv.current = None


def _release_grants(domain: Domain) -> None:
    """Xen's backends let go of the domain's frames."""
    for ref, entry in list(domain.grant_table.active.items()):
        if entry.domid == BACKEND_DOMID:
            for _ in range(entry.host_reads):
                release_grant(domain, ref, BACKEND_DOMID, readonly=True)
            for _ in range(entry.host_writes):
                release_grant(domain, ref, BACKEND_DOMID, readonly=False)


def _destroy_vcpu(vcpu: Vcpu) -> None:
    """Give back descriptor tables, page tables and registered pages. Xen: vcpu_destroy_pagetables()."""
    domain, hv = vcpu.domain, vcpu.domain.hv
    destroy_gdt(vcpu)
    destroy_ldt(hv, vcpu)
    tables = (vcpu.guest_table, vcpu.guest_table_user)
    vcpu.guest_table, vcpu.guest_table_user = INVALID_MFN, None
    for mfn in tables:
        if mfn is not None and mfn != INVALID_MFN:
            put_page_and_type(hv, mfn)
    info = maddr_to_mfn(vcpu.vcpu_info)
    if info != domain.shared_info:
        vcpu.vcpu_info = Maddr(mfn_to_maddr(domain.shared_info))
        put_page_and_type(hv, info)


def _relinquish_memory(domain: Domain) -> None:
    """Give up pins and possession of all frames. Xen: domain_relinquish_resources(), relinquish_memory()."""
    hv, info = domain.hv, domain.hv.page_info
    frames = info.frames_of(domain.domid)
    for level in _LEVELS:
        for mfn in frames:
            if info.types[mfn] & (PGT_TYPE_MASK | PGT_PINNED) == level | PGT_PINNED:
                info.types[mfn] &= ~PGT_PINNED
                put_page_and_type(hv, mfn)
    for mfn in frames:
        if info.owners[mfn] == domain.domid and info.flags[mfn] & PGC_ALLOCATED:
            info.flags[mfn] &= ~PGC_ALLOCATED
            put_page(hv, mfn)


def _free_tables(hv: "Hypervisor", table: Mfn, levels_below: int, done: dict[Mfn, None]) -> None:
    """Free a table of Xen's own, those below it, and the pages of Xen's that they map, each once."""
    done[table] = None
    first = table * PTES_PER_TABLE
    for entry in hv.ram.q[first : first + PTES_PER_TABLE].tolist():
        below = Mfn((entry & PTE_ADDR_MASK) >> PAGE_SHIFT)
        if not entry or below in done:
            continue
        if levels_below:
            _free_tables(hv, below, levels_below - 1, done)
        else:
            done[below] = None
            _free_frame(hv, below)
    _free_frame(hv, table)


def _free_frame(hv: "Hypervisor", mfn: Mfn) -> None:
    hv.page_info.refs[mfn] = 0
    hv.heap.free(mfn)
