"""The hypercalls of the toolstack: domctl, sysctl and platform_op, as far as one can be refused.

Each takes one structure, which opens with the version of the interface that the caller was compiled for. Xen
public/domctl.h, public/sysctl.h, public/platform.h, public/hvm/dm_op.h.
"""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cstruct import U16, U32, U64, ByteArray, CStruct, GuestHandle, abi

XEN_DOMCTL_INTERFACE_VERSION: Final = 0x15
XEN_SYSCTL_INTERFACE_VERSION: Final = 0x15
XENPF_INTERFACE_VERSION: Final = 0x03000001
XEN_DOMCTL_CREATEDOMAIN: Final = 1
"""The command of a domctl that names no domain that exists."""
XEN_DOMCTL_SHADOW_OP: Final = 10
XEN_DOMCTL_PAUSEDOMAIN: Final = 3
XEN_DOMCTL_TEST_ASSIGN_DEVICE: Final = 45
XEN_DOMCTL_ASSIGN_DEVICE: Final = 37
XEN_DOMCTL_DEASSIGN_DEVICE: Final = 47
XEN_DOMCTL_VM_EVENT_OP: Final = 56
XEN_DOMCTL_GDBSX_GUESTMEMIO: Final = 1000
XEN_SYSCTL_READCONSOLE: Final = 1
XENPF_SETTIME32: Final = 17

_Argument = Annotated[ByteArray, ctypes.c_uint8 * 128]


@abi(size=144)
class XenDomctl(CStruct):
    """struct xen_domctl: `u` depends on the command. Xen public/domctl.h."""

    cmd: U32
    interface_version: U32
    domain: U16
    _pad: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 3]
    u: _Argument


@abi(size=136)
class XenSysctl(CStruct):
    """struct xen_sysctl: `u` depends on the command. Xen public/sysctl.h."""

    cmd: U32
    interface_version: U32
    u: _Argument


@abi(size=136)
class XenPlatformOp(CStruct):
    """struct xen_platform_op: `u` depends on the command. Xen public/platform.h."""

    cmd: U32
    interface_version: U32
    u: _Argument


@abi(size=16)
class XenDmOpBuf(CStruct):
    """struct xen_dm_op_buf: one of the buffers of dm_op. Xen public/hvm/dm_op.h."""

    h: GuestHandle
    size: U64
