"""A core of the domain, opened by drgn with the kernel's debug information: it shows what gdb saw in the live one."""

import json
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from xdbg.session.bundled import find_guest
from xdbg.testing.clients import DRGN

SCRIPT = """
import json, sys

kernel, first, end = sys.argv[1:]
module = prog.extra_module("kernel", create=True)
module.address_range = (int(first), int(end))
module.try_file(kernel, force=True)

def in_process(task, vaddr, length):  # as drgn does it for Linux: down the page tables, by physical addresses
    at = task.space.user_l4.value_() << 12
    for shift in (39, 30, 21, 12):
        entry = prog.read_u64(at + (vaddr >> shift & 511) * 8, True)
        assert entry & 1
        at = entry & 0xFFFFFFFFFF000
    return prog.read(at + (vaddr & 4095), length, True)

live = [task for task in prog["tasks"] if task.pid]
(thread,) = prog.threads()
print(json.dumps({
    "processes": {task.pid.value_(): task.path.string_().decode() for task in live},
    "current": prog["current"].pid.value_(),
    "frames": [frame.name for frame in thread.stack_trace()],
    "start_info": prog["start_info"].magic.string_().decode(),
    "at_rip": {task.pid.value_(): in_process(task, task.regs.rip.value_(), 1).hex() for task in live},
    "stacks": {task.pid.value_(): in_process(task, task.regs.rsp.value_(), 16).hex() for task in live},
}))
"""


@pytest.fixture
def read_by_drgn(tmp_path):
    """What the script of drgn prints of a core."""
    command = DRGN.command()

    def read(core, kernel):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        with kernel.open("rb") as file:
            loads = [segment for segment in ELFFile(file).iter_segments() if segment["p_type"] == "PT_LOAD"]
        within = (loads[0]["p_vaddr"], loads[-1]["p_vaddr"] + loads[-1]["p_memsz"])
        options = ("-q", "--no-default-symbols", "-c", core)
        arguments = [*command, *options, script, kernel, *within]
        run = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return read


def test_tasks_backtrace_and_the_memory_of_every_process_are_those_of_the_live_domain(
    xdbg_gdb, read_by_drgn, pids_of, tmp_path
):
    live = xdbg_gdb("tasks", "--dump-dir", str(tmp_path))
    live.run("break task_sleep if task->pid == 3")
    live.cont()
    live.monitor("dump-core tasks.core")
    seen = read_by_drgn(tmp_path / "tasks.core", find_guest("tasks").kernel)
    assert {int(pid): path for pid, path in seen["processes"].items()} == live.processes()
    assert seen["current"] == live.number("current->pid") == 3
    functions = live.backtrace()
    functions = functions[: functions.index("<signal handler called>")]  # gdb's word for a frame that drgn names
    assert functions[:4] == ["task_sleep", "sys_sleep", "syscall", "on_syscall"]
    assert seen["frames"][: len(functions)] == functions
    assert seen["start_info"].startswith("xen-3.0")
    for pid in pids_of(live, "counter"):
        live.attach_process(pid)
        assert seen["at_rip"][str(pid)] == f"{live.number('*(unsigned char *)$pc'):02x}"
        words = (live.number("*(unsigned long *)$sp"), live.number("*((unsigned long *)$sp + 1)"))
        assert bytes.fromhex(seen["stacks"][str(pid)]) == b"".join(word.to_bytes(8, "little") for word in words)
