"""The block interface: requests and responses of a virtual disk's ring. Xen public/io/blkif.h, io/protocols.h.

A ring is a header of 64 bytes and then entries, each as large as a request; a response takes the place of a request.
How large that is depends on the frontend's ABI: these are the structures of x86-64; those of x86-32 are the same
without padding (a request has 108 bytes, a response 12).
"""

from typing import Annotated, Final

from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import S16, U8, U16, U32, U64, CStruct, abi

BLKIF_MAX_SEGMENTS_PER_REQUEST: Final = 11
XEN_IO_PROTO_ABI_X86_32: Final = "x86_32-abi"
"""Values of a frontend's key "protocol"."""
XEN_IO_PROTO_ABI_X86_64: Final = "x86_64-abi"


class BlkifOp(CEnum, prefix="BLKIF_OP_"):
    """BLKIF_OP_*: `operation` of a request. Xen public/io/blkif.h."""

    READ = 0
    WRITE = 1
    WRITE_BARRIER = 2
    FLUSH_DISKCACHE = 3
    RESERVED_1 = 4
    DISCARD = 5
    INDIRECT = 6


class BlkifRsp(CEnum, prefix="BLKIF_RSP_"):
    """BLKIF_RSP_*: `status` of a response. Xen public/io/blkif.h."""

    OKAY = 0
    ERROR = -1
    EOPNOTSUPP = -2


class Vdisk(CBits, prefix="VDISK_"):
    """VDISK_*: bits of a backend's key "info". Xen public/io/blkif.h."""

    CDROM = 0x1
    REMOVABLE = 0x2
    READONLY = 0x4


@abi(size=8)
class BlkifRequestSegment(CStruct):
    """struct blkif_request_segment: sectors `first_sect` to `last_sect` of a granted page. Xen public/io/blkif.h."""

    gref: U32
    first_sect: U8
    last_sect: U8


@abi(size=112)
class BlkifRequest(CStruct):
    """struct blkif_request: read, write or flush. Xen public/io/blkif.h."""

    operation: U8
    nr_segments: U8
    handle: U16
    id: U64
    sector_number: U64
    seg: Annotated[list[BlkifRequestSegment], BlkifRequestSegment * BLKIF_MAX_SEGMENTS_PER_REQUEST]


@abi(size=32)
class BlkifRequestDiscard(CStruct):
    """struct blkif_request_discard. Xen public/io/blkif.h."""

    operation: U8
    flag: U8
    handle: U16
    id: U64
    sector_number: U64
    nr_sectors: U64


@abi(size=16)
class BlkifResponse(CStruct):
    """struct blkif_response: `id` and `operation` are the request's. Xen public/io/blkif.h."""

    id: U64
    operation: U8
    status: S16
