"""The same in a process of the guest, which the kernel may preempt at any time."""


def test_break_and_backtrace_with_source_lines(counter):
    counter.run("break square")
    stop = counter.cont()
    assert (stop.reason, stop.source) == ("breakpoint-hit", "int result = x * x;")
    assert stop.file.endswith("counter.c")
    assert counter.backtrace() == ["square", "compute", "count", "main"]


def test_step_into_next_over_and_finish(counter):
    counter.run("tbreak compute")
    assert counter.cont().source == "int squared = square(i);"
    assert counter.next().source == "int rest = squared % 7;"
    counter.run("tbreak compute")
    counter.cont()
    assert counter.step().function == "square"
    x = counter.number("x")
    stop = counter.finish()
    assert (stop.function, stop.payload["return-value"]) == ("compute", str(x * x))


def test_until_leaves_a_loop_and_advance_reaches_a_function(counter):
    counter.run("tbreak count")
    counter.run("tbreak counter.c:34")
    stop = counter.cont()
    assert stop.source == "total += value;"
    assert counter.go("advance square").function == "square"
    assert counter.go("until 18").source == "return result;"


def test_next_over_a_system_call_that_sleeps(counter):
    counter.run("tbreak sleep")
    counter.cont()
    counter.run("up")
    counter.run("tbreak print")
    counter.cont()
    counter.finish()
    while counter.next().source != "sleep(1);":
        pass
    before = counter.instructions
    assert counter.next().function == "count"
    assert counter.instructions > before + 1000


def test_step_through_many_lines_while_others_run(counter):
    counter.run("tbreak compute")
    counter.cont()
    lines = [counter.step() for _ in range(30)]
    assert {stop.function for stop in lines} >= {"compute", "square", "count"}
    assert {stop.payload["thread-id"] for stop in lines} == {"2"}


def test_set_variable_changes_what_the_process_says(counter):
    counter.run("tbreak compute")
    counter.cont()
    before = counter.number("total")
    counter.run("set variable total = total + 100000")
    assert counter.number("total") == before + 100000
    counter.run("delete")
    counter.run("tbreak print")
    counter.cont()
    counter.finish()
    counter.run("detach")
    counter.select(1)
    counter.run_to_end()
    assert "counter a: round 20, total 1002" in counter.guest.stop()


def test_writing_a_register_of_a_process_that_does_not_run(counter):
    counter.run("set variable $r15 = 0xabcdef")
    counter.run("tbreak count")
    assert counter.number("$r15") == 0xABCDEF
    counter.run("tbreak compute")
    counter.cont()
    assert counter.number("$r15") == 0xABCDEF


def test_writing_a_register_of_the_running_process(counter):
    counter.run("tbreak square")
    counter.cont()
    counter.run("set variable x = 1000")
    counter.next()
    assert counter.number("result") == 1000000
    counter.finish()
    counter.run("set variable $rax = 7")
    counter.next()
    assert counter.number("squared") == 7


def test_floating_point_of_a_process(counter):
    counter.run("tbreak counter.c:36")
    counter.cont()
    i, total = counter.number("i"), counter.number("total")
    assert abs(float(counter.evaluate("mean")) - total / i) < 0.001


def test_dollar_cr3_is_of_the_selected_inferior(counter, pids_of):
    one = counter.number("$cr3")
    counter.attach_process(pids_of(counter, "counter")[1])
    other = counter.number("$cr3")
    counter.select(1)
    kernel = counter.number("$cr3")
    assert len({one, other, kernel}) == 3


def test_frames_up_and_down_show_locals(counter):
    counter.run("tbreak square")
    counter.cont()
    counter.run("up 2")
    assert "rounds = 40" in counter.run("info args")
    assert "\ni = 11\n" in counter.run("info locals")
    counter.run("down")
    assert "squared" in counter.run("info locals")
