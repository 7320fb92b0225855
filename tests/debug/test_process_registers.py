"""A process's registers at each instruction of its kernel, from the entry to the return."""

from collections.abc import Callable

import pytest

from xdbg.abi.x86 import Rflags
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.registers import BY_NAME, RIP
from xdbg.rsp.replies import StopReply
from xdbg.rsp.target import BreakpointKind
from xdbg.rsp.threadid import Thread

Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
SOFTWARE = BreakpointKind.SOFTWARE
PROCESS = Thread(1, 1)
GPR = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
PROGRAMS = {"getpid": "forker", "fault": "fault", "event": "spin"}


class Entered:
    """A process that has just entered its kernel: by a system call, a fault with an error code, or an event."""

    def __init__(self, make: Make, by: str) -> None:
        self.guest = make("tasks", f"init=/bin/{PROGRAMS[by]}")
        self.target = self.guest.target
        self.guest.brk("schedule")
        assert isinstance(self.guest.cont(), StopReply)
        self.guest.clear("schedule")
        self.target.attach(1)
        process = self.target.inferiors.process(1)
        program = self.target.profile.file(process.exec_path) or b""
        self.symbols = SymbolTable.from_elf(program, bias=process.load_base)
        place, instruction = {
            "getpid": ("fork", b"\x0f\x05"),
            "fault": ("store", b"\x89\x10"),
            "event": ("main", b""),
        }[by]
        self.target.insert_breakpoint(PROCESS, SOFTWARE, self.symbols.address(place))
        assert isinstance(self.guest.cont(), StopReply)
        self.target.remove_breakpoint(PROCESS, SOFTWARE, self.symbols.address(place))
        while instruction and self.target.read_memory(PROCESS, self.guest.rip, 2) != instruction:
            self.guest.step(PROCESS)
        if by == "event":
            self.guest.brk("entry_event")
            assert isinstance(self.guest.cont(), StopReply)
            self.guest.clear("entry_event")
            self.before = self.registers()
            return
        self.before = self.registers()
        if by == "getpid":
            self.before["rip"] += 2
            self.before["rcx"] = self.before["rip"]
            self.before["r11"] = self.before["eflags"]
            self.before["orig_rax"] = self.before["rax"]
        elif by == "fault":
            self.before["eflags"] |= Rflags.RF  # in the frame of every fault: SDM volume 3, "Resume Flag"
        self.guest.step()

    def registers(self) -> dict[str, int]:
        return {name: self.register(name) for name in (*GPR, "rip", "eflags", "orig_rax", "fs_base", "mxcsr")}

    def register(self, name: str) -> int:
        return int.from_bytes(self.target.read_register(PROCESS, BY_NAME[name].number), "little")

    def write(self, name: str, value: int) -> None:
        self.target.write_register(PROCESS, BY_NAME[name].number, value.to_bytes(8, "little"))

    def is_in_user_mode(self) -> bool:
        return not self.target.domain.vcpus[0].kernel_mode


@pytest.mark.parametrize("by", PROGRAMS)
def test_the_registers_are_true_while_the_kernel_saves_them(bundled: Make, by: str) -> None:
    entered = Entered(bundled, by)
    places = []
    while not (places and places[-1].startswith("save") and not entered.guest.where().startswith("save")):
        assert entered.registers() == entered.before, entered.guest.where()
        assert entered.target.inferiors.expedited(PROCESS)[RIP] == entered.before["rip"].to_bytes(8, "little")
        places.append(entered.guest.where())
        entered.guest.step()
    assert entered.registers() == entered.before
    assert len(places) > 30


def test_the_registers_are_true_on_the_way_out(bundled: Make) -> None:
    entered = Entered(bundled, "event")
    entered.guest.brk("enter_user_mode")
    assert isinstance(entered.guest.cont(), StopReply)
    while not entered.is_in_user_mode():
        assert entered.registers() == entered.before, entered.guest.where()
        entered.guest.step()
    assert entered.registers() == entered.before


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 9, 12, 18, 19, 20, 24, 30, 45])
@pytest.mark.parametrize("by", ["event", "fault"])
def test_registers_that_are_written_meanwhile_count(bundled: Make, by: str, steps: int) -> None:
    entered = Entered(bundled, by)
    for _ in range(steps):
        entered.guest.step()
    wanted = {name: 0x1000 + at for at, name in enumerate(GPR) if name != "rsp"}
    wanted["rsp"] = entered.before["rsp"] - 64
    wanted["rip"] = entered.symbols.address("main")
    for name, value in wanted.items():
        entered.write(name, value)
    kernel = entered.guest.rip
    assert {name: entered.register(name) for name in wanted} == wanted
    assert entered.guest.rip == kernel
    if by == "fault":
        entered.guest.brk("task_signal")
        assert isinstance(entered.guest.cont(), StopReply)
        assert {name: entered.register(name) for name in wanted} == wanted
        return
    entered.target.insert_breakpoint(PROCESS, SOFTWARE, wanted["rip"])
    assert isinstance(entered.guest.cont(), StopReply)
    assert entered.is_in_user_mode()
    assert {name: entered.register(name) for name in wanted} == wanted
