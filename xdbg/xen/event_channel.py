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
from typing import Final, Self, TypeVar

from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import EvtchnStat, Virq
from xdbg.abi.frames import Maddr
from xdbg.abi.shared_info import SharedInfo, VcpuInfo

from .domain import Domain
from .events import EventPending, MemoryWritten
from .faults import HypercallError
from .sched import vcpu_unblock
from .vcpu import Vcpu

BACKEND_DOMID: Final = 0
"""The domain that Xen's own backends seem to live in."""
MAX_PORT: Final = 1023
"""The highest port that a domain gets; what the tool stack gives to a domain unless told otherwise."""
PORTS_PER_BUCKET: Final = 64
"""Ports come into being by so many at a time: a port that exists but is free is "closed", any other is -EINVAL."""

_PENDING = SharedInfo.offset_of("evtchn_pending")
_MASK = SharedInfo.offset_of("evtchn_mask")
_UPCALL_PENDING = VcpuInfo.offset_of("evtchn_upcall_pending")
_PENDING_SEL = VcpuInfo.offset_of("evtchn_pending_sel")


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
    device: int = 0
    """Which device of the backend's kind is at the far end."""


@dataclass(slots=True)
class BackendPort:
    """A port of domain 0 that one of Xen's own backends has: its end of a channel to the domain."""

    name: str
    device: int
    guest_port: int = 0
    """The domain's port at the other end; 0 while the guest has closed it."""


@dataclass(slots=True)
class EventChannels:
    """All ports of one domain, and what waits for its virtual time beside its vcpus' timers."""

    ports: list[Port] = field(default_factory=list)
    """By number, as many as exist; port 0 is never given out."""
    backends: dict[int, BackendPort] = field(default_factory=dict)
    """The backends' ends of this domain's channels, by their ports in domain 0."""
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

    def bind_backend(self, name: str, device: int = 0) -> int:
        """A port bound to one of Xen's own backends; for the domain's builder."""
        number = self.free_port()
        self.ports[number] = Port(EvtchnStat.UNBOUND, remote_domid=BACKEND_DOMID)
        self.connect_backend(number, name, device)
        return number

    def connect_backend(self, number: int, name: str, device: int) -> None:
        """Bind a backend to an unbound port, which gets a far end in domain 0: the lowest port free there."""
        far = next(far for far in range(1, len(self.backends) + 2) if far not in self.backends)
        self.backends[far] = BackendPort(name, device, number)
        port = self.ports[number]
        port.state = EvtchnStat.INTERDOMAIN
        port.remote_port = far
        port.backend = name
        port.device = device


Backend = Callable[[Domain, int], None]
"""Called with the domain that sent and the number of the device that it sent to."""

B = TypeVar("B", bound=Backend)

BACKENDS: dict[str, Backend] = {}
"""Xen's own backends by name: what to do when a domain notifies one."""


def backend(name: str) -> Callable[[B], B]:
    """Enter a function in `BACKENDS`: it is called when a domain sends to a port of the backend's."""

    def enter(serve: B) -> B:
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
    """The ports that notify the vcpu, are pending and not masked, ascending; for a trace of upcalls.

    A bit that belongs to no port counts for vcpu 0.
    """
    ram = vcpu.domain.hv.ram
    known = vcpu.domain.event_channels.ports
    base = vcpu.domain.shared_info_maddr
    ports = []
    for word in range(64):
        bits = ram.read_u64(base + _PENDING + word * 8)
        if bits:
            bits &= ~ram.read_u64(base + _MASK + word * 8)
        while bits:
            lowest = bits & -bits
            number = word * 64 + lowest.bit_length() - 1
            if vcpu.vcpu_id == (known[number].vcpu_id if number < len(known) else 0):
                ports.append(number)
            bits ^= lowest
    return tuple(ports)


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


def clear_pending(domain: Domain, port: int) -> None:
    """Clear the port's pending bit. Xen: evtchn_2l_clear_pending()."""
    base = domain.shared_info_maddr
    if _clear_bit(domain, base + _PENDING, port):
        _wrote(domain.vcpus[0], base + _PENDING + (port >> 6) * 8, 8)


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


def bind_backend_port(domain: Domain, guest_port: int, name: str, device: int = 0) -> None:
    """Bind one of Xen's own backends to a port that the guest made for domain 0 by EVTCHNOP_alloc_unbound.

    As the backend's domain would by EVTCHNOP_bind_interdomain: -EINVAL for any other port.
    """
    port = domain.event_channels.port(guest_port)
    if port.state is not EvtchnStat.UNBOUND or port.remote_domid != BACKEND_DOMID:
        raise HypercallError(Errno.EINVAL)
    domain.event_channels.connect_backend(guest_port, name, device)


def unbind_backend_port(domain: Domain, name: str, device: int = 0) -> None:
    """A backend closes its end, if it has one: the guest's port is unbound again."""
    channels = domain.event_channels
    for far, end in list(channels.backends.items()):
        if (end.name, end.device) == (name, device):
            del channels.backends[far]
            if end.guest_port:
                vcpu_id = channels.ports[end.guest_port].vcpu_id
                channels.ports[end.guest_port] = Port(EvtchnStat.UNBOUND, vcpu_id, remote_domid=BACKEND_DOMID)


def notify_from_backend(domain: Domain, name: str, device: int = 0) -> None:
    """A backend sends to its port: the guest's end becomes pending, wherever that is now; nothing if it is closed."""
    for end in domain.event_channels.backends.values():
        if (end.name, end.device) == (name, device) and end.guest_port:
            notify(domain, end.guest_port)


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
