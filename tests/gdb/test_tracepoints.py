"""Tracepoints of a real gdb: what is collected, when a trace ends, and what is found again."""

import re

import pytest

from xdbg.testing import GdbError, GdbSession

# pygdbmi stumbles over the commands of a breakpoint as MI 3 shows them, and says so by a function that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")


def trace(gdb: GdbSession, place: str, *actions: str) -> int:
    """A tracepoint with actions; its number."""
    number = int(gdb.run(f"trace {place}").split()[1])
    gdb.mi(f"-break-commands {number} " + " ".join(f'"{action}"' for action in actions))
    return number


def look_away(gdb: GdbSession) -> None:
    """As `tfind none`, whose notification pygdbmi can't read."""
    gdb.mi("-trace-find none")


def to(gdb: GdbSession, place: str) -> None:
    gdb.run(f"tbreak {place}")
    gdb.cont()


def values(gdb: GdbSession, *expressions: str) -> list[list[str]]:
    """Expressions in each of the frames."""
    found = []
    if ended_by(gdb) == "Trace is running on the target.":
        gdb.run("tstop")
    gdb.run("tfind start")
    while True:
        found.append([gdb.evaluate(expression) for expression in expressions])
        try:
            gdb.run("tfind")
        except GdbError:
            look_away(gdb)
            return found


def collected(gdb: GdbSession) -> int:
    (count,) = re.findall(r"Collected (\d+) trace frames", gdb.run("tstatus"))
    return int(count)


def ended_by(gdb: GdbSession) -> str:
    return gdb.run("tstatus").splitlines()[0]


def test_a_process_is_traced_under_a_condition_up_to_a_pass_count(counter):
    counter.run("tvariable $sum = 100")
    number = trace(counter, "square if x % 3 == 0", "collect $args, total", "teval $sum = $sum + x", "collect $sum")
    counter.run(f"passcount 4 {number}")
    counter.run("set schedule-multiple on")
    counter.run("tstart")
    to(counter, "compute if i == 16")
    assert collected(counter) == 2
    to(counter, "compute if i == 38")
    assert ended_by(counter) == f"Trace stopped by tracepoint {number}."
    assert "already hit 4 times" in counter.run("info tracepoints")
    frames = values(counter, "x", "$sum", "total")
    assert [(x, total) for x, total, _ in frames] == [("12", "112"), ("15", "127"), ("18", "145"), ("21", "166")]
    assert counter.number("$sum") == 166
    totals = [int(total) for _, _, total in frames]
    assert sorted(set(totals)) == totals
    counter.run("tfind start")
    assert "<unavailable>" in counter.run("print mean")
    with pytest.raises(GdbError, match="Cannot access memory"):
        counter.run("set var total = 0")
    look_away(counter)
    assert counter.number("total") > totals[-1]


def test_steps_of_a_process_are_those_that_stepi_takes_through_system_calls(xdbg_gdb, pids_of):
    steps = 150
    stepping, tracing = xdbg_gdb("tasks"), xdbg_gdb("tasks")
    for gdb in (stepping, tracing):
        to(gdb, "task_sleep")
        gdb.attach_process(pids_of(gdb, "counter")[0])
        gdb.run("set schedule-multiple on")
    to(stepping, "square if x == 20")
    places = [stepping.stepi().address for _ in range(steps)]
    trace(tracing, "square if x == 20", f"while-stepping {steps}", "collect $rip", "end")
    tracing.run("tstart")
    to(tracing, "compute if i == 23")
    assert [int(pc, 0) for (pc,) in values(tracing, "(unsigned long)$pc")][1:] == places


def test_steps_of_the_kernel_are_those_that_stepi_takes_through_hypercalls_and_upcalls(xdbg_gdb):
    steps = 150
    stepping, tracing = xdbg_gdb("tick"), xdbg_gdb("tick")
    for gdb in (stepping, tracing):
        to(gdb, "notify_self")
    stepping.run("monitor step-mask off")
    places = [stepping.stepi().address for _ in range(steps)]
    assert {stepping.number("&hypercall_page"), stepping.number("&count")} <= {*places, *(at & -4096 for at in places)}
    # Where the guest stands already, the tracepoint counts, too.
    trace(tracing, "*$pc", f"while-stepping {steps}", "collect $rip", "end")
    tracing.run("passcount 1")
    tracing.run("tstart")
    to(tracing, "masked_port")
    assert [int(pc, 0) for (pc,) in values(tracing, "(unsigned long)$pc")][1:] == places


def test_frames_are_found_saved_and_read_from_the_file(xdbg_gdb, tmp_path):
    gdb = xdbg_gdb("tasks")
    actions = ("collect $regs, $args, $_ret, $trace_timestamp", "while-stepping 2", "collect $regs", "end")
    trace(gdb, "task_sleep", *actions)
    ended = trace(gdb, "task_exit", "collect $regs, $args", "collect/s task->name")
    gdb.run("set trace-user somebody")
    gdb.run("tstart a test")
    assert ended_by(gdb) == "Trace is running on the target."
    to(gdb, "task_exit")
    gdb.run("tstop enough")
    status = gdb.run("tstatus")
    assert "Trace stopped by a tstop command (enough)." in status
    assert "Trace user is somebody." in status
    assert collected(gdb) == 7
    saved = tmp_path / "trace"
    gdb.run(f"tsave {saved}")
    with pytest.raises(GdbError, match="Target does not support this command"):
        gdb.run("tsave -r trace")
    live = shown(gdb, ended)
    # By program counter; in a file gdb takes the tracepoint's address for that of its steps.
    place = gdb.number("&task_sleep")
    assert found(gdb, "start") == 0
    assert found(gdb, "pc") == 3
    assert found(gdb, "2") == 2
    assert found(gdb, "line") == 3
    assert found(gdb, "start") == 0
    assert found(gdb, f"outside {place},{place + 1}") == 1
    assert found(gdb, f"range {place},{place + 1}") == 3
    assert found(gdb, f"pc {gdb.number('&task_exit')}") == 6
    look_away(gdb)
    assert gdb.backtrace()[0] == "task_exit"
    with pytest.raises(GdbError, match="No current trace frame"):
        gdb.run("tdump")
    gdb.run("disconnect")
    gdb.run(f"target tfile {saved}")
    assert gdb.run("tstatus").startswith("Using a trace file.")
    assert shown(gdb, ended) == live


def found(gdb: GdbSession, which: str) -> int:
    """The number of the frame that `tfind` finds."""
    return int(gdb.run(f"tfind {which}").split()[3].rstrip(","))


def shown(gdb: GdbSession, ended: int) -> list[str]:
    """What gdb shows of some frames."""
    assert found(gdb, "start") == 0
    dump = gdb.run("tdump")
    assert re.search(r"\nrip .*<task_sleep>\n.*\nwake_ns = \d+\n.*\$trace_timestamp = \d+\n", dump, re.DOTALL)
    assert gdb.backtrace()[0] == "task_sleep"
    assert found(gdb, "") == 1
    assert gdb.number("$pc") > gdb.number("&task_sleep")
    assert found(gdb, "-") == 0
    assert found(gdb, "tracepoint") == 1
    assert found(gdb, f"tracepoint {ended}") == 6
    name = gdb.evaluate("task->name")
    assert name.startswith('"fault')
    assert gdb.evaluate("task->pid") == "<unavailable>"
    with pytest.raises(GdbError, match="failed to find requested trace frame"):
        gdb.run("tfind 7")
    return [dump, name]


def test_a_trace_ends_at_an_error_or_when_the_buffer_is_full_unless_that_is_circular(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    number = trace(gdb, "sys_sleep", "collect $regs")
    gdb.run("set trace-buffer-size 1000")
    gdb.run("tstart")
    to(gdb, "task_exit")
    assert ended_by(gdb) == "Trace stopped because the buffer was full."
    assert collected(gdb) == 1
    gdb.run("set circular-trace-buffer on")
    gdb.run("tstart")
    to(gdb, "task_exit")
    to(gdb, "task_exit")
    assert ended_by(gdb) == "Trace is running on the target."
    assert "Collected 1 trace frames.\n" not in gdb.run("tstatus")
    gdb.run("tstop")
    gdb.run("tfind 0")
    with pytest.raises(GdbError):
        gdb.run("tfind 1")
    look_away(gdb)
    with pytest.raises(GdbError):
        gdb.run("set trace-buffer-size 1000000000")
    gdb.run("set trace-buffer-size unlimited")
    gdb.run(f"condition {number} *(long *)0x10 == 1")
    gdb.run("tstart")
    to(gdb, "task_exit")
    assert ended_by(gdb) == f"Trace stopped by an error (memory at 0x10 can't be read, tracepoint {number})."
    assert collected(gdb) == 0


def test_tracepoints_come_and_go_while_the_trace_runs(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    slept = trace(gdb, "task_sleep", "collect $regs")
    gdb.run("tstart")
    to(gdb, "task_exit")
    assert collected(gdb) == 2
    trace(gdb, "task_exit", "collect $regs")
    gdb.run(f"disable {slept}")
    to(gdb, "task_exit")
    assert collected(gdb) == 3  # what the guest stood at counts, where it stands does not yet
    gdb.run(f"enable {slept}")
    to(gdb, "task_exit")
    frames = values(gdb, "(unsigned long)$pc")
    kinds = [int(pc, 0) - gdb.number("&task_sleep") for (pc,) in frames]
    assert kinds.count(0) == len(kinds) - 2 > 2


def test_a_breakpoint_and_steps_at_a_tracepoint_count_each_hit_once(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    trace(gdb, "*task_sleep", "collect $regs")
    trace(gdb, "*task_sleep + 7", "collect $regs")
    gdb.run("tstart")
    gdb.run("break *task_sleep")
    # Also where a step ends, and the next resume goes past it.
    for command in ("continue", "stepi", "continue", "stepi", "stepi", "continue"):
        gdb.go(command)
    gdb.run("set breakpoint always-inserted on")
    gdb.run("hbreak *task_sleep")
    gdb.cont()
    gdb.cont()
    assert gdb.backtrace()[0] == "task_sleep"
    assert collected(gdb) == 9  # gdb asks how often each was hit
    assert re.findall(r"already hit (\d) time", gdb.run("info tracepoints")) == ["5", "4"]


def test_a_trace_goes_on_without_gdb_and_is_shown_to_the_next(xdbg_serve):
    guest = xdbg_serve("tasks")
    with GdbSession(guest.address) as gdb:
        trace(gdb, "task_exit if status == 139 || status == 64", "collect status", "collect/s task->name")
        gdb.run("set disconnected-tracing on")
        gdb.run("tvariable $left = -3")
        gdb.run("tstart before I leave")
        gdb.run("detach")
        gdb.quit()
    with GdbSession(guest.address) as gdb:
        if ended_by(gdb) == "Trace is running on the target.":
            gdb.run("tbreak shutdown")
            gdb.cont()
        assert "before I leave" in gdb.run("tstatus")
        listed = gdb.run("info tracepoints")
        assert "trace only if status == 139 || status == 64" in listed
        assert "collect/s task->name" in listed
        assert "-3" in gdb.run("info tvariables")
        assert [row[0] for row in values(gdb, "status")] == ["139", "64", "64"]


def test_a_trace_ends_when_gdb_leaves_unless_told_otherwise(xdbg_serve):
    guest = xdbg_serve("tasks")
    with GdbSession(guest.address) as gdb:
        trace(gdb, "task_exit", "collect $regs")
        gdb.run("tstart")
        to(gdb, "task_exit")
        gdb.quit()
    with GdbSession(guest.address) as gdb:
        assert ended_by(gdb) == "Trace stopped because of disconnection."
        assert gdb.run("tfind start").startswith("Found trace frame 0")
        assert gdb.backtrace()[0] == "task_exit"
