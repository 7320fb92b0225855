"""The NMI callback of a vcpu: nmi_op. Xen: arch/x86/pv/callback.c.

It is entry 2 of the trap table under another name: what one sets, the other sees. No NMI ever comes: a domU gets one
only by VCPUOP_send_nmi.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.nmi import XenNmi, XennmiCallback
from xdbg.abi.x86 import FLAT_KERNEL_CS64, Vector

from .callback import is_canonical
from .faults import HypercallError
from .guest_access import read_struct
from .hypercall import hypercall
from .vcpu import TrapGate, Vcpu


@hypercall(Hypercall.NMI_OP)
def do_nmi_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_nmi_op(cmd, arg): register or unregister the vcpu's NMI handler.

    -EINVAL for a handler that is not canonical. Xen: do_nmi_op().
    """
    match cmd:
        case XenNmi.REGISTER_CALLBACK:
            register_guest_nmi_callback(vcpu, read_struct(vcpu, arg, XennmiCallback).handler_address)
        case XenNmi.UNREGISTER_CALLBACK:
            unregister_guest_nmi_callback(vcpu)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


def register_guest_nmi_callback(vcpu: Vcpu, address: int) -> None:
    """Make `address` the handler of vector 2, with events masked; -EINVAL if it is not canonical."""
    if not is_canonical(address):
        raise HypercallError(Errno.EINVAL)
    vcpu.trap_table[Vector.NMI] = TrapGate(Vector.NMI, 0, True, FLAT_KERNEL_CS64, Vaddr(address))


def unregister_guest_nmi_callback(vcpu: Vcpu) -> None:
    """Vector 2 has no handler from now on."""
    vcpu.trap_table[Vector.NMI] = None
