"""The JSON form: one object a line, keys in one order, numbers as numbers."""

import json
from io import StringIO
from typing import Any

from trace_events import INT3, ONE_OF_EACH
from trace_machine import Machine

from xdbg.trace.events import EVENT_KINDS
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder
from xdbg.xen.events import ConsoleOutput

HEAD = ["count", "domid", "vcpu", "mode", "pid", "kind"]


def trace(machine: Machine, *events: Any) -> str:
    """The JSON form of events, one instruction apart."""
    stream = StringIO()
    recorder = Recorder([FORMATS["jsonl"](stream)], EVENT_KINDS)
    machine.tell(*events, recorder=recorder)
    return stream.getvalue()


def test_an_int3_is_one_object_with_all_fields_in_their_order(machine: Machine) -> None:
    machine.put(0x10_0104, b"\xcc")
    line = trace(machine, INT3)
    assert line.startswith(
        '{"count":1000,"domid":1,"vcpu":0,"mode":"kernel","pid":null,"kind":"exception","vector":3,"name":"#BP",'
        '"error_code":null,"error_text":"","cr2":null,"cr2_symbol":null,"software":true,"gate_dpl":3,'
        '"gate_selector":57352,"gate_offset":18446606429673488432,"rip":1048837,"insn":1048836,"symbol":null,'
        '"bytes":"cc","instruction":"int3","registers":{"rax":0,"rcx":1,'
    )
    assert line.endswith('"rflags":582,"cs":57395,"ss":57387}}\n')


def test_every_kind_of_event_is_a_line_that_parses(machine: Machine) -> None:
    lines = trace(machine, *(event for events in ONE_OF_EACH.values() for event in events)).splitlines()
    objects = [json.loads(line) for line in lines]
    assert [list(found)[: len(HEAD)] for found in objects] == [HEAD] * len(objects)
    assert [found["kind"] for found in objects] == [
        *("exception", "trap_bounce", "bounce_frame", "handler", "iret", "hypercall", "hypercall_result", "event"),
        *("upcall", "privileged", "fixup", "console", "memory", "shutdown"),
    ]
    frame = objects[2]
    assert frame["words"][2] == {"address": 0x10_1F10, "name": "rip", "value": 0x10_0105, "note": ""}
    assert objects[8]["ports"] == [
        {"port": 1, "bound_to": "VIRQ TIMER"},
        {"port": 2, "bound_to": "console of domain 0"},
    ]


def test_equal_events_give_equal_bytes(machine: Machine) -> None:
    events = [event for events in ONE_OF_EACH.values() for event in events]
    assert trace(machine, *events) == trace(Machine(), *events)


def test_console_bytes_that_are_no_text_do_not_break_a_line(machine: Machine) -> None:
    (line,) = trace(machine, ConsoleOutput(b"\x00\n\r\xff\xe2\x80\xa8")).splitlines()
    assert json.loads(line)["text"] == "\x00\n\r\\xff\u2028"
