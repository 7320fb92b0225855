"""Frames in and out of the trace buffer, and the bytes that gdb finds in a trace file."""

import pytest

from xdbg.debug.tracepoints.buffer import FrameBuilder, TraceBuffer
from xdbg.rsp.registers import G_SIZE
from xdbg.rsp.target import TargetError
from xdbg.rsp.tracepoints import FrameAt, FrameByNumber, FrameInRange, FrameOfTracepoint

BLOCK = bytes(index % 251 for index in range(G_SIZE))


def built(room: int = 1 << 20) -> FrameBuilder:
    frame = FrameBuilder(room)
    frame.add_memory(0x1000, b"memory")
    frame.add_variable(2, -1)
    frame.add_registers(BLOCK)
    frame.add_registers(bytes(G_SIZE))
    return frame


def test_a_frame_has_the_bytes_of_a_trace_file() -> None:
    buffer = TraceBuffer()
    assert buffer.add(7, 0x401000, bytes(built().blocks))
    assert buffer.read(0, 10_000) == b"".join(
        (
            (7).to_bytes(2, "little"),
            (1 + G_SIZE + 11 + 6 + 13).to_bytes(4, "little"),
            b"R" + BLOCK,
            b"M" + (0x1000).to_bytes(8, "little") + (6).to_bytes(2, "little") + b"memory",
            b"V" + (2).to_bytes(4, "little") + b"\xff" * 8,
        )
    )
    assert buffer.read(4, 4) == buffer.read(0, 8)[4:]
    end = len(buffer.read(0, 10_000))
    assert buffer.free == buffer.size - end
    assert buffer.read(end, 1) == b""
    with pytest.raises(TargetError):
        buffer.read(end + 1, 1)


def test_what_went_in_comes_out() -> None:
    buffer = TraceBuffer()
    buffer.add(7, 0x401000, bytes(built().blocks))
    frame = buffer.find(FrameByNumber(0), None)
    assert frame is not None
    assert (frame.number, frame.tracepoint, frame.rip) == (0, 7, 0x401000)
    assert frame.registers == BLOCK
    assert frame.ranges() == [(0x1000, 6)]
    assert frame.variables() == {2: -1}
    assert frame.read_memory(0x1002, 100) == b"mory"
    assert frame.read_memory(0xFFF, 2) == b""
    assert frame.read_memory(0x1006, 1) == b""


def test_blocks_that_touch_are_read_as_one_and_long_memory_makes_several() -> None:
    frame = FrameBuilder(1 << 20)
    data = bytes(index % 253 for index in range(200_000))
    frame.add_memory(0x2000, data)
    frame.add_memory(0x2000 - 4, b"fore")
    buffer = TraceBuffer()
    buffer.add(1, 0, bytes(frame.blocks))
    found = buffer.find(FrameByNumber(0), None)
    assert found is not None
    assert len(found.ranges()) == 5
    assert found.read_memory(0x2000 - 4, 1 << 30) == b"fore" + data
    assert found.registers is None


def test_a_frame_that_is_too_large_is_full_and_stays_small() -> None:
    frame = FrameBuilder(1000)
    frame.add_memory(0, bytes(1 << 20))
    assert frame.full
    assert len(frame.blocks) < 2000
    assert built(G_SIZE).full
    variables = FrameBuilder(20)
    variables.add_variable(1, 0)
    assert not variables.full
    variables.add_variable(1, 0)
    assert variables.full


def test_a_full_buffer_refuses_and_keeps_what_it_has() -> None:
    buffer = TraceBuffer()
    buffer.size = 100
    assert buffer.add(1, 0, bytes(44))
    assert not buffer.add(2, 0, bytes(45))
    assert buffer.add(2, 0, bytes(44))
    assert not buffer.add(3, 0, b"")
    assert (len(buffer), buffer.created, buffer.free) == (2, 2, 0)


def test_a_circular_buffer_drops_the_oldest_and_numbers_anew() -> None:
    buffer = TraceBuffer()
    buffer.size = 100
    buffer.circular = True
    frames = [(b"V" + bytes([index]) + bytes(11)) * (1 + index % 3) for index in range(50)]
    for index, blocks in enumerate(frames):
        assert buffer.add(index, 1000 + index, blocks)
    assert buffer.created == 50
    kept = len(buffer)
    assert 1 < kept < 6
    for number in range(kept):
        found = buffer.find(FrameByNumber(number), None)
        assert found is not None
        assert found.tracepoint == 50 - kept + number
        assert found.variables() == {50 - kept + number: 0}
    assert buffer.find(FrameByNumber(kept), None) is None
    assert buffer.read(0, 1000) == b"".join(
        (50 - kept + number).to_bytes(2, "little") + len(blocks).to_bytes(4, "little") + blocks
        for number, blocks in enumerate(frames[-kept:])
    )
    assert not buffer.add(99, 0, bytes(95))
    assert len(buffer) == kept
    buffer.clear()
    assert (len(buffer), buffer.created, buffer.free) == (0, 0, 100)


def test_searches_go_on_behind_the_selected_frame() -> None:
    buffer = TraceBuffer()
    for tracepoint, rip in ((1, 10), (2, 20), (1, 11), (2, 20), (1, 10)):
        buffer.add(tracepoint, rip, b"")

    def numbers(search: FrameAt | FrameOfTracepoint | FrameInRange) -> list[int]:
        found = []
        frame = buffer.find(search, None)
        while frame is not None:
            found.append(frame.number)
            frame = buffer.find(search, frame.number)
        return found

    assert numbers(FrameAt(10)) == [0, 4]
    assert numbers(FrameOfTracepoint(2)) == [1, 3]
    assert numbers(FrameInRange(10, 11)) == [0, 2, 4]
    assert numbers(FrameInRange(10, 11, outside=True)) == [1, 3]
    assert numbers(FrameAt(12)) == []
    assert buffer.find(FrameAt(10), 99) is None
