"""Numbers of physical interrupts in a domain that is given none. Xen: arch/x86/irq.c, struct domain.

A domU may set a number aside (PHYSDEVOP_get_free_pirq) and name a page in which Xen would mark the interrupts that want
to be acknowledged; no interrupt is permitted to it, so nothing is ever bound to a number.
"""

from dataclasses import dataclass, field
from typing import Final

from xdbg.abi.frames import Mfn

NR_GSIS: Final = 24
"""Lines of the machine's I/O APIC. Xen: nr_irqs_gsi."""
NR_PIRQS: Final = NR_GSIS + 32
"""Numbers that a domain can name. Xen: nr_pirqs, extra_domU_irqs."""
_FIRST_FREE_GSI: Final = 16
"""Those below are of old devices."""


@dataclass(slots=True)
class Pirqs:
    """What a domain did with its numbers."""

    allocated: list[int] = field(default_factory=list)
    """Set aside, in the order of time."""
    eoi_frame: Mfn | None = None
    """The page of interrupts that want to be acknowledged; held as a writable page for as long as the domain lives."""

    def allocate(self, *, gsi: bool) -> int | None:
        """Set a number aside: the first free GSI, or the last number of all. None: all are. Xen: get_free_pirq()."""
        numbers = [*range(_FIRST_FREE_GSI, NR_GSIS)] if gsi else []
        numbers += range(NR_PIRQS - 1, NR_GSIS - 1, -1)
        number = next((number for number in numbers if number not in self.allocated), None)
        if number is not None:
            self.allocated.append(number)
        return number
