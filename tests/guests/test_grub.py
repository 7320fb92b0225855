"""GRUB as Debian builds it for Xen, a PV64 kernel of others: prompt, commands, disks, and what it boots from them.

`scripts/fetch-grub` gets it; without it there is nothing to run.
"""

import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from disk_images import ext2, tar
from grub_guest import GRUB, bootable, needs_grub
from typed_console import TypedConsole

from xdbg.abi.sched import Shutdown
from xdbg.session.disks import parse_disk
from xdbg.session.launch import Launch, LaunchError, launch
from xdbg.xen.audit import audit

PROMPT = "\ngrub> "
PROGRESS = re.compile(r" *\[ [^]]*/s ]")
NUMBERS = bytes(range(256)) * 2000

pytestmark = needs_grub


@pytest.fixture
def grub():
    """A function: GRUB, with disks as `--disk` takes them, at its prompt."""

    def start(*disks):
        console = TypedConsole(Launch(str(GRUB), disks=tuple(parse_disk(disk) for disk in disks)))
        console.greeting = console.wait_for(PROMPT)
        return console

    return start


def say(console, command):
    """The lines that GRUB answers to a command, without its progress in reading files."""
    console.type(command + "\r")
    shown = console.wait_for(PROMPT)
    assert shown.startswith(command)
    lines = [PROGRESS.sub("", line).strip() for line in shown[len(command) :].split("\n")]
    return [line for line in lines if line]


def test_it_boots_to_its_prompt(grub):
    console = grub()
    assert "Welcome to GRUB!" in console.greeting
    assert "GNU GRUB  version 2." in console.greeting
    assert "error: no such device: /boot/grub/grub.cfg." in console.greeting
    assert console.instructions < 100_000_000


def test_it_answers_commands(grub):
    console = grub()
    assert say(console, "echo a b c") == ["a b c"]
    assert say(console, "set greeting=hello; echo $greeting $grub_platform $grub_cpu") == ["hello xen x86_64"]
    assert say(console, "ls") == ["(memdisk) (proc)"]
    assert say(console, "nonsense") == ["error: can't find command `nonsense'."]
    assert "halt" in " ".join(say(console, "help"))
    memory = say(console, "lsmmap")
    assert memory[0].startswith("base_addr = 0x0, length = 0x7")
    assert sum(int(line.split("length = ")[1].split(",")[0], 16) for line in memory) == 128 << 20


def test_it_reads_the_store(grub):
    console = grub()
    assert say(console, "xen_cat domid") == ["1"]
    assert say(console, "xen_cat name") == ["grub-x86_64-xen"]
    assert {"device", "memory", "console"} <= set(say(console, "xen_ls"))


def test_halt_powers_off_and_leaves_a_domain_in_which_all_counts_are_right(grub):
    console = grub()
    console.type("halt\r")
    console.run_to_end()
    assert console.domain.shutdown_code == Shutdown.POWEROFF
    audit(console.launched.hv)


def test_reboot_asks_for_a_reboot(grub):
    console = grub()
    console.type("reboot\r")
    console.run_to_end()
    assert console.domain.shutdown_code == Shutdown.REBOOT


def test_the_line_can_be_edited_and_completed(grub):
    console = grub()
    console.type("ecko\x08\x08ho hm\x08i\r")  # backspaces
    assert console.wait_for(PROMPT).endswith("\nhi")
    console.type("hexd\t --help\r")
    assert "Usage: hexdump" in console.wait_for(PROMPT)


def test_the_same_typing_is_the_same_run(grub):
    def session():
        console = grub()
        say(console, "ls")
        console.type("halt\r")
        console.run_to_end()
        return console.shown, console.instructions

    assert session() == session()


CONFIG = b"""\
set greeting="a line of the configuration"
echo "$root has $greeting"
"""
FILES = {"boot/grub/grub.cfg": CONFIG, "notes/hello.txt": b"text in a file\n", "numbers": NUMBERS}


def disk_of(kind, path, files):
    if kind is ext2 and shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("there is no mke2fs")
    return kind(path, files)


@pytest.mark.parametrize("kind", [tar, ext2])
def test_it_reads_its_configuration_and_files_from_a_disk(grub, tmp_path, kind):
    console = grub(str(disk_of(kind, tmp_path / "disk.img", FILES)))
    assert "xen/xvda has a line of the configuration" in console.greeting
    assert say(console, "ls") == ["(memdisk) (proc) (xen/xvda)"]
    assert say(console, "cat (xen/xvda)/notes/hello.txt")[-1] == "text in a file"
    assert "numbers" in " ".join(say(console, "ls (xen/xvda)/"))
    digest = hashlib.sha256(NUMBERS).hexdigest()
    assert say(console, "sha256sum (xen/xvda)/numbers")[-2] == digest
    audit(console.launched.hv)


def test_it_finds_each_of_two_disks(grub, tmp_path):
    first = tar(tmp_path / "first.img", {"one": b"first\n"})
    second = tar(tmp_path / "second.img", {"two": b"second\n"})
    console = grub(str(first), f"{second},xvdc,ro")
    assert say(console, "cat (xen/xvda)/one")[-1] == "first"
    assert say(console, "search -f /two")[-1] == "xen/xvdc"
    assert say(console, "cat (xen/xvdc)/two")[-1] == "second"


@pytest.mark.parametrize(
    ("guest", "verdict"), [("hello", "PASS hello"), ("traps", "PASS traps"), ("tick", "PASS tick"), ("tasks", "PASS")]
)
def test_it_boots_another_kernel_from_the_disk(tmp_path, guest, verdict):
    disk = bootable(tmp_path / "disk.img", guest)
    console = TypedConsole(Launch(str(GRUB), disks=(parse_disk(str(disk)),)))
    console.run_to_end()
    assert "Welcome to GRUB!" in console.shown
    assert verdict in console.shown
    assert console.domain.shutdown_code == Shutdown.POWEROFF
    audit(console.launched.hv)


def test_the_command_line_shows_all_of_it(tmp_path):
    disk = bootable(tmp_path / "disk.img", "hello", "started by GRUB", packed=True)
    command = [sys.executable, "-m", "xdbg", "run", GRUB, "--disk", disk, "--max-instructions", "1000000000"]
    run = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert run.returncode == 0, run
    assert b'command line "started by GRUB"' in run.stdout
    assert run.stdout.rstrip().endswith(b"PASS hello")


def test_what_is_typed_at_xdbg_run_reaches_it():
    command = [sys.executable, "-m", "xdbg", "run", GRUB, "--max-instructions", "1000000000"]
    run = subprocess.run(command, capture_output=True, input=b"echo 6 times $grub_cpu\rhalt\r", check=False)
    assert run.returncode == 0, run
    assert b"6 times x86_64" in run.stdout


@pytest.mark.parametrize("name", ["grub-i386-xen.bin", "grub-i386-xen_pvh.bin"])
def test_its_32_bit_forms_are_refused(name):
    with pytest.raises(LaunchError, match="a 32-bit ELF file: only 64-bit PV kernels can be run"):
        launch(Launch(str(GRUB.parent / name)))
