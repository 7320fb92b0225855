"""Which stop points breakpoints become, and how few changes that takes."""

import pytest

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.points.breakpoints import Breakpoints, StopPoint
from xdbg.debug.points.conditions import Placement
from xdbg.machine.predicate import Predicate
from xdbg.rsp.agent_expression import Op, parse
from xdbg.rsp.target import BreakpointKind

KERNEL = 1000
UPPER = 0xFFFF_8800_0000_1000
LOWER = 0x40_1000
SOFTWARE, HARDWARE = BreakpointKind.SOFTWARE, BreakpointKind.HARDWARE


class StopPoints:
    """The CPU's side, which counts."""

    def __init__(self) -> None:
        self.points: set[StopPoint] = set()
        self.predicates: list[Predicate] = []
        self.changes: list[StopPoint] = []

    def add(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        if predicate is None:
            assert (vaddr, cr3) not in self.points
            self.points.add((vaddr, cr3))
        else:
            self.predicates.append(predicate)
        self.changes.append((vaddr, cr3))

    def remove(self, vaddr: Vaddr, cr3: Maddr | None, predicate: Predicate | None = None) -> None:
        if predicate is None:
            self.points.remove((vaddr, cr3))
        else:
            self.predicates.remove(predicate)
        self.changes.append((vaddr, cr3))


class Tables:
    """Page tables of inferiors."""

    def __init__(self) -> None:
        self.of = {7: (0x7000, 0x7800), 8: (0x8000,)}

    def __call__(self, pid: int, vaddr: int) -> list[Placement]:
        if pid == KERNEL:
            return [Placement(None)]
        tables = self.of.get(pid, ())
        return [Placement(Maddr(cr3)) for cr3 in (tables[-1:] if vaddr >= UPPER else tables)]


@pytest.fixture
def cpu() -> StopPoints:
    return StopPoints()


def test_the_kernels_are_in_every_address_space_and_a_process_s_in_its_own(cpu: StopPoints) -> None:
    breakpoints = Breakpoints(KERNEL)
    breakpoints.insert(KERNEL, SOFTWARE, UPPER)
    breakpoints.insert(KERNEL, SOFTWARE, LOWER)
    breakpoints.insert(7, SOFTWARE, LOWER + 1)
    breakpoints.insert(8, HARDWARE, LOWER + 1)
    breakpoints.insert(8, SOFTWARE, UPPER + 1)
    breakpoints.install(cpu, Tables())
    assert cpu.points == {
        *((UPPER, None), (LOWER, None), (UPPER + 1, 0x8000)),
        *((LOWER + 1, 0x7000), (LOWER + 1, 0x7800), (LOWER + 1, 0x8000)),
    }
    assert list(breakpoints.pids_at(LOWER + 1)) == [7, 8]
    assert [[kind for kind, _ in breakpoints.actions(pid, LOWER + 1)] for pid in (7, 8)] == [[SOFTWARE], [HARDWARE]]


def test_taking_all_out_and_putting_them_back_changes_nothing(cpu: StopPoints) -> None:
    breakpoints, tables = Breakpoints(KERNEL), Tables()
    for offset in range(50):
        breakpoints.insert(KERNEL, SOFTWARE, UPPER + offset)
    breakpoints.install(cpu, tables)
    cpu.changes.clear()
    for offset in range(50):
        breakpoints.remove(KERNEL, SOFTWARE, UPPER + offset)
    for offset in range(50):
        breakpoints.insert(KERNEL, SOFTWARE, UPPER + offset)
    breakpoints.install(cpu, tables)
    assert cpu.changes == []


def test_they_follow_a_process_to_other_page_tables(cpu: StopPoints) -> None:
    breakpoints, tables = Breakpoints(KERNEL), Tables()
    breakpoints.insert(8, SOFTWARE, LOWER)
    breakpoints.install(cpu, tables)
    tables.of[8] = (0x9000,)
    breakpoints.install(cpu, tables)
    assert cpu.points == {(LOWER, 0x8000)}, "nobody said that they have moved"
    breakpoints.install(cpu, tables, moved=True)
    assert cpu.points == {(LOWER, 0x9000)}


def test_forgetting_one_inferior_leaves_the_others(cpu: StopPoints) -> None:
    breakpoints = Breakpoints(KERNEL)
    for pid in (7, 8, KERNEL):
        breakpoints.insert(pid, SOFTWARE, LOWER)
    breakpoints.forget(7)
    breakpoints.forget(KERNEL)
    breakpoints.install(cpu, Tables())
    assert cpu.points == {(LOWER, 0x8000)}
    breakpoints.clear()
    breakpoints.install(cpu, Tables())
    assert (cpu.points, len(breakpoints)) == (set(), 0)


def test_run_control_s_own_are_nobody_s(cpu: StopPoints) -> None:
    breakpoints = Breakpoints(KERNEL)
    breakpoints.insert(KERNEL, SOFTWARE, UPPER)
    breakpoints.set_internal("upcalls", [(Vaddr(UPPER), Maddr(0x1000))])
    breakpoints.install(cpu, Tables())
    assert cpu.points == {(UPPER, None), (UPPER, 0x1000)}
    breakpoints.set_internal("upcalls", ())
    breakpoints.install(cpu, Tables())
    assert cpu.points == {(UPPER, None)}


def test_conditions_become_predicates_that_stay_the_same(cpu: StopPoints) -> None:
    breakpoints, tables = Breakpoints(KERNEL), Tables()
    condition = parse(bytes([Op.REG, 0, 0, Op.END]))
    for _ in range(3):
        breakpoints.remove(KERNEL, SOFTWARE, UPPER)
        breakpoints.insert(KERNEL, SOFTWARE, UPPER)
        breakpoints.set_conditions(KERNEL, SOFTWARE, UPPER, (condition,))
        breakpoints.install(cpu, tables)
        assert (len(cpu.predicates), cpu.points) == (1, set())
    assert len(cpu.changes) == 1
    breakpoints.insert(KERNEL, HARDWARE, UPPER)
    breakpoints.install(cpu, tables)
    assert (len(cpu.predicates), cpu.points) == (1, {(UPPER, None)})
    breakpoints.set_conditions(KERNEL, SOFTWARE, UPPER, ())
    breakpoints.install(cpu, tables)
    assert (len(cpu.predicates), cpu.points) == (0, {(UPPER, None)})


def test_only_the_kernels_persistent_commands_are_kept(cpu: StopPoints) -> None:
    breakpoints = Breakpoints(KERNEL)
    command = (parse(bytes([Op.END])),)
    for pid, vaddr, persist in ((KERNEL, UPPER, True), (KERNEL, UPPER + 1, False), (7, LOWER, True)):
        breakpoints.insert(pid, SOFTWARE, vaddr)
        breakpoints.set_commands(pid, SOFTWARE, vaddr, command, persist=persist)
    breakpoints.insert(KERNEL, HARDWARE, UPPER)
    breakpoints.leave()
    breakpoints.install(cpu, Tables())
    assert cpu.points == {(UPPER, None)}
    assert [kind for kind, _ in breakpoints.actions(KERNEL, UPPER)] == [SOFTWARE]
    breakpoints.clear()
    assert len(breakpoints) == 0
