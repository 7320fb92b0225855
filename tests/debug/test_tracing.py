"""Traces of a small domain, without a client: what is met, collected and counted, and how a trace ends."""

from collections.abc import Callable, Sequence

import pytest

from xdbg.debug.observing import ObservingTarget
from xdbg.debug.target import DebugTarget
from xdbg.debug.tracepoints.buffer import MAX_SIZE
from xdbg.rsp.registers import BY_NAME
from xdbg.rsp.replies import ExitReply, StopReply
from xdbg.rsp.target import BreakpointKind, TargetError, Tracepoints
from xdbg.rsp.tracepoints import (
    Action,
    CollectMemory,
    CollectRegisters,
    Evaluate,
    FrameByNumber,
    TraceEnd,
    TraceFrame,
    TracepointDefinition,
    TracepointId,
    TracepointSource,
    TraceVariable,
)
from xdbg.xen.event_channel import mark_events_pending
from xdbg.xen.setup import RunEnd

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest

RCX, RSP, CR3 = (BY_NAME[name].number for name in ("rcx", "rsp", "cr3"))
ALL = CollectRegisters(0xFFFFFF)
TRUE = b"\x22\x01\x27"
MANY = 0x100
NEVER = b"\x22\x00\x27"
UNREADABLE = b"\x22\x10\x1a\x27"


def reg(number: int) -> bytes:
    return b"\x26" + number.to_bytes(2, "big")


def equals(number: int, value: int) -> bytes:
    return reg(number) + b"\x22" + bytes([value]) + b"\x13\x27"


def define(
    debugged: "Debugged",  # type: ignore[name-defined] # noqa: F821 - as above
    place: str,
    actions: Sequence[Action] = (ALL,),
    step_actions: Sequence[Action] = (),
    *,
    number: int = 1,
    steps: int = 0,
    passes: int = 0,
    condition: bytes = b"",
) -> TracepointId:
    tracepoint = TracepointId(number, debugged.at(place))
    tracing = debugged.target.tracing
    definition = TracepointDefinition(tracepoint, True, steps, passes, condition)
    tracing.define_tracepoint(debugged.kernel, definition, more=True)
    tracing.add_actions(tracepoint, actions, step_actions, more=False)
    return tracepoint


def frames(target: DebugTarget) -> list[TraceFrame]:
    found = []
    while (frame := target.tracing.find_frame(FrameByNumber(len(found)), None)) is not None:
        found.append(frame)
    return found


def value(frame: TraceFrame, number: int) -> int:
    assert frame.registers is not None
    return int.from_bytes(frame.registers[8 * number : 8 * number + 8], "little")


def test_hits_are_collected_and_stop_nobody(small: Small) -> None:
    plain, traced = small(), small()
    tracepoint = define(traced, "square")
    traced.target.tracing.start_trace()
    assert isinstance(plain.cont(), ExitReply)
    assert isinstance(traced.cont(), ExitReply)
    assert [value(frame, RCX) for frame in frames(traced.target)] == list(range(1, 21))
    assert {frame.rip for frame in frames(traced.target)} == {traced.at("square")}
    assert traced.target.tracing.tracepoint_usage(tracepoint) == (20, 20 * 561)
    assert traced.outcome() == plain.outcome()


def test_memory_is_collected_as_far_as_it_is_readable(small: Small) -> None:
    debugged = small()
    here = debugged.at("from")
    define(
        debugged,
        "copy",
        (
            CollectMemory(None, here, 16),
            CollectMemory(RSP, -8, 16),
            CollectMemory(None, 0x10, 8),
            Evaluate(b"\x25" + here.to_bytes(8, "big") + b"\x22\x04\x0c" + b"\x27"),
            Evaluate(reg(CR3) + b"\x2d\x00\x02\x29\x2e\x00\x02\x27"),
            Evaluate(b"\x25" + here.to_bytes(8, "big") + b"\x22\x40\x2f\x27"),
            Evaluate(b"\x22\x00\x22\x40\x2f\x27"),
        ),
    )
    debugged.target.tracing.define_variable(TraceVariable(2, 0, "n"))
    debugged.target.tracing.start_trace()
    debugged.cont()
    (frame,) = frames(debugged.target)
    assert frame.read_memory(here, 16) == b"sixteen bytes..."
    assert frame.registers is None
    assert frame.variables() == {2: debugged.target.domain.vcpus[0].cr3}
    lengths = [length for _, length in frame.ranges()]
    assert lengths[:3] == [16, 16, 4]
    assert lengths[3:] == [17]  # the text ends with the zero behind it
    assert frame.read_memory(0x10, 8) == b""


def test_a_condition_selects_and_a_pass_count_ends(small: Small) -> None:
    debugged = small()
    even = reg(RCX) + b"\x22\x01\x0f\x0e\x27"
    tracepoint = define(debugged, "square", (ALL,), (ALL,), passes=3, steps=2, condition=even)
    debugged.target.tracing.start_trace()
    debugged.cont()
    status = debugged.target.tracing.trace_status()
    assert (status.end, status.tracepoint, status.frames) == (TraceEnd.PASSED, 1, 9)
    assert debugged.target.tracing.tracepoint_usage(tracepoint)[0] == 3
    hit, first, second, *_ = frames(debugged.target)
    assert value(hit, RCX) == 2
    assert (hit.rip, second.rip) == (debugged.at("square"), debugged.at("squared"))
    assert first.rip not in (hit.rip, second.rip)
    assert status.stop_us >= status.start_us
    assert not debugged.target.run_control.sources


@pytest.mark.parametrize("limit", [1, 7, 1_000_000])
def test_steps_go_through_everything_and_change_nothing(small: Small, limit: int) -> None:
    plain, traced = small(), small()
    define(traced, "next_round", (), (), steps=MANY, condition=equals(RCX, 20))
    traced.target.tracing.start_trace()
    plain.cont()
    traced.resume()
    traced.run(slice_=limit)
    found = frames(traced.target)
    places = [frame.rip for frame in found]
    assert traced.at("on_int3") in places
    assert traced.at("behind") in places
    assert traced.outcome() == plain.outcome()


def test_the_builtin_variable_is_the_guests_time(small: Small) -> None:
    debugged = small()
    tracing = debugged.target.tracing
    assert [variable.name for variable in tracing.trace_variables()] == ["trace_timestamp"]
    define(debugged, "copy", (Evaluate(b"\x2e\x00\x01\x27"),))
    tracing.start_trace()
    debugged.cont()
    (frame,) = frames(debugged.target)
    assert frame.variables()[1] <= debugged.target.hv.now() // 1000 == tracing.trace_variable(1)
    for wrong in (TraceVariable(1, 0, "other"), TraceVariable(3, 0, "n" * 1000)):
        with pytest.raises(TargetError):
            tracing.define_variable(wrong)
    assert tracing.trace_variable(3) is None


@pytest.mark.parametrize(
    ("condition", "actions", "kept"),
    [
        (UNREADABLE, (ALL,), 0),
        (TRUE, (ALL, Evaluate(UNREADABLE)), 1),
        (TRUE, (Evaluate(b"\x2e\x00\x63\x27"),), 1),
        (TRUE, (Evaluate(b"\x22\x01\x2d\x00\x01\x27"),), 1),
        (TRUE, (Evaluate(b"\x22\x00\x22\x00\x34\x00\x00\x03hi\x00\x27"),), 1),
    ],
)
def test_an_expression_that_fails_ends_the_trace_and_not_the_guest(
    small: Small, condition: bytes, actions: Sequence[Action], kept: int
) -> None:
    plain, traced = small(), small()
    define(traced, "square", actions, condition=condition)
    traced.target.tracing.start_trace()
    plain.cont()
    traced.cont()
    status = traced.target.tracing.trace_status()
    assert (status.end, status.tracepoint, status.frames) == (TraceEnd.ERROR, 1, kept)
    assert status.text
    assert traced.outcome() == plain.outcome()


def test_what_is_wrong_is_refused_when_it_is_defined(small: Small) -> None:
    debugged = small()
    tracing = debugged.target.tracing
    known = define(debugged, "square")
    unknown = TracepointId(9, 9)
    refused: list[Callable[[], object]] = [
        lambda: define(debugged, "square"),
        lambda: define(debugged, "loop", condition=b"\xff"),
        lambda: tracing.add_actions(known, (ALL,), (), more=False),
        lambda: tracing.add_actions(unknown, (ALL,), (), more=False),
        lambda: tracing.add_source(unknown, TracepointSource("at", 0, 0, b"")),
        lambda: tracing.enable_tracepoint(unknown, enabled=True),
        lambda: tracing.tracepoint_usage(unknown),
        lambda: define(debugged, "copy", (Evaluate(b"\x26"),)),
        lambda: define(debugged, "ask", (CollectMemory(99, 0, 1),)),
        lambda: tracing.add_source(known, TracepointSource("cmd", 0, 0, bytes(5 << 20))),
        lambda: tracing.set_buffer_size(MAX_SIZE + 1),
    ]
    for attempt in refused:
        with pytest.raises(TargetError):
            attempt()
    tracing.start_trace()
    for attempt in (tracing.start_trace, lambda: tracing.set_buffer_size(1000)):
        with pytest.raises(TargetError):
            attempt()
    tracing.stop_trace()
    tracing.stop_trace()
    assert tracing.trace_status().end is TraceEnd.COMMAND


def test_a_definition_that_is_not_complete_or_not_enabled_is_not_met(small: Small) -> None:
    debugged = small()
    tracing = debugged.target.tracing
    place = TracepointId(2, debugged.at("square"))
    tracing.define_tracepoint(debugged.kernel, TracepointDefinition(place, True, 0, 0), more=True)
    other = define(debugged, "squared", number=3)
    tracing.enable_tracepoint(other, enabled=False)
    tracing.start_trace()
    debugged.brk("copy")
    assert isinstance(debugged.cont(), StopReply)
    assert tracing.trace_status().frames == 0


def test_a_trace_goes_on_alone_and_is_kept_for_a_domain_built_anew(small: Small) -> None:
    plain, debugged = small(), small()
    define(debugged, "square")
    tracing = debugged.target.tracing
    tracing.set_disconnected_tracing(keeps=True)
    tracing.set_notes(user="me", notes="why", stop=None)
    tracing.define_variable(TraceVariable(2, 5, "n"))
    tracing.start_trace()
    debugged.target.disconnected()
    while debugged.target.run_free(debugged.count + 10) is RunEnd.LIMIT:
        pass
    plain.cont()
    assert debugged.outcome() == plain.outcome()
    assert tracing.trace_status().frames == 20
    assert tracing.trace_status().end is None
    anew = small()
    anew.target.inherit(debugged.target)
    status = anew.target.tracing.trace_status()
    assert (status.end, status.text, status.frames) == (TraceEnd.ERROR, "the domain has ended", 20)
    assert (status.user, status.notes) == ("me", "why")
    assert anew.target.tracing.trace_variable(2) == 5
    assert [value(frame, RCX) for frame in frames(anew.target)] == list(range(1, 21))
    assert len(anew.target.tracing.tracepoints()) == 1
    anew.target.tracing.init_trace()
    assert anew.target.tracing.tracepoints() == []
    assert anew.target.tracing.trace_status().end is TraceEnd.NEVER_RUN


def test_a_trace_ends_with_its_client_unless_told_otherwise(small: Small) -> None:
    debugged = small()
    define(debugged, "square")
    tracing = debugged.target.tracing
    tracing.start_trace()
    debugged.target.disconnected()
    assert tracing.trace_status().end is TraceEnd.DISCONNECTED
    assert not debugged.target.run_control.sources
    debugged.target.run_free(1_000_000)
    assert tracing.trace_status().frames == 0


def test_read_only_memory_reaches_to_the_end_of_its_range(small: Small) -> None:
    tracing = small().target.tracing
    tracing.set_read_only(((0x2000, 0x3000), (0x1000, 0x1800)))
    assert [tracing.is_read_only(at) for at in (0xFFF, 0x1000, 0x17FF, 0x1800, 0x2800)] == [0, 0x800, 1, 0, 0x800]


def test_an_observer_sees_the_debuggers_trace(small: Small) -> None:
    debugged = small()
    define(debugged, "square")
    debugged.target.tracing.start_trace()
    debugged.cont()
    observer = ObservingTarget(debugged.target)
    assert len(frames(observer)) == 20
    (tracing,) = [part for part in observer.parts if isinstance(part, Tracepoints)]
    assert tracing.trace_status() == debugged.target.tracing.trace_status()


@pytest.mark.parametrize("left", [False, True])
def test_an_upcall_between_a_hit_and_its_instruction_hits_nothing_twice(bundled: Small, left: bool) -> None:
    """The upcall's handler has a tracepoint of its own, and the place itself a breakpoint and its command."""
    guest = bundled("tasks")
    target, tracing = guest.target, guest.target.tracing
    target.hv.run(9_000_000)
    spin = next(process.pid for process in target.profile.processes() if process.exec_path == "/bin/spin")
    thread = target.attach(spin).thread
    here = target.inferiors.rip(thread)
    target.insert_breakpoint(thread, BreakpointKind.SOFTWARE, here)
    assert guest.cont().thread == thread
    target.remove_breakpoint(thread, BreakpointKind.SOFTWARE, here)
    guest.step(thread)
    behind = target.inferiors.rip(thread)
    tracepoint = TracepointId(1, here)
    handler = define(guest, "entry_event", number=2)
    tracing.define_tracepoint(thread, TracepointDefinition(tracepoint, True, 0, 0, b""), more=False)
    tracing.set_disconnected_tracing(keeps=True)
    tracing.start_trace()
    target.insert_breakpoint(guest.kernel, BreakpointKind.SOFTWARE, here)
    target.insert_breakpoint(thread, BreakpointKind.SOFTWARE, here)
    guest.cont()
    assert target.inferiors.rip(thread) == here
    assert tracing.tracepoint_usage(tracepoint)[0] == 1
    (vcpu,) = guest.target.domain.vcpus
    assert mark_events_pending(vcpu)
    vcpu.check_events = True
    if left:
        target.disconnected()
        target.run_free(target.hv.cpu.count + 1)
        while tracing.tracepoint_usage(handler)[0] == 0 or vcpu.kernel_mode:
            target.run_free(target.hv.cpu.count + 1)
        assert target.hv.cpu.rip == here
        target.run_free(target.hv.cpu.count + 1)
    else:
        target.insert_breakpoint(thread, BreakpointKind.SOFTWARE, behind)
        assert guest.cont().thread == thread
    assert target.hv.cpu.rip == behind
    assert tracing.tracepoint_usage(handler)[0] == 1
    assert tracing.tracepoint_usage(tracepoint)[0] == 1
