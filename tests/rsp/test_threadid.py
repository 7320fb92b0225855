import pytest

from xdbg.rsp.threadid import ALL, ANY, Thread, ThreadId


@pytest.mark.parametrize(
    ("wire", "pattern", "again"),
    [
        (b"p1.2", ThreadId(1, 2), b"p1.2"),
        (b"p1.-1", ThreadId(1, ALL), b"p1.-1"),
        (b"p1", ThreadId(1, ALL), b"p1.-1"),
        (b"p400001.1F", ThreadId(0x400001, 0x1F), b"p400001.1f"),
        (b"p1.0", ThreadId(1, ANY), b"p1.0"),
        (b"p0.0", ThreadId(ANY, ANY), b"p0.0"),
        (b"0", ThreadId(ANY, ANY), b"p0.0"),
        (b"-1", ThreadId(ALL, ALL), b"p-1.-1"),
        (b"p-1.-1", ThreadId(ALL, ALL), b"p-1.-1"),
        (b"p-1", ThreadId(ALL, ALL), b"p-1.-1"),
        (b"2", ThreadId(ANY, 2), b"p0.2"),
        (b"0002", ThreadId(ANY, 2), b"p0.2"),
    ],
)
def test_patterns_are_read_and_written(wire: bytes, pattern: ThreadId, again: bytes) -> None:
    assert ThreadId.parse(wire) == pattern
    assert pattern.encode(multiprocess=True) == again
    assert ThreadId.parse(again) == pattern


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"p",
        b"p.",
        b"p1.",
        b"p-1.2",
        b"-2",
        b"p1.2.3",
        b"x",
        b"1 ",
        b" 1",
        b"+1",
        b"1_0",
        b"0x1",
        b"p1.2\n",
        b"1" * 17,
    ],
)
def test_what_is_no_thread_id_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match="thread"):
        ThreadId.parse(wire)


def test_the_process_is_left_out_without_multiprocess() -> None:
    assert Thread(10, 11).encode(multiprocess=False) == b"b"
    assert Thread(10, 11).encode(multiprocess=True) == b"pa.b"
    assert ThreadId(10, ALL).encode(multiprocess=False) == b"-1"


def test_a_pattern_matches_the_threads_it_covers() -> None:
    thread = Thread(1, 2)
    covering = {ThreadId(1, 2), ThreadId(1, ALL), ThreadId(1, ANY), ThreadId(ALL, ALL), ThreadId(ANY, 2)}
    assert all(pattern.matches(thread) for pattern in covering)
    assert not any(
        pattern.matches(thread) for pattern in (ThreadId(2, 2), ThreadId(1, 1), ThreadId(ANY, 1), ThreadId(2, ALL))
    )
    assert {pattern for pattern in covering if pattern.exact()} == {thread.pattern()}
