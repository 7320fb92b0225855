"""Non-maskable interrupts of a guest. Xen public/nmi.h."""

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U64, CStruct, abi


class XennmiOp(CEnum, prefix="XENNMI_"):
    """XENNMI_*: first argument of nmi_op."""

    REGISTER_CALLBACK = 0
    UNREGISTER_CALLBACK = 1


@abi(size=16)
class XennmiCallback(CStruct):
    """struct xennmi_callback: argument of REGISTER_CALLBACK."""

    handler_address: U64
    pad: U64
