"""A breakpoint, a step and a watch do not change what the guest computes: the same text, at the same instructions."""

import pytest

# pygdbmi stumbles over the commands of a tracepoint as MI 3 shows them, and says so by a function that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")


def ends_as_undebugged(gdb, plain):
    gdb.run("delete")
    gdb.run("set schedule-multiple on")
    while "[Inferior 1 " not in gdb.printed:  # processes that are attached end before
        gdb.select(1)
        assert gdb.cont().ended
    assert gdb.instructions == plain.instructions
    assert gdb.guest.stop() == plain.console


@pytest.mark.parametrize("guest", ["hello", "int3", "traps", "cpu", "tick", "tasks", "smp", "store", "disk"])
def test_gdb_that_only_looks_on(xdbg_gdb, undebugged, guest):
    ends_as_undebugged(xdbg_gdb(guest), undebugged(guest))


def test_breakpoints_in_the_kernel(xdbg_gdb, undebugged):
    gdb = xdbg_gdb("tasks")
    for place in ("task_sleep", "on_exception", "trace", "address_space_switch if 0", "*entry_stubs"):
        gdb.run(f"break {place}")
    for _ in range(40):
        gdb.cont()
        gdb.backtrace()
    ends_as_undebugged(gdb, undebugged("tasks"))


def test_steps_in_the_kernel_across_upcalls_and_hypercalls(xdbg_gdb, undebugged):
    gdb = xdbg_gdb("tick")
    gdb.run("break timer_while_running")
    gdb.cont()
    for command in ("stepi 3000", "next", "next", "stepi 10", "finish"):
        gdb.go(command)
    ends_as_undebugged(gdb, undebugged("tick"))


def test_watches_on_what_the_disks_backend_writes(xdbg_gdb, undebugged):
    gdb = xdbg_gdb("disk")
    gdb.run("break reads")
    gdb.cont()
    gdb.run("watch pages[3][0]")
    stop = gdb.cont()
    assert stop.reason == "watchpoint-trigger"
    assert gdb.number("pages[3][0]") == 100 + 3 * 8, "the number of the sector that was read into the page"
    gdb.run("watch disk.shared->rsp_prod")
    for _ in range(5):
        gdb.cont()
    gdb.go("stepi 500")
    ends_as_undebugged(gdb, undebugged("disk"))


def test_steps_through_system_call_entry_and_return(processes, undebugged):
    for _ in range(10):
        processes.go("stepi 97")
    ends_as_undebugged(processes, undebugged("tasks"))


def test_breakpoints_and_steps_in_processes(counter, debuggee, undebugged):
    counter.run("set schedule-multiple on")
    counter.select(2)
    counter.run("break square if x % 5 == 0")
    counter.run("break step")
    for _ in range(10):
        counter.cont()
        counter.stepi()
        counter.step()
        counter.next()
    ends_as_undebugged(counter, undebugged("tasks"))


def test_conditions_that_the_server_evaluates(counter, undebugged):
    counter.run("set schedule-multiple on")
    counter.run("break square if x == 9999")
    counter.run("break compute if i % 10 == 5 && total > 0")
    counter.run("break counter.c:36 if $eflags == 0")
    counter.monitor("watch total if new < old")
    counter.select(1)
    counter.run("break task_sleep if task->pid == 3")
    counter.run("break switch_to if 0")
    for _ in range(8):
        counter.cont()
    counter.monitor("unwatch all")
    ends_as_undebugged(counter, undebugged("tasks"))


def test_watches_in_kernel_and_process(counter, undebugged):
    counter.run("watch total")
    counter.run("awatch mean")
    for _ in range(30):
        counter.cont()
    counter.select(1)
    counter.run("watch current")
    counter.run("rwatch slice_end")
    for _ in range(30):
        counter.cont()
    counter.run("detach inferiors 2")
    ends_as_undebugged(counter, undebugged("tasks"))


def test_memory_registers_and_monitor_commands_only_look(counter, undebugged):
    for command in ("info registers all", "info proc mappings", "monitor ps", "monitor events", "monitor walk $rip"):
        counter.run(command)
    counter.run("monitor info vcpu")
    counter.run("compare-sections")
    counter.run("detach")
    ends_as_undebugged(counter, undebugged("tasks"))


@pytest.mark.parametrize("owner", [1, 2])
def test_traces_with_steps_in_processes_and_kernel(counter, undebugged, owner):
    counter.run("set schedule-multiple on")
    for inferior, place, steps in ((2, "square", 40), (1, "*task_sleep", 300), (1, "*entry_stubs", 20)):
        counter.select(inferior)
        number = int(counter.run(f"trace {place}").split()[1])
        counter.mi(f'-break-commands {number} "collect $regs, $locals" "while-stepping {steps}" "collect $regs" "end"')
    counter.select(owner)
    counter.run("set circular-trace-buffer on")
    counter.run("set trace-buffer-size 100000")
    counter.run("tstart")
    counter.run("tbreak task_exit")
    counter.cont()
    counter.go("stepi 20")
    ends_as_undebugged(counter, undebugged("tasks"))


def test_interrupts(xdbg_gdb, undebugged):
    gdb = xdbg_gdb("tasks")
    gdb.run("break task_exit")
    for _ in range(5):
        gdb.start_running()
        gdb.interrupt()  # or the breakpoint, whichever comes first
    ends_as_undebugged(gdb, undebugged("tasks"))
