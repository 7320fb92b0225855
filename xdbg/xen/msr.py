"""Which model-specific registers a PV guest has. Xen: arch/x86/msr.c, pv/emul-priv-op.c, cpu/mcheck/vmce.c.

Every register is decided here for an unprivileged domain on an Intel processor with CPUID faulting, without performance
counters for guests: it has a value, or writes to it are dropped, or it is #GP. What no table names is #GP.
"""

from collections.abc import Callable
from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SHIFT, Mfn, mfn_to_maddr
from xdbg.abi.x86 import Efer, Msr, Vector

from .callback import is_canonical
from .events import MemoryWritten
from .faults import HypercallError
from .hypercall_page import hypercall_page
from .page_info import PGT_WRITABLE_PAGE
from .page_table_types import get_page_and_type, put_page_and_type
from .vcpu import Vcpu

_U32: Final = 0xFFFF_FFFF
_XEN_PAT: Final = 0x0000_0501_0007_0406
_EFER: Final = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
_APIC_BASE: Final = 0xFEE0_0800
_APIC_BASE_BSP: Final = 0x100
_CPUID_FAULTING: Final = 1
"""The bit of MISC_FEATURES_ENABLES."""
_HYPERCALL_PAGE: Final = 0x4000_0000

_PERFORMANCE: Final = (
    *range(0xC1, 0xC9),  # P6_PERFCTR
    *range(0x186, 0x18A),  # P6_EVNTSEL
    *range(0x309, 0x30C),  # CORE_PERF_FIXED_CTR
    *range(0x38D, 0x391),  # CORE_PERF_FIXED_CTR_CTRL to GLOBAL_OVF_CTRL
)
"""Counters: without them in the guest they read as 0, and writes are dropped. Xen: vpmu_do_msr()."""
_MC_CTL2: Final = range(0x280, 0x2A0)
_MC_BANKS: Final = range(0x400, 0x480)
"""CTL, STATUS, ADDR, MISC of 32 banks of machine-check registers."""

_VALUES: Final[dict[int, int]] = {
    0x00: 0,  # P5_MC_ADDR
    0x01: 0,  # P5_MC_TYPE
    Msr.PLATFORM_ID: 0,
    Msr.FEATURE_CONTROL: 1,  # locked, and nothing enabled
    Msr.UCODE_REV: 0,
    Msr.PLATFORM_INFO: 1 << 31,  # CPUID faulting
    Msr.MCG_CAP: 0x0100_0802,  # software error recovery, threshold status; 2 banks
    0x17B: 0,  # MCG_CTL
    Msr.PERF_STATUS: 0,
    Msr.PERF_CTL: 0,
    Msr.THERM_STATUS: 0,
    Msr.MISC_ENABLE: 0x0080_1801,  # fast strings; branch trace, PEBS and xTPR messages unavailable
    Msr.PAT: _XEN_PAT,
    0x345: 0,  # PERF_CAPABILITIES
    Msr.EFER: _EFER,
    0xC001_001F: 0,  # AMD64_NB_CFG, whoever made the processor
    _HYPERCALL_PAGE: 0,  # write-only
    **dict.fromkeys(_PERFORMANCE, 0),
    **dict.fromkeys(_MC_CTL2, 0),
    **{msr: 0 if msr & 3 else (1 << 64) - 1 for msr in _MC_BANKS},
}
"""Registers that always read the same."""

_DROPPED: Final = frozenset(
    {
        int(Msr.PERF_CTL),
        int(Msr.MISC_ENABLE),
        int(Msr.MCG_CAP),
        0x17B,  # MCG_CTL
        0xE7,  # MPERF
        0xE8,  # APERF
        0x19A,  # THERM_CONTROL
        0x1B0,  # ENERGY_PERF_BIAS
        0xC001_001F,
        *_PERFORMANCE,
        *_MC_CTL2,
        *(msr for msr in _MC_BANKS if not msr & 3),
    }
)
"""Registers to which any value may be written, without effect."""

_OF_THE_CPU: Final = frozenset(int(msr) for msr in Msr if msr < 0xC001_0000) | _VALUES.keys() - {_HYPERCALL_PAGE}
"""What the processor has: these a guest without a #GP handler may read, as zero."""


def read_msr(vcpu: Vcpu, msr: int) -> int | None:
    """The value of a register of the current vcpu, None for #GP. Xen: guest_rdmsr(), read_msr()."""
    value = _READERS[msr](vcpu) if msr in _READERS else _VALUES.get(msr)
    if value is None and msr in _OF_THE_CPU and vcpu.trap_table[Vector.GP] is None:
        # Early in its boot a kernel has no #GP handler yet and expects the old, lax behaviour.
        return 0
    return value


def write_msr(vcpu: Vcpu, msr: int, value: int) -> bool:
    """Write a register of the current vcpu; False for #GP. Xen: guest_wrmsr(), write_msr()."""
    if msr in _DROPPED:
        return True
    if msr in _MC_BANKS or msr == Msr.UCODE_REV:
        return value == 0
    writer = _WRITERS.get(msr)
    return writer is not None and writer(vcpu, value)


def _read_fs_base(vcpu: Vcpu) -> int:
    return int(vcpu.domain.hv.cpu.fs_base)


def _read_gs_base(vcpu: Vcpu) -> int:
    return int(vcpu.domain.hv.cpu.gs_base)


def _write_fs_base(vcpu: Vcpu, value: int) -> bool:
    if is_canonical(value):
        vcpu.domain.hv.cpu.fs_base = value
    return is_canonical(value)


def _write_gs_base(vcpu: Vcpu, value: int) -> bool:
    if is_canonical(value):
        vcpu.domain.hv.cpu.gs_base = value
    return is_canonical(value)


def _write_user_gs_base(vcpu: Vcpu, value: int) -> bool:
    if is_canonical(value):
        vcpu.gs_base_user = value
    return is_canonical(value)


def _write_efer(vcpu: Vcpu, value: int) -> bool:
    return value == _EFER


def _write_mcg_status(vcpu: Vcpu, value: int) -> bool:
    vcpu.mcg_status = value
    return True


def _write_misc_features(vcpu: Vcpu, value: int) -> bool:
    if value & ~_CPUID_FAULTING:
        return False
    vcpu.cpuid_faulting = bool(value)
    return True


def _write_tsc_aux(vcpu: Vcpu, value: int) -> bool:
    if value > _U32:
        return False
    vcpu.tsc_aux = vcpu.domain.hv.cpu.tsc_aux = value
    return True


def _write_hypercall_page(vcpu: Vcpu, value: int) -> bool:
    """Fill a frame of the guest's with call stubs; the low bits choose one of several pages, of which there is one."""
    hv, mfn = vcpu.domain.hv, Mfn(value >> PAGE_SHIFT)
    if value & PAGE_MASK:
        return False
    try:
        get_page_and_type(hv, mfn, vcpu.domain.domid, PGT_WRITABLE_PAGE)
    except HypercallError:
        return False
    page = hypercall_page()
    hv.ram.write(mfn_to_maddr(mfn), page)
    put_page_and_type(hv, mfn)
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(mfn_to_maddr(mfn), len(page)))
    return True


_READERS: Final[dict[int, Callable[[Vcpu], int]]] = {
    Msr.TSC: lambda vcpu: vcpu.domain.hv.now(),
    Msr.APIC_BASE: lambda vcpu: _APIC_BASE | (0 if vcpu.vcpu_id else _APIC_BASE_BSP),
    Msr.MISC_FEATURES_ENABLES: lambda vcpu: int(vcpu.cpuid_faulting),
    Msr.MCG_STATUS: lambda vcpu: vcpu.mcg_status,
    Msr.TSC_AUX: lambda vcpu: vcpu.tsc_aux,
    Msr.FS_BASE: _read_fs_base,
    Msr.GS_BASE: _read_gs_base,
    Msr.SHADOW_GS_BASE: lambda vcpu: vcpu.gs_base_user,
}
"""Registers that a vcpu has of its own."""

_WRITERS: Final[dict[int, Callable[[Vcpu, int], bool]]] = {
    Msr.MISC_FEATURES_ENABLES: _write_misc_features,
    Msr.MCG_STATUS: _write_mcg_status,
    Msr.TSC_AUX: _write_tsc_aux,
    Msr.EFER: _write_efer,
    Msr.FS_BASE: _write_fs_base,
    Msr.GS_BASE: _write_gs_base,
    Msr.SHADOW_GS_BASE: _write_user_gs_base,
    _HYPERCALL_PAGE: _write_hypercall_page,
}
