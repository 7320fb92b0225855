"""Where vcpus stand, and the places at which they have been looked at and may go on.

A vcpu that has been looked at before an instruction does not always execute it next: an upcall may come first, whose
handler has stop points of its own, and another process may run and come to the same instruction with the same stack.
So several places are kept, each with its page tables. One to which its vcpu never comes back (the process was ended
meanwhile) makes room for newer ones.
"""

from typing import Final

from xdbg.abi.frames import Maddr
from xdbg.debug.inferiors.vcpu_registers import rip_of, rsp_of
from xdbg.xen.vcpu import Vcpu

Place = tuple[Vcpu, Maddr, int, int]
"""A vcpu, its page tables, its rip and its rsp."""

MAX_PLACES: Final = 16
"""As many upcalls may be under way at a time."""


def place_of(vcpu: Vcpu) -> Place:
    """Where a vcpu goes on."""
    return vcpu, vcpu.cr3, rip_of(vcpu), rsp_of(vcpu)


class Places:
    """A few places, the oldest of which goes when there are too many."""

    def __init__(self) -> None:
        self._members: dict[Place, None] = {}

    def add(self, place: Place) -> None:
        """The newest."""
        self._members.pop(place, None)
        self._members[place] = None
        if len(self._members) > MAX_PLACES:
            del self._members[next(iter(self._members))]

    def take(self, place: Place) -> bool:
        """Whether it was there; it is no more."""
        return self._members.pop(place, self) is None

    def forget(self, vcpu: Vcpu) -> None:
        """None of one vcpu's is left."""
        for place in [place for place in self._members if place[0] is vcpu]:
            del self._members[place]

    def clear(self) -> None:
        """None is left."""
        self._members.clear()

    def __contains__(self, place: Place) -> bool:
        return place in self._members

    def __len__(self) -> int:
        return len(self._members)
