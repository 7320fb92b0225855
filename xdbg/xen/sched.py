"""Who runs next, and what a guest may ask about it. Xen: common/sched/core.c, common/domain.c, public/sched.h.

A vcpu is out of the running while it blocks (until its upcall becomes pending), polls (until a port is pending or the
time has come), is down or paused, or its domain is paused or has shut down. Blocking never misses an event: it unmasks
upcalls and looks once more before it sleeps.

All vcpus of all domains take turns in the order of their domids and numbers. A turn begins when a vcpu gets the CPU and
ends when it waits, when it yields, or when it has lasted `SLICE_NS` while another could run. Alone, a vcpu keeps the
CPU; one that wakes up then has its turn at once if the other has had its slice.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import Maddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import SchedOp, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog
from xdbg.abi.shared_info import SharedInfo, VcpuInfo
from xdbg.abi.vcpu import Runstate

from .domain import Domain
from .domain_lookup import domain_exists
from .events import MemoryWritten
from .faults import HypercallError
from .guest_access import address_ok, copy_from_guest, read_struct
from .hypercall import hypercall
from .runstate import runstate_change, update_runstate_area
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .setup import Hypervisor

MAX_POLL_PORTS: Final = 128
"""A poll for more is -EINVAL."""
NR_WATCHDOGS: Final = 2
"""Watchdog timers of a domain. Xen: NR_DOMAIN_WATCHDOG_TIMERS."""
SLICE_NS: Final = 50_000
"""How long a vcpu keeps the CPU from others that could run.

Giving it to another costs the host about as much as 35,000 instructions of a guest, the other's TLB misses included;
and as long as a slice lasts, others may spin for what its vcpu has. With two busy vcpus slices of 10, 50 and 100
microseconds leave 25, 75 and 90 % of the speed of one; guests that spin much like them short.
"""
_SECOND_NS: Final = 1_000_000_000

_UPCALL_PENDING = VcpuInfo.offset_of("evtchn_upcall_pending")
_UPCALL_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")
_PENDING = SharedInfo.offset_of("evtchn_pending")


def pick_vcpu(hv: "Hypervisor") -> Vcpu | None:
    """The runnable vcpu whose turn is next after the current one, which comes last; None when all are idle."""
    vcpus = [vcpu for domid in sorted(hv.domains) for vcpu in hv.domains[domid].vcpus]
    start = next((i + 1 for i, vcpu in enumerate(vcpus) if vcpu is hv.current), 0)
    return next((vcpu for vcpu in vcpus[start:] + vcpus[:start] if vcpu.runnable), None)


def others_runnable(hv: "Hypervisor", vcpu: Vcpu | None) -> bool:
    """Whether any vcpu but this one could run."""
    return any(other.runnable for domain in hv.domains.values() for other in domain.vcpus if other is not vcpu)


def context_switched(previous: Vcpu | None, following: Vcpu | None, now_ns: int) -> None:
    """Account for the CPU going from one vcpu to another, None being idleness. Xen: sched_switch_units()."""
    if previous is not None and previous is not following:
        runstate_change(previous, idle_runstate(previous), now_ns)
        if previous.domain.shutdown_code is None:
            update_runstate_area(previous)
    if following is not None:
        runstate_change(following, Runstate.RUNNING, now_ns)
        update_runstate_area(following)


def idle_runstate(vcpu: Vcpu) -> Runstate:
    """The state of a vcpu that does not have the CPU. That a debugger lets it stand still is not told to the guest."""
    if vcpu.blocked or vcpu.polling is not None:
        return Runstate.BLOCKED
    is_offline = not vcpu.is_up or vcpu.domain.paused or vcpu.domain.shutdown_code is not None
    return Runstate.OFFLINE if is_offline else Runstate.RUNNABLE


def vcpu_wake(vcpu: Vcpu) -> None:
    """A reason for not running has gone: account for it. Xen: vcpu_wake."""
    if vcpu.runstate.state in (Runstate.BLOCKED, Runstate.OFFLINE):
        runstate_change(vcpu, idle_runstate(vcpu), vcpu.domain.hv.now())


def vcpu_sleep(vcpu: Vcpu) -> None:
    """A reason for not running has come. A vcpu that has the CPU is accounted for when it loses it.

    Xen: vcpu_sleep_nosync().
    """
    if vcpu.runstate.state == Runstate.RUNNABLE:
        runstate_change(vcpu, idle_runstate(vcpu), vcpu.domain.hv.now())


def domain_pause(domain: Domain) -> None:
    """None of its vcpus runs until `domain_unpause`. Xen: domain_pause_by_systemcontroller()."""
    domain.paused = True
    for vcpu in domain.vcpus:
        vcpu_sleep(vcpu)


def domain_unpause(domain: Domain) -> None:
    """Its vcpus run again. Xen: domain_unpause_by_systemcontroller()."""
    domain.paused = False
    for vcpu in domain.vcpus:
        vcpu_wake(vcpu)


def vcpu_unblock(vcpu: Vcpu) -> None:
    """End a block or a poll. Xen: vcpu_unblock."""
    if not vcpu.blocked and vcpu.polling is None:
        return
    vcpu.blocked = False
    vcpu.polling = None
    vcpu.timers.poll_ns = 0
    vcpu_wake(vcpu)


def vcpu_block(vcpu: Vcpu) -> None:
    """Sleep until an upcall is due; not at all if one is. Xen: vcpu_block."""
    if not events_need_delivery(vcpu):
        vcpu.blocked = True


def events_need_delivery(vcpu: Vcpu) -> bool:
    """Whether an upcall is pending and not masked. Xen: local_events_need_delivery."""
    buffer = vcpu.domain.hv.ram.buffer
    return buffer[vcpu.vcpu_info + _UPCALL_PENDING] != 0 and buffer[vcpu.vcpu_info + _UPCALL_MASK] == 0


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


def vcpu_yield(vcpu: Vcpu) -> None:
    """Let the others run: the turn is over, and Xen's next tick comes now. Xen: vcpu_yield."""
    hv = vcpu.domain.hv
    now_ns = hv.now()
    hv.next_tick_ns = min(hv.next_tick_ns, now_ns)
    hv.slice_end_ns = min(hv.slice_end_ns, now_ns)


def shutdown(domain: Domain, code: int) -> None:
    """The domain shuts itself down; a code that was latched before wins. Xen: domain_shutdown()."""
    latched = domain.event_channels.latched_shutdown_code
    domain.hv.shutdown_domain(domain, code if latched is None else latched)


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
