"""What a person does first with a debugger, in the guest's kernel."""


def test_break_and_backtrace_through_a_system_call_into_the_process(processes):
    names = processes.backtrace()
    assert names[:4] == ["task_sleep", "sys_sleep", "syscall", "on_syscall"]
    assert "signal handler called" in processes.run("backtrace")


def test_source_line_of_a_breakpoint(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("break schedule_init")
    stop = gdb.cont()
    assert stop.reason == "breakpoint-hit"
    assert stop.file.endswith("guests/tasks/schedule.c")
    assert stop.source == "{"


def test_breakpoint_before_the_first_instruction_is_hit(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.run("break printk")
    assert gdb.cont().function == "main"
    assert gdb.cont().function == "printk"
    assert gdb.backtrace()[1] == "main"


def test_tbreak_stops_once(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("tbreak printk")
    gdb.cont()
    assert gdb.cont().reason == "exited-normally"


def test_condition_holds_at_each_stop(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("break task_find if pid == 7")
    for _ in range(3):
        assert gdb.cont().function == "task_find"
        assert gdb.number("pid") == 7


def test_ignore_count_is_kept(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break printk")
    gdb.run("ignore 1 3")
    gdb.cont()
    assert "breakpoint already hit 4 times" in gdb.run("info breakpoints")


def test_step_goes_into_a_call_and_finish_comes_back(xdbg_gdb):
    gdb = xdbg_gdb("tasks")
    gdb.run("break main")
    gdb.cont()
    while (stop := gdb.step()).function == "main":
        pass
    assert stop.function == "strncmp"
    stop = gdb.finish()
    assert (stop.reason, stop.function) == ("function-finished", "main")
    assert int(stop.payload["return-value"]) < 0


def test_next_goes_over_calls(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    stops = [gdb.next() for _ in range(4)]
    assert {stop.function for stop in stops} == {"main"}
    assert {stop.reason for stop in stops} == {"end-stepping-range"}
    assert len({stop.address for stop in stops}) == 4


def test_next_goes_over_a_system_call_that_switches_tasks(processes):
    processes.run("finish &")
    assert processes.wait().function in {"sys_sleep", "syscall"}
    assert processes.next().function in {"sys_sleep", "syscall", "on_syscall"}


def test_until_and_advance(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    first = gdb.next()
    assert gdb.go("until").line > first.line
    assert gdb.go("advance console_write").function == "console_write"


def test_breakpoint_command_list_runs(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run('dprintf printk,"said %s", format')
    gdb.cont()
    assert "said Hello from a paravirtual domain" in "".join(
        record["payload"] for record in gdb.log if record["type"] == "console"
    )


def test_disabled_breakpoint_is_passed(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break printk")
    gdb.cont()
    gdb.run("disable")
    assert gdb.cont().reason == "exited-normally"


def test_jump_and_return_change_where_the_kernel_goes_on(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break printk")
    gdb.cont()
    gdb.run("delete")
    gdb.run("return")
    assert gdb.backtrace()[0] == "main"
    assert gdb.cont().reason == "exited-normally"
    console = gdb.guest.stop()
    assert "Hello" not in console
    assert "PASS hello" in console


def test_print_and_set_a_variable_of_the_kernel(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    assert gdb.evaluate("(char *)start_info->magic").endswith('"xen-3.0-x86_64"')
    gdb.run("set variable start_info->mod_len = 4711")
    gdb.cont()
    assert "module of 4711 bytes" in gdb.guest.stop()


def test_writing_a_register_of_the_kernel(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    gdb.run("break main")
    gdb.cont()
    for register in ("rax", "r15", "rbx"):
        gdb.run(f"set variable ${register} = 0x1122334455667788")
        assert gdb.number(f"${register}") == 0x1122334455667788
    gdb.run("set variable $eflags = $eflags | 1")
    assert "CF" in gdb.run("info registers eflags")
    gdb.run("set variable $xmm3.v2_int64[1] = 77")
    assert gdb.number("$xmm3.v2_int64[1]") == 77


def test_info_registers_has_the_control_and_paravirtual_ones(processes):
    text = processes.run("info registers")
    for name in ("rip", "eflags", "cr3", "efer", "xen_kernel_mode", "xen_upcall_mask", "xen_cr3_user"):
        assert f"\n{name} " in text
    assert "[ SCE LME LMA NXE ]" in text


def test_paravirtual_registers_tell_the_state_of_the_vcpu(processes):
    assert processes.number("$xen_kernel_mode") == 1
    assert processes.number("$xen_kernel_sp") == processes.number("(char *)&kernel_stack + 0x4000")
    assert processes.number("$xen_cr3_user") == processes.number("current->space.user_l4") * 4096
    assert processes.number("$cr3") == processes.number("current->space.kernel_l4") * 4096
