"""The page that a domain shares with Xen: pending events, time, the guest's p2m.

Xen public/xen.h, public/arch-x86/xen.h.

Both sides write to it at any time. Time is read under a version: odd while Xen writes, and the same before and after
a good read.
"""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cstruct import S8, U8, U32, U64, ByteArray, CStruct, abi

XEN_LEGACY_MAX_VCPUS: Final = 32
"""Vcpus whose vcpu_info is in shared_info; others register theirs by VCPUOP_register_vcpu_info."""
XEN_PVCLOCK_TSC_STABLE_BIT: Final = 1
"""Bit of VcpuTimeInfo.flags: the clocks of all vcpus agree."""
XEN_PVCLOCK_GUEST_STOPPED: Final = 2
"""Bit of VcpuTimeInfo.flags: the guest was paused."""

_Words = ctypes.Array[ctypes.c_uint64]


@abi(size=16)
class ArchVcpuInfo(CStruct):
    """struct arch_vcpu_info: `cr2` is the address of the last page fault that was bounced.

    Xen public/arch-x86/xen-x86_64.h.
    """

    cr2: U64
    pad: U64


@abi(size=32)
class VcpuTimeInfo(CStruct):
    """struct vcpu_time_info: system_time, ns, at tsc_timestamp, and the scale from there on. Xen public/xen.h.

    now = system_time + ((((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul) >> 32)
    """

    version: U32
    pad0: U32
    tsc_timestamp: U64
    system_time: U64
    tsc_to_system_mul: U32
    tsc_shift: S8
    flags: U8
    pad1: Annotated[ByteArray, ctypes.c_uint8 * 2]


@abi(size=64)
class VcpuInfo(CStruct):
    """struct vcpu_info: a vcpu's upcall state and clock. Xen public/xen.h."""

    evtchn_upcall_pending: U8
    evtchn_upcall_mask: U8
    evtchn_pending_sel: U64
    arch: ArchVcpuInfo
    time: VcpuTimeInfo


@abi(size=48)
class ArchSharedInfo(CStruct):
    """struct arch_shared_info: where the guest's p2m is, for save and for debuggers. Xen public/arch-x86/xen.h."""

    max_pfn: U64
    pfn_to_mfn_frame_list_list: U64
    nmi_reason: U64
    p2m_cr3: U64
    p2m_vaddr: U64
    p2m_generation: U64


@abi(size=3136)
class SharedInfo(CStruct):
    """struct shared_info: wc_* is the wall clock, s and ns since 1970, at system time 0. Xen public/xen.h."""

    vcpu_info: Annotated[ctypes.Array[VcpuInfo], VcpuInfo * XEN_LEGACY_MAX_VCPUS]
    evtchn_pending: Annotated[_Words, ctypes.c_uint64 * 64]
    evtchn_mask: Annotated[_Words, ctypes.c_uint64 * 64]
    wc_version: U32
    wc_sec: U32
    wc_nsec: U32
    wc_sec_hi: U32
    arch: ArchSharedInfo
