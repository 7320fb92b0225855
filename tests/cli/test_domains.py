"""Several domains on the command line: what is printed, exit statuses, and one line for each mistake."""

import os
import subprocess
import sys

import pytest


def xdbg(*arguments, stdin=b""):
    return subprocess.run(
        [sys.executable, "-m", "xdbg", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )


def usage_error(*arguments):
    run = xdbg(*arguments)
    assert (run.returncode, run.stdout) == (2, b""), run.stderr
    text = run.stderr.decode()
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


HELLO = "kernel=hello,memory=8"


def test_run_shows_each_line_with_its_domains_name():
    run = xdbg("run", "--domain", f'{HELLO},name=one,extra="a, b"', "--domain", f"{HELLO},name=two")
    assert (run.returncode, run.stderr) == (0, b"")
    assert b'one:   command line "a, b"' in run.stdout
    assert b"two: PASS hello" in run.stdout


def test_one_domain_by_its_specification_is_shown_as_ever():
    assert xdbg("run", "--domain", HELLO).stdout == xdbg("run", "hello", "--memory", "8M").stdout


def test_the_exit_status_is_the_highest_and_each_crash_has_a_line():
    crash = "kernel=crash,memory=8,name=bad,extra=no-handler"
    run = xdbg("run", "--domain", HELLO, "--domain", crash)
    assert run.returncode == 3
    assert run.stderr.startswith(b"xdbg: domain bad crashed: ")
    assert run.stderr.count(b"\n") == 1
    loop = "kernel=crash,memory=8,name=loop,extra=loop"
    run = xdbg("run", "--domain", crash, "--domain", loop, "--max-instructions", 30_000_000)
    assert run.returncode == 124
    first, second = run.stderr.decode().splitlines()
    assert first.startswith("xdbg: domain bad crashed")
    assert second == "xdbg: limit reached after 30000000 instructions (loop)"


def test_each_crash_leaves_a_core_of_its_own(tmp_path):
    crash = "kernel=crash,memory=8,extra=no-handler,name="
    core = tmp_path / "core"
    run = xdbg("run", "--domain", f"{crash}a", "--domain", HELLO, "--domain", f"{crash}b", "--core", core)
    assert run.returncode == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core.a", "core.b"]


def test_trace_has_all_domains_each_with_its_own_names():
    run = xdbg("trace", "--domain", "kernel=int3,memory=8", "--domain", "kernel=tick,memory=8", "--events", "all")
    assert run.returncode == 0
    lines = run.stdout.decode().splitlines()
    assert any("d1v0" in line and "kernel_int3" in line for line in lines)
    assert any("d2v0" in line for line in lines)
    assert not any("d2v0" in line and "kernel_int3" in line for line in lines)


def test_a_configuration_file_is_a_domain(tmp_path):
    path = tmp_path / "guest.cfg"
    path.write_text('name = "cfg"\nkernel = "hello"\nmemory = 16\nextra = "from a file"\nvif = [ "" ]\n')
    run = xdbg("run", path)
    assert run.returncode == 0
    assert b'command line "from a file"' in run.stdout
    assert b"  4096 pages" in run.stdout
    assert run.stderr.decode().splitlines() == [f"xdbg: {path}:5: vif is ignored: it means nothing here"]
    run = xdbg("run", path, "--append", "instead", "--memory", "8M")
    assert b'command line "instead"' in run.stdout
    assert b"  2048 pages" in run.stdout
    run = xdbg("run", "--domain", path, "--domain", HELLO)
    assert b"cfg: PASS hello" in run.stdout
    assert b"hello: PASS hello" in run.stdout


def test_a_mistake_in_a_configuration_file_is_told_with_its_line(tmp_path):
    path = tmp_path / "guest.cfg"
    path.write_text('name = "cfg"\nkernel = "hello"\nmemory = "much"\n')
    assert usage_error("run", path) == f"Error: {path}:3: memory is not a number"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "KERNEL or --domain"),
        (("--domain", HELLO, "hello"), "there is no KERNEL"),
        (("--domain", HELLO, "--memory", "8M"), "--memory is for KERNEL"),
        (("--domain", "kernel=hello,kernel=tick"), "kernel is there twice"),
        (("--domain", f"{HELLO},name=a", "--domain", f"{HELLO},name=a"), "two domains have the name a"),
        (("--domain", HELLO, "--domain", "no-such-guest"), "no-such-guest: neither"),
        (("--domain", HELLO, "--console", "other"), "there is no domain other, only hello"),
        (("--domain", "kernel=hello,memory=1"), "between 4 MiB"),
        (("--domain", "kernel=hello,disk=/no/such/image"), "/no/such/image"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, why):
    assert why in usage_error("run", *arguments)


def test_stdio_is_for_one_domain():
    assert "one domain" in usage_error("serve", "--domain", HELLO, "--domain", HELLO, "--gdb", "stdio")


def test_debug_gives_gdb_the_first_domain_and_its_arguments():
    command = [sys.executable, "-m", "xdbg", "debug", "--domain", f"{HELLO},name=a", "--domain", "kernel=tick,memory=8"]
    run = subprocess.run(
        [*command, "--", "-batch", "-ex", "xen list", "-ex", "kill"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=os.environ | {"HOME": "/nonexistent"},
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split()[0] for line in run.stdout.decode().splitlines() if "gdb.sock" in line]
    assert rows == ["a", "tick"]
    assert b"xdbg: tick: target extended-remote " in run.stderr
