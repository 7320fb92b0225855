"""The text form: one int3 reads as an explanation, and indentation shows who interrupts whom."""

from dataclasses import replace
from typing import Any

import pytest
from trace_events import BOUNCE, FRAME, HANDLER, INT3, IRET
from trace_machine import Machine

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.trace.events import GuestText
from xdbg.trace.text import MAX_DEPTH, show
from xdbg.xen.events import (
    ConsoleOutput,
    DomainShutdown,
    EventPending,
    FaultFixedUp,
    HypercallDone,
    HypercallEntered,
    PrivilegedOp,
    Upcall,
)

ONE_INT3 = """\
        1000 d1v0 kernel    #BP breakpoint at kernel_int3+0x4 <0x100104>: int3
                              gate: vector 3 of Xen's IDT (a domain has none), DPL 3, so int3 may use it at CPL 3; it \
leads to e008:ffff82d040200030, in Xen
                              the CPU pushed rip 0x100105, behind the instruction
        1001 d1v0 kernel      trap_bounce: set to {no error code, flags EXCEPTION|INTERRUPT, cs e033, eip \
entry_stubs+0x30 <0x100230>}, the guest's trap table entry 3; Xen does not call the guest
        1003 d1v0 kernel      bounce frame: on the way back Xen rewrites the return: 7 words at 0x101f00 on the guest \
kernel's stack (the one in use)
                                0x101f00  rcx            0000000000001111
                                0x101f08  r11            0000000000002222
                                0x101f10  rip            0000000000100105  kernel_int3+0x5
                                0x101f18  cs|saved mask  000000010000e030  cs e030, upcall mask 1
                                0x101f20  rflags         0000000000000246  FIXED|PF|ZF|IF
                                0x101f28  rsp            0000000000101f40
                                0x101f30  ss             000000000000e02b
        1003 d1v0 kernel      handler: the return to the guest lands in entry_stubs+0x30 <0x100230>, the guest's own \
handler of #BP
        1004 d1v0 kernel        console: "int3 in kernel mode\\n"
        1005 d1v0 kernel        hypercall iret()
        1006 d1v0 kernel      iret: back to kernel mode at kernel_int3+0x5 <0x100105>, cs e030, rflags FIXED|PF|ZF|IF, \
rsp 0x101f40, upcall mask 0
"""


def indents(text: str) -> list[int]:
    """Columns by which the records are further right than the first."""
    lines = [line for line in text.splitlines() if line[:12].strip()]
    columns = [len(line) - len(line[28:].lstrip()) for line in lines]
    return [column - columns[0] for column in columns]


def test_one_int3_reads_as_an_explanation_of_its_way(machine: Machine) -> None:
    machine.put(0x10_0104, b"\xcc\xc3")
    text = machine.tell(
        *(INT3, BOUNCE, FRAME, HANDLER, ConsoleOutput(b"int3 in kernel mode\n"), HypercallEntered(23, ()), IRET),
        recorder=machine.recorder(processes=None),
    )
    assert text == ONE_INT3


def test_a_nested_trap_is_further_right_until_both_have_returned(machine: Machine) -> None:
    inner_frame = replace(FRAME, sp=Vaddr(0x10_1E00), words=(*FRAME.words[:5], 0x10_1E40, 0xE02B))
    inner_iret = replace(IRET, rsp=Vaddr(0x10_1E40))
    pending = EventPending(1, True)
    text = machine.tell(
        *(pending, INT3, BOUNCE, FRAME, HANDLER, pending, INT3, inner_frame, HANDLER, pending, inner_iret, pending),
        *(IRET, pending),
    )
    assert indents(text) == [0, 0, 2, 2, 2, 4, 4, 6, 6, 8, 6, 4, 2, 0]


def test_an_iret_to_the_outer_stack_ends_the_inner_trap_too(machine: Machine) -> None:
    inner_frame = replace(FRAME, words=(*FRAME.words[:5], 0x10_1E40, 0xE02B))
    text = machine.tell(INT3, FRAME, HANDLER, INT3, inner_frame, HANDLER, IRET, INT3)
    assert indents(text) == [0, 2, 2, 4, 6, 6, 2, 0]


def test_user_mode_is_in_no_trap(machine: Machine) -> None:
    text = machine.tell(INT3, FRAME, HANDLER, INT3, replace(FRAME, switched_stack=True), HANDLER, INT3)
    assert indents(text) == [0, 2, 2, 4, 2, 2, 4]
    machine.stream.truncate(0)
    machine.stream.seek(0)
    text = machine.tell(
        INT3, FRAME, HANDLER, replace(IRET, user_mode=True, rsp=Vaddr(1)), replace(INT3, kernel_mode=False)
    )
    assert indents(text) == [0, 2, 2, 2, 0]


def test_a_kernel_that_never_returns_stays_on_the_page(machine: Machine) -> None:
    recorder = machine.recorder()
    for _ in range(200):
        text = machine.tell(FRAME, HANDLER, recorder=recorder)
    assert max(indents(text)) == 4 * MAX_DEPTH


def test_a_frame_for_a_system_call_begins_with_it(machine: Machine) -> None:
    text = machine.tell(replace(FRAME, switched_stack=True), replace(HANDLER, kind="syscall", vector=None))
    lines = text.splitlines()
    assert "syscall of user mode, behind it kernel_int3+0x5 <0x100105>; Xen does not call the guest" in lines[0]
    assert "(of stack_switch; page table and GS base change too)" in lines[1]
    assert lines[-1].endswith("the guest's syscall callback")


def test_a_refused_int_says_which_gate_refused_it(machine: Machine) -> None:
    machine.put(0x10_0104, b"\xcd\x80")
    gp = replace(INT3, vector=13, error_code=0x402, software=False, gate_dpl=0, rip=INT3.insn)
    text = machine.tell(gp)
    assert "#GP general protection at kernel_int3+0x4 <0x100104>: int $0x80" in text
    assert "error code 0x402: gate 128 of the IDT does not let `int` pass at CPL 3" in text
    assert "pushed" not in text


def test_a_page_fault_shows_cr2_and_the_error_code(machine: Machine) -> None:
    fault = replace(INT3, vector=14, error_code=6, software=False, rip=INT3.insn, cr2=Vaddr(0x10_1008))
    text = machine.tell(fault, replace(BOUNCE, vector=14, error_code=6, eip=Vaddr(0)))
    assert "cr2 stack+0x8 <0x101008>, error code 0x6 (WRITE_ACCESS|USER_MODE)" in text
    assert "trap_bounce: set for #PF, but the guest has no trap table entry 14" in text


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (EventPending(1, False), "event channel: port 1 (VIRQ TIMER) becomes pending"),
        (EventPending(2, True), "port 2 (console of domain 0) becomes pending; the vcpu has an upcall pending now"),
        (Upcall((1, 3)), "upcall: the mask is clear and ports are pending: 1 (VIRQ TIMER), 3 (IPI)"),
        (
            PrivilegedOp(Vaddr(0x10_0104), "mov %cr3,%rax"),
            "emulated by Xen at kernel_int3+0x4 <0x100104>: mov %cr3,%rax",
        ),
        (FaultFixedUp(Vaddr(0x10_0104), Vaddr(0x5000), "l1e"), "access to 0x5000 at kernel_int3+0x4 <0x100104>: l1e"),
        (ConsoleOutput('"\xe9"'.encode()), 'console: "\\"\xe9\\""'),
        (DomainShutdown(3, "no handler"), "domain ends: SHUTDOWN_crash (3): no handler"),
        (DomainShutdown(0, ""), "domain ends: SHUTDOWN_poweroff (0)\n"),
        (HypercallEntered(Hypercall.SCHED_OP, (0, 0)), "hypercall sched_op(YIELD, arg=0) for 0x100000"),
        (HypercallEntered(99, (), in_multicall=True), "hypercall in the multicall: 0x63() for 0x100000"),
        (HypercallDone(Hypercall.SCHED_OP, (9, 0), -38), "sched_op = -ENOSYS"),
        (HypercallDone(Hypercall.XEN_VERSION, (0, 0), 0x40011), "xen_version = 0x40011"),
    ],
)
def test_each_event_has_its_line(machine: Machine, event: Any, expected: str) -> None:
    assert expected in machine.tell(event)


def test_the_pid_stands_beside_the_mode(machine: Machine) -> None:
    machine.vcpu.kernel_mode = False
    assert machine.tell(EventPending(1, False)).startswith("        1000 d1v0 user 7    event")


def test_a_call_is_attributed_to_the_caller_of_the_hypercall_pages_stub(machine: Machine) -> None:
    machine.put(0x10_0010, b"\x41\x5b\x59\xc3")
    machine.put(0x10_1F10, (0x10_0112).to_bytes(8, "little"))
    machine.cpu.rip = 0x10_0010
    machine.cpu.gpr[4] = 0x10_1F00
    assert "for kernel_int3+0x12 <0x100112>" in machine.tell(HypercallEntered(Hypercall.SCHED_OP, (0, 0)))


def test_values_are_shown_for_people() -> None:
    assert show("", None) == "(not readable)"
    assert show("", 1023) == "1023"
    assert show("", 0x10_0000) == "0x100000"
    assert show("timeout_abs_ns", 1_000_000) == "1000000"
    assert show("", "TIMER") == "TIMER"
    assert show("", GuestText("TIMER\n")) == '"TIMER\\n"'
    assert show("", {"a": [1, 0x1000], "b": "X|Y"}) == "{a=[1, 0x1000], b=X|Y}"
