"""What the bare engine does wrong, and that the CPU does not. Each engine test documents why a cure exists."""

import ctypes

import pytest

from xdbg.machine import clock, engine_state, exit_checks
from xdbg.machine.engine_state import EngineStateError
from xdbg.machine.exits import DeadlineExit, ExceptionExit, StepExit, StopPointExit, SyscallExit
from xdbg.machine.ram import Ram
from xdbg.machine.registers import DR6_BS, RAX, RBX, RDI, RSP, TF
from xdbg.machine.stoppoints import Access, Watch

from .conftest import CODE, DATA, FOREVER, RW, RWX, STACK_TOP, assemble

UNMAPPED = 0x1234_5000


class BareEngine:
    """The engine with one hook of ours that writes down the vectors it is called with."""

    def __init__(self) -> None:
        self.library = engine_state.load_library()
        self.ram = Ram(1 << 20)
        self.handle = engine_state.open_engine(self.library, self.ram)
        self.state = engine_state.locate(self.library, self.handle)
        engine_state.enter_long_mode(self.library, self.handle)
        for table in range(3):
            self.ram.write_u64(table << 12, (table + 1) << 12 | 7)
        self.ram.write_u64(3 << 12, 0x4007)
        engine_state.write_register(self.library, self.handle, 53, 0)
        hflags = ctypes.c_uint32.from_address(self.state.env + engine_state.HFLAGS)
        hflags.value |= 3
        self.vectors: list[int] = []
        self._hook = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)(self._interrupt)
        added = ctypes.c_void_p()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        self.library.uc_hook_add(self.handle, ctypes.byref(added), 1, self._hook, None, *everywhere)

    def _interrupt(self, _engine: int, vector: int, _data: int) -> None:
        self.vectors.append(vector)
        self.library.uc_emu_stop(self.handle)

    def run(self, code: bytes) -> None:
        self.ram.write(0x4000, code)
        self.start()

    def start(self) -> None:
        zero = ctypes.c_uint64(0)
        self.library.uc_emu_start(self.handle, zero, zero, zero, ctypes.c_size_t(0))

    def register(self, number: int) -> int:
        value = ctypes.c_uint64()
        self.library.uc_reg_read(self.handle, number, ctypes.byref(value))
        return value.value


def test_the_bare_engine_makes_a_second_page_fault_a_double_fault_and_loses_the_third():
    engine = BareEngine()
    code = assemble("mov rax, [0x12345000]")
    for _ in range(3):
        engine.run(code)
    assert engine.vectors == [14, 8]


def test_page_faults_and_protection_faults_in_a_row_keep_their_vectors(guest):
    machine = guest("mov rax, [0x12345000]; cli; hlt")
    for _ in range(5):
        machine.cpu.rip = CODE
        assert machine.run_to_end() == ExceptionExit(14, 4, cr2=UNMAPPED)
        for offset in (8, 9):
            machine.cpu.rip = CODE + offset
            assert machine.run_to_end() == ExceptionExit(13)


def test_the_bare_engine_runs_stale_code():
    engine = BareEngine()
    for value in (1, 2):
        engine.run(assemble(f"mov eax, {value}; int3"))
    assert engine.register(35) == 1


def test_the_bare_engine_faults_at_the_start_of_the_block_that_runs_into_an_unmapped_page():
    engine = BareEngine()
    engine.ram.write(0x4FF0, b"\x90" * 16)
    engine.run(assemble("jmp 0xff0", at=0))
    rip = ctypes.c_uint64.from_address(engine.state.env + engine_state.EIP).value
    assert engine.vectors == [14]
    assert rip == 0xFF0  # the nops there are not executed


@pytest.mark.parametrize("straddles", [True, False])
def test_running_on_into_an_unmapped_page_faults_at_the_exact_instruction(guest, straddles):
    start = 4096 - (7 if straddles else 9)  # of the inc; the mov begins four bytes behind it
    machine = guest(f".skip {start}, 0x90; inc ebx; nop; nop; mov eax, 1; nop")
    machine.unmap(CODE + 4096)
    machine.cpu.rip = CODE + start
    result = machine.run_to_end()
    assert result == ExceptionExit(14, 0x14, cr2=CODE + 4096)
    assert machine.cpu.gpr[RBX] == 1
    assert (machine.cpu.rip, machine.cpu.count) == ((CODE + start + 4, 3) if straddles else (CODE + 4096, 4))


def test_a_stop_point_before_a_fetch_fault_is_found_instruction_by_instruction(guest):
    machine = guest(".skip 4090, 0x90; inc ebx; inc ebx; inc ebx")
    machine.cpu.stop_points.add(CODE + 4092, None)
    machine.cpu.rip = CODE + 4088
    assert machine.run_to_end() == StopPointExit(CODE + 4092)
    assert machine.cpu.count == 3
    assert machine.cpu.enter(FOREVER, skip_stop_point=True) == ExceptionExit(14, 0x14, cr2=CODE + 4096)
    assert (machine.cpu.count, machine.cpu.gpr[RBX]) == (5, 3)


def test_the_guest_cr2_is_that_of_its_last_fault_whatever_the_engine_looked_up(guest):
    machine = guest("mov rax, [0x12345678]; nop; jmp _start")
    machine.run_to_end()
    machine.cpu.stop_points.add(0x777_7000, None)
    machine.ram.write(64 << 12, assemble("nop; nop; syscall"))
    machine.cpu.enter(machine.cpu.count + 1)
    assert machine.cpu.cr2 == UNMAPPED + 0x678


def test_each_instruction_under_the_guests_trap_flag_is_a_debug_exception(guest):
    machine = guest("push 0x102; popf; inc eax; jmp 1f; nop; 1: mov ecx, 2; rep stosb; nop")
    machine.cpu.gpr[RDI] = DATA
    machine.cpu.enter(2)
    seen = []
    for _ in range(6):
        assert machine.run_to_end() == ExceptionExit(1, dr6=DR6_BS)
        seen.append((machine.cpu.rip - CODE, machine.cpu.count))
    starts = [offset for offset, _ in seen]
    assert [count for _, count in seen][:3] == [3, 4, 5]
    assert starts[:3] == [8, 11, 16]
    assert machine.cpu.rflags & TF


def test_a_step_of_an_instruction_under_the_guests_trap_flag_is_its_debug_exception(guest):
    machine = guest("nop; nop")
    machine.cpu.rflags |= TF
    assert machine.cpu.step() == ExceptionExit(1, dr6=DR6_BS)
    assert (machine.cpu.count, machine.cpu.rip) == (1, CODE + 1)


def test_a_trap_flag_set_behind_a_system_call_lets_one_instruction_run(guest):
    machine = guest("syscall; inc eax; inc eax")
    machine.run_to_end()
    machine.cpu.rflags |= TF
    assert machine.run_to_end() == ExceptionExit(1, dr6=DR6_BS)
    assert (machine.cpu.rip - CODE, machine.cpu.gpr[RAX]) == (4, 1)


@pytest.mark.parametrize("source", ["syscall", "rdtsc", "cpuid"])
def test_a_trap_flag_over_an_instruction_that_leaves_the_engine(guest, source):
    machine = guest(f"{source}; nop")
    machine.cpu.rflags |= TF
    expected = SyscallExit() if source == "syscall" else ExceptionExit(1, dr6=DR6_BS)
    assert machine.run_to_end() == expected
    assert (machine.cpu.rip, machine.cpu.count) == (CODE + 2, 1)


def test_pushf_under_a_debuggers_step_does_not_show_the_trap_flag(guest):
    machine = guest("pushf; pop rax; popf; nop")
    for _ in range(2):
        assert machine.cpu.step() == StepExit()
    assert not machine.cpu.gpr[RAX] & TF


def test_a_read_modify_write_is_done_once_however_often_it_is_stopped(guest):
    machine = guest("again: lock inc qword ptr [0x600000]; inc rax; jmp again")
    for upto in range(7, 700, 7):
        assert machine.cpu.enter(upto) == DeadlineExit()
    assert machine.ram.read_u64(65 << 12) == (machine.cpu.count + 2) // 3


def test_no_access_hook_covers_a_frame_that_is_not_watched(guest):
    # The engine takes its slow path for each store to a page that such a hook covers.
    machine = guest("again: mov [0x600000], rax; jmp again")
    watch = Watch(65 << 12, 8, Access.WRITE)
    assert not machine.cpu.watches.protected
    machine.cpu.watches.add(watch)
    machine.cpu.step()
    assert machine.cpu.watches.protected == {65}
    machine.cpu.watches.remove(watch)
    for _ in range(100):
        machine.cpu.step()
    assert not machine.cpu.watches.protected


def test_selectors_of_cs_and_ss_are_values_only(guest):
    machine = guest("mov eax, cs; mov ebx, ss; syscall")
    machine.cpu.cs, machine.cpu.ss = 0xE030, 0x2B
    assert machine.run_to_end() == SyscallExit()
    assert (machine.cpu.gpr[RAX], machine.cpu.gpr[RBX]) == (0xE030, 0x2B)


def test_supervisor_pages_are_not_the_guests(guest):
    machine = guest("mov rax, [0x600000]")
    machine.map(DATA, RW & ~4)
    assert machine.run_to_end() == ExceptionExit(14, 5, cr2=DATA)


def test_another_version_of_the_engine_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(engine_state, "PINNED_VERSION", (9, 9, 9))
    with pytest.raises(EngineStateError, match=r"unicorn 9\.9\.9: found version 2\.1\.4"):
        engine_state.load_library()


def test_an_engine_with_another_layout_is_refused(monkeypatch):
    monkeypatch.setattr(engine_state, "CR", engine_state.CR + 8)
    with pytest.raises(EngineStateError, match="CR3 not where expected"):
        BareEngine()


def test_an_engine_that_does_not_stop_where_told_is_refused(monkeypatch, guest):
    real = clock.create

    def without_limits(*arguments: object) -> clock.Clock:
        made = real(*arguments)
        made.engine.cflags_next_tb = ctypes.addressof(made) + clock.Clock.translations.offset
        return made

    monkeypatch.setattr(clock, "create", without_limits)
    with pytest.raises(EngineStateError, match="a step"):
        guest("nop")


@pytest.mark.parametrize("dropped", [True, False])
def test_a_loop_that_is_one_block_stops_at_its_deadline_with_and_without_the_engines_own_checks(
    monkeypatch, guest, dropped
):
    if not dropped:
        monkeypatch.setattr(exit_checks, "drop_exit_checks", lambda *_: None)
    machine = guest("again: inc rax; jmp again")
    assert (machine.cpu._kept_for_the_engine is not None) == dropped
    assert machine.cpu.enter(1_000_001) == DeadlineExit()
    machine.cpu.stop_points.add(CODE, None)
    assert machine.cpu.enter(FOREVER) == StopPointExit(CODE)
    assert machine.cpu.count == 1_000_002


def test_many_entries_and_exits_leave_the_stack_of_the_engine_alone(guest):
    machine = guest("again: push rax; pop rbx; syscall; jmp again", rights=RWX)
    stale = machine.cpu.diagnostics.stale_blocks
    for _ in range(3000):
        assert machine.run_to_end() == SyscallExit()
        machine.ram.write(64 << 12, machine.ram.read(64 << 12, 64))
    assert machine.cpu.gpr[RSP] == STACK_TOP
    assert machine.cpu.diagnostics.stale_blocks == stale
