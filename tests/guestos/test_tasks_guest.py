"""The profile of `tasks` over the real guest, at many places of one run."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from xdbg.abi.frames import Vaddr
from xdbg.guestos.elf_file import ET_DYN, PT_LOAD, ElfFile
from xdbg.guestos.events import Execed, Exiting, Forked, GuestEvent, KernelRegisters, SignalInfo, Signalled, Spawned
from xdbg.guestos.profile import Process, Profile
from xdbg.guestos.symbols import SymbolTable
from xdbg.machine.exits import StopPointExit
from xdbg.machine.paging import read_virtual, walk
from xdbg.session.launch import Launch, Launched, launch

ROOT = Path(__file__).resolve().parents[2]
AT_ENTRY = 9


@pytest.fixture(scope="module")
def guest() -> Launched:
    subprocess.run([ROOT / "scripts" / "build-guests", "tasks"], check=True, capture_output=True)
    return launch(Launch("tasks"))


def read(guest: Launched, process: Process, vaddr: int, length: int) -> bytes:
    assert process.cr3 is not None
    return read_virtual(guest.hv.ram, process.cr3, Vaddr(vaddr), length)


def check_process(guest: Launched, profile: Profile, process: Process) -> None:
    """What must be true of every process at every instruction after it was set up."""
    content = profile.file(process.exec_path)
    assert content is not None
    elf = ElfFile(content)
    assert process.exec_path == f"/bin/{process.name}"
    assert process.entry == elf.entry + process.load_base
    assert bool(process.load_base) == (elf.type == ET_DYN)
    pairs = [int.from_bytes(process.auxv[i : i + 8], "little") for i in range(0, len(process.auxv), 8)]
    assert dict(zip(pairs[::2], pairs[1::2], strict=True))[AT_ENTRY] == process.entry
    text = next(segment for segment in elf.segments if segment.type == PT_LOAD and segment.flags & 1)
    assert read(guest, process, text.vaddr + process.load_base, len(text.data)) == bytes(text.data)
    assert process.registers is not None
    for address, prot in ((process.registers.rip, 4), (process.registers.gpr[4] - 1, 2)):
        vma = next(vma for vma in process.vmas if vma.start <= address < vma.end)
        assert vma.prot & prot
    assert SymbolTable.from_elf(elf, bias=process.load_base).lookup(process.registers.rip) is not None


def test_processes_are_seen_from_before_the_first_to_after_the_last(guest: Launched) -> None:
    hv, profile = guest.hv, guest.profile()
    assert profile.name == "tasks"
    assert profile.processes() == ()
    names: dict[int, set[str]] = {}
    states: set[str] = set()
    tracers: dict[str, set[int]] = {}
    checked = 0
    while guest.domain.shutdown_code is None:
        hv.run(hv.cpu.count + 100_003)
        processes = profile.processes()
        for process in processes:
            names.setdefault(process.pid, set()).add(process.name)
            states.add(process.state)
            if process.traced_by is not None:
                tracers.setdefault(process.name, set()).add(process.traced_by)
        vcpu = hv.current
        assert vcpu is not None
        if not vcpu.kernel_mode:
            running = [process for process in processes if process.vcpu_id is not None]
            assert [process.cr3 for process in running] == [hv.cpu.cr3]
            assert [process.kernel_cr3 for process in running] == [vcpu.kernel_cr3]
            assert [process.pid for process in running] == [profile.current_pid(0)]
            for process in processes:
                if process.vcpu_id is None and not process.ended and process.traced_by is None:
                    check_process(guest, profile, process)
                    checked += 1
        assert hv.cpu.count < 100_000_000
    assert guest.domain.shutdown_code == 0
    assert checked > 100
    assert names[1] == {"init"}
    assert {"init", "counter", "spin", "debuggee", "debugger"} <= {name for all_of in names.values() for name in all_of}
    assert {"running", "ready", "sleeping", "waiting", "stopped"} <= states
    assert tracers == {"debuggee": {pid for pid in names if "debugger" in names[pid]}}


def events_of(guest: Launched) -> list[GuestEvent]:
    """All that happens to processes in a whole run."""
    hv, profile = guest.hv, guest.profile()
    for point in profile.event_points:
        hv.cpu.stop_points.add(point, None)
    found: list[GuestEvent] = []
    skip = False
    while (vcpu := hv.schedule()) is not None:
        came = hv.enter(vcpu, 1 << 60, skip_stop_point=skip)
        skip = isinstance(came, StopPointExit)
        if not skip:
            hv.handle(vcpu, came)
            continue
        event = profile.event(KernelRegisters(tuple(hv.cpu.gpr), Vaddr(hv.cpu.rip)))
        if event is not None:
            found.append(event)
    return found


def test_all_that_happens_to_processes_is_told_in_the_kernels_order() -> None:
    found = events_of(launch(Launch("tasks")))
    init = 1
    names = ["counter", "counter", "spin", "fault", "forker", "debuggee", "debuggee", "debugger"]
    pid = {name: 2 + at for at, name in enumerate(names)}
    copy, other = 10, 11
    assert [event for event in found if isinstance(event, Spawned)] == [Spawned(init, 2 + at) for at in range(8)]
    assert [event for event in found if isinstance(event, Forked)] == [
        Forked(pid["forker"], copy),
        Forked(pid["forker"], other),
    ]
    assert [event for event in found if isinstance(event, Execed)] == [Execed(other, "/bin/counter")]
    ends = {event.pid: (event.status, event.signal) for event in found if isinstance(event, Exiting)}
    assert len(ends) == 11
    assert (ends[pid["fault"]], ends[pid["spin"]]) == ((139, 11), (137, 9))
    assert (ends[copy], ends[other], ends[init], ends[2]) == ((7, 0), (76, 0), (0, 0), (3, 0))
    signals = [event for event in found if isinstance(event, Signalled)]
    assert [event.info for event in signals if event.pid == pid["fault"]] == [SignalInfo(11, 1)]
    assert [event.info for event in signals if event.pid == pid["spin"]] == [SignalInfo(9, sender=init)]
    traced = [event for event in signals if event.traced]
    assert {event.info.code for event in traced} == {0x80, 2}
    assert len(traced) == len(signals) - 2 == 10


def test_a_signal_is_dropped_changed_and_sent_by_what_the_profile_says_to_store() -> None:
    guest = launch(Launch("tasks", append="init=/bin/forker"))
    hv, profile = guest.hv, guest.profile()
    while len(profile.processes()) < 2:
        hv.run(hv.cpu.count + 10_000)

    def store(writes: Sequence[tuple[Vaddr, bytes]]) -> None:
        for vaddr, data in writes:
            maddr = walk(hv.ram, guest.domain.vcpus[0].kernel_cr3, vaddr).maddr
            hv.ram.buffer[maddr : maddr + len(data)] = data

    assert profile.send_writes(1, SignalInfo(15)) == ()
    assert profile.send_writes(2, SignalInfo(17)) == ()
    assert profile.send_writes(99, SignalInfo(15)) == ()
    store(profile.send_writes(2, SignalInfo(15)))
    assert profile.send_writes(2, SignalInfo(15)) == (), "one at a time"
    task_signal = next(point for point in profile.event_points if is_signal(guest, point))
    hv.cpu.stop_points.add(task_signal, None)
    while True:
        vcpu = hv.schedule()
        assert vcpu is not None
        came = hv.enter(vcpu, 1 << 60)
        if isinstance(came, StopPointExit):
            break
        hv.handle(vcpu, came)
    state = KernelRegisters(tuple(hv.cpu.gpr), Vaddr(hv.cpu.rip))
    event = profile.event(state)
    assert isinstance(event, Signalled)
    assert (event.pid, event.info, event.traced) == (2, SignalInfo(15), False)
    assert profile.signal_writes(event, SignalInfo(17)) == ()
    store(profile.signal_writes(event, SignalInfo(9, 1, 0x1234, 5)))
    changed = profile.event(state)
    assert isinstance(changed, Signalled)
    assert changed.info == SignalInfo(9, 1, 0x1234, 5)
    store(profile.signal_writes(event, None))
    assert profile.event(state) is None
    hv.cpu.stop_points.remove(task_signal, None)
    hv.run(hv.cpu.count + 100_000)
    assert [process.pid for process in profile.processes() if not process.ended][:2] == [1, 2]


def is_signal(guest: Launched, point: Vaddr) -> bool:
    kernel = guest.profile().file(guest.profile().kernel_path)
    assert kernel is not None
    return SymbolTable.from_elf(kernel).lookup(point) == ("task_signal", 0)
