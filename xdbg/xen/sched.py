"""Who runs next, and what ends a wait. Xen: common/sched/core.c, common/domain.c.

A vcpu is out of the running while it blocks (until its upcall becomes pending), polls (until a port is pending or the
time has come), is down or paused, or its domain is paused or has shut down. What a guest asks for is in `sched_op`.

All vcpus of all domains take turns in the order of their domids and numbers. A turn begins when a vcpu gets the CPU and
ends when it waits, when it yields, or when it has lasted `SLICE_NS` while another could run. Alone, a vcpu keeps the
CPU; one that wakes up then has its turn at once if the other has had its slice.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.shared_info import VcpuInfo
from xdbg.abi.vcpu import Runstate

from .domain import Domain
from .runstate import runstate_change, update_runstate_area
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .setup import Hypervisor

SLICE_NS: Final = 50_000
"""How long a vcpu keeps the CPU from others that could run.

Giving it to another costs the host about as much as 35,000 instructions of a guest, the other's TLB misses included;
and as long as a slice lasts, others may spin for what its vcpu has. With two busy vcpus slices of 10, 50 and 100
microseconds leave 25, 75 and 90 % of the speed of one; guests that spin much like them short.
"""
_UPCALL_PENDING = VcpuInfo.offset_of("evtchn_upcall_pending")
_UPCALL_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")


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
