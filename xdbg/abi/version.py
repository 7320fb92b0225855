"""What Xen tells of itself: xen_version. Xen public/version.h."""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U32, U64, ByteArray, CStruct, abi

XEN_LATEST_INTERFACE_VERSION: Final = 0x00040E00
"""Version of the ABI that the declarations of this package follow, that of Xen 4.17. Xen public/xen-compat.h."""
XEN_EXTRAVERSION_LEN: Final = 16
"""Bytes of the strings that have no structure, the NUL included: extraversion, capabilities, changeset, commandline."""
XEN_CAPABILITIES_INFO_LEN: Final = 1024
XEN_CHANGESET_INFO_LEN: Final = 64
XEN_COMMANDLINE_LEN: Final = 1024


class XenVer(CEnum, prefix="XENVER_"):
    """XENVER_*: first argument of xen_version. Xen public/version.h."""

    VERSION = 0
    EXTRAVERSION = 1
    COMPILE_INFO = 2
    CAPABILITIES = 3
    CHANGESET = 4
    PLATFORM_PARAMETERS = 5
    GET_FEATURES = 6
    PAGESIZE = 7
    GUEST_HANDLE = 8
    COMMANDLINE = 9
    BUILD_ID = 10


@abi(size=144)
class XenCompileInfo(CStruct):
    """struct xen_compile_info: NUL-terminated strings. Xen public/version.h."""

    compiler: Annotated[bytes, ctypes.c_char * 64]
    compile_by: Annotated[bytes, ctypes.c_char * 16]
    compile_domain: Annotated[bytes, ctypes.c_char * 32]
    compile_date: Annotated[bytes, ctypes.c_char * 32]


@abi(size=8)
class XenPlatformParameters(CStruct):
    """struct xen_platform_parameters: where Xen's part of the address space begins. Xen public/version.h."""

    virt_start: U64


@abi(size=8)
class XenFeatureInfo(CStruct):
    """struct xen_feature_info: in submap_idx; out 32 bits, see XenFeat. Xen public/version.h."""

    submap_idx: U32
    submap: U32


@abi(size=4)
class XenBuildId(CStruct):
    """struct xen_build_id: `len` bytes follow; 0 asks for the length. Xen public/version.h."""

    len: U32
    buf: Annotated[ByteArray, ctypes.c_uint8 * 0]
