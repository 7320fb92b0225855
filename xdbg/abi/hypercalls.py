"""Numbers of the hypercalls, and of the commands of those that have no header of their own. Xen public/xen.h.

A PV64 guest executes `syscall` with the number in rax and up to six arguments in rdi, rsi, rdx, r10, r8 and r9; the
result comes back in rax, and rcx and r11 are lost.
"""

from typing import Final

from xdbg.abi.cenum import CEnum

HYPERCALL_PAGE_ENTRY_SIZE: Final = 32
"""Bytes from one entry of the hypercall page to the next; entry N begins at N times it."""


class Hypercall(CEnum, prefix="__HYPERVISOR_"):
    """__HYPERVISOR_*: number of a hypercall. Xen public/xen.h."""

    SET_TRAP_TABLE = 0
    MMU_UPDATE = 1
    SET_GDT = 2
    STACK_SWITCH = 3
    SET_CALLBACKS = 4
    FPU_TASKSWITCH = 5
    SCHED_OP_COMPAT = 6
    PLATFORM_OP = 7
    SET_DEBUGREG = 8
    GET_DEBUGREG = 9
    UPDATE_DESCRIPTOR = 10
    MEMORY_OP = 12
    MULTICALL = 13
    UPDATE_VA_MAPPING = 14
    SET_TIMER_OP = 15
    EVENT_CHANNEL_OP_COMPAT = 16
    XEN_VERSION = 17
    CONSOLE_IO = 18
    PHYSDEV_OP_COMPAT = 19
    GRANT_TABLE_OP = 20
    VM_ASSIST = 21
    UPDATE_VA_MAPPING_OTHERDOMAIN = 22
    IRET = 23
    VCPU_OP = 24
    SET_SEGMENT_BASE = 25
    MMUEXT_OP = 26
    XSM_OP = 27
    NMI_OP = 28
    SCHED_OP = 29
    CALLBACK_OP = 30
    XENOPROF_OP = 31
    EVENT_CHANNEL_OP = 32
    PHYSDEV_OP = 33
    HVM_OP = 34
    SYSCTL = 35
    DOMCTL = 36
    KEXEC_OP = 37
    TMEM_OP = 38
    ARGO_OP = 39
    XENPMU_OP = 40
    DM_OP = 41
    HYPFS_OP = 42
    ARCH_0 = 48
    ARCH_1 = 49
    ARCH_2 = 50
    ARCH_3 = 51
    ARCH_4 = 52
    ARCH_5 = 53
    ARCH_6 = 54
    ARCH_7 = 55


class VmasstCmd(CEnum, prefix="VMASST_CMD_"):
    """VMASST_CMD_*: first argument of vm_assist. Xen public/xen.h."""

    ENABLE = 0
    DISABLE = 1


class VmasstType(CEnum, prefix="VMASST_TYPE_"):
    """VMASST_TYPE_*: second argument of vm_assist, and the bit's number in `vm_assist` of a vcpu context.

    Xen public/xen.h.
    """

    FOUR_GB_SEGMENTS = 0
    FOUR_GB_SEGMENTS_NOTIFY = 1
    WRITABLE_PAGETABLES = 2
    PAE_EXTENDED_CR3 = 3
    ARCHITECTURAL_IOPL = 4
    RUNSTATE_UPDATE_FLAG = 5
    M2P_STRICT = 32


class SegBase(CEnum, prefix="SEGBASE_"):
    """SEGBASE_*: first argument of set_segment_base. Xen public/arch-x86/xen-x86_64.h."""

    FS = 0
    GS_USER = 1
    GS_KERNEL = 2
    GS_USER_SEL = 3
