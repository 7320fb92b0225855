"""What CPUID says to a PV guest. Xen: arch/x86/cpuid.c, pv/emul-priv-op.c; SDM volume 2, "CPUID".

The processor is an Intel one of 2010 (a Westmere: SSE4.2, AES, PCLMUL, RDTSCP; no XSAVE, no AVX), but with CPUID
faulting: each `cpuid` of a guest goes to Xen, in kernel and user mode, with and without the forced-emulation prefix.
Of its features a guest gets those that Xen 4.17 gives every PV domain by default. Nothing depends on the host. Leaves
from 0x40000000 are Xen's own.
"""

from typing import Final

from .vcpu import Vcpu
from .version import XEN_MAJOR_VERSION, XEN_MINOR_VERSION

XEN_BASE = 0x4000_0000
XEN_LEAVES = 5
TSC_KHZ = 1_000_000
"""One instruction is one tick is one nanosecond."""

Leaf = tuple[int, int, int, int]

_MAX_BASIC = 0xB
_MAX_EXTENDED = 0x8000_0008
_ZERO: Leaf = (0, 0, 0, 0)


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def _text(text: bytes) -> tuple[int, ...]:
    """Register values of a string, four bytes each."""
    return tuple(int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4))


_VENDOR = _text(b"GenuineIntel")
_BRAND = _text(b"xdbg emulated CPU @ 1.00GHz".ljust(48, b"\0"))
_SIGNATURE = _text(b"XenVMMXenVMM")

_LEAF1_EDX = _bits(
    0,  # FPU
    2,  # DE
    4,  # TSC
    5,  # MSR
    6,  # PAE
    7,  # MCE
    8,  # CX8
    9,  # APIC
    11,  # SEP
    14,  # MCA
    15,  # CMOV
    16,  # PAT
    19,  # CLFSH
    22,  # ACPI
    23,  # MMX
    24,  # FXSR
    25,  # SSE
    26,  # SSE2
    27,  # self snoop
)
_LEAF1_ECX = _bits(
    0,  # SSE3
    1,  # PCLMULQDQ
    9,  # SSSE3
    13,  # CX16
    19,  # SSE4.1
    20,  # SSE4.2
    23,  # POPCNT
    25,  # AES
    31,  # hypervisor present
)
_EXT1_EDX = _bits(
    11,  # SYSCALL
    20,  # NX
    27,  # RDTSCP
    29,  # long mode
)
_EXT1_ECX = _bits(0)  # LAHF in long mode

_TABLE: Final[dict[int, Leaf]] = {
    0: (_MAX_BASIC, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    1: (0x0002_06C2, 0x0000_0800, _LEAF1_ECX, _LEAF1_EDX),  # family 6, model 44; CLFLUSH of 64 bytes
    2: (0x0055_0101, 0, 0, 0x2CB4_3030),
    0x8000_0000: (_MAX_EXTENDED, 0, 0, 0),
    0x8000_0001: (0, 0, _EXT1_ECX, _EXT1_EDX),
    0x8000_0002: _BRAND[0:4],  # type: ignore[dict-item]
    0x8000_0003: _BRAND[4:8],  # type: ignore[dict-item]
    0x8000_0004: _BRAND[8:12],  # type: ignore[dict-item]
    0x8000_0008: (0x3028, 0, 0, 0),  # 40 bits of machine address, 48 of virtual
}
"""The leaves that do not depend on the domain. Those of power, topology and counters Xen hides, and the invariant
TSC.
"""

_CACHES: Final[tuple[Leaf, ...]] = (
    (0x0000_0121, 0x01C0_003F, 63, 0),  # level 1 data: 32 KiB, 8 ways
    (0x0000_0122, 0x00C0_003F, 127, 0),  # level 1 code: 32 KiB, 4 ways
    (0x0000_0143, 0x01C0_003F, 511, 0),  # level 2: 256 KiB, 8 ways
)
"""Leaf 4, by subleaf: caches of lines of 64 bytes."""

_TSC_IS_SAFE: Final = 1 << 1
_HAS_RDTSCP: Final = 1 << 2


def guest_cpuid(vcpu: Vcpu, leaf: int, subleaf: int) -> Leaf:
    """(eax, ebx, ecx, edx) of a leaf, zeroes for one that is not there. Xen: guest_cpuid()."""
    if XEN_BASE <= leaf <= XEN_BASE + 0xFF:
        return _hypervisor_leaf(vcpu, leaf - XEN_BASE, subleaf)
    if leaf == 4:
        return _CACHES[subleaf] if subleaf < len(_CACHES) else _ZERO
    return _TABLE.get(leaf, _ZERO)


def _hypervisor_leaf(vcpu: Vcpu, index: int, subleaf: int) -> Leaf:
    """Xen: cpuid_hypervisor_leaves()."""
    match index:
        case 0:
            return XEN_BASE + XEN_LEAVES, _SIGNATURE[0], _SIGNATURE[1], _SIGNATURE[2]
        case 1:
            return XEN_MAJOR_VERSION << 16 | XEN_MINOR_VERSION, 0, 0, 0
        case 2:  # one page of hypercalls; the MSR that fills it; MMU_PT_UPDATE_PRESERVE_AD
            return 1, 0x4000_0000, 1, 0
        case 3:
            return _time_leaf(subleaf)
        case 5 if subleaf == 0:  # the width of machine addresses
            return 0, (vcpu.domain.hv.ram.nr_frames - 1).bit_length() + 12, 0, 0
        case _:
            return _ZERO


def _time_leaf(subleaf: int) -> Leaf:
    """How the guest's TSC, which is the machine's own, relates to system time: features, scale, the processor."""
    match subleaf:
        case 0:
            return _TSC_IS_SAFE | _HAS_RDTSCP, 0, TSC_KHZ, 0
        case 1:
            return 0, 0, 0x8000_0000, 1
        case 2:
            return TSC_KHZ, 0, 0, 0
        case _:
            return _ZERO
