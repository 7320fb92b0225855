"""Hypercalls in words: arguments as registers and bytes in, names and values out."""

from collections.abc import Iterator
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdbg.abi.callback import CallbackRegister
from xdbg.abi.cstruct import CStruct
from xdbg.abi.event_channel import EvtchnBindVirq, EvtchnOpStruct, EvtchnSend, EvtchnStatus
from xdbg.abi.grant_table import GnttabSetupTable
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import XenMemoryReservation
from xdbg.abi.mmu import DOMID_SELF, MmuextOp, MulticallEntry
from xdbg.abi.sched import SchedPoll, SchedShutdown
from xdbg.abi.trap import TrapInfo
from xdbg.abi.vcpu import VcpuGuestContext, VcpuSetSingleshotTimer
from xdbg.trace.decode import changed, decode_call, errno_name
from xdbg.trace.hypercall_table import TABLE
from xdbg.trace.structures import MAX_ELEMENTS

AT = 0x5000


class Bytes:
    """Guest memory with `data` at AT and nothing else."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def __call__(self, vaddr: int, length: int) -> bytes | None:
        start = vaddr - AT
        return self.data[start : start + length] if start >= 0 and start + length <= len(self.data) else None


def mmuext(command: int, arg1: int, arg2: int = 0) -> bytes:
    return pack("<IIQQ", command, 0, arg1, arg2)


CASES = [
    (Hypercall.FPU_TASKSWITCH, (1,), b"", None, {"set": 1}),
    (Hypercall.IRET, (), b"", None, {}),
    (
        Hypercall.SET_TRAP_TABLE,
        (AT,),
        TrapInfo(3, 3 | 4, 0xE033, 0x1000).to_bytes() + TrapInfo().to_bytes(),
        None,
        {"traps": [{"vector": 3, "dpl": 3, "masks_events": 1, "cs": 0xE033, "address": 0x1000}]},
    ),
    (Hypercall.SET_TRAP_TABLE, (0,), b"", None, {"traps": 0}),
    (
        Hypercall.EVENT_CHANNEL_OP,
        (1, AT),
        EvtchnBindVirq(0, 0, 0).to_bytes(),
        "BIND_VIRQ",
        {"arg": {"virq": "TIMER", "vcpu": 0, "port": 0}},
    ),
    (Hypercall.EVENT_CHANNEL_OP, (4, AT), EvtchnSend(7).to_bytes(), "SEND", {"arg": {"port": 7}}),
    (Hypercall.EVENT_CHANNEL_OP, (4, 0x1), b"", "SEND", {"arg": None}),
    (Hypercall.EVENT_CHANNEL_OP, (0xFFFF_0000_0000 + 99, AT), b"", "0x63", {"arg": AT}),
    (
        Hypercall.EVENT_CHANNEL_OP,
        (5, AT),
        EvtchnStatus(DOMID_SELF, 1, 4, 0).to_bytes(),
        "STATUS",
        {"arg": {"dom": "SELF", "port": 1, "status": "VIRQ", "vcpu": 0, "virq": 0}},
    ),
    (
        Hypercall.EVENT_CHANNEL_OP_COMPAT,
        (AT,),
        EvtchnOpStruct(4).to_bytes(),
        None,
        {"op": {"cmd": "SEND", "send": {"port": 0}}},
    ),
    (Hypercall.SCHED_OP, (0, 0), b"", "YIELD", {"arg": 0}),
    (Hypercall.SCHED_OP, (2, AT), SchedShutdown(3).to_bytes(), "SHUTDOWN", {"arg": {"reason": "CRASH"}}),
    (
        Hypercall.SCHED_OP,
        (3, AT),
        SchedPoll(AT + SchedPoll.SIZE, 2, 500).to_bytes() + pack("<II", 4, 5),
        "POLL",
        {"arg": {"ports": [4, 5], "nr_ports": 2, "timeout": 500}},
    ),
    (
        Hypercall.MMU_UPDATE,
        (AT, 2, 0, DOMID_SELF),
        pack("<QQQQ", 0x7008, 0x42067, 0x9001, 0x33),
        None,
        {
            "req": [
                {"cmd": "NORMAL_PT_UPDATE", "ptr": 0x7008, "val": {"mfn": 0x42, "flags": "P|RW|US|A|D"}},
                {"cmd": "MACHPHYS_UPDATE", "mfn": 9, "pfn": 0x33},
            ],
            "count": 2,
            "done": 0,
            "domid": "SELF",
        },
    ),
    (
        Hypercall.UPDATE_VA_MAPPING,
        (0x4000, 1 << 63 | 0x5001, 2),
        b"",
        None,
        {"va": 0x4000, "val": {"mfn": 5, "flags": "P|NX"}, "flags": "INVLPG|LOCAL"},
    ),
    (Hypercall.UPDATE_VA_MAPPING, (0x4000, 0, 0), b"", None, {"va": 0x4000, "val": 0, "flags": "NONE"}),
    (Hypercall.UPDATE_VA_MAPPING, (0, 0, 5), b"", None, {"va": 0, "val": 0, "flags": "TLB_FLUSH|ALL"}),
    (
        Hypercall.MMUEXT_OP,
        (AT, 3, 0, DOMID_SELF),
        mmuext(MmuextOp.PIN_L4_TABLE, 9) + mmuext(MmuextOp.INVLPG_LOCAL, 0x4000) + mmuext(MmuextOp.TLB_FLUSH_LOCAL, 1),
        None,
        {
            "uops": [
                {"cmd": "PIN_L4_TABLE", "mfn": 9},
                {"cmd": "INVLPG_LOCAL", "linear_addr": 0x4000},
                {"cmd": "TLB_FLUSH_LOCAL"},
            ],
            "count": 3,
            "done": 0,
            "domid": "SELF",
        },
    ),
    (Hypercall.CONSOLE_IO, (0, 5, AT), b"hello", "WRITE", {"count": 5, "buffer": "hello"}),
    (Hypercall.CONSOLE_IO, (0, 2, AT), b"\xff\n", "WRITE", {"count": 2, "buffer": "\\xff\n"}),
    (Hypercall.XEN_VERSION, (0, 0), b"", "VERSION", {"arg": 0}),
    (Hypercall.XEN_VERSION, (1, AT), b".7".ljust(16, b"\0"), "EXTRAVERSION", {"arg": ".7"}),
    (
        Hypercall.MEMORY_OP,
        (1 << 6 | 6, AT),
        XenMemoryReservation(AT + 32, 2, 0, 0, DOMID_SELF).to_bytes() + pack("<QQ", 8, 9),
        "POPULATE_PHYSMAP",
        {"arg": {"extent_start": [8, 9], "nr_extents": 2, "extent_order": 0, "mem_flags": 0, "domid": "SELF"}},
    ),
    (
        Hypercall.GRANT_TABLE_OP,
        (2, AT, 1),
        GnttabSetupTable(DOMID_SELF, 1, -3, AT + 24).to_bytes() + pack("<Q", 77),
        "SETUP_TABLE",
        {"uop": [{"dom": "SELF", "nr_frames": 1, "status": "BAD_GNTREF", "frame_list": [77]}], "count": 1},
    ),
    (Hypercall.VM_ASSIST, (0, 2), b"", "ENABLE", {"type": "WRITABLE_PAGETABLES"}),
    (Hypercall.VM_ASSIST, (1, 0), b"", "DISABLE", {"type": "FOUR_GB_SEGMENTS"}),
    (Hypercall.SET_SEGMENT_BASE, (2, 0x1234), b"", "GS_KERNEL", {"base": 0x1234}),
    (
        Hypercall.VCPU_OP,
        (8, 0, AT),
        VcpuSetSingleshotTimer(10**9, 1).to_bytes(),
        "SET_SINGLESHOT_TIMER",
        {"vcpuid": 0, "arg": {"timeout_abs_ns": 10**9, "flags": 1}},
    ),
    (
        Hypercall.CALLBACK_OP,
        (0, AT),
        CallbackRegister(2, 1, 0x8000).to_bytes(),
        "REGISTER",
        {"arg": {"type": "SYSCALL", "flags": 1, "address": 0x8000}},
    ),
    (Hypercall.SET_GDT, (AT, 512), pack("<Q", 0x21), None, {"frames": [0x21], "entries": 512}),
    (
        Hypercall.MULTICALL,
        (AT, 2),
        MulticallEntry(Hypercall.STACK_SWITCH).to_bytes() + MulticallEntry(99).to_bytes(),
        None,
        {"call_list": ["stack_switch", "0x63"], "count": 2},
    ),
]


@pytest.mark.parametrize(("nr", "args", "memory", "sub_op", "decoded"), CASES)
def test_arguments_are_decoded(
    nr: Hypercall, args: tuple[int, ...], memory: bytes, sub_op: str | None, decoded: dict[str, Any]
) -> None:
    found = decode_call(nr, args, Bytes(memory))
    assert (found.name, found.sub_op, found.args) == (nr.name.lower(), sub_op, decoded)


def test_a_number_that_is_no_hypercall_shows_its_registers() -> None:
    found = decode_call(99, (1, 2), Bytes())
    assert (found.name, found.sub_op, found.args) == ("0x63", None, {"arg0": 1, "arg1": 2})


def test_a_new_vcpus_context_is_told_by_where_it_begins() -> None:
    context = VcpuGuestContext()
    context.user_regs.rip = 0x1234
    context.ctrlreg[3] = 0x5000
    found = decode_call(Hypercall.VCPU_OP, (0, 1, AT), Bytes(context.to_bytes()))
    assert found.sub_op == "INITIALISE"
    assert (found.args["arg"]["rip"], found.args["arg"]["cr3"]) == (0x1234, 0x5000)


def test_a_long_array_is_cut_and_says_so() -> None:
    memory = pack("<QQ", 0x7000, 0) * 20
    requests = decode_call(Hypercall.MMU_UPDATE, (AT, 20, 0, 0), Bytes(memory)).args["req"]
    assert len(requests) == MAX_ELEMENTS + 1
    assert requests[-1] == "... 20 in all"


def test_every_hypercall_of_the_abi_has_a_row() -> None:
    architecture_specific = {f"ARCH_{n}" for n in range(8)}
    assert {nr.name for nr in Hypercall if nr not in TABLE} <= architecture_specific


def test_rows_have_as_many_parameters_as_xen_has_arguments() -> None:
    import xdbg.xen.setup  # noqa: F401 - the handlers enter themselves when their modules are imported
    from xdbg.xen.hypercall import TABLE as HANDLERS

    assert {nr: len(TABLE[nr].params) for nr in HANDLERS} == {nr: entry.nr_args for nr, entry in HANDLERS.items()}


@given(
    nr=st.sampled_from(sorted(TABLE)),
    command=st.integers(0, 40),
    args=st.lists(st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 20)), max_size=5),
    byte=st.integers(0, 255),
    readable=st.booleans(),
)
def test_no_hypercall_of_a_guest_makes_decoding_fail_or_read_much(
    nr: int, command: int, args: list[int], byte: int, readable: bool
) -> None:
    def read(_vaddr: int, length: int) -> bytes | None:
        assert 0 < length <= 8192
        return bytes([byte]) * length if readable else None

    decode_call(nr, (command, *args), read)


def test_every_structure_is_decoded_from_zeroes_and_from_ones() -> None:
    from xdbg.trace.structures import struct_value

    structs = [kind for kind in _all(CStruct) if hasattr(kind, "SIZE")]
    assert len(structs) > 80
    for kind in structs:
        for byte in (b"\0", b"\xff"):
            assert isinstance(struct_value(kind.from_bytes(byte * kind.SIZE), Bytes()), dict)


def _all(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _all(child)


def test_results_are_named_as_errors_only_when_they_are() -> None:
    assert errno_name(-14) == "EFAULT"
    assert errno_name(-4000) == hex(4000)
    assert errno_name(0) is None
    assert errno_name(0x40011) is None
    assert errno_name(-5000) is None


def test_only_what_changed_is_told() -> None:
    before = {"arg": {"virq": "TIMER", "port": 0}, "count": 1, "frames": [1, 2]}
    after = {"arg": {"virq": "TIMER", "port": 3}, "count": 1, "frames": [1, 3]}
    assert changed(before, after) == {"arg": {"port": 3}, "frames": [1, 3]}
    assert changed(before, before) == {}
