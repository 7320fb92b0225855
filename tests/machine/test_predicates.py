"""A stop point with a predicate stops when that holds, and otherwise leaves no trace at all."""

import random

import pytest

from xdbg.machine.exits import DeadlineExit, ExceptionExit, StepExit, StopPointExit, SyscallExit
from xdbg.machine.paging import PTE_PRESENT, PTE_PSE, PTE_RW, PTE_USER
from xdbg.machine.predicate import Predicate, PredicateOp, Step
from xdbg.machine.registers import RAX, RBX, RCX, RDX

from .conftest import CODE, DATA, FOREVER, RW, RWX, RX, assemble

Op = PredicateOp
LOOP = "again: inc rax; inc rbx; 1: inc rcx; cmp rcx, 100; jne again; syscall"
MIDDLE = CODE + 6  # inc rcx
MASK = (1 << 64) - 1


def const(value: int) -> Step:
    return Step(Op.CONST, value=value & MASK)


def register_is(register: int, value: int) -> Predicate:
    return Predicate((Step(Op.REGISTER, register), const(value), Step(Op.EQUAL), Step(Op.END)))


def word_is(vaddr: int, value: int, size: int = 8, tables: tuple[int | None, ...] = (None,)) -> Predicate:
    steps = (const(vaddr), Step(Op.LOAD, size), const(value), Step(Op.EQUAL), Step(Op.END))
    return Predicate(steps, tables)


NEVER = Predicate((const(0), Step(Op.END)))
ALWAYS = Predicate((const(1), Step(Op.END)))


def evaluations(machine) -> int:
    return machine.cpu.diagnostics.predicates


def test_it_stops_when_its_register_has_the_value(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None, register_is(RCX, 40))
    assert machine.cpu.enter(FOREVER) == StopPointExit(MIDDLE)
    assert (machine.cpu.rip, machine.cpu.count, machine.cpu.gpr[RCX], machine.cpu.gpr[RBX]) == (MIDDLE, 202, 40, 41)
    assert evaluations(machine) >= 41
    assert machine.cpu.enter(FOREVER, skip_stop_point=True) == SyscallExit()
    assert machine.cpu.count == 501


@pytest.mark.parametrize("register", range(16))
def test_each_register_is_the_guests(guest, register):
    machine = guest("nop; 1: syscall")
    value = 0x1234_5678_9ABC_DE00 + register
    machine.cpu.gpr[register] = value
    machine.cpu.stop_points.add(CODE + 1, None, register_is(register, value ^ 1))
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    machine.cpu.rip = CODE
    machine.cpu.stop_points.add(CODE + 1, None, register_is(register, value))
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE + 1)


def test_it_stops_when_its_word_has_the_value(guest):
    machine = guest("again: inc rax; mov [0x600ff8], rax; nop; cmp rax, 100; jne again; syscall")
    after_store = CODE + 11
    machine.cpu.stop_points.add(after_store, None, word_is(DATA + 0xFF8, 33))
    assert machine.cpu.enter(FOREVER) == StopPointExit(after_store)
    assert machine.cpu.gpr[RAX] == 33


def test_reading_sets_no_bits_and_sees_the_tables_as_they_are(guest):
    machine = guest("nop; nop; syscall")
    other = DATA + 0x1000
    maddr = machine.map(other, RW)
    machine.ram.write_u64(maddr, 0x1122_3344_5566_7788)
    machine.cpu.stop_points.add(CODE, None)
    machine.cpu.enter(FOREVER)  # the fetch itself has set accessed bits
    before = bytes(machine.ram.buffer[: 64 << 12])
    for size, value in ((1, 0x88), (2, 0x7788), (4, 0x5566_7788), (8, 0x1122_3344_5566_7788)):
        machine.cpu.stop_points.clear()
        machine.cpu.stop_points.add(CODE, None, word_is(other, value, size))
        machine.cpu.rip = CODE
        assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    assert bytes(machine.ram.buffer[: 64 << 12]) == before
    machine.unmap(other)  # no flush: what the TLB has is not asked
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    machine.map(other, RW, maddr=machine.frame())
    assert machine.cpu.enter(FOREVER) == SyscallExit()


def test_a_word_may_cross_pages_and_lie_in_large_ones(guest):
    machine = guest("nop; syscall")
    machine.ram.write(machine.map(DATA, RW) + 0xFFD, b"\x01\x02\x03")
    machine.ram.write(machine.map(DATA + 0x1000, RW), b"\x04\x05\x06\x07\x08")
    machine.cpu.stop_points.add(CODE, None, word_is(DATA + 0xFFD, 0x0807_0605_0403_0201))
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    machine.cpu.stop_points.clear()
    large = 0x8000_0000
    table = machine.pte_maddr(large) & ~0xFFF
    directory = next(
        at for at in range(0, 64 << 12, 8) if machine.ram.read_u64(at) & 0xF_FFFF_FFFF_F000 == table and table
    )
    machine.ram.write_u64(directory, PTE_PRESENT | PTE_RW | PTE_USER | PTE_PSE)  # all of RAM
    machine.ram.write_u64(0x4_5678, 77)
    machine.cpu.stop_points.add(CODE, None, word_is(large + 0x4_5678, 77))
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    machine.cpu.stop_points.clear()
    machine.cpu.stop_points.add(CODE, None, word_is(large + 0x4_5678, 78))
    assert machine.cpu.enter(FOREVER) == SyscallExit()


def test_the_lower_half_is_looked_up_in_both_tables_and_the_upper_in_the_last(guest):
    machine = guest("nop; syscall")
    upper, low, both = 0xFFFF_8800_0000_0000, DATA + 0x3000, DATA + 0x4000
    user, kernel = machine.new_space(), machine.new_space()
    for space, value in ((user, 1), (kernel, 2)):
        for vaddr in (upper, both):
            machine.ram.write_u64(machine.map(vaddr, RW, l4=space), value)
    machine.ram.write_u64(machine.map(low, RW, l4=kernel), 3)
    for vaddr, value in ((both, 1), (upper, 2), (low, 3)):
        machine.cpu.rip = CODE
        machine.cpu.stop_points.clear()
        machine.cpu.stop_points.add(CODE, None, word_is(vaddr, value, tables=(user, kernel)))
        assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
        machine.cpu.stop_points.clear()
        machine.cpu.stop_points.add(CODE, None, word_is(vaddr, value + 1, tables=(user, kernel)))
        assert machine.cpu.enter(FOREVER) == SyscallExit()


@pytest.mark.parametrize(
    "steps",
    [
        (const(0x1234_5000), Step(Op.LOAD, 1), Step(Op.END)),  # not mapped
        (const(0x9000_0000_0000_0000), Step(Op.LOAD, 1), Step(Op.END)),  # not canonical
        (const(DATA + 0xFFC), Step(Op.LOAD, 8), Step(Op.END)),  # the second page is not mapped
        (const(1), const(0), Step(Op.DIV_SIGNED), Step(Op.END)),
        (const(1), const(0), Step(Op.REM_UNSIGNED), Step(Op.END)),
        (Step(Op.GOTO, 0),),
        (Step(Op.GOTO, 99),),
        (Step(Op.POP), const(0), Step(Op.END)),
        (Step(Op.END),),
        (const(0),),
        (const(0), Step(Op.GOTO, 0)),
        (const(0), Step(Op.PICK, 1), Step(Op.END)),
        (Step(Op.REGISTER, 16), Step(Op.END)),
    ],
)
def test_what_can_not_be_decided_stops(guest, steps):
    machine = guest("nop; syscall")
    machine.cpu.stop_points.add(CODE, None, Predicate(steps))
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    assert machine.cpu.count == 0


def test_any_of_those_at_one_address_stops(guest):
    machine = guest("nop; syscall")
    points = machine.cpu.stop_points
    other = machine.new_space()
    points.add(CODE, None, NEVER)
    points.add(CODE, other, ALWAYS)
    points.add(CODE, machine.l4, register_is(RAX, 1))
    points.add(CODE, other, None)
    for rax, result in ((1, StopPointExit(CODE)), (0, SyscallExit())):
        machine.cpu.rip, machine.cpu.gpr[RAX] = CODE, rax
        assert machine.cpu.enter(FOREVER) == result
    points.add(CODE, None)
    machine.cpu.rip = CODE
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    points.remove(CODE, None)
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    assert len(points) == 4


def test_the_first_alternative_that_is_true_decides(guest):
    first, second = (Step(Op.REGISTER, RAX), Step(Op.OR_ELSE, 2)), (Step(Op.REGISTER, RBX), Step(Op.END))
    for rax, rbx, result in ((0, 0, SyscallExit()), (1, 0, StopPointExit(CODE)), (0, 1, StopPointExit(CODE))):
        machine = guest("nop; syscall")
        machine.cpu.gpr[RAX], machine.cpu.gpr[RBX] = rax, rbx
        machine.cpu.stop_points.add(CODE, None, Predicate((*first, *second)))
        assert machine.cpu.enter(FOREVER) == result


def test_a_deadline_at_it_comes_first_and_a_step_or_a_skip_does_not_ask(guest):
    machine = guest(LOOP)
    machine.cpu.stop_points.add(MIDDLE, None, register_is(RCX, 0))
    assert machine.cpu.enter(2) == DeadlineExit()
    assert evaluations(machine) == 0
    assert machine.cpu.enter(3) == StopPointExit(MIDDLE)
    before = evaluations(machine)
    assert machine.cpu.step() == StepExit()
    assert evaluations(machine) == before
    machine.cpu.stop_points.clear()
    machine.cpu.stop_points.add(MIDDLE, None, NEVER)
    for deadline in (6, 7, 8, 9):  # slices that end before, at and behind it
        assert machine.cpu.enter(deadline) == DeadlineExit()
        assert machine.cpu.count == deadline
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    assert machine.cpu.count == 501


def test_it_is_asked_once_for_a_repeated_string_instruction(guest):
    machine = guest("again: mov edi, 0x600000; mov ecx, 20; 1: rep stosb; dec rdx; jnz again; syscall")
    machine.cpu.gpr[RDX] = 3
    machine.cpu.stop_points.add(CODE + 10, None, register_is(RCX, 7))  # it comes by 7, but in the middle
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    assert evaluations(machine) <= 6
    plain = guest("again: mov edi, 0x600000; mov ecx, 20; 1: rep stosb; dec rdx; jnz again; syscall")
    plain.cpu.gpr[RDX] = 3
    assert plain.cpu.enter(FOREVER) == SyscallExit()
    assert machine.cpu.count == plain.cpu.count


def test_code_that_modifies_itself_there_is_executed_as_it_is_then(guest):
    source = (
        "again: inc rax; mov byte ptr [patched + 3], al; patched: mov cl, byte ptr [0x600000 + rbx];"
        "add rdx, rcx; cmp rax, 20; jne again; syscall"
    )
    source = source.replace("mov cl, byte ptr [0x600000 + rbx]", "mov rcx, 0")
    plain = guest(source, rights=RWX)
    assert plain.cpu.enter(FOREVER) == SyscallExit()
    assert plain.cpu.gpr[RDX] == sum(range(1, 21))
    machine = guest(source, rights=RWX)
    for offset in range(len(assemble(source))):
        machine.cpu.stop_points.add(CODE + offset, None, NEVER)
    assert machine.cpu.enter(FOREVER) == SyscallExit()
    assert (machine.cpu.count, machine.cpu.save()) == (plain.cpu.count, plain.cpu.save())
    assert machine.ram.buffer == plain.ram.buffer


@pytest.mark.parametrize("holds", [True, False])
def test_one_on_an_emulated_or_faulting_instruction_is_asked_before_it(guest, holds):
    machine = guest("nop; rdtsc; cpuid; ud2")
    machine.cpu.rdtsc_allowed = True
    for at in (1, 3, 5):
        machine.cpu.stop_points.add(CODE + at, None, ALWAYS if holds else NEVER)
    if holds:
        for at in (1, 3, 5):
            assert machine.cpu.enter(FOREVER, skip_stop_point=at > 1) == StopPointExit(CODE + at)
    assert machine.cpu.enter(FOREVER, skip_stop_point=True) == ExceptionExit(6)
    assert machine.cpu.count == 3


@pytest.mark.parametrize("holds", [True, False])
def test_one_where_nothing_can_be_fetched_is_asked_before_the_fault(guest, holds):
    machine = guest("nop; push 0x12345000; ret")
    machine.cpu.stop_points.add(0x1234_5000, None, ALWAYS if holds else NEVER)
    result = machine.cpu.enter(FOREVER)
    assert result == StopPointExit(0x1234_5000) if holds else result.vector == 14
    assert machine.cpu.count == 3


def test_predicates_everywhere_leave_count_and_state_alone(guest):
    source = (
        "mov ecx, 50; again: push rax; inc rax; pop rbx; call 1f; loop again; syscall; 1: lea rdx, [rax + rbx];"
        "mov esi, 0x600000; mov edi, 0x600100; push rcx; mov ecx, 5; rep movsb; pop rcx; test cl, 3; jnz 2f;"
        "rdtsc; 2: ret"
    )
    plain = guest(source)
    plain.cpu.rdtsc_allowed = True
    assert plain.run_to_end() == SyscallExit()
    choose = random.Random(7)
    for slices in (False, True):
        machine = guest(source)
        machine.cpu.rdtsc_allowed = True
        for offset in range(len(assemble(source))):
            predicate = choose.choice([NEVER, register_is(RCX, 1000 + offset), word_is(DATA, 1), None])
            machine.cpu.stop_points.add(CODE + offset, None, predicate)
        result = None
        while result != SyscallExit():
            limit = machine.cpu.count + choose.randrange(1, 30) if slices else FOREVER
            if choose.random() < 0.2:
                result = machine.cpu.step()
            else:
                result = machine.cpu.enter(limit, skip_stop_point=isinstance(result, StopPointExit))
        assert machine.cpu.count == plain.cpu.count
        assert machine.cpu.save() == plain.cpu.save()
        assert machine.ram.buffer == plain.ram.buffer


def test_it_is_of_one_address_space(guest):
    machine = guest(LOOP)
    other = machine.new_space()
    machine.map(CODE, RX, maddr=machine.ram.read_u64(machine.pte_maddr(CODE)) & 0xF_F000, l4=other)
    machine.cpu.stop_points.add(MIDDLE, other, register_is(RCX, 60))
    assert machine.cpu.enter(250) == DeadlineExit()
    assert evaluations(machine) == 0
    machine.cpu.cr3 = other
    assert machine.cpu.enter(FOREVER) == StopPointExit(MIDDLE)
    assert machine.cpu.gpr[RCX] == 60
