"""The guest's own debug registers: DR0-DR3 as DR7 enables them."""

import pytest

from xdbg.abi.frames import Vaddr
from xdbg.machine.exits import DeadlineExit, ExceptionExit, StepExit, StopPointExit, SyscallExit, WatchExit
from xdbg.machine.registers import DR6_BS, RAX, RCX, RDI, RF, RSI, TF
from xdbg.machine.stoppoints import Access, Watch

from .conftest import CODE, DATA, RW, STACK_TOP, Guest, GuestMaker

EXECUTE, WRITE, READ_WRITE = 0, 1, 3
LENGTH_1, LENGTH_2, LENGTH_8, LENGTH_4 = range(4)
ALIAS = 0x68_0000

THREE_STORES = f"mov rdi, {DATA}; mov [rdi], eax; mov [rdi + 8], rax; mov [rdi + 16], al; syscall"


def dr7(*breakpoints: tuple[int, int], is_global: bool = False) -> int:
    """DR7 with breakpoint n as `(access, length)`, enabled locally or globally."""
    value = 0x400
    for number, (access, length) in enumerate(breakpoints):
        value |= (2 if is_global else 1) << 2 * number | (access | length << 2) << 16 + 4 * number
    return value


def break_at(made: Guest, *breakpoints: tuple[int, int, int]) -> None:
    addresses = [vaddr for vaddr, _, _ in breakpoints] + [0] * (4 - len(breakpoints))
    made.cpu.breakpoints.load(addresses, dr7(*((access, length) for _, access, length in breakpoints)))


def resume(made: Guest) -> None:
    made.cpu.rflags |= RF


@pytest.mark.parametrize("is_global", [False, True])
def test_a_breakpoint_for_execution_comes_before_its_instruction(guest: GuestMaker, is_global: bool):
    made = guest("inc rax; inc rax; inc rax; syscall")
    made.cpu.breakpoints.load([CODE + 3, 0, 0, 0], dr7((EXECUTE, 0), is_global=is_global))
    assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)
    assert (made.cpu.rip, made.cpu.gpr[RAX], made.cpu.count) == (CODE + 3, 1, 1)
    assert not made.cpu.rflags & RF


def test_rf_lets_the_instruction_at_a_breakpoint_run_once(guest: GuestMaker):
    made = guest("mov ecx, 3; 1: inc rax; dec ecx; jnz 1b; syscall")
    break_at(made, (CODE + 5, EXECUTE, LENGTH_1))
    for turn in range(3):
        assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)
        assert made.cpu.gpr[RAX] == turn
        resume(made)
    assert isinstance(made.run_to_end(), SyscallExit)
    assert not made.cpu.rflags & RF


def test_without_rf_the_same_breakpoint_comes_again(guest: GuestMaker):
    made = guest("inc rax; syscall")
    break_at(made, (CODE, EXECUTE, LENGTH_1))
    for _ in range(2):
        assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)


def test_rf_is_for_the_instruction_at_which_the_guest_is_entered_alone(guest: GuestMaker):
    made = guest("inc rax; inc rax; syscall")
    break_at(made, (CODE + 3, EXECUTE, LENGTH_1))
    resume(made)
    assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)
    assert made.cpu.gpr[RAX] == 1


def test_rf_stays_when_nothing_was_executed(guest: GuestMaker):
    made = guest("inc rax; syscall")
    made.cpu.stop_points.add(Vaddr(CODE), None)
    resume(made)
    assert made.run_to_end() == StopPointExit(Vaddr(CODE))
    assert made.cpu.rflags & RF
    assert made.cpu.step() == StepExit()
    assert not made.cpu.rflags & RF


def test_a_fault_leaves_rf_set_as_its_frame_has_it_and_a_trap_does_not(guest: GuestMaker):
    made = guest("int3; mov [0x1234000], eax")
    assert made.run_to_end() == ExceptionExit(3, software=True, length=1)
    assert not made.cpu.rflags & RF
    assert made.run_to_end().vector == 14  # type: ignore[union-attr]  # an ExceptionExit or a failure
    assert made.cpu.rflags & RF


def test_breakpoints_at_one_instruction_are_reported_together(guest: GuestMaker):
    made = guest("nop; syscall")
    break_at(made, (CODE + 1, EXECUTE, 0), (0, EXECUTE, 0), (CODE + 1, EXECUTE, 0))
    assert made.run_to_end() == ExceptionExit(1, dr6=5, before=True)


def test_a_breakpoint_inside_an_instruction_is_none(guest: GuestMaker):
    made = guest("mov eax, 1; syscall")
    break_at(made, (CODE + 1, EXECUTE, 0), (CODE + 4, EXECUTE, 0))
    assert isinstance(made.run_to_end(), SyscallExit)


def test_a_repeated_string_instruction_breaks_once(guest: GuestMaker):
    made = guest(f"mov rdi, {DATA}; mov ecx, 5; rep stosb; syscall")
    break_at(made, (CODE + 12, EXECUTE, 0))
    assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)
    resume(made)
    assert isinstance(made.run_to_end(), SyscallExit)


def test_a_breakpoint_where_no_code_is_comes_before_the_page_fault(guest: GuestMaker):
    made = guest("mov eax, 0x1234000; jmp rax")
    break_at(made, (0x1234000, EXECUTE, 0))
    assert made.run_to_end() == ExceptionExit(1, dr6=1, before=True)
    resume(made)
    assert made.run_to_end().vector == 14  # type: ignore[union-attr]  # an ExceptionExit or a failure


@pytest.mark.parametrize(
    ("length", "at", "hit"),
    [
        (LENGTH_1, DATA, 1),
        (LENGTH_1, DATA + 3, 1),
        (LENGTH_1, DATA + 4, None),
        (LENGTH_2, DATA + 5, None),
        (LENGTH_2, DATA + 3, 1),
        (LENGTH_4, DATA + 6, None),
        (LENGTH_4, DATA + 13, 2),
        (LENGTH_8, DATA + 17, 3),
        (LENGTH_8, DATA + 7, 1),
        (LENGTH_8, DATA + 24, None),
    ],
)
def test_a_store_that_touches_a_breakpoint_traps_behind_it(guest: GuestMaker, length: int, at: int, hit: int | None):
    made = guest(THREE_STORES)
    break_at(made, (at, WRITE, length))
    if hit is None:
        assert isinstance(made.run_to_end(), SyscallExit)
    else:
        assert made.run_to_end() == ExceptionExit(1, dr6=1)
        assert made.cpu.count == 1 + hit
        assert not made.cpu.rflags & RF
        while (came := made.run_to_end()) == ExceptionExit(1, dr6=1):
            assert hit == 1  # an 8-byte one covers the first store alone
        assert isinstance(came, SyscallExit)


def test_a_breakpoint_for_writes_lets_loads_pass_and_one_for_both_does_not(guest: GuestMaker):
    made = guest(f"mov eax, [{DATA}]; mov [{DATA}], eax; syscall")
    break_at(made, (DATA, WRITE, LENGTH_4), (DATA, READ_WRITE, LENGTH_4))
    assert made.run_to_end() == ExceptionExit(1, dr6=2)
    assert made.cpu.count == 1
    assert made.run_to_end() == ExceptionExit(1, dr6=3)
    assert made.cpu.count == 2


def test_an_access_through_another_address_of_the_frame_is_no_hit(guest: GuestMaker):
    made = guest(f"mov [{ALIAS}], eax; mov eax, [{ALIAS}]; mov [{DATA}], eax; syscall")
    made.map(ALIAS, RW, made.ram.read_u64(made.pte_maddr(DATA)) & ~0xFFF & (1 << 52) - 1)
    pte = made.ram.read_u64(made.pte_maddr(DATA))
    break_at(made, (DATA, READ_WRITE, LENGTH_8))
    assert made.run_to_end() == ExceptionExit(1, dr6=1)
    assert made.cpu.count == 3
    assert made.ram.read_u64(made.pte_maddr(DATA)) | 0x60 == pte | 0x60


def test_one_instruction_through_both_addresses_hits_at_the_breakpoints_own(guest: GuestMaker):
    made = guest(f"mov rsi, {ALIAS}; mov rdi, {DATA + 64}; movsb; mov rsi, {DATA}; movsb; syscall")
    made.map(ALIAS, RW, made.ram.read_u64(made.pte_maddr(DATA)) & ~0xFFF & (1 << 52) - 1)
    break_at(made, (DATA + 64, READ_WRITE, LENGTH_1), (DATA, READ_WRITE, LENGTH_1))
    assert made.run_to_end() == ExceptionExit(1, dr6=3)  # the page of both was used, and the bytes of both were
    assert made.run_to_end() == ExceptionExit(1, dr6=2)
    assert isinstance(made.run_to_end(), SyscallExit)


def test_each_iteration_that_touches_it_traps(guest: GuestMaker):
    made = guest(f"mov rdi, {DATA}; mov ecx, 16; rep stosw; syscall")
    break_at(made, (DATA + 8, WRITE, LENGTH_4))
    for left in (11, 10):
        assert made.run_to_end() == ExceptionExit(1, dr6=1)
        assert made.cpu.gpr[RCX] == left
    assert isinstance(made.run_to_end(), SyscallExit)
    assert made.cpu.gpr[RDI] == DATA + 32


def test_a_push_and_a_call_are_stores(guest: GuestMaker):
    made = guest("push rax; pop rax; call 1f; 1: syscall")
    break_at(made, (STACK_TOP - 8, WRITE, LENGTH_8))
    assert made.run_to_end() == ExceptionExit(1, dr6=1)
    assert made.run_to_end() == ExceptionExit(1, dr6=1)
    assert made.cpu.count == 3


def test_a_store_that_faults_is_no_hit(guest: GuestMaker):
    made = guest(f"mov [{DATA + 4092}], rax; syscall")
    break_at(made, (DATA + 4092, WRITE, LENGTH_4))
    assert made.run_to_end() == ExceptionExit(14, 6, cr2=Vaddr(DATA + 4096))
    assert made.cpu.count == 0
    made.map(DATA + 4096, RW)
    made.cpu.flush_tlb()
    assert made.run_to_end() == ExceptionExit(1, dr6=1)


def test_a_breakpoint_follows_its_address_into_another_address_space(guest: GuestMaker):
    made = guest(f"mov [{DATA}], eax; jmp {CODE}")
    other = made.new_space()
    code = made.ram.read_u64(made.pte_maddr(CODE))
    made.ram.write_u64(made.pte_maddr(CODE, other), code)
    made.map(DATA, RW, l4=other)
    break_at(made, (DATA, WRITE, LENGTH_4))
    for space in (made.l4, other, made.l4):
        made.cpu.cr3 = space
        assert made.run_to_end() == ExceptionExit(1, dr6=1)
    made.cpu.cr3 = other
    made.unmap(DATA)
    made.ram.write_u64(made.pte_maddr(DATA, other), 0)
    assert made.run_to_end() == ExceptionExit(14, 6, cr2=Vaddr(DATA))


def test_a_single_step_and_a_breakpoint_are_one_exception(guest: GuestMaker):
    made = guest(f"mov [{DATA}], eax; syscall")
    break_at(made, (DATA, WRITE, LENGTH_4))
    made.cpu.rflags |= TF
    assert made.run_to_end() == ExceptionExit(1, dr6=DR6_BS | 1)
    assert made.cpu.count == 1


def test_a_trap_of_a_load_of_ss_waits_for_the_next_instruction(guest: GuestMaker):
    made = guest(f"mov ss, [{DATA}]; inc rax; inc rax; syscall")
    gdt = made.map(ALIAS, RW)
    made.ram.write_u64(gdt + 8, 0x00CF_F300_0000_FFFF)
    made.cpu.set_gdt(Vaddr(ALIAS), 15)
    made.ram.write_u64(made.ram.read_u64(made.pte_maddr(DATA)) & 0xF_FFFF_F000, 8 | 3)
    break_at(made, (DATA, READ_WRITE, LENGTH_2))
    assert made.run_to_end() == ExceptionExit(1, dr6=1)
    assert (made.cpu.gpr[RAX], made.cpu.count) == (1, 2)


def test_a_debuggers_watch_and_the_guests_breakpoint_are_both_served(guest: GuestMaker):
    made = guest(THREE_STORES)
    maddr = made.ram.read_u64(made.pte_maddr(DATA)) & 0xF_FFFF_F000
    watch = Watch(maddr, 4, Access.WRITE)
    made.cpu.watches.add(watch)
    break_at(made, (DATA, WRITE, LENGTH_4))
    assert made.run_to_end() == WatchExit((watch,), maddr, 4, write=True, trap=ExceptionExit(1, dr6=1))
    made.cpu.watches.remove(watch)
    made.cpu.rip = CODE
    assert made.run_to_end() == ExceptionExit(1, dr6=1)


def test_a_watched_access_under_the_guests_own_single_step_is_reported(guest: GuestMaker):
    made = guest(THREE_STORES)
    maddr = made.ram.read_u64(made.pte_maddr(DATA)) & 0xF_FFFF_F000
    watch = Watch(maddr + 8, 8, Access.WRITE)
    made.cpu.watches.add(watch)
    made.cpu.rflags |= TF
    step = ExceptionExit(1, dr6=DR6_BS)
    assert [made.run_to_end() for _ in range(2)] == [step, step]
    assert made.run_to_end() == WatchExit((watch,), maddr + 8, 8, write=True, trap=step)


def test_a_debuggers_stop_point_comes_before_the_guests_breakpoint(guest: GuestMaker):
    made = guest("nop; syscall")
    made.cpu.stop_points.add(Vaddr(CODE + 1), None)
    break_at(made, (CODE + 1, EXECUTE, 0))
    assert made.run_to_end() == StopPointExit(Vaddr(CODE + 1))
    assert made.cpu.enter(100, skip_stop_point=True) == ExceptionExit(1, dr6=1, before=True)


def test_the_deadline_comes_before_the_breakpoint(guest: GuestMaker):
    made = guest("nop; syscall")
    break_at(made, (CODE + 1, EXECUTE, 0))
    assert made.cpu.enter(1) == DeadlineExit()
    assert made.cpu.enter(100) == ExceptionExit(1, dr6=1, before=True)


def test_disabled_breakpoints_are_none_and_nothing_stays_held(guest: GuestMaker):
    made = guest(f"1: mov [{DATA}], eax; nop; jmp 1b")
    break_at(made, (DATA, READ_WRITE, LENGTH_4), (CODE + 7, EXECUTE, 0))
    assert made.run_to_end() == ExceptionExit(1, dr6=1)
    made.cpu.breakpoints.load([DATA, CODE + 7, 0, 0], 0x400)
    assert made.run_to_end() == DeadlineExit()
    assert not made.cpu.breakpoints.has_data
    assert not made.cpu.watches.protected


def test_they_make_the_guest_compute_the_same(guest: GuestMaker):
    source = f"""
        mov rdi, {DATA}
        mov ecx, 50
    1:  mov [rdi + rcx * 8], rcx
        mov rax, [rdi + 80]
        lea rsi, [rdi + 72]
        movsq
        mov rdi, {DATA}
        loop 1b
        syscall
    """
    results = []
    for breakpoints in ((), ((DATA + 80, READ_WRITE, LENGTH_8), (DATA + 72, WRITE, LENGTH_4), (CODE + 12, EXECUTE, 0))):
        made = guest(source)
        break_at(made, *breakpoints)
        traps = 0
        while not isinstance(came := made.run_to_end(), SyscallExit):
            assert isinstance(came, ExceptionExit)
            assert came.vector == 1
            traps += 1
            if came.before:
                resume(made)
        assert bool(traps) is bool(breakpoints)
        maddr = made.ram.read_u64(made.pte_maddr(DATA)) & 0xF_FFFF_F000
        gpr = made.cpu.gpr
        results.append((made.cpu.count, gpr[RAX], gpr[RSI], gpr[RDI], made.ram.read(maddr, 4096)))
    assert results[0] == results[1]
