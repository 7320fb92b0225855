"""Cores of a Linux guest, read by drgn and crash: the kernel, and the memory of its processes.

No kernel is part of this: XDBG_LINUX names a vmlinux with debug information, built with CONFIG_XEN_PV, such as Debian's
linux-image-*-dbg packages have. Without it there is nothing to run. crash is used where it is installed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from xdbg.abi.dump_core import DumpcoreP2m
from xdbg.testing.clients import DRGN

INIT = r"""
#include <sys/wait.h>
#include <unistd.h>
char place[] = "the memory of a process";
int main(void)
{
    if (fork() == 0) {
        place[0] = 'T';
        pause();
    }
    sleep(1);
    *(volatile int *)0 = 1; /* the end of process 1 is the end of Linux */
}
"""
BY_DRGN = """
import json, sys
from drgn.helpers.linux import access_process_vm, for_each_task, get_dmesg

place = int(sys.argv[1], 16)
print(json.dumps({
    "release": prog["init_uts_ns"].name.release.string_().decode(),
    "processes": {t.pid.value_(): access_process_vm(t, place, 23).decode() for t in for_each_task(prog) if t.mm},
    "names": [t.comm.string_().decode() for t in for_each_task(prog)],
    "frames": [frame.name for frame in prog.crashed_thread().stack_trace()],
    "log": get_dmesg(prog).decode(),
}))
"""


@pytest.fixture(scope="module")
def vmlinux():
    path = os.environ.get("XDBG_LINUX")
    if not path:
        pytest.skip("XDBG_LINUX names no vmlinux with debug information")
    return Path(path)


@pytest.fixture(scope="module")
def crashed(vmlinux, tmp_path_factory):
    """A directory with both cores of a Linux whose first process died, and `init`, its program."""
    made = tmp_path_factory.mktemp("linux")
    (made / "init.c").write_text(INIT)
    subprocess.run(["gcc", "-g", "-static", "-no-pie", "-o", made / "init", made / "init.c"], check=True)
    (made / "initrd").write_bytes(cpio(made / "init"))
    command = [sys.executable, "-m", "xdbg", "run", vmlinux, "--memory", "256M", "--module", made / "initrd"]
    append = ("--append", "earlyprintk=xen console=hvc0 nokaslr mitigations=off panic=-1 rdinit=/init")
    cores = ("--core", made / "core", "--xen-core", made / "xen")
    run = subprocess.run([*command, *append, *cores], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert run.returncode == 3, run.stdout[-2000:]
    return made


def cpio(init):
    """An initial RAM disk with /init and /dev/console, in the format newc."""
    out = bytearray()
    files = (("dev", 0o40755, b"", 0), ("dev/console", 0o20600, b"", 5), ("init", 0o100755, init.read_bytes(), 0))
    for inode, (name, mode, data, major) in enumerate((*files, ("TRAILER!!!", 0, b"", 0)), 1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, 1 if major else 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def test_drgn_reads_the_kernel_and_the_memory_of_each_process(vmlinux, crashed):
    (crashed / "script.py").write_text(BY_DRGN)
    symbols = subprocess.run(["nm", crashed / "init"], capture_output=True, text=True, check=True).stdout
    place = re.search(r"^(\w+) D place$", symbols, re.MULTILINE)[1]
    drgn = [*DRGN.command(), "-q", "--main-symbols", "-s", vmlinux, "-c", crashed / "core"]
    run = subprocess.run([*drgn, crashed / "script.py", place], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert f"Linux version {seen['release']} " in seen["log"]
    assert "Attempted to kill init!" in seen["log"]
    assert {"init", "kthreadd", "xenbus"} <= set(seen["names"])
    assert sorted(seen["processes"].values()) == ["The memory of a process", "the memory of a process"]
    assert seen["processes"]["1"].startswith("t")
    frames = seen["frames"]
    assert frames.index("panic") < frames.index("do_exit") < frames.index("asm_exc_page_fault")


@pytest.mark.skipif(shutil.which("crash") is None, reason="crash is not installed")
def test_crash_reads_it_and_finds_the_way_of_page_tables_by_the_p2m(vmlinux, crashed):
    commands = "sys\nrd linux_banner 2\nbt\nvtop ffffea0000000000\nquit\n"
    (crashed / "commands").write_text(commands)
    crash = ["crash", "-s", "-i", crashed / "commands", vmlinux, crashed / "xen"]
    shown = subprocess.run(crash, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
    assert 'PANIC: "Kernel panic - not syncing: Attempted to kill init!' in shown
    assert "Linux version " in shown
    assert re.search(r'^PID: 1 .* COMMAND: "init"$', shown, re.MULTILINE)
    assert re.search(r"#0 \[\w+\] panic at .*\n( #\d.*\n)+ #\d \[\w+\] asm_exc_page_fault at ", shown)
    machine, guest = re.findall(r"^  PAGE: (\w+)", shown, re.MULTILINE)
    with (crashed / "xen").open("rb") as file:
        p2m = ELFFile(file).get_section_by_name(".xen_p2m").data()
    entry = DumpcoreP2m.from_bytes(p2m[(int(guest, 16) >> 12) * DumpcoreP2m.SIZE :])
    assert (entry.pfn, entry.gmfn) == (int(guest, 16) >> 12, int(machine, 16) >> 12)
