"""Binding, closing and asking for event channels: what a guest does with its ports. Xen: common/event_channel.c.

Ports and how one becomes pending are in `event_channel`. An unprivileged domain acts on its own ports; the far end of a
channel is named by its domain and port, and must have been made for this domain by EVTCHNOP_alloc_unbound.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import (
    NR_VIRQS,
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
from xdbg.abi.mmu import DOMID_SELF

from .domain import Domain
from .domain_lookup import CONTROL_DOMID, target_domain
from .event_channel import BACKEND_DOMID, BACKENDS, Port, clear_pending, notify, set_pending, unmask
from .faults import HypercallError
from .guest_access import read_struct, write_struct
from .hypercall import hypercall
from .pirq import NR_PIRQS
from .vcpu import Vcpu

RESET_CONT: Final = 14
"""EVTCHNOP_reset_cont: the command by which Xen itself goes on with a long reset; no guest's header has it."""
_COMPAT = frozenset(range(EvtchnOp.UNMASK + 1))
"""Commands that the old form of the hypercall knows."""
_PER_VCPU_VIRQS = frozenset({Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU})


def virq_is_global(virq: int) -> bool:
    """Whether a VIRQ exists once in a domain, not once a vcpu. Xen: virq_is_global."""
    return virq not in _PER_VCPU_VIRQS


def _vcpu_of(domain: Domain, vcpu_id: int) -> Vcpu:
    if vcpu_id >= len(domain.vcpus):
        raise HypercallError(Errno.ENOENT)
    return domain.vcpus[vcpu_id]


def domain_by_id(vcpu: Vcpu, domid: int) -> Domain:
    """The domain that a guest names; -ESRCH if there is none."""
    if domid == DOMID_SELF:
        return vcpu.domain
    domain = vcpu.domain.hv.domains.get(domid)
    if domain is None:
        raise HypercallError(Errno.ESRCH)
    return domain


def alloc_unbound(domain: Domain, remote_domid: int) -> int:
    """A port that `remote_domid` may bind to. Xen: evtchn_alloc_unbound."""
    number = domain.event_channels.free_port()
    domain.event_channels.ports[number] = Port(EvtchnStat.UNBOUND, remote_domid=remote_domid)
    return number


def bind_interdomain(vcpu: Vcpu, remote_domid: int, remote_port: int) -> int:
    """The local port of a new channel to a port that waits for this domain. Xen: evtchn_bind_interdomain."""
    domain = vcpu.domain
    channels = domain.event_channels
    if remote_domid == BACKEND_DOMID and remote_domid not in domain.hv.domains:
        number = channels.free_port()
        end = channels.backends.get(remote_port)
        if end is None or end.guest_port:
            raise HypercallError(Errno.EINVAL)
        end.guest_port = number
        channels.ports[number] = Port(
            EvtchnStat.INTERDOMAIN, 0, BACKEND_DOMID, remote_port, end.name, device=end.device
        )
    else:
        remote = domain_by_id(vcpu, remote_domid)
        number = channels.free_port()
        far = remote.event_channels.port(remote_port)
        if far.state is not EvtchnStat.UNBOUND or far.remote_domid != domain.domid:
            raise HypercallError(Errno.EINVAL)
        channels.ports[number] = Port(EvtchnStat.INTERDOMAIN, 0, remote.domid, remote_port)
        far.state = EvtchnStat.INTERDOMAIN
        far.remote_port = number
    # Something sent to the port while it was unbound is lost; so the guest is told to look.
    set_pending(domain.vcpus[0], number)
    return number


def bind_virq(domain: Domain, virq: int, vcpu_id: int) -> int:
    """A port for a virtual interrupt of a vcpu. Xen: evtchn_bind_virq."""
    if virq >= NR_VIRQS or (virq_is_global(virq) and vcpu_id != 0):
        raise HypercallError(Errno.EINVAL)
    vcpu = _vcpu_of(domain, vcpu_id)
    if virq in vcpu.virq_ports:
        raise HypercallError(Errno.EEXIST)
    number = domain.event_channels.free_port()
    domain.event_channels.ports[number] = Port(EvtchnStat.VIRQ, vcpu_id, virq=virq)
    vcpu.virq_ports[virq] = number
    return number


def bind_ipi(domain: Domain, vcpu_id: int) -> int:
    """A port by which a domain notifies one of its own vcpus. Xen: evtchn_bind_ipi."""
    _vcpu_of(domain, vcpu_id)
    number = domain.event_channels.free_port()
    domain.event_channels.ports[number] = Port(EvtchnStat.IPI, vcpu_id)
    return number


def bind_pirq(pirq: int) -> int:
    """No physical interrupt is permitted to an unprivileged domain. Xen: evtchn_bind_pirq."""
    raise HypercallError(Errno.EINVAL if pirq >= NR_PIRQS else Errno.EPERM)


def close(domain: Domain, number: int) -> None:
    """Free a port; the far end of a channel is unbound again. Xen: evtchn_close, evtchn_free()."""
    port = domain.event_channels.port(number)
    match port.state:
        case EvtchnStat.CLOSED:
            raise HypercallError(Errno.EINVAL)
        case EvtchnStat.VIRQ:
            for vcpu in domain.vcpus:
                if vcpu.virq_ports.get(port.virq) == number:
                    del vcpu.virq_ports[port.virq]
        case EvtchnStat.INTERDOMAIN if port.backend is not None:
            domain.event_channels.backends[port.remote_port].guest_port = 0
        case EvtchnStat.INTERDOMAIN:
            far = domain.hv.domains[port.remote_domid].event_channels.ports[port.remote_port]
            far.state = EvtchnStat.UNBOUND
            far.remote_domid = domain.domid
            far.remote_port = 0
        case _:
            pass
    domain.event_channels.ports[number] = Port()
    # A stale bit would look like an event of the port's next user.
    clear_pending(domain, number)


def send(domain: Domain, number: int) -> None:
    """Notify the far end of a port. An unbound one is no error: nobody is told. Xen: evtchn_send."""
    port = domain.event_channels.port(number)
    match port.state:
        case EvtchnStat.INTERDOMAIN if port.backend is not None:
            BACKENDS[port.backend](domain, port.device)
        case EvtchnStat.INTERDOMAIN:
            notify(domain.hv.domains[port.remote_domid], port.remote_port)
        case EvtchnStat.IPI:
            notify(domain, number)
        case EvtchnStat.UNBOUND:
            pass
        case _:
            raise HypercallError(Errno.EINVAL)


def status(domain: Domain, query: EvtchnStatus) -> None:
    """Fill in what a port is bound to. Xen: evtchn_status."""
    port = domain.event_channels.port(query.port)
    query.status = port.state
    query.vcpu = port.vcpu_id
    match port.state:
        case EvtchnStat.UNBOUND:
            query.u.unbound.dom = port.remote_domid
        case EvtchnStat.INTERDOMAIN:
            query.u.interdomain.dom = port.remote_domid
            query.u.interdomain.port = port.remote_port
        case EvtchnStat.VIRQ:
            query.u.virq = port.virq
        case _:
            pass


def bind_vcpu(domain: Domain, number: int, vcpu_id: int) -> None:
    """Let a port notify another vcpu; a per-vcpu VIRQ and an IPI stay where they are. Xen: evtchn_bind_vcpu."""
    _vcpu_of(domain, vcpu_id)
    port = domain.event_channels.port(number)
    match port.state:
        case EvtchnStat.VIRQ if virq_is_global(port.virq):
            port.vcpu_id = vcpu_id
        case EvtchnStat.UNBOUND | EvtchnStat.INTERDOMAIN:
            port.vcpu_id = vcpu_id
        case _:
            raise HypercallError(Errno.EINVAL)


def reset(domain: Domain) -> None:
    """Close all ports. Xen: evtchn_reset."""
    for number, port in enumerate(domain.event_channels.ports):
        if port.state is not EvtchnStat.CLOSED:
            close(domain, number)


def destroy(domain: Domain) -> None:
    """Close all ports of a domain that goes away, so that no far end points to it. Xen: evtchn_destroy."""
    reset(domain)


@hypercall(Hypercall.EVENT_CHANNEL_OP)
def do_event_channel_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_event_channel_op(cmd, arg): bind, notify, query and close event channels.

    The FIFO ABI (init_control, expand_array) is -EOPNOTSUPP, as from a Xen without it (CONFIG_EVTCHN_FIFO); a kernel
    then uses the two-level ABI, which has no priorities. Xen: common/event_channel.c.
    """
    domain = vcpu.domain
    match cmd:
        case EvtchnOp.SEND:
            send(domain, read_struct(vcpu, arg, EvtchnSend).port)
        case EvtchnOp.UNMASK:
            unmask(domain, read_struct(vcpu, arg, EvtchnUnmask).port)
        case EvtchnOp.CLOSE:
            close(domain, read_struct(vcpu, arg, EvtchnClose).port)
        case EvtchnOp.BIND_VCPU:
            bind = read_struct(vcpu, arg, EvtchnBindVcpu)
            bind_vcpu(domain, bind.port, bind.vcpu)
        case EvtchnOp.RESET:
            reset(target_domain(vcpu, read_struct(vcpu, arg, EvtchnReset).dom))
        case _ if cmd == RESET_CONT:
            # How Xen goes on with a long reset. Here a reset is done at once, so there is none to go on with.
            target_domain(vcpu, read_struct(vcpu, arg, EvtchnReset).dom)
            raise HypercallError(Errno.EBUSY)
        case EvtchnOp.ALLOC_UNBOUND:
            alloc = read_struct(vcpu, arg, EvtchnAllocUnbound)
            if alloc.dom != CONTROL_DOMID:
                # Whether there is a free port is looked at first.
                domain_by_id(vcpu, alloc.dom).event_channels.free_port()
            owner = target_domain(vcpu, alloc.dom)
            remote = domain.domid if alloc.remote_dom == DOMID_SELF else alloc.remote_dom
            alloc.port = alloc_unbound(owner, remote)
            write_struct(vcpu, arg, alloc)
        case EvtchnOp.BIND_INTERDOMAIN:
            channel = read_struct(vcpu, arg, EvtchnBindInterdomain)
            channel.local_port = bind_interdomain(vcpu, channel.remote_dom, channel.remote_port)
            write_struct(vcpu, arg, channel)
        case EvtchnOp.BIND_VIRQ:
            virq = read_struct(vcpu, arg, EvtchnBindVirq)
            virq.port = bind_virq(domain, virq.virq, virq.vcpu)
            write_struct(vcpu, arg, virq)
        case EvtchnOp.BIND_IPI:
            ipi = read_struct(vcpu, arg, EvtchnBindIpi)
            ipi.port = bind_ipi(domain, ipi.vcpu)
            write_struct(vcpu, arg, ipi)
        case EvtchnOp.BIND_PIRQ:
            bind_pirq(read_struct(vcpu, arg, EvtchnBindPirq).pirq)
        case EvtchnOp.STATUS:
            query = read_struct(vcpu, arg, EvtchnStatus)
            if query.dom != CONTROL_DOMID:
                # Whether there is such a port is looked at first.
                domain_by_id(vcpu, query.dom).event_channels.port(query.port)
            status(target_domain(vcpu, query.dom), query)
            write_struct(vcpu, arg, query)
        case EvtchnOp.INIT_CONTROL:
            read_struct(vcpu, arg, EvtchnInitControl)
            raise HypercallError(Errno.EOPNOTSUPP)
        case EvtchnOp.EXPAND_ARRAY:
            read_struct(vcpu, arg, EvtchnExpandArray)
            raise HypercallError(Errno.EOPNOTSUPP)
        case EvtchnOp.SET_PRIORITY:
            domain.event_channels.port(read_struct(vcpu, arg, EvtchnSetPriority).port)
            raise HypercallError(Errno.ENOSYS)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


@hypercall(Hypercall.EVENT_CHANNEL_OP_COMPAT)
def do_event_channel_op_compat(vcpu: Vcpu, op: int) -> int | None:
    """HYPERVISOR_event_channel_op_compat(op): as event_channel_op, the command being in the structure.

    Xen: common/compat.c.
    """
    cmd = read_struct(vcpu, op, EvtchnOpStruct).cmd
    if cmd not in _COMPAT:
        raise HypercallError(Errno.ENOSYS)
    return do_event_channel_op(vcpu, cmd, op + EvtchnOpStruct.offset_of("u"))
