"""stepi executes one instruction, whatever that instruction is."""

import pytest


def test_kernel_steps_are_one_instruction_each(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    for _ in range(40):
        before = gdb.instructions
        gdb.stepi()
        assert gdb.instructions == before + 1


def test_steps_with_a_count(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    before = gdb.instructions
    gdb.go("stepi 37")
    assert gdb.instructions == before + 37


def test_nexti_goes_over_a_call(xdbg_gdb, step_to):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    step_to(gdb, "call")
    after = gdb.run("x/2i $pc").splitlines()[1].split()[0]
    assert gdb.go("nexti").address == int(after, 16)


def test_step_over_a_hypercall_ends_behind_it(xdbg_gdb, step_to):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    step_to(gdb, "syscall")
    rip, rsp = gdb.number("$rip"), gdb.number("$rsp")
    assert gdb.stepi().address == rip + 2
    assert gdb.number("$rsp") == rsp
    assert gdb.number("$rax") == 0x40011


@pytest.mark.parametrize("mode", ["kernel", "user"])
def test_step_over_the_guests_int3_ends_in_its_handler(xdbg_gdb, step_to, mode):
    gdb = xdbg_gdb("int3")
    gdb.run(f"break {mode}_int3")
    gdb.cont()
    step_to(gdb, "int3")
    after, rsp = gdb.number(f"&{mode}_after"), gdb.number("$rsp")
    stop = gdb.stepi()
    assert stop.function == "entry_stubs" or "entry" in gdb.run("info symbol $pc")
    assert gdb.number("$xen_kernel_mode") == 1
    assert gdb.number("*(unsigned long *)($rsp + 16)") == after
    assert gdb.number("*(unsigned long *)($rsp + 40)") == rsp


def test_step_over_iret_ends_at_the_first_user_instruction(xdbg_gdb):
    gdb = xdbg_gdb("int3")
    gdb.run("tbreak enter_user_mode")
    gdb.cont()
    gdb.run("tbreak regs_enter")
    gdb.cont()
    for _ in range(60):
        last = gdb.instruction
        stop = gdb.stepi()
        if not gdb.number("$xen_kernel_mode"):
            break
    assert last.startswith("syscall")
    assert stop.address == gdb.number("&user_int3")
    assert gdb.number("$rsp") == 0x7FFFFFFFF000


def test_step_over_rep_movs_copies_one_element(xdbg_gdb, step_to):
    gdb = xdbg_gdb("tasks")
    gdb.run("break memcpy if size == 344")
    gdb.cont()
    gdb.run("delete")
    step_to(gdb, "rep movs")
    rip = gdb.number("$rip")
    for left in (343, 342, 341):
        assert gdb.stepi().address == rip
        assert gdb.number("$rcx") == left
    gdb.run("set variable $rcx = 2")
    assert gdb.stepi().address == rip
    gdb.stepi()
    if gdb.number("$rip") == rip:
        gdb.stepi()
    assert gdb.number("$rip") == rip + 2


def test_nexti_over_rep_movs_in_a_kernel_that_goes_on(xdbg_gdb, step_to):
    gdb = xdbg_gdb("tasks")
    gdb.run("break memcpy if size > 100")
    gdb.cont()
    gdb.run("delete")
    size = gdb.number("size")
    to, source = gdb.number("to"), gdb.number("from")
    gdb.finish()
    assert gdb.evaluate(f"*(unsigned char(*)[{size}]){to}") == gdb.evaluate(f"*(unsigned char(*)[{size}]){source}")


def test_steps_of_a_process_over_a_system_call_end_behind_it(counter, step_to):
    counter.run("tbreak syscall")
    counter.cont()
    step_to(counter, "syscall")
    rip = counter.number("$rip")
    assert counter.stepi().address == rip + 2


def test_steps_of_a_process_do_not_enter_the_kernel(counter):
    counter.run("tbreak compute")
    counter.cont()
    for _ in range(60):
        assert counter.stepi().address < 0x500000


def test_a_process_that_faults_is_stepped_to_its_end(processes, pids_of):
    processes.attach_process(pids_of(processes, "fault")[0])
    processes.run("tbreak store")
    assert processes.cont().source == "*(volatile int *)where = what;"
    stop = processes.next()
    assert (stop.signal, stop.source) == ("SIGSEGV", "*(volatile int *)where = what;")
    stop = processes.stepi()
    assert (stop.reason, stop.payload["signal-name"]) == ("exited-signalled", "SIGSEGV")


def test_step_over_a_breakpoint_where_it_stands(counter):
    counter.run("break square")
    first = counter.cont()
    assert counter.stepi().address > first.address
    assert counter.cont().address == first.address
