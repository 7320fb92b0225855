"""System time and the wall clock, as a guest computes them. Xen: arch/x86/time.c.

System time is in ns and a function of executed instructions, see `Hypervisor.now`. The TSC is the same number: 1 GHz.
A guest reads the TSC and scales it with its `vcpu_time_info`, under a version that is odd while Xen writes. Since both
clocks are one the record never has to be renewed; it is written when a vcpu gets a new place for it.

The wall clock is system time on top of a fixed date, so that a run can be repeated.
"""

from typing import Final

from xdbg.abi.frames import Maddr
from xdbg.abi.shared_info import XEN_PVCLOCK_TSC_STABLE_BIT, SharedInfo, VcpuInfo, VcpuTimeInfo

from .domain import Domain
from .events import MemoryWritten
from .runstate import write_kernel_area
from .vcpu import Vcpu

TSC_HZ: Final = 1_000_000_000
"""Ticks of the TSC in a second of system time."""
TSC_TO_SYSTEM_MUL: Final = 0x8000_0000
"""With a shift of 1: ns = (ticks << 1) * 2^31 >> 32 = ticks."""
TSC_SHIFT: Final = 1
BOOT_WALLCLOCK_S: Final = 1_136_073_600
"""What the wall clock says at system time 0: 2006-01-01 00:00 UTC, in seconds since 1970."""

_TIME = VcpuInfo.offset_of("time")


def time_info(vcpu: Vcpu) -> VcpuTimeInfo:
    """The record for `now`; its version is 0. Xen: collect_time_info."""
    now_ns = vcpu.domain.hv.now()
    info = VcpuTimeInfo()
    info.tsc_timestamp = now_ns
    info.system_time = now_ns
    info.tsc_to_system_mul = TSC_TO_SYSTEM_MUL
    info.tsc_shift = TSC_SHIFT
    info.flags = XEN_PVCLOCK_TSC_STABLE_BIT
    return info


def update_time_info(vcpu: Vcpu, through: Vcpu | None = None) -> None:
    """Write the vcpu's time record, in vcpu_info and in the second place if the guest asked for one.

    That place is found by the page table of `through`, who asks for it, or of the vcpu itself.
    Xen: force_update_vcpu_system_time().
    """
    hv = vcpu.domain.hv
    maddr = Maddr(vcpu.vcpu_info + _TIME)
    info = time_info(vcpu)
    info.version = (hv.ram.read_u32(maddr) | 1) + 1 & 0xFFFF_FFFF
    hv.ram.write(maddr, info.to_bytes())
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(maddr, VcpuTimeInfo.SIZE))
    if vcpu.time_area:
        write_kernel_area(through or vcpu, vcpu.time_area, info.to_bytes())


def init_wallclock(domain: Domain) -> None:
    """Write the date of system time 0 to shared_info. Xen: update_domain_wallclock_time()."""
    shared = SharedInfo.at(domain.hv.ram, domain.shared_info_maddr)
    shared.wc_version = (shared.wc_version | 1) + 1 & 0xFFFF_FFFF
    shared.wc_sec = BOOT_WALLCLOCK_S & 0xFFFF_FFFF
    shared.wc_sec_hi = BOOT_WALLCLOCK_S >> 32
    shared.wc_nsec = 0
