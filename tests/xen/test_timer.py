"""Timers fire at their system time, in one order, and make VIRQ_TIMER pending."""

from typing import Any

import pytest

from xdbg.abi.event_channel import Virq
from xdbg.abi.hypercalls import Hypercall
from xdbg.xen import system_time, timer
from xdbg.xen.event_channel import is_pending
from xdbg.xen.event_channel_op import bind_virq
from xdbg.xen.events import EventPending

MS = 1_000_000


@pytest.fixture
def port(guest: Any) -> int:
    """The port of vcpu 0's timer."""
    return bind_virq(guest.domain, Virq.TIMER, 0)


def ticked(guest: Any, port: int) -> bool:
    """Whether the timer's port is pending; the guest has seen it then."""
    was = is_pending(guest.domain, port)
    guest.shared_info.evtchn_pending[port >> 6] = 0
    guest.info().evtchn_upcall_pending = 0
    guest.info().evtchn_pending_sel = 0
    return was


def test_a_single_shot_timer_fires_once_at_its_time(guest: Any, port: int) -> None:
    assert guest.call(Hypercall.SET_TIMER_OP, 5 * MS) == 0
    assert timer.next_deadline_ns(guest.hv) == 5 * MS
    timer.run_timers(guest.hv, 5 * MS - 1)
    assert not ticked(guest, port)
    timer.run_timers(guest.hv, 5 * MS)
    assert ticked(guest, port)
    assert timer.next_deadline_ns(guest.hv) is None
    timer.run_timers(guest.hv, 50 * MS)
    assert not ticked(guest, port)


def test_the_timer_is_set_again_and_stopped(guest: Any, port: int) -> None:
    guest.call(Hypercall.SET_TIMER_OP, 5 * MS)
    guest.call(Hypercall.SET_TIMER_OP, 9 * MS)
    assert timer.next_deadline_ns(guest.hv) == 9 * MS
    guest.call(Hypercall.SET_TIMER_OP, 0)
    assert timer.next_deadline_ns(guest.hv) is None
    timer.run_timers(guest.hv, 10 * MS)
    assert not ticked(guest, port)


def test_a_time_in_the_past_fires_at_once(guest: Any, port: int) -> None:
    guest.hv.cpu.count = 10 * MS
    guest.call(Hypercall.SET_TIMER_OP, 5 * MS)
    timer.run_timers(guest.hv, guest.hv.now())
    assert ticked(guest, port)


@pytest.mark.parametrize("timeout", [1 << 63, (1 << 64) - 1, (1 << 50) + 10 * MS, (1 << 63) - 1])
def test_a_time_that_overflowed_in_the_guest_comes_in_100_ms(guest: Any, timeout: int) -> None:
    guest.hv.cpu.count = 10 * MS
    assert guest.call(Hypercall.SET_TIMER_OP, timeout) == 0
    assert timer.next_deadline_ns(guest.hv) == 110 * MS


def test_a_periodic_timer_ticks_while_its_vcpu_runs_and_catches_up_with_one_tick(guest: Any, port: int) -> None:
    guest.hv.cpu.count = 100 * MS
    timer.set_periodic_timer(guest.vcpu, 10 * MS)
    assert ticked(guest, port), "no tick for longer than a period"
    assert timer.next_deadline_ns(guest.hv) == 110 * MS
    timer.run_timers(guest.hv, 110 * MS)
    assert ticked(guest, port)
    assert timer.next_deadline_ns(guest.hv) == 120 * MS
    guest.vcpu.blocked = True
    assert timer.next_deadline_ns(guest.hv) is None
    timer.run_timers(guest.hv, 200 * MS)
    assert not ticked(guest, port)
    guest.vcpu.blocked = False
    assert timer.next_deadline_ns(guest.hv) == 120 * MS
    timer.run_timers(guest.hv, 205 * MS)
    assert ticked(guest, port)
    assert timer.next_deadline_ns(guest.hv) == 215 * MS


def test_a_stopped_periodic_timer_remembers_its_last_tick(guest: Any, port: int) -> None:
    guest.hv.cpu.count = 100 * MS
    timer.set_periodic_timer(guest.vcpu, 10 * MS)
    ticked(guest, port)
    guest.hv.cpu.count = 103 * MS
    timer.set_periodic_timer(guest.vcpu, 0)
    assert timer.next_deadline_ns(guest.hv) is None
    timer.set_periodic_timer(guest.vcpu, 20 * MS)
    assert not ticked(guest, port)
    assert timer.next_deadline_ns(guest.hv) == 120 * MS


def test_what_is_due_at_once_fires_by_time_then_domain_then_vcpu(guest: Any, neighbour: Any) -> None:
    second = guest.add_vcpu()
    fired: list[tuple[int, int]] = []

    class Listener:
        def observe(self, vcpu: Any, event: Any) -> None:
            if isinstance(event, EventPending):
                fired.append((vcpu.domain.domid, vcpu.vcpu_id))

    bind_virq(guest.domain, Virq.TIMER, 0)
    bind_virq(guest.domain, Virq.TIMER, 1)
    bind_virq(neighbour.domain, Virq.TIMER, 0)
    timer.set_singleshot_timer(neighbour.vcpu, 20)
    timer.set_singleshot_timer(second, 20)
    timer.set_singleshot_timer(guest.vcpu, 30)
    guest.hv.observer = Listener()
    timer.run_timers(guest.hv, 100)
    assert fired == [(1, 1), (2, 0), (1, 0)]


def test_the_timers_of_a_domain_that_ended_are_gone(guest: Any, neighbour: Any) -> None:
    timer.set_singleshot_timer(guest.vcpu, 50)
    timer.set_singleshot_timer(neighbour.vcpu, 70)
    guest.domain.shutdown_code = 3
    assert timer.next_deadline_ns(guest.hv) == 70


def test_an_unbound_timer_interrupt_is_no_event(guest: Any) -> None:
    timer.set_singleshot_timer(guest.vcpu, 50)
    timer.run_timers(guest.hv, 50)
    assert guest.info().evtchn_upcall_pending == 0


def test_the_time_record_gives_system_time_from_the_tsc(guest: Any) -> None:
    guest.hv.cpu.count = 123_456
    guest.hv.cpu.tsc_offset = 1000
    version = guest.info().time.version
    system_time.update_time_info(guest.vcpu)
    info = guest.info().time
    assert info.version == version + 2
    assert info.version % 2 == 0
    tsc = 987_654_321
    scaled = ((tsc - info.tsc_timestamp << info.tsc_shift) * info.tsc_to_system_mul) >> 32
    assert info.system_time + scaled == tsc


def test_the_wall_clock_starts_at_a_fixed_date(guest: Any) -> None:
    shared = guest.shared_info
    assert (shared.wc_sec, shared.wc_sec_hi, shared.wc_nsec) == (1_136_073_600, 0, 0)
    assert shared.wc_version % 2 == 0
