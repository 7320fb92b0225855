"""Which stop points breakpoints become, and how few changes that takes."""

import pytest

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.debug.breakpoints import Breakpoints, StopPoint
from xdbg.rsp.replies import HwBreak, SwBreak
from xdbg.rsp.target import BreakpointKind

KERNEL = 1000
UPPER = 0xFFFF_8800_0000_1000
LOWER = 0x40_1000
SOFTWARE, HARDWARE = BreakpointKind.SOFTWARE, BreakpointKind.HARDWARE


class StopPoints:
    """The CPU's side, which counts."""

    def __init__(self) -> None:
        self.points: set[StopPoint] = set()
        self.changes: list[StopPoint] = []

    def add(self, vaddr: Vaddr, cr3: Maddr | None) -> None:
        assert (vaddr, cr3) not in self.points
        self.points.add((vaddr, cr3))
        self.changes.append((vaddr, cr3))

    def remove(self, vaddr: Vaddr, cr3: Maddr | None) -> None:
        self.points.remove((vaddr, cr3))
        self.changes.append((vaddr, cr3))


class Tables:
    """Page tables of processes."""

    def __init__(self) -> None:
        self.of = {7: (0x7000, 0x7800), 8: (0x8000,)}

    def __call__(self, pid: int) -> tuple[Maddr, ...]:
        return tuple(Maddr(cr3) for cr3 in self.of.get(pid, ()))


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
        *((UPPER, None), (LOWER, None), (UPPER + 1, None)),
        *((LOWER + 1, 0x7000), (LOWER + 1, 0x7800), (LOWER + 1, 0x8000)),
    }
    assert list(breakpoints.pids_at(LOWER + 1)) == [7, 8]
    assert (breakpoints.reason(7, LOWER + 1), breakpoints.reason(8, LOWER + 1)) == (SwBreak(), HwBreak())


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
