"""The xenstore protocol: messages over a shared ring page. Xen public/io/xs_wire.h.

A message is a XsdSockmsg and `len` bytes of payload; a reply repeats req_id and tx_id. An error is a XS_ERROR whose
payload is the errno's name and a NUL. Indices of the ring run freely; byte N is at N modulo XENSTORE_RING_SIZE.
"""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U32, ByteArray, CStruct, abi
from xdbg.abi.errno import Errno

XENSTORE_RING_SIZE: Final = 1024
XENSTORE_PAYLOAD_MAX: Final = 4096
"""Limits in bytes: payload of a message, absolute path, relative path."""
XENSTORE_ABS_PATH_MAX: Final = 3072
XENSTORE_REL_PATH_MAX: Final = 2048
XENSTORE_SERVER_FEATURE_RECONNECTION: Final = 1
"""Bits of `server_features`."""
XENSTORE_SERVER_FEATURE_ERROR: Final = 2
XENSTORE_CONNECTED: Final = 0
"""Values of `connection`."""
XENSTORE_RECONNECT: Final = 1
XENSTORE_ERROR_NONE: Final = 0
"""Values of `error`."""
XENSTORE_ERROR_COMM: Final = 1
XENSTORE_ERROR_RINGIDX: Final = 2
XENSTORE_ERROR_PROTO: Final = 3

XSD_ERRORS: Final = (
    Errno.EINVAL,
    Errno.EACCES,
    Errno.EEXIST,
    Errno.EISDIR,
    Errno.ENOENT,
    Errno.ENOMEM,
    Errno.ENOSPC,
    Errno.EIO,
    Errno.ENOTEMPTY,
    Errno.ENOSYS,
    Errno.EROFS,
    Errno.EBUSY,
    Errno.EAGAIN,
    Errno.EISCONN,
    Errno.E2BIG,
    Errno.EPERM,
)
"""The errors that the protocol knows, sent by name: `XSD_ERRORS[0].name`. xs_wire.h: xsd_errors."""


class XsMsgType(CEnum, prefix="XS_"):
    """XS_*: `type` of a message. Xen public/io/xs_wire.h, enum xsd_sockmsg_type."""

    CONTROL = 0
    DEBUG = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    INVALID = 0xFFFF


class XsWatchType(CEnum, prefix="XS_WATCH_"):
    """XS_WATCH_*: index of the strings in the payload of XS_WATCH_EVENT.

    Xen public/io/xs_wire.h, enum xs_watch_type.
    """

    PATH = 0
    TOKEN = 1


@abi(size=16)
class XsdSockmsg(CStruct):
    """struct xsd_sockmsg: header of a message; `len` bytes follow. Xen public/io/xs_wire.h."""

    type: U32
    req_id: U32
    tx_id: U32
    len: U32


@abi(size=2076)
class XenstoreDomainInterface(CStruct):
    """struct xenstore_domain_interface: the ring page. Xen public/io/xs_wire.h."""

    req: Annotated[ByteArray, ctypes.c_uint8 * XENSTORE_RING_SIZE]
    rsp: Annotated[ByteArray, ctypes.c_uint8 * XENSTORE_RING_SIZE]
    req_cons: U32
    req_prod: U32
    rsp_cons: U32
    rsp_prod: U32
    server_features: U32
    connection: U32
    error: U32
