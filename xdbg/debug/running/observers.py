"""Several listeners behind the one place that Xen has for an observer.

With no listener the place stays empty, so that events are not even made; with one it stands there itself. A listener
that somebody put there without asking is taken in.
"""

from xdbg.xen.events import MemoryWritten, Observer, XenEvent
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu


class Observers:
    """The listeners of one machine, told in the order in which they were added."""

    def __init__(self, hv: Hypervisor) -> None:
        self._hv = hv
        self._members: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """From now on it is told. Idempotent."""
        self._take_in()
        if observer not in self._members:
            self._members.append(observer)
        self._apply()

    def remove(self, observer: Observer) -> None:
        """It is told no more; no error if it was not."""
        self._take_in()
        if observer in self._members:
            self._members.remove(observer)
        self._apply()

    def observe(self, vcpu: Vcpu, event: XenEvent) -> None:
        """Tell all. One that leaves when it is told changes nothing for the others."""
        for member in tuple(self._members):
            member.observe(vcpu, event)

    def _take_in(self) -> None:
        present = self._hv.observer
        if present is None:
            # Somebody else emptied the place: its former holder is not to come back.
            if len(self._members) == 1:
                self._members.clear()
        elif present is not self and present not in self._members:
            self._members.append(present)

    def _apply(self) -> None:
        match self._members:
            case []:
                self._hv.observer = None
            case [only]:
                self._hv.observer = only
            case _:
                self._hv.observer = self


class StoreLog:
    """Where Xen itself stored to RAM since the last `take`."""

    def __init__(self) -> None:
        self._stores: list[tuple[int, int]] = []

    def observe(self, vcpu: Vcpu, event: XenEvent) -> None:
        """Keep the stores, nothing else."""
        del vcpu
        if isinstance(event, MemoryWritten):
            self._stores.append((event.maddr, event.length))

    def take(self) -> list[tuple[int, int]]:
        """(maddr, length) of each store, oldest first."""
        stores, self._stores = self._stores, []
        return stores
