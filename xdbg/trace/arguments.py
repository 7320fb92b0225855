"""The ways to show an argument of a hypercall: a number, a name, a structure that a pointer leads to.

Structures are read from the guest's memory as Xen would read them, with no effect on anything; what can't be read is
None. Arrays and strings are cut, so that no guest can make a trace expensive.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import CStruct
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MMU_CMD_MASK, MMU_UPDATE_PREEMPTED, MmuUpdate, MmuUpdateCmd, MulticallEntry
from xdbg.abi.trap import TrapInfo
from xdbg.abi.vcpu import VcpuGuestContext, Vgcf
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_ADDR_MASK,
    PTE_DIRTY,
    PTE_GLOBAL,
    PTE_NX,
    PTE_PAT,
    PTE_PCD,
    PTE_PRESENT,
    PTE_PWT,
    PTE_RW,
    PTE_USER,
    Rflags,
)
from xdbg.abi.x86_descriptors import SegmentDescriptor

from .events import GuestText, Value
from .structures import MAX_ELEMENTS, Read, c_string, cut, domid_value, enum_name, enum_value, numbers_at, struct_value

MAX_TEXT = 1024
"""Bytes of a string that are shown."""
MAX_TRAPS = 257
"""Entries of a trap table: one a vector and the end."""
_GDT_ENTRIES_PER_FRAME = 512
U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Call:
    """A hypercall to be decoded: its argument registers, and the guest's memory."""

    args: tuple[int, ...]
    read: Read


Show = Callable[[Call, int], Value]
"""What an argument with this value means in this call."""


def number(call: Call, value: int) -> Value:
    """A number or an address, as it is."""
    del call
    return value


def domid(call: Call, value: int) -> Value:
    """A domid, by its name if it is a reserved one."""
    del call
    return domid_value(value)


@dataclass(frozen=True, slots=True)
class Named:
    """A number of an enumeration."""

    kind: type[CEnum]
    mask: int = U32

    def __call__(self, call: Call, value: int) -> Value:
        """Its name."""
        del call
        return enum_value(self.kind, value & self.mask)


@dataclass(frozen=True, slots=True)
class One:
    """A pointer to one structure."""

    kind: type[CStruct]

    def __call__(self, call: Call, value: int) -> Value:
        """Its fields; None when it can't be read."""
        data = call.read(value, self.kind.SIZE)
        return None if data is None else struct_value(self.kind.from_bytes(data), call.read)


@dataclass(frozen=True, slots=True)
class Text:
    """A pointer to a string of at most `size` bytes that ends at a NUL."""

    size: int

    def __call__(self, call: Call, value: int) -> Value:
        """The text; None when it can't be read."""
        data = call.read(value, min(self.size, MAX_TEXT))
        return None if data is None else c_string(data)


@dataclass(frozen=True, slots=True)
class Array:
    """A pointer to as many structures as argument `count` says."""

    kind: type[CStruct]
    count: int

    def __call__(self, call: Call, value: int) -> Value:
        """A list of the fields of each; None when they can't be read."""
        structs, count = structs_at(call, value, self.kind, self.count)
        return None if structs is None else cut([struct_value(struct, call.read) for struct in structs], count)


@dataclass(frozen=True, slots=True)
class BySubOp:
    """What the pointer points at depends on the command in argument 0; of one without a row it is shown as a number."""

    shows: Mapping[int, Show]
    mask: int = U32

    def __call__(self, call: Call, value: int) -> Value:
        """As the command's own row says."""
        return self.shows.get(call.args[0] & self.mask, number)(call, value)


def structs_at(call: Call, vaddr: int, kind: type[CStruct], count_index: int) -> tuple[list[CStruct] | None, int]:
    """The structures that are shown of an array, and how many there are in all."""
    count = call.args[count_index] & U32 & ~MMU_UPDATE_PREEMPTED if count_index < len(call.args) else 1
    shown = min(count, MAX_ELEMENTS)
    data = call.read(vaddr, shown * kind.SIZE) if shown else b""
    if data is None:
        return None, count
    return [kind.from_bytes(data[i * kind.SIZE :]) for i in range(shown)], count


def trap_table(call: Call, value: int) -> Value:
    """The virtual gates up to the one with address 0."""
    gates: list[Value] = []
    for index in range(MAX_TRAPS):
        data = call.read(value + index * TrapInfo.SIZE, TrapInfo.SIZE)
        if data is None:
            return None
        info = TrapInfo.from_bytes(data)
        if info.address == 0:
            break
        gates.append(
            {
                "vector": info.vector,
                "dpl": info.dpl,
                "masks_events": int(info.masks_events),
                "cs": info.cs,
                "address": info.address,
            }
        )
    return gates


_PTE_FLAGS = {
    PTE_PRESENT: "P",
    PTE_RW: "RW",
    PTE_USER: "US",
    PTE_PWT: "PWT",
    PTE_PCD: "PCD",
    PTE_ACCESSED: "A",
    PTE_DIRTY: "D",
    PTE_PAT: "PAT",
    PTE_GLOBAL: "G",
    PTE_NX: "NX",
}
_PTE_REST = (1 << 64) - 1 & ~PTE_ADDR_MASK & ~sum(_PTE_FLAGS)


def pte(call: Call, value: int) -> Value:
    """A page table entry: frame and flags; one that is all zero is 0."""
    del call
    if value == 0:
        return 0
    flags = [name for bit, name in _PTE_FLAGS.items() if value & bit]
    if value & _PTE_REST:
        flags.append(hex(value & _PTE_REST))
    return {"mfn": (value & PTE_ADDR_MASK) >> PAGE_SHIFT, "flags": "|".join(flags)}


def mmu_updates(call: Call, value: int) -> Value:
    """The requests of mmu_update: command, address, and the new entry or pfn."""
    structs, count = structs_at(call, value, MmuUpdate, 1)
    if structs is None:
        return None
    requests: list[Value] = []
    for struct in structs:
        assert isinstance(struct, MmuUpdate)
        command = struct.ptr & MMU_CMD_MASK
        target = struct.ptr & ~MMU_CMD_MASK
        if command == MmuUpdateCmd.MACHPHYS_UPDATE:
            requests.append({"cmd": "MACHPHYS_UPDATE", "mfn": target >> PAGE_SHIFT, "pfn": struct.val})
        else:
            requests.append({"cmd": enum_value(MmuUpdateCmd, command), "ptr": target, "val": pte(call, struct.val)})
    return cut(requests, count)


def multicall_names(call: Call, value: int) -> Value:
    """The names of the calls of a batch; each is traced by itself as well."""
    structs, count = structs_at(call, value, MulticallEntry, 1)
    if structs is None:
        return None
    names: list[Value] = []
    for struct in structs:
        assert isinstance(struct, MulticallEntry)
        names.append(call_name(struct.op))
    return cut(names, count)


def gdt_frames(call: Call, value: int) -> Value:
    """The frames that hold a GDT of so many entries."""
    entries = call.args[1] if len(call.args) > 1 else 0
    return numbers_at(call.read, value, ctypes.c_uint64, -(-entries // _GDT_ENTRIES_PER_FRAME))


def segment_descriptor(call: Call, value: int) -> Value:
    """A descriptor's fields; the empty one is 0."""
    del call
    if value == 0:
        return 0
    return {name: int(part) for name, part in asdict(SegmentDescriptor.decode(value)).items()}


def guest_context(call: Call, value: int) -> Value:
    """Where a new vcpu is to begin: of its whole context what tells that."""
    data = call.read(value, VcpuGuestContext.SIZE)
    if data is None:
        return None
    context = VcpuGuestContext.from_bytes(data)
    regs = context.user_regs
    return {
        "flags": Vgcf.names_in(context.flags),
        "rip": regs.rip,
        "cs": regs.cs,
        "rflags": Rflags.names_in(regs.rflags),
        "rsp": regs.rsp,
        "ss": regs.ss,
        "rdi": regs.rdi,
        "kernel_sp": context.kernel_sp,
        "cr3": context.ctrlreg[3],
        "user_cr3": context.ctrlreg[1],
        "event_callback_eip": context.event_callback_eip,
        "failsafe_callback_eip": context.failsafe_callback_eip,
        "syscall_callback_eip": context.syscall_callback_eip,
        "gs_base_kernel": context.gs_base_kernel,
    }


def uvm_flags(call: Call, value: int) -> Value:
    """Flags of update_va_mapping: what to flush and where; the rest is a pointer to a vcpu mask."""
    del call
    kind = ("NONE", "TLB_FLUSH", "INVLPG", hex(3))[value & 3]
    if value & 3 == 0:
        return kind
    if value & 4:
        return kind + "|ALL"
    mask = value & ~7
    return f"{kind}|MULTI|{mask:#x}" if mask else kind + "|LOCAL"


def console_text(call: Call, value: int) -> Value:
    """The text that is written, or what the buffer of a read holds."""
    if len(call.args) < 2:
        return value
    length = min(call.args[1] & U32, MAX_TEXT)
    data = call.read(value, length) if length else b""
    return None if data is None else GuestText(data.decode("utf-8", "backslashreplace"))


def call_name(nr: int) -> str:
    """The hypercall's name as in Xen's `do_` functions, or its number in hex."""
    return enum_name(Hypercall, nr).lower()
