"""The processor's numbers as a PV guest and Xen use them, and Xen's part of the address space and of the GDT.

Intel SDM volume 3: "Interrupt and Exception Handling", "Paging", "Debug Registers", "Control Registers";
volume 4: "Model-Specific Registers". Xen public/arch-x86/xen.h and xen-x86_64.h.
"""

from typing import Final

from xdbg.abi.cenum import CBits, CEnum


class Vector(CEnum):
    """Exceptions by the SDM's mnemonics. SDM, "Exception and Interrupt Vectors"."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    CSO = 9
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21
    HV = 28
    VC = 29
    SX = 30

    @property
    def has_error_code(self) -> bool:
        """True if the processor pushes an error code (an `int n` with this number never does)."""
        return self in ERROR_CODE_VECTORS


ERROR_CODE_VECTORS: Final = frozenset(
    {
        Vector.DF,
        Vector.TS,
        Vector.NP,
        Vector.SS,
        Vector.GP,
        Vector.PF,
        Vector.AC,
        Vector.CP,
        Vector.VC,
        Vector.SX,
    }
)
"""Exceptions that push an error code."""
NR_VECTORS: Final = 256
"""Gates of an IDT."""
FIRST_EXTERNAL_VECTOR: Final = 32
"""The vectors below are exceptions."""


class Pfec(CBits):
    """Error code of #PF. SDM, "Page-Fault Exceptions"; Xen's names, PFEC_*."""

    PAGE_PRESENT = 1 << 0
    WRITE_ACCESS = 1 << 1
    USER_MODE = 1 << 2
    RESERVED_BIT = 1 << 3
    INSN_FETCH = 1 << 4
    PROT_KEY = 1 << 5
    SHADOW_STACK = 1 << 6


class SelectorErrorCode(CBits):
    """Low bits of the error code of #GP, #TS, #NP and #SS; the index is above them. SDM, "Error Code"."""

    EXT = 1 << 0
    IDT = 1 << 1
    TI = 1 << 2


class Rflags(CBits, prefix="X86_EFLAGS_"):
    """RFLAGS; FIXED always reads as 1, IOPL is a mask of two bits. SDM volume 1, "EFLAGS Register"."""

    CF = 1 << 0
    FIXED = 1 << 1
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


RFLAGS_IOPL_SHIFT: Final = 12


class Cr0(CBits, prefix="X86_CR0_"):
    """CR0. SDM, "Control Registers"."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr4(CBits, prefix="X86_CR4_"):
    """CR4. SDM, "Control Registers"."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22


class Efer(CBits):
    """IA32_EFER. SDM volume 4, "Architectural MSRs"; AMD APM volume 2 for SVME and beyond."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11
    SVME = 1 << 12
    FFXSR = 1 << 14


class Dr6(CBits):
    """DR6: why #DB was raised; sticky. SDM, "Debug Status Register (DR6)"."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BD = 1 << 13
    BS = 1 << 14
    BT = 1 << 15


DR6_DEFAULT: Final = 0xFFFF0FF0
"""DR6 after reset: the bits that always read as 1."""
DR6_RESERVED_ZERO: Final = 0xFFFF_FFFF_0000_1000
"""Bits of DR6 that always read as 0. Xen: DR_STATUS_RESERVED_ZERO."""


class Dr7(CBits):
    """DR7: local and global enables, general detect. SDM, "Debug Control Register (DR7)"."""

    L0 = 1 << 0
    G0 = 1 << 1
    L1 = 1 << 2
    G1 = 1 << 3
    L2 = 1 << 4
    G2 = 1 << 5
    L3 = 1 << 6
    G3 = 1 << 7
    LE = 1 << 8
    GE = 1 << 9
    GD = 1 << 13


DR7_DEFAULT: Final = 0x400
"""DR7 after reset: the bit that always reads as 1."""
DR7_RESERVED_ZERO: Final = 0xFFFF_FFFF_0000_D800
"""Bits of DR7 that a PV guest cannot set. Xen: DR_CONTROL_RESERVED_ZERO."""
DR7_ACTIVE_MASK: Final = 0xFF
"""Any enable of any breakpoint. Xen: DR7_ACTIVE_MASK."""
DR7_CONTROL_SHIFT: Final = 16
"""Breakpoint N has DR7_CONTROL_SIZE bits from 16 + 4 * N: DebugAccess, then the length of DEBUG_LENGTHS."""
DR7_CONTROL_SIZE: Final = 4


class DebugAccess(CEnum):
    """R/W field of a breakpoint in DR7; IO needs CR4.DE. SDM, "Debug Control Register (DR7)"."""

    EXECUTE = 0
    WRITE = 1
    IO = 2
    READ_WRITE = 3


DEBUG_LENGTHS: Final = (1, 2, 8, 4)
"""Bytes by the LEN field of a breakpoint in DR7."""


class Msr(CEnum):
    """Model-specific registers. SDM volume 4; Xen asm/msr-index.h."""

    TSC = 0x10
    PLATFORM_ID = 0x17
    APIC_BASE = 0x1B
    FEATURE_CONTROL = 0x3A
    SPEC_CTRL = 0x48
    PRED_CMD = 0x49
    UCODE_WRITE = 0x79
    UCODE_REV = 0x8B
    PLATFORM_INFO = 0xCE
    MTRRCAP = 0xFE
    ARCH_CAPABILITIES = 0x10A
    FLUSH_CMD = 0x10B
    MISC_FEATURES_ENABLES = 0x140
    SYSENTER_CS = 0x174
    SYSENTER_ESP = 0x175
    SYSENTER_EIP = 0x176
    MCG_CAP = 0x179
    MCG_STATUS = 0x17A
    PERF_STATUS = 0x198
    PERF_CTL = 0x199
    THERM_STATUS = 0x19C
    MISC_ENABLE = 0x1A0
    DEBUGCTL = 0x1D9
    PAT = 0x277
    MTRR_DEF_TYPE = 0x2FF
    EFER = 0xC0000080
    STAR = 0xC0000081
    LSTAR = 0xC0000082
    CSTAR = 0xC0000083
    FMASK = 0xC0000084
    FS_BASE = 0xC0000100
    GS_BASE = 0xC0000101
    SHADOW_GS_BASE = 0xC0000102
    TSC_AUX = 0xC0000103
    HWCR = 0xC0010015


PTE_PRESENT: Final = 1 << 0
"""Bits of a page table entry. SDM, "4-Level Paging"; PTE_PSE is PTE_PAT in an l1e."""
PTE_RW: Final = 1 << 1
PTE_USER: Final = 1 << 2
PTE_PWT: Final = 1 << 3
PTE_PCD: Final = 1 << 4
PTE_ACCESSED: Final = 1 << 5
PTE_DIRTY: Final = 1 << 6
PTE_PSE: Final = 1 << 7
PTE_PAT: Final = 1 << 7
PTE_GLOBAL: Final = 1 << 8
PTE_AVAIL: Final = 0xE00
"""Three bits for the guest's own use."""
PTE_AVAIL_HIGH: Final = 0x7FF << 52
"""Eleven more of them, below NX."""
PTE_NX: Final = 1 << 63
PTE_ADDR_MASK: Final = 0x000F_FFFF_FFFF_F000
"""The maddr of the frame that an entry points at."""
PTE_SIZE: Final = 8
PTES_PER_TABLE: Final = 512
VADDR_BITS: Final = 48
"""Significant bits of a virtual address; the rest repeat bit 47 (canonical form)."""

FLAT_RING3_CS32: Final = 0xE023
"""Selectors in Xen's part of every GDT. Xen public/arch-x86/xen-x86_64.h."""
FLAT_RING3_CS64: Final = 0xE033
FLAT_RING3_DS32: Final = 0xE02B
FLAT_RING3_DS64: Final = 0x0000
FLAT_RING3_SS32: Final = 0xE02B
FLAT_RING3_SS64: Final = 0xE02B
FLAT_KERNEL_DS64: Final = FLAT_RING3_DS64
FLAT_KERNEL_DS32: Final = FLAT_RING3_DS32
FLAT_KERNEL_DS: Final = FLAT_KERNEL_DS64
FLAT_KERNEL_CS64: Final = FLAT_RING3_CS64
FLAT_KERNEL_CS32: Final = FLAT_RING3_CS32
FLAT_KERNEL_CS: Final = FLAT_KERNEL_CS64
FLAT_KERNEL_SS64: Final = FLAT_RING3_SS64
FLAT_KERNEL_SS32: Final = FLAT_RING3_SS32
FLAT_KERNEL_SS: Final = FLAT_KERNEL_SS64
FLAT_USER_DS64: Final = FLAT_RING3_DS64
FLAT_USER_DS32: Final = FLAT_RING3_DS32
FLAT_USER_DS: Final = FLAT_USER_DS64
FLAT_USER_CS64: Final = FLAT_RING3_CS64
FLAT_USER_CS32: Final = FLAT_RING3_CS32
FLAT_USER_CS: Final = FLAT_USER_CS64
FLAT_USER_SS64: Final = FLAT_RING3_SS64
FLAT_USER_SS32: Final = FLAT_RING3_SS32
FLAT_USER_SS: Final = FLAT_USER_SS64

FIRST_RESERVED_GDT_PAGE: Final = 14
"""The guest's GDT has 14 pages at most; Xen's descriptors follow. Xen public/arch-x86/xen.h."""
FIRST_RESERVED_GDT_BYTE: Final = FIRST_RESERVED_GDT_PAGE * 4096
FIRST_RESERVED_GDT_ENTRY: Final = FIRST_RESERVED_GDT_BYTE // 8

HYPERVISOR_VIRT_START: Final = 0xFFFF_8000_0000_0000
"""Xen's part of every address space, l4 slots 256 to 271. Xen public/arch-x86/xen-x86_64.h."""
HYPERVISOR_VIRT_END: Final = 0xFFFF_8800_0000_0000
MACH2PHYS_VIRT_START: Final = 0xFFFF_8000_0000_0000
"""The m2p, readable by guests: 8 bytes a frame."""
MACH2PHYS_VIRT_END: Final = 0xFFFF_8040_0000_0000
MACH2PHYS_NR_ENTRIES: Final = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3

XEN_EMULATE_PREFIX: Final = b"\x0f\x0bxen"
"""`ud2a; .ascii "xen"`: the instruction that follows is emulated by Xen (cpuid only). Xen public/arch-x86/xen.h."""
