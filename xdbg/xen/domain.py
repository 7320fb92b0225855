"""A domain: the unit that owns frames, vcpus, event channels and grants. Xen: struct domain.

Everything here is plain data: with RAM and the CPU's context it is the whole state of a guest.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xdbg.abi.frames import INVALID_MFN, Maddr, Mfn, Pfn, mfn_to_maddr

from .pirq import Pirqs
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .block_backend import BlockDevice
    from .console import ConsoleState
    from .event_channel import EventChannels
    from .grant_table import GrantTable
    from .setup import Hypervisor
    from .xenstore import XenstoreState


NR_HYPERCALLS: Final = 64
"""Numbers that a hypercall may have in Xen's ABI. Xen: NR_hypercalls."""


@dataclass(slots=True, eq=False)
class Domain:
    """One domain of the machine `hv`."""

    hv: "Hypervisor"
    domid: int
    name: str
    max_pages: int
    """The most frames it may own at a time."""
    vcpus: list[Vcpu] = field(default_factory=list)
    shared_info: Mfn = INVALID_MFN
    """A frame of Xen's, mapped by the guest; not in its p2m."""
    nr_pages: int = 0
    """Frames owned now (shared_info and grant frames not counted)."""
    vm_assist: int = 0
    """Bit set of VMASST_TYPE_*."""
    cmos_idx: int = 0
    """What the guest wrote to port 0x70 last. `pci_cf8`: to port 0xcf8, 4 bytes."""
    pci_cf8: int = 0
    paused: bool = False
    is_dying: bool = False
    """It was destroyed; it is still here because of frames that another domain has mapped."""
    shutdown_code: int | None = None
    shutdown_reason: str = ""
    start_info: Mfn = INVALID_MFN
    e820: bytes = b""
    """What XENMEM_memory_map shows: the struct boot_e820_entry that XENMEM_set_memory_map was given."""
    hypercalls: list[int] = field(default_factory=lambda: [0] * (NR_HYPERCALLS + 1))
    """How often each was called, by number, those in a multicall included; the last: all with a number beyond."""
    pirqs: Pirqs = field(default_factory=Pirqs)
    event_channels: "EventChannels" = field(init=False)
    grant_table: "GrantTable" = field(init=False)
    console: "ConsoleState" = field(init=False)
    xenstore: "XenstoreState" = field(init=False)
    disks: "dict[int, BlockDevice]" = field(default_factory=dict)
    """By the numbers of their devices in the store."""

    @property
    def shared_info_maddr(self) -> Maddr:
        """Where struct shared_info is in RAM."""
        return mfn_to_maddr(self.shared_info)

    def page_mfn(self, pfn: Pfn) -> Mfn | None:
        """The frame that M2P pairs with `pfn`, or None; for tools that look at the domain from outside."""
        return self.hv.page_info.mfn_of(self.domid, pfn)

    def describe(self) -> dict[str, Any]:
        """The state in one row, as `xl list` shows it."""
        if self.is_dying:
            state = "dying"
        elif self.shutdown_code is not None:
            state = "crashed" if self.shutdown_code == 3 else "shutdown"
        elif self.paused:
            state = "paused"
        elif any(vcpu.runnable for vcpu in self.vcpus):
            state = "running"
        else:
            state = "blocked"
        return {
            "domid": self.domid,
            "name": self.name,
            "pages": self.nr_pages,
            "vcpus": len(self.vcpus),
            "state": state,
        }
