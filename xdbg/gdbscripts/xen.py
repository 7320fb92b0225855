"""gdb's `xen` commands, for a domain that xdbg serves. Loaded by gdb: `source PATH`, or `gdb -x PATH`.

They put together what takes several of gdb's own commands, and give names to those behind ``monitor``; and two settings
suit a machine whose processes run and stop together. Works in gdb 12 and later. A process of the guest is named by its
pid, or by its program's name as long as only one process has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import gdb

KERNEL_PID = 0x40_0001
"""The kernel's number as a process of gdb's."""

REGISTERS = (
    ("mode and events", ("xen_kernel_mode", "xen_upcall_mask", "xen_upcall_pending")),
    ("page tables", ("cr3", "xen_cr3_user", "cr2")),
    ("stacks and bases", ("xen_kernel_sp", "fs_base", "gs_base", "xen_gs_base_user")),
    ("control", ("cr0", "cr4", "cr8", "efer")),
)
"""What `xen registers` shows, by subject."""


@dataclass(frozen=True)
class Process:
    """A process of the guest, a line of ``monitor ps``."""

    pid: int
    path: str
    on_vcpu: bool

    @property
    def name(self) -> str:
        """The last part of its program's path."""
        return self.path.rpartition("/")[2]


# -- what the server knows


def ask(command: str) -> str:
    """What the server answers to ``monitor COMMAND``. gdb.GdbError with the server's own words if it refuses."""
    kernel_connection()
    try:
        # By the console's interpreter: a front end's would write it as a record of its own.
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        return str(gdb.execute(f'interpreter-exec console "monitor {quoted}"', to_string=True))
    except gdb.error as error:
        raise gdb.GdbError(str(error).replace("Protocol error with Rcmd: ", "").rstrip(".")) from None


def processes() -> list[Process]:
    """The guest's processes."""
    rows = re.finditer(r"^ *(\d+) +\S+ +\S+ +\S+ +(\S+)(.*)$", ask("ps"), re.MULTILINE)
    return [Process(int(row[1]), row[2], "on vcpu" in row[3]) for row in rows]


def find_process(text: str) -> Process:
    """The process of that pid or name. gdb.GdbError if there is none, or more than one."""
    words = gdb.string_to_argv(text)
    if len(words) != 1:
        raise gdb.GdbError("a process is wanted: its pid, or the name of its program")
    known = processes()
    wanted = words[0]
    found = [one for one in known if wanted in (str(one.pid), one.path, one.name)]
    if not found:
        raise gdb.GdbError(f"the guest has no process {wanted}; `xen ps` lists them")
    if len(found) > 1:
        pids = ", ".join(str(one.pid) for one in found)
        raise gdb.GdbError(f"several processes are called {wanted}: {pids}; name one by its pid")
    return found[0]


# -- inferiors


def kernel_connection() -> gdb.Inferior:
    """An inferior that is connected to the server. gdb.GdbError if none is, or not in the way that is needed."""
    current = gdb.selected_inferior()
    for inferior in (current, *gdb.inferiors()):
        connection = inferior.connection
        if connection is not None and connection.type == "extended-remote":
            return inferior
        if connection is not None and connection.type == "remote":
            raise gdb.GdbError("this needs `target extended-remote` in place of `target remote`")
    raise gdb.GdbError("no domain is connected: `target extended-remote HOST:PORT`")


def inferior_of(pid: int) -> gdb.Inferior | None:
    """The inferior that has a process."""
    return next((inferior for inferior in gdb.inferiors() if inferior.pid == pid), None)


def select(inferior: gdb.Inferior) -> None:
    """Look at an inferior, silently."""
    if gdb.selected_inferior().num != inferior.num:
        gdb.execute(f"inferior {inferior.num}", to_string=True)


def attach(process: Process) -> gdb.Inferior:
    """Make a process an inferior of its own and look at it; if it is one already, only look at it."""
    known = inferior_of(process.pid)
    if known is not None:
        gdb.write(f"process {process.pid} is inferior {known.num}\n")
        select(known)
        return known
    before = gdb.selected_inferior()
    select(kernel_connection())
    expect_stops()
    gdb.execute("add-inferior", to_string=True)
    added = max(gdb.inferiors(), key=lambda inferior: inferior.num)
    select(added)
    try:
        gdb.execute(f"attach {process.pid}")
    except gdb.error as error:
        select(before)
        gdb.execute(f"remove-inferiors {added.num}", to_string=True)
        raise gdb.GdbError(str(error)) from None
    gdb.write(f"process {process.pid}, {process.path}, is inferior {added.num}\n")
    return added


resumed: set[tuple[int, int]] = set()
"""Inferiors that were looked at when gdb resumed something, with the number of their connection."""


def note_resumed(event: gdb.ContinueEvent) -> None:
    """Gdb resumes the inferior that is looked at."""
    del event
    inferior = gdb.selected_inferior()
    if inferior.connection is not None:
        resumed.add((inferior.num, inferior.connection.num))


def expect_stops() -> None:
    """Have gdb tell of stops of the inferior that is looked at, as it does once that has been resumed.

    An inferior that gdb has found running when it connected is marked as one whose next stop is not news. If another
    one is resumed first, gdb swallows a stop of this one and waits for ever. A step of nothing takes the mark away.
    """
    inferior = gdb.selected_inferior()
    if inferior.connection is None or (inferior.num, inferior.connection.num) in resumed:
        return
    if inferior.pid and all(thread.is_stopped() for thread in inferior.threads()):
        gdb.execute("with suppress-cli-notifications on -- stepi 0", to_string=True)


def let_go(inferior: gdb.Inferior) -> None:
    """Detach from a process and forget its inferior; afterwards the kernel is looked at."""
    pid = inferior.pid
    if pid:
        gdb.execute(f"detach inferiors {inferior.num}", to_string=True)
    kernel = inferior_of(KERNEL_PID) or gdb.inferiors()[0]
    select(kernel)
    if inferior.num != kernel.num:
        gdb.execute(f"remove-inferiors {inferior.num}", to_string=True)
    if pid:
        gdb.write(f"process {pid} goes on without gdb\n")


# -- commands


class Command(gdb.Command):
    """A command behind `xen`; its docstring is its help."""

    name = ""
    completion = gdb.COMPLETE_NONE

    def __init__(self) -> None:
        super().__init__(f"xen {self.name}", gdb.COMMAND_RUNNING, self.completion)


class ProcessCommand(Command):
    """One whose argument is a process."""

    def __init__(self) -> None:
        # Without a class of completion, so that `complete` is asked.
        gdb.Command.__init__(self, f"xen {self.name}", gdb.COMMAND_RUNNING)

    def complete(self, text: str, word: str) -> list[str]:
        """The pids and names of processes that begin so."""
        del text
        try:
            known = processes()
        except (gdb.error, gdb.GdbError):
            return []
        return sorted({each for one in known for each in (str(one.pid), one.name) if each.startswith(word or "")})


class Xen(gdb.Command):
    """The domain that xdbg serves: its processes, its vcpus, what it does with Xen."""

    def __init__(self) -> None:
        super().__init__("xen", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE, True)


class Attach(ProcessCommand):
    """Debug a process of the guest, in an inferior of its own.
    Usage: xen attach PID|NAME

    Its own symbols are loaded. Break and watch points that are set while it is looked at are in its memory only.
    `inferior 1` goes back to the kernel.
    """

    name = "attach"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Attach."""
        del from_tty
        attach(find_process(argument))


class Detach(ProcessCommand):
    """Let go of a process that was attached, and look at the kernel again.
    Usage: xen detach [PID|NAME]

    Without an argument: of the one that is looked at.
    """

    name = "detach"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Detach."""
        del from_tty
        inferior: gdb.Inferior | None = gdb.selected_inferior()
        if argument.strip():
            process = find_process(argument)
            inferior = inferior_of(process.pid)
            if inferior is None:
                raise gdb.GdbError(f"process {process.pid} is not attached")
        assert inferior is not None
        if inferior.pid in (0, KERNEL_PID):
            raise gdb.GdbError("this is no process of the guest; `detach` lets go of the whole domain")
        let_go(inferior)


class BreakIn(ProcessCommand):
    """Set a breakpoint in one process, attaching to it if that has not been done.
    Usage: xen break-in PID|NAME LOCATION

    Other processes that run the same program don't stop there.
    """

    name = "break-in"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Attach, and set it for the thread of the process."""
        del from_tty
        who, _, location = argument.strip().partition(" ")
        if not location.strip():
            raise gdb.GdbError("usage: xen break-in PID|NAME LOCATION")
        inferior = attach(find_process(who))
        thread = inferior.threads()[0]
        gdb.execute(f"break {location.strip()} thread {inferior.num}.{thread.num}")


class Restart(Command):
    """Start the domain anew, and stop before its first instruction.
    Usage: xen restart [COMMAND LINE]

    Processes are let go of first. gdb's break and watch points stay, and what `xen catch` set; what `xen watch` set
    does not. A command line for the kernel stays for later starts.
    """

    name = "restart"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Let go of all processes, kill the kernel, start it."""
        del from_tty
        kernel = inferior_of(KERNEL_PID) or kernel_connection()
        for inferior in gdb.inferiors():
            # Those whose process has ended, too: gdb may wait in vain for one of them when `starti` has stopped.
            if inferior.num != kernel.num and inferior.connection == kernel.connection:
                let_go(inferior)
        select(kernel)
        if kernel.pid:
            gdb.execute(f"kill inferiors {kernel.num}", to_string=True)
        gdb.execute(f"starti {argument}".strip())


class Registers(Command):
    """Show the registers of the paravirtual interface and the control registers, by subject.
    Usage: xen registers
    """

    name = "registers"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Show them."""
        del from_tty
        if argument.strip():
            raise gdb.GdbError("usage: xen registers")
        try:
            frame = gdb.newest_frame()
        except gdb.error as error:
            raise gdb.GdbError(str(error)) from None
        for subject, names in REGISTERS:
            gdb.write(f"{subject}:\n")
            for name in names:
                value = frame.read_register(name)
                number = int(value)
                text = str(value)
                shown = f"{number:#x}" if text.lstrip("-").isdigit() else f"{number:#x}  {text}"
                gdb.write(f"  {name:<20}{shown if not text.startswith('0x') else text}\n")


class PageTable(Command):
    """Walk the page tables for an address of the selected thread, level by level.
    Usage: xen pt ADDRESS

    ADDRESS is any expression, such as &variable or $rsp.
    """

    name = "pt"
    completion = gdb.COMPLETE_EXPRESSION

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Walk."""
        del from_tty
        if not argument.strip():
            raise gdb.GdbError("usage: xen pt ADDRESS")
        kernel_connection()
        gdb.write(ask(f"walk {address_of(argument):#x}"))


class Behind(Command):
    """A command whose words go to ``monitor`` as they are."""

    behind = ""
    words: tuple[str, ...] = ()

    def __init__(self) -> None:
        gdb.Command.__init__(self, f"xen {self.name}", gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Pass it on."""
        del from_tty
        gdb.write(ask(f"{self.behind or self.name} {argument}".strip()))

    def complete(self, text: str, word: str) -> list[str]:
        """The first word."""
        if text.strip() != (word or ""):
            return []
        return [one for one in self.words if one.startswith(word or "")]


class Ps(Behind):
    """List the guest's processes.
    Usage: xen ps
    """

    name = "ps"


class Trace(Behind):
    """Trace the guest's way through the hypervisor, or stop doing so.
    Usage: xen trace [on [KINDS] | off]

    KINDS are kinds of events, such as exception,iret; without an argument all are listed.
    """

    name = "trace"
    words = ("on", "off")


class Catch(Behind):
    """Stop at what the guest does with Xen: hypercalls, traps, upcalls, a crash.
    Usage: xen catch [hypercall NAME | trap VECTOR | upcall PORT | crash]

    Without an argument the catches are listed; `monitor help catch` has all forms.
    """

    name = "catch"
    words = ("hypercall", "trap", "upcall", "crash")


class Uncatch(Behind):
    """Take away what `xen catch` made.
    Usage: xen uncatch N|all
    """

    name = "uncatch"
    words = ("all",)


class Why(Behind):
    """Tell why the domain stopped.
    Usage: xen why
    """

    name = "why"


class Watch(Behind):
    """Watch memory, with a condition that the server evaluates.
    Usage: xen watch [PLACE [LENGTH] [r|w|rw] [if CONDITION]]

    Without an argument the watches are listed; `monitor help watch` has more.
    """

    name = "watch"


class Unwatch(Behind):
    """Take away what `xen watch` made.
    Usage: xen unwatch N|all
    """

    name = "unwatch"
    words = ("all",)


class List(Behind):
    """List the domains of the machine, and where the debuggers of each connect.
    Usage: xen list
    """

    name = "list"


class Translate(Behind):
    """Tell where an address of the selected thread is: machine frame, pfn, rights.
    Usage: xen translate ADDRESS

    ADDRESS is any expression, such as &variable or $rsp.
    """

    name = "translate"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Translate."""
        del from_tty
        if not argument.strip():
            raise gdb.GdbError("usage: xen translate ADDRESS")
        kernel_connection()
        gdb.write(ask(f"translate {address_of(argument):#x}"))


def address_of(expression: str) -> int:
    """The value of an expression as an address. gdb.GdbError with gdb's own words if it has none."""
    try:
        return int(gdb.parse_and_eval(expression).cast(gdb.lookup_type("unsigned long")))
    except gdb.error as error:
        raise gdb.GdbError(str(error)) from None


class Current(gdb.Function):
    """$xen_current(): the pid of the process that runs now, or that the kernel works for; 0 if there is none."""

    def __init__(self) -> None:
        super().__init__("xen_current")

    def invoke(self) -> int:
        """The pid."""
        return next((one.pid for one in processes() if one.on_vcpu), 0)


# The domain runs as a whole. A gdb that believes that only one inferior was resumed keeps what it knows of the others'
# registers and stacks, and shows a process, or calls a function in it, as it was long ago.
for _setting in ("schedule-multiple on", "stack-cache off"):
    gdb.execute(f"set {_setting}")

gdb.events.cont.connect(note_resumed)

Xen()
for _command in (
    *(Attach, Detach, BreakIn, Restart, Registers, PageTable),
    *(Ps, Trace, Catch, Uncatch, Why, Watch, Unwatch, List, Translate),
    Current,
):
    _command()
