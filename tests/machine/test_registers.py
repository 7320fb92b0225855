"""Registers are the engine's own, exact at each exit; state goes out and in whole."""

import pickle
import struct

import pytest

from xdbg.machine.exits import ExceptionExit, SyscallExit
from xdbg.machine.registers import AF, CF, DF, IF, OF, PF, R15, RAX, RBX, RCX, SF, ZF, SelectorError

from .conftest import CODE, DATA

GDT = 65 << 12  # behind DATA


def descriptor(base: int = 0, limit: int = 0xFFFFF, access: int = 0xF3, flags: int = 0xC) -> bytes:
    """A segment descriptor: Intel SDM vol. 3, "Segment Descriptors"."""
    high = base & 0xFF00_0000 | flags << 20 | limit & 0xF_0000 | access << 8 | base >> 16 & 0xFF
    return struct.pack("<II", (base & 0xFFFF) << 16 | limit & 0xFFFF, high)


def test_a_new_cpu_is_all_zero_with_the_fpu_initialized(guest):
    cpu = guest("nop").cpu
    assert [*cpu.gpr[:4], *cpu.gpr[5:]] == [0] * 15
    assert (cpu.rflags, cpu.count, cpu.fs_base, cpu.gs_base) == (2, 0, 0, 0)
    assert (cpu.ds, cpu.es, cpu.fs, cpu.gs) == (0, 0, 0, 0)
    control, status, tags = struct.unpack_from("<HHB", cpu.read_fpu())
    assert (control, status, tags) == (0x37F, 0, 0)
    assert struct.unpack_from("<I", cpu.read_fpu(), 24) == (0x1F80,)


def test_general_registers_are_live_both_ways(guest):
    machine = guest("add rax, rbx; mov r15, -1; syscall")
    machine.cpu.gpr[RAX], machine.cpu.gpr[RBX] = 1 << 63, 5
    machine.run_to_end()
    assert (machine.cpu.gpr[RAX], machine.cpu.gpr[R15]) == ((1 << 63) + 5, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("xor eax, eax", ZF | PF),
        ("xor eax, eax; sub eax, 1", CF | PF | AF | SF),
        ("mov eax, 0x7fffffff; inc eax", PF | AF | SF | OF),
        ("mov al, 0x80; add al, al", CF | ZF | PF | OF),
        ("std", DF),
    ],
)
def test_flags_are_resolved_at_exits(guest, source, flags):
    machine = guest(f"{source}; syscall")
    machine.run_to_end()
    assert machine.cpu.rflags & (CF | PF | AF | ZF | SF | OF | DF) == flags


def test_flags_that_are_written_are_what_the_guest_has(guest):
    machine = guest("pushf; pop rax; setc bl; syscall")
    machine.cpu.rflags = CF | ZF | IF | DF | 2
    assert machine.cpu.rflags == CF | ZF | IF | DF | 2
    machine.run_to_end()
    assert (machine.cpu.gpr[RAX] & 0xFFF, machine.cpu.gpr[RBX]) == (CF | ZF | IF | DF | 2, 1)


def test_segment_bases_are_used(guest):
    machine = guest("mov rax, fs:[8]; mov rbx, gs:[0]; syscall")
    machine.ram.write(GDT, struct.pack("<QQ", 11, 22))
    machine.cpu.fs_base, machine.cpu.gs_base = DATA, DATA + 8
    assert machine.run_to_end() == SyscallExit()
    assert (machine.cpu.gpr[RAX], machine.cpu.gpr[RBX]) == (22, 22)


def test_loading_a_selector_reads_its_descriptor_as_the_instruction_does(guest):
    machine = guest("mov ecx, 0x1b; mov fs, ecx; mov rax, fs:[0]; syscall")
    machine.ram.write(GDT, bytes(24) + descriptor(DATA + 0x800))
    machine.ram.write_u64(GDT + 0x800, 77)
    machine.cpu.set_gdt(DATA, 31)
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.gpr[RAX] == 77
    hidden = bytes(machine.cpu.env.cast("B")[184 + 4 * 24 : 184 + 5 * 24])
    machine.cpu.gs = 0x1B
    assert (machine.cpu.gs, machine.cpu.gs_base) == (0x1B, DATA + 0x800)
    assert bytes(machine.cpu.env.cast("B")[184 + 5 * 24 : 184 + 6 * 24]) == hidden
    machine.cpu.gs = 0
    assert (machine.cpu.gs, machine.cpu.gs_base) == (0, 0)


@pytest.mark.parametrize(
    ("entry", "selector", "vector"),
    [
        (descriptor(), 0x23, 13),  # beyond the limit
        (descriptor(access=0x73), 0x1B, 11),
        (descriptor(access=0x93), 0x1B, 13),  # DPL 0
        (descriptor(access=0x92), 0x18, 13),  # and with RPL 0
        (descriptor(access=0xE2), 0x1B, 13),  # a system segment
        (descriptor(access=0xF9), 0x1B, 13),  # execute-only
        (descriptor(), 0x1F, 13),  # of an LDT that is not there
    ],
)
def test_a_bad_selector_is_refused_with_the_vector_of_the_instruction(guest, entry, selector, vector):
    machine = guest(f"mov ecx, {selector}; mov ds, ecx")
    machine.ram.write(GDT, bytes(24) + entry)
    machine.cpu.set_gdt(DATA, 31)
    with pytest.raises(SelectorError) as raised:
        machine.cpu.ds = selector
    assert machine.cpu.ds == 0
    assert (raised.value.vector, raised.value.error_code) == (vector, selector & 0xFFFC)
    assert machine.run_to_end() == ExceptionExit(vector, selector & 0xFFFC)


def test_a_descriptor_of_the_ldt_can_be_loaded(guest):
    machine = guest("mov ecx, 7; mov es, ecx; syscall")
    machine.ram.write(GDT, descriptor())
    machine.cpu.set_ldt(DATA, 7)
    assert machine.run_to_end() == SyscallExit()
    machine.cpu.ds = 7
    assert (machine.cpu.es, machine.cpu.ds) == (7, 7)


def test_the_fpu_image_is_what_fxsave_stores(guest):
    machine = guest("fld1; fldpi; fld1; fstp st; movq xmm3, rax; ldmxcsr [0x600400]; fxsave [0x600000]; syscall")
    machine.cpu.gpr[RAX] = 0x1122334455667788
    machine.ram.write_u32(GDT + 0x400, 0x9F80)
    machine.run_to_end()
    assert machine.cpu.read_fpu()[:416] == machine.ram.read(GDT, 416)


def test_an_fpu_image_that_is_written_is_what_fxrstor_would_load(guest):
    source = guest("fld1; fldpi; movq xmm3, rax; fxsave [0x600000]; syscall")
    source.cpu.gpr[RAX] = 0xABCD
    source.run_to_end()
    image = source.cpu.read_fpu()
    machine = guest("fstp qword ptr [0x600000]; fstp qword ptr [0x600008]; movq rax, xmm3; syscall")
    machine.cpu.write_fpu(image)
    assert machine.cpu.read_fpu() == image
    machine.run_to_end()
    assert struct.unpack("<dd", machine.ram.read(GDT, 16)) == (3.141592653589793, 1.0)
    assert machine.cpu.gpr[RAX] == 0xABCD
    with pytest.raises(ValueError, match="512"):
        machine.cpu.write_fpu(image[:-1])


def test_a_state_saved_and_loaded_goes_on_as_if_nothing_had_happened(guest):
    source = "mov ecx, 100; again: add rax, rcx; fld1; fstp st; cvtsi2sd xmm1, rcx; loop again; pushf; pop rbx; syscall"
    plain, machine = guest(source), guest(source)
    plain.run_to_end()
    machine.cpu.enter(237)
    state = pickle.loads(pickle.dumps(machine.cpu.save()))
    assert (state.rip, state.gpr["rcx"]) == (machine.cpu.rip, machine.cpu.gpr[RCX])
    other = guest(source)
    other.cpu.load(state)
    machine.cpu.load(plain.cpu.save())
    assert machine.cpu.save() == plain.cpu.save()
    machine.cpu.load(state)
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.save() == plain.cpu.save()
    assert other.run_to_end() == SyscallExit()
    assert other.cpu.save() == plain.cpu.save()


def test_a_state_holds_ts_and_cr2(guest):
    machine = guest("mov rax, [0x12345678]")
    machine.run_to_end()
    machine.cpu.cr0_ts = True
    state = machine.cpu.save()
    machine.cpu.cr0_ts = False
    machine.cpu.cr2 = 0
    machine.cpu.load(state)
    assert (machine.cpu.cr0_ts, machine.cpu.cr2, machine.cpu.rip) == (True, 0x1234_5678, CODE)
