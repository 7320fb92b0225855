"""gdb is told nothing but the address: programs and symbols come over the wire."""

from pathlib import Path

import pytest

PIE_BASE = 0x555555555000 - 0x1000


def test_kernel_symbols_load_unasked(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    assert gdb.run("info symbol $pc").startswith("_start in section .text")
    assert "target:/boot/hello.elf" in gdb.run("info inferiors")
    assert "hello/main.c" in gdb.run("info line main")


def test_kernel_symbols_load_with_plain_target_remote(xdbg_serve):
    from xdbg.testing import GdbSession

    with GdbSession(xdbg_serve("hello").address, extended=False) as gdb:
        gdb.run("break main")
        assert gdb.cont().function == "main"


def test_symbols_of_a_process_load_at_attach(counter):
    assert "target:/bin/counter" in counter.run("info inferiors")
    assert counter.backtrace()[-2:] == ["count", "main"]


def test_kernel_given_by_path_needs_no_bundled_guest(xdbg_gdb, tmp_path):
    kernel = tmp_path / "some-kernel"
    kernel.write_bytes(Path("build/guests/hello.elf").read_bytes())
    gdb = xdbg_gdb(kernel)
    gdb.run("break main")
    assert gdb.cont().function == "main"


@pytest.mark.parametrize(("program", "variable"), [("debuggee", "steps"), ("forker", "value")])
def test_position_independent_program_is_relocated_by_its_auxiliary_vector(processes, pids_of, program, variable):
    processes.attach_process(pids_of(processes, program)[0])
    assert processes.number("&main") & ~0xFFFFFF == PIE_BASE & ~0xFFFFFF
    assert processes.number("&main") >= PIE_BASE
    assert processes.run("info symbol main").startswith("main in section .text")
    assert processes.number(variable) == {"steps": 0, "value": 1}[variable]


def test_position_independent_program_stops_at_a_source_line(debuggee):
    debuggee.run("break step if n == 3")
    stop = debuggee.cont()
    assert (stop.function, stop.source) == ("step", "long before = sum;")
    assert debuggee.number("sum") == 9


def test_each_inferior_has_its_own_meaning_of_a_name(counter):
    in_process = counter.number("&main")
    counter.select(1)
    in_kernel = counter.number("&main")
    assert in_process < 1 << 47
    assert in_kernel > 0xFFFF_8000_0000_0000
