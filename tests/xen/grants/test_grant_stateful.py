"""Random grants, mappings, copies, transfers and page-table updates of three domains; everything recounted after each.

Two things must hold whatever the domains do: the counts (`audit`, and GTF_reading and GTF_writing in the entries), and
that nobody reads or writes a frame that was never granted. For the second every domain has pages with a secret in them
that it grants to nobody: they never change, and the secret is never found in another domain's memory.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, GTF_TYPE_MASK, Gntmap, Gntst, GnttabOp, GnttabSwapGrantRef
from xdbg.abi.mmu import MmuextOp
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.xen.grant_map import gnttab_release_mappings

from .conftest import Side, check, make_parties

SECRET_PAGES = (60, 61)
MAPPED_PAGES = range(8, 24)
REFS = range(8, 13)
L1 = 7
WHO = st.integers(0, 2)
REF = st.sampled_from(REFS)
PAGE = st.sampled_from(MAPPED_PAGES)
ANY_PAGE = st.sampled_from([*MAPPED_PAGES, 4, 7, *SECRET_PAGES])
PARTS = st.sampled_from([Gntmap.HOST_MAP, Gntmap.DEVICE_MAP, Gntmap.HOST_MAP | Gntmap.DEVICE_MAP])
KIND = st.sampled_from([0, Gntmap.READONLY])
FORM = st.sampled_from([0, Gntmap.CONTAINS_PTE])


class Domains(RuleBasedStateMachine):
    """Three domains that use what they have against each other."""

    @initialize()
    def build(self) -> None:
        self.parties = make_parties(3)
        self.secrets = [f"secret of domain {party.domid}".encode() for party in self.parties]
        for party, secret in zip(self.parties, self.secrets, strict=True):
            for pfn in SECRET_PAGES:
                party.guest.write(pfn, secret * 100)
        self.places: dict[tuple[int, int], tuple[int, int]] = {}
        """(mapper, handle): the address that it was mapped at, and the bus address."""

    def _place(self, who: int, pfn: int, form: int) -> int:
        guest = self.parties[who].guest
        return guest.slot(L1, pfn) if form else guest.va(pfn)

    # -- the granting side

    @rule(who=WHO, to=WHO, ref=REF, pfn=PAGE, readonly=st.booleans())
    def grant(self, who: int, to: int, ref: int, pfn: int, readonly: bool) -> None:
        party = self.parties[who]
        if party.end(ref):
            party.grant(ref, self.parties[to], pfn, readonly=readonly)

    @rule(who=WHO, to=WHO, ref=REF, pfn=ANY_PAGE)
    def grant_what_is_not_its_own(self, who: int, to: int, ref: int, pfn: int) -> None:
        """Another domain's frame, or a table; by its domid this is a grant like any other."""
        party = self.parties[who]
        if party.end(ref):
            victim = self.parties[(who + 1) % 3]
            party.set_entry(ref, 1, self.parties[to].domid, victim.guest.mfn(pfn))

    @rule(who=WHO, ref=REF)
    def end(self, who: int, ref: int) -> None:
        party = self.parties[who]
        assert party.end(ref) == (ref not in party.domain.grant_table.active)

    @rule(who=WHO, a=REF, b=REF)
    def swap(self, who: int, a: int, b: int) -> None:
        party = self.parties[who]
        busy = {a, b} & party.domain.grant_table.active.keys()
        status = party.operate(GnttabOp.SWAP_GRANT_REF, GnttabSwapGrantRef(a, b))[0].status
        assert (status == Gntst.EAGAIN) == bool(busy and a != b)

    # -- the other side

    @rule(who=WHO, granter=WHO, ref=REF, pfn=PAGE, parts=PARTS, kind=KIND, form=FORM)
    def map(self, who: int, granter: int, ref: int, pfn: int, parts: int, kind: int, form: int) -> None:
        place = self._place(who, pfn, form)
        op = self.parties[who].map_at(place, self.parties[granter], ref, parts | kind | form)
        if op.status == Gntst.OKAY:
            self.places[who, op.handle] = place, op.dev_bus_addr

    def _granted(self, which: int) -> tuple[int, int, int] | None:
        """(granter, ref, who) of one of the entries that permit access."""
        domids = [party.domid for party in self.parties]
        entries = [
            (granter, ref, domids.index(party.entry(ref).domid))
            for granter, party in enumerate(self.parties)
            for ref in REFS
            if party.entry(ref).flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS
        ]
        return entries[which % len(entries)] if entries else None

    @rule(which=st.integers(0, 1000), pfn=PAGE, parts=PARTS, kind=KIND, form=FORM)
    def map_what_is_granted(self, which: int, pfn: int, parts: int, kind: int, form: int) -> None:
        found = self._granted(which)
        if found is not None:
            granter, ref, who = found
            self.map(who, granter, ref, pfn, parts, kind, form)

    @rule(which=st.integers(0, 1000), pfn=PAGE, back=st.booleans())
    def copy_what_is_granted(self, which: int, pfn: int, back: bool) -> None:
        found = self._granted(which)
        if found is not None:
            granter, ref, who = found
            sides = [Side(ref, domid=self.parties[granter].domid), Side(gmfn=self.parties[who].guest.mfn(pfn))]
            self.parties[who].copy(*(reversed(sides) if back else sides), length=64)

    @rule(which=st.integers(0, 1000), host=st.booleans(), device=st.booleans())
    def unmap(self, which: int, host: bool, device: bool) -> None:
        if self.places:
            key = sorted(self.places)[which % len(self.places)]
            place, bus = self.places[key]
            party = self.parties[key[0]]
            party.unmap_at(place if host else 0, key[1], bus if device else 0)
            if key[1] not in party.domain.grant_table.maptrack.mappings:
                del self.places[key]

    @rule(who=WHO, handle=st.integers(0, 5), pfn=ANY_PAGE)
    def unmap_somewhere(self, who: int, handle: int, pfn: int) -> None:
        party = self.parties[who]
        party.unmap(handle, pfn)
        if handle not in party.domain.grant_table.maptrack.mappings:
            self.places.pop((who, handle), None)

    @rule(which=st.integers(0, 1000), pfn=PAGE)
    def replace(self, which: int, pfn: int) -> None:
        if self.places:
            key = sorted(self.places)[which % len(self.places)]
            party = self.parties[key[0]]
            party.replace(key[1], self._pfn(key[0], self.places[key][0]), pfn)
            if key[1] not in party.domain.grant_table.maptrack.mappings:
                del self.places[key]

    def _pfn(self, who: int, place: int) -> int:
        guest = self.parties[who].guest
        return (place - guest.va(0)) >> 12 if place >= guest.va(0) else (place - guest.slot(L1, 0)) // 8

    @rule(
        who=WHO,
        refs=st.tuples(REF, REF),
        of=st.tuples(WHO, WHO),
        pfns=st.tuples(ANY_PAGE, ANY_PAGE),
        by=st.tuples(st.sampled_from(["ref", "own", "foreign"]), st.sampled_from(["ref", "own", "foreign"])),
        length=st.integers(0, 4096),
    )
    def copy(self, who: int, refs: Any, of: Any, pfns: Any, by: Any, length: int) -> None:
        sides = []
        for kind, ref, other, pfn in zip(by, refs, of, pfns, strict=True):
            if kind == "ref":
                sides.append(Side(ref, domid=self.parties[other].domid))
            elif kind == "foreign":
                victim = self.parties[(who + 1 + other % 2) % 3]
                sides.append(Side(gmfn=victim.guest.mfn(pfn)))
            else:
                # A domain may well give away its own secret; that is not what is tested here.
                sides.append(Side(gmfn=self.parties[who].guest.mfn(pfn if pfn not in SECRET_PAGES else 8)))
        self.parties[who].copy(sides[0], sides[1], length)

    # -- what a kernel does to its own memory meanwhile

    @rule(who=WHO, pfn=PAGE, to=PAGE, write=st.booleans())
    def map_own(self, who: int, pfn: int, to: int, write: bool) -> None:
        """An ordinary mapping, maybe over that of a grant."""
        guest = self.parties[who].guest
        guest.map(pfn, guest.pte(to, PTE_PRESENT | PTE_USER | (PTE_RW if write else 0)))

    @rule(who=WHO, pfn=PAGE)
    def unmap_own(self, who: int, pfn: int) -> None:
        self.parties[who].guest.map(pfn, 0)

    @rule(who=WHO, pfn=PAGE, bits=st.integers(0, 7))
    def map_what_is_mapped_elsewhere(self, who: int, pfn: int, bits: int) -> None:
        """Copy an l1e of this or the next domain to another place."""
        guest = self.parties[who].guest
        for victim in (guest, self.parties[(who + 1) % 3].guest):
            guest.map(pfn, victim.entry(L1, pfn) & ~7 | bits)

    @rule(who=WHO, pfn=PAGE, level=st.integers(1, 2))
    def pin(self, who: int, pfn: int, level: int) -> None:
        self.parties[who].guest.mmuext(MmuextOp.PIN_L1_TABLE + level - 1, self.parties[who].guest.mfn(pfn))

    @rule(who=WHO, pfn=PAGE)
    def unpin(self, who: int, pfn: int) -> None:
        self.parties[who].guest.unpin(pfn)

    @rule(who=WHO, to=WHO, ref=REF, pfn=ANY_PAGE, accepted=st.booleans())
    def transfer(self, who: int, to: int, ref: int, pfn: int, accepted: bool) -> None:
        party, receiver = self.parties[who], self.parties[to]
        if pfn in SECRET_PAGES:
            return
        if accepted and receiver.end(ref):
            receiver.accept(ref, party, pfn)
        party.transfer(pfn, receiver.domid, ref)

    @rule(who=WHO)
    def release_all(self, who: int) -> None:
        """As when the domain dies; its l1es stay for the moment."""
        gnttab_release_mappings(self.parties[who].domain)
        self.places = {key: place for key, place in self.places.items() if key[0] != who}
        guest = self.parties[who].guest
        for pfn in MAPPED_PAGES:
            guest.map(pfn, 0)

    # -- what must hold

    @invariant()
    def counts_are_right(self) -> None:
        check(self.parties)

    @invariant()
    def secrets_are_kept(self) -> None:
        hv = self.parties[0].hv
        for party, secret in zip(self.parties, self.secrets, strict=True):
            for pfn in SECRET_PAGES:
                assert hv.ram.read(party.guest.mfn(pfn) << 12, len(secret) * 100) == secret * 100
            for mfn, owner in enumerate(hv.page_info.owners):
                if owner in hv.domains and owner != party.domid:
                    assert secret not in hv.ram.read(mfn << 12, 4096)


TestDomains = Domains.TestCase
TestDomains.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
