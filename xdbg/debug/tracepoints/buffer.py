"""The trace buffer: frames of collected data, as bytes in the form that gdb's trace files have.

A frame is the number of its tracepoint (2 bytes), the length of what follows (4 bytes), and blocks, each a letter and

=====  ==========================================================================
``R``  the registers: gdb's `g` block
``M``  an address (8 bytes), a length (2 bytes), and that much memory
``V``  the number (4 bytes) and the value (8 bytes) of a trace state variable
=====  ==========================================================================

all little-endian. gdb reads them from a file that ``tsave`` made, so the form is not ours to choose. GDB manual: "Trace
File Format".

The buffer has a size in bytes. A frame that does not fit is refused as a whole, or, when the buffer is circular, takes
the place of as many of the oldest as it needs. Frames are numbered from the oldest that is still there.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import EINVAL
from itertools import islice
from struct import Struct
from typing import Final

from xdbg.rsp.registers import G_SIZE
from xdbg.rsp.target import TargetError
from xdbg.rsp.tracepoints import FrameAt, FrameByNumber, FrameInRange, FrameOfTracepoint, FrameSearch

DEFAULT_SIZE: Final = 5 << 20
"""What gdbserver has, too."""
MAX_SIZE: Final = 256 << 20

_HEAD: Final = Struct("<HI")
_MEMORY: Final = Struct("<cQH")
_VARIABLE: Final = Struct("<cIq")
_MAX_BLOCK: Final = 0xFFFF


@dataclass(slots=True)
class FrameBuilder:
    """A frame that is being collected. With more than `room` bytes it is `full`, and takes no more."""

    room: int
    blocks: bytearray = field(default_factory=bytearray)
    full: bool = False

    def add_registers(self, block: bytes) -> None:
        """The `g` block; only the first counts."""
        if not self.blocks.startswith(b"R"):
            assert len(block) == G_SIZE
            self.blocks[:0] = b"R" + block
            self.full |= len(self.blocks) > self.room

    def add_memory(self, vaddr: int, data: bytes) -> None:
        """A stretch of memory."""
        for start in range(0, len(data), _MAX_BLOCK):
            piece = data[start : start + _MAX_BLOCK]
            self.full |= len(self.blocks) + len(piece) > self.room
            if self.full:
                return
            self.blocks += _MEMORY.pack(b"M", vaddr + start, len(piece)) + piece

    def add_variable(self, number: int, value: int) -> None:
        """A trace state variable; `value` has a sign."""
        self.blocks += _VARIABLE.pack(b"V", number, value)
        self.full |= len(self.blocks) > self.room


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame taken out of the buffer: an `rsp.tracepoints.TraceFrame`.

    `rip` is where the guest was, whether registers were collected or not.
    """

    number: int
    tracepoint: int
    rip: int | None
    registers: bytes | None
    _memory: tuple[tuple[int, bytes], ...]
    _variables: dict[int, int]

    def read_memory(self, vaddr: int, length: int) -> bytes:
        """What was collected from `vaddr` on, up to the first hole."""
        found = b""
        while len(found) < length:
            at = vaddr + len(found)
            piece = next((data[at - start :] for start, data in self._memory if 0 <= at - start < len(data)), b"")
            if not piece:
                break
            found += piece
        return found[:length]

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(vaddr, length) of each block of memory."""
        return [(vaddr, len(data)) for vaddr, data in self._memory]

    def variables(self) -> dict[int, int]:
        """The collected variables; the last value of each counts."""
        return dict(self._variables)


def _frame(number: int, tracepoint: int, rip: int, blocks: bytes) -> Frame:
    registers: bytes | None = None
    memory: list[tuple[int, bytes]] = []
    variables: dict[int, int] = {}
    place = 0
    while place < len(blocks):
        match blocks[place : place + 1]:
            case b"R":
                registers = blocks[place + 1 : place + 1 + G_SIZE]
                place += 1 + G_SIZE
            case b"M":
                _, vaddr, length = _MEMORY.unpack_from(blocks, place)
                place += _MEMORY.size
                memory.append((vaddr, blocks[place : place + length]))
                place += length
            case kind:
                assert kind == b"V"
                _, index, value = _VARIABLE.unpack_from(blocks, place)
                variables[index] = value
                place += _VARIABLE.size
    return Frame(number, tracepoint, rip, registers, tuple(memory), variables)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a frame is: `start` counts all bytes that were ever put into the buffer."""

    tracepoint: int
    rip: int
    start: int


class TraceBuffer:
    """The frames of one trace."""

    def __init__(self) -> None:
        self.size = DEFAULT_SIZE
        """Bytes that fit; to be changed while no trace runs."""
        self.circular = False
        self.created = 0
        """How many frames have been put in."""
        self._data = bytearray()
        self._dropped = 0
        """Bytes that made room for others."""
        self._entries: deque[_Entry] = deque()

    def clear(self) -> None:
        """No frames, and none counted."""
        self._data.clear()
        self._entries.clear()
        self.created = self._dropped = 0

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._entries)

    @property
    def free(self) -> int:
        """Bytes that are left."""
        return max(0, self.size - len(self._data))

    @property
    def room(self) -> int:
        """The most bytes of blocks that a frame can have now."""
        return (self.size if self.circular else self.free) - _HEAD.size

    def add(self, tracepoint: int, rip: int, blocks: bytes) -> bool:
        """Put a frame in; whether there was room."""
        if len(blocks) > self.room:
            return False
        length = _HEAD.size + len(blocks)
        while length > self.free:
            oldest = self._entries.popleft()
            end = self._entries[0].start if self._entries else self._dropped + len(self._data)
            del self._data[: end - oldest.start]
            self._dropped = end
        self._entries.append(_Entry(tracepoint, rip, self._dropped + len(self._data)))
        self._data += _HEAD.pack(tracepoint & 0xFFFF, len(blocks)) + blocks
        self.created += 1
        return True

    def read(self, offset: int, length: int) -> bytes:
        """A piece of all frames, one behind the other; nothing at the end. TargetError(EINVAL) beyond it."""
        if offset > len(self._data):
            raise TargetError(EINVAL, "beyond the end of the trace buffer")
        return bytes(self._data[offset : offset + length])

    def find(self, search: FrameSearch, after: int | None) -> Frame | None:
        """A frame by number, or the next one behind number `after` that the search wants."""
        if isinstance(search, FrameByNumber):
            return self._take(search.number) if search.number < len(self._entries) else None
        first = 0 if after is None else after + 1
        for number, entry in enumerate(islice(self._entries, first, None), first):
            if _wanted(search, entry):
                return self._take(number)
        return None

    def _take(self, number: int) -> Frame:
        entry = self._entries[number]
        place = entry.start - self._dropped
        _, length = _HEAD.unpack_from(self._data, place)
        place += _HEAD.size
        return _frame(number, entry.tracepoint, entry.rip, bytes(self._data[place : place + length]))


def _wanted(search: FrameAt | FrameOfTracepoint | FrameInRange, entry: _Entry) -> bool:
    match search:
        case FrameAt(vaddr):
            return entry.rip == vaddr
        case FrameOfTracepoint(number):
            return entry.tracepoint == number
        case FrameInRange(first, last, outside):
            return (first <= entry.rip <= last) != outside
