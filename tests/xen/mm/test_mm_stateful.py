"""Several domains with several vcpus, at the mercy of hypothesis: after every step all counts are right.

Domains come and go; each maps, pins, links, pokes, frees and swaps pages, moves the base pointers of its vcpus, and
grants frames to the others, which map them. The invariant after each step is the audit: every reference and type is
accounted for, nobody reaches a frame that is neither his nor granted to him.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, Gntmap, GnttabMapGrantRef, GnttabOp, GnttabUnmapGrantRef
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import XenMem, XenMemoryExchange, XenMemoryReservation
from xdbg.abi.mmu import DOMID_SELF, MmuextOp
from xdbg.xen.audit import audit
from xdbg.xen.domain_kill import destroy_domain
from xdbg.xen.hypercall import call
from xdbg.xen.mm import new_guest_cr3
from xdbg.xen.page_info import PGT_WRITABLE_PAGE
from xdbg.xen.setup import Hypervisor

from . import conftest as paged
from .test_domain_kill import add_domain

MAX_DOMAINS = 3
NR_VCPUS = 2
EXAMPLES = int(os.environ.get("XDBG_STATEFUL", "12"))
STEPS = 80
FIRST_REF = 8
NR_REFS = 4

TABLES = st.sampled_from((4, 5, 6, 7, 8, 9, 10, 11, 12, 13))
PAGES = st.one_of(TABLES, st.integers(20, 40))
LOOSE = st.integers(8, 40)
SLOTS = st.sampled_from((0, 1, 2, 3, 20, 255, 256, 260, 271, 272, 510, 511))
FLAGS = st.sampled_from((0, 1, 3, 5, 5, 5, 7, 7, 7, 7, 0x107, 0x87, 0x17, 7 | 1 << 63, 7 | 1 << 52, 7 | 1 << 62, 0x67))
LEVELS = st.integers(1, 4)
WHO = st.integers(0, MAX_DOMAINS - 1)
VCPU = st.integers(0, NR_VCPUS - 1)
REFS = st.integers(FIRST_REF, FIRST_REF + NR_REFS - 1)


class Player:
    """One domain, what it believes its frames to be, and the handles of its mappings."""

    def __init__(self, hv: Hypervisor) -> None:
        self.guest = add_domain(hv, NR_VCPUS)
        self.hv = hv
        self.domain = self.guest.domain
        # As VCPUOP_initialise would: each vcpu has tables from the beginning.
        for vcpu in self.domain.vcpus[1:]:
            new_guest_cr3(vcpu, self.domain.vcpus[0].guest_table)
        self.mfns = [self.guest.mfn(pfn) for pfn in range(paged.NR_PAGES)]
        self.handles: list[tuple[int, int]] = []

    def call(self, number: Hypercall, *args: int, vcpu: int = 0) -> int:
        result = call(self.domain.vcpus[vcpu], number, (*args, *[0] * (6 - len(args))))
        assert result is not None
        return result

    def writable(self, page: int) -> bool:
        info, mfn = self.hv.page_info, self.mfns[page]
        return info.owner(mfn) == self.domain.domid and info.type_of(mfn) == PGT_WRITABLE_PAGE

    def store(self, page: int, offset: int, raw: bytes) -> int:
        """A store by the guest itself, if it has a way to write there; the address."""
        if self.writable(page):
            self.hv.ram.write((self.mfns[page] << 12) + offset, raw)
        return self.guest.va(page) + offset

    def mmuext(self, cmd: int, arg1: int, arg2: int = 0, vcpu: int = 0) -> int:
        raw = b"".join(word.to_bytes(8, "little") for word in (cmd, arg1, arg2))
        return self.call(Hypercall.MMUEXT_OP, self.store(0, 0, raw), 1, 0, DOMID_SELF, vcpu=vcpu)

    def mmu_update(self, ptr: int, value: int) -> int:
        raw = ptr.to_bytes(8, "little") + value.to_bytes(8, "little")
        return self.call(Hypercall.MMU_UPDATE, self.store(0, 0, raw), 1, 0, DOMID_SELF)

    def map(self, page: int, entry: int) -> int:
        return self.call(Hypercall.UPDATE_VA_MAPPING, self.guest.va(page), entry, 0)


class Memory(RuleBasedStateMachine):
    """The machine and its domains."""

    @initialize()
    def start(self) -> None:
        self.hv = Hypervisor((MAX_DOMAINS + 1) * paged.NR_PAGES)
        self.nr_free = self.hv.heap.nr_free
        self.players: list[Player] = [Player(self.hv)]

    def player(self, who: int) -> Player:
        return self.players[who % len(self.players)]

    # -- domains come and go

    @precondition(lambda self: len(self.players) < MAX_DOMAINS and len(self.hv.domains) < MAX_DOMAINS)
    @rule()
    def create(self) -> None:
        self.players.append(Player(self.hv))

    @precondition(lambda self: len(self.players) > 1)
    @rule(who=WHO)
    def destroy(self, who: int) -> None:
        player = self.player(who)
        self.players.remove(player)
        destroy_domain(player.domain)

    # -- tables

    @rule(who=WHO, page=TABLES, slot=SLOTS, to=PAGES, flags=FLAGS, command=st.sampled_from((0, 0, 0, 1, 2, 3)))
    def update(self, who: int, page: int, slot: int, to: int, flags: int, command: int) -> None:
        player = self.player(who)
        player.mmu_update(player.mfns[page] << 12 | slot * 8 | command, player.mfns[to] << 12 | flags)

    @rule(who=WHO, page=TABLES, slot=SLOTS, mfn=st.integers(0, 330), flags=FLAGS)
    def update_with_any_frame(self, who: int, page: int, slot: int, mfn: int, flags: int) -> None:
        player = self.player(who)
        player.mmu_update(player.mfns[page] << 12 | slot * 8, mfn << 12 | flags)

    @rule(who=WHO, page=LOOSE, to=PAGES, flags=FLAGS)
    def remap(self, who: int, page: int, to: int, flags: int) -> None:
        player = self.player(who)
        player.map(page, player.mfns[to] << 12 | flags)

    @rule(who=WHO, page=LOOSE, slot=SLOTS, to=PAGES, flags=FLAGS)
    def poke(self, who: int, page: int, slot: int, to: int, flags: int) -> None:
        player = self.player(who)
        player.store(page, slot * 8, (player.mfns[to] << 12 | flags).to_bytes(8, "little"))

    @rule(who=WHO, first=st.integers(8, 10), levels=LEVELS, bottom=PAGES, slot=SLOTS, vcpu=VCPU, use=st.integers(0, 3))
    def build_tree(self, who: int, first: int, levels: int, bottom: int, slot: int, vcpu: int, use: int) -> None:
        """A chain of tables, down from level `levels`, with a page at its end: pinned, or a base pointer."""
        player = self.player(who)
        pages = list(range(first, first + levels))
        for page, below in zip(pages, [*pages[1:], bottom], strict=True):
            player.map(page, player.mfns[page] << 12 | 7)
            player.store(page, 0, bytes(4096))
            player.store(page, slot * 8, (player.mfns[below] << 12 | 7).to_bytes(8, "little"))
            player.map(page, player.mfns[page] << 12 | 5)
        if use == 0:
            player.mmuext(MmuextOp.NEW_USER_BASEPTR, player.mfns[first], vcpu=vcpu)
        else:
            player.mmuext(MmuextOp.PIN_L1_TABLE + levels - 1, player.mfns[first], vcpu=vcpu)

    @rule(who=WHO, page=PAGES, level=LEVELS)
    def pin(self, who: int, page: int, level: int) -> None:
        player = self.player(who)
        player.mmuext(MmuextOp.PIN_L1_TABLE + level - 1, player.mfns[page])

    @rule(who=WHO, page=PAGES)
    def unpin(self, who: int, page: int) -> None:
        player = self.player(who)
        player.mmuext(MmuextOp.UNPIN_TABLE, player.mfns[page])

    @rule(who=WHO, page=PAGES, vcpu=VCPU, user=st.booleans())
    def base_pointer(self, who: int, page: int, vcpu: int, *, user: bool) -> None:
        player = self.player(who)
        command = MmuextOp.NEW_USER_BASEPTR if user else MmuextOp.NEW_BASEPTR
        # The first vcpu's kernel tables are what hypercalls go through here.
        player.mmuext(command, player.mfns[page], vcpu=vcpu if user else 1)

    @rule(who=WHO, page=PAGES, entries=st.sampled_from((0, 1, 512, 513)), vcpu=VCPU)
    def gdt(self, who: int, page: int, entries: int, vcpu: int) -> None:
        player = self.player(who)
        raw = player.mfns[page].to_bytes(8, "little") * 2
        player.call(Hypercall.SET_GDT, player.store(0, 0, raw), entries, vcpu=vcpu)

    @rule(who=WHO, page=PAGES, source=PAGES, copy=st.booleans())
    def fill(self, who: int, page: int, source: int, *, copy: bool) -> None:
        player = self.player(who)
        player.mmuext(MmuextOp.COPY_PAGE if copy else MmuextOp.CLEAR_PAGE, player.mfns[page], player.mfns[source])

    # -- memory

    @rule(who=WHO, page=PAGES)
    def decrease(self, who: int, page: int) -> None:
        player = self.player(who)
        start = player.store(1, 0, player.mfns[page].to_bytes(8, "little"))
        request = XenMemoryReservation(start, 1, 0, 0, DOMID_SELF)
        player.call(Hypercall.MEMORY_OP, XenMem.DECREASE_RESERVATION, player.store(0, 0, request.to_bytes()))

    @rule(who=WHO, page=LOOSE, order=st.sampled_from((0, 0, 1)))
    def populate(self, who: int, page: int, order: int) -> None:
        player = self.player(who)
        start = player.store(1, 0, page.to_bytes(8, "little"))
        request = XenMemoryReservation(start, 1, order, 0, DOMID_SELF)
        at = player.store(0, 0, request.to_bytes())
        if player.call(Hypercall.MEMORY_OP, XenMem.POPULATE_PHYSMAP, at) == 1:
            player.mfns[page] = self.hv.ram.read_u64(player.mfns[1] << 12)

    @rule(who=WHO, page=LOOSE, unmap=st.booleans())
    def exchange(self, who: int, page: int, *, unmap: bool) -> None:
        player = self.player(who)
        if unmap:
            player.map(page, 0)
        start = player.store(1, 0, player.mfns[page].to_bytes(8, "little") + page.to_bytes(8, "little"))
        request = XenMemoryExchange(
            XenMemoryReservation(start, 1, 0, 0, DOMID_SELF), XenMemoryReservation(start + 8, 1, 0, 0, DOMID_SELF), 0
        )
        if player.call(Hypercall.MEMORY_OP, XenMem.EXCHANGE, player.store(0, 0, request.to_bytes())) == 0:
            player.mfns[page] = self.hv.ram.read_u64((player.mfns[1] << 12) + 8)

    # -- grants

    @rule(who=WHO, to=WHO, ref=REFS, page=PAGES, readonly=st.booleans())
    def grant(self, who: int, to: int, ref: int, page: int, *, readonly: bool) -> None:
        player = self.player(who)
        flags = GTF_PERMIT_ACCESS | (4 if readonly else 0)
        player.domain.grant_table.set_entry(ref, flags, self.player(to).domain.domid, player.mfns[page])

    @rule(who=WHO, granter=WHO, ref=REFS, page=LOOSE, flags=st.sampled_from((2, 2, 3, 1, 6, 7, 18)))
    def map_grant(self, who: int, granter: int, ref: int, page: int, flags: int) -> None:
        player = self.player(who)
        address = player.mfns[7] << 12 | page * 8 if flags & Gntmap.CONTAINS_PTE else player.guest.va(page)
        op = GnttabMapGrantRef(host_addr=address, flags=flags, ref=ref, dom=self.player(granter).domain.domid)
        at = player.store(0, 0, op.to_bytes())
        if not player.writable(0) or player.call(Hypercall.GRANT_TABLE_OP, GnttabOp.MAP_GRANT_REF, at, 1):
            return
        done: Any = GnttabMapGrantRef.from_bytes(self.hv.ram.read(player.mfns[0] << 12, GnttabMapGrantRef.SIZE))
        if done.status == 0:
            player.handles.append((done.handle, address))

    @precondition(lambda self: any(player.handles for player in self.players))
    @rule(who=WHO, index=st.integers(0, 20), keep=st.booleans())
    def unmap_grant(self, who: int, index: int, *, keep: bool) -> None:
        player = self.player(who)
        if not player.handles:
            return
        index %= len(player.handles)
        handle, address = player.handles[index]
        mapping = player.domain.grant_table.maptrack.mappings.get(handle)
        if mapping is None or mapping.domid not in self.hv.domains:
            # Unmapping what a domain that is no more had granted ends the domain that tries.
            del player.handles[index]
            return
        device = self.hv.domains[mapping.domid].grant_table.active[mapping.ref].mfn << 12
        op = GnttabUnmapGrantRef(host_addr=address, dev_bus_addr=0 if keep else device, handle=handle)
        player.call(Hypercall.GRANT_TABLE_OP, GnttabOp.UNMAP_GRANT_REF, player.store(0, 0, op.to_bytes()), 1)

    # -- what holds always

    @invariant()
    def nothing_is_lost_or_gained(self) -> None:
        if hasattr(self, "players"):
            audit(self.hv)

    def teardown(self) -> None:
        if not hasattr(self, "players"):
            return
        for player in self.players:
            destroy_domain(player.domain)
            audit(self.hv)
        assert self.hv.domains == {}
        assert self.hv.heap.nr_free == self.nr_free


TestMemory = Memory.TestCase
TestMemory.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
