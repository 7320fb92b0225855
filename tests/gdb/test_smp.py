"""Several vcpus under gdb: each is a thread of the kernel."""

import re

import pytest

from xdbg.testing import GdbError, GdbSession

NR_VCPUS = 4
THREADS = [str(number + 1) for number in range(NR_VCPUS)]


@pytest.fixture
def smp(xdbg_gdb) -> GdbSession:
    """The guest smp at its first step: all vcpus have been started and meet for the first time."""
    gdb = xdbg_gdb("smp")
    gdb.run("tbreak contended_lock")
    gdb.cont()
    return gdb


def thread_of(stop):
    return stop.payload["thread-id"]


def described(gdb):
    """What `info threads` says of each, by number."""
    return dict(re.findall(r'^[* ] (\d) +Thread \S+ "vcpu\d" \(([^)]*)\)', gdb.run("info threads"), re.MULTILINE))


def rips(gdb):
    """Where all threads are."""
    return {one["id"]: one["frame"]["addr"] for one in gdb.mi("-thread-info")["threads"]}


def test_all_vcpus_are_threads_before_they_are_started(xdbg_gdb):
    gdb = xdbg_gdb("smp")
    assert described(gdb) == {"1": "kernel mode", "2": "not started", "3": "not started", "4": "not started"}
    gdb.run("thread 3")
    assert (gdb.number("$rip"), gdb.number("$rsp"), gdb.number("$cr3")) == (0, 0, 0)
    assert gdb.number("&vcpus") == gdb.number("&vcpus[0]")
    assert gdb.evaluate("nr_vcpus") == "0", "memory is there"
    assert gdb.backtrace() == ["??"]
    with pytest.raises(GdbError):
        gdb.evaluate("*(long *)$rsp")
    gdb.run("break vcpu_main")
    stop = gdb.cont()
    assert (thread_of(stop), stop.payload["core"]) == ("2", "1")
    assert described(gdb)["2"] == "kernel mode"


def test_the_domain_runs_when_only_the_first_vcpu_is_there(xdbg_gdb):
    gdb = xdbg_gdb("smp", "--vcpus", "1")
    gdb.run("break vcpu_start")
    assert gdb.cont().ended


def test_a_breakpoint_is_reported_with_its_thread_and_core(smp):
    smp.run("break calls_init")
    smp.run("break whoami")
    for _ in range(12):
        stop = smp.cont()
        number = int(thread_of(stop)) - 1
        assert stop.payload["core"] == str(number)
        assert smp.number("$gs_base") == smp.number(f"&vcpus[{number}]")
        assert smp.number("((struct vcpu *)$gs_base)->id") == number


def test_a_breakpoint_of_one_thread_stops_no_other(smp):
    smp.run("break whoami thread 3")
    for _ in range(5):
        assert thread_of(smp.cont()) == "3"


def test_every_thread_has_a_backtrace_of_its_own(smp):
    smp.run("break whoami")
    stop = smp.cont()
    text = smp.run("thread apply all bt")
    assert re.findall(r"^Thread (\d)", text, re.MULTILINE) == THREADS[::-1]
    here = int(thread_of(stop)) - 1
    assert smp.backtrace()[:3] == ["whoami", "called", "events_take"]
    for number in range(NR_VCPUS):
        smp.run(f"thread {number + 1}")
        assert smp.backtrace()[-1] == ("main" if number == 0 else "vcpu_entry")
        assert smp.number("$gs_base") == smp.number(f"&vcpus[{number}]")
        assert ("whoami" in smp.backtrace()) >= (number == here)


def test_a_call_is_seen_at_both_ends(smp):
    smp.run("break call_on if vcpu == 3")
    caller = smp.cont()
    number = int(thread_of(caller)) - 1
    assert number != 3
    smp.run("break whoami thread 4")
    assert thread_of(smp.cont()) == "4"
    salt = smp.number("salt")
    finished = smp.finish()
    assert (thread_of(finished), finished.function) == ("4", "called")
    assert finished.payload["return-value"] == str(3000 + salt)
    smp.run(f"thread {number + 1}")
    assert "call_on" in smp.backtrace()


def test_a_step_goes_through_a_spin_lock_that_others_hold(smp):
    """`next` over the lock comes back when its turn has come: the others run meanwhile."""
    smp.run("break spin_lock thread 3 if lock == &lock")
    stop = smp.cont()
    assert (thread_of(stop), stop.function) == ("3", "spin_lock")
    guarded = smp.number("guarded")
    smp.run("delete")
    finished = smp.finish()
    assert (thread_of(finished), finished.function) == ("3", "contended_lock")
    assert smp.number("lock.next") > smp.number("lock.serving"), "others wait"
    assert smp.number("guarded") >= guarded
    before = smp.number("guarded")
    while "guarded = value + 1" not in smp.next().source:
        pass
    stop = smp.next()
    assert (thread_of(stop), smp.number("guarded")) == ("3", before + 1)


def test_steps_of_one_thread_let_the_others_run(smp):
    smp.run("break spin_unlock thread 2")
    smp.cont()
    smp.run("delete")
    before, count = rips(smp), smp.instructions
    for _ in range(20):
        assert thread_of(smp.go("stepi 50")) == "2"
        if rips(smp)["3"] != before["3"]:
            break
    else:
        assert smp.instructions == count + 1000, "its turn has not ended meanwhile"
    assert smp.instructions >= count + 50


def test_a_locked_scheduler_lets_one_alone_run(smp):
    smp.run("break spin_unlock thread 3")
    smp.cont()
    smp.run("delete")
    smp.run("set scheduler-locking on")
    before, count = rips(smp), smp.instructions
    for _ in range(20):
        assert thread_of(smp.stepi()) == "3"
    assert smp.instructions == count + 20
    smp.go("stepi 200")
    assert smp.instructions == count + 220
    after = rips(smp)
    assert {thread: after[thread] for thread in "124"} == {thread: before[thread] for thread in "124"}
    smp.run("thread 2")
    smp.stepi()
    assert smp.instructions == count + 221
    assert rips(smp)["3"] == after["3"]


def test_ctrl_c_stops_the_one_that_is_allowed_to_run(smp):
    """It waits for an answer that can't come while the others stand still."""
    smp.run("break call_on if vcpu == 3")
    stop = smp.cont()
    smp.run("delete")
    smp.run("set scheduler-locking on")
    smp.start_running()
    stopped = smp.interrupt()
    assert (stopped.signal, thread_of(stopped)) == ("SIGINT", thread_of(stop))
    smp.run("set scheduler-locking off")
    assert smp.cont().ended


def test_a_vcpu_that_is_down_is_shown_as_that_and_comes_back(smp):
    smp.run("tbreak vcpu_down")
    stop = smp.cont()
    assert (thread_of(stop), stop.function) == (str(NR_VCPUS), "vcpu_down")
    smp.run("tbreak vcpu_up")
    assert thread_of(smp.cont()) == "1"
    assert described(smp)["4"] == "down"
    smp.run("thread 4")
    assert "vcpu_down" in smp.backtrace()
    smp.run("thread 1")
    smp.run("break check thread 4")
    while smp.cont() and smp.backtrace()[1] != "down_and_up":
        assert smp.backtrace()[1] == "interrupted", "what was sent to it meanwhile"


def test_a_vcpu_that_waits_says_so(smp):
    smp.run("break block thread 2")
    smp.cont()
    smp.run("delete")
    smp.run("break interrupt thread 1")
    smp.cont()
    assert described(smp)["2"] == "waits for an event"


@pytest.fixture
def separate(xdbg_serve):
    """The guest smp in non-stop, where its first step begins on some vcpu."""
    sessions = []

    def start():
        guest = xdbg_serve("smp")
        gdb = GdbSession(guest.address, settings=["non-stop on"])
        sessions.append(gdb)
        gdb.guest = guest
        gdb.run("break contended_lock")
        gdb.run("continue -a &")
        return gdb

    yield start
    for gdb in sessions:
        gdb.close()


def test_in_non_stop_a_vcpu_stops_alone(separate):
    gdb = separate()
    first = thread_of(gdb.wait())
    assert gdb.states()[first] == "stopped"
    others = {thread_of(gdb.wait()) for _ in range(NR_VCPUS - 1)} | {first}
    assert others == set(THREADS)
    assert set(gdb.states().values()) == {"stopped"}


def test_in_non_stop_one_goes_on_while_others_stand(separate):
    gdb = separate()
    stopped = [thread_of(gdb.wait()) for _ in range(NR_VCPUS)]
    gdb.run(f"thread {stopped[0]}")
    step = gdb.stepi()
    assert (thread_of(step), gdb.states()[stopped[0]]) == (stopped[0], "stopped")
    count = gdb.instructions
    gdb.run("continue &")
    assert gdb.states() == {thread: "running" if thread == stopped[0] else "stopped" for thread in THREADS}
    gdb.mi(f"-exec-interrupt --thread {stopped[0]}")
    assert thread_of(gdb.wait()) == stopped[0]
    assert gdb.instructions >= count
    gdb.run("delete")
    gdb.run("continue -a &")
    assert gdb.wait().ended


@pytest.mark.parametrize("commands", [[], ["stepi 5000", "next", "step", "finish"]], ids=["looking", "stepping"])
def test_the_guest_computes_what_it_computes_without_gdb(smp, undebugged, commands):
    plain = undebugged("smp")
    for place in ("calls_init", "whoami", "interrupted", "ticked", "vcpu_down", "spin_unlock"):
        smp.run(f"break {place}")
    for turn in range(30):
        smp.cont()
        smp.run("thread apply all bt 3")
        if commands and turn % 4 == 0:
            for command in commands:
                smp.go(command)
    smp.run("delete")
    assert smp.cont().ended
    assert smp.instructions == plain.instructions
    assert smp.guest.stop() == plain.console
