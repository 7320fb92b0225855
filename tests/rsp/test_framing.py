"""The decoder gives the same for any splitting of its input, and keeps little of it."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdbg.rsp.framing import Decoder, Mark, checksum, escape, escaped_size, frame, only_packet, unescape

LIMIT = 16

STREAMS = [
    (b"", []),
    (b"+-\x03", [Mark.ACK, Mark.NAK, Mark.INTERRUPT]),
    (b"$#00", [b""]),
    (b"$qC#b4", [b"qC"]),
    (b"$qC#B4", [b"qC"]),
    (b"+$qC#b4+$g#67", [Mark.ACK, b"qC", Mark.ACK, b"g"]),
    (b"$qC#b4\x03", [b"qC", Mark.INTERRUPT]),
    (b"$qC#b5$g#67", [Mark.BAD_CHECKSUM, b"g"]),
    (b"$qC#zz$g#67", [Mark.BAD_CHECKSUM, b"g"]),
    (b"$qC# 4$g#67", [Mark.BAD_CHECKSUM, b"g"]),
    (b"garbage\xff\x00}#$qC#b4more", [b"qC"]),
    (b"$m12$qC#b4", [b"qC"]),
    (b"$qC#b", []),
    (b"$qC", []),
    (b"$X\x7d\x03\x7d\x04\x7d\x5d\x7d\x0a#ba", [b"X#$}*"]),
    (b"$X\x7d\x41#16", [b"Xa"]),
    (b"$X\x7d\x7d#52", [b"X]"]),
    (b"$X\x7d#d5", [b"X}"]),
    (b"$" + b"a" * 16 + b"#10", [b"a" * 16]),
    (b"$" + b"a" * 17 + b"#71$g#67", [Mark.OVERSIZED, b"g"]),
    (b"$" + b"a" * 17 + b"#00", [Mark.OVERSIZED]),
    (b"$" + b"a" * 100 + b"$g#67", [b"g"]),
    (b"$" + b"a" * 100 + b"$" + b"b" * 100 + b"#00\x03", [Mark.OVERSIZED, Mark.INTERRUPT]),
    (b"$\x03+-#5b", [b"\x03+-"]),
]


def decode(decoder: Decoder, *pieces: bytes) -> list[bytes | Mark]:
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while (item := decoder.next()) is not None:
            found.append(item)
    return found


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_every_split_of_the_stream_means_the_same(stream: bytes, expected: list[bytes | Mark]) -> None:
    assert decode(Decoder(LIMIT), stream) == expected
    assert decode(Decoder(LIMIT), *(stream[i : i + 1] for i in range(len(stream)))) == expected
    for place in range(len(stream)):
        assert decode(Decoder(LIMIT), stream[:place], stream[place:]) == expected
        assert decode(Decoder(LIMIT), stream[:place], b"", stream[place : place + 1], stream[place + 1 :]) == expected


@given(st.lists(st.sampled_from([s for s, _ in STREAMS] + [b"$", b"#", b"}", b"a" * 9, b"+"])), st.randoms())
def test_random_streams_in_random_pieces_mean_the_same_and_little_is_kept(
    parts: list[bytes], rng: random.Random
) -> None:
    stream = b"".join(parts)
    whole = Decoder(LIMIT)
    expected = decode(whole, stream)
    pieces = Decoder(LIMIT)
    found = []
    place = 0
    while place < len(stream):
        size = rng.choice([1, 1, 2, 3, 7, 50])
        found += decode(pieces, stream[place : place + size])
        place += size
        assert len(pieces) <= LIMIT + 3 + size
    assert found == expected
    assert len(whole) <= LIMIT + 3


@given(st.binary(max_size=2000))
def test_escaping_round_trips_and_leaves_nothing_special(data: bytes) -> None:
    escaped = escape(data)
    assert not re.search(rb"[#$*]", escaped)
    assert unescape(escaped) == data
    assert decode(Decoder(), frame(escaped)) == [data]


@given(st.binary(max_size=300))
def test_a_client_may_escape_more_than_it_must(data: bytes) -> None:
    assert unescape(b"".join(b"}" + bytes([byte ^ 0x20]) for byte in data)) == data


@pytest.mark.parametrize("length", [0, 1, 2, 255, 256, 257, 511, 512, 513, 65521, 262144])
def test_the_fast_checksum_is_the_sum_of_the_bytes(length: int) -> None:
    for data in (bytes(length), b"\xff" * length, random.Random(length).randbytes(length)):
        assert checksum(data) == sum(data) % 256


def test_a_large_packet_byte_by_byte_costs_linear_work_and_memory() -> None:
    decoder = Decoder()
    payload = bytes(i % 251 for i in range(100_000)).translate(None, b"#$}")
    found = []
    for byte in frame(payload):
        decoder.feed(bytes([byte]))
        item = decoder.next()
        if item is not None:
            found.append(item)
    assert found == [payload]
    assert len(decoder) == 0


def test_an_endless_packet_is_not_kept() -> None:
    decoder = Decoder()
    assert decode(decoder, b"$") == []
    for _ in range(100):
        assert decode(decoder, b"a" * 65536) == []
        assert len(decoder) <= 0x40000 + 65536
    assert decode(decoder, b"#00$g#67") == [Mark.OVERSIZED, b"g"]


@pytest.mark.parametrize(
    "data", [*(stream for stream, _ in STREAMS), b"", b"$", b"#", b"$a#6", b"$#0", b"$$#00", b"$a##61"]
)
def test_what_is_taken_for_one_packet_is_what_the_decoder_makes_of_it(data: bytes) -> None:
    alone = only_packet(data)
    assert alone is None or decode(Decoder(), data) == [alone]


@given(st.binary(max_size=40))
def test_a_short_packet_alone_is_found_whatever_is_in_it(data: bytes) -> None:
    assert only_packet(frame(escape(data))) == data or len(escape(data)) > 92


@given(st.binary(max_size=400))
def test_the_size_of_escaped_data_is_known_beforehand(data: bytes) -> None:
    assert escaped_size(data) == len(escape(data))
