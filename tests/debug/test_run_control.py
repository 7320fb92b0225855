"""Stops, steps and resumes of a small kernel, without a client."""

from collections.abc import Callable

import pytest

from xdbg.abi.sched import Shutdown
from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.rsp.registers import RIP
from xdbg.rsp.replies import ExitReply, HwBreak, NoResumed, SignalledReply, StopReply, SwBreak
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, TargetError
from xdbg.rsp.threadid import EVERY_THREAD, Thread, ThreadId

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest


def stopped(stop: object) -> StopReply:
    assert isinstance(stop, StopReply), stop
    return stop


def test_a_run_without_stops_ends_with_the_domain(small: Small) -> None:
    guest = small()
    assert guest.cont() == ExitReply(0, KERNEL_PID)
    assert guest.word("counter") == 20
    assert guest.target.threads() == []
    assert guest.target.stop_status() == ExitReply(0)
    with pytest.raises(TargetError):
        guest.cont()


def test_a_breakpoint_stops_before_its_instruction_each_time_it_is_reached(small: Small) -> None:
    guest = small()
    vaddr = guest.brk("squared")
    for round_ in range(1, 4):
        stop = stopped(guest.cont())
        assert (stop.signal, stop.reasons, guest.rip) == (Signal.TRAP, (SwBreak(),), vaddr)
        assert stop.registers[RIP] == vaddr.to_bytes(8, "little")
        assert guest.word("counter") == round_
    guest.clear("squared")
    assert isinstance(guest.cont(), ExitReply)


def test_a_breakpoint_changes_no_memory(small: Small) -> None:
    guest = small()
    before = bytes(guest.target.hv.ram.buffer)
    guest.brk("_start")
    guest.brk("loop")
    guest.resume()
    guest.target.interrupt()
    stopped(guest.run())
    assert len(guest.target.hv.cpu.stop_points) == 2
    assert bytes(guest.target.hv.ram.buffer) == before


def test_hardware_and_software_breakpoints_at_one_place_are_removed_each_on_its_own(small: Small) -> None:
    guest = small()
    guest.brk("square", kind=BreakpointKind.HARDWARE)
    guest.brk("square")
    guest.brk("square")
    assert stopped(guest.cont()).reasons == (SwBreak(),)
    guest.clear("square")
    assert stopped(guest.cont()).reasons == (HwBreak(),)
    guest.target.remove_breakpoint(guest.kernel, BreakpointKind.HARDWARE, guest.at("square"))
    guest.target.remove_breakpoint(guest.kernel, BreakpointKind.HARDWARE, guest.at("square"))
    assert isinstance(guest.cont(), ExitReply)


def test_a_client_that_leaves_its_breakpoint_in_gets_on(small: Small) -> None:
    guest = small()
    guest.brk("_start")
    guest.brk("loop")
    assert stopped(guest.cont()) is not None
    assert guest.where() == "loop", "the place of the first stop is passed, not hit at once"


def test_a_jump_to_a_breakpoint_hits_it(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    vaddr = guest.brk("ask")
    guest.cont()
    guest.target.write_register(guest.kernel, RIP, vaddr.to_bytes(8, "little"))
    count = guest.count
    assert stopped(guest.cont()).reasons == (SwBreak(),)
    assert (guest.rip, guest.count) == (vaddr, count)


def test_a_step_is_one_instruction(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    guest.cont()
    places = []
    for _ in range(5):
        count = guest.count
        stop = guest.step()
        assert (stop.signal, stop.reasons, guest.count) == (Signal.TRAP, (), count + 1)
        places.append(guest.where())
    assert places[3] == "square"


def test_a_step_ignores_the_breakpoint_under_it_and_is_plain_at_the_next(small: Small) -> None:
    guest = small()
    guest.brk("square")
    guest.cont()
    guest.brk(guest.rip + 3)
    stop = guest.step()
    assert (stop.reasons, guest.rip) == ((), guest.at("square") + 3)


def test_a_step_over_a_hypercall_ends_behind_it_with_its_result(small: Small) -> None:
    guest = small()
    guest.brk("asked")
    guest.cont()
    expected = guest.count
    again = small()
    again.brk("ask")
    again.cont()
    for _ in range(4):
        again.step()
    assert (again.where(), again.count) == ("asked", expected)
    assert again.target.hv.cpu.gpr[0] == 0


def test_a_step_over_int3_ends_in_the_handler(small: Small) -> None:
    guest = small()
    guest.brk("breakpoint")
    guest.cont()
    stop = guest.step()
    assert (stop.reasons, guest.where()) == ((), "on_int3")
    frame = guest.target.read_memory(guest.kernel, guest.target.hv.cpu.gpr[4] + 16, 8)
    assert int.from_bytes(frame, "little") == guest.at("behind")


def test_an_int3_of_the_guest_is_no_stop(small: Small) -> None:
    guest = small()
    guest.brk("done")
    guest.cont()
    assert guest.word("traps") == 2


def test_an_int3_that_the_debugger_wrote_stops_on_it(small: Small) -> None:
    guest = small()
    original = guest.target.read_memory(guest.kernel, guest.at("asked"), 1)
    guest.target.write_memory(guest.kernel, guest.at("asked"), b"\xcc")
    stop = stopped(guest.cont())
    assert (stop.signal, stop.reasons, guest.rip) == (Signal.TRAP, (), guest.at("asked"))
    guest.target.write_memory(guest.kernel, guest.at("asked"), original)
    assert isinstance(guest.cont(), ExitReply)
    assert guest.word("traps") == 2


def test_a_range_step_goes_on_while_it_is_inside(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    guest.cont()
    guest.clear("loop")
    stop = stopped(guest.step_range(guest.at("loop"), guest.at("next_round")))
    assert (stop.reasons, guest.where()) == ((), "square")
    guest.brk("copy")
    guest.cont()
    assert stopped(guest.step_range(guest.at("copy"), guest.at("ask"))).signal == Signal.TRAP
    assert guest.where() == "ask"


def test_a_range_step_always_makes_a_step(small: Small) -> None:
    guest = small()
    guest.step_range(0, 0)
    assert guest.rip != guest.at("_start")


def test_a_range_step_stops_at_a_breakpoint_inside(small: Small) -> None:
    guest = small()
    guest.brk("copy")
    guest.cont()
    inside = guest.brk(guest.rip + 14)
    stop = stopped(guest.step_range(guest.at("copy"), guest.at("ask")))
    assert (stop.reasons, guest.rip) == ((SwBreak(),), inside)


def test_ctrl_c_stops_before_anything_runs(small: Small) -> None:
    guest = small("endless")
    guest.resume()
    assert guest.target.advance(1000) is None
    guest.target.interrupt()
    stop = stopped(guest.target.advance(2000))
    assert (stop.signal, stop.reasons, guest.count) == (Signal.INT, (), 1000)
    assert guest.target.stop_status() == stop


def test_a_slice_ends_exactly_at_its_limit(small: Small) -> None:
    guest = small("endless")
    guest.resume()
    for limit in (1, 2, 777, 778):
        assert guest.target.advance(limit) is None
        assert guest.count == limit


def test_a_crash_is_shown_before_it_ends_the_domain(small: Small) -> None:
    guest = small("bad")
    stop = stopped(guest.cont())
    assert (stop.signal, guest.where()) == (Signal.ABRT, "bad")
    assert guest.target.read_memory(guest.kernel, guest.at("bad"), 2) == b"\x0f\x0b"
    assert guest.target.domain.shutdown_code == Shutdown.CRASH
    assert guest.cont() == SignalledReply(Signal.ABRT, KERNEL_PID)
    assert guest.target.threads() == []


def test_a_resume_of_nobody_comes_back_at_once(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    guest.resume(ResumeAction(ThreadId(99, 99), ResumeKind.CONTINUE))
    assert guest.run() == NoResumed()
    assert guest.count == 0


def test_the_leftmost_action_of_a_thread_counts(small: Small) -> None:
    guest = small()
    guest.resume(
        ResumeAction(ThreadId(KERNEL_PID, -1), ResumeKind.STEP), ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE)
    )
    stopped(guest.run())
    assert guest.count == 1


def test_nothing_of_a_client_stays_behind(small: Small) -> None:
    guest = small()
    guest.brk("loop")
    guest.watch("counter")
    guest.cont()
    guest.target.disconnected()
    cpu = guest.target.hv.cpu
    assert (len(cpu.stop_points), len(cpu.watches), guest.target.hv.observer) == (0, 0, None)
    guest.target.hv.run(10**6)
    assert guest.target.domain.shutdown_code == Shutdown.POWEROFF


def test_the_kernel_can_be_killed(small: Small) -> None:
    guest = small("endless")
    guest.target.kill(KERNEL_PID)
    assert guest.target.domain.shutdown_code == Shutdown.POWEROFF
    assert not guest.target.is_alive(Thread(KERNEL_PID, 1))


@pytest.mark.parametrize("name", ["small", "tick"])
def test_break_points_steps_and_watches_change_nothing_of_the_run(small: Small, bundled: Small, name: str) -> None:
    def make() -> "Debugged":  # type: ignore[name-defined] # noqa: F821
        return small() if name == "small" else bundled(name)

    plain = make()
    plain.target.hv.run(10**12)
    guest = make()
    if name == "small":
        guest.brk("squared")
        guest.watch("sum")
    else:
        guest.brk("entry_event")
        guest.watch("upcalls", length=4)
    turn = 0
    while not isinstance(stop := guest.cont(), ExitReply):
        assert isinstance(stop, StopReply)
        turn += 1
        for _ in range(turn % 7):
            guest.step()
    assert turn > 5
    assert guest.outcome() == plain.outcome()


@pytest.mark.parametrize("over_upcalls", [True, False])
def test_a_step_runs_through_an_upcall_unless_told_otherwise(bundled: Small, over_upcalls: bool) -> None:
    guest = bundled("tick")
    vcpu = guest.target.domain.vcpus[0]
    guest.brk("work")
    while not vcpu.timers.periodic_next_ns:
        guest.cont()
    guest.clear("work")
    due = vcpu.timers.periodic_next_ns - guest.target.hv.cpu.tsc_offset
    guest.resume()
    assert guest.target.advance(due - 10) is None
    guest.target.interrupt()
    stopped(guest.target.advance(due))
    guest.target.run_control.stepping.over_upcalls = over_upcalls
    callback = vcpu.event_callback.address
    places = []
    for _ in range(20):
        guest.step()
        places.append(guest.rip)
    # The step at the deadline executes the handler's first instruction when the handler is not run as a whole.
    assert any(callback < place < callback + 16 for place in places) is not over_upcalls
    assert guest.count > due
