"""Events of the hypervisor in, records out."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from trace_events import BOUNCE, FRAME, HANDLER, INT3, IRET, ONE_OF_EACH
from trace_machine import Machine

from xdbg.abi.event_channel import EvtchnBindVirq
from xdbg.abi.frames import Maddr, Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.trace import recorder as recorder_module
from xdbg.trace.describing import bound_to, error_text, vector_name
from xdbg.trace.events import EVENT_KINDS, FrameWord, PendingPort, parse_kinds
from xdbg.xen.events import (
    EventPending,
    HypercallDone,
    HypercallEntered,
    MemoryWritten,
    Upcall,
    XenEvent,
)


def test_an_int3_is_recorded_with_gate_instruction_and_symbol(machine: Machine) -> None:
    machine.put(0x10_0104, b"\xcc\xc3")
    machine.tell(INT3)
    (record,) = machine.kept.records
    assert (record.count, record.domid, record.vcpu, record.kernel_mode) == (1000, 1, 0, True)
    event = record.event
    assert (event.vector, event.name, event.gate_dpl, event.software) == (3, "#BP", 3, True)
    assert (event.error_code, event.cr2) == (None, None)
    assert (event.insn, event.rip, event.symbol) == (0x10_0104, 0x10_0105, "kernel_int3+0x4")
    assert (event.bytes, event.instruction) == ("cc", "int3")


def test_an_instruction_at_the_end_of_what_is_mapped_is_shown_as_far_as_it_goes(machine: Machine) -> None:
    machine.put(0x10_1FFE, b"\x0f\x0b")
    machine.tell(replace(INT3, vector=6, software=False, insn=Vaddr(0x10_1FFE), rip=Vaddr(0x10_1FFE)))
    (event,) = machine.events()
    assert (event.name, event.instruction, event.bytes) == ("#UD", "ud2", "0f0b")


@pytest.mark.parametrize("where", [0x5000, 0x10_2000, 1 << 50])
def test_an_exception_where_nothing_is_mapped_has_no_instruction(machine: Machine, where: int) -> None:
    machine.tell(replace(INT3, vector=14, software=False, insn=Vaddr(where), rip=Vaddr(where), cr2=Vaddr(where)))
    (event,) = machine.events()
    assert (event.instruction, event.bytes, event.symbol) == (None, "", None)


def test_a_frame_is_labelled_word_by_word(machine: Machine) -> None:
    machine.tell(FRAME, HANDLER)
    frame, handler = machine.events()
    assert frame.words == (
        FrameWord(Vaddr(0x10_1F00), "rcx", 0x1111, ""),
        FrameWord(Vaddr(0x10_1F08), "r11", 0x2222, ""),
        FrameWord(Vaddr(0x10_1F10), "rip", 0x10_0105, "kernel_int3+0x5"),
        FrameWord(Vaddr(0x10_1F18), "cs|saved mask", 1 << 32 | 0xE030, "cs e030, upcall mask 1"),
        FrameWord(Vaddr(0x10_1F20), "rflags", 0x246, "FIXED|PF|ZF|IF"),
        FrameWord(Vaddr(0x10_1F28), "rsp", 0x10_1F40, ""),
        FrameWord(Vaddr(0x10_1F30), "ss", 0xE02B, ""),
    )
    assert (frame.cause, frame.vector, frame.symbol) == ("trap", 3, "kernel_int3+0x5")
    assert (handler.rip, handler.name, handler.symbol) == (0x10_0230, "#BP", "entry_stubs+0x30")


def test_a_frame_with_an_error_code_has_a_word_more(machine: Machine) -> None:
    words = (*FRAME.words[:2], 6, *FRAME.words[2:])
    machine.tell(replace(FRAME, words=words, has_error_code=True), replace(HANDLER, vector=14))
    frame = machine.events()[0]
    assert frame.words[2] == FrameWord(Vaddr(0x10_1F10), "error code", 6, "WRITE_ACCESS|USER_MODE")
    assert frame.rip == 0x10_0105


def test_user_addresses_are_looked_up_in_the_process_first(machine: Machine) -> None:
    user = replace(INT3, kernel_mode=False, insn=Vaddr(0x10_0410), rip=Vaddr(0x10_0411))
    machine.vcpu.kernel_mode = False
    machine.tell(user, replace(user, insn=Vaddr(0x10_0104)), replace(user, kernel_mode=True))
    assert [event.symbol for event in machine.events()] == ["main+0x10", "kernel_int3+0x4", "entry_stubs+0x210"]
    assert [record.kernel_mode for record in machine.kept.records] == [False, False, True]


def test_without_symbols_there_are_none(machine: Machine) -> None:
    machine.tell(INT3, BOUNCE, recorder=machine.recorder(kernel=None, processes=None))
    assert [event.symbol for event in machine.events()] == [None, None]


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_a_kind_alone_records_its_events_and_nothing_else(machine: Machine, kind: str) -> None:
    recorder = machine.recorder(kinds=[kind])
    machine.tell(*(event for events in ONE_OF_EACH.values() for event in events), recorder=recorder)
    kinds = [event.kind for event in machine.events()]
    assert kinds == (["hypercall", "hypercall_result"] if kind == "hypercall" else [kind])


def test_what_is_not_chosen_costs_neither_memory_nor_a_look_at_the_guest(machine: Machine) -> None:
    recorder = machine.recorder(kinds=["shutdown"])
    blind: Any = SimpleNamespace()
    event = MemoryWritten(Maddr(0), 1)
    recorder.observe(blind, event)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            recorder.observe(blind, event)
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()


def test_a_hypercall_tells_what_it_was_asked_and_what_it_changed(machine: Machine) -> None:
    argument = machine.put(0x10_1100, EvtchnBindVirq(0, 0, 0).to_bytes())
    machine.cpu.rip = 0x10_0110
    recorder = machine.recorder()
    machine.tell(HypercallEntered(Hypercall.EVENT_CHANNEL_OP, (1, argument)), recorder=recorder)
    machine.put(0x10_1100, EvtchnBindVirq(0, 0, 5).to_bytes())
    machine.tell(HypercallDone(Hypercall.EVENT_CHANNEL_OP, (1, argument), 0), recorder=recorder)
    asked, result = machine.events()
    assert (asked.name, asked.sub_op, asked.args) == ("event_channel_op", "BIND_VIRQ", (1, argument))
    assert asked.decoded == {"arg": {"virq": "TIMER", "vcpu": 0, "port": 0}}
    assert asked.symbol == "kernel_int3+0x10"
    assert (result.result, result.errno, result.out) == (0, None, {"arg": {"port": 5}})


def test_each_call_of_a_multicall_is_paired_with_its_own_result(machine: Machine) -> None:
    machine.tell(
        HypercallEntered(Hypercall.MULTICALL, (0x10_1000, 0)),
        HypercallEntered(Hypercall.STACK_SWITCH, (1, 2), in_multicall=True),
        HypercallDone(Hypercall.STACK_SWITCH, (1, 2), 0, in_multicall=True),
        HypercallEntered(Hypercall.FPU_TASKSWITCH, (1,), in_multicall=True),
        HypercallDone(Hypercall.FPU_TASKSWITCH, (1,), -22, in_multicall=True),
        HypercallDone(Hypercall.MULTICALL, (0x10_1000, 0), 0),
    )
    assert [(event.name, event.in_multicall) for event in machine.events()] == [
        ("multicall", False),
        ("stack_switch", True),
        ("stack_switch", True),
        ("fpu_taskswitch", True),
        ("fpu_taskswitch", True),
        ("multicall", False),
    ]
    assert machine.events()[4].errno == "EINVAL"


def test_a_call_that_never_returned_is_forgotten(machine: Machine) -> None:
    recorder = machine.recorder()
    for _ in range(50):
        machine.tell(HypercallEntered(Hypercall.IRET, ()), recorder=recorder)
    assert [len(calls) for calls in recorder._open_calls.values()] == [1]


def test_a_result_whose_call_was_not_seen_has_no_changes(machine: Machine) -> None:
    machine.tell(HypercallDone(Hypercall.STACK_SWITCH, (1, 2), -14))
    (event,) = machine.events()
    assert (event.name, event.errno, event.out) == ("stack_switch", "EFAULT", {})


def test_ports_are_told_with_what_they_are_bound_to(machine: Machine) -> None:
    machine.tell(EventPending(1, True), Upcall((1, 2, 3, 99)))
    pending, upcall = machine.events()
    assert (pending.port, pending.bound_to, pending.upcall) == (1, "VIRQ TIMER", True)
    assert upcall.ports == (
        PendingPort(1, "VIRQ TIMER"),
        PendingPort(2, "console of domain 0"),
        PendingPort(3, "IPI"),
        PendingPort(99, "no port"),
    )
    assert bound_to(machine.vcpu.domain, 0) == "CLOSED"


def test_recording_everything_changes_nothing_of_the_guest(machine: Machine) -> None:
    before = bytes(machine.ram.buffer)
    vcpu_before = repr(replace(machine.vcpu, domain=None))
    recorder = machine.recorder(kinds=EVENT_KINDS)
    machine.tell(*(event for events in ONE_OF_EACH.values() for event in events), recorder=recorder)
    assert bytes(machine.ram.buffer) == before
    assert repr(replace(machine.vcpu, domain=None)) == vcpu_before


def test_every_event_of_the_hypervisor_belongs_to_a_kind(machine: Machine) -> None:
    recorder = machine.recorder(kinds=EVENT_KINDS)
    assert set(recorder._methods) == set(get_args(XenEvent))
    assert list(EVENT_KINDS) == list(ONE_OF_EACH)


def test_vectors_have_names() -> None:
    assert [vector_name(vector) for vector in (0, 3, 13, 14, 15, 32, 128)] == [
        *("#DE", "#BP", "#GP", "#PF"),
        *("vector 15", "vector 32", "vector 128"),
    ]


def test_error_codes_are_explained() -> None:
    assert error_text(14, 7) == "PAGE_PRESENT|WRITE_ACCESS|USER_MODE"
    assert error_text(13, 0) == ""
    assert error_text(13, 0x80 * 8 + 2) == "gate 128 of the IDT"
    assert error_text(13, 0x1230) == "selector 0x1230 of the GDT"
    assert error_text(11, 0xC) == "selector 0x8 of the LDT"


def test_kinds_are_parsed_from_a_list() -> None:
    assert parse_kinds("iret, exception") == ("exception", "iret")
    assert parse_kinds("all") == tuple(EVENT_KINDS)
    with pytest.raises(ValueError, match="irets, nope: no such kind of event; there are all, exception"):
        parse_kinds("irets,iret,nope")
    with pytest.raises(ValueError, match="no kind"):
        parse_kinds(" , ")


def test_the_disassembler_is_loaded_only_when_an_exception_is_recorded(machine: Machine) -> None:
    recorder = machine.recorder()
    machine.tell(BOUNCE, FRAME, HANDLER, IRET, recorder=recorder)
    assert recorder._describe._disassembler._engines == {}
    machine.tell(INT3, recorder=recorder)
    assert recorder._describe._disassembler._engines.keys() == {True}
    assert "capstone" not in vars(recorder_module)
