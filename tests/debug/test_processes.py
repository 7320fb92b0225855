"""Processes of the guest `tasks` as inferiors, beside its kernel."""

from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.registers import BY_NAME, RIP
from xdbg.rsp.replies import ExitReply, StopReply, SwBreak, WatchHit
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, TargetError, WatchKind
from xdbg.rsp.threadid import EVERY_THREAD, Thread, ThreadId

Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
SOFTWARE = BreakpointKind.SOFTWARE


class Tasks:
    """The guest, run until there are several processes of one program, and one of them attached."""

    def __init__(self, make: Make) -> None:
        self.guest = make("tasks")
        self.target = self.guest.target
        # Both counters exist when the second makes its first system call.
        self.guest.brk("syscall")
        while len(self.pids_of("counter")) < 2:
            assert isinstance(self.guest.cont(), StopReply)
        self.guest.clear("syscall")
        self.pid, self.other_pid = self.pids_of("counter")
        self.thread = Thread(self.pid, self.pid)
        self.other = Thread(self.other_pid, self.other_pid)
        self.symbols = SymbolTable.from_elf(self.target.profile.file("/bin/counter") or b"")

    def pids_of(self, program: str) -> list[int]:
        return [p.pid for p in self.target.profile.processes() if PurePosixPath(p.exec_path).name == program]

    def attach(self, *threads: Thread) -> None:
        for thread in threads or (self.thread,):
            stop = self.target.attach(thread.pid)
            assert (stop.signal, stop.thread) == (Signal.TRAP, thread)

    def at(self, name: str) -> int:
        return self.symbols.address(name)

    def name_of(self, rip: int) -> str:
        return self.symbols.describe(rip)

    def rip(self, thread: Thread) -> int:
        return int.from_bytes(self.target.read_register(thread, RIP), "little")

    def word(self, name: str, thread: Thread) -> int:
        return int.from_bytes(self.target.read_memory(thread, self.at(name), 4), "little")

    def cont(self, thread: Thread) -> object:
        return self.guest.cont(thread)


@pytest.fixture
def tasks(bundled: Make) -> Tasks:
    return Tasks(bundled)


def test_only_the_kernel_is_there_before_a_process_is_attached(tasks: Tasks) -> None:
    assert [info.thread for info in tasks.target.threads()] == [Thread(KERNEL_PID, 1)]
    tasks.attach()
    assert [info.thread for info in tasks.target.threads()] == [Thread(KERNEL_PID, 1), tasks.thread]
    assert tasks.target.threads()[1].name == "counter"
    assert tasks.target.is_alive(tasks.thread)
    tasks.target.detach(tasks.pid)
    assert not tasks.target.is_alive(tasks.thread)
    with pytest.raises(TargetError):
        tasks.target.read_registers(tasks.thread)


def test_what_can_not_be_attached(tasks: Tasks) -> None:
    tasks.attach()
    for pid in (tasks.pid, KERNEL_PID, 999, 0):
        with pytest.raises(TargetError):
            tasks.target.attach(pid)


def test_a_process_that_does_not_run_shows_its_saved_registers_and_its_own_memory(tasks: Tasks) -> None:
    tasks.attach(tasks.thread, tasks.other)
    processes = {p.pid: p for p in tasks.target.profile.processes()}
    for thread in (tasks.thread, tasks.other):
        saved = processes[thread.pid].registers
        assert saved is not None
        assert tasks.rip(thread) == saved.rip
        cr3 = tasks.target.read_register(thread, BY_NAME["cr3"].number)
        assert int.from_bytes(cr3, "little") == processes[thread.pid].cr3
        stack = tasks.target.read_memory(thread, saved.gpr[4], 8)
        assert len(stack) == 8
    total = tasks.at("total")
    tasks.target.write_memory(tasks.thread, total, (1234).to_bytes(4, "little"))
    assert tasks.word("total", tasks.thread) == 1234
    assert tasks.word("total", tasks.other) != 1234


def test_a_breakpoint_of_one_process_does_not_stop_another_with_the_same_text(tasks: Tasks) -> None:
    tasks.attach(tasks.thread, tasks.other)
    spaces = [tasks.target.inferiors.space(thread) for thread in (tasks.thread, tasks.other)]
    frames = {space.translate(tasks.at("compute")).maddr for space in spaces}
    assert len(frames) == 1, "they share the frame"
    tasks.target.insert_breakpoint(tasks.thread, SOFTWARE, tasks.at("compute"))
    rounds = 0
    while isinstance(stop := tasks.guest.cont(), StopReply):
        assert (stop.thread, stop.reasons) == (tasks.thread, (SwBreak(),))
        assert tasks.guest.rip == tasks.at("compute")
        rounds += 1
    assert rounds >= 30
    assert isinstance(stop, ExitReply)
    assert stop.pid == tasks.pid


def test_the_kernel_stops_in_every_process(tasks: Tasks) -> None:
    tasks.guest.brk(tasks.at("compute"))
    tables = set()
    for _ in range(40):
        stop = tasks.guest.cont()
        assert isinstance(stop, StopReply)
        assert stop.thread == tasks.guest.kernel
        tables.add(tasks.target.hv.cpu.cr3)
    assert len(tables) > 1


def test_stops_of_an_inferior_that_is_not_resumed_are_not_told(tasks: Tasks) -> None:
    tasks.attach()
    tasks.guest.brk("syscall")
    tasks.target.insert_breakpoint(tasks.thread, SOFTWARE, tasks.at("square"))
    stop = tasks.cont(tasks.thread)
    assert isinstance(stop, StopReply)
    assert stop.thread == tasks.thread
    stop = tasks.cont(tasks.guest.kernel)
    assert isinstance(stop, StopReply)
    assert (stop.thread, tasks.guest.where()) == (tasks.guest.kernel, "syscall")


def test_a_breakpoint_of_both_stops_the_one_in_whose_mode_the_guest_is(tasks: Tasks) -> None:
    tasks.attach()
    for thread in (tasks.guest.kernel, tasks.thread):
        tasks.target.insert_breakpoint(thread, SOFTWARE, tasks.at("square"))
        tasks.target.insert_breakpoint(thread, SOFTWARE, tasks.guest.at("syscall"))
    for _ in range(60):
        stop = tasks.guest.cont()
        assert isinstance(stop, StopReply)
        vcpu = tasks.target.domain.vcpus[0]
        expected = tasks.thread if tasks.target.inferiors.runs(vcpu, tasks.pid) else tasks.guest.kernel
        assert stop.thread == expected


def test_a_process_steps_in_user_mode_only(tasks: Tasks) -> None:
    tasks.attach()
    places = set()
    for _ in range(400):
        before = tasks.target.profile.process(tasks.pid)
        assert before is not None
        stop = tasks.guest.step(tasks.thread)
        assert (stop.thread, stop.signal, stop.reasons) == (tasks.thread, Signal.TRAP, ())
        assert not tasks.target.domain.vcpus[0].kernel_mode
        assert tasks.target.inferiors.runs(tasks.target.domain.vcpus[0], tasks.pid)
        places.add(tasks.name_of(tasks.guest.rip).partition("+")[0])
    assert len(places) > 2


def test_a_step_over_a_system_call_ends_behind_it_in_the_process(tasks: Tasks) -> None:
    tasks.attach()
    tasks.target.insert_breakpoint(tasks.thread, SOFTWARE, tasks.at("syscall"))
    assert isinstance(tasks.guest.cont(), StopReply)
    for _ in range(60):
        rip = tasks.guest.rip
        is_syscall = tasks.target.read_memory(tasks.thread, rip, 2) == b"\x0f\x05"
        tasks.guest.step(tasks.thread)
        if is_syscall:
            assert tasks.guest.rip == rip + 2
            return
    pytest.fail("there was no syscall instruction")


def test_steps_of_a_process_change_nothing_of_the_run(tasks: Tasks, bundled: Make) -> None:
    plain = bundled("tasks")
    plain.target.hv.run(10**12)
    tasks.attach()
    tasks.target.insert_breakpoint(tasks.thread, SOFTWARE, tasks.at("square"))
    turn = 0
    while isinstance(stop := tasks.guest.cont(), StopReply):
        turn += 1
        for _ in range(turn % 11):
            tasks.guest.step(tasks.thread)
    assert isinstance(stop, ExitReply)
    while stop != ExitReply(0, KERNEL_PID):
        stop = tasks.guest.cont()
    assert turn > 20
    assert tasks.guest.outcome() == plain.outcome()


def test_a_watch_of_a_process_sees_its_own_writes(tasks: Tasks) -> None:
    tasks.attach(tasks.thread, tasks.other)
    vaddr = tasks.at("total")
    tasks.target.insert_watchpoint(tasks.other, WatchKind.WRITE, vaddr, 4)
    last = tasks.word("total", tasks.other)
    for _ in range(20):
        stop = tasks.guest.cont()
        assert isinstance(stop, StopReply)
        assert (stop.thread, stop.reasons) == (tasks.other, (WatchHit(WatchKind.WRITE, vaddr),))
        assert tasks.word("total", tasks.other) > last
        last = tasks.word("total", tasks.other)


def test_registers_of_a_waiting_process_can_be_changed_and_count(tasks: Tasks) -> None:
    tasks.attach(tasks.other)
    thread = tasks.other
    assert tasks.target.inferiors.user_vcpu(thread.pid) is None
    number = BY_NAME["rbx"].number
    tasks.target.write_register(thread, number, (0x1234).to_bytes(8, "little"))
    assert tasks.target.read_register(thread, number) == (0x1234).to_bytes(8, "little")
    tasks.guest.step(thread)
    assert tasks.target.hv.cpu.gpr[3] == 0x1234
    with pytest.raises(TargetError):
        tasks.target.write_register(thread, BY_NAME["cs"].number, (0x33).to_bytes(4, "little"))


def test_floating_point_registers_of_a_process_are_its_own(tasks: Tasks) -> None:
    tasks.attach(tasks.thread, tasks.other)
    number = BY_NAME["xmm5"].number
    values = {tasks.thread: bytes(range(16)), tasks.other: bytes(range(16, 32))}
    for thread, value in values.items():
        tasks.target.write_register(thread, number, value)
    for thread, value in values.items():
        assert tasks.target.read_register(thread, number) == value
        tasks.guest.step(thread)
        assert tasks.target.read_register(thread, number) == value


def test_the_end_of_a_process_is_told_once_and_the_others_go_on(tasks: Tasks) -> None:
    tasks.attach(tasks.thread, tasks.other)
    ended = []
    while (stop := tasks.guest.cont()) != ExitReply(0, KERNEL_PID):
        assert isinstance(stop, ExitReply)
        ended.append(stop.pid)
        assert not tasks.target.is_alive(Thread(stop.pid or 0, stop.pid or 0))
    assert sorted(ended) == sorted([tasks.pid, tasks.other_pid])


def test_ctrl_c_is_told_for_what_runs_or_else_for_what_was_resumed(tasks: Tasks) -> None:
    tasks.attach()
    tasks.guest.resume(ResumeAction(ThreadId(tasks.pid, -1), ResumeKind.CONTINUE))
    tasks.target.interrupt()
    stop = tasks.guest.run()
    assert isinstance(stop, StopReply)
    assert (stop.signal, stop.thread) == (Signal.INT, tasks.thread)
    tasks.guest.resume(ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE))
    tasks.target.interrupt()
    stop = tasks.guest.run()
    assert isinstance(stop, StopReply)
    vcpu = tasks.target.domain.vcpus[0]
    assert stop.thread == (tasks.thread if tasks.target.inferiors.runs(vcpu, tasks.pid) else tasks.guest.kernel)


def test_programs_and_their_auxiliary_vectors_are_served(tasks: Tasks) -> None:
    tasks.attach()
    assert tasks.target.exec_file(KERNEL_PID) == tasks.target.profile.kernel_path
    path = tasks.target.exec_file(tasks.pid)
    assert path == "/bin/counter"
    file = tasks.target.open_file(tasks.pid, path)
    assert file.pread(4, 0) == b"\x7fELF"
    assert file.stat().size == len(file.pread(1 << 30, 0))
    auxv = tasks.target.auxv(tasks.thread)
    assert len(auxv) % 16 == 0
    assert auxv.endswith(bytes(16))
    for bad in (lambda: tasks.target.auxv(tasks.guest.kernel), lambda: tasks.target.exec_file(999)):
        with pytest.raises(TargetError):
            bad()


def test_proc_tells_of_a_process(tasks: Tasks) -> None:
    target = tasks.target
    folder = f"/proc/{tasks.pid}"

    def read(name: str) -> bytes:
        return target.open_file(0, f"{folder}/{name}").pread(1 << 20, 0)

    maps = read("maps").decode().splitlines()
    text = [line for line in maps if " r-xp " in line]
    assert text
    assert all(line.endswith("/bin/counter") for line in text)
    low, high = (int(part, 16) for part in text[0].split()[0].split("-"))
    assert low <= tasks.at("compute") < high
    assert any(line.endswith("[stack]") for line in maps)
    assert read("cmdline") == b"/bin/counter\0"
    assert read("stat").startswith(b"%d (counter) " % tasks.pid)
    assert len(read("stat").split()) == 52
    assert b"PPid:\t1\n" in read("status")
    assert read("comm") == b"counter\n"
    assert read("smaps").count(b"VmFlags:") == len(maps)
    assert target.read_link(0, f"{folder}/exe") == "/bin/counter"
    assert target.read_link(tasks.pid, "/proc/self/cwd") == "/"
    for path in (f"{folder}/exe", f"{folder}/mem", "/proc/999/maps", "/etc/passwd", "/bin/none", ""):
        with pytest.raises(TargetError):
            target.open_file(0, path)
    with pytest.raises(TargetError):
        target.read_link(0, "/bin/counter")


def test_proc_tells_of_the_kernel(tasks: Tasks) -> None:
    maps = tasks.target.open_file(0, f"/proc/{KERNEL_PID}/maps").pread(1 << 20, 0).decode().splitlines()
    ranges = [tuple(int(part, 16) for part in line.split()[0].split("-")) for line in maps]
    assert any(low <= tasks.guest.at("syscall") < high for low, high in ranges)
    assert tasks.target.read_link(0, f"/proc/{KERNEL_PID}/exe") == tasks.target.profile.kernel_path
