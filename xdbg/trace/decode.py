"""Hypercalls in words: the name, the sub-operation, and the arguments by the names of Xen's prototypes.

One table row a hypercall says what each argument is. Structures are read from the guest's memory as Xen would read them,
with no effect on anything; what can't be read is None. A number that is larger than what can be shown is cut, so no
guest can make a trace expensive.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from xdbg.abi.callback import CallbackOp, CallbackRegister, CallbackUnregister
from xdbg.abi.cenum import CEnum
from xdbg.abi.console import ConsoleIo
from xdbg.abi.cstruct import CStruct
from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import (
    EvtchnAllocUnbound,
    EvtchnBindInterdomain,
    EvtchnBindIpi,
    EvtchnBindPirq,
    EvtchnBindVcpu,
    EvtchnBindVirq,
    EvtchnClose,
    EvtchnExpandArray,
    EvtchnInitControl,
    EvtchnOp,
    EvtchnOpStruct,
    EvtchnReset,
    EvtchnSend,
    EvtchnSetPriority,
    EvtchnStatus,
    EvtchnUnmask,
)
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.grant_table import (
    GnttabCacheFlush,
    GnttabCopy,
    GnttabDumpTable,
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
)
from xdbg.abi.hypercalls import Hypercall, SegBase, VmasstCmd, VmasstType
from xdbg.abi.memory import (
    MEMOP_CMD_MASK,
    XenAddToPhysmap,
    XenAddToPhysmapBatch,
    XenForeignMemoryMap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMem,
    XenMemAcquireResource,
    XenMemoryDomain,
    XenMemoryExchange,
    XenMemoryMap,
    XenMemoryReservation,
    XenPodTarget,
    XenRemoveFromPhysmap,
    XenVnumaTopologyInfo,
)
from xdbg.abi.mmu import MMU_CMD_MASK, MMU_UPDATE_PREEMPTED, MmuextOpStruct, MmuUpdate, MmuUpdateCmd, MulticallEntry
from xdbg.abi.physdev import (
    PhysdevApic,
    PhysdevEoi,
    PhysdevGetFreePirq,
    PhysdevIrq,
    PhysdevIrqStatusQuery,
    PhysdevMapPirq,
    PhysdevOp,
    PhysdevOpStruct,
    PhysdevPirqEoiGmfn,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevUnmapPirq,
)
from xdbg.abi.sched import (
    SchedOp,
    SchedPinOverride,
    SchedPoll,
    SchedRemoteShutdown,
    SchedShutdown,
    SchedWatchdog,
)
from xdbg.abi.trap import TrapInfo
from xdbg.abi.vcpu import (
    VcpuGetPhysid,
    VcpuGuestContext,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
)
from xdbg.abi.version import (
    XEN_CAPABILITIES_INFO_LEN,
    XEN_CHANGESET_INFO_LEN,
    XEN_COMMANDLINE_LEN,
    XEN_EXTRAVERSION_LEN,
    XenBuildId,
    XenCompileInfo,
    XenFeatureInfo,
    XenPlatformParameters,
    XenVer,
)
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
)
from xdbg.abi.x86_descriptors import SegmentDescriptor

from .events import Value
from .structures import MAX_ELEMENTS, Read, c_string, cut, domid_value, enum_value, numbers_at, struct_value

MAX_TEXT = 1024
"""Bytes of a string that are shown."""
MAX_TRAPS = 257
"""Entries of a trap table: one a vector and the end."""
_GDT_ENTRIES_PER_FRAME = 512
_MAX_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class Call:
    """A hypercall to be decoded: its argument registers, and the guest's memory."""

    args: tuple[int, ...]
    read: Read


Show = Callable[[Call, int], Value]
"""What an argument with this value means in this call."""


# -- ways to show one argument


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
    mask: int = (1 << 64) - 1

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
        """A list of what `entries` makes of each; None when they can't be read."""
        structs, count = structs_at(call, value, self.kind, self.count)
        return None if structs is None else cut([struct_value(struct, call.read) for struct in structs], count)


@dataclass(frozen=True, slots=True)
class BySubOp:
    """What the pointer points at depends on the command in argument 0; of one without a row it is shown as a number."""

    shows: Mapping[int, Show]
    mask: int = (1 << 64) - 1

    def __call__(self, call: Call, value: int) -> Value:
        """As the command's own row says."""
        return self.shows.get(call.args[0] & self.mask, number)(call, value)


def structs_at(
    call: Call, vaddr: int, kind: type[CStruct], count_index: int
) -> tuple[list[CStruct] | None, int]:
    """The structures that are shown of an array, and how many there are in all."""
    count = call.args[count_index] & 0xFFFF_FFFF & ~MMU_UPDATE_PREEMPTED if count_index < len(call.args) else 1
    shown = min(count, MAX_ELEMENTS)
    data = call.read(vaddr, shown * kind.SIZE)
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
    data = call.read(value, min(call.args[1] & 0xFFFF_FFFF, MAX_TEXT))
    return None if data is None else data.decode("utf-8", "backslashreplace")


# -- the sub-operations

_EVTCHN: Mapping[int, Show] = {
    EvtchnOp.BIND_INTERDOMAIN: One(EvtchnBindInterdomain),
    EvtchnOp.BIND_VIRQ: One(EvtchnBindVirq),
    EvtchnOp.BIND_PIRQ: One(EvtchnBindPirq),
    EvtchnOp.CLOSE: One(EvtchnClose),
    EvtchnOp.SEND: One(EvtchnSend),
    EvtchnOp.STATUS: One(EvtchnStatus),
    EvtchnOp.ALLOC_UNBOUND: One(EvtchnAllocUnbound),
    EvtchnOp.BIND_IPI: One(EvtchnBindIpi),
    EvtchnOp.BIND_VCPU: One(EvtchnBindVcpu),
    EvtchnOp.UNMASK: One(EvtchnUnmask),
    EvtchnOp.RESET: One(EvtchnReset),
    EvtchnOp.INIT_CONTROL: One(EvtchnInitControl),
    EvtchnOp.EXPAND_ARRAY: One(EvtchnExpandArray),
    EvtchnOp.SET_PRIORITY: One(EvtchnSetPriority),
}
_SCHED: Mapping[int, Show] = {
    SchedOp.SHUTDOWN: One(SchedShutdown),
    SchedOp.POLL: One(SchedPoll),
    SchedOp.REMOTE_SHUTDOWN: One(SchedRemoteShutdown),
    SchedOp.SHUTDOWN_CODE: One(SchedShutdown),
    SchedOp.WATCHDOG: One(SchedWatchdog),
    SchedOp.PIN_OVERRIDE: One(SchedPinOverride),
}
_MEMORY: Mapping[int, Show] = {
    XenMem.INCREASE_RESERVATION: One(XenMemoryReservation),
    XenMem.DECREASE_RESERVATION: One(XenMemoryReservation),
    XenMem.POPULATE_PHYSMAP: One(XenMemoryReservation),
    XenMem.CLAIM_PAGES: One(XenMemoryReservation),
    XenMem.EXCHANGE: One(XenMemoryExchange),
    XenMem.CURRENT_RESERVATION: One(XenMemoryDomain),
    XenMem.MAXIMUM_RESERVATION: One(XenMemoryDomain),
    XenMem.MAXIMUM_GPFN: One(XenMemoryDomain),
    XenMem.MACHPHYS_MFN_LIST: One(XenMachphysMfnList),
    XenMem.MACHPHYS_COMPAT_MFN_LIST: One(XenMachphysMfnList),
    XenMem.MACHPHYS_MAPPING: One(XenMachphysMapping),
    XenMem.ADD_TO_PHYSMAP: One(XenAddToPhysmap),
    XenMem.ADD_TO_PHYSMAP_BATCH: One(XenAddToPhysmapBatch),
    XenMem.REMOVE_FROM_PHYSMAP: One(XenRemoveFromPhysmap),
    XenMem.MEMORY_MAP: One(XenMemoryMap),
    XenMem.MACHINE_MEMORY_MAP: One(XenMemoryMap),
    XenMem.SET_MEMORY_MAP: One(XenForeignMemoryMap),
    XenMem.SET_POD_TARGET: One(XenPodTarget),
    XenMem.GET_POD_TARGET: One(XenPodTarget),
    XenMem.GET_VNUMAINFO: One(XenVnumaTopologyInfo),
    XenMem.ACQUIRE_RESOURCE: One(XenMemAcquireResource),
}
_VCPU: Mapping[int, Show] = {
    VcpuOp.INITIALISE: One(VcpuGuestContext),
    VcpuOp.GET_RUNSTATE_INFO: One(VcpuRunstateInfo),
    VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA: One(VcpuRegisterRunstateMemoryArea),
    VcpuOp.SET_PERIODIC_TIMER: One(VcpuSetPeriodicTimer),
    VcpuOp.SET_SINGLESHOT_TIMER: One(VcpuSetSingleshotTimer),
    VcpuOp.REGISTER_VCPU_INFO: One(VcpuRegisterVcpuInfo),
    VcpuOp.GET_PHYSID: One(VcpuGetPhysid),
    VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA: One(VcpuRegisterTimeMemoryArea),
}
_VERSION: Mapping[int, Show] = {
    XenVer.EXTRAVERSION: Text(XEN_EXTRAVERSION_LEN),
    XenVer.COMPILE_INFO: One(XenCompileInfo),
    XenVer.CAPABILITIES: Text(XEN_CAPABILITIES_INFO_LEN),
    XenVer.CHANGESET: Text(XEN_CHANGESET_INFO_LEN),
    XenVer.PLATFORM_PARAMETERS: One(XenPlatformParameters),
    XenVer.GET_FEATURES: One(XenFeatureInfo),
    XenVer.COMMANDLINE: Text(XEN_COMMANDLINE_LEN),
    XenVer.BUILD_ID: One(XenBuildId),
}
_GNTTAB: Mapping[int, Show] = {
    GnttabOp.MAP_GRANT_REF: Array(GnttabMapGrantRef, 2),
    GnttabOp.UNMAP_GRANT_REF: Array(GnttabUnmapGrantRef, 2),
    GnttabOp.SETUP_TABLE: Array(GnttabSetupTable, 2),
    GnttabOp.DUMP_TABLE: Array(GnttabDumpTable, 2),
    GnttabOp.TRANSFER: Array(GnttabTransfer, 2),
    GnttabOp.COPY: Array(GnttabCopy, 2),
    GnttabOp.QUERY_SIZE: Array(GnttabQuerySize, 2),
    GnttabOp.UNMAP_AND_REPLACE: Array(GnttabUnmapAndReplace, 2),
    GnttabOp.SET_VERSION: Array(GnttabSetVersion, 2),
    GnttabOp.GET_STATUS_FRAMES: Array(GnttabGetStatusFrames, 2),
    GnttabOp.GET_VERSION: Array(GnttabGetVersion, 2),
    GnttabOp.SWAP_GRANT_REF: Array(GnttabSwapGrantRef, 2),
    GnttabOp.CACHE_FLUSH: Array(GnttabCacheFlush, 2),
}
_PHYSDEV: Mapping[int, Show] = {
    PhysdevOp.IRQ_STATUS_QUERY: One(PhysdevIrqStatusQuery),
    PhysdevOp.SET_IOPL: One(PhysdevSetIopl),
    PhysdevOp.SET_IOBITMAP: One(PhysdevSetIobitmap),
    PhysdevOp.APIC_READ: One(PhysdevApic),
    PhysdevOp.APIC_WRITE: One(PhysdevApic),
    PhysdevOp.ALLOC_IRQ_VECTOR: One(PhysdevIrq),
    PhysdevOp.FREE_IRQ_VECTOR: One(PhysdevIrq),
    PhysdevOp.EOI: One(PhysdevEoi),
    PhysdevOp.MAP_PIRQ: One(PhysdevMapPirq),
    PhysdevOp.UNMAP_PIRQ: One(PhysdevUnmapPirq),
    PhysdevOp.PIRQ_EOI_GMFN_V1: One(PhysdevPirqEoiGmfn),
    PhysdevOp.PIRQ_EOI_GMFN_V2: One(PhysdevPirqEoiGmfn),
    PhysdevOp.GET_FREE_PIRQ: One(PhysdevGetFreePirq),
}
_CALLBACK: Mapping[int, Show] = {
    CallbackOp.REGISTER: One(CallbackRegister),
    CallbackOp.UNREGISTER: One(CallbackUnregister),
}


# -- the hypercalls


@dataclass(frozen=True, slots=True)
class Row:
    """The parameters of a hypercall in order, by the names of Xen's prototypes, and the enumeration of its commands.

    With `sub_ops`, parameter 0 is the command and stands in the record's `sub_op` instead.
    """

    params: tuple[tuple[str, Show], ...]
    sub_ops: Named | None = None


def _row(sub_ops: Named | None = None, /, **params: Show) -> Row:
    return Row((("cmd", number), *params.items()) if sub_ops is not None else tuple(params.items()), sub_ops)


TABLE: Mapping[int, Row] = {
    Hypercall.SET_TRAP_TABLE: _row(traps=trap_table),
    Hypercall.MMU_UPDATE: _row(req=mmu_updates, count=number, done=number, domid=domid),
    Hypercall.SET_GDT: _row(frames=gdt_frames, entries=number),
    Hypercall.STACK_SWITCH: _row(ss=number, esp=number),
    Hypercall.SET_CALLBACKS: _row(event=number, failsafe=number, syscall=number),
    Hypercall.FPU_TASKSWITCH: _row(set=number),
    Hypercall.SCHED_OP_COMPAT: _row(Named(SchedOp), arg=number),
    Hypercall.PLATFORM_OP: _row(op=number),
    Hypercall.SET_DEBUGREG: _row(reg=number, value=number),
    Hypercall.GET_DEBUGREG: _row(reg=number),
    Hypercall.UPDATE_DESCRIPTOR: _row(maddr=number, desc=segment_descriptor),
    Hypercall.MEMORY_OP: _row(Named(XenMem, MEMOP_CMD_MASK), arg=BySubOp(_MEMORY, MEMOP_CMD_MASK)),
    Hypercall.MULTICALL: _row(call_list=multicall_names, count=number),
    Hypercall.UPDATE_VA_MAPPING: _row(va=number, val=pte, flags=uvm_flags),
    Hypercall.SET_TIMER_OP: _row(timeout=number),
    Hypercall.EVENT_CHANNEL_OP_COMPAT: _row(op=One(EvtchnOpStruct)),
    Hypercall.XEN_VERSION: _row(Named(XenVer), arg=BySubOp(_VERSION)),
    Hypercall.CONSOLE_IO: _row(Named(ConsoleIo), count=number, buffer=console_text),
    Hypercall.PHYSDEV_OP_COMPAT: _row(op=One(PhysdevOpStruct)),
    Hypercall.GRANT_TABLE_OP: _row(Named(GnttabOp), uop=BySubOp(_GNTTAB), count=number),
    Hypercall.VM_ASSIST: _row(Named(VmasstCmd), type=Named(VmasstType)),
    Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN: _row(va=number, val=pte, flags=uvm_flags, domid=domid),
    Hypercall.IRET: _row(),
    Hypercall.VCPU_OP: _row(Named(VcpuOp), vcpuid=number, arg=BySubOp(_VCPU)),
    Hypercall.SET_SEGMENT_BASE: _row(Named(SegBase), base=number),
    Hypercall.MMUEXT_OP: _row(uops=Array(MmuextOpStruct, 1), count=number, done=number, domid=domid),
    Hypercall.XSM_OP: _row(op=number),
    Hypercall.NMI_OP: _row(cmd=number, arg=number),
    Hypercall.SCHED_OP: _row(Named(SchedOp), arg=BySubOp(_SCHED)),
    Hypercall.CALLBACK_OP: _row(Named(CallbackOp), arg=BySubOp(_CALLBACK)),
    Hypercall.XENOPROF_OP: _row(op=number, arg=number),
    Hypercall.EVENT_CHANNEL_OP: _row(Named(EvtchnOp), arg=BySubOp(_EVTCHN)),
    Hypercall.PHYSDEV_OP: _row(Named(PhysdevOp), arg=BySubOp(_PHYSDEV)),
    Hypercall.HVM_OP: _row(op=number, arg=number),
    Hypercall.SYSCTL: _row(op=number),
    Hypercall.DOMCTL: _row(op=number),
    Hypercall.KEXEC_OP: _row(op=number, uarg=number),
    Hypercall.TMEM_OP: _row(ops=number),
    Hypercall.ARGO_OP: _row(cmd=number, arg1=number, arg2=number, arg3=number, arg4=number),
    Hypercall.XENPMU_OP: _row(op=number, arg=number),
    Hypercall.DM_OP: _row(domid=domid, nr_bufs=number, bufs=number),
    Hypercall.HYPFS_OP: _row(cmd=number, arg1=number, arg2=number, arg3=number, arg4=number),
}
"""What the arguments of each hypercall mean."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A hypercall in words. `args` by the names of the parameters, in their order."""

    name: str
    sub_op: str | None = None
    args: dict[str, Value] = field(default_factory=dict)


def call_name(nr: int) -> str:
    """The hypercall's name as in Xen's `do_` functions, or its number in hex."""
    return Hypercall.name_of(nr).lower()


def decode_call(nr: int, args: tuple[int, ...], read: Read) -> Decoded:
    """What a hypercall asks for. Arguments beyond those of the prototype are left out; a null pointer is 0."""
    name = call_name(nr)
    row = TABLE.get(nr)
    if row is None:
        return Decoded(name, None, {f"arg{i}": value for i, value in enumerate(args)})
    call = Call(args, read)
    sub_op = None
    decoded: dict[str, Value] = {}
    for index, ((param, show), value) in enumerate(zip(row.params, args, strict=False)):
        if index == 0 and row.sub_ops is not None:
            found = row.sub_ops(call, value)
            sub_op = found if isinstance(found, str) else f"{found:#x}"
        else:
            decoded[param] = show(call, value) if value else _null(show)
    return Decoded(name, sub_op, decoded)


def _null(show: Show) -> Value:
    """A zero: a name if the enumeration has one for it, else a number or the null pointer."""
    return show(Call((), _nothing), 0) if isinstance(show, Named) or show is uvm_flags else 0


def _nothing(vaddr: int, length: int) -> bytes | None:
    del vaddr, length
    return None


def errno_name(result: int) -> str | None:
    """The name of the error that a result is, or None for a value."""
    if not -_MAX_ERRNO <= result < 0:
        return None
    return Errno.name_of(-result)


def changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Value]:
    """What of `after` is not as it was `before`: in dictionaries the parts that differ, lists as a whole."""
    out: dict[str, Value] = {}
    for name, value in after.items():
        old = before.get(name)
        if value == old:
            continue
        out[name] = changed(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out
