"""Domains under direct paging that grant each other frames, on a machine without an engine.

Each has the pages that `tests/xen/mm` describes: pages 0 to 3 hold arguments, 4 to 7 are page tables, the rest is free.
A grant table of one frame; entry 8 and up are the tests'.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from xdbg.abi.grant_table import (
    GTF_ACCEPT_TRANSFER,
    GTF_PERMIT_ACCESS,
    GTF_TYPE_MASK,
    Gntcopy,
    Gntmap,
    GnttabCopy,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
    Gtf,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.xen.grant_audit import flag_problems

from ..mm.conftest import StandInHypervisor, build  # noqa: TID252 - the tests are no package that could be named

NR_FRAMES = 264


@dataclass
class Party:
    """One domain of several, and what its kernel does with grants."""

    guest: Any

    @property
    def domain(self) -> Any:
        return self.guest.domain

    @property
    def domid(self) -> int:
        return self.guest.domain.domid

    @property
    def hv(self) -> Any:
        return self.guest.hv

    def entry(self, ref: int) -> Any:
        return self.domain.grant_table.entry(ref)

    # -- as the granting domain

    def grant(self, ref: int, to: "Party", pfn: int, *, readonly: bool = False) -> None:
        self.set_entry(ref, GTF_PERMIT_ACCESS | (Gtf.READONLY if readonly else 0), to.domid, self.guest.mfn(pfn))

    def accept(self, ref: int, giver: "Party", pfn: int) -> None:
        self.set_entry(ref, GTF_ACCEPT_TRANSFER, giver.domid, pfn)

    def set_entry(self, ref: int, flags: int, domid: int, frame: int) -> None:
        entry = self.entry(ref)
        entry.flags, entry.domid, entry.frame = flags, domid, frame

    def end(self, ref: int) -> bool:
        """End a grant as a kernel does: not while it is in use."""
        entry = self.entry(ref)
        permits = entry.flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS
        if permits and entry.flags & (Gtf.READING | Gtf.WRITING):
            return False
        entry.flags = 0
        return True

    # -- as the other one

    def operate(self, cmd: int, *requests: Any) -> list[Any]:
        """The requests as Xen left them."""
        size = type(requests[0]).SIZE
        raw = b"".join(request.to_bytes() for request in requests)
        result = self.guest.call(Hypercall.GRANT_TABLE_OP, cmd, self.guest.write(0, raw), len(requests))
        assert result == 0, result
        after = self.hv.ram.read(self.guest.mfn(0) << 12, len(raw))
        return [type(requests[0]).from_bytes(after[i : i + size]) for i in range(0, len(raw), size)]

    def map(self, granter: "Party", ref: int, pfn: int, flags: int = Gntmap.HOST_MAP) -> Any:
        """Map a grant where `pfn` is mapped at first."""
        return self.map_at(self.guest.va(pfn), granter, ref, flags)

    def map_at(self, host_addr: int, granter: "Party", ref: int, flags: int = Gntmap.HOST_MAP) -> Any:
        request = GnttabMapGrantRef(host_addr, flags, ref, granter.domid)
        return self.operate(GnttabOp.MAP_GRANT_REF, request)[0]

    def unmap(self, handle: int, pfn: int = 0, dev_bus_addr: int = 0) -> int:
        host_addr = self.guest.va(pfn) if pfn else 0
        return self.unmap_at(host_addr, handle, dev_bus_addr)

    def unmap_at(self, host_addr: int, handle: int, dev_bus_addr: int = 0) -> int:
        request = GnttabUnmapGrantRef(host_addr, dev_bus_addr, handle)
        return self.operate(GnttabOp.UNMAP_GRANT_REF, request)[0].status

    def replace(self, handle: int, pfn: int, new_pfn: int) -> int:
        request = GnttabUnmapAndReplace(self.guest.va(pfn), self.guest.va(new_pfn) if new_pfn else 0, handle)
        return self.operate(GnttabOp.UNMAP_AND_REPLACE, request)[0].status

    def transfer(self, pfn: int, to: int, ref: int) -> int:
        return self.operate(GnttabOp.TRANSFER, GnttabTransfer(self.guest.mfn(pfn), to, ref))[0].status

    def copy(self, source: "Side", dest: "Side", length: int = 16) -> int:
        return self.operate(GnttabOp.COPY, copy_request(source, dest, length))[0].status


@dataclass(frozen=True)
class Side:
    """One side of a copy: a grant reference of `domid`, or a gmfn."""

    ref: int | None = None
    gmfn: int = 0
    domid: int = DOMID_SELF
    offset: int = 0


def copy_request(source: Side, dest: Side, length: int) -> Any:
    request = GnttabCopy(len=length)
    for ptr, side, flag in ((request.source, source, Gntcopy.SOURCE_GREF), (request.dest, dest, Gntcopy.DEST_GREF)):
        ptr.domid, ptr.offset = side.domid, side.offset
        if side.ref is None:
            ptr.u.gmfn = side.gmfn
        else:
            ptr.u.ref = side.ref
            request.flags |= flag
    return request


def make_parties(number: int) -> list[Party]:
    hv = StandInHypervisor(NR_FRAMES)
    return [Party(build(hv, 80)) for _ in range(number)]


def check(parties: list[Party]) -> None:
    """Recount everything, and the flags of domains that leave Xen's bits alone."""
    parties[0].guest.audit()
    assert flag_problems(parties[0].hv) == []


@pytest.fixture
def parties() -> Iterator[list[Party]]:
    """Three domains; whatever a test does with them, the counts must be right at the end."""
    made = make_parties(3)
    check(made)
    yield made
    check(made)


@pytest.fixture
def granter(parties: list[Party]) -> Party:
    return parties[0]


@pytest.fixture
def mapper(parties: list[Party]) -> Party:
    return parties[1]


@pytest.fixture
def third(parties: list[Party]) -> Party:
    return parties[2]
