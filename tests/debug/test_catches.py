"""Catching hypercalls, traps, upcalls and crashes of a small kernel, without a client."""

import pytest

from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import Shutdown
from xdbg.debug.events.catch_events import CatchRequest, HypercallEvent, TrapEvent, UpcallEvent, parse_request
from xdbg.debug.events.catches import MAX_CATCHES
from xdbg.debug.events.why import why_stopped
from xdbg.rsp.registers import BY_NAME
from xdbg.rsp.replies import ExitReply, SignalledReply, StopReply, SwBreak
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError
from xdbg.rsp.threadid import Thread


def catch(guest, text, *, temporary=False):
    return guest.target.catches.add(parse_request(text.split()), temporary=temporary)


def hits(guest):
    return {one.number: one.hits for one in guest.target.catches}


def why(guest):
    return list(why_stopped(guest.target))


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("hypercall", CatchRequest(HypercallEvent())),
        ("hypercall sched_op", CatchRequest(HypercallEvent(29))),
        ("hypercall HYPERVISOR_sched_op/SCHEDOP_block", CatchRequest(HypercallEvent(29, 1))),
        ("hypercall 0x1d/2 process 7", CatchRequest(HypercallEvent(29, 2), pid=7)),
        ("hypercall mmuext_op/new_baseptr", CatchRequest(HypercallEvent(26, 5))),
        ("hypercall 4000", CatchRequest(HypercallEvent(4000))),
        ("trap 14", CatchRequest(TrapEvent(14))),
        ("trap #PF user", CatchRequest(TrapEvent(14), kernel_mode=False)),
        ("trap de", CatchRequest(TrapEvent(0))),
        ("trap int3 process 3 kernel", CatchRequest(TrapEvent(3), 3, kernel_mode=True)),
        ("trap 0x80", CatchRequest(TrapEvent(0x80))),
        ("upcall 3", CatchRequest(UpcallEvent(3))),
    ],
)
def test_requests_are_understood_and_shown_as_they_can_be_typed_again(words, request_):
    assert parse_request(words.split()) == request_
    assert parse_request(str(request_).split()) == request_


@pytest.mark.parametrize(
    "words",
    [
        "",
        "nothing",
        "hypercall no_such",
        "hypercall iret/1",
        "hypercall sched_op/nonsense",
        "hypercall sched_op user",
        "hypercall sched_op now",
        "hypercall -1",
        "trap 256",
        "trap xy",
        "trap pf process",
        "trap pf process x",
        "upcall x",
        "crash now",
    ],
)
def test_what_makes_no_sense_is_one_line_and_changes_nothing(small, words):
    guest = small()
    with pytest.raises(TargetError) as refused:
        catch(guest, words)
    assert refused.value.text
    assert "\n" not in refused.value.text
    assert hits(guest) == {}


def test_a_hypercall_stops_before_xen_handles_it_and_is_then_done_once(small):
    guest = small()
    catch(guest, "hypercall xen_version/extraversion")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert (stop.signal, stop.reasons, stop.thread) == (Signal.TRAP, (), guest.kernel)
    assert guest.rip == guest.at("asked") - 2
    assert guest.word("answer") == 0
    assert guest.target.domain.hypercalls[Hypercall.XEN_VERSION] == 0
    assert guest.target.console.take() == f"catch 1: {why(guest)[1]}\n"
    assert why(guest)[1].startswith("hypercall xen_version(EXTRAVERSION, arg=")
    count = guest.count
    assert isinstance(guest.step(), StopReply)
    assert (guest.rip, guest.count) == (guest.at("asked"), count + 1)
    assert guest.word("answer") != 0
    assert why(guest)[0].startswith("a step of the kernel")
    assert isinstance(guest.cont(), ExitReply)
    assert guest.target.domain.hypercalls[Hypercall.XEN_VERSION] == 1
    assert hits(guest) == {1: 1}


def test_another_sub_operation_passes(small):
    guest = small()
    catch(guest, "hypercall xen_version/version")
    catch(guest, "hypercall sched_op/block")
    assert isinstance(guest.cont(), ExitReply)
    assert hits(guest) == {1: 0, 2: 0}


def test_entries_of_a_multicall_are_told_behind_it(small):
    guest = small("batch")
    catch(guest, "hypercall xen_version")
    catch(guest, "hypercall sched_op/yield")
    assert isinstance(guest.cont(), StopReply)
    assert guest.rip == guest.at("batched") - 2, "Xen gives way to others after a yield; the rest is a new call"
    assert hits(guest) == {1: 1, 2: 1}
    told = why(guest)
    assert told[0] == "catches 1, 2 (hypercall xen_version; hypercall sched_op/yield)"
    assert [line.partition("(")[0] for line in told[1:3]] == [
        "hypercall in the multicall: xen_version",
        "hypercall in the multicall: sched_op",
    ]
    assert "they have been handled" in told[3]
    assert isinstance(guest.cont(), StopReply)
    assert guest.rip == guest.at("batched")
    assert hits(guest) == {1: 2, 2: 1}


def test_a_multicall_itself_is_stopped_at(small):
    guest = small("batch")
    catch(guest, "hypercall multicall")
    guest.cont()
    assert guest.rip == guest.at("batched") - 2
    assert "xen_version, sched_op, xen_version" in why(guest)[1]


def test_an_iret_is_a_hypercall(small):
    guest = small()
    catch(guest, "hypercall iret")
    guest.cont()
    assert guest.where().startswith("on_int3")
    assert guest.word("traps") == 1
    assert isinstance(guest.cont(), ExitReply)
    assert guest.word("traps") == 2


@pytest.mark.parametrize(
    ("entry", "event", "signal", "text"),
    [
        ("breakpoint", "trap int3", Signal.TRAP, "#BP breakpoint at breakpoint "),
        ("divide", "trap de", Signal.FPE, "#DE divide error at divide+0x2 "),
        ("bad", "trap ud", Signal.ILL, "#UD invalid opcode at bad "),
        ("wrong", "trap pf", Signal.SEGV, "#PF page fault at wrong "),
    ],
)
def test_a_trap_stops_at_its_instruction_with_the_signal_of_a_process(small, entry, event, signal, text):
    guest = small("_start" if entry == "breakpoint" else entry)
    catch(guest, f"{event} kernel")
    catch(guest, f"{event} user")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert (stop.signal, stop.reasons) == (signal, ())
    assert guest.word("traps") == 0
    assert why(guest)[1].startswith(text)
    assert hits(guest) == {1: 1, 2: 0}
    before = guest.rip
    after = guest.cont()
    if entry == "breakpoint":
        assert isinstance(after, ExitReply)
        assert guest.word("traps") == 2
    else:
        assert isinstance(after, StopReply)
        assert (after.signal, guest.rip) == (Signal.ABRT, before)


def test_the_address_of_a_page_fault_is_in_the_first_line(small):
    guest = small("wrong")
    catch(guest, "trap pf")
    guest.cont()
    said = guest.target.console.take()
    assert "cr2 0x1234, error code 0x6" in said
    assert said.count("\n") == 1


def test_a_cause_that_the_debugger_repairs_is_no_trap(small):
    guest = small("divide")
    catch(guest, "trap de")
    guest.cont()
    guest.target.write_register(guest.kernel, BY_NAME["rip"].number, guest.at("done").to_bytes(8, "little"))
    assert isinstance(guest.cont(), ExitReply)


def test_a_crash_that_the_guest_asks_for_can_be_averted(small):
    guest = small("end_crashed")
    catch(guest, "crash")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert stop.signal == Signal.TRAP
    assert guest.target.domain.shutdown_code is None
    guest.target.write_memory(guest.kernel, guest.at("crashed"), bytes([Shutdown.POWEROFF, 0, 0, 0]))
    assert isinstance(guest.cont(), ExitReply)


def test_any_other_crash_is_counted_and_stands_at_its_cause(small):
    guest = small("bad")
    catch(guest, "crash")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert (stop.signal, guest.rip, hits(guest)) == (Signal.ABRT, guest.at("bad"), {1: 1})
    assert "SHUTDOWN_crash, unhandled vector 6" in why(guest)[1]
    assert isinstance(guest.cont(), SignalledReply)
    assert "was ended by SIGABRT" in why(guest)[0]


def test_a_temporary_catch_stops_once(small):
    guest = small()
    catch(guest, "hypercall", temporary=True)
    assert isinstance(guest.cont(), StopReply)
    assert hits(guest) == {}
    assert isinstance(guest.cont(), ExitReply)


def test_a_catch_and_a_breakpoint_at_one_place_are_both_told(small):
    guest = small()
    vaddr = guest.brk(guest.at("asked") - 2)
    catch(guest, "hypercall xen_version")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert stop.reasons == (SwBreak(),)
    assert why(guest)[0] == f"breakpoint of the kernel (vcpu 0) at ask+0x11 <{vaddr:#x}>: that instruction is next"
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert (stop.reasons, guest.rip) == ((), vaddr)
    assert isinstance(guest.cont(), ExitReply)


def test_an_inferior_that_is_not_resumed_is_told_nothing(bundled):
    guest = bundled("tasks")
    guest.brk("task_sleep")
    guest.cont()
    guest.clear("task_sleep")
    guest.target.attach(5)
    catch(guest, "hypercall iret process 3")
    catch(guest, "trap pf user")
    stop = guest.cont(Thread(5, 5))
    assert isinstance(stop, StopReply)
    assert (stop.thread, stop.signal) == (Thread(5, 5), Signal.SEGV)
    assert hits(guest) == {1: 0, 2: 1}
    stop = guest.cont(guest.kernel)
    assert isinstance(stop, StopReply)
    assert (stop.thread, stop.signal) == (guest.kernel, Signal.TRAP)
    assert hits(guest) == {1: 1, 2: 1}


def test_when_the_debugger_goes_no_catch_is_left(small):
    guest = small()
    for event in ("hypercall", "trap", "upcall", "crash"):
        catch(guest, event)
    assert guest.target.hv.observer is not None
    guest.target.disconnected()
    assert hits(guest) == {}
    assert guest.target.hv.observer is None
    guest.target.connected()
    assert isinstance(guest.cont(), ExitReply)


def test_there_are_not_more_catches_than_the_limit(small):
    guest = small()
    for _ in range(MAX_CATCHES):
        catch(guest, "crash")
    with pytest.raises(TargetError):
        catch(guest, "crash")
    guest.target.catches.remove(1)
    catch(guest, "crash")
    with pytest.raises(TargetError):
        guest.target.catches.remove(1)


def test_catches_change_nothing_of_what_the_guest_computes(bundled):
    plain, caught = bundled("tick"), bundled("tick")
    assert isinstance(plain.cont(), ExitReply)
    for event in ("hypercall", "trap", "upcall", "crash"):
        catch(caught, event)
    stops = 0
    while not isinstance(caught.cont(), ExitReply):
        stops += 1
    assert stops == sum(hits(caught).values())
    assert all(hits(caught)[number] > 10 for number in (1, 3))
    assert caught.outcome() == plain.outcome()


def test_upcalls_are_caught_by_port_and_by_the_mode_that_they_interrupt(bundled):
    guest = bundled("tick")
    catch(guest, "upcall")
    guest.cont()
    port = next(i for i, port in enumerate(guest.target.domain.event_channels.ports) if port.state is EvtchnStat.VIRQ)
    assert f"upcall for pending ports {port} (VIRQ TIMER)" in why(guest)[1]
    guest.target.catches.clear()
    catch(guest, f"upcall {port} kernel")
    catch(guest, f"upcall {port} user")
    catch(guest, "upcall 900")
    while isinstance(guest.cont(), StopReply):
        assert guest.where() == "entry_event"
        assert "it interrupted kernel mode" in why(guest)[1]
    counted = [one.hits for one in guest.target.catches]
    assert counted[0] > 5
    assert counted[1:] == [0, 0]


def test_a_filter_by_process_sees_that_process_alone(bundled):
    guest = bundled("tasks")
    catch(guest, "trap pf user process 5")
    stop = guest.cont()
    assert isinstance(stop, StopReply)
    assert stop.signal == Signal.SEGV
    assert "user mode, process 5" in why(guest)[-1]
    guest.target.catches.clear()
    catch(guest, "hypercall iret process 3")
    for _ in range(3):
        guest.cont()
        assert guest.target.profile.current_pid(0) == 3


def test_why_names_the_instruction_behind_a_watch_hit_and_xens_own_stores(small):
    guest = small()
    guest.watch("sum")
    guest.cont()
    assert "sum" in why(guest)[0]
    assert "was written" in why(guest)[0]
    assert why(guest)[1].startswith("by addq %rax, ")
    guest = small("ask")
    guest.watch("answer")
    guest.cont()
    assert why(guest)[1] == "by Xen itself, on the guest's behalf"


def test_why_at_the_beginning_and_after_an_interruption(small):
    guest = small()
    assert why(guest)[0].endswith("nothing has happened since")
    guest.resume()
    guest.target.interrupt()
    guest.run()
    assert why(guest)[0] == "the debugger interrupted the guest (Ctrl-C)"
    assert isinstance(guest.cont(), ExitReply)
    assert why(guest)[:2] == [
        "the kernel has ended with status 0",
        "the domain has shut down: SHUTDOWN_poweroff, it asked for that",
    ]
