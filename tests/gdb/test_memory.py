"""What gdb reads and writes, and the files of a process that it asks for."""

import re

import pytest

from xdbg.testing import GdbError


@pytest.mark.parametrize("address", ["0", "0x1000", "0x7fffffffffff", "0x800000000000", "0xffff880000000000", "-1"])
def test_unmapped_memory_is_an_error_and_changes_nothing(counter, address):
    before = counter.run("info registers"), counter.instructions
    with pytest.raises(GdbError, match="Cannot access memory"):
        counter.run(f"print *(unsigned char *){address}")
    with pytest.raises(GdbError, match="Cannot access memory"):
        counter.run(f"set variable *(unsigned char *){address} = 1")
    assert (counter.run("info registers"), counter.instructions) == before
    counter.run("break compute")
    assert counter.cont().function == "compute"


def test_read_that_runs_into_a_hole_shows_what_is_before_it(counter):
    with pytest.raises(GdbError, match="Cannot access memory at address 0x405000"):
        counter.run("x/4096xb 0x404800")
    assert "0x404ff8" in counter.printed


def test_write_that_runs_into_a_hole_writes_nothing(counter):
    with pytest.raises(GdbError, match="Cannot access memory"):
        counter.run("set variable *(unsigned long *)0x404ffc = -1")
    assert counter.number("*(unsigned int *)0x404ffc") == 0


def test_kernel_memory_is_readable_in_a_process_at_its_addresses(counter):
    counter.select(1)
    pid, address = counter.number("tasks[1].pid"), counter.number("&tasks[1].pid")
    counter.select(2)
    assert counter.number(f"*(int *){address}") == pid == 2


def test_strings(counter):
    counter.run("tbreak print")
    counter.cont()
    assert counter.run("x/s format").endswith('"counter %s: round %d, total %d\\n"\n')
    assert counter.evaluate("name").endswith('"a"')


def test_find(counter):
    found = counter.run("find /b 0x403000, 0x403fff, 'r', 'o', 'u', 'n', 'd'")
    assert "pattern" in found
    assert re.search(r"0x403\w{3}", found)


def test_find_of_what_is_not_there(counter):
    assert "Pattern not found" in counter.run("find /w 0x403000, +0xf00, 0x12345678")


def test_compare_sections(counter):
    text = counter.run("compare-sections")
    assert re.search(r"Section .text, range 0x401000 -- \w+: matched", text)
    assert "MIS-MATCHED" not in text


def test_compare_sections_finds_a_changed_byte(processes, pids_of):
    processes.attach_process(pids_of(processes, "fault")[0])
    processes.run("set variable *(char *)&store = 0x90")
    assert "MIS-MATCHED" in processes.run("compare-sections .text")


def test_dump_and_restore(counter, tmp_path):
    before = counter.number("total")
    counter.run(f"dump binary memory {tmp_path / 'total'} &total (char*)&total+4")
    assert int.from_bytes((tmp_path / "total").read_bytes(), "little") == before
    counter.run("set variable total = 5")
    counter.run(f"restore {tmp_path / 'total'} binary &total")
    assert counter.number("total") == before


def test_a_hundred_kilobytes_at_once(processes, tmp_path):
    start = processes.number("start_info->mod_start")
    length = processes.number("start_info->mod_len")
    assert length > 100_000
    processes.run(f"dump binary memory {tmp_path / 'module'} {start} {start + length}")
    assert (tmp_path / "module").read_bytes()[:6] == b"070701"
    assert (tmp_path / "module").stat().st_size == length


def test_info_auxv(counter):
    text = counter.run("info auxv")
    assert re.search(r"AT_ENTRY +Entry point of program +0x40", text)
    assert '"/bin/counter"' in text
    assert counter.run("info symbol _start").startswith("_start in section .text")


def test_info_proc(counter):
    assert "exe = '/bin/counter'" in counter.run("info proc")
    rows = [line.split() for line in counter.run("info proc mappings").splitlines() if line.strip().startswith("0x")]
    assert [row[4] for row in rows] == ["r--p", "r-xp", "r--p", "rw-p", "rw-p"]
    assert [row[5] for row in rows] == ["/bin/counter"] * 4 + ["[stack]"]


def test_info_proc_of_a_position_independent_program(debuggee):
    assert "0x555555554000" in debuggee.run("info proc mappings")


def test_core_of_a_process_is_readable(counter, tmp_path):
    from xdbg.testing import GdbSession

    core = tmp_path / "core"
    counter.run(f"gcore {core}")
    total = counter.number("total")
    with GdbSession() as other:
        other.run("file build/guests/tasks/bin/counter")
        other.run(f"core-file {core}")
        assert other.number("total") == total
        assert other.backtrace()[-2:] == ["count", "main"]


def test_files_of_the_host_are_not_served(counter, tmp_path):
    with pytest.raises(GdbError):
        counter.run(f"remote get /etc/passwd {tmp_path / 'passwd'}")
    with pytest.raises(GdbError):
        counter.run(f"remote get ../../../../etc/passwd {tmp_path / 'passwd'}")
    counter.run(f"remote get /bin/counter {tmp_path / 'counter'}")
    assert (tmp_path / "counter").read_bytes()[:4] == b"\x7fELF"
