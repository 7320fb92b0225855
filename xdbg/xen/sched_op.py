"""What a guest asks of the scheduler: yield, block, poll, shut down, watchdogs. Xen: common/sched/core.c, domain.c.

Blocking never misses an event: it unmasks upcalls and looks once more before it sleeps. A poll waits for ports, masked
or not, or for a time; an upcall ends it, too.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import Maddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import SchedOp, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog
from xdbg.abi.shared_info import SharedInfo, VcpuInfo

from .domain import Domain
from .domain_lookup import domain_exists
from .events import MemoryWritten
from .faults import HypercallError
from .guest_access import address_ok, copy_from_guest, read_struct
from .hypercall import hypercall
from .sched import events_need_delivery, shutdown, vcpu_block, vcpu_yield
from .vcpu import Vcpu

MAX_POLL_PORTS: Final = 128
"""A poll for more is -EINVAL."""
NR_WATCHDOGS: Final = 2
"""Watchdog timers of a domain. Xen: NR_DOMAIN_WATCHDOG_TIMERS."""
_SECOND_NS: Final = 1_000_000_000


_UPCALL_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")
_PENDING = SharedInfo.offset_of("evtchn_pending")


def _enable_events(vcpu: Vcpu) -> None:
    """Clear the upcall mask. Xen: local_event_delivery_enable()."""
    hv = vcpu.domain.hv
    maddr = Maddr(vcpu.vcpu_info + _UPCALL_MASK)
    hv.ram.buffer[maddr] = 0
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(maddr, 1))


def poll(vcpu: Vcpu, ports: int, nr_ports: int, timeout_ns: int) -> None:
    """Sleep until a port of those listed at address `ports` is pending, masked or not, or until time `timeout_ns`.

    An upcall that is due ends it at once, before the ports are looked at. Xen: do_poll().
    """
    if nr_ports > MAX_POLL_PORTS:
        raise HypercallError(Errno.EINVAL)
    if not address_ok(ports):
        raise HypercallError(Errno.EFAULT)
    if events_need_delivery(vcpu):
        return
    numbers = []
    for index in range(nr_ports):
        number = int.from_bytes(copy_from_guest(vcpu, ports + index * 4, 4), "little")
        if port_is_pending(vcpu.domain, number):
            return
        numbers.append(number)
    vcpu.polling = tuple(numbers)
    # A time of 2^63 and more is negative to Xen, and has long been.
    vcpu.timers.poll_ns = 1 if timeout_ns >> 63 else timeout_ns


def port_is_pending(domain: Domain, number: int) -> bool:
    """Whether an open port is pending; -EINVAL for a port that does not exist. Xen: evtchn_port_poll()."""
    port = domain.event_channels.port(number)
    if port.state is EvtchnStat.CLOSED:
        return False
    word = domain.hv.ram.read_u64(domain.shared_info_maddr + _PENDING + (number >> 6) * 8)
    return bool(word >> (number & 63) & 1)


def watchdog(domain: Domain, number: int, timeout_s: int) -> int:
    """Start (number 0; its number is returned), renew or stop (0 s) a watchdog. Xen: domain_watchdog."""
    deadlines = domain.event_channels.watchdogs_ns
    deadline_ns = domain.hv.now() + timeout_s * _SECOND_NS
    if number > NR_WATCHDOGS:
        raise HypercallError(Errno.EINVAL)
    if number == 0:
        free = next((i for i, deadline in enumerate(deadlines) if deadline == 0), None)
        if free is None:
            raise HypercallError(Errno.ENOSPC)
        deadlines[free] = max(1, deadline_ns)
        return free + 1
    if deadlines[number - 1] == 0:
        raise HypercallError(Errno.EINVAL)
    deadlines[number - 1] = deadline_ns if timeout_s else 0
    return 0


@hypercall(Hypercall.SCHED_OP)
def do_sched_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_sched_op(cmd, arg): yield, block, poll, shut down, watchdogs. Xen: common/sched/core.c.

    What concerns other domains or the choice of a physical CPU is not for an unprivileged domain.
    """
    domain = vcpu.domain
    match cmd:
        case SchedOp.YIELD:
            vcpu_yield(vcpu)
        case SchedOp.BLOCK:
            _enable_events(vcpu)
            vcpu_block(vcpu)
        case SchedOp.SHUTDOWN:
            shutdown(domain, read_struct(vcpu, arg, SchedShutdown).reason & 0xFF)
        case SchedOp.SHUTDOWN_CODE:
            code = read_struct(vcpu, arg, SchedShutdown).reason & 0xFF
            if domain.event_channels.latched_shutdown_code is None:
                domain.event_channels.latched_shutdown_code = code
        case SchedOp.POLL:
            request = read_struct(vcpu, arg, SchedPoll)
            poll(vcpu, request.ports, request.nr_ports, request.timeout)
        case SchedOp.REMOTE_SHUTDOWN:
            if not domain_exists(vcpu.domain.hv, read_struct(vcpu, arg, SchedRemoteShutdown).domain_id):
                raise HypercallError(Errno.ESRCH)
            raise HypercallError(Errno.EPERM)
        case SchedOp.WATCHDOG:
            dog = read_struct(vcpu, arg, SchedWatchdog)
            return watchdog(domain, dog.id, dog.timeout)
        case SchedOp.PIN_OVERRIDE:
            raise HypercallError(Errno.EPERM)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


@hypercall(Hypercall.SCHED_OP_COMPAT)
def do_sched_op_compat(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_sched_op_compat(cmd, arg): yield, block and shut down, the code being `arg` itself.

    Xen: common/compat.c.
    """
    match cmd:
        case SchedOp.YIELD:
            vcpu_yield(vcpu)
        case SchedOp.BLOCK:
            _enable_events(vcpu)
            vcpu_block(vcpu)
        case SchedOp.SHUTDOWN:
            shutdown(vcpu.domain, arg & 0xFF)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0
