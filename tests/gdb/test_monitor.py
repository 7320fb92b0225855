"""monitor commands, typed at gdb's prompt."""

import re

import pytest


def test_help_names_every_command(xdbg_gdb):
    text = xdbg_gdb("hello").monitor("help")
    for name in ("when", "ps", "translate", "walk", "p2m", "m2p", "info domain", "info vcpu", "traps", "events"):
        assert re.search(rf"^{name}\b", text, re.MULTILINE)


def test_ps_lists_processes_with_their_page_tables(processes):
    text = processes.monitor("ps")
    assert re.search(r"^ +2 +1 +running +0x\w+ +/bin/counter on vcpu 0$", text, re.MULTILINE)
    assert len(processes.processes()) == 9


def test_translate_agrees_with_p2m_and_m2p(processes):
    text = processes.monitor(f"translate {processes.number('&tasks'):#x}")
    mfn = re.search(r"mfn (0x\w+)", text)[1]
    pfn = re.search(r"pfn (0x\w+)", processes.monitor(f"m2p {mfn}"))[1]
    assert mfn in processes.monitor(f"p2m {pfn}")


def test_walk_shows_four_levels(processes):
    text = processes.monitor("walk $rip")
    for level in ("l4", "l3", "l2", "l1"):
        assert level in text.lower()


def test_translate_in_a_process_uses_its_tables(counter, pids_of):
    text = counter.monitor("translate 0x404000")
    counter.attach_process(pids_of(counter, "counter")[1])
    assert counter.monitor("translate 0x404000") != text


def test_trap_table_names_the_guests_handlers(processes):
    assert re.search(r"^ *3 +#BP +3 .*entry_stubs", processes.monitor("traps"), re.MULTILINE)


def test_domain_vcpu_and_events(processes):
    assert "tasks" in processes.monitor("info domain")
    assert "kernel stack" in processes.monitor("info vcpu")
    assert "timer" in processes.monitor("events").lower()
    assert "kernel_mode" in processes.monitor("regs xen")


def test_when_counts_instructions(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    assert gdb.monitor("when").startswith("0 instructions")
    gdb.stepi()
    assert gdb.monitor("when").startswith("1 instructions")


def test_step_mask_off_lets_a_step_end_in_the_upcall(xdbg_gdb):
    gdb = xdbg_gdb("tick")
    gdb.run("break masked_upcalls")
    gdb.cont()
    gdb.run("break upcalls_on")
    gdb.cont()
    assert "on" in gdb.monitor("step-mask")
    gdb.monitor("step-mask off")
    gdb.run("delete")
    handler = False
    for _ in range(60):
        gdb.stepi()
        handler = handler or "entry" in gdb.run("info symbol $pc")
    assert handler


@pytest.mark.parametrize(
    "line", ["nonsense", "walk", "walk x", "p2m 0xffffffffff", "m2p -1", "translate 1 2", "info vcpu 9"]
)
def test_wrong_command_is_one_line_and_no_more(xdbg_gdb, line):
    gdb = xdbg_gdb("hello")
    assert len(gdb.monitor(line).splitlines()) == 1
    assert gdb.monitor("when").startswith("0 ")


def test_translate_of_unmapped_memory_says_at_which_level(xdbg_gdb):
    gdb = xdbg_gdb("hello")
    assert "level 4" in gdb.monitor("translate 0x1000")


def test_trace_can_be_turned_on_and_off(xdbg_gdb):
    gdb = xdbg_gdb("int3")
    gdb.monitor("trace on")
    gdb.run("break breakpoint")
    gdb.cont()
    gdb.monitor("trace off")
    assert gdb.cont().reason == "breakpoint-hit"
