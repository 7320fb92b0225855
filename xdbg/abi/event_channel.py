"""Event channels: virtual interrupts between domains, from Xen and between vcpus. Xen public/event_channel.h.

With the two-level ABI a port is one bit in `evtchn_pending` and `evtchn_mask` of shared_info, and a bit of
`evtchn_pending_sel` says which word of 64 ports has news. The FIFO ABI has a word a port and a queue a priority.
"""

import ctypes
from typing import Annotated, Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import U8, U16, U32, U64, ByteArray, CStruct, CUnion, abi

EVTCHN_2L_NR_CHANNELS: Final = 4096
"""Ports of the two-level ABI."""
EVTCHN_FIFO_PRIORITY_MAX: Final = 0
EVTCHN_FIFO_PRIORITY_DEFAULT: Final = 7
EVTCHN_FIFO_PRIORITY_MIN: Final = 15
EVTCHN_FIFO_MAX_QUEUES: Final = 16
EVTCHN_FIFO_PENDING: Final = 31
"""Bit numbers of an event word of the FIFO ABI: PENDING, MASKED, LINKED, BUSY; the link is below them."""
EVTCHN_FIFO_MASKED: Final = 30
EVTCHN_FIFO_LINKED: Final = 29
EVTCHN_FIFO_BUSY: Final = 28
EVTCHN_FIFO_LINK_BITS: Final = 17
EVTCHN_FIFO_NR_CHANNELS: Final = 1 << EVTCHN_FIFO_LINK_BITS
BIND_PIRQ__WILL_SHARE: Final = 1


class EvtchnOp(CEnum, prefix="EVTCHNOP_"):
    """EVTCHNOP_*: first argument of event_channel_op. Xen public/event_channel.h."""

    BIND_INTERDOMAIN = 0
    BIND_VIRQ = 1
    BIND_PIRQ = 2
    CLOSE = 3
    SEND = 4
    STATUS = 5
    ALLOC_UNBOUND = 6
    BIND_IPI = 7
    BIND_VCPU = 8
    UNMASK = 9
    RESET = 10
    INIT_CONTROL = 11
    EXPAND_ARRAY = 12
    SET_PRIORITY = 13


class EvtchnStat(CEnum, prefix="EVTCHNSTAT_"):
    """EVTCHNSTAT_*: what a port is bound to. Xen public/event_channel.h."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


class Virq(CEnum, prefix="VIRQ_"):
    """VIRQ_*: virtual interrupts from Xen; TIMER, DEBUG and XENOPROF are per vcpu, the rest global.

    Xen public/xen.h.
    """

    TIMER = 0
    DEBUG = 1
    CONSOLE = 2
    DOM_EXC = 3
    TBUF = 4
    DEBUGGER = 6
    XENOPROF = 7
    CON_RING = 8
    PCPU_STATE = 9
    MEM_EVENT = 10
    ARGO = 11
    ENOMEM = 12
    XENPMU = 13
    ARCH_0 = 16
    ARCH_1 = 17
    ARCH_2 = 18
    ARCH_3 = 19
    ARCH_4 = 20
    ARCH_5 = 21
    ARCH_6 = 22
    ARCH_7 = 23


NR_VIRQS: Final = 24


@abi(size=8)
class EvtchnAllocUnbound(CStruct):
    """struct evtchn_alloc_unbound: in dom, remote_dom; out port. Xen public/event_channel.h."""

    dom: U16
    remote_dom: U16
    port: U32


@abi(size=12)
class EvtchnBindInterdomain(CStruct):
    """struct evtchn_bind_interdomain: in remote_dom, remote_port; out local_port. Xen public/event_channel.h."""

    remote_dom: U16
    remote_port: U32
    local_port: U32


@abi(size=12)
class EvtchnBindVirq(CStruct):
    """struct evtchn_bind_virq: in virq, vcpu; out port. Xen public/event_channel.h."""

    virq: U32
    vcpu: U32
    port: U32


@abi(size=12)
class EvtchnBindPirq(CStruct):
    """struct evtchn_bind_pirq: in pirq, flags; out port. Xen public/event_channel.h."""

    pirq: U32
    flags: U32
    port: U32


@abi(size=8)
class EvtchnBindIpi(CStruct):
    """struct evtchn_bind_ipi: in vcpu; out port. Xen public/event_channel.h."""

    vcpu: U32
    port: U32


@abi(size=4)
class EvtchnClose(CStruct):
    """struct evtchn_close. Xen public/event_channel.h."""

    port: U32


@abi(size=4)
class EvtchnSend(CStruct):
    """struct evtchn_send. Xen public/event_channel.h."""

    port: U32


@abi(size=2, tag="")
class EvtchnStatusUnbound(CStruct):
    """u.unbound of struct evtchn_status: who may bind to the port. Xen public/event_channel.h."""

    dom: U16


@abi(size=8, tag="")
class EvtchnStatusInterdomain(CStruct):
    """u.interdomain of struct evtchn_status: the far end. Xen public/event_channel.h."""

    dom: U16
    port: U32


@abi(size=8, tag="")
class EvtchnStatusUnion(CUnion):
    """u of struct evtchn_status; `status` says which member holds. Xen public/event_channel.h."""

    unbound: EvtchnStatusUnbound
    interdomain: EvtchnStatusInterdomain
    pirq: U32
    virq: U32


@abi(size=24)
class EvtchnStatus(CStruct):
    """struct evtchn_status: in dom, port; out status (EvtchnStat), vcpu, u. Xen public/event_channel.h."""

    dom: U16
    port: U32
    status: U32
    vcpu: U32
    u: EvtchnStatusUnion


@abi(size=8)
class EvtchnBindVcpu(CStruct):
    """struct evtchn_bind_vcpu: the vcpu that is notified of the port. Xen public/event_channel.h."""

    port: U32
    vcpu: U32


@abi(size=4)
class EvtchnUnmask(CStruct):
    """struct evtchn_unmask. Xen public/event_channel.h."""

    port: U32


@abi(size=2)
class EvtchnReset(CStruct):
    """struct evtchn_reset: closes all ports of a domain. Xen public/event_channel.h."""

    dom: U16


@abi(size=24)
class EvtchnInitControl(CStruct):
    """struct evtchn_init_control: in control_gfn, offset, vcpu; out link_bits. Xen public/event_channel.h."""

    control_gfn: U64
    offset: U32
    vcpu: U32
    link_bits: U8
    _pad: Annotated[ByteArray, ctypes.c_uint8 * 7]


@abi(size=8)
class EvtchnExpandArray(CStruct):
    """struct evtchn_expand_array: one more page of event words. Xen public/event_channel.h."""

    array_gfn: U64


@abi(size=8)
class EvtchnSetPriority(CStruct):
    """struct evtchn_set_priority. Xen public/event_channel.h."""

    port: U32
    priority: U32


@abi(size=24, tag="")
class EvtchnOpUnion(CUnion):
    """u of struct evtchn_op; `cmd` says which member holds. Xen public/event_channel.h."""

    alloc_unbound: EvtchnAllocUnbound
    bind_interdomain: EvtchnBindInterdomain
    bind_virq: EvtchnBindVirq
    bind_pirq: EvtchnBindPirq
    bind_ipi: EvtchnBindIpi
    close: EvtchnClose
    send: EvtchnSend
    status: EvtchnStatus
    bind_vcpu: EvtchnBindVcpu
    unmask: EvtchnUnmask


@abi(size=28, tag="evtchn_op")
class EvtchnOpStruct(CStruct):
    """struct evtchn_op: the one argument of event_channel_op_compat. Xen public/event_channel.h."""

    cmd: U32
    u: EvtchnOpUnion


@abi(size=72)
class EvtchnFifoControlBlock(CStruct):
    """struct evtchn_fifo_control_block: heads of a vcpu's queues, one a priority. Xen public/event_channel.h."""

    ready: U32
    _rsvd: U32
    head: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * EVTCHN_FIFO_MAX_QUEUES]
