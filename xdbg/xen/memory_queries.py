"""The commands of memory_op that work on no list of extents. Xen: common/memory.c, arch/x86/mm.c, x86_64/mm.c.

Sizes of machine and domain, where the M2P is, the domain's own E820, and everything that an unprivileged PV domain does
not get: the checks that come before the refusal are those of Xen, in its order, so that the errno is Xen's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.memory import (
    XENMEM_RDM_ALL,
    E820Entry,
    XenAddToPhysmap,
    XenAddToPhysmapBatch,
    XenForeignMemoryMap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMapSpace,
    XenMem,
    XenMemAccessOp,
    XenMemAcquireResource,
    XenMemoryDomain,
    XenMemoryMap,
    XenMemoryReservation,
    XenPodTarget,
    XenRemoveFromPhysmap,
    XenReservedDeviceMemoryMap,
    XenVnumaTopologyInfo,
)
from xdbg.abi.shared_info import ArchSharedInfo, SharedInfo
from xdbg.abi.x86 import MACH2PHYS_NR_ENTRIES, MACH2PHYS_VIRT_END, MACH2PHYS_VIRT_START

from .domain_lookup import domain_exists
from .faults import HypercallError
from .guest_access import address_ok, copy_from_guest, copy_to_guest, read_struct, write_struct
from .memory_extents import any_domain, own_domain, remote_domain
from .vcpu import Vcpu

_M2P_EXTENT: Final = 512
"""Frames of the M2P that one extent of machphys_mfn_list stands for: 2 MiB."""
_E820_MAX: Final = 1024
"""Entries of the largest E820. Xen: E820MAX."""
_U16: Final = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Query:
    """A command: its function, and the errno for an extent to continue at that it can't have.

    A physmap command takes any of 16 bits.
    """

    answer: Callable[[Vcpu, int], int]
    bad_start: Errno = Errno.EINVAL
    largest_start: int = 0

    def check_start(self, start: int) -> None:
        """Raise the errno for the bits above the command."""
        if start > self.largest_start:
            raise HypercallError(self.bad_start)


# -- sizes


def _maximum_ram_page(vcpu: Vcpu, _arg: int) -> int:
    """The machine's number of frames: Xen returns max_page."""
    return vcpu.domain.hv.page_info.nr_frames


def _current_reservation(vcpu: Vcpu, arg: int) -> int:
    return own_domain(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid).nr_pages


def _maximum_reservation(vcpu: Vcpu, arg: int) -> int:
    return own_domain(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid).max_pages


def _maximum_gpfn(vcpu: Vcpu, arg: int) -> int:
    """What the guest itself wrote into shared_info, as the number of its last pfn."""
    domain = own_domain(vcpu, read_struct(vcpu, arg, XenMemoryDomain).domid)
    at = domain.shared_info_maddr + SharedInfo.offset_of("arch") + ArchSharedInfo.offset_of("max_pfn")
    return max(domain.hv.ram.read_u64(at), 1) - 1


# -- the M2P


def _machphys_mfn_list(vcpu: Vcpu, arg: int) -> int:
    """The frames of the M2P, the first one of every 2 MiB."""
    request = read_struct(vcpu, arg, XenMachphysMfnList)
    frames = vcpu.domain.hv.m2p.table_frames[::_M2P_EXTENT][: request.max_extents]
    copy_to_guest(vcpu, request.extent_start, b"".join(mfn.to_bytes(8, "little") for mfn in frames))
    request.nr_extents = len(frames)
    write_struct(vcpu, arg, request)
    return 0


def _machphys_compat_mfn_list(_vcpu: Vcpu, _arg: int) -> int:
    """There are no 32-bit PV guests, as with pv=no-32 on Xen's command line."""
    raise HypercallError(Errno.EOPNOTSUPP)


def _machphys_mapping(vcpu: Vcpu, arg: int) -> int:
    """Where the M2P is, and the highest mfn that it could have room for."""
    write_struct(vcpu, arg, XenMachphysMapping(MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_END, MACH2PHYS_NR_ENTRIES - 1))
    return 0


# -- E820


def _set_memory_map(vcpu: Vcpu, arg: int) -> int:
    """A domain may give itself an E820; no toolstack gives one to a PV domain unless it is asked to."""
    request = read_struct(vcpu, arg, XenForeignMemoryMap)
    if request.map.nr_entries > _E820_MAX:
        raise HypercallError(Errno.EINVAL)
    domain = own_domain(vcpu, request.domid)
    domain.e820 = copy_from_guest(vcpu, request.map.buffer, request.map.nr_entries * E820Entry.SIZE)
    return 0


def _memory_map(vcpu: Vcpu, arg: int) -> int:
    """As much of the domain's E820 as there is room for; -ENOSYS if it has none."""
    request = read_struct(vcpu, arg, XenMemoryMap)
    e820 = vcpu.domain.e820
    if not e820:
        raise HypercallError(Errno.ENOSYS)
    request.nr_entries = min(request.nr_entries, len(e820) // E820Entry.SIZE)
    copy_to_guest(vcpu, request.buffer, e820[: request.nr_entries * E820Entry.SIZE])
    write_struct(vcpu, arg, request)
    return 0


def _machine_memory_map(_vcpu: Vcpu, _arg: int) -> int:
    """Xen: XSM_PRIV."""
    raise HypercallError(Errno.EPERM)


# -- what is for translated, privileged or special domains


def _add_to_physmap(vcpu: Vcpu, arg: int) -> int:
    """Only domains whose p2m is Xen's have one to add to. Xen: xatp_permission_check()."""
    request = read_struct(vcpu, arg, XenAddToPhysmap)
    if request.space == XenMapSpace.GMFN_FOREIGN:
        raise HypercallError(Errno.ENOSYS)
    any_domain(vcpu, request.domid)
    raise HypercallError(Errno.EACCES)


def _add_to_physmap_batch(vcpu: Vcpu, arg: int) -> int:
    request = read_struct(vcpu, arg, XenAddToPhysmapBatch)
    if request.space == XenMapSpace.GMFN_RANGE:
        raise HypercallError(Errno.EOPNOTSUPP)
    any_domain(vcpu, request.domid)
    raise HypercallError(Errno.EACCES)


def _remove_from_physmap(vcpu: Vcpu, arg: int) -> int:
    any_domain(vcpu, read_struct(vcpu, arg, XenRemoveFromPhysmap).domid)
    raise HypercallError(Errno.EACCES)


def _pod_target(vcpu: Vcpu, arg: int) -> int:
    """Populate-on-demand is for HVM domains."""
    any_domain(vcpu, read_struct(vcpu, arg, XenPodTarget).domid)
    raise HypercallError(Errno.EINVAL)


def _no_shared_pages(_vcpu: Vcpu, _arg: int) -> int:
    """Xen shares no pages, and so saves none. Xen: mem_sharing_get_nr_shared_mfns()."""
    return 0


def _access_op(vcpu: Vcpu, arg: int) -> int:
    """Another domain would have to be HVM. Xen: mem_access_memop()."""
    remote_domain(vcpu, read_struct(vcpu, arg, XenMemAccessOp).domid)
    raise HypercallError(Errno.EINVAL)


def _claim_pages(vcpu: Vcpu, arg: int) -> int:
    """Xen: XSM_PRIV, after the checks of the request; DOMID_SELF names nobody here."""
    request = read_struct(vcpu, arg, XenMemoryReservation)
    if (
        request.extent_start
        or request.extent_order
        or request.mem_flags
        or not domain_exists(vcpu.domain.hv, request.domid)
    ):
        raise HypercallError(Errno.EINVAL)
    raise HypercallError(Errno.EPERM)


def _get_vnumainfo(vcpu: Vcpu, arg: int) -> int:
    """No domain has virtual NUMA."""
    request = read_struct(vcpu, arg, XenVnumaTopologyInfo)
    if request.pad:
        raise HypercallError(Errno.EINVAL)
    own_domain(vcpu, request.domid)
    raise HypercallError(Errno.EOPNOTSUPP)


def _reserved_device_memory_map(vcpu: Vcpu, arg: int) -> int:
    """No IOMMU reserves memory for a device: the list is empty."""
    request = read_struct(vcpu, arg, XenReservedDeviceMemoryMap)
    if not address_ok(request.buffer):
        raise HypercallError(Errno.EFAULT)
    if request.flags & ~XENMEM_RDM_ALL:
        raise HypercallError(Errno.EINVAL)
    request.nr_entries = 0
    write_struct(vcpu, arg, request)
    return 0


def _acquire_resource(vcpu: Vcpu, arg: int) -> int:
    """Resources are mapped by who controls another domain. Xen: acquire_resource(), XSM_DM_PRIV."""
    request = read_struct(vcpu, arg, XenMemAcquireResource)
    if request.pad or request.frame >> 32 or request.frame + request.nr_frames >> 32:
        raise HypercallError(Errno.EINVAL)
    remote_domain(vcpu, request.domid)
    raise HypercallError(Errno.EPERM)


_UNKNOWN_WITH_START: Final = Errno.ENOSYS
"""Commands of the architecture's own part compare the whole of the first argument."""
_ANY_START: Final = (1 << 58) - 1


def _arch(answer: Callable[[Vcpu, int], int]) -> Query:
    return Query(answer, _UNKNOWN_WITH_START)


QUERIES: Final[dict[int, Query]] = {
    XenMem.MAXIMUM_RAM_PAGE: Query(_maximum_ram_page),
    XenMem.CURRENT_RESERVATION: Query(_current_reservation),
    XenMem.MAXIMUM_RESERVATION: Query(_maximum_reservation),
    XenMem.MAXIMUM_GPFN: Query(_maximum_gpfn),
    XenMem.MACHPHYS_MFN_LIST: _arch(_machphys_mfn_list),
    XenMem.MACHPHYS_COMPAT_MFN_LIST: _arch(_machphys_compat_mfn_list),
    XenMem.MACHPHYS_MAPPING: _arch(_machphys_mapping),
    XenMem.MEMORY_MAP: _arch(_memory_map),
    XenMem.SET_MEMORY_MAP: _arch(_set_memory_map),
    XenMem.MACHINE_MEMORY_MAP: _arch(_machine_memory_map),
    XenMem.ADD_TO_PHYSMAP: Query(_add_to_physmap, Errno.EDOM, _U16),
    XenMem.ADD_TO_PHYSMAP_BATCH: Query(_add_to_physmap_batch, Errno.EDOM, _U16),
    XenMem.REMOVE_FROM_PHYSMAP: Query(_remove_from_physmap),
    XenMem.SET_POD_TARGET: _arch(_pod_target),
    XenMem.GET_POD_TARGET: _arch(_pod_target),
    XenMem.GET_SHARING_FREED_PAGES: _arch(_no_shared_pages),
    XenMem.GET_SHARING_SHARED_PAGES: _arch(_no_shared_pages),
    XenMem.ACCESS_OP: Query(_access_op, largest_start=_ANY_START),
    XenMem.CLAIM_PAGES: Query(_claim_pages),
    XenMem.GET_VNUMAINFO: Query(_get_vnumainfo),
    XenMem.RESERVED_DEVICE_MEMORY_MAP: Query(_reserved_device_memory_map),
    XenMem.ACQUIRE_RESOURCE: Query(_acquire_resource, largest_start=_ANY_START),
}
"""Each command and what answers it; any other is -ENOSYS (paging_op and sharing_op are not built by default)."""
