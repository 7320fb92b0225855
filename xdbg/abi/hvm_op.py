"""hvm_op: made for other kinds of guests, and yet a PV guest may call it. Xen public/hvm/hvm_op.h."""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U16, U32, U64, ByteArray, CStruct, abi

HVM_NR_PARAMS: Final = 39
"""Parameters of a domain have numbers below. Xen public/hvm/params.h."""


class HvmOp(CEnum, prefix="HVMOP_"):
    """HVMOP_*: first argument of hvm_op. Xen public/hvm/hvm_op.h."""

    SET_PARAM = 0
    GET_PARAM = 1
    FLUSH_TLBS = 5
    PAGETABLE_DYING = 9
    GET_TIME = 10
    XENTRACE = 11
    GET_MEM_TYPE = 15
    SET_EVTCHN_UPCALL_VECTOR = 23
    GUEST_REQUEST_VM_EVENT = 24
    ALTP2M = 25


@abi(size=16)
class XenHvmParam(CStruct):
    """struct xen_hvm_param. Xen public/hvm/hvm_op.h."""

    domid: U16
    pad: U16
    index: U32
    value: U64


@abi(size=16)
class XenHvmPagetableDying(CStruct):
    """struct xen_hvm_pagetable_dying. Xen public/hvm/hvm_op.h."""

    domid: U16
    pad: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 3]
    gpa: U64


@abi(size=8)
class XenHvmGetTime(CStruct):
    """struct xen_hvm_get_time: out system time in ns. Xen public/hvm/hvm_op.h."""

    now: U64


@abi(size=32)
class XenHvmXentrace(CStruct):
    """struct xen_hvm_xentrace: an event for Xen's own trace. Xen public/hvm/hvm_op.h."""

    event: U16
    extra_bytes: U16
    extra: Annotated[ByteArray, ctypes.c_uint8 * 28]


@abi(size=16)
class XenHvmGetMemType(CStruct):
    """struct xen_hvm_get_mem_type. Xen public/hvm/hvm_op.h."""

    domid: U16
    mem_type: U16
    pad: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 2]
    pfn: U64
