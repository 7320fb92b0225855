"""Page tables, TLB and domain numbers: mmu_update, mmuext_op, update_va_mapping, multicall. Xen public/xen.h."""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import U32, U64, CStruct, CUnion, GuestHandle, abi

DOMID_FIRST_RESERVED: Final = 0x7FF0
"""Domain numbers from here on have a meaning of their own."""
DOMID_SELF: Final = 0x7FF0
"""The caller's own domain."""
DOMID_IO: Final = 0x7FF1
"""Owner of the frames of devices."""
DOMID_XEN: Final = 0x7FF2
"""Owner of Xen's frames that guests may see."""
DOMID_COW: Final = 0x7FF3
DOMID_INVALID: Final = 0x7FF4
DOMID_IDLE: Final = 0x7FFF
DOMID_MASK: Final = 0x7FFF

MMU_CMD_MASK: Final = 3
"""Bits of `ptr` in struct mmu_update that hold the MmuUpdateCmd."""
MMU_UPDATE_PREEMPTED: Final = 0x8000_0000
"""Bit of the count of mmu_update and mmuext_op by which Xen marks a continuation. Xen arch/x86/mm.c."""


class MmuUpdateCmd(CEnum, prefix="MMU_"):
    """MMU_*: the two low bits of `ptr` in struct mmu_update. Xen public/xen.h."""

    NORMAL_PT_UPDATE = 0
    MACHPHYS_UPDATE = 1
    PT_UPDATE_PRESERVE_AD = 2
    PT_UPDATE_NO_TRANSLATE = 3


@abi(size=16)
class MmuUpdate(CStruct):
    """struct mmu_update: `ptr` is the maddr of a PTE (or a frame's maddr, for MACHPHYS_UPDATE) with the command.

    Xen public/xen.h.
    """

    ptr: U64
    val: U64


class MmuextOp(CEnum, prefix="MMUEXT_"):
    """MMUEXT_*: `cmd` of struct mmuext_op. Xen public/xen.h."""

    PIN_L1_TABLE = 0
    PIN_L2_TABLE = 1
    PIN_L3_TABLE = 2
    PIN_L4_TABLE = 3
    UNPIN_TABLE = 4
    NEW_BASEPTR = 5
    TLB_FLUSH_LOCAL = 6
    INVLPG_LOCAL = 7
    TLB_FLUSH_MULTI = 8
    INVLPG_MULTI = 9
    TLB_FLUSH_ALL = 10
    INVLPG_ALL = 11
    FLUSH_CACHE = 12
    SET_LDT = 13
    NEW_USER_BASEPTR = 15
    CLEAR_PAGE = 16
    COPY_PAGE = 17
    FLUSH_CACHE_GLOBAL = 18
    MARK_SUPER = 19
    UNMARK_SUPER = 20


@abi(size=8, tag="")
class MmuextOpArg1(CUnion):
    """arg1 of struct mmuext_op: a frame, or a vaddr for INVLPG_* and SET_LDT. Xen public/xen.h."""

    mfn: U64
    linear_addr: U64


@abi(size=8, tag="")
class MmuextOpArg2(CUnion):
    """arg2 of struct mmuext_op: entries of SET_LDT, mask of *_MULTI, source of COPY_PAGE. Xen public/xen.h."""

    nr_ents: U32
    vcpumask: GuestHandle
    src_mfn: U64


@abi(size=24, tag="mmuext_op")
class MmuextOpStruct(CStruct):
    """struct mmuext_op: `cmd` is a MmuextOp. Xen public/xen.h."""

    cmd: U32
    arg1: MmuextOpArg1
    arg2: MmuextOpArg2


class Uvmf(CBits, prefix="UVMF_"):
    """UVMF_*: flags of update_va_mapping; with MULTI the bits from 3 up are the address of a vcpu mask.

    Xen public/xen.h.
    """

    NONE = 0
    TLB_FLUSH = 1
    INVLPG = 2
    FLUSHTYPE_MASK = 3
    MULTI = 0 << 2
    LOCAL = 0 << 2
    ALL = 1 << 2


@abi(size=64)
class MulticallEntry(CStruct):
    """struct multicall_entry: one hypercall of a batch and its result. Xen public/xen.h."""

    op: U64
    result: U64
    args: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 6]
