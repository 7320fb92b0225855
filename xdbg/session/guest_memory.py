"""A domain's memory as a guest profile wants to see it: by address space, without ever faulting the guest."""

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.machine.paging import read_virtual
from xdbg.xen.domain import Domain
from xdbg.xen.setup import Hypervisor


class DomainMemory:
    """Reads through the kernel's page table of vcpu 0, or through any other."""

    def __init__(self, hv: Hypervisor, domain: Domain) -> None:
        self._hv = hv
        self._domain = domain

    def read_kernel(self, vaddr: Vaddr, length: int) -> bytes:
        """Bytes in the kernel's address space. Raises `NotMappedError`."""
        return self.read(self._domain.vcpus[0].kernel_cr3, vaddr, length)

    def read(self, cr3: Maddr, vaddr: Vaddr, length: int) -> bytes:
        """Bytes in the address space of `cr3`. Raises `NotMappedError`."""
        return read_virtual(self._hv.ram, cr3, vaddr, length)
