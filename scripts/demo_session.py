"""The demo: one debug session with the guest `tasks`, then one int3 followed through the hypervisor."""

import re
import subprocess
import sys

from xdbg.session.gdb_child import GDB_COMMANDS
from xdbg.testing import GdbSession, serve


def say(text):
    print(f"\n# {text}")


def expect(found, what):
    """Ends the demo unless something that must be there is there."""
    if not found:
        sys.exit(f"demo: FAILED: {what}")
    return found


class Terminal:
    """gdb's prompt, as a person would see it."""

    def __init__(self, session):
        self.session = session

    def type(self, command, expected="", *, resumes=False):
        """Types a command and shows what gdb says; `expected` is a pattern that must be in it."""
        print(f"(gdb) {command}")
        if resumes:
            self.session.go(command)
            text = self.session.printed
        else:
            text = self.session.run(command)
        print("".join(f"      {line}\n" for line in text.strip().splitlines()), end="", flush=True)
        expect(re.search(expected, text), f"`{command}` did not show {expected!r}")
        return text


def debug_tasks():
    """gdb in the kernel, then in a process."""
    say("xdbg serves a domain with a small paravirt kernel, stopped before its first instruction.")
    print("$ xdbg serve tasks")
    with serve("tasks") as guest, GdbSession() as session:
        gdb = Terminal(session)
        print('$ gdb -x "$(xdbg gdb-commands)"')
        session.run(f"source {GDB_COMMANDS}")
        say("gdb attaches. Nobody told it which program this is: the symbols come over the wire.")
        gdb.type(f"target extended-remote {guest.address}")
        gdb.type("info symbol $pc", "_start")

        say("A breakpoint in the guest kernel: its system call entry, the first time somebody wants to sleep.")
        gdb.type("break task_sleep", "Breakpoint 1")
        gdb.type("continue", "task_sleep", resumes=True)
        gdb.type("backtrace 5", "#2 .*syscall")
        gdb.type("print task->name", "counter|debuggee|forker")
        gdb.type("delete")

        say("The hypervisor knows the kernel's processes.")
        listing = gdb.type("monitor ps", "counter")
        pid = int(expect(re.search(r"^\s*(\d+)\b.*counter", listing, re.MULTILINE), "no counter in the list")[1])

        say("One of them becomes a second inferior: its own symbols, memory and breakpoints.")
        gdb.type("add-inferior")
        gdb.type("inferior 2")
        gdb.type(f"attach {pid}")
        session.drain()
        gdb.type("break compute", r"counter\.c")
        gdb.type("continue", "compute", resumes=True)
        gdb.type("backtrace", r"compute.*\n.*count.*\n.*main")
        gdb.type("next", "square|rest", resumes=True)
        gdb.type("step", "square|rest|return", resumes=True)
        gdb.type("print total", r"= \d+")
        gdb.type("set variable total = 1000")
        gdb.type("print total", "= 1000")
        gdb.type("delete")

        say("Who changes `total`? A watch point, unseen by the guest.")
        gdb.type("watch total", "atchpoint")
        gdb.type("continue", r"Old value = 1000\s+New value = 10\d\d", resumes=True)
        gdb.type("delete")
        gdb.type("tbreak square", r"counter\.c")
        gdb.type("continue", "square", resumes=True)
        gdb.type("finish", r"Value returned is \$\d+ = \d+", resumes=True)
        gdb.type("detach")

        say("xdbg's own commands in gdb: a process by its name, and the hypervisor's events.")
        gdb.type("inferior 1")
        session.drain()
        gdb.type("xen attach spin", r"/bin/spin, is inferior \d")
        session.drain()
        gdb.type("xen catch hypercall mmuext_op/new_baseptr", "catch 1")
        gdb.type("continue", "catch 1: hypercall mmuext_op.*NEW_BASEPTR", resumes=True)
        gdb.type("xen why", "NEW_BASEPTR")
        session.quit()


def follow_int3():
    """The trace of the guest int3, less what comes before and after its first int3."""
    say("The way of one int3 of a guest through the hypervisor.")
    print("$ xdbg trace int3")
    run = subprocess.run(
        [sys.executable, "-m", "xdbg", "trace", "int3", "--events", "exception,trap_bounce,bounce_frame,handler,iret"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    expect(run.returncode == 0, f"xdbg trace ended with {run.returncode}: {run.stderr.strip()}")
    lines = run.stdout.splitlines()
    start = expect([i for i, line in enumerate(lines) if "#BP" in line], "no #BP in the trace")[0]
    end = next((i for i, line in enumerate(lines[start:], start) if "iret" in line.lower()), len(lines) - 1)
    print("\n".join(lines[start : end + 3]))
    for word in ("trap_bounce", "DPL 3", "rip", "rflags"):
        expect(word in run.stdout, f"the trace does not speak of {word}")


if __name__ == "__main__":
    debug_tasks()
    follow_int3()
    print("\ndemo: everything happened as it should")
