"""What CPUID says to a PV guest. Xen: arch/x86/cpuid.c, pv/emul-inv-op.c; SDM volume 2, "CPUID".

The leaves are those of a plain x86-64 with SSE4.2-class features that the emulated CPU has and that a PV guest may use;
nothing that depends on the host. Leaves from 0x40000000 are Xen's own.
"""

from .version import XEN_MAJOR_VERSION, XEN_MINOR_VERSION

XEN_BASE = 0x4000_0000
XEN_LEAVES = 5
TSC_KHZ = 1_000_000
"""One instruction is one tick is one nanosecond."""

Leaf = tuple[int, int, int, int]

_MAX_BASIC = 0x16
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
    8,  # CX8
    9,  # APIC
    15,  # CMOV
    16,  # PAT
    19,  # CLFSH
    23,  # MMX
    24,  # FXSR
    25,  # SSE
    26,  # SSE2
)
_LEAF1_ECX = _bits(
    0,  # SSE3
    9,  # SSSE3
    13,  # CX16
    19,  # SSE4.1
    20,  # SSE4.2
    23,  # POPCNT
    31,  # hypervisor present
)
_EXT1_EDX = _LEAF1_EDX & 0x0183_F3FF | _bits(
    11,  # SYSCALL
    20,  # NX
    29,  # long mode
)
_EXT1_ECX = _bits(0)  # LAHF in long mode

_TABLE: dict[int, Leaf] = {
    0: (_MAX_BASIC, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    1: (0x0001_06A5, 0x0000_0800, _LEAF1_ECX, _LEAF1_EDX),  # family 6, model 26: a core of 2008; CLFLUSH of 64 bytes
    2: (0x0055_0101, 0, 0, 0x2CB4_3030),
    0x15: (1, 1, TSC_KHZ * 1000, 0),
    0x16: (TSC_KHZ // 1000, TSC_KHZ // 1000, 100, 0),
    XEN_BASE: (XEN_BASE + XEN_LEAVES, _SIGNATURE[0], _SIGNATURE[1], _SIGNATURE[2]),
    XEN_BASE + 1: (XEN_MAJOR_VERSION << 16 | XEN_MINOR_VERSION, 0, 0, 0),
    XEN_BASE + 2: (1, 0x4000_0000, 1, 0),  # one hypercall page; MSR index; feature: MMU_PT_UPDATE_PRESERVE_AD
    0x8000_0000: (_MAX_EXTENDED, 0, 0, 0),
    0x8000_0001: (0, 0, _EXT1_ECX, _EXT1_EDX),
    0x8000_0002: _BRAND[0:4],  # type: ignore[dict-item]
    0x8000_0003: _BRAND[4:8],  # type: ignore[dict-item]
    0x8000_0004: _BRAND[8:12],  # type: ignore[dict-item]
    0x8000_0007: (0, 0, 0, _bits(8)),  # invariant TSC
    0x8000_0008: (0x3028, 0, 0, 0),  # 40 bits of machine address, 48 of virtual
}


def cpuid(leaf: int, subleaf: int, count: int = 0) -> Leaf:
    """(eax, ebx, ecx, edx) of a leaf, zeroes for one that is not there; the same at each instruction `count`."""
    del count
    if leaf == XEN_BASE + 3:
        return _xen_time_leaf(subleaf)
    return _TABLE.get(leaf, _ZERO)


def _xen_time_leaf(subleaf: int) -> Leaf:
    """Leaf 3 of Xen: how the guest's TSC relates to system time."""
    match subleaf:
        case 0:
            return (0, 0, TSC_KHZ, 0)
        case 1:
            return (0, 0, 0x8000_0000, 1)
        case _:
            return _ZERO
