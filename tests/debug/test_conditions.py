"""Conditions in the engine: the same decisions as the evaluator's, where there is a predicate at all."""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pytest

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.points.conditions import GPR_OF, MAX_STEPS, Placement, predicate_for
from xdbg.guestos.symbols import SymbolTable
from xdbg.machine.cpu import Cpu
from xdbg.machine.exits import StopPointExit, SyscallExit
from xdbg.machine.paging import NotMappedError, read_virtual
from xdbg.machine.ram import Ram
from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import Expression, ExpressionError, Op, parse
from xdbg.rsp.agent_printf import Piece
from xdbg.rsp.registers import BY_NAME, RIP
from xdbg.rsp.replies import StopReply, SwBreak
from xdbg.rsp.target import BreakpointKind, TargetError
from xdbg.rsp.threadid import Thread

CODE: Final = Vaddr(0x20_0000)
DATA: Final = 0x20_1000
EVERYWHERE = Placement(None)
MASK = (1 << 64) - 1
FOREVER = 1 << 62

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest


class Machine:
    """A `syscall` at CODE, a page of data behind it."""

    def __init__(self) -> None:
        self.ram = Ram(1 << 20)
        for at, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3008, 0x4007), (0x4000, 0x5007), (0x4008, 0x6007)):
            self.ram.write_u64(at, entry)
        self.ram.write(0x5000, b"\x0f\x05")
        self.ram.write(0x6000, bytes((i * 37 + 11) & 0xFF for i in range(4096)))
        self.cpu = Cpu(self.ram)
        self.cpu.cr3 = Maddr(0x1000)

    def stops(self, conditions: Sequence[Expression], placement: Placement = EVERYWHERE) -> bool:
        predicate = predicate_for(tuple(conditions), CODE, placement)
        assert predicate is not None
        self.cpu.stop_points.clear()
        self.cpu.stop_points.add(CODE, None, predicate)
        self.cpu.rip = CODE
        came = self.cpu.enter(FOREVER)
        assert came in (StopPointExit(CODE), SyscallExit())
        return came == StopPointExit(CODE)

    # ExpressionContext

    def read_register(self, number: int) -> int:
        return CODE if number == RIP else self.cpu.gpr[GPR_OF[number]]

    def read_memory(self, vaddr: int, length: int) -> bytes:
        try:
            return read_virtual(self.ram, 0x1000, vaddr, length)
        except NotMappedError as error:
            raise UnreadableError(str(error)) from error

    def get_variable(self, number: int) -> int:
        raise AssertionError(number)

    def set_variable(self, number: int, value: int) -> None:
        raise AssertionError(number, value)

    def record_memory(self, vaddr: int, length: int) -> None:
        raise AssertionError(vaddr, length)

    def record_string(self, vaddr: int, limit: int) -> None:
        raise AssertionError(vaddr, limit)

    def record_variable(self, number: int) -> None:
        raise AssertionError(number)

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        raise AssertionError(pieces, arguments)


def holds(expression: Expression, machine: Machine) -> bool:
    try:
        return evaluate(expression, machine) != 0
    except ExpressionError:
        return True


_BINARY = [
    *(Op.ADD, Op.SUB, Op.MUL, Op.DIV_SIGNED, Op.DIV_UNSIGNED, Op.REM_SIGNED, Op.REM_UNSIGNED, Op.LSH, Op.RSH_SIGNED),
    *(Op.RSH_UNSIGNED, Op.BIT_AND, Op.BIT_OR, Op.BIT_XOR, Op.EQUAL, Op.LESS_SIGNED, Op.LESS_UNSIGNED),
]
_VALUES = [0, 1, 2, 3, 7, 63, 64, 65, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 1 << 63, MASK, MASK - 1, DATA, DATA + 4090]


def _piece(choose: random.Random) -> bytes:
    kind = choose.randrange(12)
    if kind < 3:
        return bytes([Op.CONST64]) + choose.choice(_VALUES).to_bytes(8, "big")
    if kind == 3:
        return bytes([Op.REG, 0, choose.randrange(17)])
    if kind == 4:
        load = choose.choice([Op.REF8, Op.REF16, Op.REF32, Op.REF64])
        return bytes([Op.CONST32]) + (DATA + choose.randrange(4100)).to_bytes(4, "big") + bytes([load])
    if kind == 5:
        return bytes([choose.choice([Op.EXT, Op.ZERO_EXT]), choose.choice([1, 8, 16, 31, 32, 33, 63, 64, 65])])
    if kind == 6:
        return bytes([choose.choice([Op.LOG_NOT, Op.BIT_NOT, Op.DUP, Op.SWAP, Op.ROT, Op.REF8])])
    if kind == 7:
        return bytes([Op.PICK, choose.randrange(3)])
    return bytes([choose.choice(_BINARY)])


def expressions(seed: int, wanted: int) -> Iterator[Expression]:
    """Random ones, some with a choice between two values."""
    choose = random.Random(seed)
    while wanted:
        code = b"".join(_piece(choose) for _ in range(choose.randrange(2, 14)))
        if choose.random() < 0.3:
            place = len(code)
            code += bytes([Op.IF_GOTO, *struct.pack(">H", place + 8), Op.CONST8, choose.randrange(3), Op.GOTO])
            code += struct.pack(">H", place + 10) + bytes([Op.CONST8, choose.randrange(3)])
        try:
            expression = parse(code + bytes([Op.END]))
        except ExpressionError:
            continue
        if expression.has_result:
            wanted -= 1
            yield expression


def test_the_engine_decides_as_the_evaluator_does():
    machine = Machine()
    choose = random.Random(23)
    seen = []
    for expression in expressions(1, 1500):
        for index in range(16):
            machine.cpu.gpr[index] = choose.choice([*_VALUES, choose.getrandbits(64)])
        expected = holds(expression, machine)
        assert machine.stops([expression]) is expected, expression.code.hex()
        seen.append(expected)
    assert 200 < sum(seen) < 1300


def test_any_of_several_conditions_is_enough():
    machine = Machine()
    source = expressions(2, 600)
    seen = []
    for first, second, third in zip(source, source, source, strict=False):
        expected = any(holds(one, machine) for one in (first, second, third))
        assert machine.stops([first, second, third]) is expected
        seen.append(expected)
    assert not all(seen)


def test_there_is_no_predicate_for_what_is_not_exact_in_the_engine():
    def made(*code: int, placement: Placement = EVERYWHERE) -> bool:
        return predicate_for((parse(bytes(code)),), CODE, placement) is not None

    elsewhere = Placement(Maddr(0x1000), registers=False)
    assert made(Op.REG, 0, 0, Op.END)
    assert made(Op.REG, 0, RIP, Op.END)
    assert not made(Op.REG, 0, BY_NAME["eflags"].number, Op.END)
    assert not made(Op.REG, 0, BY_NAME["gs_base"].number, Op.END)
    assert not made(Op.REG, 0, 0, Op.END, placement=elsewhere)
    assert not made(Op.REG, 0, RIP, Op.END, placement=elsewhere)
    assert made(Op.CONST8, 8, Op.REF8, Op.END, placement=elsewhere)
    assert not made(Op.GETV, 0, 1, Op.END)
    assert not made(Op.CONST8, 1, Op.CONST8, 1, Op.CONST8, 1, Op.TRACE, Op.END)
    assert predicate_for((), CODE, EVERYWHERE) is None
    long = parse(bytes([Op.CONST8, 1, Op.POP] * 1000 + [Op.CONST8, 1, Op.END]))
    assert predicate_for((long,), CODE, EVERYWHERE) is not None
    assert predicate_for((long,) * (MAX_STEPS // 2000 + 1), CODE, EVERYWHERE) is None


# -- in a domain

RCX, RFLAGS = BY_NAME["rcx"].number, BY_NAME["eflags"].number


def is_equal(register: int, value: int) -> bytes:
    return bytes([Op.REG, 0, register, Op.CONST8, value, Op.EQUAL, Op.END])


def only_when(guest, place: str, *conditions: bytes, kind=BreakpointKind.SOFTWARE) -> int:
    vaddr = guest.brk(place, kind=kind)
    guest.target.agent.set_breakpoint_conditions(guest.kernel, kind, vaddr, conditions)
    return vaddr


def stop_of(guest, stop) -> int:
    assert isinstance(stop, StopReply)
    assert stop.reasons == (SwBreak(),)
    return guest.target.hv.cpu.gpr[GPR_OF[RCX]]


def test_the_cpu_passes_where_no_condition_holds(small: Small) -> None:
    guest = small()
    only_when(guest, "square", is_equal(RCX, 5), is_equal(RCX, 9))
    before = guest.target.agent.evaluations
    assert [stop_of(guest, guest.cont()) for _ in range(2)] == [5, 9]
    assert guest.target.agent.evaluations - before == 3, "each stop is looked at, and nothing else"


def test_a_condition_that_only_the_evaluator_knows_leaves_the_same_computation(small: Small) -> None:
    plain = small()
    plain.brk("done")
    plain.cont()
    guest = small()
    carry_is_set_as_never = bytes(
        [Op.REG, 0, RFLAGS, Op.CONST32, 0, 0x10, 0, 0, Op.BIT_AND, Op.CONST8, 0, Op.BIT_OR, Op.END]
    )
    only_when(guest, "square", carry_is_set_as_never)
    only_when(guest, "squared", is_equal(RCX, 0))
    guest.brk("done")
    stop = guest.cont()
    assert guest.where() == plain.where() == "done"
    assert isinstance(stop, StopReply)
    assert guest.target.agent.evaluations >= 20
    assert guest.count == plain.count


def test_without_a_condition_or_with_another_kind_it_stops_always(small: Small) -> None:
    guest = small()
    vaddr = only_when(guest, "square", is_equal(RCX, 3))
    assert stop_of(guest, guest.cont()) == 3
    guest.brk(vaddr, kind=BreakpointKind.HARDWARE)
    guest.cont()
    assert guest.target.hv.cpu.gpr[GPR_OF[RCX]] == 4
    guest.target.remove_breakpoint(guest.kernel, BreakpointKind.HARDWARE, vaddr)
    guest.target.agent.set_breakpoint_conditions(guest.kernel, BreakpointKind.SOFTWARE, vaddr, ())
    assert stop_of(guest, guest.cont()) == 5


@pytest.mark.parametrize("bad", [b"", b"\x27", b"\x01\x27", b"\x22\x01"])
def test_what_is_no_condition_is_refused(small: Small, bad: bytes) -> None:
    guest = small()
    vaddr = guest.brk("square")
    with pytest.raises(TargetError):
        guest.target.agent.set_breakpoint_conditions(guest.kernel, BreakpointKind.SOFTWARE, vaddr, [bad])
    with pytest.raises(TargetError):
        guest.target.agent.set_breakpoint_conditions(
            guest.kernel, BreakpointKind.SOFTWARE, vaddr, [b"\x22\x01\x27"] * 99
        )
    guest.cont()
    assert guest.where() == "square"


def printf(text: bytes, register: int) -> bytes:
    arguments = bytes([Op.REG, 0, register, Op.CONST8, 0, Op.CONST8, 0])
    return arguments + bytes([Op.PRINTF, 1, 0, len(text) + 1]) + text + b"\0" + bytes([Op.END])


def test_commands_print_and_never_stop_also_where_a_step_ends(small: Small) -> None:
    guest = small()
    vaddr = only_when(guest, "square", is_equal(RCX, 2), is_equal(RCX, 4))
    command = printf(rb"rcx is %d\n", RCX)
    agent = guest.target.agent
    agent.set_breakpoint_commands(guest.kernel, BreakpointKind.SOFTWARE, vaddr, [command], persist=False)
    guest.brk("copy")
    guest.cont()
    assert guest.where() == "copy"
    assert guest.target.console.take() == "rcx is 2\nrcx is 4\n"
    again = small()
    again.brk("square")
    again.cont()
    again.cont()
    agent = again.target.agent
    again.clear("square")
    place = again.brk("squared")
    agent.set_breakpoint_commands(again.kernel, BreakpointKind.SOFTWARE, place, [command], persist=False)
    for _ in range(2):
        again.step()
    assert again.where() == "squared"
    assert again.target.console.take() == "rcx is 2\n"
    again.brk("copy")
    again.cont()
    assert again.target.console.take() == "".join(f"rcx is {i}\n" for i in range(3, 21))


def test_a_command_that_fails_says_so_and_much_output_makes_a_pause(small: Small) -> None:
    guest = small()
    vaddr = guest.brk("square")
    agent = guest.target.agent
    unreadable = bytes([Op.CONST8, 1, Op.REF8, Op.POP, Op.END])
    long = printf(b"%1024d", RCX)
    agent.set_breakpoint_commands(
        guest.kernel, BreakpointKind.SOFTWARE, vaddr, [unreadable, *[long] * 60], persist=False
    )
    pauses = 0
    guest.brk("copy")
    guest.resume()
    while (stop := guest.target.advance(FOREVER)) is None:
        text = guest.target.console.take()
        assert text.startswith("a command of a breakpoint failed: ")
        assert len(text) < 1 << 18
        pauses += 1
    assert isinstance(stop, StopReply)
    assert pauses >= 10


# -- under which page tables


@pytest.fixture
def counter(bundled: Callable[..., "Debugged"]):  # type: ignore[name-defined] # noqa: F821
    """The guest tasks with one counter attached; its thread is `guest.process`."""
    guest = bundled("tasks")
    guest.brk("syscall")
    while not (pids := [one.pid for one in guest.target.profile.processes() if one.exec_path.endswith("counter")]):
        guest.cont()
    guest.clear("syscall")
    guest.target.inferiors.attach(pids[0])
    guest.process = Thread(pids[0], pids[0])
    return guest


UPPER, LOWER = Vaddr(0xFFFF_FFFF_8000_0000), Vaddr(0x40_0000)


def test_where_breakpoints_of_a_process_stop_and_what_is_exact_there(counter) -> None:
    inferiors, pid = counter.target.inferiors, counter.process.pid
    process = inferiors.process(pid)
    user, kernel = process.cr3, process.kernel_cr3
    assert user != kernel
    assert inferiors.placements(KERNEL_PID, LOWER) == [Placement(None)]
    assert set(inferiors.placements(pid, LOWER)) == {
        Placement(user, (user, kernel), registers=True),
        Placement(kernel, (user, kernel), registers=False),
    }
    assert {place.cr3 for place in inferiors.placements(pid, UPPER)} == {user, kernel}
    assert inferiors.placements(999, LOWER) == []


def test_a_process_whose_kernel_shares_its_page_table(counter, monkeypatch: pytest.MonkeyPatch) -> None:
    inferiors, pid, vcpu = counter.target.inferiors, counter.process.pid, counter.target.domain.vcpus[0]
    sharing = replace(inferiors.process(pid), kernel_cr3=None)
    monkeypatch.setitem(inferiors._attached, pid, sharing)
    shared = sharing.cr3
    vcpu.guest_table_user = None
    assert inferiors.placements(pid, UPPER) == [Placement(shared, (shared,), registers=False)]
    vcpu.guest_table_user = shared >> 12
    assert {place.cr3 for place in inferiors.placements(pid, UPPER)} == {shared, vcpu.kernel_cr3}
    assert [place.registers for place in inferiors.placements(pid, LOWER)] == [False]


def test_a_kernel_breakpoint_of_a_process_costs_no_exit_for_others(counter) -> None:
    vaddr = counter.brk("sys_sleep", counter.process)
    agent = counter.target.agent
    reached = []
    hit = agent.hit
    agent.hit = lambda vcpu, thread, at: reached.append(thread) or hit(vcpu, thread, at)
    run_control = counter.target.run_control
    passed = run_control._skips.add
    skips = []
    run_control._skips.add = lambda place: passed(place) or (run_control.is_resumed and skips.append(counter.rip))
    pids = []
    while isinstance(stop := counter.cont(), StopReply) and stop.thread == counter.process:
        assert stop.reasons == ()
        pids.append(counter.target.profile.current_pid(0))
    assert set(pids) == {counter.process.pid}
    assert len(pids) >= 3
    assert reached == [counter.process] * len(pids)
    assert vaddr not in skips


def test_conditions_of_a_process_see_its_registers_wherever_it_is(counter) -> None:
    """In the kernel on the process's behalf its registers are those saved, which gdb shows, too."""
    agent = counter.target.agent
    symbols = SymbolTable.from_elf(counter.target.profile.file("/bin/counter") or b"")
    rdi = BY_NAME["rdi"].number
    square = counter.brk(symbols.address("square"), counter.process)
    agent.set_breakpoint_conditions(counter.process, BreakpointKind.SOFTWARE, square, [is_equal(rdi, 17)])
    counter.cont()
    assert counter.target.hv.cpu.gpr[GPR_OF[rdi]] == 17
    assert agent.evaluations == 1
    sleep = counter.brk("sys_sleep", counter.process)
    saved_rip_is_low = bytes([Op.REG, 0, RIP, Op.CONST32, 0, 0x80, 0, 0, Op.LESS_UNSIGNED, Op.END])
    agent.set_breakpoint_conditions(counter.process, BreakpointKind.SOFTWARE, sleep, [saved_rip_is_low])
    counter.cont()
    assert counter.rip == sleep


# -- hostile ones

ROUNDS = [Op.CONST8, 1, Op.SUB, Op.DUP, Op.IF_GOTO, 0]
LOOP = bytes([Op.CONST16, 8, 0, *ROUNDS, 3, Op.END])
"""2048 times round, some 8,000 instructions; then 0."""
ENDLESS = bytes([Op.CONST8, 0, Op.GOTO, 0, 2, Op.END])


def test_what_has_no_end_within_the_budget_stops() -> None:
    machine = Machine()
    assert not machine.stops([parse(LOOP)])
    assert machine.stops([parse(ENDLESS)])
    assert machine.stops([parse(bytes([Op.CONST16, 16, 0]) + LOOP[3:])]), "twice the rounds"


@pytest.mark.parametrize("register", [RCX, RFLAGS], ids=["in the engine", "in the evaluator"])
def test_long_conditions_in_a_tight_loop_leave_room_for_an_interrupt(bundled: Small, register: int) -> None:
    guest = bundled("tasks")
    target = guest.target
    target.hv.run(9_000_000)
    spin = next(process.pid for process in target.profile.processes() if process.exec_path == "/bin/spin")
    thread = target.attach(spin).thread
    vaddr = target.inferiors.rip(thread)
    target.insert_breakpoint(thread, BreakpointKind.SOFTWARE, vaddr)
    loop = bytes([Op.REG, 0, register, Op.POP, Op.CONST16, 8, 0, *ROUNDS, 7, Op.END])
    target.agent.set_breakpoint_conditions(thread, BreakpointKind.SOFTWARE, vaddr, [loop])
    guest.resume()
    worked = 0
    for _ in range(3):
        before = target.hv.cpu.predicate_steps, target.agent.evaluations, guest.count
        assert target.advance(1 << 60) is None
        steps, weight = target.hv.cpu.predicate_steps - before[0], target.agent.evaluations - before[1]
        assert steps < 2_100_000
        assert weight < 1200
        assert guest.count > before[2], "it gets on, though slowly"
        worked = max(worked, steps // 2000, weight)
    assert worked >= 1000
    target.interrupt()
    assert target.advance(1 << 60) is not None


def _random_tables(choose: random.Random, ram: Ram) -> None:
    """Sixteen frames full of entries for each other, for themselves, for what is no RAM, and for large pages."""
    for frame in range(0x10, 0x20):
        for index in (0, 1, 255, 256, 510, 511):
            inside = [frame, choose.randrange(0x10, 0x20), choose.randrange(0x100), 0xFF]
            to = choose.choice([*inside, 0x100, (1 << 40) - 1])
            flags = choose.choice([0, 0x7, 0x7, 0x7, 0x87, 1 << 63 | 0x7])
            ram.write_u64(frame * 4096 + index * 8, to << 12 | flags)


def test_loads_through_any_page_tables_are_those_of_the_address_space() -> None:
    """Tables that refer to themselves, to what is not RAM, to large pages; addresses at every edge, and at the last.

    What passes has been read as the evaluator would have; nearly all that this can read passes.
    """
    machine = Machine()
    choose = random.Random(5)
    loaded, passed, wrapping = 0, 0, 0
    for _ in range(1500):
        _random_tables(choose, machine.ram)
        first, second = (Maddr(choose.randrange(0x10, 0x20) << 12) for _ in range(2))
        last = choose.random() < 0.1
        vaddr = 0
        for _ in range(4):
            vaddr = vaddr << 9 | (511 if last else choose.choice([0, 1, 255, 256, 510, 511]))
        vaddr = vaddr << 12 | choose.choice([0, 8, 4090, 4093, 4095, choose.randrange(4096)])
        vaddr |= 0xFFFF << 48 if vaddr >> 47 and choose.random() < 0.95 else 0
        length, load = choose.choice([(1, Op.REF8), (2, Op.REF16), (4, Op.REF32), (8, Op.REF64)])
        try:
            data = AddressSpace(machine.ram, second, first).read(vaddr, length)
        except TargetError:
            data = b""
        value = int.from_bytes(data, "little")
        code = bytes([Op.CONST64]) + vaddr.to_bytes(8, "big") + bytes([load, Op.CONST64]) + value.to_bytes(8, "big")
        condition = parse(code + bytes([Op.EQUAL, Op.LOG_NOT, Op.END]))
        stops = machine.stops([condition], Placement(None, (first, second)))
        assert stops or len(data) == length, (hex(vaddr), length, data)
        loaded += len(data) == length
        passed += not stops
        wrapping += vaddr + length > 1 << 64
    assert 0.8 * loaded < passed <= loaded < 1400
    assert loaded > 50
    assert wrapping > 10


def test_a_load_that_runs_past_the_last_address_is_undecided() -> None:
    """It does not go on at address 0, which is mapped here as the last page is."""
    machine = Machine()
    for table in (0x1000, 0x2000, 0x3000, 0x4000):
        machine.ram.write_u64(table + 511 * 8, {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4000: 0x6007}[table])
    machine.ram.write_u64(0x3000, 0x4007)
    machine.ram.write_u64(0x4000, 0x5007)
    vaddr = MASK - 2
    assert read_virtual(machine.ram, 0x1000, 0, 1) == machine.ram.read(0x5000, 1)
    value = int.from_bytes(machine.ram.read(0x6FFD, 3) + machine.ram.read(0x5000, 5), "little")
    code = bytes([Op.CONST64]) + vaddr.to_bytes(8, "big") + bytes([Op.REF64, Op.CONST64]) + value.to_bytes(8, "big")
    assert machine.stops([parse(code + bytes([Op.EQUAL, Op.LOG_NOT, Op.END]))])
    data = int.from_bytes(machine.ram.read(0x6FF8, 8), "little")
    whole = (
        bytes([Op.CONST64]) + (MASK - 7).to_bytes(8, "big") + bytes([Op.REF64, Op.CONST64]) + data.to_bytes(8, "big")
    )
    assert not machine.stops([parse(whole + bytes([Op.EQUAL, Op.LOG_NOT, Op.END]))])
