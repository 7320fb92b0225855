"""The profile of `tasks` over the real guest, at many places of one run."""

import subprocess
from pathlib import Path

import pytest

from xdbg.abi.frames import Vaddr
from xdbg.guestos.elf_file import ET_DYN, PT_LOAD, ElfFile
from xdbg.guestos.profile import Process, Profile
from xdbg.guestos.symbols import SymbolTable
from xdbg.machine.paging import read_virtual
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
