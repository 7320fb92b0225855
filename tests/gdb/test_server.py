"""The server, and the debuggers that come and go."""

import socket
import subprocess
import sys

import pytest

from xdbg.testing import GdbSession, serve


def tcp(guest):
    host, _, port = guest.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_gdb_that_detaches_lets_the_guest_run(xdbg_serve):
    guest = xdbg_serve("hello")
    with GdbSession(guest.address) as gdb:
        gdb.run("detach")
        gdb.quit()
    with GdbSession(guest.address) as gdb:
        gdb.run_to_end()
    assert "PASS hello" in guest.stop()


def test_next_gdb_finds_the_domain_where_the_killed_one_left_it(xdbg_serve):
    guest = xdbg_serve("tasks")
    with GdbSession(guest.address) as gdb:
        gdb.run("break task_sleep")
        gdb.cont()
        count = gdb.instructions
        gdb.attach_process(2)
        gdb.run("break square")
    with GdbSession(guest.address) as gdb:
        assert gdb.backtrace()[0] == "task_sleep"
        assert gdb.instructions == count
        assert gdb.cont().reason == "exited-normally"


def test_server_starts_anew_after_the_guest_has_ended(xdbg_serve):
    guest = xdbg_serve("hello")
    for _ in range(3):
        with GdbSession(guest.address) as gdb:
            assert gdb.run("info symbol $pc").startswith("_start")
            assert gdb.cont().reason == "exited-normally"
            gdb.quit()
    assert guest.stop().count("PASS hello") == 3


def test_kill_starts_anew(xdbg_serve):
    guest = xdbg_serve("hello")
    with GdbSession(guest.address) as gdb:
        gdb.run("break printk")
        gdb.cont()
        gdb.run("kill")
        gdb.quit()
    with GdbSession(guest.address) as gdb:
        assert gdb.run("info symbol $pc").startswith("_start")


def test_gdb_that_vanishes_while_the_guest_runs(xdbg_serve):
    guest = xdbg_serve("crash", "--append", "loop")
    with GdbSession(guest.address) as gdb:
        gdb.start_running()
    with GdbSession(guest.address) as gdb:
        count = gdb.instructions
        gdb.stepi()
        assert gdb.instructions == count + 1


def test_client_that_vanishes_in_mid_packet(xdbg_serve):
    guest = xdbg_serve("hello")
    for part in (b"$", b"$qSupp", b"$qSupported#", b"$qSupported#3", b"+", b"$m0,4#fd$g"):
        with tcp(guest) as client:
            client.sendall(part)
    with GdbSession(guest.address) as gdb:
        assert gdb.cont().reason == "exited-normally"


def test_unix_socket(tmp_path):
    path = tmp_path / "gdb.sock"
    with serve("hello", address=f"unix:{path}") as guest, GdbSession(guest.address) as gdb:
        gdb.run("break main")
        assert gdb.cont().function == "main"
    assert not path.exists()


def test_stdio(tmp_path):
    command = f"{sys.executable} -m xdbg serve hello --gdb stdio"
    with GdbSession(f"| {command}", extended=False) as gdb:
        gdb.run("break main")
        assert gdb.cont().function == "main"
        assert gdb.cont().reason == "exited-normally"


@pytest.mark.parametrize("script", [("-ex", "break main", "-ex", "continue", "-ex", "backtrace")])
def test_xdbg_debug_in_batch(script):
    done = subprocess.run(
        [sys.executable, "-m", "xdbg", "debug", "hello", "--", "-nx", "-batch", *script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "Breakpoint 1, main (" in done.stdout


def test_xdbg_debug_ends_with_the_status_of_gdb():
    done = subprocess.run(
        [sys.executable, "-m", "xdbg", "debug", "hello", "--", "-nx", "-batch", "-ex", "continue", "-ex", "quit 7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 7
    assert "PASS hello" in done.stderr


def test_server_ends_on_sigterm_with_gdb_attached(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "loop")
    gdb.start_running()
    gdb.guest.stop()
    assert not gdb.guest.alive
    assert "Traceback" not in gdb.guest.errors
