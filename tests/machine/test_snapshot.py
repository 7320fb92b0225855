"""A snapshot brings RAM, CPU and time back, and costs what differs."""

from xdbg.machine.exits import DeadlineExit, SyscallExit
from xdbg.machine.registers import RAX
from xdbg.machine.snapshot import Snapshot

from .conftest import assemble


def test_the_same_run_follows_again(guest):
    machine = guest("again: inc r8; mov [0x600000 + r8 * 8], r8; rdtsc; add rbx, rax; push rbx; pop rdx; jmp again")
    machine.cpu.tsc_offset = 1000
    machine.cpu.enter(500)
    snapshot = Snapshot.take(machine.cpu)
    machine.cpu.enter(1500)
    first = machine.cpu.save(), bytes(machine.ram.buffer)
    machine.cpu.tsc_offset = 5
    machine.cpu.cr3 = machine.new_space()
    for _ in range(2):
        assert snapshot.restore(machine.cpu) >= 1
        assert (machine.cpu.count, machine.cpu.tsc_offset) == (500, 1000)
        assert machine.cpu.enter(1500) == DeadlineExit()
        assert (machine.cpu.save(), bytes(machine.ram.buffer)) == first


def test_only_pages_that_differ_are_copied(guest):
    machine = guest("mov [0x600000], rsp; syscall")
    snapshot = Snapshot.take(machine.cpu)
    assert snapshot.restore(machine.cpu) == 0
    assert machine.run_to_end() == SyscallExit()
    assert (
        snapshot.restore(machine.cpu) == 1 + 5
    )  # data; accessed and dirty bits in the tables: 4, 3, 2, two of level 1
    assert machine.ram.read_u64(65 << 12) == 0


def test_code_that_came_back_is_what_runs(guest):
    machine = guest("mov eax, 1; syscall; jmp _start")
    machine.run_to_end()
    snapshot = Snapshot.take(machine.cpu)
    machine.ram.write(64 << 12, assemble("mov eax, 2; syscall; jmp _start"))
    machine.run_to_end()
    assert machine.cpu.gpr[RAX] == 2
    snapshot.restore(machine.cpu)
    assert machine.run_to_end() == SyscallExit()
    assert machine.cpu.gpr[RAX] == 1
