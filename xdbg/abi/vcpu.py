"""Vcpus: their operations, clocks, accounting and initial state. Xen public/vcpu.h, public/arch-x86/xen.h."""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import S32, U8, U16, U32, U64, ByteArray, CStruct, CUnion, GuestHandle, abi
from xdbg.abi.trap import TrapInfo

XEN_RUNSTATE_UPDATE: Final = 1 << 63
"""Bit of `state_entry_time` while Xen writes, if the guest asked for it (VMASST_TYPE_runstate_update_flag)."""
VCPU_SSHOTTMR_FUTURE: Final = 1 << 0
"""VCPU_SSHOTTMR_future, flag of set_singleshot_timer: -ETIME if the time has passed."""

_Words = ctypes.Array[ctypes.c_uint64]
_Pads = ctypes.Array[ctypes.c_uint16]


class VcpuOp(CEnum, prefix="VCPUOP_"):
    """VCPUOP_*: first argument of vcpu_op. Xen public/vcpu.h."""

    INITIALISE = 0
    UP = 1
    DOWN = 2
    IS_UP = 3
    GET_RUNSTATE_INFO = 4
    REGISTER_RUNSTATE_MEMORY_AREA = 5
    SET_PERIODIC_TIMER = 6
    STOP_PERIODIC_TIMER = 7
    SET_SINGLESHOT_TIMER = 8
    STOP_SINGLESHOT_TIMER = 9
    REGISTER_VCPU_INFO = 10
    SEND_NMI = 11
    GET_PHYSID = 12
    REGISTER_VCPU_TIME_MEMORY_AREA = 13


class Runstate(CEnum, prefix="RUNSTATE_"):
    """RUNSTATE_*: `state` of a vcpu, and index of its times. Xen public/vcpu.h."""

    RUNNING = 0
    RUNNABLE = 1
    BLOCKED = 2
    OFFLINE = 3


@abi(size=48)
class VcpuRunstateInfo(CStruct):
    """struct vcpu_runstate_info: state since state_entry_time, ns; ns spent in each state. Xen public/vcpu.h."""

    state: S32
    state_entry_time: U64
    time: Annotated[_Words, ctypes.c_uint64 * 4]


@abi(size=8, tag="")
class MemoryAreaAddr(CUnion):
    """addr of struct vcpu_register_*_memory_area: the same vaddr by three names. Xen public/vcpu.h."""

    h: GuestHandle
    v: U64
    p: U64


@abi(size=8)
class VcpuRegisterRunstateMemoryArea(CStruct):
    """struct vcpu_register_runstate_memory_area: where Xen writes a VcpuRunstateInfo. Xen public/vcpu.h."""

    addr: MemoryAreaAddr


@abi(size=8)
class VcpuRegisterTimeMemoryArea(CStruct):
    """struct vcpu_register_time_memory_area: where Xen writes a VcpuTimeInfo. Xen public/vcpu.h."""

    addr: MemoryAreaAddr


@abi(size=8)
class VcpuSetPeriodicTimer(CStruct):
    """struct vcpu_set_periodic_timer. Xen public/vcpu.h."""

    period_ns: U64


@abi(size=16)
class VcpuSetSingleshotTimer(CStruct):
    """struct vcpu_set_singleshot_timer. Xen public/vcpu.h."""

    timeout_abs_ns: U64
    flags: U32


@abi(size=16)
class VcpuRegisterVcpuInfo(CStruct):
    """struct vcpu_register_vcpu_info: where the vcpu's VcpuInfo is to be. Xen public/vcpu.h."""

    mfn: U64
    offset: U32
    rsvd: U32


@abi(size=8)
class VcpuGetPhysid(CStruct):
    """struct vcpu_get_physid: APIC id in the low half, ACPI id in the high one. Xen public/vcpu.h."""

    phys_id: U64


@abi(size=200)
class CpuUserRegs(CStruct):
    """struct cpu_user_regs: registers of a vcpu as Xen saves them on entry. Xen public/arch-x86/xen-x86_64.h."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    rbp: U64
    rbx: U64
    r11: U64
    r10: U64
    r9: U64
    r8: U64
    rax: U64
    rcx: U64
    rdx: U64
    rsi: U64
    rdi: U64
    error_code: U32
    entry_vector: U32
    rip: U64
    cs: U16
    _pad0: Annotated[_Pads, ctypes.c_uint16 * 1]
    saved_upcall_mask: U8
    _pad1: Annotated[ByteArray, ctypes.c_uint8 * 3]
    rflags: U64
    rsp: U64
    ss: U16
    _pad2: Annotated[_Pads, ctypes.c_uint16 * 3]
    es: U16
    _pad3: Annotated[_Pads, ctypes.c_uint16 * 3]
    ds: U16
    _pad4: Annotated[_Pads, ctypes.c_uint16 * 3]
    fs: U16
    _pad5: Annotated[_Pads, ctypes.c_uint16 * 3]
    gs: U16
    _pad6: Annotated[_Pads, ctypes.c_uint16 * 3]


class Vgcf(CBits, prefix="VGCF_"):
    """VGCF_*: bits of `flags` of struct vcpu_guest_context and of struct iret_context. Xen public/arch-x86/xen.h."""

    I387_VALID = 1 << 0
    IN_KERNEL = 1 << 2
    FAILSAFE_DISABLES_EVENTS = 1 << 3
    SYSCALL_DISABLES_EVENTS = 1 << 4
    ONLINE = 1 << 5
    IN_SYSCALL = 1 << 8


@abi(size=5168)
class VcpuGuestContext(CStruct):
    """struct vcpu_guest_context: all of a vcpu, as VCPUOP_initialise takes it. Xen public/arch-x86/xen.h.

    ctrlreg[3] is the kernel's cr3 and ctrlreg[1] the user's, with bit 0 set if there is one.
    """

    fpu_ctxt: Annotated[ByteArray, ctypes.c_uint8 * 512]
    flags: U64
    user_regs: CpuUserRegs
    trap_ctxt: Annotated[ctypes.Array[TrapInfo], TrapInfo * 256]
    ldt_base: U64
    ldt_ents: U64
    gdt_frames: Annotated[_Words, ctypes.c_uint64 * 16]
    gdt_ents: U64
    kernel_ss: U64
    kernel_sp: U64
    ctrlreg: Annotated[_Words, ctypes.c_uint64 * 8]
    debugreg: Annotated[_Words, ctypes.c_uint64 * 8]
    event_callback_eip: U64
    failsafe_callback_eip: U64
    syscall_callback_eip: U64
    vm_assist: U64
    fs_base: U64
    gs_base_kernel: U64
    gs_base_user: U64
