"""A watch stops behind the instruction that touched its bytes, whatever kind of access it was, and changes nothing
else."""

import pytest

from xdbg.machine.exits import DeadlineExit, ExceptionExit, StepExit, SyscallExit, WatchExit
from xdbg.machine.protection import MAX_RUNS
from xdbg.machine.registers import RAX, RCX, RDI
from xdbg.machine.stoppoints import Access, Watch

from .conftest import CODE, DATA, FOREVER, RW, RWX, Guest, R, assemble

FRAME = 65 << 12  # behind DATA
NEXT = 80 << 12  # behind the page after DATA
SETUP = "mov rdi, 0x600000; mov rsi, 0x600800; mov rax, 0x1122334455667788; mov ecx, 3; nop;"
SETUP_COUNT = 5

WRITES = [
    # (instruction, offset of the first byte written, number of bytes)
    ("mov [rdi + 8], rax", 8, 8),
    ("mov [rdi + 8], eax", 8, 4),
    ("mov [rdi + 8], ax", 8, 2),
    ("mov [rdi + 8], al", 8, 1),
    ("mov [rdi + 13], rax", 13, 8),
    ("mov [rdi + 4091], rax", 4091, 8),
    ("mov [rdi + 4095], ax", 4095, 2),
    ("add [rdi + 8], rax", 8, 8),
    ("add [rdi + 4093], rax", 4093, 8),
    ("inc dword ptr [rdi + 8]", 8, 4),
    ("xchg [rdi + 8], rax", 8, 8),
    ("lock xadd [rdi + 8], rax", 8, 8),
    ("lock cmpxchg [rdi + 8], rax", 8, 8),
    ("lea rsp, [rdi + 16]; push rax", 8, 8),
    ("lea rsp, [rdi + 16]; call 1f; 1:", 8, 8),
    ("lea rsp, [rdi + 16]; pushf", 8, 8),
    ("mov [rdi], rax; lea rsp, [rdi]; pop qword ptr [rdi + 8]", 8, 8),
    ("movups [rdi + 8], xmm0", 8, 16),
    ("movaps [rdi + 16], xmm0", 16, 16),
    ("movups [rdi + 4090], xmm0", 4090, 16),
    ("lea rbx, [rdi + 16]; cmpxchg16b [rbx]", 16, 16),
    ("fxsave [rdi + 16]", 16, 28),
    ("fnstenv [rdi + 16]", 16, 28),
    ("fnsave [rdi + 16]", 16, 108),
    ("fld1; fstp tbyte ptr [rdi + 16]", 16, 10),
    ("fld1; fistp qword ptr [rdi + 16]", 16, 8),
    ("movsq", 0, 8),
    ("stosd", 0, 4),
    ("bts dword ptr [rdi + 8], 3", 8, 4),
    ("sete [rdi + 8]", 8, 1),
    ("shl qword ptr [rdi + 8], 3", 8, 8),
    ("stmxcsr [rdi + 8]", 8, 4),
    ("maskmovdqu xmm1, xmm1", 0, 1),
]


def watched_machine(guest, source: str) -> Guest:
    machine = guest(f"{SETUP} {source}; inc r15; syscall")
    machine.map(DATA + 4096, RW, maddr=NEXT)
    machine.ram.write(FRAME, bytes(range(256)) * 16)
    machine.ram.write(NEXT, bytes(range(256)) * 16)
    machine.cpu.write_fpu(machine.cpu.read_fpu()[:160] + b"\x80" * 32 + machine.cpu.read_fpu()[192:])
    return machine


def maddr_of(offset: int) -> int:
    return FRAME + offset if offset < 4096 else NEXT + offset - 4096


@pytest.mark.parametrize(("source", "first", "length"), WRITES)
@pytest.mark.parametrize("which", ["first", "last"])
def test_a_store_of_any_kind_stops_behind_it(guest, source, first, length, which):
    plain = watched_machine(guest, source)
    assert plain.run_to_end() == SyscallExit()
    machine = watched_machine(guest, source)
    offset = first if which == "first" else first + length - 1
    watch = Watch(maddr_of(offset), 1, Access.WRITE, owner=7)
    machine.cpu.watches.add(watch)
    result = machine.run_to_end()
    assert isinstance(result, WatchExit)
    assert (result.watches, result.write) == ((watch,), True)
    assert result.maddr == watch.maddr
    assert machine.cpu.count == plain.cpu.count - 2
    assert machine.cpu.gpr[15] == 0
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.save() == plain.cpu.save()
    assert (machine.cpu.count, machine.ram.buffer == plain.ram.buffer) == (plain.cpu.count, True)


@pytest.mark.parametrize(("source", "first", "length"), WRITES)
def test_a_store_to_other_bytes_of_the_page_does_not_stop(guest, source, first, length):
    plain = watched_machine(guest, source)
    assert plain.run_to_end() == SyscallExit()
    machine = watched_machine(guest, source)
    machine.cpu.watches.add(Watch(FRAME + 3000, 8, Access.WRITE))
    machine.cpu.watches.add(Watch(NEXT + 3000, 8, Access.WRITE))
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.save() == plain.cpu.save()
    assert (machine.cpu.count, machine.ram.buffer == plain.ram.buffer) == (plain.cpu.count, True)


READS = [
    ("mov rbx, [rdi + 8]", 8, 8),
    ("mov rbx, [rdi + 13]", 13, 8),
    ("mov rbx, [rdi + 4091]", 4091, 8),
    ("cmp [rdi + 8], al", 8, 1),
    ("add [rdi + 8], rax", 8, 8),
    ("lea rsp, [rdi + 8]; pop rbx", 8, 8),
    ("push qword ptr [rdi + 8]", 8, 8),
    ("mov rbx, [rdi + 2000]; mov rbx, [rdi + 8]", 8, 8),
    ("movups xmm0, [rdi + 4090]", 4090, 16),
    ("fld tbyte ptr [rdi + 16]", 16, 10),
    ("mov rdi, 0x600800; mov rsi, 0x600000; movsq", 0, 8),
    ("mov rsi, 0x600000; lodsd", 0, 4),
    ("fxrstor [rdi + 16]", 16, 2),
]


@pytest.mark.parametrize(("source", "first", "length"), READS)
@pytest.mark.parametrize("which", ["first", "last"])
def test_a_load_of_any_kind_stops_behind_it(guest, source, first, length, which):
    plain = watched_machine(guest, source)
    plain_result = plain.run_to_end()
    machine = watched_machine(guest, source)
    offset = first if which == "first" else first + length - 1
    watch = Watch(maddr_of(offset), 1, Access.READ)
    machine.cpu.watches.add(watch)
    result = machine.run_to_end()
    assert isinstance(result, WatchExit)
    assert (result.watches, result.write, result.maddr) == ((watch,), False, watch.maddr)
    assert machine.cpu.count == plain.cpu.count - 2
    assert machine.run_to_end() == plain_result
    assert machine.cpu.save() == plain.cpu.save()
    assert (machine.cpu.count, machine.ram.buffer == plain.ram.buffer) == (plain.cpu.count, True)


def test_each_iteration_of_a_repeated_string_instruction_can_hit(guest):
    machine = watched_machine(guest, "rep stosq")
    machine.cpu.watches.add(Watch(FRAME + 8, 16, Access.WRITE))
    for iteration in (2, 3):
        result = machine.run_to_end()
        assert isinstance(result, WatchExit)
        assert (result.maddr, result.size) == (FRAME + 8 * (iteration - 1), 8)
        assert (machine.cpu.gpr[RCX], machine.cpu.gpr[RDI]) == (3 - iteration, DATA + 8 * iteration)
        assert machine.cpu.count == SETUP_COUNT + iteration
    assert machine.run_to_end() == SyscallExit()


def test_an_exit_names_all_watches_hit_in_order_and_only_those(guest):
    machine = watched_machine(guest, "mov [rdi + 8], rax")
    first, second = Watch(FRAME + 12, 1, Access.WRITE, 1), Watch(FRAME + 8, 2, Access.READ | Access.WRITE, 2)
    for watch in (Watch(FRAME + 7, 1, Access.WRITE), first, Watch(FRAME + 8, 8, Access.READ), second):
        machine.cpu.watches.add(watch)
    result = machine.run_to_end()
    assert isinstance(result, WatchExit)
    assert (result.watches, result.maddr, result.size, result.write) == ((first, second), FRAME + 8, 8, True)


def test_a_store_of_the_same_value_hits(guest):
    machine = watched_machine(guest, "mov al, [rdi + 8]; mov [rdi + 8], al")
    machine.cpu.watches.add(Watch(FRAME + 8, 1, Access.WRITE))
    assert isinstance(machine.run_to_end(), WatchExit)


def test_a_watch_holds_for_every_mapping_of_the_frame(guest):
    machine = watched_machine(guest, "mov rdi, 0x70000000; mov [rdi + 8], rax")
    machine.map(0x7000_0000, RW, maddr=FRAME)
    machine.cpu.watches.add(Watch(FRAME + 8, 1, Access.WRITE))
    assert isinstance(machine.run_to_end(), WatchExit)


def test_a_store_that_faults_is_a_fault_and_no_hit(guest):
    machine = watched_machine(guest, "mov [rdi + 4094], rax")
    machine.map(DATA + 4096, R, maddr=NEXT)
    machine.cpu.watches.add(Watch(FRAME + 4094, 2, Access.WRITE))
    assert machine.run_to_end() == ExceptionExit(14, 7, cr2=DATA + 4096)
    assert machine.cpu.count == SETUP_COUNT
    machine.map(DATA + 4096, RW, maddr=NEXT)
    assert isinstance(machine.run_to_end(), WatchExit)
    assert machine.cpu.count == SETUP_COUNT + 1


def test_a_step_can_hit_and_a_removed_watch_is_gone(guest):
    machine = watched_machine(guest, "mov [rdi + 8], rax; mov [rdi + 8], rax; mov [rdi + 8], rax")
    watch = Watch(FRAME + 8, 1, Access.WRITE)
    machine.cpu.watches.add(watch)
    assert machine.cpu.enter(SETUP_COUNT) == DeadlineExit()
    assert isinstance(machine.cpu.step(), WatchExit)
    machine.cpu.watches.remove(watch)
    assert machine.cpu.step() == StepExit()
    assert machine.run_to_end() == SyscallExit()


def test_the_instruction_of_a_hit_at_the_deadline_is_still_reported(guest):
    machine = watched_machine(guest, "mov [rdi + 8], rax")
    machine.cpu.watches.add(Watch(FRAME + 8, 1, Access.WRITE))
    assert machine.cpu.enter(SETUP_COUNT) == DeadlineExit()
    assert isinstance(machine.cpu.enter(SETUP_COUNT + 1), WatchExit)
    assert machine.cpu.enter(SETUP_COUNT + 1) == DeadlineExit()


def test_the_guest_sees_nothing_of_a_watch_in_its_page_tables(guest):
    machine = watched_machine(guest, "mov [rdi + 8], rax")
    before = machine.ram.read_u64(machine.pte_maddr(DATA))
    machine.cpu.watches.add(Watch(FRAME + 8, 1, Access.READ | Access.WRITE))
    machine.run_to_end()
    machine.run_to_end()
    assert machine.ram.read_u64(machine.pte_maddr(DATA)) == before | 0x60  # accessed, dirty


def test_a_watch_on_a_page_table_does_not_keep_the_walk_from_setting_accessed_and_dirty(guest):
    machine = guest("mov rax, [0x600000]; mov [0x600000], rax; syscall")
    pte = machine.pte_maddr(DATA)
    machine.cpu.watches.add(Watch(pte, 8, Access.READ | Access.WRITE))
    assert machine.run_to_end() == SyscallExit()
    assert machine.ram.read_u64(pte) & 0x60 == 0x60
    machine.cpu.watches.clear()
    for _ in range(100):
        machine.cpu.rip = CODE
        assert machine.run_to_end() == SyscallExit()


def test_a_read_of_data_on_a_page_of_code_hits_though_code_is_fetched_from_it(guest):
    source = "mov ecx, 3; again: call f; loop again; syscall; f: mov rax, [rip + data]; ret; data: .quad 5"
    machine = guest(source)
    data = (64 << 12) + len(assemble(source)) - 8
    machine.cpu.watches.add(Watch(data, 8, Access.READ))
    for _ in range(3):
        assert isinstance(machine.run_to_end(), WatchExit)
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.count == 1 + 3 * 4 + 1


def test_a_read_behind_a_store_to_the_page_hits(guest):
    machine = watched_machine(guest, "mov [rdi + 8], rax; mov rbx, [rdi + 16]")
    machine.cpu.watches.add(Watch(FRAME + 16, 8, Access.READ))
    assert isinstance(machine.run_to_end(), WatchExit)
    assert machine.run_to_end() == SyscallExit()


def test_code_on_a_watched_page_can_modify_itself(guest):
    source = (
        "xor ecx, ecx; again: xor word ptr [rip + 1f], 0x536f; 1: inc ebx; inc ecx; cmp ecx, 10; jne again; syscall;"
        ".balign 64; .quad 0"
    )
    plain, machine = guest(source, RWX), guest(source, RWX)
    machine.cpu.watches.add(Watch((64 << 12) + 2048, 8, Access.WRITE))
    assert plain.run_to_end() == SyscallExit()
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.save() == plain.cpu.save()
    assert machine.cpu.count == plain.cpu.count


def test_watches_in_many_places_come_and_go(guest):
    machine = guest("again: mov [rdi], rax; inc rax; jmp again")
    pages = [machine.map(0x7000_0000 + page * 4096, RW) for page in range(40)]
    for maddr in pages * 2:
        machine.cpu.gpr[RDI] = 0x7000_0000 + pages.index(maddr) * 4096 + 16
        watch = Watch(maddr + 16, 8, Access.WRITE)
        machine.cpu.watches.add(watch)
        assert isinstance(machine.cpu.enter(FOREVER), WatchExit)
        machine.cpu.watches.remove(watch)
        assert machine.cpu.enter(machine.cpu.count + 30) == DeadlineExit()
        assert machine.ram.read_u64(maddr + 16) == machine.cpu.gpr[RAX] - (machine.cpu.rip == CODE)


def test_stores_made_by_the_hypervisor_are_found_by_their_range(guest):
    watches = guest("nop").cpu.watches
    low, high = Watch(FRAME, 8, Access.WRITE), Watch(FRAME + 8, 8, Access.READ)
    watches.add(low)
    watches.add(high)
    assert watches.overlapping(FRAME + 7, 1) == (low,)
    assert watches.overlapping(FRAME + 7, 2) == (low, high)
    assert watches.overlapping(FRAME + 16, 8) == ()


@pytest.mark.parametrize("access", [Access.WRITE, Access.READ | Access.WRITE])
def test_of_more_frames_than_are_told_apart_each_still_stops_and_what_lies_between_does_not(guest, access):
    machine = guest("again: mov [rdi], rax; mov rbx, [rdi]; inc rax; jmp again", size=4 << 20)
    cpu = machine.cpu
    pages = [machine.map(0x7000_0000 + page * 4096, RW) for page in range(3 * MAX_RUNS)]
    watches = [Watch(maddr + 16, 8, access) for maddr in pages[::2]]
    for watch in watches:
        cpu.watches.add(watch)
    for page in (0, 1, 2, 99, 100, 3 * MAX_RUNS - 2, 3 * MAX_RUNS - 1):
        for offset, stops in ((16, page % 2 == 0), (64, False)):
            cpu.rip, cpu.gpr[RDI] = CODE, 0x7000_0000 + page * 4096 + offset
            for turn in range(3):
                came = cpu.enter(cpu.count + 4)
                if stops:
                    assert came == WatchExit((Watch(pages[page] + 16, 8, access),), pages[page] + 16, 8, write=True)
                    cpu.rip = CODE
                else:
                    assert came == DeadlineExit(), turn
                assert machine.ram.read_u64(pages[page] + offset) <= cpu.gpr[RAX]
    held = len(cpu.watches.protected)
    assert held > len(watches)
    for _ in range(2):  # from one set of frames to quite another and back: the engine's regions don't pile up
        for parity in (1, 0):
            cpu.watches.clear()
            cpu.watches.add(watch := Watch(pages[100 + parity] + 16, 8, access))
            for maddr in pages[parity::2]:
                cpu.watches.add(Watch(maddr + 1024, 8, access))
            cpu.rip, cpu.gpr[RDI] = CODE, 0x7000_0000 + (100 + parity) * 4096 + 16
            assert cpu.enter(cpu.count + 4) == WatchExit((watch,), watch.maddr, 8, write=True)
    cpu.watches.clear()
    cpu.rip = CODE
    for _ in range(100):
        cpu.enter(cpu.count + 4)
    assert not cpu.watches.protected


def test_overlapping_watches_are_all_found_however_long_one_is(guest):
    machine = watched_machine(guest, "mov [rdi + 2000], al")
    long = Watch(FRAME, 4000, Access.WRITE, owner=1)
    others = [Watch(FRAME + at, 1, Access.WRITE, owner=2) for at in range(0, 3000, 8)]
    for watch in (*others, long):
        machine.cpu.watches.add(watch)
    result = machine.run_to_end()
    assert isinstance(result, WatchExit)
    assert result.watches == (Watch(FRAME + 2000, 1, Access.WRITE, owner=2), long)


def test_the_second_half_of_a_load_of_16_bytes_is_seen(guest):
    made = guest(f"movups xmm0, [{DATA}]; movsd xmm0, [{DATA}]; ucomisd xmm0, [{DATA}]; syscall")
    maddr = made.ram.read_u64(made.pte_maddr(DATA)) & 0xF_FFFF_F000
    watch = Watch(maddr + 8, 8, Access.READ)
    made.cpu.watches.add(watch)
    assert made.run_to_end() == WatchExit((watch,), maddr + 8, 8, write=False)
    assert made.cpu.count == 1
    assert isinstance(made.run_to_end(), SyscallExit)
