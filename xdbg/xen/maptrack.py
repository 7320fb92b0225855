"""What a domain has mapped of others' grants: the table behind the mapping handles. Xen: struct grant_mapping.

Handles come in pages of 256, up to a limit, and each belongs to a vcpu's list of free ones: taken from the front, given
back at the end. One always stays in the list. A vcpu whose list is empty gets a new page, or, at the limit, a handle of
another vcpu's. So which handle a mapping gets is determined by what was mapped before.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

HANDLES_PER_PAGE: Final = 256
"""Xen: MAPTRACK_PER_PAGE."""
MAX_MAPTRACK_FRAMES: Final = 1024
"""Pages of handles that a domain may have. Xen's default of gnttab_max_maptrack_frames."""


@dataclass(slots=True)
class GrantMapping:
    """One mapping of a grant: the granting domain, its reference, and GNTMAP_*. Xen: struct grant_mapping."""

    domid: int
    ref: int
    flags: int


@dataclass(slots=True)
class Maptrack:
    """The mappings of one domain by handle, and the free handles by vcpu."""

    limit: int = 0
    """Handles below this exist."""
    max_frames: int = MAX_MAPTRACK_FRAMES
    mappings: dict[int, GrantMapping] = field(default_factory=dict)
    free: dict[int, deque[int]] = field(default_factory=dict)
    """By vcpu; the one at the end is never given out."""
    vcpus: list[int] = field(default_factory=list)
    """By handle: the vcpu to whose list it goes back."""

    def take(self, vcpu_id: int, nr_vcpus: int) -> int | None:
        """A free handle for a vcpu; None if there is none and there may be no more. Xen: get_maptrack_handle()."""
        handle = self._pop(vcpu_id)
        if handle is not None:
            return handle
        if self.limit < self.max_frames * HANDLES_PER_PAGE:
            return self._grow(vcpu_id)
        if not self.free.get(vcpu_id):
            sentinel = self._steal(vcpu_id, nr_vcpus)
            if sentinel is None:
                return None
            self.free[vcpu_id] = deque([sentinel])
        return self._steal(vcpu_id, nr_vcpus)

    def put(self, handle: int) -> None:
        """A handle is free again. Xen: put_maptrack_handle()."""
        self.mappings.pop(handle, None)
        self.free[self.vcpus[handle]].append(handle)

    def _pop(self, vcpu_id: int) -> int | None:
        free = self.free.get(vcpu_id)
        return free.popleft() if free is not None and len(free) > 1 else None

    def _grow(self, vcpu_id: int) -> int:
        """Another page: its first handle is taken, the others go to the front of the vcpu's list."""
        first = self.limit
        self.limit += HANDLES_PER_PAGE
        self.vcpus.extend([vcpu_id] * HANDLES_PER_PAGE)
        self.free.setdefault(vcpu_id, deque()).extendleft(range(self.limit - 1, first, -1))
        return first

    def _steal(self, vcpu_id: int, nr_vcpus: int) -> int | None:
        """A free handle of any vcpu's, which is this one's from now on. Xen begins at a random one, this at vcpu 0."""
        for other in range(nr_vcpus):
            handle = self._pop(other)
            if handle is not None:
                self.vcpus[handle] = vcpu_id
                return handle
        return None
