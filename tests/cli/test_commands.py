"""The commands as a user types them: what they print, and their exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xdbg.session.bundled import find_guest


def xdbg(*arguments, stdin=b""):
    return subprocess.run(
        [sys.executable, "-m", "xdbg", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )


def test_guests_lists_each_guest_in_one_line():
    lines = xdbg("guests").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert {"hello", "int3", "traps", "tick", "tasks", "crash"} <= {line.split()[0] for line in lines}
    assert not any("not built" in line for line in lines)


def test_run_shows_the_console_and_ends_with_0_when_the_domain_powers_off():
    run = xdbg("run", "hello", "--append", "from a test")
    assert run.returncode == 0
    assert b'command line "from a test"' in run.stdout
    assert run.stderr == b""


def test_run_ends_with_3_and_one_line_when_the_domain_crashes():
    run = xdbg("run", "crash", "--append", "bad-stack")
    assert run.returncode == 3
    assert run.stderr.startswith(b"xdbg: the domain crashed: page fault on the kernel stack")
    assert run.stderr.count(b"\n") == 1


def test_run_ends_with_124_at_an_instruction_limit():
    run = xdbg("run", "crash", "--append", "loop", "--max-instructions", 1_000_000)
    assert run.returncode == 124
    assert b"after 1000000 instructions" in run.stderr


def test_run_ends_with_124_at_a_time_limit():
    assert xdbg("run", "crash", "--append", "loop", "--timeout", "0.2").returncode == 124


def test_run_says_in_one_line_when_its_output_can_not_be_written():
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [sys.executable, "-m", "xdbg", "run", "hello"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert run.returncode == 1
    assert run.stderr.splitlines()[0].endswith(b"No space left on device")
    assert b"Traceback" not in run.stderr


def test_a_kernel_is_found_by_its_path_too():
    assert xdbg("run", find_guest("hello").kernel).returncode == 0


def test_memory_is_what_the_option_says():
    assert b"  4096 pages" in xdbg("run", "hello", "--memory", "16M").stdout


def one_line_of_usage_error(run):
    assert run.returncode == 2, run.stderr
    assert run.stdout == b""
    text = run.stderr.decode()
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_a_kernel_that_does_not_exist_gets_one_line():
    assert "no-such-kernel" in one_line_of_usage_error(xdbg("run", "no-such-kernel"))


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(4096), b"\x1f\x8b broken"])
def test_a_file_that_is_no_kernel_gets_one_line(tmp_path, content):
    path = tmp_path / "rubbish"
    path.write_bytes(content)
    line = one_line_of_usage_error(xdbg("run", path))
    assert str(path) in line


def test_a_program_of_the_host_is_refused_as_a_kernel():
    assert "/bin/true" in one_line_of_usage_error(xdbg("run", "/bin/true"))


def test_a_truncated_kernel_gets_one_line(tmp_path):
    path = tmp_path / "short.elf"
    path.write_bytes(find_guest("hello").kernel.read_bytes()[:3000])
    one_line_of_usage_error(xdbg("run", path))


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "much"],
        ["--memory", "1K"],
        ["--memory", "1000000G"],
        ["--module", "/no/such/file"],
        ["--max-instructions", "-1"],
        ["--no-such-option"],
    ],
)
def test_wrong_options_get_status_2(options):
    one_line_of_usage_error(xdbg("run", "hello", *options))


def test_a_directory_as_kernel_gets_one_line(tmp_path):
    one_line_of_usage_error(xdbg("run", tmp_path))


def test_serve_refuses_an_address_that_is_none():
    assert "nowhere" in one_line_of_usage_error(xdbg("serve", "hello", "--gdb", "nowhere"))


def test_serve_says_when_the_port_is_in_use(xdbg_serve):
    address = xdbg_serve("hello").address
    assert "in use" in one_line_of_usage_error(xdbg("serve", "hello", "--gdb", address)).lower()


def test_trace_tells_the_way_of_an_int3_in_the_order_of_xens_steps():
    run = xdbg("trace", "int3")
    assert run.returncode == 0
    text = run.stdout.decode()
    steps = ["#BP breakpoint at kernel_int3", "DPL 3", "trap_bounce: set", "bounce frame:", "handler:", "iret: back"]
    places = [text.index(steps[0])]
    for step in steps[1:]:
        places.append(text.index(step, places[-1]))
    assert places == sorted(places)
    assert b"PASS int3" in run.stderr


def test_trace_as_json_lines_is_one_object_a_line_with_the_same_keys_first(tmp_path):
    output = tmp_path / "trace.jsonl"
    run = xdbg("trace", "int3", "--format", "jsonl", "--output", output)
    assert run.returncode == 0
    assert b"PASS int3" in run.stdout
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len({tuple(record)[:4] for record in records}) == 1
    counts = [next(iter(record.values())) for record in records]
    assert len(counts) > 100


def test_trace_dumps_only_the_events_that_are_asked_for():
    text = xdbg("trace", "hello", "--events", "shutdown").stdout.decode()
    assert len(text.splitlines()) == 1


def test_trace_refuses_events_that_it_does_not_know():
    assert "nonsense" in one_line_of_usage_error(xdbg("trace", "hello", "--events", "nonsense"))


def test_trace_says_when_the_output_can_not_be_written():
    one_line_of_usage_error(xdbg("trace", "hello", "--output", "/no/such/folder/file"))


def test_two_traces_are_equal_byte_for_byte(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        assert xdbg("trace", "tasks", "--events", "all", "--output", path).returncode == 0
    assert first.read_bytes() == second.read_bytes()
