"""What people type in their first hours, many commands to a session, in the kernel and in processes."""

import re
import signal
import subprocess

import pytest

from xdbg.testing import GdbError, GdbSession


def test_commands_that_move_in_a_process(counter):
    counter.run("tbreak counter.c:34")
    here = counter.cont()
    counter.run("tbreak counter.c:34")
    assert counter.go("jump counter.c:34").address == here.address
    before = counter.instructions
    counter.go("stepi 5")
    assert counter.instructions == before + 5
    counter.go("nexti 2")
    assert counter.instructions == before + 7
    counter.run("display total")
    counter.run("display/i $pc")
    assert counter.next().function == "count"
    assert re.search(r"1: total = \d+\n2: x/i \$pc\n=> 0x40", counter.printed)
    counter.run("undisplay 1")
    assert counter.go("advance square").function == "square"
    assert "int result = x * x;" in counter.run("list square")
    assert counter.go("until 18").source == "return result;"
    counter.run("return 5")
    counter.next()
    assert counter.number("squared") == 5
    counter.run("up")
    assert "rounds = 40" in counter.run("info args")
    assert "caller of frame at" in counter.run("info frame")
    counter.run("down")


def test_commands_that_move_in_the_kernel(processes):
    processes.run("tbreak task_find")
    processes.cont()
    pid = processes.number("pid")
    stop = processes.finish()
    assert f"{processes.number(f'task_find({pid})'):#x}" in stop.payload["return-value"]
    before = processes.instructions
    processes.go("stepi 40")
    assert processes.instructions == before + 40
    assert processes.go("advance schedule").function in {"schedule", "sys_trace", "sys_wait", "syscall"}


@pytest.mark.parametrize("inferior", [1, 2])
def test_print_of_a_function_with_a_string(counter, inferior):
    counter.select(inferior)
    counter.run('print (void)%s("said %%d by gdb\\n", 4711)' % ("printk" if inferior == 1 else "print"))
    counter.run("detach inferiors 2")
    counter.select(1)
    counter.run_to_end()
    console = counter.guest.stop()
    assert "said 4711 by gdb\n" in console
    assert "init: all ended as they should" in console


def test_call_of_a_process_that_is_not_on_the_cpu_runs_when_its_turn_comes(counter, pids_of):
    counter.run("set schedule-multiple on")  # else gdb believes that the process stood still with the kernel running
    counter.run("tbreak sleep")
    counter.cont()
    counter.select(1)
    counter.run("tbreak switch_to if next->pid != 2")
    counter.cont()
    counter.select(2)
    assert counter.backtrace()[:2] == ["syscall", "sleep"]
    assert "running" not in counter.run("info threads").partition(" 2.1 ")[2].partition(")")[0]
    frames, registers = counter.backtrace(), counter.run("info registers rip rsp rax rdi")
    assert counter.evaluate("square(12)") == "144"
    assert counter.backtrace() == frames
    assert counter.run("info registers rip rsp rax rdi") == registers
    counter.attach_process(pids_of(counter, "counter")[1])
    assert [counter.number(f"square({x})") for x in range(4)] == [0, 1, 4, 9]


def test_ctrl_c_in_a_call_from_gdb_that_never_returns(xdbg_gdb):
    gdb = xdbg_gdb("crash", "--append", "loop")
    gdb.run("tbreak main")
    gdb.cont()
    gdb.run("set debug remote 1")
    gdb._controller.write("999-data-evaluate-expression loop()", read_response=False)
    answer, runs = None, False
    while answer is None:
        for record in gdb._read():
            if not runs and "$vCont;c" in str(record["payload"]):
                runs = True
                gdb._controller.gdb_process.send_signal(signal.SIGINT)
            if record.get("token") == 999 and record["type"] == "result":
                answer = record
    gdb.run("set debug remote 0")
    assert answer["message"] == "error"
    assert "SIGINT" in gdb.printed or "signaled" in answer["payload"]["msg"]
    gdb.drain()
    assert gdb.backtrace()[0] == "loop"
    assert "<function called from gdb>" in gdb.run("backtrace")


def test_lists_of_commands_hooks_and_saved_breakpoints(xdbg_serve, tmp_path):
    script = tmp_path / "script"
    script.write_text(
        f"set confirm off\ntarget extended-remote {xdbg_serve('tasks').address}\nset $hits = 0\nset $stops = 0\n"
        "break task_find if pid == 7\ncommands\nsilent\nset $hits = $hits + 1\ncontinue\nend\n"
        "define hook-stop\nset $stops = $stops + 1\nend\n"
        "rbreak ^sys_sle\nhbreak sys_fork\nbreak nowhere\n"
        f"save breakpoints {tmp_path / 'saved'}\n"
        'continue\ncontinue\nprintf "%d hits\\n%d stops\\n", $hits, $stops\n'
        f"delete\nsource {tmp_path / 'saved'}\ninfo breakpoints\ncontinue\nbacktrace 1\n"
    )
    command = ["gdb", "-nx", "-batch", "-ex", "set breakpoint pending on", "-x", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert "Make breakpoint pending" not in done.stderr
    hits, stops = (int(re.search(rf"^(\d+) {what}$", done.stdout, re.MULTILINE)[1]) for what in ("hits", "stops"))
    assert stops >= 2
    assert hits >= 0
    assert re.search(r"stop only if pid == 7(?s:.)*^ +silent\n +set \$hits", done.stdout, re.MULTILINE)
    assert re.search(r"hw breakpoint .* in sys_fork", done.stdout)
    assert re.search(r"^#0 +(sys_sleep|sys_fork) ", done.stdout, re.MULTILINE)


def test_breakpoint_that_waits_for_a_process_to_be_attached(processes, pids_of):
    processes.run("set breakpoint pending on")
    assert "pending" in processes.run("break compute")
    processes.attach_process(pids_of(processes, "counter")[0])
    assert "compute" in processes.run("info breakpoints")
    assert processes.cont().function == "compute"


def test_breakpoint_is_hit_in_memory_that_is_mapped_later(processes, pids_of):
    """The forker's child becomes another program: its break point was set when nothing was mapped there."""
    processes.run("break task_exec")
    assert processes.cont().function == "task_exec"
    pid = processes.number("task->pid")
    processes.run("delete")
    processes.attach_process(pid)
    with pytest.raises(GdbError, match="Cannot access memory"):
        processes.run("x/i 0x401007")
    processes.run("break *0x401007")
    stop = processes.cont()
    assert (stop.reason, stop.address) == ("breakpoint-hit", 0x401007)
    assert processes.number("$_inferior") == 2


def test_what_scheduler_locking_means(counter):
    """The domain always runs as a whole; what is locked out are the stops of the others."""
    counter.run("break sys_sleep")
    counter.run("break square")
    counter.run("set schedule-multiple on")
    for mode in ("on", "step"):
        counter.select(2)
        counter.run(f"set scheduler-locking {mode}")
        before = counter.instructions
        counter.stepi()
        assert counter.inferior == 2
        assert counter.instructions > before
    counter.run("set scheduler-locking on")
    assert {counter.cont().function for _ in range(5)} == {"square"}
    counter.run("set scheduler-locking off")
    assert {counter.cont().function for _ in range(14)} == {"square", "sys_sleep"}


def test_questions_about_places(counter):
    assert re.search(r"Line 15 of .*counter.c. starts at address 0x401000 <square>", counter.run("info line square"))
    assert counter.run("info symbol square").startswith("square in section .text")
    assert "0x0000000000401000 - 0x" in counter.run("info files")
    assert counter.run("x/3i square").count("<square") == 3
    counter.run("list square")
    assert "counter.c" in counter.run("info source")
    assert "Symbol x is" in counter.run("info scope square")
    assert "static int square(int);" in counter.run("info functions ^squ")
    assert "int total;" in counter.run("info variables ^total")


def test_registers_behind_the_block_and_of_each_inferior(counter):
    counter.run("tbreak square")
    counter.cont()
    text = counter.run("info registers")
    for name in ("rip", "cr0", "cr3", "efer", "xen_kernel_mode", "xen_cr3_user"):
        assert re.search(rf"^{name} ", text, re.MULTILINE), name
    in_process = counter.number("$cr3"), counter.number("$xen_kernel_mode")
    assert in_process == (counter.number("$xen_cr3_user"), 0)
    assert "v2_double" in counter.run("info registers vector")
    assert "IM DM" in counter.run("info registers mxcsr")


def test_files_under_proc(counter):
    assert "cmdline = '/bin/counter'" in counter.run("info proc cmdline")
    assert "exe = '/bin/counter'" in counter.run("info proc exe")
    assert "cwd = '/'" in counter.run("info proc cwd")
    status = counter.run("info proc status")
    assert "Name:\tcounter" in status
    assert "PPid:\t1" in status
    stat = counter.run("info proc stat")
    assert "Parent process: 1\n" in stat
    assert re.search(r"Start of text: 0x401000\n", stat)
    assert re.search(r"Start of stack: 0x7f\w+\n", stat)
    assert "[stack]" in counter.run("info proc all")
    counter.select(1)
    kernel = counter.run("info proc all")
    assert "exe = '/boot/tasks.elf'" in kernel
    assert re.search(r"r-xp +\[kernel\]", kernel)
    assert re.search(r"r--p +\[xen\]", kernel)


@pytest.mark.parametrize("program", ["counter", "debuggee"])
def test_core_of_a_process_is_the_process(processes, pids_of, tmp_path, program):
    processes.attach_process(pids_of(processes, program)[1])
    processes.run(f"tbreak {'compute' if program == 'counter' else 'step'}")
    processes.cont()
    core = tmp_path / "core"
    processes.run(f"generate-core-file {core}")
    questions = ["backtrace", "info registers rip rsp rbp rax", "x/64xb $sp", "info locals", "x/16xb $pc"]
    answers = [processes.run(question) for question in questions]
    with GdbSession() as other:
        other.run(f"file build/guests/tasks/bin/{program}")
        other.run(f"core-file {core}")
        assert [other.run(question) for question in questions] == answers
        assert f"/bin/{program}" in other.run("info proc")


def test_core_of_the_kernel_is_the_kernel(processes, tmp_path):
    core = tmp_path / "core"
    processes.run(f"generate-core-file {core}")
    questions = ["backtrace 5", "info registers rip rsp", "print tasks[3]", "x/64xb $sp", "print *current->parent"]
    answers = [processes.run(question).replace("target:", "") for question in questions]
    with GdbSession() as other:
        other.run("file build/guests/tasks.elf")
        other.run(f"core-file {core}")
        assert [other.run(question) for question in questions] == answers


@pytest.mark.parametrize("program", ["counter", "debuggee"])
def test_sections_are_compared_where_the_program_lies(processes, pids_of, program):
    kernel = processes.run("compare-sections -r")
    processes.attach_process(pids_of(processes, program)[0])
    for text in (kernel, processes.run("compare-sections -r")):
        assert re.search(r"Section .text, range \w+ -- \w+: matched", text)
        assert "MIS-MATCHED" not in text
    processes.run("set variable *(char *)&main = 0x90")
    assert re.search(r"Section .text, .*: MIS-MATCHED", processes.run("compare-sections .text"))
    processes.select(1)
    assert "MIS-MATCHED" not in processes.run("compare-sections .text")


def test_disconnect_and_connect_again(processes):
    address, count = processes.guest.address, processes.instructions
    processes.attach_process(2)
    processes.run("break square")
    processes.run("disconnect")
    processes.select(1)
    processes.run("delete")
    processes.run(f"target extended-remote {address}")
    processes.drain()
    assert processes.backtrace()[0] == "task_sleep"
    assert processes.instructions == count
    processes.run("tbreak sys_sleep")
    assert processes.cont().function == "sys_sleep"


def test_backtrace_of_a_guest_that_waits_in_a_hypercall(xdbg_gdb):
    gdb = xdbg_gdb("tick")
    gdb.run("tbreak *(hypercall_page + 29 * 32 + 10)")
    gdb.cont()
    assert gdb.backtrace()[:5] == ["hypercall_page", "hypercall", "hypercall_sched_op", "block", "wait_for"]
    assert gdb.finish().function == "block"


def test_backtrace_at_each_instruction_of_the_way_in_and_out(xdbg_gdb):
    gdb = xdbg_gdb("int3")
    gdb.run("tbreak *kernel_after - 1")
    gdb.cont()
    gdb.run("tbreak main")
    ways = set()
    while gdb.number("$pc") != gdb.number("&kernel_after"):
        gdb.stepi()
        names = gdb.backtrace()
        assert names[-2:] == ["kernel_int3", "main"], gdb.instruction
        ways.add(gdb.run("info symbol $pc").split()[0])
        if "breakpoint" in names:
            gdb.finish()
    assert {"entry_stubs", "trap_common", "regs_enter", "hypercall_page"} <= ways


def test_machine_memory_is_read_by_machine_address(processes):
    maddr = re.search(r"maddr (0x\w+)", processes.monitor(f"translate {processes.number('&tasks[1].name'):#x}"))[1]
    assert "counter" in processes.monitor(f"xp {maddr} 16")
    assert len(processes.monitor(f"xp {maddr}").splitlines()) == 4
    assert "memory ends" in processes.monitor("xp 0xffffffffffff")
    assert "between 1 and" in processes.monitor("xp 0 0")
