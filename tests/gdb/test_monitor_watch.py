"""Watches with conditions, which gdb has not: set, listed, hit and removed from its prompt."""


def test_a_watch_stops_when_its_condition_holds(counter):
    made = counter.monitor("watch total if new > 200 && new != old && $rsp > 0x1000")
    assert made == f"watch 1: total 4 w if new > 200 && new != old && $rsp > 0x1000, at {counter.number('&total'):#x}\n"
    stop = counter.cont()
    assert (stop.signal, stop.function, stop.payload["thread-id"]) == ("SIGTRAP", "count", "2")
    total, value = counter.number("total"), counter.number("value")
    assert total - value <= 200 < total
    shown = f"watch 1: total 4 w if new > 200 && new != old && $rsp > 0x1000: {total - value:#x} -> {total:#x}\n"
    assert shown in counter.printed
    counter.cont()
    why = counter.monitor("why")
    assert why.startswith("watch 1: total 4 w if")
    assert f": {total:#x} -> {counter.number('total'):#x}\n" in why
    row = counter.monitor("watch").splitlines()[1].split()
    assert row[:3] == ["1", str(counter.number("i") - 10), "2"]
    assert counter.monitor("unwatch 1") == "0 left\n"
    assert counter.monitor("watch") == "no watches\n"
    assert counter.run_to_end().reason.startswith("exited")


def test_kernel_memory_registers_reads_and_gdbs_own_watch_at_the_same_place(counter, undebugged):
    counter.select(1)
    tasks = counter.number("&tasks")
    size = counter.number("sizeof tasks[0]")
    counter.monitor(f"watch current 8 rw if u64[current] == tasks + {2 * size} && new != old")
    stop = counter.cont()
    assert (stop.signal, stop.function) == ("SIGTRAP", "switch_to")
    assert counter.number("current") == tasks + 2 * size
    counter.monitor("unwatch all")
    counter.run("watch current")
    counter.monitor("watch current if 0")
    stop = counter.cont()
    assert stop.reason == "watchpoint-trigger"
    counter.run("delete")
    assert counter.monitor("watch").splitlines()[1].split()[1:3] >= ["1", "0"]
    counter.monitor(f"watch {tasks:#x}+{size} 16 r if (s64)$rsp < 0")
    assert counter.cont().signal == "SIGTRAP"
    counter.monitor("unwatch all")
    counter.run("detach inferior 2")
    while not counter.cont().ended:
        pass
    assert counter.instructions == undebugged("tasks").instructions
    assert counter.guest.stop() == undebugged("tasks").console


def test_bad_watches_are_refused_in_one_line(counter):
    for bad in (
        *("watch nosuch", "watch total 0", "watch total x", "watch total 4 x", "watch total if", "watch 1 2 3 w"),
        *("watch total if new >", "watch total if nosuch", "watch total 3 if new", "watch u8[16]", "unwatch 9"),
        *("unwatch", "unwatch x", "watch total if $nothing", f"watch total {1 << 40}"),
    ):
        said = counter.monitor(bad)
        assert said.count("\n") == 1, bad
        assert not said.startswith("watch "), bad
    assert counter.monitor("watch") == "no watches\n"
