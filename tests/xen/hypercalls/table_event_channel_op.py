"""event_channel_op and its old form. Read from common/event_channel.c, common/event_fifo.c and common/compat.c."""

from xdbg.abi.event_channel import (
    EvtchnAllocUnbound,
    EvtchnBindInterdomain,
    EvtchnBindIpi,
    EvtchnBindPirq,
    EvtchnBindVcpu,
    EvtchnBindVirq,
    EvtchnClose,
    EvtchnExpandArray,
    EvtchnInitControl,
    EvtchnOp,
    EvtchnOpStruct,
    EvtchnReset,
    EvtchnSend,
    EvtchnSetPriority,
    EvtchnStat,
    EvtchnStatus,
    EvtchnUnmask,
    Virq,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_IO, DOMID_SELF

from .domain_under_test import FREE
from .vocabulary import (
    DOM0,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    HIGH,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Operation,
    Row,
    Table,
    anywhere,
    faults,
    mfn,
    put,
)

OP = Hypercall.EVENT_CHANNEL_OP
PORT = 1
"""What the first call that allocates a port gets."""
BEYOND = 4096
IPI = (OP, EvtchnOp.BIND_IPI, put(EvtchnBindIpi, vcpu=0))
TIMER = (OP, EvtchnOp.BIND_VIRQ, put(EvtchnBindVirq, virq=Virq.TIMER))
CONSOLE = (OP, EvtchnOp.BIND_VIRQ, put(EvtchnBindVirq, virq=Virq.CONSOLE))
UNBOUND = (OP, EvtchnOp.ALLOC_UNBOUND, put(EvtchnAllocUnbound, dom=DOMID_SELF, remote_dom=NEIGHBOUR))
FOR_ITSELF = (OP, EvtchnOp.ALLOC_UNBOUND, put(EvtchnAllocUnbound, dom=DOMID_SELF, remote_dom=DOMID_SELF))
LOOP = (
    FOR_ITSELF,
    (OP, EvtchnOp.BIND_INTERDOMAIN, put(EvtchnBindInterdomain, remote_dom=DOMID_SELF, remote_port=PORT)),
)
"""A channel of the domain with itself: ports 1 and 2."""
CLOSE = (OP, EvtchnOp.CLOSE, put(EvtchnClose, port=PORT))


def virq(number: int, vcpu: int = 0):
    return put(EvtchnBindVirq, virq=number, vcpu=vcpu)


def status(what: str, before: tuple, port: int = PORT, **wrote: object) -> Row:
    fields = {name.replace("__", "."): value for name, value in wrote.items()}
    return Row(what, (put(EvtchnStatus, dom=DOMID_SELF, port=port),), 0, fields, before)


def no_port(kind: type, result: int = EINVAL) -> list[Row]:
    """Rows of a command whose argument is a port."""
    return [
        Row("a free port", (put(kind, port=7),), result),
        Row("port 0", (put(kind, port=0),), result),
        Row("a port beyond the last", (put(kind, port=BEYOND),), EINVAL),
        Row("a port far beyond", (put(kind, port=0xFFFF_FFFF),), EINVAL),
        *faults(put(kind, port=7)),
    ]


TABLES = (
    Table(
        OP,
        commands=EvtchnOp,
        operations={
            EvtchnOp.ALLOC_UNBOUND: Operation(
                "makes a port that another domain may bind to",
                "evtchn_alloc_unbound()",
                [
                    *anywhere(
                        Row(
                            "valid",
                            (put(EvtchnAllocUnbound, dom=DOMID_SELF, remote_dom=NEIGHBOUR),),
                            0,
                            {"port": PORT, "dom": DOMID_SELF},
                        )
                    ),
                    Row("by its number", (put(EvtchnAllocUnbound, dom=OWN, remote_dom=OWN),), 0, {"port": PORT}),
                    Row("for domain 0", (put(EvtchnAllocUnbound, dom=OWN, remote_dom=DOM0),), 0, {"port": PORT}),
                    Row("for nobody", (put(EvtchnAllocUnbound, dom=OWN, remote_dom=NOBODY),), 0, {"port": PORT}),
                    Row("in another domain", (put(EvtchnAllocUnbound, dom=NEIGHBOUR, remote_dom=OWN),), EPERM),
                    Row("in domain 0", (put(EvtchnAllocUnbound, dom=DOM0, remote_dom=OWN),), EPERM),
                    Row("in nobody", (put(EvtchnAllocUnbound, dom=NOBODY, remote_dom=OWN),), ESRCH),
                    Row("in dom_io", (put(EvtchnAllocUnbound, dom=DOMID_IO, remote_dom=OWN),), ESRCH),
                    *faults(put(EvtchnAllocUnbound, dom=DOMID_SELF), written=True),
                ],
            ),
            EvtchnOp.BIND_INTERDOMAIN: Operation(
                "connects to a port that waits for this domain",
                "evtchn_bind_interdomain()",
                [
                    Row(
                        "its own",
                        (put(EvtchnBindInterdomain, remote_dom=DOMID_SELF, remote_port=PORT),),
                        0,
                        {"local_port": 2},
                        (FOR_ITSELF,),
                    ),
                    Row(
                        "one that waits for another",
                        (put(EvtchnBindInterdomain, remote_dom=OWN, remote_port=PORT),),
                        EINVAL,
                        None,
                        (UNBOUND,),
                    ),
                    Row("a free port", (put(EvtchnBindInterdomain, remote_dom=NEIGHBOUR, remote_port=7),), EINVAL),
                    Row("port 0", (put(EvtchnBindInterdomain, remote_dom=NEIGHBOUR, remote_port=0),), EINVAL),
                    Row(
                        "beyond the last",
                        (put(EvtchnBindInterdomain, remote_dom=NEIGHBOUR, remote_port=BEYOND),),
                        EINVAL,
                    ),
                    Row(
                        "a free port of domain 0", (put(EvtchnBindInterdomain, remote_dom=DOM0, remote_port=7),), EINVAL
                    ),
                    Row("of nobody", (put(EvtchnBindInterdomain, remote_dom=NOBODY, remote_port=1),), ESRCH),
                    Row(
                        "bound already",
                        (put(EvtchnBindInterdomain, remote_dom=OWN, remote_port=PORT),),
                        EINVAL,
                        None,
                        LOOP,
                    ),
                    *faults(put(EvtchnBindInterdomain, remote_dom=DOMID_SELF)),
                ],
            ),
            EvtchnOp.BIND_VIRQ: Operation(
                "binds a virtual interrupt",
                "evtchn_bind_virq()",
                [
                    *anywhere(Row("timer", (virq(Virq.TIMER),), 0, {"port": PORT})),
                    Row("timer of the other vcpu", (virq(Virq.TIMER, 1),), 0, {"port": PORT}),
                    Row("a second time", (virq(Virq.TIMER),), EEXIST, None, (TIMER,)),
                    Row("for the other vcpu as well", (virq(Virq.TIMER, 1),), 0, {"port": 2}, (TIMER,)),
                    Row("again after it was closed", (virq(Virq.TIMER),), 0, {"port": PORT}, (TIMER, CLOSE)),
                    Row("a global one", (virq(Virq.CONSOLE),), 0, {"port": PORT}),
                    Row("a global one of the other vcpu", (virq(Virq.CONSOLE, 1),), EINVAL),
                    Row("an arch one", (virq(Virq.ARCH_0),), 0, {"port": PORT}),
                    Row("an arch one of the other vcpu", (virq(Virq.ARCH_7, 1),), EINVAL),
                    Row("one without a name, 5", (virq(5),), 0, {"port": PORT}),
                    Row("beyond the last", (virq(24),), EINVAL),
                    Row("negative", (virq(0xFFFF_FFFF),), EINVAL),
                    Row("of a vcpu that is not there", (virq(Virq.TIMER, 2),), ENOENT),
                    Row("a global one of no vcpu", (virq(Virq.CONSOLE, 99),), EINVAL),
                    *faults(virq(Virq.TIMER), written=True),
                ],
            ),
            EvtchnOp.BIND_PIRQ: Operation(
                "binds a physical interrupt; none is permitted",
                "evtchn_bind_pirq()",
                [
                    *anywhere(Row("valid", (put(EvtchnBindPirq, pirq=9),), EPERM)),
                    Row("the last", (put(EvtchnBindPirq, pirq=55),), EPERM),
                    Row("beyond the last", (put(EvtchnBindPirq, pirq=56),), EINVAL),
                    *faults(put(EvtchnBindPirq, pirq=9)),
                ],
            ),
            EvtchnOp.CLOSE: Operation(
                "frees a port",
                "evtchn_close()",
                [
                    Row("an IPI", (put(EvtchnClose, port=PORT),), 0, None, (IPI,)),
                    Row("a VIRQ", (put(EvtchnClose, port=PORT),), 0, None, (TIMER,)),
                    Row("one that waits", (put(EvtchnClose, port=PORT),), 0, None, (UNBOUND,)),
                    Row("a channel", (put(EvtchnClose, port=2),), 0, None, LOOP),
                    Row("twice", (put(EvtchnClose, port=PORT),), EINVAL, None, (IPI, CLOSE)),
                    *no_port(EvtchnClose),
                ],
            ),
            EvtchnOp.SEND: Operation(
                "notifies the far end",
                "evtchn_send()",
                [
                    Row("a channel", (put(EvtchnSend, port=2),), 0, None, LOOP),
                    Row("an IPI", (put(EvtchnSend, port=PORT),), 0, None, (IPI,)),
                    Row("one that waits", (put(EvtchnSend, port=PORT),), 0, None, (UNBOUND,)),
                    Row("whose far end was closed", (put(EvtchnSend, port=2),), 0, None, (*LOOP, CLOSE)),
                    Row("a VIRQ", (put(EvtchnSend, port=PORT),), EINVAL, None, (TIMER,)),
                    *no_port(EvtchnSend),
                ],
            ),
            EvtchnOp.STATUS: Operation(
                "tells what a port is bound to",
                "evtchn_status()",
                [
                    status("an IPI", (IPI,), status=EvtchnStat.IPI, vcpu=0),
                    status("a VIRQ", (TIMER,), status=EvtchnStat.VIRQ, u__virq=Virq.TIMER),
                    status("one that waits", (UNBOUND,), status=EvtchnStat.UNBOUND, u__unbound__dom=NEIGHBOUR),
                    status(
                        "a channel",
                        LOOP,
                        2,
                        status=EvtchnStat.INTERDOMAIN,
                        u__interdomain__dom=OWN,
                        u__interdomain__port=1,
                    ),
                    status("a free port", (), 7, status=EvtchnStat.CLOSED),
                    status("port 0", (), 0, status=EvtchnStat.CLOSED),
                    Row("a port beyond the last", (put(EvtchnStatus, dom=DOMID_SELF, port=BEYOND),), EINVAL),
                    Row("another domain's", (put(EvtchnStatus, dom=NEIGHBOUR, port=1),), EPERM),
                    Row("another domain's, beyond", (put(EvtchnStatus, dom=NEIGHBOUR, port=BEYOND),), EINVAL),
                    Row("domain 0's", (put(EvtchnStatus, dom=DOM0, port=1),), EPERM),
                    Row("nobody's", (put(EvtchnStatus, dom=NOBODY, port=1),), ESRCH),
                    *faults(put(EvtchnStatus, dom=DOMID_SELF), written=True),
                ],
            ),
            EvtchnOp.BIND_IPI: Operation(
                "binds notifications of one of its own vcpus",
                "evtchn_bind_ipi()",
                [
                    *anywhere(Row("valid", (put(EvtchnBindIpi, vcpu=0),), 0, {"port": PORT})),
                    Row("of the other vcpu", (put(EvtchnBindIpi, vcpu=1),), 0, {"port": PORT}),
                    Row("of a vcpu that is not there", (put(EvtchnBindIpi, vcpu=2),), ENOENT),
                    *faults(put(EvtchnBindIpi, vcpu=0), written=True),
                ],
            ),
            EvtchnOp.BIND_VCPU: Operation(
                "lets a port notify another vcpu",
                "evtchn_bind_vcpu()",
                [
                    Row("a channel", (put(EvtchnBindVcpu, port=2, vcpu=1),), 0, None, LOOP),
                    Row("one that waits", (put(EvtchnBindVcpu, port=PORT, vcpu=1),), 0, None, (UNBOUND,)),
                    Row("a global VIRQ", (put(EvtchnBindVcpu, port=PORT, vcpu=1),), 0, None, (CONSOLE,)),
                    Row("a VIRQ of a vcpu", (put(EvtchnBindVcpu, port=PORT, vcpu=1),), EINVAL, None, (TIMER,)),
                    Row("an IPI", (put(EvtchnBindVcpu, port=PORT, vcpu=1),), EINVAL, None, (IPI,)),
                    Row("to where it is", (put(EvtchnBindVcpu, port=PORT, vcpu=0),), EINVAL, None, (IPI,)),
                    Row("to a vcpu that is not there", (put(EvtchnBindVcpu, port=PORT, vcpu=2),), ENOENT, None, (IPI,)),
                    Row("no port, to no vcpu", (put(EvtchnBindVcpu, port=BEYOND, vcpu=2),), ENOENT),
                    *no_port(EvtchnBindVcpu),
                ],
            ),
            EvtchnOp.UNMASK: Operation(
                "unmasks a port",
                "evtchn_unmask()",
                [
                    Row("an IPI", (put(EvtchnUnmask, port=PORT),), 0, None, (IPI,)),
                    *no_port(EvtchnUnmask, 0),
                ],
            ),
            EvtchnOp.RESET: Operation(
                "closes all ports",
                "evtchn_reset()",
                [
                    Row("valid", (put(EvtchnReset, dom=DOMID_SELF),), 0, None, (IPI, TIMER)),
                    Row("by its number", (put(EvtchnReset, dom=OWN),), 0),
                    Row("another domain's", (put(EvtchnReset, dom=NEIGHBOUR),), EPERM),
                    Row("domain 0's", (put(EvtchnReset, dom=DOM0),), EPERM),
                    Row("nobody's", (put(EvtchnReset, dom=NOBODY),), ESRCH),
                    *faults(put(EvtchnReset, dom=DOMID_SELF)),
                ],
            ),
            EvtchnOp.INIT_CONTROL: Operation(
                "would switch to the FIFO ABI (CONFIG_EVTCHN_FIFO)",
                "do_event_channel_op()",
                [
                    Row("valid", (put(EvtchnInitControl, control_gfn=mfn(FREE)),), EOPNOTSUPP),
                    *faults(put(EvtchnInitControl)),
                ],
            ),
            EvtchnOp.EXPAND_ARRAY: Operation(
                "extends the array of the FIFO ABI, which is not in use",
                "evtchn_fifo_expand_array()",
                [
                    Row("valid", (put(EvtchnExpandArray, array_gfn=mfn(FREE)),), EOPNOTSUPP),
                    *faults(put(EvtchnExpandArray)),
                ],
            ),
            EvtchnOp.SET_PRIORITY: Operation(
                "sets a priority, which the two-level ABI does not have",
                "evtchn_set_priority()",
                [
                    Row("an IPI", (put(EvtchnSetPriority, port=PORT, priority=3),), ENOSYS, None, (IPI,)),
                    *no_port(EvtchnSetPriority, ENOSYS),
                ],
            ),
            "other": Operation(
                "any other command",
                "do_event_channel_op()",
                [
                    Row("beyond the last", (15, NULL), ENOSYS),
                    Row("negative", (0xFFFF_FFFF, UNMAPPED), ENOSYS),
                    Row(
                        "the upper half does not count", (HIGH | EvtchnOp.BIND_IPI, put(EvtchnBindIpi)), 0, {"port": 1}
                    ),
                ],
            ),
        },
    ),
    Table(
        Hypercall.EVENT_CHANNEL_OP_COMPAT,
        operations={
            None: Operation(
                "as event_channel_op, for the commands up to unmask",
                "do_event_channel_op_compat()",
                [
                    *anywhere(Row("bind_ipi", (put(EvtchnOpStruct, cmd=7),), 0, {"u.bind_ipi.port": PORT})),
                    Row("send", (put(EvtchnOpStruct, cmd=4, u__send__port=PORT),), 0, None, (IPI,)),
                    Row("close of a free port", (put(EvtchnOpStruct, cmd=3, u__close__port=7),), EINVAL),
                    Row("bind_vcpu", (put(EvtchnOpStruct, cmd=8, u__bind_vcpu__vcpu=9),), ENOENT),
                    Row("unmask", (put(EvtchnOpStruct, cmd=9, u__unmask__port=PORT),), 0, None, (IPI,)),
                    Row("reset, which is newer", (put(EvtchnOpStruct, cmd=10),), ENOSYS),
                    *faults(put(EvtchnOpStruct, cmd=7), written=True),
                ],
            )
        },
    ),
)
