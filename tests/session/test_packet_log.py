"""A packet log of a real gdb session gives the same answers again, and a log that does not is found out."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from xdbg.cli import main
from xdbg.session.launch import launch_machine
from xdbg.session.packet_log import Entry, read_log
from xdbg.session.replay import Replay
from xdbg.testing import GdbSession


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "packets.jsonl"


def replay_command(log: Path) -> Result:
    return CliRunner().invoke(main, ["replay-packets", str(log)])


def replay(log: Path, slice_length: int = 1_000_000) -> object:
    header, entries = read_log(log)
    return Replay(
        launch_machine([domain.launch for domain in header.domains]), log.parent, slice_length=slice_length
    ).run(entries)


def kinds(log: Path) -> dict[str, int]:
    _, entries = read_log(log)
    return {kind: sum(entry.kind == kind for entry in entries) for kind in ("in", "out", "interrupt", "disconnect")}


def test_a_session_with_processes_watches_steps_and_ctrl_c_is_replayed(
    xdbg_gdb: Callable[..., GdbSession], log: Path
) -> None:
    gdb = xdbg_gdb("tasks", "--packet-log", str(log))
    gdb.run("tbreak task_sleep")
    gdb.cont()
    pid = next(pid for pid, path in gdb.processes().items() if path.endswith("/counter"))
    gdb.attach_process(pid)
    gdb.run("break compute")
    gdb.cont()
    gdb.run("watch total")
    gdb.cont()
    gdb.step()
    for _ in range(3):
        gdb.stepi()
    gdb.run("delete")
    gdb.run("set dprintf-style agent")
    gdb.run('dprintf count,"counting\\n"')
    gdb.run('dprintf square,"squaring\\n"')
    for _ in range(3):
        gdb.start_running()
        gdb.interrupt()
    gdb.run("info registers")
    gdb.monitor("ps")
    gdb.run("set var total = 7")
    gdb.run("finish &")
    gdb.quit()
    assert gdb.guest is not None
    gdb.guest.stop()
    found = kinds(log)
    assert found["interrupt"] == 3
    assert found["disconnect"] == 1
    run = replay_command(log)
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout == f"{found['in'] + found['out']} packets, all {found['out']} answers equal\n"
    assert replay(log, 99_991) is None, "where slices end is of no consequence"


def test_a_guest_that_crashes_and_the_one_after_it_are_replayed(xdbg_gdb: Callable[..., GdbSession], log: Path) -> None:
    gdb = xdbg_gdb("crash", "--packet-log", str(log), "--append", "bad-stack")
    gdb.run("break main")
    gdb.cont()
    while not gdb.cont().ended:
        pass
    gdb.quit()
    assert gdb.guest is not None
    with GdbSession(gdb.guest.address) as again:
        again.run("break main")
        assert again.cont().function == "main"
        again.quit()
    gdb.guest.stop()
    assert kinds(log)["disconnect"] == 2
    assert replay(log) is None
    assert replay(log, 12_347) is None


def test_the_first_line_that_differs_is_told(xdbg_gdb: Callable[..., GdbSession], log: Path) -> None:
    gdb = xdbg_gdb("hello", "--packet-log", str(log))
    gdb.run("break main")
    gdb.cont()
    gdb.stepi()
    gdb.close()
    assert gdb.guest is not None
    gdb.guest.stop()
    assert replay(log) is None
    lines = log.read_text().splitlines()
    place, stop = next(
        (place, json.loads(line))
        for place, line in enumerate(lines)
        if json.loads(line).get("out", "").startswith("T05sw")
    )
    for key, changed in (
        ("out", stop["out"].replace("T05", "T0b")),
        ("at", stop["at"] + 1),
        ("out", stop["out"] + "more:"),
    ):
        log.write_text("\n".join([*lines[:place], json.dumps(stop | {key: changed}), *lines[place + 1 :]]) + "\n")
        run = replay_command(log)
        assert run.exit_code == 1
        assert run.stdout.startswith(f"line {place + 1}, instruction ")
        assert "the last request was 'vCont;c" in run.stdout
    missing = [line for at, line in enumerate(lines) if at != place]
    log.write_text("\n".join(missing) + "\n")
    assert replay_command(log).exit_code == 1
    log.write_text("\n".join(lines) + '\n{"at": 12')
    assert replay(log) is None, "a line that was being written when the server ended is left out"


def test_another_kernel_and_damaged_logs_are_refused_in_one_line(xdbg_serve: Callable[..., object], log: Path) -> None:
    xdbg_serve("hello", "--packet-log", str(log)).stop()  # type: ignore[attr-defined]
    header = log.read_text()
    assert replay_command(log).stdout == "0 packets, all 0 answers equal\n"
    for text, words in (
        (header.replace('_sha256": "', '_sha256": "0'), "another kernel"),
        (header.replace('"packet_log": 1', '"packet_log": 2'), "format 2"),
        (header + "{}\n", "line 2 is damaged"),
        (header + '{"at": 1, "ns": 1, "disconnect": "fled"}\n', "line 2 is damaged"),
        ("", "is empty"),
        ("#!/bin/sh\n", "no packet log"),
    ):
        log.write_text(text)
        run = replay_command(log)
        assert (run.exit_code, run.stdout) == (2, "")
        assert words in run.stderr
        assert "Traceback" not in run.stderr


def test_a_log_replaces_no_file_unless_it_is_told_to(xdbg_serve: Callable[..., object], log: Path) -> None:
    log.write_text("precious\n")
    with pytest.raises(RuntimeError, match="--overwrite replaces it"):
        xdbg_serve("hello", "--packet-log", str(log))
    assert log.read_text() == "precious\n"
    xdbg_serve("hello", "--packet-log", str(log), "--overwrite").stop()  # type: ignore[attr-defined]
    assert json.loads(log.read_text())["kernel"] == "hello"


@pytest.mark.parametrize(
    "entry",
    [
        Entry(5, 6, "in", bytes(range(256)), line=2),
        Entry(5, 6, "in", None, line=2),
        Entry(0, 2**63, "out", b"", line=2),
        Entry(1, 1, "typed", b"\n\xff", line=2),
        Entry(1, 1, "interrupt", word="True", line=2),
        Entry(1, 1, "connect", word="3", line=2),
        Entry(1, 1, "disconnect", word="lost", line=2),
    ],
)
def test_a_line_means_what_was_written(entry: Entry) -> None:
    line = entry.encode()
    assert line.isascii()
    assert "\n" not in line
    assert Entry.decode(line, 2) == entry


def test_what_was_typed_at_the_console_is_part_of_the_log(log: Path) -> None:
    command = [sys.executable, "-m", "xdbg", "serve", "crash", "--append", "loop", "--gdb", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--packet-log", str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            with GdbSession(server.stdout.readline().decode().split()[-1]) as gdb:
                gdb.run("tbreak loop")
                gdb.cont()
                gdb.start_running()
                server.stdin.write(b"typed by hand\n")
                server.stdin.flush()
                while '"typed"' not in log.read_text():
                    gdb.interrupt()
                    gdb.start_running()
                gdb.interrupt()
                found = gdb.run("maintenance packet qSearch:memory:ffffffff80100000;100000;typed by hand")
                assert 'received: "1,' in found, "it is in the console's ring"
        finally:
            server.terminate()
    assert replay(log) is None
    lines = log.read_text().splitlines()
    log.write_text("\n".join(line for line in lines if '"typed"' not in line) + "\n")
    assert replay(log) is not None


def test_a_full_disk_ends_the_log_and_not_the_session(xdbg_gdb: Callable[..., GdbSession]) -> None:
    gdb = xdbg_gdb("hello", "--packet-log", "/dev/full", "--overwrite")
    gdb.run("break main")
    assert gdb.cont().function == "main"
    assert gdb.run_to_end().ended
    assert gdb.guest is not None
    gdb.guest.stop()
    assert gdb.guest.errors.splitlines().count("xdbg: the packet log ends here: No space left on device") == 1
