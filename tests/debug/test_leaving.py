"""A debugger that goes leaves nothing in the machine, whatever it was doing."""

from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind
from xdbg.rsp.threadid import EVERY_THREAD
from xdbg.xen.setup import RunEnd


def test_nothing_is_left_when_the_client_vanishes_with_a_process_attached(bundled):
    debugged = bundled("tasks")
    target, hv = debugged.target, debugged.target.hv
    debugged.brk("task_sleep")
    debugged.cont()
    thread = target.attach(2).thread
    target.insert_breakpoint(thread, BreakpointKind.SOFTWARE, 0x401000)
    target.insert_watchpoint(thread, 2, 0x404100, 8)
    step = ResumeAction(thread.pattern(), ResumeKind.STEP)
    target.resume((step, ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE)))
    target.advance(debugged.count + 50)
    target.disconnected()
    assert len(hv.cpu.stop_points) == len(hv.cpu.watches) == 0
    assert hv.run(100_000_000) is RunEnd.SHUT_DOWN
