"""The NMI callback of a vcpu: nmi_op. Xen: arch/x86/pv/callback.c.

It is entry 2 of the trap table under another name: what one sets, the other sees. A domU gets an NMI by
VCPUOP_send_nmi only.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.nmi import XenNmi, XennmiCallback

from .callback import register_guest_nmi_callback, unregister_guest_nmi_callback
from .faults import HypercallError
from .guest_access import read_struct
from .hypercall import hypercall
from .vcpu import Vcpu


@hypercall(Hypercall.NMI_OP)
def do_nmi_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_nmi_op(cmd, arg): register or unregister the vcpu's NMI handler.

    -EINVAL for a handler that is not canonical. Xen: do_nmi_op().
    """
    match cmd:
        case XenNmi.REGISTER_CALLBACK:
            register_guest_nmi_callback(vcpu, Vaddr(read_struct(vcpu, arg, XennmiCallback).handler_address))
        case XenNmi.UNREGISTER_CALLBACK:
            unregister_guest_nmi_callback(vcpu)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0
