"""Real gdb talks to the fake target through a pipe: it takes our description, block, replies and files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rsp_fake import DATA, TEXT

import xdbg
from xdbg.rsp import registers

GDB = shutil.which("gdb")
pytestmark = pytest.mark.skipif(GDB is None, reason="gdb is not installed")


class Session:
    """What gdb printed, and the packets that it sent."""

    def __init__(self, text: str, log: str) -> None:
        self.text = text
        self.log = log
        self.requests = re.findall(r"^<- b?(.*)$", log, re.MULTILINE)

    def expect(self, *lines: str) -> None:
        """The lines, as patterns, in this order."""
        place = 0
        for line in lines:
            found = re.compile(line, re.MULTILINE).search(self.text, place)
            assert found is not None, f"{line!r} is not in the rest of:\n{self.text}"
            place = found.end()


def run_gdb(log: Path, commands: str, *, extended: bool = True) -> Session:
    """Runs gdb over the commands, each as its own, so that a failing one does not end the script."""
    server = f"{sys.executable} {Path(__file__).parent / 'serve_fake.py'} {log}"
    script = [f"target {'extended-remote' if extended else 'remote'} | {server}", *commands.strip().splitlines()]
    options = [part for command in ["set confirm off", *script] for part in ("-ex", command)]
    environment = {**os.environ, "PYTHONPATH": str(Path(xdbg.__file__).parents[1])}
    arguments = [GDB or "gdb", "-nx", "-batch", *options]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, env=environment)
    return Session(done.stdout + done.stderr, log.read_text(errors="replace"))


def test_gdb_takes_the_description_as_we_lay_the_block_out(tmp_path: Path) -> None:
    (tmp_path / "target.xml").write_bytes(registers.description())
    options = ["-ex", f"set tdesc filename {tmp_path / 'target.xml'}", "-ex", "maint print remote-registers"]
    done = subprocess.run([GDB or "gdb", "-nx", "-batch", *options], capture_output=True, text=True, check=True)
    rows = re.findall(r"^ (\w+) +\d+ +\d+ +\d+ +(\d+) +\S+ +(\d+) +(\d+)", done.stdout, re.MULTILINE)
    theirs = {name: (int(number), int(size), int(offset)) for name, size, number, offset in rows}
    offset = 0
    for register in registers.REGISTERS:
        assert theirs[register.name] == (register.number, register.size, offset), register
        assert register.offset in {offset, None}
        offset += register.size
    assert done.stderr == ""


def test_gdb_reads_the_block_once_and_each_register_behind_it_by_p(tmp_path: Path) -> None:
    session = run_gdb(
        tmp_path / "log",
        """
        print $cr3
        print $xen_kernel_mode
        set var $cr3 = 0x1234
        p/x $cr3
        set var $rax = 0x1122334455667788
        p/x $rax
        info registers
        p $eflags
        p/x $xmm0.uint128
        p $st0
        """,
    )
    session.expect(
        r"= 0$", r"= false$", r"= 0x1234$", r"= 0x1122334455667788$", r"^gs_base .*|^cr0 ", r"^xen_cr3_user "
    )
    assert "too long" not in session.text
    assert session.log.count("$g#67") >= 1
    assert "$p3e#" in session.log
    assert "$P3e=3412000000000000#" in session.log


def test_gdb_breaks_steps_and_watches(tmp_path: Path) -> None:
    session = run_gdb(
        tmp_path / "log",
        f"""
        break *{TEXT + 0x10}
        continue
        stepi
        hbreak *{TEXT + 0x20}
        continue
        set var *(unsigned char *){TEXT + 0x25} = 0xb0
        watch *(unsigned char *){DATA}
        continue
        delete
        rwatch *(unsigned char *){DATA}
        set var *(unsigned char *){TEXT + 0x28} = 0xa0
        continue
        delete
        set var *(unsigned char *){TEXT + 0x40} = 0xcc
        continue
        """,
    )
    session.expect(
        r"hit Breakpoint 1, 0x0+401010",
        r"^0x0+401011 in",
        r"hit Breakpoint 2, 0x0+401020",
        r"hit Hardware watchpoint 3",
        r"^Old value = 0 ",
        r"^New value = 1 ",
        r"^0x0+401026 in",
        r"hit Hardware read watchpoint 4",
        r"^Value = 1 ",
        r"received signal SIGTRAP",
        r"^0x0+401041 in",
    )
    assert "swbreak:;" in session.log
    assert "hwbreak:;" in session.log
    assert f"watch:{DATA:x};" in session.log


def test_gdb_searches_sums_up_and_reads_nothing_at_0(tmp_path: Path) -> None:
    session = run_gdb(
        tmp_path / "log",
        f"""
        set var *(unsigned char *){TEXT + 0x40} = 0xcc
        find {TEXT}, {TEXT + 0xFFF}, (char)0xcc
        find {TEXT + 0x41}, {TEXT + 0xFFF}, (char)0xcc
        x/x 0
        dump binary memory {tmp_path / "text"} {TEXT} {TEXT + 0x1000}
        restore {tmp_path / "text"} binary {DATA}
        x/xb {DATA + 0x40}
        """,
    )
    session.expect(r"^0x401040$", r"^1 pattern found", r"^Pattern not found", r"^0x402040:\s0xcc")
    session.expect("Cannot access memory at address 0x0")
    assert (tmp_path / "text").read_bytes() == b"\x90" * 0x40 + b"\xcc" + b"\x90" * 0xFBF


def test_gdb_shows_threads_with_names_and_monitor_output_with_its_error(tmp_path: Path) -> None:
    session = run_gdb(
        tmp_path / "log",
        """
        info threads
        thread 2
        monitor hello
        monitor fail
        """,
    )
    session.expect(
        r'^\* 1 +Thread 4194305.1 "vcpu0" \(running\)',
        r"^  2 +Thread 4194305.2 \"v<&>\"1\" \(idle <&>\)",
        r"Switching to thread 2",
        r"^hello on 4194305$",
        r"^fail on 4194305$",
        r"^it failed$",
    )
    assert "Protocol error" not in session.text


def test_gdb_attaches_a_second_process_detaches_it_and_goes_on(tmp_path: Path) -> None:
    session = run_gdb(
        tmp_path / "log",
        f"""
        add-inferior
        inferior 2
        attach 7
        info inferiors
        p $cr3
        break *{TEXT + 0x30}
        detach
        attach 99
        inferior 1
        set var *(unsigned char *){TEXT + 0x80} = 0xf4
        delete
        continue
        info inferiors
        """,
    )
    session.expect(
        r"^  1 +process 4194305",
        r"^\* 2 +process 7",
        r"= 0$",
        r"Inferior 2 \(process 7\) detached",
        r"Inferior 1 \(process 4194305\) exited with code 03",
        r"^\* 1 +<null>",
    )
    session.expect("Attaching to process 99 failed")
    assert "$vAttach;7#" in session.log


@pytest.mark.parametrize(
    ("leave", "departure"), [("detach", "DETACHED"), ("kill", "KILLED"), ("disconnect", "LOST"), ("quit", "DETACHED")]
)
def test_each_way_of_leaving_is_understood(tmp_path: Path, leave: str, departure: str) -> None:
    session = run_gdb(tmp_path / "log", leave, extended=False)
    assert session.log.endswith(f"departure Departure.{departure}\n"), json.dumps(session.requests[-3:])
