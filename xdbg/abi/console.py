"""The console: hypercall and ring. Xen public/xen.h, public/io/console.h.

Indices of the ring run freely; byte N is at N modulo the ring's size. `in_` goes to the guest, `out` comes from it.
"""

import ctypes
from typing import Annotated

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U32, ByteArray, CStruct, abi


class ConsoleIo(CEnum, prefix="CONSOLEIO_"):
    """CONSOLEIO_*: first argument of console_io. Xen public/xen.h."""

    WRITE = 0
    READ = 1


@abi(size=3088)
class XenconsInterface(CStruct):
    """struct xencons_interface: the console's ring page. Xen public/io/console.h."""

    in_: Annotated[ByteArray, ctypes.c_uint8 * 1024]
    out: Annotated[ByteArray, ctypes.c_uint8 * 2048]
    in_cons: U32
    in_prod: U32
    out_cons: U32
    out_prod: U32
