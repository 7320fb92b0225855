"""The bundled guest `int3`, run and traced from its first instruction to its end."""

import json
import re
from io import StringIO
from typing import Any

import pytest

from xdbg.abi.sched import Shutdown
from xdbg.guestos.symbols import SymbolTable
from xdbg.session.launch import Launch, launch
from xdbg.trace.events import DEFAULT_KINDS, EVENT_KINDS
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder
from xdbg.trace.symbols import ProfileProcesses
from xdbg.xen.setup import RunEnd

LIMIT = 5_000_000
"""Instructions; the guest needs about 300,000."""


def run(form: str | None, kinds: tuple[str, ...] = DEFAULT_KINDS) -> tuple[str, int]:
    """The trace of one run (empty without a form), and how many instructions the run had."""
    launched = launch(Launch("int3", memory=16 << 20))
    stream = StringIO()
    if form is not None:
        launched.hv.observer = Recorder(
            [FORMATS[form](stream)],
            kinds,
            kernel=SymbolTable.from_elf(launched.image.elf),
            processes=ProfileProcesses(launched.profile()),
        )
    assert launched.hv.run(LIMIT) is RunEnd.SHUT_DOWN
    assert launched.domain.shutdown_code == Shutdown.POWEROFF
    return stream.getvalue(), launched.hv.cpu.count


@pytest.fixture(scope="module")
def text() -> str:
    return run("text")[0]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("jsonl")[0].splitlines()]


WAY = {
    "kernel": [
        r"hypercall set_trap_table\(traps=\[\{vector=3, dpl=3, masks_events=1, ",
        r"kernel +#BP breakpoint at kernel_int3\+0xb <0x\w+>: int3",
        r"gate: vector 3 of Xen's IDT .*, DPL 3, so int3 may use it at CPL 3; it leads to e008:",
        r"trap_bounce: set to \{no error code, .*entry_stubs\+0x30 .*\}.*; Xen does not call the guest",
        r"bounce frame: on the way back Xen rewrites the return: 7 words at .* \(the one in use\)",
        r"0x\w+8  rcx +0{12}1111",
        r"0x\w+0  r11 +0{12}2222",
        r"0x\w+8  rip +\w+  kernel_int3\+0xc",
        r"0x\w+0  cs\|saved mask +\w+  cs e030, upcall mask 1",
        r"0x\w+8  rflags +\w+  FIXED",
        r"0x\w+0  rsp ",
        r"0x\w+8  ss +0{12}e02b",
        r"handler: the return to the guest lands in entry_stubs\+0x30 .*the guest's own handler of #BP",
        r'console: "int3 in kernel mode\\n"',
        r"hypercall iret\(\)",
        r"iret: back to kernel mode at kernel_int3\+0xc ",
    ],
    "user": [
        r"iret: back to user mode at user_int3 ",
        r"user +#BP breakpoint at user_int3\+0xb <0x\w+>: int3",
        r"gate: vector 3 of Xen's IDT .*, DPL 3",
        r"trap_bounce: set to .*; Xen does not call the guest",
        r"bounce frame: .* \(of stack_switch; page table and GS base change too\)",
        r"rcx +0{12}3333",
        r"cs\|saved mask +\w+  cs e033, upcall mask 0",
        r"handler: the return to the guest lands in entry_stubs\+0x30 ",
        r'console: "int3 in user mode\\n"',
        r"domain ends: SHUTDOWN_poweroff \(0\)",
    ],
}


@pytest.mark.parametrize("mode", WAY)
def test_the_text_tells_the_way_of_an_int3_step_by_step(text: str, mode: str) -> None:
    lines = iter(text.splitlines())
    for step in WAY[mode]:
        assert any(re.search(step, line) for line in lines), f"not found behind the step before: {step}"


def test_each_step_of_a_trap_hands_on_to_the_next(records: list[dict[str, Any]]) -> None:
    starts = [index for index, record in enumerate(records) if record["kind"] == "exception" and record["vector"] == 3]
    assert [records[start]["mode"] for start in starts] == ["kernel", "user"]
    for start in starts:
        exception, bounce, frame, handler = records[start : start + 4]
        assert [step["kind"] for step in (bounce, frame, handler)] == ["trap_bounce", "bounce_frame", "handler"]
        assert {step["count"] for step in (exception, bounce, frame, handler)} == {exception["count"]}
        words = {word["name"]: word["value"] for word in frame["words"]}
        assert words["rip"] == exception["rip"] == exception["insn"] + 1
        assert (words["rcx"], words["r11"]) == (exception["registers"]["rcx"], exception["registers"]["r11"])
        assert words["rsp"] == exception["registers"]["rsp"]
        assert handler["rip"] == bounce["eip"]
    back = next(record for record in records[starts[0] :] if record["kind"] == "iret")
    assert (back["rip"], back["mode"]) == (records[starts[0]]["rip"], "kernel")


def test_hypercalls_are_decoded_and_have_results(records: list[dict[str, Any]]) -> None:
    calls = [record for record in records if record["kind"] == "hypercall"]
    results = [record for record in records if record["kind"] == "hypercall_result"]
    assert [call["name"] for call in calls if call["name"] != "iret"] == [result["name"] for result in results]
    tables = [call["decoded"]["traps"] for call in calls if call["name"] == "set_trap_table"]
    assert [gate["dpl"] for table in tables for gate in table if gate["vector"] == 3][-1] == 3
    assert all(call["symbol"] and "hypercall_page" not in call["symbol"] for call in calls if call["name"] != "iret")


@pytest.mark.parametrize("form", FORMATS)
def test_two_runs_give_byte_equal_traces(form: str) -> None:
    assert run(form, tuple(EVENT_KINDS)) == run(form, tuple(EVENT_KINDS))


def test_a_trace_changes_nothing_of_the_run() -> None:
    assert run("text")[1] == run(None)[1]
