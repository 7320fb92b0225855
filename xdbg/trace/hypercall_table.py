"""What the arguments of each hypercall mean: one row a hypercall, one row a sub-operation."""

from collections.abc import Mapping
from dataclasses import dataclass

from xdbg.abi.callback import CallbackOp, CallbackRegister, CallbackUnregister
from xdbg.abi.console import ConsoleIo
from xdbg.abi.control import XenDomctl, XenPlatformOp, XenSysctl
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
from xdbg.abi.hvm_op import (
    HvmOp,
    XenHvmGetMemType,
    XenHvmGetTime,
    XenHvmPagetableDying,
    XenHvmParam,
    XenHvmXentrace,
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
from xdbg.abi.mmu import MmuextOpStruct
from xdbg.abi.nmi import XenNmi, XennmiCallback
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
from xdbg.abi.vcpu import (
    VcpuGetPhysid,
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

from .arguments import (
    Array,
    BySubOp,
    Named,
    One,
    Show,
    Text,
    console_text,
    domid,
    gdt_frames,
    guest_context,
    mmu_updates,
    multicall_names,
    number,
    pte,
    segment_descriptor,
    trap_table,
    uvm_flags,
)

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
    VcpuOp.INITIALISE: guest_context,
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


_NMI: Mapping[int, Show] = {XenNmi.REGISTER_CALLBACK: One(XennmiCallback)}
_HVM: Mapping[int, Show] = {
    HvmOp.SET_PARAM: One(XenHvmParam),
    HvmOp.GET_PARAM: One(XenHvmParam),
    HvmOp.PAGETABLE_DYING: One(XenHvmPagetableDying),
    HvmOp.GET_TIME: One(XenHvmGetTime),
    HvmOp.XENTRACE: One(XenHvmXentrace),
    HvmOp.GET_MEM_TYPE: One(XenHvmGetMemType),
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
    Hypercall.PLATFORM_OP: _row(op=One(XenPlatformOp)),
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
    Hypercall.NMI_OP: _row(Named(XenNmi), arg=BySubOp(_NMI)),
    Hypercall.SCHED_OP: _row(Named(SchedOp), arg=BySubOp(_SCHED)),
    Hypercall.CALLBACK_OP: _row(Named(CallbackOp), arg=BySubOp(_CALLBACK)),
    Hypercall.XENOPROF_OP: _row(op=number, arg=number),
    Hypercall.EVENT_CHANNEL_OP: _row(Named(EvtchnOp), arg=BySubOp(_EVTCHN)),
    Hypercall.PHYSDEV_OP: _row(Named(PhysdevOp), arg=BySubOp(_PHYSDEV)),
    Hypercall.HVM_OP: _row(Named(HvmOp), arg=BySubOp(_HVM)),
    Hypercall.SYSCTL: _row(op=One(XenSysctl)),
    Hypercall.DOMCTL: _row(op=One(XenDomctl)),
    Hypercall.KEXEC_OP: _row(op=number, uarg=number),
    Hypercall.TMEM_OP: _row(ops=number),
    Hypercall.ARGO_OP: _row(cmd=number, arg1=number, arg2=number, arg3=number, arg4=number),
    Hypercall.XENPMU_OP: _row(op=number, arg=number),
    Hypercall.DM_OP: _row(domid=domid, nr_bufs=number, bufs=number),
    Hypercall.HYPFS_OP: _row(cmd=number, arg1=number, arg2=number, arg3=number, arg4=number),
    Hypercall.ARCH_0: _row(mc=number),
    Hypercall.ARCH_1: _row(op=One(XenDomctl)),
}
"""What the arguments of each hypercall mean."""
