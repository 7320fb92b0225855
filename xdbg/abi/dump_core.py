"""The core of a domain as Xen's tools write it: sections and notes of an ELF file. Xen docs/misc/dump-core-format.txt.

The structures are declared in the tools, not in Xen's public headers.
"""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cstruct import U64, CStruct, abi
from xdbg.abi.version import XenCompileInfo, XenPlatformParameters

SECTION_NOTES: Final = ".note.Xen"
SECTION_PRSTATUS: Final = ".xen_prstatus"
"""An array of VcpuGuestContext."""
SECTION_SHARED_INFO: Final = ".xen_shared_info"
SECTION_P2M: Final = ".xen_p2m"
"""An array of DumpcoreP2m, one for each page of .xen_pages, in its order."""
SECTION_PAGES: Final = ".xen_pages"

XC_CORE_MAGIC: Final = 0xF00F_EBED
"""`magic` of a paravirtualized domain."""
FORMAT_VERSION: Final = 1
"""Major version 0 in the upper half, minor version 1 in the lower."""


@abi(size=32, tag="")
class DumpcoreHeader(CStruct):
    """struct xen_dumpcore_elfnote_header_desc; the fields are xch_*."""

    magic: U64
    nr_vcpus: U64
    nr_pages: U64
    page_size: U64


@abi(size=1280, tag="")
class DumpcoreXenVersion(CStruct):
    """struct xen_dumpcore_elfnote_xen_version_desc: what xen_version tells."""

    major_version: U64
    minor_version: U64
    extra_version: Annotated[bytes, ctypes.c_char * 16]
    compile_info: XenCompileInfo
    capabilities: Annotated[bytes, ctypes.c_char * 1024]
    changeset: Annotated[bytes, ctypes.c_char * 64]
    platform_parameters: XenPlatformParameters
    pagesize: U64


@abi(size=8, tag="")
class DumpcoreFormatVersion(CStruct):
    """struct xen_dumpcore_elfnote_format_version_desc."""

    version: U64


@abi(size=16, tag="")
class DumpcoreP2m(CStruct):
    """struct xen_dumpcore_p2m: a page of the domain; `gmfn` is its mfn."""

    pfn: U64
    gmfn: U64
