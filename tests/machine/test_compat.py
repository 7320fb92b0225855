"""32-bit code, in compatibility mode: far transfers to it and back, counts, stops, exceptions and their exits."""

import struct

import pytest

from xdbg.machine.exits import (
    DeadlineExit,
    EngineExit,
    ExceptionExit,
    IoExit,
    StepExit,
    StopPointExit,
    SyscallExit,
    SysenterExit,
)
from xdbg.machine.registers import RAX, RBX, RCX, RDX, RSP, TF

from .conftest import CODE, DATA, RW, RWX, RX, STACK_TOP, Guest, assemble

GDT = 0x70_0000
CS64, CS32, SS32, CS16, CS_HIGH = 0x33, 0x23, 0x2B, 0x43, 0x4B
BASED = 0x53
BASE = 0x1000
DESCRIPTORS = {
    CS64: 0x00AF_FB00_0000_FFFF,
    CS32: 0x00CF_FB00_0000_FFFF,
    SS32: 0x00CF_F300_0000_FFFF,
    CS16: 0x008F_FB00_0000_FFFF,
    CS_HIGH: 0x00CF_FB00_1000_FFFF,
    BASED: 0x00CF_F300_0000_FFFF | BASE << 16,
}
BP, OF, UD, GP, PF, DB = 3, 4, 6, 13, 14, 1
OVERFLOW = 0x800
ACROSS = 0x2_0000_0000


def start(source: str, *, compat: bool = True, rights: int = RX) -> Guest:
    """A guest at `source`, 32-bit code with flat segments or 64-bit code, with a GDT, data and a stack."""
    made = Guest()
    code = assemble((".code32\n" if compat else "") + source)
    made.ram.write(made.map(CODE, rights), code)
    made.map(DATA, RW)
    made.map(DATA + BASE, RW)
    made.map(STACK_TOP - 4096, RW)
    table = made.map(GDT, RW)
    for selector, descriptor in DESCRIPTORS.items():
        made.ram.write_u64(table + (selector & ~7), descriptor)
    cpu = made.cpu
    cpu.set_gdt(GDT, 0xFFF)
    cpu.rip, cpu.gpr[RSP] = CODE, STACK_TOP
    if compat:
        cpu.load_code(CS32, DESCRIPTORS[CS32], SS32, DESCRIPTORS[SS32])
        cpu.ds = cpu.es = SS32
    return made


def test_bytes_mean_what_they_mean_in_32_bit_code():
    made = start("mov eax, -1; inc eax; .byte 0x48; push eax; int3")
    cpu = made.cpu
    cpu.gpr[RAX] = 0xFFFF_FFFF_FFFF_FFFF
    assert not cpu.is_64bit
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert (cpu.count, cpu.gpr[RAX], cpu.gpr[RSP], cpu.rip) == (5, 0xFFFF_FFFF, STACK_TOP - 4, CODE + 9)
    assert cpu.cs == CS32


TRANSFERS = {
    "jmp": (f"jmp {CS64}:long", "mov eax, ebx; push 0x23; lea rcx, [rip + back]; push rcx; .byte 0x48; retf"),
    "call": (
        f"call {CS64}:long",
        "mov eax, ebx; pop rcx; push 0x23; lea rcx, [rip + back]; push rcx; .byte 0x48; retf",
    ),
    "retf": (
        f"push {CS64}; push offset long; retf",
        "mov eax, ebx; push 0x2b; push 0x7f0000; pushf; push 0x23; lea rcx, [rip + back]; push rcx; iretq",
    ),
    "iret": (
        f"pushf; push {CS64}; push offset long; iret",
        (
            "mov eax, ebx; sub rsp, 8; mov dword ptr [rsp + 4], 0x23; lea rcx, [rip + back]; mov [rsp], ecx;"
            " .byte 0xff, 0x2c, 0x24"
        ),
    ),
}


@pytest.mark.parametrize("kind", TRANSFERS)
def test_the_guest_goes_to_64_bit_code_and_back_and_each_deadline_is_exact(kind):
    there, here = TRANSFERS[kind]
    source = (
        f"mov ebx, 77; {there}\n.code64\nlong: .byte 0x48; dec eax; {here}\n.code32\nback: .byte 0x48; dec eax; int3"
    )
    whole = start(source)
    assert whole.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert not whole.cpu.is_64bit
    assert whole.cpu.gpr[RAX] == 75
    trail = []
    stepped = start(source)
    while (came := stepped.cpu.step()) == StepExit():
        trail.append((stepped.cpu.count, stepped.cpu.rip, stepped.cpu.is_64bit, bytes(stepped.cpu.gpr.tobytes())))
    assert came == ExceptionExit(BP, software=True, length=1)
    assert [count for count, *_ in trail] == list(range(1, len(trail) + 1))
    assert stepped.cpu.count == whole.cpu.count == len(trail) + 1
    assert {is_64bit for _, _, is_64bit, _ in trail} == {True, False}
    for seen in trail:
        fresh = start(source)
        assert fresh.cpu.enter(seen[0]) == DeadlineExit()
        assert (fresh.cpu.count, fresh.cpu.rip, fresh.cpu.is_64bit, bytes(fresh.cpu.gpr.tobytes())) == seen


def test_the_same_bytes_at_one_address_are_run_in_both_modes_in_turn():
    # inc eax; dec eax; retf: in 64-bit code two REX prefixes of the return
    source = f"""
        mov edx, 3
    again:
        push {CS64}; push offset long
        call {CS32}:both
        retf
    .code64
    long:
        push {CS32}; lea rcx, [rip + back]; push rcx
        push {CS64}; lea rcx, [rip + next]; push rcx
        jmp both
    next:
        .byte 0x48
        retf
    .code32
    back:
        dec edx
        jnz again
        int3
    both:
        .byte 0x40, 0x48, 0xcb
    """
    made = start(source)
    made.cpu.gpr[RAX] = 1 << 40
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert made.cpu.gpr[RDX] == 0
    steps = start(source)
    while steps.cpu.step() == StepExit():
        pass
    assert steps.cpu.count == made.cpu.count
    assert steps.cpu.gpr[:].tobytes()[8:] == made.cpu.gpr[:].tobytes()[8:]


def test_the_trap_flag_steps_through_far_transfers():
    there, here = TRANSFERS["retf"]
    source = f"mov ebx, 7; {there}\n.code64\nlong: nop; {here}\n.code32\nback: nop; int3"
    plain, traced = start(source), start(source)
    places = []
    while plain.cpu.step() == StepExit():
        places.append(plain.cpu.rip)
    seen = []
    traced.cpu.rflags |= TF
    while (came := traced.run_to_end()).vector == DB:
        assert came.dr6 == 0x4000
        seen.append(traced.cpu.rip)
        traced.cpu.rflags |= TF
    assert came == ExceptionExit(BP, software=True, length=1)
    assert seen == places


@pytest.mark.parametrize(
    ("source", "came", "at", "count"),
    [
        ("nop; int 0x80", ExceptionExit(0x80, software=True, length=2), 3, 2),
        ("nop; into; int3", ExceptionExit(BP, software=True, length=1), 3, 3),
        ("mov al, 127; inc al; into; nop", ExceptionExit(OF, software=True, length=1), 5, 3),
        ("nop; sysenter", SysenterExit(), 1, 1),
        ("nop; syscall", ExceptionExit(UD), 1, 1),
        ("nop; .byte 0x0f, 0x07", ExceptionExit(UD), 1, 1),
        ("nop; ud2", ExceptionExit(UD), 1, 1),
        ("nop; .byte 0xc5, 0xf8, 0x77", ExceptionExit(UD), 1, 1),
        ("nop; .byte 0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc0", ExceptionExit(UD), 1, 1),
        ("nop; in al, 0x80", IoExit(0x80, 1, write=False), 1, 1),
        ("nop; hlt", ExceptionExit(GP), 1, 1),
        ("nop; mov eax, [0x123]", ExceptionExit(PF, 4, cr2=0x123), 1, 1),
        ("nop; aam 0", ExceptionExit(0), 1, 1),
        (
            "push cs; pop eax; daa; das; aaa; aas; salc; pusha; popa; int3".replace("salc", ".byte 0xd6"),
            ExceptionExit(BP, software=True, length=1),
            10,
            10,
        ),
        (
            f"jmp {CS16}:0x400000",
            EngineExit(f"a code segment that is neither of 64 bits nor flat and of 32 at {CODE:#x}"),
            0,
            1,
        ),
        (
            f"jmp {CS_HIGH}:0x400000",
            EngineExit(f"a code segment that is neither of 64 bits nor flat and of 32 at {CODE:#x}"),
            0,
            1,
        ),
        (
            "push 0x20202; push cs; push 0x400000; iret",
            EngineExit(f"iret in 32-bit code that loads the flag VM at {CODE + 11:#x}"),
            *(11, 3),
        ),
        ("nop; jmp 0x7b:0", ExceptionExit(GP, 0x78), 1, 1),
    ],
)
def test_exits_of_32_bit_code(source, came, at, count):
    made = start(source)
    assert made.run_to_end() == came
    assert (made.cpu.rip - CODE, made.cpu.count) == (at, count)


@pytest.mark.parametrize("code", [".byte 0x48; retf", "iretq"])
def test_a_transfer_to_32_bit_code_beyond_4_gib_faults_at_the_transfer(code):
    made = start(code, compat=False)
    stack = struct.pack("<5Q", CODE + (1 << 32), CS32, 0x246, STACK_TOP - 256, SS32)
    made.ram.write(made.ram.read_u64(made.pte_maddr(STACK_TOP - 4096)) & 0xFFFF_F000 | 0xF00, stack)
    made.cpu.gpr[RSP] = STACK_TOP - 256
    assert made.run_to_end() == ExceptionExit(GP)
    cpu = made.cpu
    assert (cpu.rip, cpu.gpr[RSP], cpu.is_64bit, cpu.count, cpu.cs) == (CODE, STACK_TOP - 256, True, 0, 0xE033)


@pytest.mark.parametrize("is_mapped_beyond", [False, True])
@pytest.mark.parametrize("inside", [1, 2, 3])
def test_code_that_runs_over_the_end_of_the_4_gib_begins_again_at_0(inside, is_mapped_beyond):
    """Whatever is mapped behind and wherever it is stopped; also when the end cuts its last instruction."""
    add = b"\x83\xc0\x10"
    last, rest = b"\x40" * 3 + add[:inside], add[inside:]

    def make() -> Guest:
        made = start("nop")
        made.ram.write(made.map(0xFFFF_F000, RX) + 4096 - len(last), last)
        made.ram.write(made.map(0, RX), b"\xcc" * len(rest) + b"\x40\x40\xcc")
        if is_mapped_beyond:
            made.ram.write(made.map(1 << 32, RX), rest + b"\x48" * 8 + b"\xcc")
        made.cpu.rip = (1 << 32) - len(last)
        return made

    whole, stepped = make(), make()
    came, trail = whole.run_to_end(), []
    while (ended := stepped.cpu.step()) == StepExit():
        trail.append((stepped.cpu.count, stepped.cpu.rip, stepped.cpu.gpr[RAX]))
    if rest and not is_mapped_beyond:
        assert came == ended == ExceptionExit(PF, 0x14, cr2=1 << 32)
    else:
        assert came == ended == ExceptionExit(BP, software=True, length=1)
        assert (whole.cpu.rip, whole.cpu.gpr[RAX]) == (len(rest) + 3, 3 + 16 + 2)
    assert (stepped.cpu.count, stepped.cpu.rip) == (whole.cpu.count, whole.cpu.rip)
    for seen in trail:
        part = make()
        assert part.cpu.enter(seen[0]) == DeadlineExit()
        assert (part.cpu.count, part.cpu.rip, part.cpu.gpr[RAX]) == seen


def test_segments_with_a_base():
    made = start(f"mov eax, {BASED}; mov ds, eax; mov ebx, [{DATA}]; mov gs, eax; mov ecx, es:[{DATA}]; int3")
    made.ram.write_u64(made.ram.read_u64(made.pte_maddr(DATA)) & 0xFFFF_F000, 11)
    made.ram.write_u64(made.ram.read_u64(made.pte_maddr(DATA + BASE)) & 0xFFFF_F000, 22)
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert (made.cpu.gpr[RBX], made.cpu.gpr[RCX]) == (22, 11)


def test_stop_points_are_between_the_instructions_of_32_bit_code():
    made = start("inc eax; inc eax; inc eax; inc eax; int3")
    made.cpu.stop_points.add(CODE + 2, None)
    assert made.run_to_end() == StopPointExit(CODE + 2)
    assert (made.cpu.count, made.cpu.gpr[RAX]) == (2, 2)
    assert made.cpu.step() == StepExit()
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)


def test_the_mode_is_saved_and_loaded_with_the_state():
    made = start("inc eax; inc eax; int3")
    assert made.cpu.step() == StepExit()
    saved = made.cpu.save()
    made.cpu.cs, made.cpu.ss, made.cpu.rip = 0xE033, 0xE02B, CODE
    assert made.cpu.is_64bit
    made.cpu.load(saved)
    assert not made.cpu.is_64bit
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert made.cpu.gpr[RAX] == 2


def test_writing_cs_goes_back_to_64_bit_code():
    made = start("inc eax; int3")
    assert made.cpu.step() == StepExit()
    made.cpu.cs = 0xE033
    made.ram.write(made.ram.read_u64(made.pte_maddr(CODE)) & 0xFFFF_F000, assemble("mov rax, r8; syscall"))
    made.cpu.rip, made.cpu.gpr[8] = CODE, ACROSS
    assert made.run_to_end() == SyscallExit()
    assert made.cpu.gpr[RAX] == ACROSS


def test_32_bit_code_that_modifies_itself():
    made = start(f"mov byte ptr [{CODE + 8}], 0x48; nop; inc eax; int3", rights=RWX)
    made.cpu.gpr[RAX] = 5
    assert made.run_to_end() == ExceptionExit(BP, software=True, length=1)
    assert (made.cpu.gpr[RAX], made.cpu.count) == (4, 4)
