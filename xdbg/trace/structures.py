"""C structures of a hypercall as plain values: names for numbers, the right member of a union, what pointers point at.

Numbers of an enumeration become its names, the number stays where the ABI has no name for it. Long arrays are cut.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from xdbg.abi.callback import CallbackRegister, CallbackType, CallbackUnregister
from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import CStruct, CUnion
from xdbg.abi.event_channel import EvtchnBindVirq, EvtchnOp, EvtchnOpStruct, EvtchnStat, EvtchnStatus, Virq
from xdbg.abi.grant_table import (
    Gntcopy,
    Gntmap,
    Gntst,
    GnttabCopy,
    GnttabGetStatusFrames,
    GnttabMapGrantRef,
    GnttabSetupTable,
)
from xdbg.abi.memory import XenAddToPhysmap, XenMapSpace, XenMemoryReservation
from xdbg.abi.mmu import (
    DOMID_COW,
    DOMID_IDLE,
    DOMID_INVALID,
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    MmuextOp,
    MmuextOpStruct,
)
from xdbg.abi.physdev import MapPirqType, PhysdevMapPirq, PhysdevOp, PhysdevOpStruct
from xdbg.abi.sched import SchedPoll, SchedRemoteShutdown, SchedShutdown, Shutdown
from xdbg.abi.vcpu import Runstate, VcpuRunstateInfo

from .events import GuestText, Value

Read = Callable[[int, int], bytes | None]
"""Bytes at a guest's pointer, or None when Xen could not read them either."""

MAX_ELEMENTS = 16
"""Elements of an array that are shown. A guest may ask for millions in one call."""

_DOMIDS = {
    DOMID_SELF: "SELF",
    DOMID_IO: "IO",
    DOMID_XEN: "XEN",
    DOMID_COW: "COW",
    DOMID_INVALID: "INVALID",
    DOMID_IDLE: "IDLE",
}
_DOMID_FIELDS = frozenset({"dom", "domid", "remote_dom", "domain_id", "foreign_domid", "trans_domid"})

_ENUM_FIELDS: Mapping[tuple[type, str], type[CEnum]] = {
    (EvtchnBindVirq, "virq"): Virq,
    (EvtchnStatus, "status"): EvtchnStat,
    (EvtchnOpStruct, "cmd"): EvtchnOp,
    (SchedShutdown, "reason"): Shutdown,
    (SchedRemoteShutdown, "reason"): Shutdown,
    (CallbackRegister, "type"): CallbackType,
    (CallbackUnregister, "type"): CallbackType,
    (XenAddToPhysmap, "space"): XenMapSpace,
    (MmuextOpStruct, "cmd"): MmuextOp,
    (PhysdevOpStruct, "cmd"): PhysdevOp,
    (PhysdevMapPirq, "type"): MapPirqType,
    (VcpuRunstateInfo, "state"): Runstate,
    (GnttabMapGrantRef, "flags"): Gntmap,
    (GnttabCopy, "flags"): Gntcopy,
}
"""Fields that hold a number or bits of an enumeration."""

_VADDR_OPS = (MmuextOp.INVLPG_LOCAL, MmuextOp.INVLPG_MULTI, MmuextOp.INVLPG_ALL, MmuextOp.SET_LDT)
_MASK_OPS = (MmuextOp.TLB_FLUSH_MULTI, MmuextOp.INVLPG_MULTI)

_UNIONS: Mapping[tuple[type, str], tuple[str, Mapping[int, str]]] = {
    (EvtchnStatus, "u"): (
        "status",
        {
            EvtchnStat.UNBOUND: "unbound",
            EvtchnStat.INTERDOMAIN: "interdomain",
            EvtchnStat.PIRQ: "pirq",
            EvtchnStat.VIRQ: "virq",
        },
    ),
    (EvtchnOpStruct, "u"): (
        "cmd",
        {
            EvtchnOp.ALLOC_UNBOUND: "alloc_unbound",
            EvtchnOp.BIND_INTERDOMAIN: "bind_interdomain",
            EvtchnOp.BIND_VIRQ: "bind_virq",
            EvtchnOp.BIND_PIRQ: "bind_pirq",
            EvtchnOp.BIND_IPI: "bind_ipi",
            EvtchnOp.CLOSE: "close",
            EvtchnOp.SEND: "send",
            EvtchnOp.STATUS: "status",
            EvtchnOp.BIND_VCPU: "bind_vcpu",
            EvtchnOp.UNMASK: "unmask",
        },
    ),
    (PhysdevOpStruct, "u"): (
        "cmd",
        {
            PhysdevOp.IRQ_STATUS_QUERY: "irq_status_query",
            PhysdevOp.SET_IOPL: "set_iopl",
            PhysdevOp.SET_IOBITMAP: "set_iobitmap",
            PhysdevOp.APIC_READ: "apic_op",
            PhysdevOp.APIC_WRITE: "apic_op",
            PhysdevOp.ALLOC_IRQ_VECTOR: "irq_op",
            PhysdevOp.FREE_IRQ_VECTOR: "irq_op",
        },
    ),
    (MmuextOpStruct, "arg1"): (
        "cmd",
        {
            **dict.fromkeys(_VADDR_OPS, "linear_addr"),
            **dict.fromkeys(
                (
                    MmuextOp.PIN_L1_TABLE,
                    MmuextOp.PIN_L2_TABLE,
                    MmuextOp.PIN_L3_TABLE,
                    MmuextOp.PIN_L4_TABLE,
                    MmuextOp.UNPIN_TABLE,
                    MmuextOp.NEW_BASEPTR,
                    MmuextOp.NEW_USER_BASEPTR,
                    MmuextOp.CLEAR_PAGE,
                    MmuextOp.COPY_PAGE,
                    MmuextOp.MARK_SUPER,
                    MmuextOp.UNMARK_SUPER,
                ),
                "mfn",
            ),
        },
    ),
    (MmuextOpStruct, "arg2"): (
        "cmd",
        {
            **dict.fromkeys(_MASK_OPS, "vcpumask"),
            MmuextOp.SET_LDT: "nr_ents",
            MmuextOp.COPY_PAGE: "src_mfn",
        },
    ),
}
"""Unions whose member another field tells. Its value stands under the member's own name, or nowhere."""

_POINTERS: Mapping[tuple[type, str], tuple[Any, str]] = {
    (SchedPoll, "ports"): (ctypes.c_uint32, "nr_ports"),
    (XenMemoryReservation, "extent_start"): (ctypes.c_uint64, "nr_extents"),
    (GnttabSetupTable, "frame_list"): (ctypes.c_uint64, "nr_frames"),
    (GnttabGetStatusFrames, "frame_list"): (ctypes.c_uint64, "nr_frames"),
}
"""Fields that point at an array of numbers: their type, and the field that holds how many."""


def enum_value(kind: type[CEnum], value: int) -> Value:
    """The name of a number, or of the bits that are set; a number without a name stays one."""
    if issubclass(kind, CBits):
        return kind.names_in(value)
    member = kind._value2member_map_.get(value)
    return member.name if member is not None else value


def enum_name(kind: type[CEnum], value: int) -> str:
    """The same as text: what has no name is in hex."""
    found = enum_value(kind, value)
    return found if isinstance(found, str) else f"{value:#x}"


def domid_value(value: int) -> Value:
    """The name of a reserved domid, else the number."""
    return _DOMIDS.get(value & 0xFFFF, value)


def struct_value(struct: CStruct, read: Read) -> dict[str, Value]:
    """The fields of a structure by their C names, padding left out."""
    kind = type(struct)
    values: dict[str, Value] = {}
    for name, *_ in struct._fields_:
        if name.startswith(("_", "pad")):
            continue
        raw = getattr(struct, name)
        if (kind, name) in _UNIONS:
            selector, members = _UNIONS[kind, name]
            member = members.get(getattr(struct, selector))
            if member is not None:
                values[member] = _field_value(kind, member, getattr(raw, member), read)
        elif (kind, name) in _POINTERS:
            element, counted_by = _POINTERS[kind, name]
            values[name] = numbers_at(read, raw, element, getattr(struct, counted_by)) if raw else raw
        else:
            values[name.rstrip("_")] = _field_value(kind, name, raw, read)
    return values


def numbers_at(read: Read, vaddr: int, element: Any, count: int) -> Value:
    """An array of `count` numbers of the ctypes type `element`; None when it can't be read."""
    shown = min(count, MAX_ELEMENTS)
    data = read(vaddr, shown * ctypes.sizeof(element)) if shown else b""
    if data is None:
        return None
    return cut(list((element * shown).from_buffer_copy(data)), count)


def cut(values: list[Value], count: int) -> list[Value]:
    """The first `MAX_ELEMENTS` values of `count`; a word at the end says when there are more."""
    return values[:MAX_ELEMENTS] + ([f"... {count} in all"] if count > MAX_ELEMENTS else [])


def c_string(data: bytes) -> GuestText:
    r"""Bytes up to the first NUL as text; those that are no UTF-8 as "\xNN"."""
    return GuestText(data.partition(b"\0")[0].decode("utf-8", "backslashreplace"))


def _field_value(kind: type, name: str, raw: Any, read: Read) -> Value:
    if (kind, name) in _ENUM_FIELDS:
        return enum_value(_ENUM_FIELDS[kind, name], raw)
    if name in _DOMID_FIELDS:
        return domid_value(raw)
    if name == "status" and isinstance(raw, int) and kind.__name__.startswith("Gnttab"):
        return enum_value(Gntst, raw)
    return _plain(raw, read)


def _plain(raw: Any, read: Read) -> Value:
    match raw:
        case int():
            return raw
        case bytes():
            return c_string(raw)
        case CStruct():
            return struct_value(raw, read)
        case CUnion():
            # No field says which member holds: the widest has all the bytes.
            return _plain(getattr(raw, max(raw._fields_, key=_width)[0]), read)
        case ctypes.Array():
            return cut([_plain(element, read) for element in raw[:MAX_ELEMENTS]], len(raw))
    raise TypeError(type(raw))


def _width(field: tuple[str, Any]) -> int:
    return ctypes.sizeof(field[1])
