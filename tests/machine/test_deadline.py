"""The clock is exact: to run to N is to step N times, whatever the program does."""

import random

import pytest

from xdbg.machine.cpu import Cpu
from xdbg.machine.exits import DeadlineExit, ExceptionExit, Exit, StepExit, SyscallExit
from xdbg.machine.paging import read_virtual

from .conftest import CODE, DATA, FOREVER, RX, Guest, GuestMaker

# Each is position-independent, leaves r12-r15 alone and comes out at its end (exits are resumed behind it).
PIECES = [
    "inc rax",
    "lea rbx, [rax + rbx * 2 + 7]; rol rbx, 3",
    "add [r12], rax; adc rbx, [r12 + 8]",
    "mov [r12 + 16], rbx; xchg rax, [r12 + 16]",
    "push rax; push rbx; pop rax; pop rbx",
    "mov ecx, 5; lea rdi, [r12 + 64]; rep stosq",
    "xor ecx, ecx; lea rdi, [r12 + 64]; rep stosb",
    "mov ecx, 9; lea rsi, [r12]; lea rdi, [r12 + 128]; rep movsb",
    "mov ecx, 9; lea rsi, [r12]; lea rdi, [r12 + 128]; repe cmpsb",
    "mov ecx, 4; 1: add rax, rcx; loop 1b",
    "test al, 1; jz 1f; inc rbx; 1: add rbx, rax",
    "call 1f; jmp 2f; 1: inc rax; ret; 2:",
    "lea rcx, [rip + 1f]; jmp rcx; nop; 1:",
    "mov ecx, ss; nop; inc rdx",
    "xor ecx, ecx; mov ds, ecx; inc rax",
    "pushf; pop rcx; push rcx; popf",
    "movq xmm0, rax; paddq xmm1, xmm0; movq rbx, xmm1",
    "cvtsi2sd xmm2, rax; sqrtsd xmm2, xmm2; cvttsd2si rcx, xmm2; add rbx, rcx",
    "fninit; fild qword ptr [r12]; fistp qword ptr [r12 + 24]",
    "lock xadd [r12 + 32], rax; lock cmpxchg [r12 + 40], rbx",
    "rdtsc; add rbx, rax",
    "cpuid",
    "pause; inc rax",
    "mov rcx, [r12 + 4093]",  # crosses into the next page
    "add qword ptr [r12 + 4093], rax",
    "fxsave [r12 + 1024]",
    # exits
    "int3",
    "int 0x80",
    "syscall",
    "ud2",
    "mov rcx, [r13]; nop",  # not mapped: resumed behind it
    "inc rax; cli",
    "mov [r14], rax; nop",  # read-only
]


def program(seed: int, length: int = 25) -> str:
    """A loop over random pieces, laid out so that it crosses a page."""
    choose = random.Random(seed)
    text = "\n".join(choose.choice(PIECES).replace(";", "\n") for _ in range(length))
    text = text.replace("1:", "1:\n").replace("2:", "2:\n")
    return f".skip 4096 - 64, 0x90\nagain:\n{text}\njmp again"


def make(guest: GuestMaker, source: str) -> Guest:
    machine = guest(source, size=1 << 20)
    machine.map(DATA + 4096, RX | 2 | 1 << 63)
    cpu = machine.cpu
    cpu.gpr[12], cpu.gpr[13], cpu.gpr[14] = DATA, 0x1234_5000, CODE
    cpu.rdtsc_allowed = True
    cpu.cpuid = lambda leaf, subleaf, count: (leaf + 1, subleaf, count, 0)
    cpu.rip = CODE + 4000
    return machine


LENGTHS = {b"\xfa": 1, b"\x0f": 2, b"\x49": 4, b"\x4d": 4}


def resume(machine: Guest, result: Exit) -> None:
    """What a hypervisor might do: skip the instruction that faulted."""
    cpu = machine.cpu
    if isinstance(result, ExceptionExit) and not result.software:
        cpu.rip += LENGTHS[read_virtual(machine.ram, cpu.cr3, cpu.rip, 1)]


def digest(cpu: Cpu, machine: Guest) -> tuple[object, ...]:
    return cpu.count, cpu.rip, cpu.rflags, bytes(cpu.gpr), cpu.read_fpu(), bytes(machine.ram.buffer[64 << 12 :])


def stepped(machine: Guest, upto: int) -> dict[int, tuple[object, ...]]:
    """The state at each count, by single steps."""
    cpu = machine.cpu
    states = {}
    while cpu.count <= upto:
        states.setdefault(cpu.count, digest(cpu, machine))
        before = cpu.count
        result = cpu.step()
        if isinstance(result, StepExit):
            assert cpu.count == before + 1
        else:
            assert cpu.count - before in (0, 1)
            resume(machine, result)
    return states


@pytest.mark.parametrize("seed", range(12))
def test_running_to_a_count_is_stepping_to_it(guest, seed):
    source = program(seed)
    states = stepped(make(guest, source), 1500)
    machine = make(guest, source)
    choose = random.Random(seed)
    for target in sorted(choose.sample(sorted(states), 60)):
        while (result := machine.cpu.enter(target)) != DeadlineExit():
            assert machine.cpu.count <= target
            resume(machine, result)
        assert digest(machine.cpu, machine) == states[target]


@pytest.mark.parametrize("seed", range(100, 104))
def test_a_run_in_slices_sees_the_same_exits_as_one_run(guest, seed):
    def run(slices: random.Random | None) -> list[tuple[Exit, int, int]]:
        machine = make(guest, program(seed))
        seen = []
        while machine.cpu.count < 4000:
            upto = FOREVER if slices is None else machine.cpu.count + slices.randrange(1, 40)
            result = machine.cpu.enter(upto)
            if result != DeadlineExit():
                seen.append((result, machine.cpu.count, machine.cpu.rip))
                resume(machine, result)
        return [entry for entry in seen if entry[1] < 4000]

    whole = run(None)
    assert len(whole) > 3
    assert run(random.Random(seed)) == whole


def test_a_repeated_string_instruction_counts_its_iterations_and_its_end(guest):
    machine = guest("mov ecx, 3; mov edi, 0x600000; rep stosb; syscall")
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.count == 2 + 4 + 1
    machine = guest("xor ecx, ecx; mov edi, 0x600000; rep stosb; syscall")
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.count == 2 + 1 + 1


def test_the_instruction_behind_mov_ss_is_a_step_of_its_own(guest):
    machine = guest("mov eax, ss; mov ss, eax; inc ebx; inc ebx")
    rips = []
    for _ in range(3):
        assert machine.cpu.step() in (StepExit(), ExceptionExit(13, 0xE028))
        rips.append(machine.cpu.rip - CODE)
    assert rips[0] == 2
