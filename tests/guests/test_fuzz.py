"""Domains that make random hypercalls harm nobody but themselves.

The bundled guest `fuzz` runs twice on one machine, with two seeds, beside a domain that stands still. All types and
references are recounted now and then; in the end the third domain and everything of Xen's own is, byte by byte, what it
was, both guests have come to their verdict, and when all domains are gone every frame is free again.

XDBG_FUZZ is how many times 30,000 calls the guests make together; XDBG_FUZZ_SEED the first seed.
"""

import hashlib
import os
import sys
import time

from xdbg.abi.frames import Mfn
from xdbg.abi.mmu import DOMID_XEN
from xdbg.session.launch import Launch, Machine, launch_machine
from xdbg.xen.audit import audit
from xdbg.xen.domain import Domain
from xdbg.xen.domain_kill import destroy_domain
from xdbg.xen.sched import domain_pause
from xdbg.xen.setup import Hypervisor, RunEnd

MEMORY = 16 << 20
CALLS = 30_000 * int(os.environ.get("XDBG_FUZZ", "1"))
SEED = int(os.environ.get("XDBG_FUZZ_SEED", "1"))
AUDIT_EVERY = 250
"""Exits."""
MOST_INSTRUCTIONS = 10_000
"""A call, all that the guest does around it included."""


def xens_of(hv: Hypervisor, domain: Domain) -> set[int]:
    """Frames of Xen's that change as the domain runs: those that it maps, and its descriptor tables."""
    found = {int(domain.shared_info), *map(int, domain.grant_table.frames)}
    tables = [hv.page_info.perdomain_l3[domain.domid]]
    while tables:
        table = tables.pop()
        found.add(int(table))
        below = {(entry & ~0xFFF & (1 << 51) - 1) >> 12 for entry in hv.ram.q[table * 512 : table * 512 + 512] if entry}
        tables += [Mfn(mfn) for mfn in below if hv.page_info.owner(mfn) == DOMID_XEN and mfn not in found]
    return found


class Untouched:
    """The bytes that no guest may change: another domain's frames, Xen's own, and the M2P of both."""

    def __init__(self, machine: Machine, still: Domain) -> None:
        self.hv = machine.hv
        owners = self.hv.page_info.owners
        moving: set[int] = set(map(int, self.hv.m2p.table_frames))
        for launched in machine.domains:
            if launched.domain is not still:
                moving |= xens_of(self.hv, launched.domain)
        self.xens = [mfn for mfn, owner in enumerate(owners) if owner == DOMID_XEN and mfn not in moving]
        self.others = [mfn for mfn, owner in enumerate(owners) if owner == still.domid]
        self.before = self.digest()

    def digest(self) -> str:
        """Of all of them, and of what Xen keeps of each."""
        info, state = self.hv.page_info, hashlib.sha256()
        for mfn in self.xens + self.others:
            state.update(self.hv.ram.page(Mfn(mfn)))
            state.update(repr((info.owners[mfn], info.refs[mfn], info.types[mfn], self.hv.m2p.get(Mfn(mfn)))).encode())
        return state.hexdigest()


def test_random_hypercalls_harm_nobody() -> None:
    calls = CALLS // 2
    wanted = [
        Launch("hello", memory=MEMORY),
        Launch("fuzz", append=f"seed={SEED} calls={calls}", memory=MEMORY),
        Launch("fuzz", append=f"seed={SEED + 1} calls={calls}", memory=MEMORY),
    ]
    machine = launch_machine(wanted, audit_every=AUDIT_EVERY)
    hv = machine.hv
    still, *fuzzers = (launched.domain for launched in machine.domains)
    domain_pause(still)
    untouched = Untouched(machine, still)
    assert len(untouched.others) > MEMORY >> 12
    assert len(untouched.xens) >= 8, "its IDT, the tables that map the M2P, what the third domain has of it"

    begin = time.perf_counter()
    while hv.run(hv.cpu.count + 10_000_000) is not RunEnd.IDLE:
        assert hv.cpu.count < CALLS * MOST_INSTRUCTIONS, "a guest waits for what never comes"
    seconds = time.perf_counter() - begin
    output = b"".join(domain.console.take_output() for domain in fuzzers).decode()
    sys.stdout.write(f"{CALLS} calls in {seconds:.1f} s, {CALLS / seconds:.0f} a second\n{output}")
    assert output.count("PASS fuzz") == len(fuzzers), output
    assert [domain.shutdown_code for domain in fuzzers] == [0, 0]

    audit(hv)
    assert untouched.digest() == untouched.before
    for launched in machine.domains:
        destroy_domain(launched.domain)
        audit(hv)
    assert hv.domains == {}
    assert hv.heap.nr_free == Hypervisor(4 * (MEMORY >> 12)).heap.nr_free
