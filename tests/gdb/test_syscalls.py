"""System calls caught by gdb. It knows them by the names of Linux; the guest has numbers of its own."""

WRITE, SLEEP, FORK = 2, 5, 11


def test_caught_calls_stop_at_entry_and_return(counter):
    counter.run(f"catch syscall {WRITE}")
    counter.run(f"catch syscall {SLEEP}")
    for number in (WRITE, SLEEP, WRITE, SLEEP):
        for reason in ("syscall-entry", "syscall-return"):
            stop = counter.cont()
            assert (stop.reason, int(stop.payload["syscall-number"])) == (reason, number)
            assert (stop.function, counter.number("$orig_rax")) == ("syscall", number)
            assert counter.run("x/i $pc-2").strip().endswith("syscall")
    assert "counter" in counter.run("info threads")


def test_any_call_and_its_result(counter):
    counter.run("catch syscall")
    assert counter.cont().reason == "syscall-entry"
    length = counter.number("a2")
    assert counter.cont().reason == "syscall-return"
    assert counter.number("$rax") == length
    counter.run("tbreak compute")
    assert counter.cont().reason == "syscall-entry"
    counter.run("delete 3")
    assert counter.cont().reason == "syscall-return"


def test_the_kernel_is_looked_at_between(counter):
    counter.run(f"catch syscall {SLEEP}")
    counter.cont()
    counter.run("info threads")
    counter.select(1)
    assert "<entry_syscall>" in counter.run("x/i $pc")
    counter.run("tbreak sys_sleep")
    counter.run("set schedule-multiple on")
    assert counter.cont().function == "sys_sleep"
    counter.select(2)
    assert (counter.number("$orig_rax"), counter.backtrace()[1]) == (SLEEP, "sleep")
    assert counter.cont().reason == "syscall-return"


def test_a_condition_and_a_change_at_the_entry(counter):
    counter.run(f"catch syscall {WRITE}")
    counter.run("condition 2 $rsi > 1000")
    counter.run("tbreak compute if i == 25")
    assert counter.cont().function == "compute"
    counter.run("condition 2")
    assert counter.cont().reason == "syscall-entry"
    counter.run("set variable $rsi = 3")
    counter.cont()
    assert counter.number("$rax") == 3


def test_calls_of_the_others_are_not_caught(counter, undebugged):
    counter.run(f"catch syscall {FORK}")
    assert counter.cont().reason == "exited"
    counter.select(1)
    assert counter.run_to_end().reason == "exited-normally"
    assert counter.instructions == undebugged("tasks").instructions


def test_catching_changes_nothing_of_the_run(counter, undebugged):
    counter.run("catch syscall")
    while counter.cont().reason.startswith("syscall"):
        pass
    counter.select(1)
    assert counter.cont().reason == "exited-normally"
    plain = undebugged("tasks")
    assert counter.instructions == plain.instructions
    assert counter.guest.stop() == plain.console
