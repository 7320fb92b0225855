"""Timers that make events for guests. Xen: common/sched/core.c (vcpu_*_timer_fn), common/timer.c.

Each vcpu has a single-shot timer, a periodic one and the time-out of a poll; each domain has watchdogs. Times are
system time in ns, one ns an instruction: a timer fires at an exact instruction. As in Xen the periodic timer ticks only
while its vcpu has the CPU, and a tick that was due meanwhile comes when it gets the CPU back.

What is due at the same moment fires in the order of time, domain, vcpu and kind.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from xdbg.abi.event_channel import Virq
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import Shutdown

from .domain import Domain
from .event_channel import send_guest_vcpu_virq
from .hypercall import hypercall
from .sched import shutdown, vcpu_unblock
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .setup import Hypervisor

STIME_DELTA_MAX: Final = (1 << 62) - 1
"""The longest time that Xen counts with, in ns."""
FAR_FUTURE_NS: Final = 1 << 50
"""set_timer_op beyond this (13 days) is taken for an overflow in the guest."""
OVERFLOW_TIMEOUT_NS: Final = 100_000_000
"""... and fires after this instead."""


class _Kind(IntEnum):
    """What a running timer is; in the order in which they fire at one moment."""

    SINGLESHOT = 0
    PERIODIC = 1
    POLL = 2
    WATCHDOG = 3


_Due = tuple[int, int, int, _Kind]
"""(system time, domid, vcpu or watchdog, kind): sorts in the order of firing."""


def _timers(hv: "Hypervisor") -> Iterator[_Due]:
    """All timers that are running. Those of a domain that has ended are not."""
    for domid, domain in hv.domains.items():
        if domain.shutdown_code is not None:
            continue
        for number, deadline_ns in enumerate(domain.event_channels.watchdogs_ns):
            if deadline_ns:
                yield deadline_ns, domid, number, _Kind.WATCHDOG
        for vcpu in domain.vcpus:
            timers = vcpu.timers
            if timers.singleshot_ns:
                yield timers.singleshot_ns, domid, vcpu.vcpu_id, _Kind.SINGLESHOT
            if timers.periodic_period_ns and vcpu is hv.current and vcpu.runnable:
                yield timers.periodic_next_ns, domid, vcpu.vcpu_id, _Kind.PERIODIC
            if timers.poll_ns:
                yield timers.poll_ns, domid, vcpu.vcpu_id, _Kind.POLL


def next_deadline_ns(hv: "Hypervisor") -> int | None:
    """System time at which `run_timers` has something to do next; it may be past. None: never."""
    first = None
    for domain in hv.domains.values():
        if domain.shutdown_code is not None:
            continue
        for deadline_ns in domain.event_channels.watchdogs_ns:
            if deadline_ns and (first is None or deadline_ns < first):
                first = deadline_ns
        for vcpu in domain.vcpus:
            timers = vcpu.timers
            if timers.singleshot_ns and (first is None or timers.singleshot_ns < first):
                first = timers.singleshot_ns
            if timers.poll_ns and (first is None or timers.poll_ns < first):
                first = timers.poll_ns
            if timers.periodic_period_ns and vcpu is hv.current and vcpu.runnable:
                first = timers.periodic_next_ns if first is None else min(first, timers.periodic_next_ns)
    return first


def run_timers(hv: "Hypervisor", now_ns: int) -> None:
    """Fire all timers that are due at `now_ns`. Xen: timer_softirq_action()."""
    for due in sorted(timer for timer in _timers(hv) if timer[0] <= now_ns):
        _, domid, number, kind = due
        domain = hv.domains[domid]
        if domain.shutdown_code is None:
            _fire(domain, number, kind, now_ns)


def _fire(domain: Domain, number: int, kind: _Kind, now_ns: int) -> None:
    match kind:
        case _Kind.SINGLESHOT:
            domain.vcpus[number].timers.singleshot_ns = 0
            send_timer_event(domain.vcpus[number])
        case _Kind.PERIODIC:
            _tick(domain.vcpus[number], now_ns)
        case _Kind.POLL:
            vcpu_unblock(domain.vcpus[number])
        case _Kind.WATCHDOG:
            domain.event_channels.watchdogs_ns[number] = 0
            shutdown(domain, Shutdown.WATCHDOG)


def send_timer_event(vcpu: Vcpu) -> None:
    """VIRQ_TIMER to the vcpu. Xen: send_timer_event."""
    send_guest_vcpu_virq(vcpu, Virq.TIMER)


def _tick(vcpu: Vcpu, now_ns: int) -> None:
    """A period has passed. Xen: vcpu_periodic_timer_work_locked()."""
    vcpu.timers.periodic_next_ns = now_ns + vcpu.timers.periodic_period_ns
    send_timer_event(vcpu)


def set_periodic_timer(vcpu: Vcpu, period_ns: int) -> None:
    """A tick each `period_ns`; 0 stops it. The first comes a period after the last one there was, maybe at once.

    Xen: vcpu_set_periodic_timer().
    """
    timers = vcpu.timers
    last_ns = timers.periodic_next_ns - timers.periodic_period_ns
    timers.periodic_period_ns = period_ns
    timers.periodic_next_ns = last_ns + period_ns
    now_ns = vcpu.domain.hv.now()
    if period_ns and timers.periodic_next_ns <= now_ns:
        _tick(vcpu, now_ns)


def set_singleshot_timer(vcpu: Vcpu, timeout_ns: int) -> None:
    """VIRQ_TIMER once, at a system time. One that is past (2^63 and more is negative to Xen) fires at once."""
    vcpu.timers.singleshot_ns = 1 if timeout_ns >> 63 else max(1, timeout_ns)


@hypercall(Hypercall.SET_TIMER_OP)
def do_set_timer_op(vcpu: Vcpu, timeout: int) -> int:
    """HYPERVISOR_set_timer_op(timeout): VIRQ_TIMER once, at system time `timeout`; 0 stops it.

    A time that is negative or far away is a guest's overflow and comes in 100 ms. Xen: common/sched/core.c.
    """
    now_ns = vcpu.domain.hv.now()
    if timeout == 0:
        vcpu.timers.singleshot_ns = 0
    elif timeout >> 63 or timeout - now_ns >= FAR_FUTURE_NS:
        set_singleshot_timer(vcpu, now_ns + OVERFLOW_TIMEOUT_NS)
    else:
        set_singleshot_timer(vcpu, timeout)
    return 0
