"""Entry points of a guest kernel beside its trap table, and the frame of the way back. Xen public/callback.h."""

from typing import Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U16, U64, CStruct, abi

CALLBACKF_MASK_EVENTS: Final = 1 << 0
"""CALLBACKF_mask_events, bit of `flags`: deliver with the upcall mask set."""


class CallbackOp(CEnum, prefix="CALLBACKOP_"):
    """CALLBACKOP_*: first argument of callback_op. Xen public/callback.h."""

    REGISTER = 0
    UNREGISTER = 1


class CallbackType(CEnum, prefix="CALLBACKTYPE_"):
    """CALLBACKTYPE_*: which entry point. Xen public/callback.h."""

    EVENT = 0
    FAILSAFE = 1
    SYSCALL = 2
    SYSENTER_DEPRECATED = 3
    NMI = 4
    SYSENTER = 5
    SYSCALL32 = 7


@abi(size=16)
class CallbackRegister(CStruct):
    """struct callback_register: `type` is a CallbackType. Xen public/callback.h."""

    type: U16
    flags: U16
    address: U64


@abi(size=4)
class CallbackUnregister(CStruct):
    """struct callback_unregister. Xen public/callback.h."""

    type: U16
    _unused: U16


@abi(size=72)
class IretContext(CStruct):
    """struct iret_context: on the kernel stack when the guest calls iret; `flags` may hold VGCF_in_syscall.

    Xen public/arch-x86/xen-x86_64.h.
    """

    rax: U64
    r11: U64
    rcx: U64
    flags: U64
    rip: U64
    cs: U64
    rflags: U64
    rsp: U64
    ss: U64
