"""Who runs, who waits, and how a domain ends."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import SchedOp, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog, Shutdown
from xdbg.abi.vcpu import Runstate
from xdbg.xen import sched, timer
from xdbg.xen.event_channel import set_pending
from xdbg.xen.event_channel_op import bind_ipi

S = 1_000_000_000


def op(guest: Any, cmd: int, argument: Any = b"") -> int:
    return int(guest.call(Hypercall.SCHED_OP, cmd, guest.put(argument)))


def poll(guest: Any, ports: list[int], timeout: int = 0) -> int:
    where = guest.put(b"".join(port.to_bytes(4, "little") for port in ports), 0x800)
    return op(guest, SchedOp.POLL, SchedPoll(ports=where, nr_ports=len(ports), timeout=timeout))


def watchdog(guest: Any, number: int, timeout: int) -> int:
    return op(guest, SchedOp.WATCHDOG, SchedWatchdog(id=number, timeout=timeout))


def mask(guest: Any, port: int) -> None:
    guest.shared_info.evtchn_mask[port >> 6] |= 1 << (port & 63)


def test_block_unmasks_upcalls_and_sleeps(guest: Any) -> None:
    assert op(guest, SchedOp.BLOCK) == 0
    assert guest.vcpu.blocked
    assert not guest.vcpu.runnable
    assert guest.info().evtchn_upcall_mask == 0


def test_block_does_not_sleep_over_an_upcall_that_was_masked(guest: Any) -> None:
    set_pending(guest.vcpu, bind_ipi(guest.domain, 0))
    assert op(guest, SchedOp.BLOCK) == 0
    assert not guest.vcpu.blocked


def test_an_event_ends_a_block_even_with_upcalls_masked(guest: Any) -> None:
    op(guest, SchedOp.BLOCK)
    guest.info().evtchn_upcall_mask = 1
    set_pending(guest.vcpu, bind_ipi(guest.domain, 0))
    assert guest.vcpu.runnable


def test_poll_returns_at_once_for_a_pending_port_and_waits_for_others(guest: Any) -> None:
    first, second = bind_ipi(guest.domain, 0), bind_ipi(guest.domain, 0)
    mask(guest, first)
    mask(guest, second)
    set_pending(guest.vcpu, second)
    assert poll(guest, [first, second], 99) == 0
    assert guest.vcpu.polling is None
    assert poll(guest, [first], 99) == 0
    assert guest.vcpu.polling == (first,)
    assert guest.vcpu.timers.poll_ns == 99


def test_poll_is_over_at_once_when_an_upcall_is_due(guest: Any) -> None:
    set_pending(guest.vcpu, bind_ipi(guest.domain, 0))
    guest.info().evtchn_upcall_mask = 0
    assert poll(guest, [7777]) == 0, "not even the ports are looked at"
    assert guest.vcpu.polling is None


def test_poll_for_nothing_sleeps_until_its_time(guest: Any) -> None:
    assert poll(guest, [], 5000) == 0
    assert not guest.vcpu.runnable
    timer.run_timers(guest.hv, 4999)
    assert not guest.vcpu.runnable
    timer.run_timers(guest.hv, 5000)
    assert guest.vcpu.runnable
    assert timer.next_deadline_ns(guest.hv) is None


@pytest.mark.parametrize(
    ("request_", "errno"),
    [
        (SchedPoll(ports=0x40_0800, nr_ports=129), Errno.EINVAL),
        (SchedPoll(ports=0xFFFF_8000_0000_0000, nr_ports=1), Errno.EFAULT),
        (SchedPoll(ports=0x10, nr_ports=1), Errno.EFAULT),
        (SchedPoll(ports=0x40_0000, nr_ports=1), Errno.EINVAL),
    ],
)
def test_poll_refuses_what_it_can_not_wait_for(guest: Any, request_: SchedPoll, errno: Errno) -> None:
    request_.timeout = 1
    assert op(guest, SchedOp.POLL, request_) == -errno
    assert guest.vcpu.runnable


def test_a_shutdown_ends_the_domain_with_its_code(guest: Any) -> None:
    assert op(guest, SchedOp.SHUTDOWN, SchedShutdown(reason=0x100 | Shutdown.REBOOT)) == 0
    assert guest.domain.shutdown_code == Shutdown.REBOOT
    assert sched.pick_vcpu(guest.hv) is None


def test_a_latched_code_wins_over_a_later_one(guest: Any) -> None:
    assert op(guest, SchedOp.SHUTDOWN_CODE, SchedShutdown(reason=Shutdown.CRASH)) == 0
    assert op(guest, SchedOp.SHUTDOWN_CODE, SchedShutdown(reason=Shutdown.REBOOT)) == 0
    assert guest.domain.shutdown_code is None
    op(guest, SchedOp.SHUTDOWN, SchedShutdown(reason=Shutdown.POWEROFF))
    assert guest.domain.shutdown_code == Shutdown.CRASH


def test_a_watchdog_that_is_not_fed_ends_the_domain(guest: Any) -> None:
    assert watchdog(guest, 0, 2) == 1
    guest.hv.cpu.count = S
    assert watchdog(guest, 1, 2) == 0
    assert timer.next_deadline_ns(guest.hv) == 3 * S
    timer.run_timers(guest.hv, 3 * S - 1)
    assert guest.domain.shutdown_code is None
    timer.run_timers(guest.hv, 3 * S)
    assert guest.domain.shutdown_code == Shutdown.WATCHDOG
    assert timer.next_deadline_ns(guest.hv) is None


def test_there_are_two_watchdogs_and_they_can_be_stopped(guest: Any) -> None:
    assert [watchdog(guest, 0, 9) for _ in range(3)] == [1, 2, -Errno.ENOSPC]
    assert watchdog(guest, 1, 0) == 0
    assert watchdog(guest, 1, 5) == -Errno.EINVAL
    assert watchdog(guest, 3, 5) == -Errno.EINVAL
    assert watchdog(guest, 0, 4) == 1
    assert timer.next_deadline_ns(guest.hv) == 4 * S


def test_what_is_for_other_domains_is_refused(guest: Any, neighbour: Any) -> None:
    assert op(guest, SchedOp.REMOTE_SHUTDOWN, SchedRemoteShutdown(domain_id=9)) == -Errno.ESRCH
    for domid in (guest.domain.domid, neighbour.domain.domid):
        assert op(guest, SchedOp.REMOTE_SHUTDOWN, SchedRemoteShutdown(domain_id=domid)) == -Errno.EPERM
    assert op(guest, SchedOp.PIN_OVERRIDE) == -Errno.EPERM
    assert op(guest, 8) == -Errno.ENOSYS
    for cmd in (SchedOp.SHUTDOWN, SchedOp.SHUTDOWN_CODE, SchedOp.POLL, SchedOp.REMOTE_SHUTDOWN, SchedOp.WATCHDOG):
        assert guest.call(Hypercall.SCHED_OP, cmd, guest.unmapped) == -Errno.EFAULT


def test_the_old_form_of_the_hypercall_takes_the_code_itself(guest: Any) -> None:
    assert guest.call(Hypercall.SCHED_OP_COMPAT, SchedOp.YIELD, 0) == 0
    assert guest.call(Hypercall.SCHED_OP_COMPAT, SchedOp.BLOCK, 0) == 0
    assert guest.vcpu.blocked
    assert guest.call(Hypercall.SCHED_OP_COMPAT, SchedOp.POLL, 0) == -Errno.ENOSYS
    assert guest.call(Hypercall.SCHED_OP_COMPAT, SchedOp.SHUTDOWN, Shutdown.REBOOT) == 0
    assert guest.domain.shutdown_code == Shutdown.REBOOT


def test_vcpus_take_turns_and_those_that_wait_are_left_out(guest: Any, neighbour: Any) -> None:
    second = guest.add_vcpu()
    order = []
    for _ in range(6):
        guest.hv.current = sched.pick_vcpu(guest.hv)
        order.append(guest.hv.current)
    assert order == [second, neighbour.vcpu, guest.vcpu] * 2
    second.blocked = True
    neighbour.domain.paused = True
    assert sched.pick_vcpu(guest.hv) is guest.vcpu
    guest.vcpu.is_up = False
    assert sched.pick_vcpu(guest.hv) is None


def test_a_yield_has_xen_choose_again_now(guest: Any) -> None:
    guest.hv.cpu.count = 1234
    assert op(guest, SchedOp.YIELD) == 0
    assert guest.hv.next_tick_ns == 1234
    assert guest.vcpu.runnable


def test_run_state_times_add_up_to_system_time(guest: Any) -> None:
    vcpu = guest.vcpu
    vcpu.runstate.state = Runstate.OFFLINE
    sched.context_switched(None, vcpu, 100)
    guest.hv.cpu.count = 300
    op(guest, SchedOp.BLOCK)
    sched.context_switched(vcpu, None, 300)
    guest.hv.cpu.count = 1000
    sched.vcpu_unblock(vcpu)
    assert vcpu.runstate.state == Runstate.RUNNABLE
    sched.context_switched(None, vcpu, 1050)
    assert vcpu.runstate.time_ns == [200, 50, 700, 100]
    assert (vcpu.runstate.state, vcpu.runstate.since_ns) == (Runstate.RUNNING, 1050)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 9), st.binary(min_size=24, max_size=24), st.integers(0, 0xFFFF_FFFF_FFFF_FFFF))
def test_no_argument_makes_anything_but_a_result(guest: Any, cmd: int, raw: bytes, pointer: int) -> None:
    for argument in (guest.put(raw), pointer):
        assert isinstance(guest.call(Hypercall.SCHED_OP, cmd, argument), int)
        timer.run_timers(guest.hv, guest.hv.now())
