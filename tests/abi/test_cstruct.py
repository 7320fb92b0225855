"""What a structure of the ABI can do: be refused, be copied, be a live view of memory."""

import ctypes
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from xdbg.abi.cstruct import S8, U8, U32, U64, ByteArray, CStruct, CUnion, abi
from xdbg.abi.event_channel import EvtchnStatus
from xdbg.abi.shared_info import SharedInfo, VcpuInfo
from xdbg.abi.start_info import StartInfo
from xdbg.abi.trap import TrapInfo
from xdbg.abi.xenstore import XenstoreDomainInterface


@dataclass
class Bytes:
    """Memory without a machine."""

    buffer: bytearray = field(default_factory=lambda: bytearray(8192))


def test_declaration_with_a_wrong_size_is_refused() -> None:
    with pytest.raises(TypeError, match="Padded has 8 bytes, not the 5 of the ABI"):

        @abi(size=5)
        class Padded(CStruct):
            small: U8
            large: U32


def test_c_type_follows_from_the_name_unless_a_tag_is_given() -> None:
    @abi(size=1)
    class GrantEntryV9(CUnion):
        flags: U8

    @abi(size=1, tag="")
    class Nameless(CStruct):
        flags: U8

    assert (TrapInfo.c_type, GrantEntryV9.c_type, Nameless.c_type) == ("struct trap_info", "union grant_entry_v9", "")


def test_bytes_are_c_little_endian_with_padding() -> None:
    info = TrapInfo(vector=3, flags=3, cs=0xE033, address=0x1122_3344_5566_7788)
    assert info.to_bytes() == bytes.fromhex("03 03 33e0 00000000 8877665544332211")
    assert TrapInfo.from_bytes(info.to_bytes() + b"more") == info


def test_from_bytes_copies_and_refuses_a_short_input() -> None:
    data = bytearray(TrapInfo.SIZE)
    info = TrapInfo.from_bytes(data)
    data[0] = 14
    assert info.vector == 0
    with pytest.raises(ValueError, match="15 instead of at least 16"):
        TrapInfo.from_bytes(bytes(15))


def test_view_reads_and_writes_memory_in_place() -> None:
    memory = Bytes()
    view = VcpuInfo.at(memory, 4096 + 64)
    view.evtchn_upcall_mask = 1
    view.arch.cr2 = 0xDEAD
    view.time.tsc_shift = -1
    assert memory.buffer[4096 + 65] == 1
    assert SharedInfo.at(memory, 4096).vcpu_info[1] == view
    memory.buffer[4096 + 64] = 1
    assert view.evtchn_upcall_pending == 1
    assert (view.arch.cr2, view.time.tsc_shift) == (0xDEAD, -1)


@pytest.mark.parametrize("offset", [-1, 8192 - VcpuInfo.SIZE + 1, 1 << 40])
def test_view_outside_memory_is_refused(offset: int) -> None:
    with pytest.raises(ValueError, match=r"offset|too small"):
        VcpuInfo.at(Bytes(), offset)


def test_strings_end_at_nul_and_rings_keep_every_byte() -> None:
    start = StartInfo(magic=b"xen-3.0-x86_64", cmd_line=b"console=hvc0")
    assert (start.magic, start.cmd_line) == (b"xen-3.0-x86_64", b"console=hvc0")
    ring = XenstoreDomainInterface()
    ring.req[0:3] = b"\x00\x01\x00"
    assert bytes(ring.req)[:4] == b"\x00\x01\x00\x00"


def test_members_of_a_union_share_their_bytes() -> None:
    status = EvtchnStatus()
    status.u.interdomain.dom = 5
    status.u.interdomain.port = 9
    assert (status.u.unbound.dom, status.u.virq) == (5, 5)
    assert status.to_bytes()[16:24] == bytes.fromhex("05000000 09000000")


def test_equality_wants_the_same_type_and_the_same_bytes() -> None:
    @abi(size=16)
    class Other(CStruct):
        low: U64
        high: U64

    assert TrapInfo(vector=1) == TrapInfo(vector=1)
    assert TrapInfo(vector=1) != TrapInfo(vector=2)
    assert TrapInfo() != Other()


def test_repr_shows_names_and_hex_and_cuts_long_arrays() -> None:
    @abi(size=24, tag="")
    class Mixed(CStruct):
        sign: S8
        text: Annotated[bytes, ctypes.c_char * 3]
        short: Annotated[ByteArray, ctypes.c_uint8 * 2]
        long: Annotated[ByteArray, ctypes.c_uint8 * 17]
        last: U8

    shown = "Mixed(sign=-0x2, text=b'hi', short=[0x0, 0x1], long=[{}, ... 17 in all], last=0xff)"
    value = Mixed(sign=-2, text=b"hi", last=255)
    value.short[1] = 1
    assert repr(value) == shown.format(", ".join(["0x0"] * 8))


@pytest.mark.parametrize(
    ("flags", "dpl", "masks_events"), [(0, 0, False), (3, 3, False), (4, 0, True), (0xFD, 1, True)]
)
def test_trap_flags_hold_a_dpl_and_the_event_mask(flags: int, dpl: int, masks_events: bool) -> None:
    info = TrapInfo(flags=flags)
    assert (info.dpl, info.masks_events) == (dpl, masks_events)
