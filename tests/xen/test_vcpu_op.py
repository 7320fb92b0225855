"""What a guest may ask of its vcpus."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import Shutdown
from xdbg.abi.shared_info import VcpuInfo, VcpuTimeInfo
from xdbg.abi.vcpu import (
    Runstate,
    VcpuGuestContext,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
)
from xdbg.xen import sched, timer
from xdbg.xen.page_info import PGT_COUNT_MASK, PGT_L1_PAGE_TABLE, PGT_WRITABLE_PAGE
from xdbg.xen.page_table_types import get_page_and_type

MS = 1_000_000
XEN_ADDRESS = 0xFFFF_8000_0000_0000


def op(guest: Any, cmd: int, argument: Any = b"", vcpu: int = 0) -> int:
    return int(guest.call(Hypercall.VCPU_OP, cmd, vcpu, guest.put(argument)))


def test_each_operation_on_a_vcpu_that_is_not_there_says_so(guest: Any) -> None:
    assert {op(guest, cmd, vcpu=1) for cmd in range(15)} == {-Errno.ENOENT}
    assert op(guest, VcpuOp.IS_UP, vcpu=0xFFFF_FFFF) == -Errno.ENOENT
    assert op(guest, VcpuOp.IS_UP) == 1


def test_a_vcpu_goes_down_and_up(guest: Any) -> None:
    other = guest.add_vcpu()
    assert op(guest, VcpuOp.DOWN, vcpu=1) == 0
    assert op(guest, VcpuOp.IS_UP, vcpu=1) == 0
    assert not other.runnable
    assert op(guest, VcpuOp.UP, vcpu=1) == 0
    assert other.runnable


def test_the_last_vcpu_that_goes_down_powers_the_domain_off(guest: Any) -> None:
    assert op(guest, VcpuOp.DOWN) == 0
    assert guest.domain.shutdown_code == Shutdown.POWEROFF


def test_a_vcpu_can_not_be_initialised_twice(guest: Any) -> None:
    assert op(guest, VcpuOp.INITIALISE, VcpuGuestContext()) == -Errno.EEXIST
    assert guest.call(Hypercall.VCPU_OP, VcpuOp.INITIALISE, 0, guest.unmapped) == -Errno.EFAULT


def test_single_shot_timers_are_for_the_calling_vcpu_and_ignore_the_future_flag(guest: Any) -> None:
    guest.add_vcpu()
    guest.hv.cpu.count = 10 * MS
    assert op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(timeout_abs_ns=20 * MS)) == 0
    assert timer.next_deadline_ns(guest.hv) == 20 * MS
    assert op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(timeout_abs_ns=5 * MS, flags=1)) == 0
    assert timer.next_deadline_ns(guest.hv) == 5 * MS
    assert op(guest, VcpuOp.STOP_SINGLESHOT_TIMER) == 0
    assert timer.next_deadline_ns(guest.hv) is None
    assert op(guest, VcpuOp.SET_SINGLESHOT_TIMER, vcpu=1) == -Errno.EINVAL
    assert op(guest, VcpuOp.STOP_SINGLESHOT_TIMER, vcpu=1) == -Errno.EINVAL


@pytest.mark.parametrize("timeout", [0, 1 << 63, (1 << 64) - 1])
def test_a_single_shot_time_that_is_no_time_fires_at_once(guest: Any, timeout: int) -> None:
    assert op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(timeout_abs_ns=timeout)) == 0
    assert timer.next_deadline_ns(guest.hv) == 1


@pytest.mark.parametrize(
    ("period", "result"), [(MS, 0), (MS - 1, -Errno.EINVAL), (1 << 62, -Errno.EINVAL), ((1 << 62) - 1, 0)]
)
def test_a_period_has_limits(guest: Any, period: int, result: int) -> None:
    assert op(guest, VcpuOp.SET_PERIODIC_TIMER, VcpuSetPeriodicTimer(period_ns=period)) == result
    assert guest.vcpu.timers.periodic_period_ns == (period if result == 0 else 0)
    assert op(guest, VcpuOp.STOP_PERIODIC_TIMER) == 0
    assert guest.vcpu.timers.periodic_period_ns == 0


def test_vcpu_info_moves_with_its_contents_and_everything_pending(guest: Any) -> None:
    frame = guest.frames[3]
    guest.info().arch.cr2 = 0x1234_5678
    before = guest.info().time
    before = VcpuTimeInfo.from_bytes(before.to_bytes())
    assert op(guest, VcpuOp.REGISTER_VCPU_INFO, VcpuRegisterVcpuInfo(mfn=frame, offset=0x40)) == 0
    assert guest.vcpu.vcpu_info == frame * 4096 + 0x40
    info = guest.info()
    assert (info.arch.cr2, info.time.system_time) == (0x1234_5678, before.system_time)
    assert info.time.version == before.version + 2, "the clock has been written anew"
    assert (info.evtchn_upcall_pending, info.evtchn_upcall_mask) == (1, 1)
    assert info.evtchn_pending_sel == (1 << 64) - 1


def test_the_frame_of_a_vcpu_info_can_be_no_page_table(guest: Any) -> None:
    frame = guest.frames[3]
    assert op(guest, VcpuOp.REGISTER_VCPU_INFO, VcpuRegisterVcpuInfo(mfn=frame)) == 0
    page_info = guest.hv.page_info
    assert page_info.type_of(frame) == PGT_WRITABLE_PAGE
    assert page_info.types[frame] & PGT_COUNT_MASK == 1
    assert page_info.refs[frame] == 2


def test_vcpu_info_is_refused_where_it_can_not_be(guest: Any, neighbour: Any) -> None:
    def register(mfn: int, offset: int = 0, vcpu: int = 0) -> int:
        return op(guest, VcpuOp.REGISTER_VCPU_INFO, VcpuRegisterVcpuInfo(mfn=mfn, offset=offset), vcpu)

    get_page_and_type(guest.hv, guest.frames[5], guest.domain.domid, PGT_L1_PAGE_TABLE)
    guest.add_vcpu()
    refused = [
        register(guest.frames[3], 4096 - VcpuInfo.SIZE + 1),
        register(guest.frames[3], 0xFFFF_FFFF),
        register(neighbour.frames[3]),
        register(guest.domain.shared_info),
        register(guest.frames[5]),
        register(1 << 60),
        register((1 << 64) - 1),
        register(guest.frames[3], vcpu=1),
    ]
    assert refused == [-Errno.EINVAL] * 8
    assert register(guest.frames[3], 4096 - VcpuInfo.SIZE) == 0
    assert register(guest.frames[4]) == -Errno.EINVAL, "only once"


def test_the_run_state_can_be_asked_for_and_watched(guest: Any) -> None:
    guest.vcpu.runstate.state = Runstate.OFFLINE
    sched.context_switched(None, guest.vcpu, 100)
    guest.hv.cpu.count = 150
    area = VcpuRegisterRunstateMemoryArea()
    area.addr.v = guest.put(b"", 0x1000)
    assert op(guest, VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, area) == 0
    assert guest.get(VcpuRunstateInfo, 0x1000).state_entry_time == 100
    assert op(guest, VcpuOp.GET_RUNSTATE_INFO) == 0
    info = guest.get(VcpuRunstateInfo)
    assert (info.state, list(info.time)) == (Runstate.RUNNING, [50, 0, 0, 100])
    guest.vcpu.blocked = True
    sched.context_switched(guest.vcpu, None, 200)
    guest.vcpu.blocked = False
    sched.context_switched(None, guest.vcpu, 260)
    seen = guest.get(VcpuRunstateInfo, 0x1000)
    assert (seen.state, seen.state_entry_time, list(seen.time)) == (Runstate.RUNNING, 260, [100, 0, 60, 100])


def test_a_run_state_area_is_written_through_the_kernels_page_table(guest: Any) -> None:
    area = VcpuRegisterRunstateMemoryArea()
    area.addr.v = guest.put(b"", 0x1000)
    op(guest, VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, area)
    guest.vcpu.guest_table_user = guest.frames[7]
    guest.vcpu.kernel_mode = False
    sched.context_switched(None, guest.vcpu, 500)
    assert guest.get(VcpuRunstateInfo, 0x1000).state_entry_time in (0, 500)
    sched.context_switched(guest.vcpu, None, 600)
    sched.context_switched(None, guest.vcpu, 700)
    assert guest.get(VcpuRunstateInfo, 0x1000).state_entry_time == 700
    assert not guest.vcpu.kernel_mode


def test_a_second_time_record_is_kept(guest: Any) -> None:
    area = VcpuRegisterTimeMemoryArea()
    area.addr.v = guest.put(b"", 0x1000)
    assert op(guest, VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA, area) == 0
    assert guest.get(VcpuTimeInfo, 0x1000) == guest.info().time


@pytest.mark.parametrize("cmd", [VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA])
def test_an_area_in_xens_address_space_is_refused_and_one_that_is_unmapped_is_not(guest: Any, cmd: VcpuOp) -> None:
    assert op(guest, cmd, XEN_ADDRESS.to_bytes(8, "little")) == -Errno.EFAULT
    assert op(guest, cmd, ((1 << 64) - 8).to_bytes(8, "little")) == -Errno.EFAULT
    assert op(guest, cmd, guest.unmapped.to_bytes(8, "little")) == 0
    assert op(guest, cmd, guest.read_only.to_bytes(8, "little")) == 0


def test_the_rest_is_refused(guest: Any) -> None:
    assert op(guest, VcpuOp.GET_PHYSID) == -Errno.EINVAL
    assert op(guest, 14) == -Errno.ENOSYS
    for cmd in (4, 5, 6, 8, 10, 13):
        assert guest.call(Hypercall.VCPU_OP, cmd, 0, guest.unmapped) == -Errno.EFAULT


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 15), st.binary(min_size=16, max_size=16), st.integers(0, 0xFFFF_FFFF_FFFF_FFFF))
def test_no_argument_makes_anything_but_a_result(guest: Any, cmd: int, raw: bytes, pointer: int) -> None:
    for argument in (guest.put(raw), pointer):
        assert isinstance(guest.call(Hypercall.VCPU_OP, cmd, 0, argument), int)
        timer.run_timers(guest.hv, guest.hv.now())
