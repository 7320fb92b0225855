"""Carrying out the actions of a tracepoint: from the guest as it stands, into a frame.

Memory that can't be read is left out of the frame, as is what is behind a pointer that leads nowhere. An expression
that computes with such memory is an error.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from xdbg.abi.frames import PAGE_SIZE, Maddr
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.debug.inferiors.registers import encode
from xdbg.debug.inferiors.vcpu_registers import read_system, read_vcpu
from xdbg.debug.points.conditions import GPR_OF
from xdbg.machine.ram import Ram
from xdbg.rsp.agent_evaluation import UnreadableError, evaluate
from xdbg.rsp.agent_expression import Expression, ExpressionError
from xdbg.rsp.agent_printf import Piece
from xdbg.rsp.registers import REGISTERS, RIP
from xdbg.rsp.target import TargetError
from xdbg.rsp.tracepoints import CollectMemory, CollectRegisters
from xdbg.xen.vcpu import Vcpu

from .buffer import FrameBuilder
from .definitions import Step
from .variables import TraceVariables

_U64: Final = 1 << 64
_WORD: Final = 8


class Collection:
    """One look at the guest, through the vcpu that has the CPU. The context of expressions, too."""

    def __init__(self, vcpu: Vcpu, variables: TraceVariables, room: int) -> None:
        hv = vcpu.domain.hv
        self._vcpu = vcpu
        self._cpu = hv.cpu
        self._variables = variables
        self._space = _space(hv.ram, vcpu)
        self._block: bytes | None = None
        self.frame = FrameBuilder(room)

    def collect(self, steps: Iterable[Step]) -> None:
        """Carry out actions. ExpressionError; what was collected before stays in the frame."""
        for step in steps:
            match step:
                case CollectRegisters():
                    self.frame.add_registers(self._registers())
                case CollectMemory(base, offset, length):
                    start = 0 if base is None else self.read_register(base)
                    self.record_memory((start + offset) % _U64, length)
                case Expression():
                    evaluate(step, self)
            if self.frame.full:
                return

    # -- ExpressionContext

    def read_register(self, number: int) -> int:
        """By gdb's number. Of those that are longer than a word, the lowest 8 bytes."""
        if number in GPR_OF:
            return self._cpu.gpr[GPR_OF[number]]
        if number == RIP:
            return self._cpu.rip
        if number >= len(REGISTERS):
            raise UnreadableError(f"there is no register {number}")
        register = REGISTERS[number]
        if register.offset is None:
            return int.from_bytes(read_system(self._vcpu, number), "little")
        at = register.offset
        return int.from_bytes(self._registers()[at : at + min(register.size, _WORD)], "little")

    def read_memory(self, vaddr: int, length: int) -> bytes:
        """What an expression computes with."""
        try:
            return self._space.read(vaddr, length)
        except TargetError as error:
            raise UnreadableError(f"memory at {vaddr:#x} can't be read") from error

    def get_variable(self, number: int) -> int:
        """A trace state variable."""
        return self._variables.get(number)

    def set_variable(self, number: int, value: int) -> None:
        """Sets a trace state variable."""
        self._variables.set(number, value)

    def record_memory(self, vaddr: int, length: int) -> None:
        """As much of it as is readable."""
        if length > self.frame.room:
            self.frame.full = True
            return
        end = min(vaddr + length, _U64)
        while vaddr < end and not self.frame.full:
            try:
                data = self._space.read(vaddr, end - vaddr)
            except TargetError:
                data = b""
            if data:
                self.frame.add_memory(vaddr, data)
                vaddr += len(data)
            else:
                vaddr = (vaddr | PAGE_SIZE - 1) + 1

    def record_string(self, vaddr: int, limit: int) -> None:
        """Up to and with the zero byte, as far as it is readable."""
        found = b""
        while len(found) < limit and b"\0" not in found:
            at = vaddr + len(found)
            wanted = min(limit - len(found), PAGE_SIZE - at % PAGE_SIZE)
            try:
                found += self._space.read(at, wanted)
            except TargetError:
                break
        end = found.find(b"\0")
        self.frame.add_memory(vaddr, found if end < 0 else found[: end + 1])

    def record_variable(self, number: int) -> None:
        """A trace state variable."""
        self.frame.add_variable(number, self._variables.get(number))

    def print(self, pieces: Sequence[Piece], arguments: Sequence[int]) -> None:
        """Nobody reads what a tracepoint would print."""
        del pieces, arguments
        raise ExpressionError("a tracepoint does not print")

    # -- inside

    def _registers(self) -> bytes:
        if self._block is None:
            self._block = encode(read_vcpu(self._vcpu))
        return self._block


def _space(ram: Ram, vcpu: Vcpu) -> AddressSpace:
    user = None if vcpu.guest_table_user is None else Maddr(vcpu.guest_table_user << 12)
    return AddressSpace(ram, vcpu.kernel_cr3, user)
