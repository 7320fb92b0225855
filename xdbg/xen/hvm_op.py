"""hvm_op, which is for guests of another kind, called by a PV guest. Xen: arch/x86/hvm/hvm.c.

Xen does not keep a PV guest from calling it. Most of it then ends in -EINVAL, since the domain is not HVM; asking for
the time works, and so does leaving an event in Xen's own trace, which nobody reads here.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.hvm_op import (
    HVM_NR_PARAMS,
    HvmOp,
    XenHvmGetMemType,
    XenHvmGetTime,
    XenHvmPagetableDying,
    XenHvmParam,
    XenHvmXentrace,
)
from xdbg.abi.hypercalls import Hypercall

from .domain_lookup import check_exists, target_domain
from .faults import HypercallError
from .guest_access import read_struct, write_struct
from .hypercall import hypercall
from .vcpu import Vcpu

_TRACE_EXTRA_BYTES: Final = 28
_TRACE_SUBCLASS: Final = 1 << 12
"""Events of a guest's have numbers below. Xen: TRC_SUBCLS_SHIFT."""


@hypercall(Hypercall.HVM_OP)
def do_hvm_op(vcpu: Vcpu, op: int, arg: int) -> int:
    """HYPERVISOR_hvm_op(op, arg): system time and trace events; -EINVAL for what only an HVM domain has."""
    match op:
        case HvmOp.SET_PARAM | HvmOp.GET_PARAM:
            param = read_struct(vcpu, arg, XenHvmParam)
            if param.index < HVM_NR_PARAMS:
                check_exists(vcpu, param.domid)
        case HvmOp.PAGETABLE_DYING:
            check_exists(vcpu, read_struct(vcpu, arg, XenHvmPagetableDying).domid)
        case HvmOp.GET_MEM_TYPE:
            target_domain(vcpu, read_struct(vcpu, arg, XenHvmGetMemType).domid)
        case HvmOp.FLUSH_TLBS | HvmOp.SET_EVTCHN_UPCALL_VECTOR:
            pass
        case HvmOp.GET_TIME:
            write_struct(vcpu, arg, XenHvmGetTime(vcpu.domain.hv.now()))
            return 0
        case HvmOp.XENTRACE:
            trace = read_struct(vcpu, arg, XenHvmXentrace)
            if trace.extra_bytes <= _TRACE_EXTRA_BYTES and trace.event < _TRACE_SUBCLASS:
                return 0
        case HvmOp.GUEST_REQUEST_VM_EVENT:
            # Nobody monitors the domain.
            if not arg:
                return 0
        case HvmOp.ALTP2M:
            # The CPU has no EPT.
            raise HypercallError(Errno.EOPNOTSUPP)
        case _:
            raise HypercallError(Errno.ENOSYS)
    raise HypercallError(Errno.EINVAL)
