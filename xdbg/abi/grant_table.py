"""Grants: a domain lets another map or copy its frames. Xen public/grant_table.h.

The table is an array of entries in frames that Xen owns and the granting domain maps; a grant reference is an index
in it. Xen sets GTF_reading and GTF_writing in an entry while it is in use.
"""

from typing import Final

from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import S16, U16, U32, U64, CStruct, CUnion, GuestHandle, abi

GNTTAB_NR_RESERVED_ENTRIES: Final = 8
GNTTAB_RESERVED_CONSOLE: Final = 0
"""Entries that the domain builder fills: the rings of the console and of xenstore, for domain 0."""
GNTTAB_RESERVED_XENSTORE: Final = 1
GNTTAB_CACHE_CLEAN: Final = 1 << 0
"""Bits of `op` of struct gnttab_cache_flush."""
GNTTAB_CACHE_INVAL: Final = 1 << 1
GNTTAB_CACHE_SOURCE_GREF: Final = 1 << 31
GTF_TYPE_MASK: Final = 3
"""Bits of an entry's flags that hold its type: GTF_INVALID and so on; the other bits are in Gtf."""
GTF_INVALID: Final = 0
GTF_PERMIT_ACCESS: Final = 1
GTF_ACCEPT_TRANSFER: Final = 2
GTF_TRANSITIVE: Final = 3
GTF_TRANSFER_COMMITTED: Final = 1 << 2
"""Bits of an entry of type GTF_ACCEPT_TRANSFER."""
GTF_TRANSFER_COMPLETED: Final = 1 << 3


class Gtf(CBits, prefix="GTF_"):
    """GTF_*: bits of the flags of an entry of type GTF_permit_access. Xen public/grant_table.h."""

    READONLY = 1 << 2
    READING = 1 << 3
    WRITING = 1 << 4
    PWT = 1 << 5
    PCD = 1 << 6
    PAT = 1 << 7
    SUB_PAGE = 1 << 8


class GnttabOp(CEnum, prefix="GNTTABOP_"):
    """GNTTABOP_*: first argument of grant_table_op. Xen public/grant_table.h."""

    MAP_GRANT_REF = 0
    UNMAP_GRANT_REF = 1
    SETUP_TABLE = 2
    DUMP_TABLE = 3
    TRANSFER = 4
    COPY = 5
    QUERY_SIZE = 6
    UNMAP_AND_REPLACE = 7
    SET_VERSION = 8
    GET_STATUS_FRAMES = 9
    GET_VERSION = 10
    SWAP_GRANT_REF = 11
    CACHE_FLUSH = 12


class Gntst(CEnum, prefix="GNTST_"):
    """GNTST_*: `status` of each operation of a batch. Xen public/grant_table.h."""

    OKAY = 0
    GENERAL_ERROR = -1
    BAD_DOMAIN = -2
    BAD_GNTREF = -3
    BAD_HANDLE = -4
    BAD_VIRT_ADDR = -5
    BAD_DEV_ADDR = -6
    NO_DEVICE_SPACE = -7
    PERMISSION_DENIED = -8
    BAD_PAGE = -9
    BAD_COPY_ARG = -10
    ADDRESS_TOO_BIG = -11
    EAGAIN = -12
    NO_SPACE = -13


class Gntmap(CBits, prefix="GNTMAP_"):
    """GNTMAP_*: `flags` of struct gnttab_map_grant_ref. Xen public/grant_table.h."""

    DEVICE_MAP = 1 << 0
    HOST_MAP = 1 << 1
    READONLY = 1 << 2
    APPLICATION_MAP = 1 << 3
    CONTAINS_PTE = 1 << 4
    GUEST_AVAIL_MASK = 0xFFFF0000


class Gntcopy(CBits, prefix="GNTCOPY_"):
    """GNTCOPY_*: `flags` of struct gnttab_copy. Xen public/grant_table.h."""

    SOURCE_GREF = 1 << 0
    DEST_GREF = 1 << 1


@abi(size=8)
class GrantEntryV1(CStruct):
    """struct grant_entry_v1: `frame` is a gfn. Xen public/grant_table.h."""

    flags: U16
    domid: U16
    frame: U32


@abi(size=4)
class GrantEntryHeader(CStruct):
    """struct grant_entry_header: first words of a version 2 entry. Xen public/grant_table.h."""

    flags: U16
    domid: U16


@abi(size=16, tag="")
class GrantEntryV2FullPage(CStruct):
    """full_page of union grant_entry_v2. Xen public/grant_table.h."""

    hdr: GrantEntryHeader
    pad0: U32
    frame: U64


@abi(size=16, tag="")
class GrantEntryV2SubPage(CStruct):
    """sub_page of union grant_entry_v2. Xen public/grant_table.h."""

    hdr: GrantEntryHeader
    page_off: U16
    length: U16
    frame: U64


@abi(size=12, tag="")
class GrantEntryV2Transitive(CStruct):
    """transitive of union grant_entry_v2. Xen public/grant_table.h."""

    hdr: GrantEntryHeader
    trans_domid: U16
    pad0: U16
    gref: U32


@abi(size=16)
class GrantEntryV2(CUnion):
    """union grant_entry_v2. Xen public/grant_table.h."""

    hdr: GrantEntryHeader
    full_page: GrantEntryV2FullPage
    sub_page: GrantEntryV2SubPage
    transitive: GrantEntryV2Transitive


@abi(size=32)
class GnttabMapGrantRef(CStruct):
    """struct gnttab_map_grant_ref: out status, handle, dev_bus_addr. Xen public/grant_table.h."""

    host_addr: U64
    flags: U32
    ref: U32
    dom: U16
    status: S16
    handle: U32
    dev_bus_addr: U64


@abi(size=24)
class GnttabUnmapGrantRef(CStruct):
    """struct gnttab_unmap_grant_ref: out status. Xen public/grant_table.h."""

    host_addr: U64
    dev_bus_addr: U64
    handle: U32
    status: S16


@abi(size=24)
class GnttabSetupTable(CStruct):
    """struct gnttab_setup_table: out status and nr_frames U64 frame numbers at frame_list. Xen public/grant_table.h."""

    dom: U16
    nr_frames: U32
    status: S16
    frame_list: GuestHandle


@abi(size=4)
class GnttabDumpTable(CStruct):
    """struct gnttab_dump_table: out status. Xen public/grant_table.h."""

    dom: U16
    status: S16


@abi(size=24)
class GnttabTransfer(CStruct):
    """struct gnttab_transfer: out status. Xen public/grant_table.h."""

    mfn: U64
    domid: U16
    ref: U32
    status: S16


@abi(size=8, tag="")
class GnttabCopyPtrUnion(CUnion):
    """u of struct gnttab_copy_ptr: `ref` if the flag of this side is set. Xen public/grant_table.h."""

    ref: U32
    gmfn: U64


@abi(size=16)
class GnttabCopyPtr(CStruct):
    """struct gnttab_copy_ptr: one side of a copy. Xen public/grant_table.h."""

    u: GnttabCopyPtrUnion
    domid: U16
    offset: U16


@abi(size=40)
class GnttabCopy(CStruct):
    """struct gnttab_copy: out status. Xen public/grant_table.h."""

    source: GnttabCopyPtr
    dest: GnttabCopyPtr
    len: U16
    flags: U16
    status: S16


@abi(size=16)
class GnttabQuerySize(CStruct):
    """struct gnttab_query_size: in dom; out the rest. Xen public/grant_table.h."""

    dom: U16
    nr_frames: U32
    max_nr_frames: U32
    status: S16


@abi(size=24)
class GnttabUnmapAndReplace(CStruct):
    """struct gnttab_unmap_and_replace: out status. Xen public/grant_table.h."""

    host_addr: U64
    new_addr: U64
    handle: U32
    status: S16


@abi(size=4)
class GnttabSetVersion(CStruct):
    """struct gnttab_set_version: in the wanted, out the actual version. Xen public/grant_table.h."""

    version: U32


@abi(size=16)
class GnttabGetStatusFrames(CStruct):
    """struct gnttab_get_status_frames: out status and frame numbers at frame_list. Xen public/grant_table.h."""

    nr_frames: U32
    dom: U16
    status: S16
    frame_list: GuestHandle


@abi(size=8)
class GnttabGetVersion(CStruct):
    """struct gnttab_get_version: out version. Xen public/grant_table.h."""

    dom: U16
    pad: U16
    version: U32


@abi(size=12)
class GnttabSwapGrantRef(CStruct):
    """struct gnttab_swap_grant_ref: out status. Xen public/grant_table.h."""

    ref_a: U32
    ref_b: U32
    status: S16


@abi(size=8, tag="")
class GnttabCacheFlushUnion(CUnion):
    """a of struct gnttab_cache_flush: `ref` with GNTTAB_CACHE_SOURCE_GREF. Xen public/grant_table.h."""

    dev_bus_addr: U64
    ref: U32


@abi(size=16)
class GnttabCacheFlush(CStruct):
    """struct gnttab_cache_flush. Xen public/grant_table.h."""

    a: GnttabCacheFlushUnion
    offset: U16
    length: U16
    op: U32
