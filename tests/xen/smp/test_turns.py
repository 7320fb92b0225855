"""Who has the CPU when: turns, slices, waking, and what several vcpus see of each other."""

from collections.abc import Callable
from typing import Any

from xdbg.abi.event_channel import EvtchnSend, Virq
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MmuextOp
from xdbg.abi.sched import SchedOp
from xdbg.abi.vcpu import (
    Runstate,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
)
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.registers import RAX
from xdbg.xen.event_channel import is_pending, set_pending
from xdbg.xen.event_channel_op import bind_ipi, bind_virq
from xdbg.xen.sched import SLICE_NS
from xdbg.xen.setup import TICK_NS, Hypervisor
from xdbg.xen.vcpu import Vcpu

from .conftest import COUNT, DATA, LOOP, NR_PAGES, SYSCALL, Smp, make_domain

MS = 1_000_000


def load(register: str, value: int) -> bytes:
    """movabs $value, %register"""
    number = {"rax": 0, "rdx": 2, "rbx": 3, "rsi": 6, "rdi": 7}[register]
    return bytes([0x48, 0xB8 | number]) + (value & (1 << 64) - 1).to_bytes(8, "little")


def hypercall(number: Hypercall, *args: int) -> bytes:
    loads = (load(register, value) for register, value in zip(("rdi", "rsi", "rdx"), args, strict=False))
    return b"".join(loads) + load("rax", number) + SYSCALL


def turns(hv: Hypervisor, limit: int) -> list[tuple[int, Vcpu]]:
    """Run so many instructions; when, counted from now, each vcpu got the CPU."""
    start, seen = hv.cpu.count, []
    switch_to = hv.switch_to

    def switched(vcpu: Vcpu) -> None:
        seen.append((hv.cpu.count - start, vcpu))
        switch_to(vcpu)

    hv.switch_to = switched  # type: ignore[method-assign] - the tests look over its shoulder
    try:
        hv.run(start + limit)
    finally:
        del hv.switch_to
    return seen


def executed(smp: Smp, number: int) -> int:
    """How often a vcpu that executes COUNT has counted."""
    vcpu = smp.domain.vcpus[number]
    return int(smp.hv.cpu.gpr[RAX]) if vcpu.context is None else vcpu.context.gpr["rax"]


def test_vcpus_take_turns_of_a_slice_each(smp: Smp) -> None:
    first, second, third = smp.vcpu, smp.start(1), smp.start(2)
    seen = turns(smp.hv, 6 * SLICE_NS)
    expected = [second, third, first, second, third]
    assert seen == [((i + 1) * SLICE_NS, vcpu) for i, vcpu in enumerate(expected)]
    assert [executed(smp, number) for number in range(3)] == [SLICE_NS] * 3


def test_vcpus_of_all_domains_take_turns(smp: Smp, another: Callable[[int], Smp]) -> None:
    other = another(2)
    other.start(1)
    seen = turns(smp.hv, 3 * SLICE_NS + 10)
    assert [vcpu for _, vcpu in seen] == [*other.domain.vcpus, smp.vcpu]


def test_a_vcpu_alone_is_not_interrupted(smp: Smp) -> None:
    smp.start(1)
    smp.domain.vcpus[1].blocked = True
    entries = 0
    while smp.hv.cpu.count < TICK_NS - 1:
        vcpu = smp.hv.schedule()
        assert vcpu is smp.vcpu
        smp.hv.handle(vcpu, smp.hv.enter(vcpu, TICK_NS - 1))
        entries += 1
    assert entries == 1


def test_a_tick_of_xen_does_not_end_a_turn(smp: Smp) -> None:
    second = smp.start(1)
    smp.hv.next_tick_ns = smp.hv.now() + SLICE_NS + 7
    seen = turns(smp.hv, 2 * SLICE_NS + 1)
    assert seen == [(SLICE_NS, second), (2 * SLICE_NS, smp.vcpu)]


def test_who_has_used_up_its_slice_alone_makes_way_at_once(smp: Smp) -> None:
    second = smp.start(1)
    second.blocked = True
    port = bind_ipi(smp.domain, 1)
    smp.hv.run(smp.hv.cpu.count + 3 * SLICE_NS)
    set_pending(second, port)
    smp.shared_unmask(port)
    assert smp.hv.schedule() is second


def test_who_has_not_keeps_the_cpu_to_the_end_of_the_slice(smp: Smp) -> None:
    second = smp.start(1)
    second.blocked = True
    smp.hv.run(smp.hv.cpu.count + 100)
    smp.shared_unmask(port := bind_ipi(smp.domain, 1))
    set_pending(second, port)
    assert not second.blocked
    assert turns(smp.hv, SLICE_NS) == [(SLICE_NS - 100, second)]


def test_a_yield_ends_the_turn(smp: Smp) -> None:
    yields = hypercall(Hypercall.SCHED_OP, SchedOp.YIELD, 0) + bytes.fromhex("ebde")
    second = smp.start(1, yields)
    seen = turns(smp.hv, 2 * SLICE_NS + 100)
    length = 4
    assert seen == [
        (SLICE_NS, second),
        (SLICE_NS + length, smp.vcpu),
        (2 * SLICE_NS + length, second),
        (2 * SLICE_NS + 2 * length + 1, smp.vcpu),  # the jump back comes first
    ]


def test_a_vcpu_that_stops_itself_gives_the_cpu_away(smp: Smp) -> None:
    second = smp.start(1, hypercall(Hypercall.VCPU_OP, VcpuOp.DOWN, 1, 0) + LOOP)
    assert turns(smp.hv, 2 * SLICE_NS)[1:] == [(SLICE_NS + 5, smp.vcpu)]
    assert (second.is_up, second.runstate.state) == (False, Runstate.OFFLINE)
    assert smp.op(VcpuOp.UP, 1) == 0
    assert second.runstate.state == Runstate.RUNNABLE


def test_time_goes_on_for_all_while_one_spins(smp: Smp) -> None:
    second = smp.start(1)
    vcpu = smp.hv.schedule()
    assert vcpu is smp.vcpu
    count = smp.hv.cpu.count
    assert smp.hv.spin(vcpu)
    assert smp.hv.cpu.count == count
    assert smp.hv.schedule() is second
    smp.vcpu.is_up = False
    assert not smp.hv.spin(second), "nothing else can run"


def test_an_event_for_a_vcpu_that_waits_for_its_turn_is_delivered_when_it_gets_it(smp: Smp) -> None:
    context = smp.context(1, COUNT)
    context.event_callback_eip = smp.write(DATA, LOOP)
    assert smp.op(VcpuOp.INITIALISE, 1, context) == 0
    assert smp.op(VcpuOp.UP, 1) == 0
    hv, second = smp.hv, smp.domain.vcpus[1]
    hv.run(hv.cpu.count + SLICE_NS + 10)
    assert hv.current is second
    hv.ram.buffer[second.vcpu_info + 1] = 0
    hv.run(hv.cpu.count + SLICE_NS)
    assert hv.current is smp.vcpu
    smp.shared_unmask(port := bind_ipi(smp.domain, 1))
    smp.write(1, EvtchnSend(port=port).to_bytes())
    assert smp.call(Hypercall.EVENT_CHANNEL_OP, 4, smp.va(1)) == 0
    assert second.context is not None
    assert second.context.rip != context.event_callback_eip, "it does not run"
    hv.run(hv.cpu.count + SLICE_NS)
    assert (hv.current, hv.cpu.rip) == (second, context.event_callback_eip)


def test_each_vcpu_has_a_timer_of_its_own(smp: Smp) -> None:
    for number in (1, 2):
        smp.start(number).timers.singleshot_ns = smp.hv.now() + number * 1000
    ports = {number: bind_virq(smp.domain, Virq.TIMER, number) for number in (1, 2)}
    smp.hv.run(smp.hv.cpu.count + 1500)
    assert [is_pending(smp.domain, ports[number]) for number in (1, 2)] == [True, False]
    smp.hv.run(smp.hv.cpu.count + 1500)
    assert is_pending(smp.domain, ports[2])


def test_a_periodic_timer_ticks_only_while_its_vcpu_has_the_cpu(smp: Smp) -> None:
    second = smp.start(1)
    port = bind_virq(smp.domain, Virq.TIMER, 1)
    assert smp.op(VcpuOp.SET_PERIODIC_TIMER, 1, VcpuSetPeriodicTimer(period_ns=MS)) == 0
    second.paused = True
    smp.hv.run(smp.hv.cpu.count + 3 * MS)
    assert not is_pending(smp.domain, port)
    second.paused = False
    smp.hv.run(smp.hv.cpu.count + 1)
    assert is_pending(smp.domain, port), "at once, when it gets the CPU"


def test_a_vcpu_sees_what_became_of_another_in_its_run_state_area(smp: Smp) -> None:
    smp.start(1)
    area = VcpuRegisterRunstateMemoryArea()
    area.addr.v = smp.va(DATA)
    assert smp.op(VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, 0, area) == 0

    def state() -> VcpuRunstateInfo:
        return VcpuRunstateInfo.from_bytes(smp.hv.ram.read(smp.mfn(DATA) * 4096, VcpuRunstateInfo.SIZE))

    assert state().state == Runstate.RUNNING
    smp.hv.run(smp.hv.cpu.count + SLICE_NS + 10)
    assert state().state == Runstate.RUNNABLE
    smp.hv.run(smp.hv.cpu.count + SLICE_NS)
    assert state().state == Runstate.RUNNING
    assert sum(state().time) == state().state_entry_time
    assert state().time[Runstate.RUNNABLE] == SLICE_NS


def test_the_run_state_times_of_all_vcpus_add_up(smp: Smp) -> None:
    for number in range(1, 4):
        smp.start(number)
    smp.hv.run(smp.hv.cpu.count + 11 * SLICE_NS + 77)
    now = smp.hv.now()
    running = 0
    for vcpu in smp.domain.vcpus:
        times = list(vcpu.runstate.time_ns)
        times[vcpu.runstate.state] += now - vcpu.runstate.since_ns
        assert sum(times) == now
        running += times[Runstate.RUNNING]
    assert running == now


def test_a_page_that_one_vcpu_remaps_is_seen_by_the_others(smp: Smp) -> None:
    """Each reads the page first; then vcpu 1 remaps it and flushes, with any of the ways that reach other vcpus."""
    window, flags = smp.va(DATA), PTE_PRESENT | PTE_RW | PTE_USER
    read = load("rdi", window) + bytes.fromhex("488b1f") + bytes.fromhex("ebfb")  # mov (%rdi),%rbx; jmp to it
    smp.write(DATA, (1).to_bytes(8, "little"))
    smp.write(DATA + 1, (2).to_bytes(8, "little"))
    for kind in (MmuextOp.TLB_FLUSH_ALL, MmuextOp.INVLPG_ALL, MmuextOp.TLB_FLUSH_MULTI, MmuextOp.INVLPG_MULTI):
        target = smp.pte(DATA + 1, flags) if smp.entry(7, DATA) >> PAGE_SHIFT == smp.mfn(DATA) else smp.pte(DATA, flags)
        assert smp.call(Hypercall.UPDATE_VA_MAPPING, window, target, 0) == 0
        mask = smp.write(2, (0b111).to_bytes(8, "little"))
        words = (kind, window if "INVLPG" in kind.name else 0, mask)
        at = smp.write(3, b"".join(word.to_bytes(8, "little") for word in words))
        assert smp.call(Hypercall.MMUEXT_OP, at, 1, 0, 0x7FF0) == 0
    readers = [smp.start(1, read), smp.start(2, read)]
    value = int.from_bytes(smp.hv.ram.read(smp.entry(7, DATA) & ~0xFFF & (1 << 52) - 1, 8), "little")
    smp.hv.run(smp.hv.cpu.count + 4 * SLICE_NS)
    for reader in readers:
        assert reader.context is None or reader.context.gpr["rbx"] == value
    flush = b"".join(word.to_bytes(8, "little") for word in (MmuextOp.INVLPG_ALL, window, 0))
    remap = hypercall(Hypercall.UPDATE_VA_MAPPING, window, smp.pte(DATA + (value == 1), flags), 0)
    remap += hypercall(Hypercall.MMUEXT_OP, smp.write(3, flush), 1, 0)
    remap = remap.replace(SYSCALL, bytes.fromhex("41ba") + (0x7FF0).to_bytes(4, "little") + SYSCALL) + LOOP
    smp.start(3, remap)
    smp.hv.run(smp.hv.cpu.count + 8 * SLICE_NS)
    for reader in readers:
        assert reader.context is None or reader.context.gpr["rbx"] == 3 - value


def test_a_read_modify_write_with_lock_is_never_torn(smp: Smp) -> None:
    """All vcpus count one word, with slices that end after every number of instructions."""
    at = smp.va(DATA)
    code = load("rdi", at) + bytes.fromhex("f048ff07") + bytes.fromhex("48ffc0") + bytes.fromhex("ebf7")
    for number in range(1, 4):
        smp.start(number, code)
    smp.vcpu.is_up = False
    hv = smp.hv
    for length in range(1, 60):
        for _ in range(3):
            vcpu = hv.schedule()
            assert vcpu is not None
            hv.slice_end_ns = hv.now() + length
            hv.handle(vcpu, hv.enter(vcpu, hv.cpu.count + length))
    word = int.from_bytes(hv.ram.read(smp.mfn(DATA) * 4096, 8), "little")
    counted = sum(executed(smp, number) for number in range(1, 4))
    assert counted <= word <= counted + 3
    assert word > 500


def test_a_run_is_the_same_whoever_looks() -> None:
    """Interrupted at odd places by somebody who looks, as a debugger does, or not at all."""

    def run(piece: int) -> list[Any]:
        smp = make_domain(Hypervisor(2 * NR_PAGES + 64), 4)
        hv, end = smp.hv, 7 * SLICE_NS + 123
        hv.schedule()
        for number in range(1, 4):
            smp.start(number)
        smp.domain.vcpus[2].timers.singleshot_ns = hv.now() + 33_333
        while hv.cpu.count < end:
            hv.run(min(hv.cpu.count + piece, end))
        return [
            hv.current.vcpu_id if hv.current else None,
            hv.next_tick_ns,
            [(executed(smp, vcpu.vcpu_id), vcpu.runstate) for vcpu in smp.domain.vcpus],
            bytes(hv.ram.buffer),
        ]

    assert run(777) == run(1_000_000) == run(13_131)
