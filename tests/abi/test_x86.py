"""Gates, descriptors and bit names against encodings from the processor's manual and from Xen's own tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdbg.abi.event_channel import EvtchnOp
from xdbg.abi.x86 import Rflags, Vector
from xdbg.abi.x86_descriptors import IdtGate, SegmentDescriptor, SystemType


def test_gate_is_laid_out_as_in_the_manual() -> None:
    gate = IdtGate(offset=0x1122_3344_5566_7788, selector=0xE008, ist=2, type=SystemType.TRAP_GATE, dpl=3)
    assert gate.to_bytes() == bytes.fromhex("8877 08e0 02 ef 6655 44332211 00000000")
    assert IdtGate.from_bytes(gate.to_bytes()) == gate


def test_gate_of_zeros_is_absent_and_a_short_one_is_refused() -> None:
    assert not IdtGate.from_bytes(bytes(16)).present
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        IdtGate.from_bytes(bytes(15))


@given(st.binary(min_size=16, max_size=16))
def test_gate_keeps_every_bit_that_is_not_reserved(data: bytes) -> None:
    reserved = 0xFFFF_FFFF << 96 | 1 << 44 | 0xF8 << 32
    kept = int.from_bytes(data, "little") & ~reserved
    assert IdtGate.from_bytes(data).to_bytes() == kept.to_bytes(16, "little")


@pytest.mark.parametrize(
    ("value", "descriptor"),
    [
        (0x00AF_FB00_0000_FFFF, SegmentDescriptor(type=0xB, dpl=3, l=True, g=True)),
        (0x00CF_FB00_0000_FFFF, SegmentDescriptor(type=0xB, dpl=3, db=True, g=True)),
        (0x00CF_F300_0000_FFFF, SegmentDescriptor(type=0x3, dpl=3, db=True, g=True)),
        (0x1240_9256_789A_0FFF, SegmentDescriptor(base=0x1256_789A, limit=0xFFF, type=0x2, db=True)),
        (0, SegmentDescriptor(limit=0, s=False, present=False)),
    ],
    ids=["ring 3 code 64", "ring 3 code 32", "ring 3 data", "byte limit", "null"],
)
def test_segment_descriptors_that_xen_uses(value: int, descriptor: SegmentDescriptor) -> None:
    assert descriptor.encode() == value
    assert SegmentDescriptor.decode(value) == descriptor


@given(st.integers(0, 2**64 - 1))
def test_every_bit_of_a_segment_descriptor_has_its_field(value: int) -> None:
    assert SegmentDescriptor.decode(value).encode() == value


def test_limit_counts_pages_with_granularity() -> None:
    assert SegmentDescriptor(limit=0xFFFFF, g=True).last_byte == 0xFFFF_FFFF
    assert SegmentDescriptor(limit=0xFFF).last_byte == 0xFFF


def test_code_segments_are_told_from_data_and_system_segments() -> None:
    assert SegmentDescriptor(type=0xB).is_code
    assert not SegmentDescriptor(type=0x3).is_code
    assert not SegmentDescriptor(type=SystemType.TSS_AVAILABLE, s=False).is_code


def test_exceptions_with_an_error_code() -> None:
    with_code = [vector.name for vector in Vector if vector.has_error_code]
    assert with_code == ["DF", "TS", "NP", "SS", "GP", "PF", "AC", "CP", "VC", "SX"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0, "0"),
        (0x246, "FIXED|PF|ZF|IF"),
        (0x3000, "IOPL"),
        (0x1000, "0x1000"),
        (1 << 63 | 1, "CF|0x8000000000000000"),
    ],
)
def test_bits_are_named_lowest_first_and_the_unknown_in_hex(value: int, names: str) -> None:
    assert Rflags.names_in(value) == names


def test_unknown_numbers_are_shown_in_hex() -> None:
    assert [EvtchnOp.name_of(number) for number in (4, 99, -1)] == ["SEND", "0x63", "-0x1"]
