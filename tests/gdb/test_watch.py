"""Watch points of any length and number, on what the guest calls by name."""

import re


def test_watch_a_variable_of_the_kernel(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("watch current")
    stop = gdb.cont()
    assert stop.reason == "watchpoint-trigger"
    assert stop.function == "switch_to"
    assert stop.payload["value"]["old"].endswith(" 0x0")
    assert "tasks" in stop.payload["value"]["new"]


def test_watch_a_variable_of_a_process(counter):
    before = counter.number("total")
    counter.run("watch total")
    stop = counter.cont()
    assert stop.reason == "watchpoint-trigger"
    assert int(stop.payload["value"]["old"]) == before
    assert stop.function == "count"
    assert int(stop.payload["value"]["new"]) == counter.number("total") > before


def test_watch_ends_with_the_frame_of_a_local(counter):
    counter.run("tbreak square")
    counter.cont()
    counter.run("watch result")
    assert counter.cont().reason == "watchpoint-trigger"
    assert counter.cont().reason == "watchpoint-scope"


def test_rwatch_stops_at_reads_only(debuggee):
    debuggee.run("rwatch sum")
    stop = debuggee.cont()
    assert stop.reason == "read-watchpoint-trigger"
    assert (stop.function, stop.payload["value"]["value"]) == ("step", "0")
    assert debuggee.cont().payload["value"]["value"] == "1"


def test_awatch_stops_at_reads_and_writes(debuggee):
    debuggee.run("awatch sum")
    read, wrote = debuggee.cont(), debuggee.cont()
    assert read.reason == wrote.reason == "access-watchpoint-trigger"
    assert "old" not in read.payload["value"]
    assert (wrote.payload["value"]["old"], wrote.payload["value"]["new"]) == ("0", "1")


def test_watch_with_a_condition(debuggee):
    debuggee.run("watch sum if sum > 20")
    debuggee.cont()
    assert debuggee.number("sum") == 25


def test_watch_a_buffer_of_256_bytes(counter):
    counter.run("tbreak print")
    counter.cont()
    counter.run("watch -location line")
    stop = counter.cont()
    assert stop.reason == "watchpoint-trigger"
    assert stop.payload["value"]["old"] != stop.payload["value"]["new"]
    assert "format_text" in counter.backtrace()
    assert re.search(r"hw watchpoint.*-location line", counter.run("info watchpoints"))


def test_fifty_watch_points_at_once(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    for task in range(16):
        for field in ("pid", "nr_vmas", "exit_status"):
            gdb.run(f"watch tasks[{task}].{field}")
    gdb.run("watch current")
    gdb.run("watch timer_set")
    numbers = set()
    for _ in range(12):
        stop = gdb.cont()
        assert stop.reason == "watchpoint-trigger"
        numbers.add(stop.payload["wpt"]["exp"])
    assert {"tasks[0].pid", "tasks[1].pid", "tasks[0].nr_vmas", "current", "timer_set"} <= numbers


def test_two_watch_points_on_one_variable(debuggee):
    debuggee.run("watch sum")
    debuggee.run("watch steps")
    assert [debuggee.cont().payload["wpt"]["exp"] for _ in range(4)] == ["sum", "steps", "sum", "steps"]


def test_kernel_that_copies_for_a_process_hits_its_watch(processes, pids_of):
    processes.attach_process(pids_of(processes, "debugger")[0])
    processes.run("watch info.load_base")
    stop = processes.cont()
    assert stop.reason == "watchpoint-trigger"
    assert processes.backtrace()[:3] == ["syscall", "trace", "main"]
    processes.select(1)
    assert "user_write" in processes.backtrace()


def test_kernel_that_reads_for_a_process_hits_its_rwatch(counter):
    counter.run("tbreak write")
    counter.cont()
    counter.run("rwatch *(char(*)[8])text")
    stop = counter.cont()
    assert stop.reason == "read-watchpoint-trigger"
    assert counter.backtrace()[:2] == ["syscall", "write"]
    counter.select(1)
    assert "user_read" in counter.backtrace()


def test_store_of_xen_hits_a_watch_of_the_kernel(xdbg_gdb):
    gdb = xdbg_gdb("tick")
    gdb.run("tbreak main")
    gdb.cont()
    gdb.run("watch shared_info->vcpu_info[0].evtchn_upcall_pending")
    stop = gdb.cont()
    assert stop.reason == "watchpoint-trigger"
    assert gdb.number("shared_info->vcpu_info[0].evtchn_upcall_pending") == 1


def test_watch_of_one_process_is_not_hit_by_another_with_the_same_addresses(counter, pids_of):
    first, second = pids_of(counter, "counter")
    counter.run("watch total")
    for _ in range(12):
        stop = counter.cont()
        assert stop.payload["thread-id"] == "2"
        assert f"Thread {first}.{first}" in counter.run("thread")
    counter.attach_process(second)
    other = counter.number("total")
    counter.select(2)
    assert counter.number("total") != other


def test_watch_of_a_frame_that_others_write_beside_costs_no_stop(counter):
    counter.run("watch mean")
    counter.run("disable")
    counter.run("watch *(int *)(&total + 2000)")
    counter.run("tbreak print")
    assert counter.cont().reason == "breakpoint-hit"


def test_watch_is_gone_after_delete(debuggee):
    debuggee.run("watch sum")
    debuggee.cont()
    debuggee.run("delete")
    debuggee.run("break step if n == 7")
    assert debuggee.cont().reason == "breakpoint-hit"


def test_watch_on_unmapped_memory_is_no_stop_and_no_harm(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("watch *(long *)0x1000")
    assert gdb.cont().reason == "exited-normally"
