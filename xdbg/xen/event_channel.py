"""Event channels with the two-level ABI. Xen: common/event_channel.c, common/event_2l.c, public/event_channel.h.

A port is one bit. To make port P of a vcpu pending:

1. set bit P of `evtchn_pending`; nothing more happens if it was set;
2. unless bit P of `evtchn_mask` is set: set bit P / 64 of the vcpu's `evtchn_pending_sel`, and if that was clear set
   `evtchn_upcall_pending`, and if that was clear wake the vcpu;
3. wake the vcpus that poll for the port, masked or not.

The upcall itself is delivered on the way back to the guest, never from here.

What a port is bound to is the `Port`'s state; only an interdomain port has a far end, which is a port of a domain or
one of Xen's own backends. A backend stands for a service of domain 0: to the guest it looks like a port of domain 0
that was bound for it beforehand, and after a close it may be bound again by EVTCHNOP_bind_interdomain.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

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
    EvtchnOp,
    EvtchnOpStruct,
    EvtchnReset,
    EvtchnSend,
    EvtchnStat,
    EvtchnStatus,
    EvtchnUnmask,
    Virq,
)
from xdbg.abi.frames import Maddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.shared_info import SharedInfo, VcpuInfo

from .domain import Domain
from .events import EventPending, MemoryWritten
from .faults import HypercallError
from .guest_access import read_struct, write_struct
from .hypercall import hypercall
from .sched import vcpu_unblock
from .vcpu import Vcpu

DOMID_SELF = 0x7FF0
"""The calling domain, wherever a domid is asked for. Xen public/xen.h."""
BACKEND_DOMID = 0
"""The domain that Xen's own backends seem to live in."""
MAX_PORT = 1023
"""The highest port that a domain gets; what the tool stack gives to a domain unless told otherwise."""
PORTS_PER_BUCKET = 64
"""Ports come into being by so many at a time: a port that exists but is free is "closed", any other is -EINVAL."""
NR_PIRQS = 56
"""Physical interrupts that a domain could name: 24 lines of an IOAPIC and 32 more; none is permitted to it."""

_PENDING = SharedInfo.offset_of("evtchn_pending")
_MASK = SharedInfo.offset_of("evtchn_mask")
_UPCALL_PENDING = VcpuInfo.offset_of("evtchn_upcall_pending")
_UPCALL_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")
_PENDING_SEL = VcpuInfo.offset_of("evtchn_pending_sel")

_COMPAT = frozenset(range(EvtchnOp.UNMASK + 1))
"""Commands that the old form of the hypercall knows."""
_PER_VCPU_VIRQS = frozenset({Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU})


@dataclass(slots=True)
class Port:
    """One event channel's end. Xen: struct evtchn."""

    state: EvtchnStat = EvtchnStat.CLOSED
    vcpu_id: int = 0
    """The vcpu that is notified."""
    remote_domid: int = 0
    """Unbound: who may bind; interdomain: where the far end is."""
    remote_port: int = 0
    backend: str | None = None
    """The backend at the far end, a name in `BACKENDS`; None: a port of domain `remote_domid`."""
    virq: int = 0


@dataclass(slots=True)
class EventChannels:
    """All ports of one domain, and what waits for its virtual time beside its vcpus' timers."""

    ports: list[Port] = field(default_factory=list)
    """By number, as many as exist; port 0 is never given out."""
    backends: dict[int, str] = field(default_factory=dict)
    """Ports of the backends that may be bound by bind_interdomain, and the backends' names."""
    watchdogs_ns: list[int] = field(default_factory=lambda: [0, 0])
    """System time at which each SCHEDOP_watchdog shuts the domain down; 0: off."""
    latched_shutdown_code: int | None = None
    """SCHEDOP_shutdown_code: what a later shutdown reports."""

    @classmethod
    def create(cls, domain: Domain) -> Self:
        """No port is in use."""
        del domain
        return cls(ports=[Port() for _ in range(PORTS_PER_BUCKET)])

    def free_port(self) -> int:
        """The lowest free port; -ENOSPC when all are taken. Xen: get_free_port()."""
        for number in range(1, len(self.ports)):
            if self.ports[number].state is EvtchnStat.CLOSED:
                return number
        number = len(self.ports)
        if number > MAX_PORT:
            raise HypercallError(Errno.ENOSPC)
        self.ports.extend(Port() for _ in range(PORTS_PER_BUCKET))
        return number

    def port(self, number: int) -> Port:
        """An existing port, free or not; -EINVAL for any other number."""
        if number >= len(self.ports):
            raise HypercallError(Errno.EINVAL)
        return self.ports[number]

    def bind_backend(self, name: str) -> int:
        """A port bound to one of Xen's own backends; for the domain's builder."""
        number = self.free_port()
        self.backends[number] = name
        self.ports[number] = Port(EvtchnStat.INTERDOMAIN, 0, BACKEND_DOMID, number, name)
        return number


BACKENDS: dict[str, Callable[[Domain], None]] = {}
"""Xen's own backends by name: what to do when a domain notifies one."""


def backend(name: str) -> Callable[[Callable[[Domain], None]], Callable[[Domain], None]]:
    """Enter a function in `BACKENDS`: it is called when a domain sends to the backend's port."""

    def enter(serve: Callable[[Domain], None]) -> Callable[[Domain], None]:
        assert name not in BACKENDS, name
        BACKENDS[name] = serve
        return serve

    return enter


# Bits of shared_info and vcpu_info. One 64-bit word holds the state of 64 ports.


def _set_bit(domain: Domain, base: int, bit: int) -> bool:
    """Set a bit of a bitmap in RAM; whether it was clear."""
    ram = domain.hv.ram
    maddr = base + (bit >> 6) * 8
    word = ram.read_u64(maddr)
    if word >> (bit & 63) & 1:
        return False
    ram.write_u64(maddr, word | 1 << (bit & 63))
    return True


def _clear_bit(domain: Domain, base: int, bit: int) -> bool:
    """Clear a bit of a bitmap in RAM; whether it was set."""
    ram = domain.hv.ram
    maddr = base + (bit >> 6) * 8
    word = ram.read_u64(maddr)
    if not word >> (bit & 63) & 1:
        return False
    ram.write_u64(maddr, word & ~(1 << (bit & 63)))
    return True


def is_pending(domain: Domain, port: int) -> bool:
    """Whether the port's pending bit is set. Xen: evtchn_2l_is_pending."""
    return bool(domain.hv.ram.read_u64(domain.shared_info_maddr + _PENDING + (port >> 6) * 8) >> (port & 63) & 1)


def is_masked(domain: Domain, port: int) -> bool:
    """Whether the port's mask bit is set. Xen: evtchn_2l_is_masked."""
    return bool(domain.hv.ram.read_u64(domain.shared_info_maddr + _MASK + (port >> 6) * 8) >> (port & 63) & 1)


def pending_ports(vcpu: Vcpu) -> tuple[int, ...]:
    """The ports of the vcpu's domain that are pending and not masked, ascending; for a trace of upcalls."""
    ram = vcpu.domain.hv.ram
    base = vcpu.domain.shared_info_maddr
    ports = []
    for word in range(64):
        bits = ram.read_u64(base + _PENDING + word * 8)
        if bits:
            bits &= ~ram.read_u64(base + _MASK + word * 8)
        while bits:
            lowest = bits & -bits
            ports.append(word * 64 + lowest.bit_length() - 1)
            bits ^= lowest
    return tuple(ports)


def upcall_pending(vcpu: Vcpu) -> bool:
    """Whether an upcall is due: pending and not masked. Xen: vcpu_event_delivery_is_enabled() and pending."""
    buffer = vcpu.domain.hv.ram.buffer
    return buffer[vcpu.vcpu_info + _UPCALL_PENDING] != 0 and buffer[vcpu.vcpu_info + _UPCALL_MASK] == 0


def _wrote(vcpu: Vcpu, maddr: int, length: int) -> None:
    observer = vcpu.domain.hv.observer
    if observer is not None:
        observer.observe(vcpu, MemoryWritten(Maddr(maddr), length))


def _select(vcpu: Vcpu, port: int) -> bool:
    """Say in the vcpu's selector that the port's word has news; whether the upcall became pending by it.

    Xen: the second half of evtchn_2l_set_pending(), and vcpu_mark_events_pending().
    """
    if not _set_bit(vcpu.domain, vcpu.vcpu_info + _PENDING_SEL, port >> 6):
        return False
    _wrote(vcpu, vcpu.vcpu_info + _PENDING_SEL, 8)
    return mark_events_pending(vcpu)


def mark_events_pending(vcpu: Vcpu) -> bool:
    """Set `evtchn_upcall_pending` and wake the vcpu; whether it was clear. Xen: vcpu_mark_events_pending."""
    hv = vcpu.domain.hv
    if hv.ram.buffer[vcpu.vcpu_info + _UPCALL_PENDING] != 0:
        return False
    hv.ram.buffer[vcpu.vcpu_info + _UPCALL_PENDING] = 1
    _wrote(vcpu, vcpu.vcpu_info + _UPCALL_PENDING, 1)
    if vcpu is not hv.current:
        vcpu.check_events = True
    vcpu_unblock(vcpu)
    return True


def set_pending(vcpu: Vcpu, port: int) -> None:
    """Make a port of the vcpu's domain pending, for this vcpu. Xen: evtchn_port_set_pending, evtchn_2l_set_pending."""
    domain = vcpu.domain
    base = domain.shared_info_maddr
    if not _set_bit(domain, base + _PENDING, port):
        return
    _wrote(vcpu, base + _PENDING + (port >> 6) * 8, 8)
    upcall = not is_masked(domain, port) and _select(vcpu, port)
    if domain.hv.observer is not None:
        domain.hv.observer.observe(vcpu, EventPending(port, upcall))
    _check_pollers(domain, port)


def _check_pollers(domain: Domain, port: int) -> None:
    """End the polls that wait for the port. A poll for none or for several ends with any.

    Xen: evtchn_check_pollers().
    """
    for vcpu in domain.vcpus:
        if vcpu.polling is not None and (len(vcpu.polling) != 1 or vcpu.polling[0] == port):
            vcpu_unblock(vcpu)


def unmask(domain: Domain, number: int) -> None:
    """Clear the port's mask bit and deliver what it held back. Xen: evtchn_unmask, evtchn_2l_unmask."""
    port = domain.event_channels.port(number)
    if port.state is EvtchnStat.CLOSED:
        return
    vcpu = domain.vcpus[port.vcpu_id]
    base = domain.shared_info_maddr
    if _clear_bit(domain, base + _MASK, number):
        _wrote(vcpu, base + _MASK + (number >> 6) * 8, 8)
        if is_pending(domain, number):
            _select(vcpu, number)


def notify(domain: Domain, number: int) -> None:
    """Make an open port pending for the vcpu that it notifies; a backend's way to its guest."""
    ports = domain.event_channels.ports
    if number < len(ports) and ports[number].state is not EvtchnStat.CLOSED:
        set_pending(domain.vcpus[ports[number].vcpu_id], number)


def send_guest_vcpu_virq(vcpu: Vcpu, virq: Virq) -> None:
    """Raise a per-vcpu virtual interrupt; nothing happens unless the guest has bound it. Xen: send_guest_vcpu_virq."""
    port = vcpu.virq_ports.get(virq, 0)
    if port:
        set_pending(vcpu, port)


def send_guest_global_virq(domain: Domain, virq: Virq) -> None:
    """Raise a virtual interrupt of the domain, on the vcpu that its port notifies. Xen: send_guest_global_virq."""
    port = domain.vcpus[0].virq_ports.get(virq, 0) if domain.vcpus else 0
    if port:
        set_pending(domain.vcpus[domain.event_channels.ports[port].vcpu_id], port)


def virq_is_global(virq: int) -> bool:
    """Whether a VIRQ exists once in a domain, not once a vcpu. Xen: virq_is_global."""
    return virq not in _PER_VCPU_VIRQS


# EVTCHNOP_*


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


def _own_domain(vcpu: Vcpu, domid: int) -> Domain:
    """As `domain_by_id`, for what an unprivileged domain may do to itself alone: -EPERM for another."""
    domain = domain_by_id(vcpu, domid)
    if domain is not vcpu.domain:
        raise HypercallError(Errno.EPERM)
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
        name = channels.backends.get(remote_port)
        if name is None or any(p.backend is not None and p.remote_port == remote_port for p in channels.ports):
            raise HypercallError(Errno.EINVAL)
        channels.ports[number] = Port(EvtchnStat.INTERDOMAIN, 0, BACKEND_DOMID, remote_port, name)
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
        case EvtchnStat.INTERDOMAIN if port.backend is None:
            far = domain.hv.domains[port.remote_domid].event_channels.ports[port.remote_port]
            far.state = EvtchnStat.UNBOUND
            far.remote_domid = domain.domid
            far.remote_port = 0
        case _:
            pass
    domain.event_channels.ports[number] = Port()
    base = domain.shared_info_maddr
    # A stale bit would look like an event of the port's next user.
    if _clear_bit(domain, base + _PENDING, number):
        _wrote(domain.vcpus[0], base + _PENDING + (number >> 6) * 8, 8)


def send(domain: Domain, number: int) -> None:
    """Notify the far end of a port. An unbound one is no error: nobody is told. Xen: evtchn_send."""
    port = domain.event_channels.port(number)
    match port.state:
        case EvtchnStat.INTERDOMAIN if port.backend is not None:
            BACKENDS[port.backend](domain)
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

    The FIFO ABI (init_control, expand_array, set_priority) is -ENOSYS, as from a Xen without it; kernels then use the
    two-level ABI. Xen: common/event_channel.c.
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
            reset(_own_domain(vcpu, read_struct(vcpu, arg, EvtchnReset).dom))
        case EvtchnOp.ALLOC_UNBOUND:
            alloc = read_struct(vcpu, arg, EvtchnAllocUnbound)
            owner = _own_domain(vcpu, alloc.dom)
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
            status(_own_domain(vcpu, query.dom), query)
            write_struct(vcpu, arg, query)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


@hypercall(Hypercall.EVENT_CHANNEL_OP_COMPAT)
def do_event_channel_op_compat(vcpu: Vcpu, op: int) -> int:
    """HYPERVISOR_event_channel_op_compat(op): as event_channel_op, the command being in the structure. Xen: common/compat.c."""
    cmd = read_struct(vcpu, op, EvtchnOpStruct).cmd
    if cmd not in _COMPAT:
        raise HypercallError(Errno.ENOSYS)
    return do_event_channel_op(vcpu, cmd, op + EvtchnOpStruct.offset_of("u"))
