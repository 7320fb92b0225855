"""Several domains on one machine, without sockets: what they compute, with debuggers and without."""

from io import BytesIO, StringIO
from pathlib import Path

import pytest

from xdbg.abi.frames import Maddr
from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.running.machine_run import MachineRun, SharedWatches
from xdbg.debug.target import DebugTarget
from xdbg.guestos.symbols import SymbolTable
from xdbg.machine.exits import WatchExit
from xdbg.machine.stoppoints import Access, Watch
from xdbg.rsp.replies import StopReply, WatchHit
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, WatchKind
from xdbg.rsp.threadid import EVERY_THREAD, Thread
from xdbg.session.console import Terminal
from xdbg.session.domain_spec import parse_domain
from xdbg.session.launch import MIB, Launch, LaunchError, Machine, launch_machine, names_of
from xdbg.session.listener import Address, AddressError, address_of, parse_address
from xdbg.session.run import Outcome, run_machine
from xdbg.session.trace import make_recorder
from xdbg.trace.events import EVENT_KINDS

SMALL = 8 * MIB
TWO = (Launch("tick", memory=SMALL), Launch("tasks", memory=SMALL))
CONTINUE = (ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),)
KERNEL = Thread(KERNEL_PID, 1)


def traced(machine: Machine) -> StringIO:
    stream = StringIO()
    machine.hv.observer = make_recorder(machine.domains, stream, "text", tuple(EVENT_KINDS))
    return stream


def outcome(machine: Machine) -> tuple[object, ...]:
    hv = machine.hv
    output = [bytes(launched.domain.console.output) for launched in machine.domains]
    return hv.cpu.count, hv.now(), output, hash(bytes(hv.ram.buffer))


class Debugger:
    """Two targets on one machine, driven as a server drives them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run = MachineRun(machine.hv)
        self.targets = [
            DebugTarget(machine.hv, launched.domain, launched.profile(), self.run) for launched in machine.domains
        ]
        for target in self.targets:
            target.connected()
        self.symbols = [SymbolTable.from_elf(launched.image.elf) for launched in machine.domains]

    def brk(self, index: int, name: str) -> None:
        self.targets[index].insert_breakpoint(KERNEL, BreakpointKind.SOFTWARE, self.symbols[index].address(name))

    def advance(self, indices: list[int]) -> list[tuple[int, object]]:
        """On to the next stops of those that are resumed; none when nothing can run."""
        while True:
            limit = self.machine.hv.cpu.count + 1_000_000
            stops = self.run.advance([self.targets[index].part for index in indices], limit)
            found = [(index, stop) for index, stop in zip(indices, stops, strict=True) if stop is not None]
            if found or self.run.idle:
                return found


def test_two_domains_compute_the_same_with_and_without_debuggers() -> None:
    alone = launch_machine(TWO)
    wanted = traced(alone)
    alone.hv.run(1 << 40)
    machine = launch_machine(TWO)
    stream = traced(machine)
    both = Debugger(machine)
    both.brk(0, "check")
    both.brk(1, "schedule")
    both.brk(1, "task_sleep")
    for index, name in enumerate(("wrong", "current")):
        both.targets[index].insert_watchpoint(KERNEL, WatchKind.WRITE, both.symbols[index].address(name), 4)
    running, stops = [0, 1], 0
    for target in both.targets:
        target.resume(CONTINUE)
    while running:
        for index, stop in both.advance(running):
            stops += 1
            target = both.targets[index]
            if not isinstance(stop, StopReply):
                running.remove(index)
            elif stops % 7 == 0:
                target.resume((ResumeAction(stop.thread.pattern(), ResumeKind.STEP), *CONTINUE))
            else:
                target.resume(CONTINUE)
    assert stops > 100
    assert stream.getvalue() == wanted.getvalue()
    assert outcome(machine) == outcome(alone)


def test_stop_points_of_one_domain_are_not_in_the_cpu_while_another_runs() -> None:
    machine = launch_machine((TWO[0], TWO[0]))
    both = Debugger(machine)
    both.brk(0, "check")
    assert len(machine.hv.cpu.stop_points) == 0
    both.targets[0].resume(CONTINUE)
    both.advance([0])
    first, second = (both.run.stop_points(launched.domain) for launched in machine.domains)
    assert (len(first), len(second)) == (1, 0)
    assert machine.hv.cpu.stop_points is first
    both.targets[0].disconnected()
    assert len(first) == 0


def test_a_watch_point_of_one_domain_has_nothing_to_do_with_the_same_address_in_another() -> None:
    machine = launch_machine((TWO[0], TWO[0]))
    both = Debugger(machine)
    for index, target in enumerate(both.targets):
        if index == 0:
            target.insert_watchpoint(KERNEL, WatchKind.WRITE, both.symbols[0].address("upcalls"), 4096)
        target.resume(CONTINUE)
    for _ in range(5):
        [(first, stop)] = both.advance([0, 1])
        assert first == 0
        assert isinstance(stop, StopReply)
        assert isinstance(stop.reasons[0], WatchHit)
        assert both.targets[1].run_control.is_resumed
        both.targets[0].resume(CONTINUE)


def test_bytes_that_two_watch_are_watched_until_neither_does() -> None:
    cpu = launch_machine(TWO).hv.cpu
    shared = SharedWatches(cpu.watches)
    watch = Watch(Maddr(0x5000), 8, Access.WRITE, 1)
    shared.add(watch)
    shared.add(watch)
    shared.remove(watch)
    assert list(cpu.watches) == [watch]
    shared.remove(watch)
    assert list(cpu.watches) == []


def test_a_store_of_another_domain_to_watched_memory_is_told() -> None:
    machine = launch_machine((TWO[0], TWO[0]))
    both = Debugger(machine)
    target = both.targets[1]
    upcalls = both.symbols[1].address("upcalls")
    target.insert_watchpoint(KERNEL, WatchKind.WRITE, upcalls, 8)
    target.resume(CONTINUE)
    run = target.run_control
    assert run.begin() is None
    maddr = target.inferiors.space(KERNEL).translate(upcalls).maddr
    [watch] = machine.hv.cpu.watches.overlapping(maddr, 8)
    stop = run.touched(WatchExit(watches=(watch,), maddr=maddr, size=4, write=True))
    assert isinstance(stop, StopReply)
    assert stop.reasons == (WatchHit(int(WatchKind.WRITE), upcalls),)
    assert run.touched(None) is None


def test_lines_of_several_consoles_have_their_domains_names() -> None:
    output = BytesIO()
    machine = launch_machine((Launch("hello", memory=SMALL, name="one"), Launch("hello", memory=SMALL, name="two")))
    assert run_machine(machine, Terminal(output, named=True)) == [Outcome.POWERED_OFF] * 2
    lines = output.getvalue().decode().splitlines()
    assert all(line.startswith(("one: ", "two: ")) for line in lines)
    assert [line[5:] for line in lines if line.startswith("one")] == [
        line[5:] for line in lines if line.startswith("two")
    ]


def test_a_line_without_an_end_is_shown_when_its_domain_has_ended() -> None:
    output = BytesIO()
    machine = launch_machine((TWO[0], TWO[0]))
    domain = machine.domains[0].domain
    terminal = Terminal(output, named=True)
    domain.console.output += b"half a "
    terminal.flush(domain)
    assert output.getvalue() == b""
    domain.console.output += b"line\nand more"
    domain.shutdown_code = 0
    terminal.flush(domain)
    assert output.getvalue() == b"tick: half a line\ntick: and more\n"


def test_memory_is_that_of_all_domains_and_names_are_unique() -> None:
    machine = launch_machine((TWO[0], TWO[0], Launch("tick", name="tick-2", memory=16 * MIB)))
    assert [launched.domain.name for launched in machine.domains] == ["tick", "tick-3", "tick-2"]
    assert [launched.domain.domid for launched in machine.domains] == [1, 2, 3]
    assert [launched.domain.nr_pages for launched in machine.domains] == [2048, 2048, 4096]
    with pytest.raises(LaunchError, match="two domains have the name a"):
        names_of([Launch("tick", name="a"), Launch("hello", name="a")])
    with pytest.raises(LaunchError, match="together"):
        launch_machine([Launch("tick", memory=9 << 30, name="a"), Launch("tick", memory=9 << 30, name="b")])


SPEC = 'kernel=tick,name=a,memory=64,vcpus=2,extra="one, two",root=/dev/xvda,ramdisk=/x,ramdisk=/y'


def test_a_domain_as_it_is_written() -> None:
    assert parse_domain(SPEC, print) == Launch(
        "tick", (Path("/x"), Path("/y")), "root=/dev/xvda one, two", 64 * MIB, 2, "a"
    )
    assert parse_domain("hello", print) == Launch("hello")
    assert parse_domain("kernel=hello,memory=1G", print).memory == 1 << 30


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("name=a", "there is no kernel"),
        ("kernel=a,color=red", "no key 'color'"),
        ("kernel=a,memory=much", "no amount of memory"),
        ("kernel=a,vcpus=two", "no number of vcpus"),
        ("kernel=a,name=a b", "is no name"),
        ("kernel=a,kernel=b", "twice"),
        ('kernel=a,extra="open', "is not KEY=VALUE"),
        ("kernel=a,b", "'b' is not KEY=VALUE"),
        ("/no/such.cfg", "No such file"),
    ],
)
def test_what_is_no_domain_is_told_in_a_line(spec: str, why: str) -> None:
    with pytest.raises(LaunchError, match=why) as caught:
        parse_domain(spec, print)
    assert "\n" not in str(caught.value)


def test_a_configuration_file_of_xl(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_text(
        "name = 'one'\nkernel = 'hello'\nmemory = 16\nmaxmem = 32\nvcpus = 2\nmaxvcpus = 4\n"
        "extra = 'from a file'\nvif = ['mac=00:16:3e:00:00:01']\non_crash = 'restart'\n"
    )
    lines: list[str] = []
    assert parse_domain(str(path), lines.append) == Launch("hello", (), "from a file", 16 * MIB, 2, "one")
    assert [line.removeprefix(f"{path}:").split()[0 if line[len(str(path)) + 1] == " " else 1] for line in lines] == [
        "vif",
        "maxmem",
        "maxvcpus",
        "on_crash=restart",
    ]


def test_addresses_of_the_domains_that_follow() -> None:
    first = parse_address(":1234")
    assert [address_of(first, index, "x").port for index in range(3)] == [1234, 1235, 1236]
    assert address_of(parse_address(":0"), 5, "x").port == 0
    assert address_of(parse_address("unix:/a"), 1, "x") == Address(path="/a.x")
    with pytest.raises(AddressError, match="65536"):
        address_of(parse_address(":65535"), 1, "x")
    with pytest.raises(AddressError, match="one domain"):
        address_of(parse_address("stdio"), 0, "x")
