"""The first instructions of the kernel `tasks`, on which a process's registers are not yet where they belong.

`task->in_user` says that the kernel has not saved them. With the vcpu in kernel mode that means one of two things: the
kernel is on its last instructions, in enter_user_mode() and what that leaves through; or on its first ones. Then

* rip, rflags, rsp, cs and ss are in the bounce frame, the tail of the struct regs that ends at kernel_stack_top;
* rcx and r11 are on top of the bounce frame until the stub has taken them off: Xen enters the kernel by `sysret`, which
  leaves its own values there;
* the other registers are still in the vcpu until trap_common has pushed them, one below the other. What rsp has passed
  is in memory.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.machine.paging import NotMappedError

from .events import KernelRegisters
from .memory import GuestMemory
from .profile import UserRegisters
from .structures import StructLayout, Structures
from .symbols import SymbolTable

GPR: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
"""The members of struct regs in the order of `UserRegisters.gpr`."""
_RAX: Final = 0
_RSP: Final = 4
_U64: Final = Struct("<Q")
_PAGE: Final = 4096
_STUBS: Final = ("entry_stubs", "entry_event", "entry_syscall", "entry_failsafe")
_LEAVING: Final = ("enter_user_mode", "regs_enter")
_VECTOR_SYSCALL: Final = 257


class TasksEntry:
    """Where the registers are that have not been saved. Knows nothing if the kernel lacks one of the names."""

    def __init__(self, memory: GuestMemory, symbols: SymbolTable, structures: Structures, task: StructLayout) -> None:
        self._memory = memory
        self._task = task
        names = (*_STUBS, *_LEAVING, "trap_common", "hypercall_page", "kernel_stack_top")
        self._known = all(name in symbols for name in names) and "in_user" in task.fields
        if not self._known:
            return
        self._regs = structures.struct_layout("regs")
        self._known = all(name in self._regs.fields for name in (*GPR, "vector", "rip", "cs", "rflags", "ss"))
        ranges = {name: _range(symbols, name) for name in (*_STUBS, *_LEAVING, "trap_common")}
        page = symbols.address("hypercall_page")
        self._leaving = [*(ranges[name] for name in _LEAVING), range(page, page + _PAGE)]
        self._stubs = [ranges[name] for name in _STUBS]
        self._common = ranges["trap_common"]
        self._frame = Vaddr(symbols.address("kernel_stack_top") - self._regs.size)
        self._syscall = ranges["entry_syscall"]

    def unsaved(self, slot: bytes, vcpu: KernelRegisters) -> UserRegisters | None:
        """The registers of the current task, if they have not been saved."""
        if not self._is_entering(slot, vcpu):
            return None
        in_memory = self._in_memory(vcpu)
        try:
            frame = self._memory.read_kernel(self._frame, self._regs.size)
            gpr = [
                self._regs.value(frame, name) if name in in_memory else vcpu.gpr[index]
                for index, name in enumerate(GPR)
            ]
            for name, vaddr in self._bounce_words(vcpu).items():
                gpr[GPR.index(name)] = _U64.unpack(self._memory.read_kernel(vaddr, _U64.size))[0]
        except NotMappedError:
            return None
        if any(vcpu.rip in stub for stub in self._stubs):
            is_syscall = vcpu.rip in self._syscall
        else:
            is_syscall = self._regs.value(frame, "vector") == _VECTOR_SYSCALL
        return UserRegisters(
            gpr=tuple(gpr),
            rip=Vaddr(self._regs.value(frame, "rip")),
            rflags=self._regs.value(frame, "rflags"),
            cs=self._regs.value(frame, "cs") & 0xFFFF,
            ss=self._regs.value(frame, "ss") & 0xFFFF,
            orig_rax=gpr[_RAX] if is_syscall else None,
        )

    def writes(
        self, registers: UserRegisters, vcpu: KernelRegisters
    ) -> tuple[Sequence[tuple[Vaddr, bytes]], dict[int, int]]:
        """What to store, and which general registers of the vcpu to set, so that the kernel saves these registers."""
        in_memory = self._in_memory(vcpu)
        values = {name: registers.gpr[index] for index, name in enumerate(GPR) if name in in_memory}
        values |= {"rip": registers.rip, "rflags": registers.rflags}
        memory = [(Vaddr(self._frame + self._regs.fields[name].offset), _U64.pack(values[name])) for name in values]
        for name, vaddr in self._bounce_words(vcpu).items():
            memory.append((vaddr, _U64.pack(registers.gpr[GPR.index(name)])))
        return memory, {index: registers.gpr[index] for index, name in enumerate(GPR) if name not in in_memory}

    def _is_entering(self, slot: bytes, vcpu: KernelRegisters) -> bool:
        return (
            self._known
            and self._task.value(slot, "in_user") != 0
            and not any(vcpu.rip in leaving for leaving in self._leaving)
        )

    def _in_memory(self, vcpu: KernelRegisters) -> set[str]:
        """The general registers that are in the frame. The process's rsp always is: the CPU has the kernel's."""
        if any(vcpu.rip in stub for stub in self._stubs):
            return {"rsp"}
        lowest = vcpu.gpr[_RSP] if vcpu.rip in self._common else 0
        return {name for name in GPR if self._frame + self._regs.fields[name].offset >= lowest}

    def _bounce_words(self, vcpu: KernelRegisters) -> dict[str, Vaddr]:
        """Where rcx and r11 lie that the stub has not taken off the bounce frame."""
        sp = vcpu.gpr[_RSP]
        stub = next((stub for stub in self._stubs if vcpu.rip in stub), None)
        if stub is None:
            return {}
        size = 16 if stub is self._stubs[0] else len(stub)
        match (vcpu.rip - stub.start) % size:
            case 0:
                return {"rcx": Vaddr(sp), "r11": Vaddr(sp + 8)}
            case 1:
                return {"r11": Vaddr(sp)}
            case _:
                return {}


def _range(symbols: SymbolTable, name: str) -> range:
    symbol = symbols.get(name)
    assert symbol is not None
    return range(symbol.address, symbol.address + symbol.size)
