"""Breakpoints belong to an address space, are many, and are seen by nobody in the guest."""

import pytest


def test_hardware_and_software_breakpoint_at_one_address(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break printk")
    gdb.run("hbreak printk")
    assert gdb.cont().function == "printk"
    gdb.run("delete 1")
    assert gdb.cont().function == "printk"
    gdb.run("delete 2")
    assert gdb.cont().reason == "exited-normally"


def test_breakpoint_in_one_process_does_not_stop_the_other_on_the_same_frames(counter, pids_of):
    first, second = pids_of(counter, "counter")
    text = counter.monitor(f"translate {counter.number('&square'):#x}")
    counter.attach_process(second)
    assert counter.monitor(f"translate {counter.number('&square'):#x}") == text
    counter.select(2)
    counter.run("break square thread 2.1")
    for _ in range(15):
        assert counter.cont().payload["thread-id"] == "2"
        assert f"Thread {first}.{first}" in counter.run("thread")


def test_breakpoint_of_an_unattached_twin_never_stops(counter):
    before = counter.number("total")
    counter.run("break compute")
    hits = 0
    while not (stop := counter.cont()).ended:
        assert stop.function == "compute"
        hits += 1
    assert hits == 40 - 10
    assert before == 76


def test_breakpoint_in_both_processes_stops_both(counter, pids_of):
    counter.attach_process(pids_of(counter, "counter")[1])
    counter.run("set schedule-multiple on")
    counter.run("break square")
    assert {counter.cont().payload["thread-id"] for _ in range(30)} == {"2", "3"}


def test_kernel_breakpoint_and_process_breakpoint_in_one_session(counter):
    counter.run("set schedule-multiple on")
    counter.run("break square")
    counter.run("break sys_sleep")
    stops = [counter.cont() for _ in range(14)]
    assert {stop.function for stop in stops} == {"square", "sys_sleep"}
    assert {stop.payload["thread-id"] for stop in stops} == {"1", "2"}


def test_a_name_in_kernel_and_process_gets_a_place_in_each(counter):
    assert counter.run("break main").endswith("(2 locations)\n")


def test_two_hundred_breakpoints_are_hit_where_they_are(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    gdb.run("rbreak console.c:.")
    start = gdb.number("&_start")
    for offset in range(200):
        gdb.run(f"break *{start + offset}")
    stop = gdb.cont()
    assert stop.reason == "breakpoint-hit"
    assert stop.function == "printk"


def test_true_bytes_are_read_where_breakpoints_are(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    before = gdb.run("x/16xb main")
    gdb.run("set breakpoint always-inserted on")
    gdb.run("break *main")
    gdb.cont()
    assert gdb.run("x/16xb main") == before


def test_breakpoint_that_is_kept_inserted_is_passed_once(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("set breakpoint always-inserted on")
    gdb.run("break printk")
    counts = []
    for _ in range(3):
        assert gdb.cont().function == "printk"
        counts.append(gdb.instructions)
    assert sorted(set(counts)) == counts


def test_breakpoint_at_an_address_that_is_not_mapped_is_harmless(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("hbreak *0x1000")
    assert gdb.cont().reason == "exited-normally"


@pytest.mark.parametrize("place", ["*0xffffffffffffffff", "*0x8000000000000000", "*0"])
def test_breakpoint_at_a_strange_address_is_harmless(xdbg_gdb, place):
    gdb = xdbg_gdb("hello")
    gdb.run(f"break {place}")
    assert gdb.cont().reason == "exited-normally"
