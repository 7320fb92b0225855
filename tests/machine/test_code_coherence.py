"""What runs is what RAM holds, however it got there."""

import pytest

from xdbg.machine import engine_state
from xdbg.machine.exits import DeadlineExit, SyscallExit
from xdbg.machine.registers import RAX, RBX

from .conftest import CODE, RW, RWX, RX, assemble

ALIAS = 0x7000_0000


def test_code_that_the_hypervisor_rewrites_runs_as_rewritten(guest):
    machine = guest("mov eax, 1; syscall; jmp _start")
    for value in (1, 2, 3, 2):
        machine.ram.write(64 << 12, assemble(f"mov eax, {value}; syscall; jmp _start"))
        machine.cpu.rip = CODE
        assert machine.run_to_end() == SyscallExit()
        assert machine.cpu.gpr[RAX] == value
    assert machine.cpu.count == 8


def test_a_rewrite_that_keeps_the_size_but_not_the_number_of_instructions_is_counted_right(guest):
    machine = guest("nop; nop; nop; nop; syscall")
    machine.run_to_end()
    assert machine.cpu.count == 5
    machine.ram.write(64 << 12, assemble(".byte 0x66, 0x66, 0x66, 0x90; syscall"))
    machine.cpu.rip = CODE
    machine.run_to_end()
    assert machine.cpu.count == 5 + 2


def test_a_store_through_a_writable_alias_is_seen_at_the_next_entry(guest):
    # rewrites the operand of the mov at 1, through the alias
    machine = guest("mov edi, 0x70000000; 1: mov eax, 0; syscall; inc ebx; mov [rdi + 6], ebx; jmp 1b")
    machine.map(ALIAS, RW, maddr=64 << 12)
    for value in range(5):
        assert machine.run_to_end() == SyscallExit()
        assert machine.cpu.gpr[RAX] == value


def test_a_store_through_an_alias_is_seen_behind_cpuid(guest):
    machine = guest(
        "mov esi, 0x70000000; xor edi, edi;"
        "again: inc edi; mov [rsi + 1f - _start + 1], edi; cpuid; 1: mov edx, 0; cmp edx, edi; jne 2f;"
        "cmp edi, 10; jne again; 2: syscall"
    )
    machine.map(ALIAS, RW, maddr=64 << 12)
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.gpr[7] == 10


def test_a_frame_that_is_executed_at_two_addresses_is_checked_at_both(guest):
    machine = guest("mov eax, 1; syscall")
    machine.map(ALIAS, RX, maddr=64 << 12)
    for address in (CODE, ALIAS):
        machine.cpu.rip = address
        machine.run_to_end()
    machine.ram.write(64 << 12, assemble("mov eax, 2; syscall"))
    for address in (ALIAS, CODE):
        machine.cpu.rip = address
        machine.run_to_end()
        assert machine.cpu.gpr[RAX] == 2


def test_a_block_that_crosses_into_a_rewritten_page_is_checked_there(guest):
    source = ".skip 4090, 0x90; mov eax, 1; mov eax, 1; mov ebx, 1; syscall"
    machine = guest(source)
    machine.cpu.rip = CODE + 4080
    machine.run_to_end()
    machine.ram.write(65 << 12, assemble(source.replace("1", "2"))[4096:])
    machine.cpu.rip = CODE + 4080
    machine.run_to_end()
    assert (machine.cpu.gpr[RBX], machine.cpu.count) == (2, 2 * 14)


def test_a_page_that_is_mapped_elsewhere_runs_the_new_frame(guest):
    machine = guest("mov eax, 1; syscall")
    machine.run_to_end()
    other = machine.map(CODE, RX)
    machine.ram.write(other, assemble("mov eax, 2; syscall"))
    machine.cpu.flush_tlb()
    machine.cpu.rip = CODE
    machine.run_to_end()
    assert machine.cpu.gpr[RAX] == 2


def test_self_modifying_code_on_one_page_is_seen_at_once_and_counted_exactly(guest):
    # the store changes the next instruction, in the same block: inc ebx (2 bytes) to nop; nop and back
    flip = 0x536F  # ff c3 ^ 90 90
    source = (
        f"xor ecx, ecx; again: xor word ptr [rip + 1f], {flip}; 1: inc ebx; inc ecx; cmp ecx, 10; jne again; syscall"
    )
    machine = guest(source, RWX)
    stepping = guest(source, RWX)
    assert machine.run_to_end() == SyscallExit()
    steps = 0
    while stepping.cpu.step() != SyscallExit():
        steps += 1
    assert stepping.cpu.count == machine.cpu.count == steps + 1
    assert stepping.cpu.save() == machine.cpu.save()
    assert machine.cpu.gpr[RBX] == 5


@pytest.mark.parametrize("slice_length", [1, 2, 3, 5, 7])
def test_self_modifying_code_in_slices_is_counted_exactly(guest, slice_length):
    # the store is in the middle of a block, and changes the number of instructions behind it
    source = (
        "xor ecx, ecx; again: inc ebx; xor word ptr [rip + 1f], 0xf6; inc edx; 1: .byte 0x66, 0x90; inc ecx;"
        "cmp ecx, 20; jne again; syscall"
    )
    whole, sliced = guest(source, RWX), guest(source, RWX)
    assert whole.run_to_end() == SyscallExit()
    while (result := sliced.cpu.enter(sliced.cpu.count + slice_length)) != SyscallExit():
        assert result == DeadlineExit()
    assert sliced.cpu.count == whole.cpu.count == 1 + 20 * 7 + 10 + 1
    assert sliced.cpu.save() == whole.cpu.save()


def test_when_the_store_of_known_blocks_is_full_all_are_made_anew(guest):
    functions = ";".join(f"fn{n}: inc eax; ret" for n in range(60))
    calls = ";".join(f"call fn{n}" for n in range(60))
    source = f"mov ecx, 5; again: {calls}; dec ecx; jnz again; syscall; {functions}"
    machine = guest(source)
    machine.cpu.diagnostics.code_limit = 2000
    for _ in range(3):
        machine.cpu.rip = CODE
        machine.cpu.gpr[RAX] = 0
        before = machine.cpu.count
        assert machine.run_to_end() == SyscallExit()
        assert (machine.cpu.gpr[RAX], machine.cpu.count - before) == (300, 1 + 5 * (60 * 3 + 2) + 1)


def test_when_the_engines_code_buffer_is_full_counting_goes_on(monkeypatch, guest):
    monkeypatch.setattr(engine_state, "_CODE_BUFFER", 1 << 20)
    functions = ";".join(f"fn{n}: mov eax, 1000; ret" for n in range(100))
    calls = ";".join(f"call fn{n}" for n in range(100))
    source = f"{calls}; syscall; {functions}"
    machine = guest(source)
    for value in range(1000, 1040):
        machine.ram.write(64 << 12, assemble(source).replace(b"\xe8\x03\x00\x00", value.to_bytes(4, "little")))
        machine.cpu.rip = CODE
        before = machine.cpu.count
        assert machine.cpu.enter(before + 150) == DeadlineExit()
        assert machine.run_to_end() == SyscallExit()
        assert (machine.cpu.gpr[RAX], machine.cpu.count - before) == (value, 301)


@pytest.mark.parametrize("padding", [0, 3])
def test_a_rep_that_overwrites_itself_is_counted_exactly(guest, padding):
    source = (
        f"mov eax, 0x90909090; lea rdi, [rip + 1f]; mov ecx, 3; .skip {padding}, 0x90; rep stosb;"
        "1: int3; int3; int3; syscall"
    )
    machine, stepping = guest(source, RWX), guest(source, RWX)
    assert machine.run_to_end() == SyscallExit()
    while stepping.cpu.step() != SyscallExit():
        pass
    assert machine.cpu.count == stepping.cpu.count == 3 + padding + 4 + 3 + 1


def test_a_loop_that_keeps_rewriting_a_function_on_its_page_is_counted_exactly(guest):
    source = (
        "mov ecx, 30; again: mov word ptr [rip + f], 0x9090; call f; mov word ptr [rip + f], 0x9066; call f;"
        "loop again; syscall; f: nop; nop; ret"
    )
    machine, stepping = guest(source, RWX), guest(source, RWX)
    assert machine.run_to_end() == SyscallExit()
    while stepping.cpu.step() != SyscallExit():
        pass
    assert machine.cpu.count == stepping.cpu.count == 1 + 30 * (5 + 3 + 2) + 1


def test_a_hot_loop_is_checked_once_an_entry(guest):
    machine = guest("again: inc rax; jmp again")
    machine.cpu.enter(100)
    before = machine.cpu.diagnostics.slow_blocks
    assert machine.cpu.enter(100_000) == DeadlineExit()
    assert machine.cpu.diagnostics.slow_blocks - before <= 4
