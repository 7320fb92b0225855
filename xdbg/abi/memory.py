"""Memory of a domain: memory_op. Xen public/memory.h."""

from typing import Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U8, U16, U32, U64, CStruct, CUnion, GuestHandle, abi

MEMOP_EXTENT_SHIFT: Final = 6
"""Above the command in the first argument of memory_op: the extent at which a continuation goes on.

Xen include/xen/hypercall.h.
"""
MEMOP_CMD_MASK: Final = (1 << MEMOP_EXTENT_SHIFT) - 1
XENMEMF_POPULATE_ON_DEMAND: Final = 1 << 16
"""Bits of `mem_flags` of struct xen_memory_reservation; the 8 lowest are the width of an address."""
XENMEMF_EXACT_NODE_REQUEST: Final = 1 << 17
XENMEMF_VNODE: Final = 1 << 18
XENMAPIDX_GRANT_TABLE_STATUS: Final = 0x80000000
XENMEM_RESOURCE_IOREQ_SERVER: Final = 0
"""Values of `type` of struct xen_mem_acquire_resource."""
XENMEM_RESOURCE_GRANT_TABLE: Final = 1
XENMEM_RESOURCE_VMTRACE_BUF: Final = 2


XENMEM_RDM_ALL: Final = 1
"""Bit of `flags` of struct xen_reserved_device_memory_map: those of all devices."""


class XenMem(CEnum, prefix="XENMEM_"):
    """XENMEM_*: first argument of memory_op. Xen public/memory.h."""

    INCREASE_RESERVATION = 0
    DECREASE_RESERVATION = 1
    MAXIMUM_RAM_PAGE = 2
    CURRENT_RESERVATION = 3
    MAXIMUM_RESERVATION = 4
    MACHPHYS_MFN_LIST = 5
    POPULATE_PHYSMAP = 6
    ADD_TO_PHYSMAP = 7
    MEMORY_MAP = 9
    MACHINE_MEMORY_MAP = 10
    EXCHANGE = 11
    MACHPHYS_MAPPING = 12
    SET_MEMORY_MAP = 13
    MAXIMUM_GPFN = 14
    REMOVE_FROM_PHYSMAP = 15
    SET_POD_TARGET = 16
    GET_POD_TARGET = 17
    GET_SHARING_FREED_PAGES = 18
    GET_SHARING_SHARED_PAGES = 19
    PAGING_OP = 20
    ACCESS_OP = 21
    SHARING_OP = 22
    ADD_TO_PHYSMAP_BATCH = 23
    CLAIM_PAGES = 24
    MACHPHYS_COMPAT_MFN_LIST = 25
    GET_VNUMAINFO = 26
    RESERVED_DEVICE_MEMORY_MAP = 27
    ACQUIRE_RESOURCE = 28


class XenMapSpace(CEnum, prefix="XENMAPSPACE_"):
    """XENMAPSPACE_*: `space` of struct xen_add_to_physmap. Xen public/memory.h."""

    SHARED_INFO = 0
    GRANT_TABLE = 1
    GMFN = 2
    GMFN_RANGE = 3
    GMFN_FOREIGN = 4
    DEV_MMIO = 5


class E820Type(CEnum):
    """Type of a range of memory. ACPI specification, "Address Range Types"."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


@abi(size=20, tag="boot_e820_entry")
class E820Entry(CStruct):
    """One range of XENMEM_memory_map, packed; `type` is an E820Type.

    Xen asm-x86/e820.h, struct e820entry; Linux asm/bootparam.h.
    """

    _pack_ = 1
    addr: U64
    size: U64
    type: U32


@abi(size=32)
class XenMemoryReservation(CStruct):
    """struct xen_memory_reservation: extents of 2**extent_order pages, a U64 frame number each. Xen public/memory.h."""

    extent_start: GuestHandle
    nr_extents: U64
    extent_order: U32
    mem_flags: U32
    domid: U16


@abi(size=72)
class XenMemoryExchange(CStruct):
    """struct xen_memory_exchange: gives the frames of `in_` back for those of `out`. Xen public/memory.h."""

    in_: XenMemoryReservation
    out: XenMemoryReservation
    nr_exchanged: U64


@abi(size=2)
class XenMemoryDomain(CStruct):
    """struct xen_memory_domain: argument of current_reservation, maximum_reservation and maximum_gpfn.

    Xen public/memory.h.
    """

    domid: U16


@abi(size=24)
class XenMachphysMfnList(CStruct):
    """struct xen_machphys_mfn_list: frames of the m2p, one a 2 MiB. Xen public/memory.h."""

    max_extents: U32
    extent_start: GuestHandle
    nr_extents: U32


@abi(size=24)
class XenMachphysMapping(CStruct):
    """struct xen_machphys_mapping: where the m2p is mapped. Xen public/memory.h."""

    v_start: U64
    v_end: U64
    max_mfn: U64


@abi(size=24)
class XenAddToPhysmap(CStruct):
    """struct xen_add_to_physmap: `space` is a XenMapSpace. Xen public/memory.h."""

    domid: U16
    size: U16
    space: U32
    idx: U64
    gpfn: U64


@abi(size=2, tag="xen_add_to_physmap_batch_extra")
class XenAddToPhysmapBatchExtra(CUnion):
    """union xen_add_to_physmap_batch_extra. Xen public/memory.h."""

    foreign_domid: U16
    res0: U16


@abi(size=32)
class XenAddToPhysmapBatch(CStruct):
    """struct xen_add_to_physmap_batch: arrays of `size` U64, U64 and S32. Xen public/memory.h."""

    domid: U16
    space: U16
    size: U16
    u: XenAddToPhysmapBatchExtra
    idxs: GuestHandle
    gpfns: GuestHandle
    errs: GuestHandle


@abi(size=16)
class XenRemoveFromPhysmap(CStruct):
    """struct xen_remove_from_physmap. Xen public/memory.h."""

    domid: U16
    gpfn: U64


@abi(size=16)
class XenMemoryMap(CStruct):
    """struct xen_memory_map: in the room, out the number of E820Entry at `buffer`. Xen public/memory.h."""

    nr_entries: U32
    buffer: GuestHandle


@abi(size=24)
class XenForeignMemoryMap(CStruct):
    """struct xen_foreign_memory_map: argument of set_memory_map. Xen public/memory.h."""

    domid: U16
    map: XenMemoryMap


@abi(size=40)
class XenPodTarget(CStruct):
    """struct xen_pod_target. Xen public/memory.h."""

    target_pages: U64
    tot_pages: U64
    pod_cache_pages: U64
    pod_entries: U64
    domid: U16


@abi(size=32)
class XenMemAccessOp(CStruct):
    """struct xen_mem_access_op. Xen public/memory.h."""

    op: U8
    access: U8
    domid: U16
    nr: U32
    pfn: U64
    pfn_list: GuestHandle
    access_list: GuestHandle


@abi(size=24)
class XenReservedDeviceMemoryMap(CStruct):
    """struct xen_reserved_device_memory_map; `dev` is the segment, bus, device and function. Xen public/memory.h."""

    flags: U32
    nr_entries: U32
    buffer: GuestHandle
    dev: U32


@abi(size=32)
class XenMemAcquireResource(CStruct):
    """struct xen_mem_acquire_resource. Xen public/memory.h."""

    domid: U16
    type: U16
    id: U32
    nr_frames: U32
    pad: U32
    frame: U64
    frame_list: GuestHandle


@abi(size=24)
class XenVmemrange(CStruct):
    """struct xen_vmemrange: memory of a virtual NUMA node. Xen public/memory.h."""

    start: U64
    end: U64
    flags: U32
    nid: U32


@abi(size=8, tag="")
class XenVnumaArray(CUnion):
    """vdistance, vcpu_to_vnode and vmemrange of struct xen_vnuma_topology_info. Xen public/memory.h."""

    h: GuestHandle
    pad: U64


@abi(size=40)
class XenVnumaTopologyInfo(CStruct):
    """struct xen_vnuma_topology_info. Xen public/memory.h."""

    domid: U16
    pad: U16
    nr_vnodes: U32
    nr_vcpus: U32
    nr_vmemranges: U32
    vdistance: XenVnumaArray
    vcpu_to_vnode: XenVnumaArray
    vmemrange: XenVnumaArray
