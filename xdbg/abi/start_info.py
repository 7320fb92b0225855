"""What a PV kernel finds when it starts, rsi pointing at it. Xen public/xen.h."""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CBits
from xdbg.abi.cstruct import U32, U64, CStruct, CUnion, abi

START_INFO_MAGIC: Final = b"xen-3.0-x86_64"
"""`magic` of a PV64 domain: the version is of the ABI, not of Xen."""
MAX_GUEST_CMDLINE: Final = 1024
"""Bytes of `cmd_line`, the NUL included."""


class Sif(CBits, prefix="SIF_"):
    """SIF_*: bits of `flags` of start_info. Xen public/xen.h."""

    PRIVILEGED = 1 << 0
    INITDOMAIN = 1 << 1
    MULTIBOOT_MOD = 1 << 2
    MOD_START_PFN = 1 << 3
    VIRT_P2M_4TOOLS = 1 << 4
    PM_MASK = 0xFF << 8


@abi(size=16, tag="")
class StartInfoConsoleDomU(CStruct):
    """console.domU of struct start_info: ring page and port of the console. Xen public/xen.h."""

    mfn: U64
    evtchn: U32


@abi(size=8, tag="")
class StartInfoConsoleDom0(CStruct):
    """console.dom0 of struct start_info: where the video mode is described. Xen public/xen.h."""

    info_off: U32
    info_size: U32


@abi(size=16, tag="")
class StartInfoConsole(CUnion):
    """console of struct start_info: domU unless SIF_INITDOMAIN. Xen public/xen.h."""

    domU: StartInfoConsoleDomU  # noqa: N815 - the field's name in C
    dom0: StartInfoConsoleDom0


@abi(size=1168)
class StartInfo(CStruct):
    """struct start_info: `shared_info` is a maddr, `*_mfn` are mfns, the rest are vaddrs and counts.

    Xen public/xen.h.
    """

    magic: Annotated[bytes, ctypes.c_char * 32]
    nr_pages: U64
    shared_info: U64
    flags: U32
    store_mfn: U64
    store_evtchn: U32
    console: StartInfoConsole
    pt_base: U64
    nr_pt_frames: U64
    mfn_list: U64
    mod_start: U64
    mod_len: U64
    cmd_line: Annotated[bytes, ctypes.c_char * MAX_GUEST_CMDLINE]
    first_p2m_pfn: U64
    nr_p2m_frames: U64


@abi(size=16)
class XenMultibootModList(CStruct):
    """struct xen_multiboot_mod_list: one module, if SIF_MULTIBOOT_MOD; addresses count from mod_start.

    Xen public/xen.h.
    """

    mod_start: U32
    mod_end: U32
    cmdline: U32
    pad: U32
