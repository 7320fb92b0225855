"""Execution stop points stop before their instruction, only there, and change nothing else."""

import random

import pytest

from xdbg.machine.exits import DeadlineExit, ExceptionExit, StepExit, StopPointExit, SyscallExit
from xdbg.machine.registers import RBX, RCX

from .conftest import CODE, DATA, FOREVER, RX, assemble

LOOP = "again: inc rax; inc rbx; 1: inc rcx; cmp rcx, 100; jne again; syscall"
MIDDLE = CODE + 6  # inc rcx


def test_it_stops_before_the_instruction_in_the_middle_of_a_block(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None)
    assert machine.cpu.enter(FOREVER) == StopPointExit(MIDDLE)
    assert (machine.cpu.rip, machine.cpu.count, machine.cpu.gpr[RBX], machine.cpu.gpr[RCX]) == (MIDDLE, 2, 1, 0)


def test_an_entry_at_it_stops_at_once_unless_told_to_skip(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None)
    machine.cpu.enter(FOREVER)
    assert machine.cpu.enter(FOREVER) == StopPointExit(MIDDLE)
    assert machine.cpu.count == 2
    assert machine.cpu.enter(FOREVER, skip_stop_point=True) == StopPointExit(MIDDLE)
    assert (machine.cpu.count, machine.cpu.gpr[RCX]) == (7, 1)


def test_a_step_ignores_it_and_a_removed_one_is_gone(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None)
    machine.cpu.enter(FOREVER)
    assert machine.cpu.step() == StepExit()
    machine.cpu.stop_points.remove(MIDDLE, None)
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    assert machine.cpu.count == 501


def test_one_that_is_added_in_a_hot_loop_stops_the_next_time_round(guest):
    machine = guest("again: inc rax; inc rbx; inc rcx; jmp again")
    machine.cpu.enter(4000)
    machine.cpu.stop_points.add(CODE + 3, None)
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE + 3)
    assert machine.cpu.count == 4001


def test_it_is_of_one_address_space(guest):
    machine = guest(LOOP)
    other = machine.new_space()
    machine.cpu.stop_points.add(MIDDLE, other)
    assert machine.cpu.enter(300) == DeadlineExit()
    machine.map(CODE, RX, maddr=machine.ram.read_u64(machine.pte_maddr(CODE)) & 0xF_F000, l4=other)
    machine.cpu.cr3 = other
    assert machine.cpu.enter(FOREVER) == StopPointExit(MIDDLE)


def test_an_address_inside_an_instruction_never_stops(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE + 1, None)
    assert machine.cpu.enter(FOREVER) == SyscallExit()


@pytest.mark.parametrize("mapped", [True, False])
def test_one_where_nothing_can_be_fetched_stops_before_the_fault(guest, mapped):
    target = DATA if mapped else 0x1234_5000
    machine = guest(f"nop; push {target:#x}; ret")
    machine.cpu.stop_points.add(target, None)
    assert machine.cpu.enter(FOREVER) == StopPointExit(target)
    assert machine.cpu.count == 3
    assert machine.cpu.step().vector == 14


def test_it_stops_once_for_a_repeated_string_instruction(guest):
    machine = guest("again: mov edi, 0x600000; mov ecx, 20; 1: rep stosb; jmp again")
    machine.cpu.stop_points.add(CODE + 10, None)
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE + 10)
    for _ in range(3):  # slices end inside of it
        upto = machine.cpu.count + 5
        assert machine.cpu.enter(upto, skip_stop_point=True) == DeadlineExit()
    before = machine.cpu.count
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE + 10)
    assert machine.cpu.gpr[RCX] == 20
    assert machine.cpu.count > before


def test_the_deadline_comes_first(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None)
    assert machine.cpu.enter(2) == DeadlineExit()
    assert machine.cpu.enter(3) == StopPointExit(MIDDLE)


def test_one_on_an_emulated_or_faulting_instruction_comes_before_it(guest):
    machine = guest("nop; rdtsc; cpuid; ud2")
    machine.cpu.rdtsc_allowed = True
    for at in (1, 3, 5):
        machine.cpu.stop_points.add(CODE + at, None)
    for at in (1, 3, 5):
        assert machine.cpu.enter(FOREVER, skip_stop_point=at > 1) == StopPointExit(CODE + at)
        assert machine.cpu.rip == CODE + at
    assert machine.cpu.enter(FOREVER, skip_stop_point=True) == ExceptionExit(6)


def test_many_stop_points_and_steps_leave_count_and_state_alone(guest):
    source = (
        "mov ecx, 50; again: push rax; inc rax; pop rbx; call 1f; loop again; syscall; 1: lea rdx, [rax + rbx]; ret"
    )
    plain = guest(source)
    assert plain.run_to_end() == SyscallExit()
    machine = guest(source)
    choose = random.Random(5)
    for offset in range(len(assemble(source))):
        machine.cpu.stop_points.add(CODE + offset, None)
    result = None
    while result != SyscallExit():
        result = machine.cpu.step() if choose.random() < 0.3 else machine.cpu.enter(FOREVER, skip_stop_point=True)
    assert machine.cpu.count == plain.cpu.count
    assert machine.cpu.save() == plain.cpu.save()
    assert machine.ram.buffer == plain.ram.buffer
