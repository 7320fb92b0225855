"""The target as it was when a trace frame was collected: what stands before the target while a frame is selected.

Registers and memory are the frame's. What was not collected is unavailable, except memory that never changes, which is
the target's. Nothing can be written. Everything else is the target as it is now. One client's view: another client
sees the target itself.
"""

from binascii import hexlify
from collections.abc import Sequence
from errno import EFAULT, EINVAL, ENODATA, EPERM
from typing import Final

from xdbg.rsp.registers import G_REGISTERS, REGISTERS, RIP
from xdbg.rsp.replies import StopEvent
from xdbg.rsp.target import Target, TargetError, ThreadInfo, Tracepoints
from xdbg.rsp.threadid import Thread
from xdbg.rsp.tracepoints import TraceFrame

_UNAVAILABLE: Final = b"xx"


class FrameView:
    """A `Target` whose registers and memory are those of `frame`."""

    def __init__(self, target: Target, tracepoints: Tracepoints, frame: TraceFrame) -> None:
        self._target = target
        self._tracepoints = tracepoints
        self.frame = frame

    # -- what is shown of registers

    def register_text(self, regnum: int) -> bytes:
        """A register in hexadecimal, or as many pairs of ``x`` as it has bytes. TargetError(EINVAL) if unknown."""
        if not 0 <= regnum < len(REGISTERS):
            raise TargetError(EINVAL, "no such register")
        value = self._collected(regnum)
        return _UNAVAILABLE * REGISTERS[regnum].size if value is None else hexlify(value)

    def block_text(self) -> bytes:
        """The `g` block, in the same form."""
        block = self.frame.registers
        if block is not None:
            return hexlify(block)
        return b"".join(self.register_text(register.number) for register in G_REGISTERS)

    def _collected(self, regnum: int) -> bytes | None:
        register, block = REGISTERS[regnum], self.frame.registers
        if block is not None and register.offset is not None:
            return block[register.offset : register.offset + register.size]
        if regnum == RIP and self.frame.rip is not None:
            # gdb can't do much with a frame that is nowhere.
            return self.frame.rip.to_bytes(register.size, "little")
        return None

    # -- Target

    @property
    def parts(self) -> Sequence[object]:
        """The target's."""
        return self._target.parts

    def threads(self) -> Sequence[ThreadInfo]:
        """The target's."""
        return self._target.threads()

    def is_alive(self, thread: Thread) -> bool:
        """The target's answer."""
        return self._target.is_alive(thread)

    def stop_status(self) -> StopEvent:
        """The target's."""
        return self._target.stop_status()

    def read_registers(self, thread: Thread) -> bytes:
        """The frame's. TargetError(ENODATA) when none were collected."""
        del thread
        if self.frame.registers is None:
            raise TargetError(ENODATA, "the trace frame has no registers")
        return self.frame.registers

    def read_register(self, thread: Thread, regnum: int) -> bytes:
        """The frame's. TargetError(ENODATA) when it was not collected."""
        del thread
        value = self._collected(regnum) if 0 <= regnum < len(REGISTERS) else None
        if value is None:
            raise TargetError(ENODATA, "the trace frame does not have that register")
        return value

    def read_memory(self, thread: Thread, vaddr: int, length: int) -> bytes:
        """The frame's, or the target's where it never changes; short at a hole. TargetError(EFAULT): a hole."""
        found = b""
        while len(found) < length:
            at, rest = vaddr + len(found), length - len(found)
            piece = self.frame.read_memory(at, rest)
            if not piece:
                constant = min(self._tracepoints.is_read_only(at), rest)
                try:
                    piece = self._target.read_memory(thread, at, constant) if constant else b""
                except TargetError:
                    break
            if not piece:
                break
            found += piece
        if not found:
            raise TargetError(EFAULT, "the trace frame does not have that memory")
        return found

    def write_registers(self, thread: Thread, block: bytes) -> None:
        """Refused."""
        del thread, block
        raise _refusal()

    def write_register(self, thread: Thread, regnum: int, value: bytes) -> None:
        """Refused."""
        del thread, regnum, value
        raise _refusal()

    def write_memory(self, thread: Thread, vaddr: int, data: bytes) -> None:
        """Refused."""
        del thread, vaddr, data
        raise _refusal()


def _refusal() -> TargetError:
    return TargetError(EPERM, "a trace frame is selected, and what was collected can't be changed")
