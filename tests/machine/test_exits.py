"""Each exit: what it says, RIP, and the exact count."""

import pytest

from xdbg.machine.exits import (
    DeadlineExit,
    EngineExit,
    ExceptionExit,
    IoExit,
    StepExit,
    SyscallExit,
    SysenterExit,
)
from xdbg.machine.registers import RAX, RBX, RCX, RDX, RSP

from .conftest import CODE, DATA, FOREVER, RWX, RX, GuestMaker

UNMAPPED = 0x1234_5000


@pytest.mark.parametrize(
    ("source", "expected", "retired", "rip"),
    [
        ("nop; int3", ExceptionExit(3, software=True, length=1), 2, 2),
        ("nop; .byte 0xcd, 3", ExceptionExit(3, software=True, length=2), 2, 3),
        ("nop; int 0x80", ExceptionExit(0x80, software=True, length=2), 2, 3),
        ("nop; ud2", ExceptionExit(6), 1, 1),
        ("nop; .byte 0xce", ExceptionExit(6), 1, 1),
        ("nop; .byte 0xf1", ExceptionExit(1), 2, 2),
        ("nop; cli", ExceptionExit(13), 1, 1),
        ("nop; hlt", ExceptionExit(13), 1, 1),
        ("nop; nop; mov rax, cr3", ExceptionExit(13), 2, 2),
        ("nop; rdmsr", ExceptionExit(13), 1, 1),
        ("nop; rdpmc", ExceptionExit(13), 1, 1),
        ("nop; swapgs", ExceptionExit(13), 1, 1),
        ("nop; xor edx, edx; div edx", ExceptionExit(0), 2, 3),
        ("nop; rdrand rax", ExceptionExit(6), 1, 1),
        ("nop; rdseed rax", ExceptionExit(6), 1, 1),
        ("nop; vpxor xmm0, xmm1, xmm2", ExceptionExit(6), 1, 1),
        ("nop; vpaddd ymm0, ymm1, ymm2", ExceptionExit(6), 1, 1),
        ("nop; xgetbv", ExceptionExit(6), 1, 1),
        ("nop; mov rax, [0x12345000]", ExceptionExit(14, 4, cr2=UNMAPPED), 1, 1),
        ("nop; mov [0x12345000], rax", ExceptionExit(14, 6, cr2=UNMAPPED), 1, 1),
        ("nop; mov [0x400000], rax", ExceptionExit(14, 7, cr2=CODE), 1, 1),
        ("nop; push [0x12345000]", ExceptionExit(14, 4, cr2=UNMAPPED), 1, 1),
        ("nop; add dword ptr [0x400000], 1", ExceptionExit(14, 7, cr2=CODE), 1, 1),
        ("nop; mov ax, 0x1233; mov ds, ax", ExceptionExit(13, 0x1230), 2, 5),
        ("nop; movabs rax, 0x8000000000000000; mov rax, [rax]", ExceptionExit(13), 2, 11),
        ("nop; syscall", SyscallExit(), 2, 3),
        ("nop; sysenter", SysenterExit(), 1, 1),
        ("nop; in al, 0x60", IoExit(0x60, 1, write=False), 1, 1),
        ("mov edx, 0x3f8; out dx, eax", IoExit(0x3F8, 4, write=True), 1, 5),
        ("mov edx, 0x3f8; out dx, ax", IoExit(0x3F8, 2, write=True), 1, 5),
        ("mov edx, 0x3f8; rep insb", IoExit(0x3F8, 1, write=False), 1, 5),
        ("mov edx, 0x3f8; outsd", IoExit(0x3F8, 4, write=True), 1, 5),
    ],
)
def test_an_instruction_gives_its_exit_with_exact_rip_and_count(guest, source, expected, retired, rip):
    machine = guest(source)
    assert machine.run_to_end() == expected
    assert (machine.cpu.count, machine.cpu.rip - CODE) == (retired, rip)


@pytest.mark.parametrize("steps", [True, False])
def test_a_jump_to_a_page_that_can_not_be_fetched_faults_at_the_target(guest, steps):
    machine = guest("jmp 0x600000")
    if steps:
        assert machine.cpu.step() == StepExit()
        assert machine.cpu.rip == DATA
    assert machine.run_to_end() == ExceptionExit(14, 0x15, cr2=DATA)
    assert (machine.cpu.rip, machine.cpu.count) == (DATA, 1)


def test_a_push_without_stack_leaves_everything_as_it_was(guest):
    machine = guest("mov rsp, 0x12345008; push rax; push rax")
    machine.map(UNMAPPED, RX)
    assert machine.run_to_end() == ExceptionExit(14, 7, cr2=UNMAPPED)
    assert (machine.cpu.gpr[RSP], machine.cpu.count) == (UNMAPPED + 8, 1)


def test_syscall_leaves_rcx_r11_and_flags_alone(guest):
    machine = guest("stc; mov ecx, 5; mov r11d, 6; syscall")
    machine.run_to_end()
    assert (machine.cpu.gpr[RCX], machine.cpu.gpr[11], machine.cpu.rflags) == (5, 6, 3)


def test_allowed_ports_read_all_ones_and_swallow_writes(guest):
    machine = guest("mov edx, 0x3f8; in al, dx; mov bl, al; in eax, dx; out dx, eax; mov edi, 0x600000; insb; syscall")
    machine.cpu.io_allowed = True
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.gpr[RAX] == 0xFFFF_FFFF
    assert machine.cpu.gpr[RBX] == 0xFF
    assert machine.cpu.count == 8
    assert machine.ram.read_u64(65 << 12) == 0xFF


def test_an_io_exit_of_ins_has_not_touched_memory(guest):
    machine = guest("mov edi, 0x600000; insd")
    machine.ram.write_u64(65 << 12, 0x1111_2222_3333_4444)
    assert machine.run_to_end() == IoExit(0, 4, write=False)
    assert machine.ram.read_u64(65 << 12) == 0x1111_2222_3333_4444


def test_rdtsc_is_count_plus_offset_at_that_instruction(guest):
    machine = guest("nop; nop; rdtsc; mov ebx, eax; nop; rdtscp; syscall")
    machine.cpu.rdtsc_allowed = True
    machine.cpu.tsc_offset = 1 << 40
    machine.cpu.tsc_aux = 77
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.gpr[RBX] == 2
    assert (machine.cpu.gpr[RAX], machine.cpu.gpr[RDX], machine.cpu.gpr[RCX]) == (5, 1 << 8, 77)
    assert machine.cpu.count == 7


def test_rdtsc_that_is_not_allowed_is_a_general_protection_fault(guest):
    machine = guest("nop; rdtsc")
    machine.cpu.rdtsc_allowed = False
    assert machine.run_to_end() == ExceptionExit(13)
    assert (machine.cpu.rip, machine.cpu.count) == (CODE + 1, 1)


def test_cpuid_is_answered_from_outside_at_its_count(guest):
    machine = guest("mov eax, 0x40000000; mov ecx, 3; cpuid; syscall")
    asked = []
    machine.cpu.cpuid = lambda leaf, subleaf, count: asked.append((leaf, subleaf, count)) or (1, 2, 3, 4)
    assert machine.run_to_end() == SyscallExit()
    assert asked == [(0x4000_0000, 3, 2)]
    assert [machine.cpu.gpr[r] for r in (RAX, RBX, RCX, RDX)] == [1, 2, 3, 4]
    assert machine.cpu.count == 4


def test_x87_with_ts_set_is_device_not_available(guest):
    machine = guest("nop; fninit; syscall")
    machine.cpu.cr0_ts = True
    assert machine.run_to_end() == ExceptionExit(7)
    machine.cpu.cr0_ts = False
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.count == 3


def test_an_unmasked_x87_error_comes_at_the_next_waiting_instruction(guest):
    machine = guest("fninit; push 0; fldcw [rsp]; fldz; fld1; fdiv st, st(1); fwait; nop")
    assert machine.run_to_end().vector == 16


@pytest.mark.parametrize("source", ["mov rax, [rdi]", "mov [rdi], rax", "add [rdi], rax", "call rdi", "jmp rdi"])
def test_a_page_table_that_names_no_ram_ends_the_guest_at_the_instruction(guest, source):
    machine = guest(f"mov edi, 0x12345000; nop; again: inc rax; {source}; jmp again")
    machine.map(UNMAPPED, RWX, maddr=1 << 30)
    result = machine.run_to_end()
    at = UNMAPPED if "rdi" in source.split()[-1] and "[" not in source else CODE + 9
    assert result == EngineExit(f"access outside RAM at {at:#x}")
    assert machine.cpu.count == (4 if at == UNMAPPED else 3)
    assert machine.cpu.step() == result


def test_a_deadline_that_has_passed_runs_nothing(guest):
    machine = guest("nop; jmp _start")
    assert machine.cpu.enter(0) == DeadlineExit()
    assert (machine.cpu.rip, machine.cpu.count) == (CODE, 0)
    assert machine.cpu.enter(101) == DeadlineExit()
    assert machine.cpu.enter(5) == DeadlineExit()
    assert (machine.cpu.rip, machine.cpu.count) == (CODE + 1, 101)


def test_the_deadline_comes_before_a_fault_of_the_next_instruction(guest):
    machine = guest("nop; jmp 0x12345000")
    assert machine.cpu.enter(2) == DeadlineExit()
    assert (machine.cpu.rip, machine.cpu.count) == (UNMAPPED, 2)
    assert machine.cpu.enter(FOREVER) == ExceptionExit(14, 0x14, cr2=UNMAPPED)


def test_a_triple_of_stack_faults_are_three_page_faults(guest: GuestMaker):
    machine = guest("xor esp, esp; push rax")
    for _ in range(3):
        assert machine.run_to_end() == ExceptionExit(14, 6, cr2=(1 << 64) - 8)
    assert machine.cpu.gpr[RSP] == 0
