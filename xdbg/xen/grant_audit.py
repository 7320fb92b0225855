"""Recounts grants from scratch: mappings by handle, pins, and l1es of others' frames. A part of `audit`.

* The pins of an entry for a domain are exactly the host and device parts of that domain's mappings of it.
* The pins of an entry for domain 0 are its backends': nothing else tells of them.
* What holds the frame: each device part, each pin of a backend. The host parts' l1es hold it on their own, and may be
  fewer than the pins, since a guest can overwrite an l1e; they are never more.
* Every handle is free or in use, and in one place only.
"""

from collections import Counter
from struct import Struct
from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import PAGE_SIZE, Mfn, mfn_to_maddr
from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, GTF_TYPE_MASK, Gntmap, Gtf

from .event_channel import BACKEND_DOMID

if TYPE_CHECKING:
    from .domain import Domain
    from .grant_table import ActiveEntry
    from .setup import Hypervisor

_ENTRY: Final = Struct("<HHI")
"""struct grant_entry_v1, for looking at all of them quickly."""
Foreign = Counter[tuple[int, int, bool]]
"""l1es of frames of others: how many by (domid of the table, mfn, whether they write)."""


def held_frames(hv: "Hypervisor") -> list[tuple[Mfn, bool]]:
    """(mfn, whether it is held as a writable page) for each pin that holds a frame without an l1e."""
    held: list[tuple[Mfn, bool]] = []
    for domain in hv.domains.values():
        for entry in domain.grant_table.active.values():
            backend = entry.domid not in hv.domains
            writes = entry.device_writes + (entry.host_writes if backend else 0)
            reads = entry.device_reads + (entry.host_reads if backend else 0)
            held += [(entry.mfn, True)] * writes + [(entry.mfn, False)] * reads
    return held


def problems(hv: "Hypervisor", foreign: Foreign) -> list[str]:
    """What does not fit, a line each; `foreign` was counted in the tables in use."""
    found: list[str] = []
    parts = _parts(hv)
    allowed: Foreign = Counter()
    for domid, domain in hv.domains.items():
        found += _handles(domain)
        for ref, entry in domain.grant_table.active.items():
            where = f"grant {ref:#x} of domain {domid}"
            if ref >= domain.grant_table.nr_entries or entry.pins < 1:
                found.append(f"{where}: in use without pins, or not in the table")
            if entry.domid != BACKEND_DOMID and _pins(entry) != tuple(
                parts[domid, ref, entry.domid, k] for k in range(4)
            ):
                found.append(f"{where}: {_pins(entry)} pins, not what domain {entry.domid} has mapped")
            for writes, pins in ((True, entry.host_writes), (False, entry.host_reads)):
                allowed[entry.domid, entry.mfn, writes] += pins
    for granter, ref, domid, _ in parts:
        if granter not in hv.domains:
            # A mapping whose l1e was overwritten holds nothing: the granter could go.
            continue
        entry_of = hv.domains[granter].grant_table.active.get(ref)
        if entry_of is None or entry_of.domid != domid:
            found.append(f"domain {domid} has mapped grant {ref:#x} of domain {granter}, which is not in use by it")
    for (domid, mfn, writes), number in foreign.items():
        if number > allowed[domid, mfn, writes]:
            kind = "writable" if writes else "read-only"
            found.append(
                f"domain {domid} has {number} {kind} l1es of mfn {mfn:#x}: {allowed[domid, mfn, writes]} granted"
            )
    return found


def flag_problems(hv: "Hypervisor") -> list[str]:
    """Entries whose GTF_reading and GTF_writing do not tell the truth. Only for guests that do not write them."""
    found = []
    for domid, domain in hv.domains.items():
        table = domain.grant_table
        raw = b"".join(hv.ram.read(mfn_to_maddr(mfn), PAGE_SIZE) for mfn in table.frames)
        for ref, (flags, _, _) in enumerate(_ENTRY.iter_unpack(raw)):
            if flags & GTF_TYPE_MASK != GTF_PERMIT_ACCESS:
                continue
            active = table.active.get(ref)
            wanted = 0 if active is None else Gtf.READING | (Gtf.WRITING if active.writes else 0)
            if flags & (Gtf.READING | Gtf.WRITING) != wanted:
                found.append(f"grant {ref:#x} of domain {domid}: flags {flags:#x}, {wanted:#x} expected")
    return found


def _pins(entry: "ActiveEntry") -> tuple[int, ...]:
    return (entry.host_writes, entry.host_reads, entry.device_writes, entry.device_reads)


def _parts(hv: "Hypervisor") -> Counter[tuple[int, int, int, int]]:
    """The parts of all mappings: (granter, ref, mapper, place in `_pins`)."""
    parts: Counter[tuple[int, int, int, int]] = Counter()
    for domid, domain in hv.domains.items():
        for mapping in domain.grant_table.maptrack.mappings.values():
            readonly = int(bool(mapping.flags & Gntmap.READONLY))
            for flag, first in ((Gntmap.HOST_MAP, 0), (Gntmap.DEVICE_MAP, 2)):
                if mapping.flags & flag:
                    parts[mapping.domid, mapping.ref, domid, first + readonly] += 1
    return parts


def _handles(domain: "Domain") -> list[str]:
    """Each handle below the limit is free once or in use once."""
    maptrack = domain.grant_table.maptrack
    seen = Counter(maptrack.mappings.keys())
    for free in maptrack.free.values():
        seen.update(free)
    if dict(seen) != dict.fromkeys(range(maptrack.limit), 1) or len(maptrack.vcpus) != maptrack.limit:
        return [f"domain {domain.domid}: mapping handles are lost or there twice"]
    return []
