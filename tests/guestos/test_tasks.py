"""The profile of the guest `tasks`, over the memory of a kernel whose structures are laid out in an order of their own.

The test kernel is only compiled, never run: what it would have in memory is what its initialisers say.
"""

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.events import siginfo
from xdbg.guestos.bare import BareProfile
from xdbg.guestos.cpio import members
from xdbg.guestos.elf_file import PT_LOAD, ElfFile
from xdbg.guestos.events import KernelRegisters, SignalInfo, Signalled
from xdbg.guestos.profile import Profile, Vma
from xdbg.guestos.select import select_profile
from xdbg.guestos.structures import Structures
from xdbg.guestos.symbols import SymbolTable
from xdbg.guestos.tasks import TasksProfile
from xdbg.machine.paging import NotMappedError

KERNEL = """
typedef unsigned long uint64_t; typedef unsigned int uint32_t;
enum task_state { TASK_FREE, TASK_RUNNING, TASK_READY, TASK_ASLEEP = 5, TASK_ZOMBIE };
struct regs { uint64_t rip, cs, rflags, rsp, ss, rdi, rsi, rdx, rcx, rax, r8, r9, r10, r11, rbx, rbp, r12, r13, r14,
    r15; };
struct address_space { unsigned long user_l4, kernel_l4; };
struct auxv { uint64_t type, value; };
struct vma { char name[32]; uint64_t start, end; uint32_t prot, shared; uint64_t offset; };
struct task {
    uint64_t nr_vmas; struct vma vmas[3];
    int exit_status; enum task_state state; int pid;
    struct task *tracer, *parent;
    struct address_space space; struct regs regs;
    char path[32], name[16];
    uint64_t entry, load_base, nr_auxv; struct auxv auxv[4];
    char fpu[512] __attribute__((aligned(16)));
};
struct task tasks[6] = {
    [1] = { .pid = 7, .state = TASK_RUNNING, .name = "counter", .path = "/bin/counter", .parent = &tasks[4],
            .space = { 0x123, 0x124 }, .entry = 0x401000, .nr_vmas = 2,
            .vmas = { { "/bin/counter", 0x400000, 0x402000, 5, 1, 0 }, { "[stack]", 0x7ff000, 0x800000, 3, 0, 0 } },
            .nr_auxv = 2, .auxv = { { 9, 0x401000 }, { 0, 0 } },
            .regs = { .rax = 100, .rcx = 101, .rdx = 102, .rbx = 103, .rsp = 104, .rbp = 105, .rsi = 106, .rdi = 107,
                      .r8 = 108, .r9 = 109, .r10 = 110, .r11 = 111, .r12 = 112, .r13 = 113, .r14 = 114, .r15 = 115,
                      .rip = 0x401234, .rflags = 0x202, .cs = 0x1e033, .ss = 0xe02b },
            .fpu = "fxsave" },
    [2] = { .pid = 3, .state = TASK_ZOMBIE, .name = "gone", .path = "/bin/gone", .parent = &tasks[4], .space = { 9, 8 },
            .exit_status = -2, .nr_vmas = 1 },
    [4] = { .pid = 1, .state = TASK_ASLEEP, .name = "init", .path = "/bin/init", .space = { 0x223, 0x224 },
            .load_base = 0x555000, .tracer = &tasks[1] },
};
struct task *current = &tasks[1];
void _start(void) { for (;;); }
"""


class ImageMemory:
    """The memory of a kernel that has just been loaded: what is in its file."""

    def __init__(self, elf: bytes) -> None:
        self.data = {
            segment.vaddr: bytearray(bytes(segment.data).ljust(segment.size, b"\0"))
            for segment in ElfFile(elf).segments
            if segment.type == PT_LOAD
        }

    def place(self, vaddr: int, length: int) -> tuple[bytearray, int]:
        for start, data in self.data.items():
            if start <= vaddr and vaddr + length <= start + len(data):
                return data, vaddr - start
        raise NotMappedError(Vaddr(vaddr), 1, 0)

    def read_kernel(self, vaddr: Vaddr, length: int) -> bytes:
        data, at = self.place(vaddr, length)
        return bytes(data[at : at + length])

    def read(self, cr3: Maddr, vaddr: Vaddr, length: int) -> bytes:
        raise NotMappedError(Vaddr(vaddr), cr3, length)

    def write(self, vaddr: int, value: bytes) -> None:
        data, at = self.place(vaddr, len(value))
        data[at : at + len(value)] = value


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.c").write_text(KERNEL)
    flags = ["-g", "-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pie", "-Wl,--build-id=none"]
    subprocess.run(["gcc", *flags, "kernel.c", "-o", "kernel"], cwd=folder, check=True)
    return (folder / "kernel").read_bytes()


def newc(name: str, content: bytes, mode: int = 0o100644) -> bytes:
    fields = [1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


ARCHIVE = (
    newc("bin", b"", 0o40755)
    + newc("bin/counter", b"\x7fELF counter")
    + newc("./etc/odd", b"odd")
    + newc("TRAILER!!!", b"")
    + newc("behind", b"never")
)


def profile_over(memory: ImageMemory, elf: bytes) -> Profile:
    return select_profile("tasks.elf", elf, (ARCHIVE,), memory)


def test_processes_are_read_by_the_names_of_the_debug_information(elf: bytes) -> None:
    profile = profile_over(ImageMemory(elf), elf)
    assert profile.name == "tasks"
    init, gone, counter = profile.processes()
    assert (init.pid, init.name, init.state, init.parent_pid, init.traced_by) == (1, "init", "asleep", None, 7)
    assert (init.cr3, init.kernel_cr3, init.load_base) == (0x223000, 0x224000, 0x555000)
    assert (init.vcpu_id, init.vmas, init.auxv) == (None, (), b"")
    assert (gone.pid, gone.ended, gone.exit_status, gone.parent_pid) == (3, True, -2, 1)
    assert (gone.cr3, gone.kernel_cr3, gone.registers, gone.vmas) == (None, None, None, ())
    assert (counter.pid, counter.exec_path, counter.state, counter.vcpu_id) == (7, "/bin/counter", "running", 0)
    assert (counter.entry, counter.ended, counter.exit_status, counter.traced_by) == (0x401000, False, None, None)
    assert counter.auxv == struct.pack("<4Q", 9, 0x401000, 0, 0)
    assert counter.vmas == (
        Vma(Vaddr(0x400000), Vaddr(0x402000), 5, 0, "/bin/counter"),
        Vma(Vaddr(0x7FF000), Vaddr(0x800000), 3, 0, "[stack]"),
    )


def test_saved_registers_are_in_the_order_of_the_processor(elf: bytes) -> None:
    counter = profile_over(ImageMemory(elf), elf).process(7)
    assert counter is not None
    assert counter.registers is not None
    assert counter.registers.gpr == tuple(range(100, 116))
    assert (counter.registers.rip, counter.registers.rflags) == (0x401234, 0x202)
    assert (counter.registers.cs, counter.registers.ss) == (0xE033, 0xE02B)
    assert counter.registers.fpu == b"fxsave".ljust(512, b"\0")


def test_changed_registers_are_what_the_kernel_would_restore(elf: bytes) -> None:
    memory = ImageMemory(elf)
    profile = profile_over(memory, elf)
    before = profile.process(7)
    assert before is not None
    assert before.registers is not None
    wanted = replace(before.registers, gpr=tuple(range(200, 216)), rip=Vaddr(0x400777), fpu=b"\1" * 512)
    for vaddr, data in profile.register_writes(7, wanted):
        memory.write(vaddr, data)
    after = profile.process(7)
    assert after == replace(before, registers=wanted)
    assert profile.register_writes(3, wanted) == ()
    assert profile.register_writes(99, wanted) == ()


def test_only_a_running_task_is_current(elf: bytes) -> None:
    memory = ImageMemory(elf)
    symbols = SymbolTable.from_elf(elf)
    profile = profile_over(memory, elf)
    assert (profile.current_pid(0), profile.current_pid(1)) == (7, None)
    task_size = Structures.from_elf(elf).struct_layout("task").size
    memory.write(symbols.address("current"), struct.pack("<Q", symbols.address("tasks") + 4 * task_size))
    assert profile.current_pid(0) is None
    memory.write(symbols.address("current"), struct.pack("<Q", 0))
    assert profile.current_pid(0) is None


def test_files_are_the_kernel_and_the_members_of_the_module(elf: bytes) -> None:
    profile = profile_over(ImageMemory(elf), elf)
    assert profile.kernel_path == "/boot/tasks.elf"
    assert profile.file("/boot/tasks.elf") == elf
    assert profile.file("/bin/counter") == b"\x7fELF counter"
    assert profile.file("/etc/odd") == b"odd"
    for path in ("/bin", "/behind", "bin/counter", "/etc/passwd", "", "/"):
        assert profile.file(path) is None


@given(
    cut=st.integers(0, len(ARCHIVE)), place=st.integers(0, len(ARCHIVE) - 8), value=st.binary(min_size=1, max_size=8)
)
def test_a_damaged_archive_ends_at_the_damage(cut: int, place: int, value: bytes) -> None:
    data = bytearray(ARCHIVE)
    data[place : place + len(value)] = value
    del data[cut:]
    for member in members(bytes(data)):
        assert member.path.startswith("/")
        assert len(member.content) <= len(data)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), values=st.sampled_from([range(256), (0, 0, 0, 1, 2, 5), (0, 255)]))
def test_garbage_in_the_table_gives_fewer_processes_and_no_error(elf: bytes, seed: int, values: Sequence[int]) -> None:
    memory = ImageMemory(elf)
    table = SymbolTable.from_elf(elf).get("tasks")
    assert table is not None
    memory.write(table.address, bytes(Random(seed).choices(values, k=table.size)))
    profile = profile_over(memory, elf)
    pids = [process.pid for process in profile.processes()]
    assert pids == sorted(set(pids))
    assert all(0 < pid < 1 << 31 for pid in pids)


@pytest.fixture(scope="module")
def built() -> bytes:
    root = Path(__file__).resolve().parents[2]
    subprocess.run([root / "scripts" / "build-guests", "tasks"], check=True, capture_output=True)
    return (root / "build" / "guests" / "tasks.elf").read_bytes()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), values=st.sampled_from([range(256), (0, 0, 0, 1, 2, 5), (0, 255)]))
def test_garbage_in_the_kernel_makes_events_that_mean_nothing_and_no_error(
    built: bytes, seed: int, values: Sequence[int]
) -> None:
    memory = ImageMemory(built)
    symbols = SymbolTable.from_elf(built)
    random = Random(seed)
    for name in ("tasks", "kernel_stack"):
        symbol = symbols.get(name)
        assert symbol is not None
        memory.write(symbol.address, bytes(random.choices(values, k=symbol.size)))
    profile = profile_over(memory, built)
    size = Structures.from_elf(built).struct_layout("task").size
    tasks, stack = symbols.address("tasks"), symbols.address("kernel_stack")
    pointers = [0, 1, tasks, tasks + 3 * size, tasks + 7, stack + 64, stack + 4096, (1 << 64) - 1]
    memory.write(symbols.address("current"), struct.pack("<Q", tasks))
    for point in profile.event_points:
        gpr = tuple(random.choice(pointers) for _ in range(16))
        event = profile.event(KernelRegisters(gpr, point))
        if isinstance(event, Signalled):
            assert 0 < event.info.signal <= 64
            assert len(siginfo.encode(event.info)) == siginfo.SIZE
            assert profile.signal_writes(event, None)
    for process in profile.processes():
        for name in ("entry_syscall", "trap_common", "save", "regs_enter"):
            state = KernelRegisters((stack + 4096,) * 16, symbols.address(name))
            registers = profile.unsaved_registers(process.pid, state)
            if registers is not None:
                assert profile.unsaved_writes(process.pid, registers, state)[0]
        profile.send_writes(process.pid, SignalInfo(15))


def test_a_kernel_whose_memory_is_not_mapped_has_no_processes(elf: bytes) -> None:
    memory = ImageMemory(elf)
    memory.data.clear()
    profile = profile_over(memory, elf)
    assert profile.name == "tasks"
    assert profile.processes() == ()
    assert profile.current_pid(0) is None
    assert profile.process(7) is None


def test_without_debug_information_it_is_a_kernel_like_any_other(elf: bytes, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(elf)
    subprocess.run(["strip", "--strip-debug", tmp_path / "kernel"], check=True)
    stripped = (tmp_path / "kernel").read_bytes()
    memory = ImageMemory(stripped)
    profile = select_profile("kernel", stripped, (ARCHIVE,), memory)
    assert isinstance(profile, BareProfile)
    assert profile.file("/boot/kernel") == stripped
    assert profile.file("/bin/counter") is None
    assert (profile.processes(), profile.process(1), profile.current_pid(0)) == ((), None, None)


def test_another_structure_of_the_same_name_is_not_taken_for_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text(
        "enum task_state { A }; struct vma { int a; }; struct task { int id; } tasks[2]; void *current;"
        "void _start(void) {}"
    )
    flags = ["-g", "-static", "-nostdlib", "-ffreestanding", "-Wl,--build-id=none"]
    subprocess.run(["gcc", *flags, "other.c", "-o", "other"], cwd=tmp_path, check=True)
    elf = (tmp_path / "other").read_bytes()
    assert not isinstance(profile_over(ImageMemory(elf), elf), TasksProfile)


def test_what_is_no_elf_file_gets_the_bare_profile(elf: bytes) -> None:
    profile = select_profile("x", b"no kernel", (), ImageMemory(elf))
    assert profile.name == "bare"
