"""Two real gdbs on two domains of one machine: neither notices the other, but the machine stands when one stops."""

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from xdbg.cli import main
from xdbg.session.listener import Listener, parse_address
from xdbg.testing import GdbSession, Stop, serve_domains

TICK = "kernel=tick,memory=8"
CRASH = "kernel=crash,memory=8,name=crash"
LOOP = "kernel=crash,memory=8,name=loop,extra=loop"

Domains = Callable[..., list[GdbSession]]


def whoever_stops(*sessions: GdbSession) -> tuple[GdbSession, Stop]:
    """The first of several that run to stop."""
    for _ in range(3000):
        for session in sessions:
            if (stop := session.poll()) is not None:
                return session, stop
    raise TimeoutError("nobody stops")


def hits(session: GdbSession) -> int:
    """How often its first breakpoint was hit."""
    text = session.run("info breakpoints")
    return int(text.partition("already hit ")[2].split()[0])


def test_breakpoints_at_one_address_stop_each_domain_by_itself(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", f"{TICK},name=b")
    for gdb in (a, b):
        gdb.run("break check")
        gdb.start_running()
    running, counts = [a, b], [0]
    while running:
        gdb, stop = whoever_stops(*running)
        if stop.ended:
            running.remove(gdb)
            continue
        assert (stop.reason, stop.function) == ("breakpoint-hit", "check")
        counts.append(gdb.instructions)
        gdb.start_running()
    assert counts == sorted(counts), "one machine, one time"
    assert hits(a) == hits(b) > 10
    assert a.guest is not None
    console = a.guest.stop()
    assert "a: PASS tick" in console
    assert "b: PASS tick" in console


def test_a_breakpoint_of_one_is_nothing_to_the_other_at_the_same_address(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", f"{TICK},name=b")
    a.run("break check")
    b.start_running()
    for _ in range(3):
        assert a.cont().function == "check"
    a.run("delete")
    a.start_running()
    assert b.wait().ended
    assert hits_of_none(b)
    assert a.wait().ended


def hits_of_none(session: GdbSession) -> bool:
    return "No breakpoints" in session.run("info breakpoints")


def test_the_machine_stands_before_the_first_instruction_and_while_one_is_stopped(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", LOOP)
    assert a.instructions == b.instructions == 0
    b.start_running()
    assert a.instructions == 0, "a holds it"
    a.run("break main")
    a.cont()
    at = a.instructions
    assert at > 0
    for _ in range(20):
        assert a.instructions == at, "b is resumed, and does not run"
    stop = b.interrupt()
    assert stop.signal == "SIGINT"
    assert b.instructions == at, "Ctrl-C is heard while the machine stands"


def test_steps_of_one_while_the_other_runs(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", LOOP)
    b.start_running()
    a.run("break main")
    a.cont()
    for _ in range(10):
        before, count = a.number("$rip"), a.instructions
        a.stepi()
        assert a.number("$rip") != before
        assert a.instructions == count + 1
    a.next()
    a.step()
    b.interrupt()


def test_both_step(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(LOOP, f"{LOOP},name=other".replace("name=loop,", ""))
    for gdb in (a, b):
        gdb.run("break loop")
        gdb.start_running()
    first, _ = whoever_stops(a, b)
    first.start_running()
    second, _ = whoever_stops(a, b)
    assert second is not first, "each has come to its own breakpoint"
    first.interrupt()
    for _ in range(3):
        first.start_running("stepi")
        second.start_running("stepi")
        who, stop = whoever_stops(first, second)
        assert stop.reason == "end-stepping-range"
        other = second if who is first else first
        who.start_running()  # the other one's step is made when its domain gets the CPU
        stepped, stop = whoever_stops(first, second)
        assert (stepped is other, stop.reason) == (True, "end-stepping-range")
        who.interrupt()


def test_one_crashes_and_the_other_runs_on(xdbg_domains: Domains) -> None:
    crash, tick = xdbg_domains(f"{CRASH},extra=no-handler", f"{TICK},name=tick")
    tick.start_running()
    stop = crash.cont()
    assert stop.signal == "SIGABRT", "it can be looked at"
    at = crash.instructions
    assert "crashed" in crash.monitor("info domain")
    assert crash.instructions == at, "and holds the machine"
    assert crash.cont().reason == "exited-signalled"
    assert tick.wait().reason == "exited-normally"
    assert tick.guest is not None
    assert "tick: PASS tick" in tick.guest.stop()


def test_a_domain_without_a_debugger_crashes_and_the_other_runs_on(xdbg_domains: Domains) -> None:
    crash, tick = xdbg_domains(f"{CRASH},extra=no-handler", f"{TICK},name=tick")
    crash.run("detach")
    tick.run("break check if wrong == 1000")
    assert tick.run_to_end().reason == "exited-normally"
    listed = tick.monitor("list").splitlines()
    assert next(line for line in listed if line.startswith("crash")).split()[4] == "---sc-"
    assert next(line for line in listed if line.startswith("tick")).split()[4] == "---s--"


def test_detach_vanish_and_come_again(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(LOOP, f"{LOOP.replace('name=loop', 'name=other')}")
    a.run("break main")
    b.run("break main")
    a.start_running()
    b.start_running()
    whoever_stops(a, b)
    assert a.guest is not None
    a.close()  # it vanishes: its domain holds nothing any more
    if b.poll() is None:
        b.interrupt()
    b.run("delete")
    at = b.instructions
    b.start_running()
    with GdbSession(a.guest.addresses["loop"]) as again:
        count = again.instructions
        assert count >= at, "who connects stops the machine"
        assert again.instructions == count
        again.run("detach")
        again.quit()
    stop = b.interrupt()
    assert stop.signal == "SIGINT"
    assert b.instructions > at, "without it the machine goes on"


def test_a_domain_that_is_killed_is_made_anew_and_waits_while_the_other_runs_on(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(LOOP, f"{TICK},name=tick")
    b.run("break check")
    a.start_running()
    b.cont()
    a.interrupt()
    a.run("kill")
    a.quit()
    assert b.cont().function == "check"
    rows = {line.split()[0]: line.split() for line in b.monitor("list").splitlines()[1:]}
    assert rows["loop"][1] == "3", "destroyed, and created again"
    assert rows["loop"][4] == "--p---"
    assert rows["loop"][5] == "0"
    assert b.guest is not None
    with GdbSession(b.guest.addresses["loop"]) as again:
        b.run("delete")
        again.run("break main")
        b.start_running()
        assert again.cont().function == "main", "it begins when its debugger lets it"
        again.run("delete")
        again.start_running()
        assert b.wait().ended
    assert "domain loop starts anew" in b.guest.errors


def test_run_makes_one_domain_anew_and_confuses_neither_gdb(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", f"{TICK},name=b")
    b.run("break check")
    a.run("break main")
    b.start_running()
    a.cont()
    a.start_running("run again")
    running, begun, stops = [a, b], 0, 0
    while running:
        gdb, stop = whoever_stops(*running)
        if stop.ended:
            running.remove(gdb)
            continue
        assert (gdb is a, stop.function) in {(True, "main"), (False, "check")}
        if gdb is a:
            begun += 1
            assert a.evaluate("(char *)command_line").endswith('"again"')
            rows = {line.split()[0]: line.split()[1] for line in a.monitor("list").splitlines()[1:]}
            assert rows == {"a": "3", "b": "2"}
        else:
            stops += 1
        gdb.start_running()
    assert begun == 1, "the breakpoint is in force in the new domain"
    assert stops == hits(b) > 10
    assert a.guest is not None
    console = a.guest.stop()
    assert "a: PASS tick" in console
    assert "b: PASS tick" in console


def test_a_debugger_in_non_stop_and_one_in_all_stop(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", LOOP)
    assert a.guest is not None
    a.quit()
    with GdbSession(a.guest.addresses["a"], settings=["non-stop on"]) as non_stop:
        b.start_running()
        non_stop.run("break check")
        non_stop.start_running()
        assert non_stop.wait().function == "check"
        at = non_stop.instructions
        assert non_stop.instructions == at, "its only vcpu stands, and so does the machine"
        assert b.interrupt().signal == "SIGINT"
        non_stop.run("delete")
        non_stop.start_running()
        b.start_running()
        assert non_stop.wait().ended
        assert b.interrupt().signal == "SIGINT"


def test_observers_are_those_of_their_domain(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", LOOP)
    assert a.guest is not None
    with GdbSession(a.guest.addresses["a"]) as observer:
        observer.start_running()
        b.run("break main")
        a.start_running()
        assert b.cont().function == "main"
        assert observer.poll() is None, "another domain's stop is not told"
        b.run("delete")
        b.start_running()
        a.interrupt()
        assert observer.wait().signal == "SIGINT"
        assert "observe" in observer.monitor("pause loop")
        assert "loop" in observer.monitor("list")


def test_pause_and_unpause_another_domain(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(LOOP, f"{TICK},name=tick")
    assert "debugged here" in a.monitor("pause loop")
    assert "paused" in a.monitor("pause tick")
    b.start_running()
    a.run("break loop")
    assert a.cont().function == "loop"
    a.run("delete")
    rows = {line.split()[0]: line.split() for line in a.monitor("list").splitlines()[1:]}
    assert rows["tick"][4:6] == ["--p---", "0"], "it has executed nothing"
    a.monitor("unpause 2")
    a.start_running()
    assert b.wait().ended
    assert b.guest is not None
    a.interrupt()


def test_info_os_and_list_show_all_domains_and_their_addresses(xdbg_domains: Domains) -> None:
    a, b = xdbg_domains(f"{TICK},name=a", LOOP)
    table = a.run("info os domains")
    assert "loop" in table
    assert " a " in table
    assert a.guest is not None
    for name, address in a.guest.addresses.items():
        row = next(line for line in b.monitor("list").splitlines() if line.startswith(name))
        assert address in row
        assert row.endswith("(this one)") == (name == "loop")
    assert b.run('interpreter-exec console "monitor list"') == b.monitor("list")


def test_a_session_with_two_debuggers_is_replayed(xdbg_domains: Domains, tmp_path: Path) -> None:
    log = tmp_path / "packets.jsonl"
    a, b = xdbg_domains(f"{TICK},name=a", f"{CRASH},extra=no-handler", options=["--packet-log", str(log)])
    a.run("break check")
    b.start_running()
    a.cont()
    a.stepi()
    a.run("delete")
    a.start_running()
    assert b.wait().signal == "SIGABRT"
    b.run("info registers")
    assert b.go("run").signal == "SIGABRT"
    b.run("kill")
    b.quit()
    assert a.wait().ended
    a.quit()
    assert a.guest is not None
    a.guest.stop()
    run = CliRunner().invoke(main, ["replay-packets", str(log)])
    assert (run.exit_code, run.stderr) == (0, ""), run.stdout
    assert "answers equal" in run.stdout


def test_domains_get_the_ports_that_follow(tmp_path: Path) -> None:
    listener = Listener(parse_address("127.0.0.1:0"))
    port = int(listener.name.rpartition(":")[2])
    listener.close()
    with serve_domains(TICK, LOOP, address=f"127.0.0.1:{port}") as served:
        assert served.addresses == {"tick": f"127.0.0.1:{port}", "loop": f"127.0.0.1:{port + 1}"}
    path = tmp_path / "gdb"
    with serve_domains(TICK, LOOP, address=f"unix:{path}") as served:
        assert served.addresses == {"tick": str(path), "loop": f"{path}.loop"}
