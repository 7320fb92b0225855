"""The NMI callback of a vcpu: nmi_op. Xen public/nmi.h."""

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U64, CStruct, abi


class XenNmi(CEnum, prefix="XENNMI_"):
    """XENNMI_*: first argument of nmi_op. Xen public/nmi.h."""

    REGISTER_CALLBACK = 0
    UNREGISTER_CALLBACK = 1


@abi(size=16)
class XennmiCallback(CStruct):
    """struct xennmi_callback. Xen public/nmi.h."""

    handler_address: U64
    pad: U64
