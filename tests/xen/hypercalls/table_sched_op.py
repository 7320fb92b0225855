"""sched_op, its old form, and vcpu_op. Read from common/sched/core.c, common/domain.c and arch/x86/domain.c."""

from xdbg.abi.event_channel import EvtchnBindIpi, EvtchnOp
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.nmi import XenNmi, XennmiCallback
from xdbg.abi.sched import (
    SchedOp,
    SchedPinOverride,
    SchedPoll,
    SchedRemoteShutdown,
    SchedShutdown,
    SchedWatchdog,
    Shutdown,
)
from xdbg.abi.vcpu import (
    VcpuGuestContext,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
    Vgcf,
)

from .domain_under_test import FREE, L1, L4, DomainUnderTest
from .vocabulary import (
    DOM0,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EPERM,
    ESRCH,
    HIGH,
    IN_XEN,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Later,
    Operation,
    Place,
    Put,
    Row,
    Table,
    anywhere,
    faults,
    foreign_mfn,
    mfn,
    put,
    va,
)

SCHED = Hypercall.SCHED_OP
VCPU = Hypercall.VCPU_OP
SOURCE = "do_sched_op()"
IPI = (Hypercall.EVENT_CHANNEL_OP, EvtchnOp.BIND_IPI, put(EvtchnBindIpi, vcpu=0))
PORTS = Put(((1).to_bytes(4, "little"),))
NO_PORT = Put(((5000).to_bytes(4, "little"),))
STARTED = put(
    VcpuGuestContext, flags=int(Vgcf.IN_KERNEL), user_regs__rip=va(FREE), user_regs__cs=0xE033, ctrlreg__3=mfn(L4) << 12
)
SOON = Later("soon", lambda guest: guest.hv.now() + 1_000_000)


def ended(code: int | None):
    def look(guest: DomainUnderTest) -> str | None:
        found = guest.domain.shutdown_code
        return None if found == code else f"the domain's shutdown code is {found}"

    return look


def waits(*, blocked: bool = False, polls: bool = False):
    def look(guest: DomainUnderTest) -> str | None:
        found = (guest.vcpu.blocked, guest.vcpu.polling is not None)
        return None if found == (blocked, polls) else f"(blocked, polls) is {found}"

    return look


def shutdown(code: int):
    return put(SchedShutdown, reason=code)


HANDLER = 0xFFFF_FFFF_8000_0800
NMI_HANDLER = (Hypercall.NMI_OP, XenNmi.REGISTER_CALLBACK, put(XennmiCallback, handler_address=HANDLER))


def goes_on_at(rip: int):
    def look(guest: DomainUnderTest) -> str | None:
        found = guest.hv.cpu.rip
        return None if found == rip else f"it goes on at {found:#x}"

    return look


DOG = (SCHED, SchedOp.WATCHDOG, put(SchedWatchdog, timeout=100))


def of_both(row: Row) -> list[Row]:
    """The same on the caller and on the other vcpu."""
    what, (_, *args) = row.what, row.args
    return [row, Row(f"{what}, of the other vcpu", (1, *args), row.result, row.wrote, row.before)]


NO_VCPU = Row("a vcpu that is not there", (2, UNMAPPED), ENOENT)

TABLES = (
    Table(
        SCHED,
        commands=SchedOp,
        operations={
            SchedOp.YIELD: Operation(
                "lets others run",
                SOURCE,
                [Row("valid", (NULL,), 0), Row("the argument is not looked at", (IN_XEN,), 0)],
            ),
            SchedOp.BLOCK: Operation(
                "waits for an upcall",
                SOURCE,
                [
                    Row("valid", (NULL,), 0, then=waits(blocked=True)),
                    Row("the argument is not looked at", (IN_XEN,), 0, then=waits(blocked=True)),
                ],
            ),
            SchedOp.SHUTDOWN: Operation(
                "ends the domain",
                SOURCE,
                [
                    *(Row(reason.name, (shutdown(reason),), 0, then=ended(reason)) for reason in Shutdown),
                    Row("any reason", (shutdown(77),), 0, then=ended(77)),
                    Row("a reason has 8 bits", (shutdown(0x101),), 0, then=ended(1)),
                    Row(
                        "a reason that was latched wins",
                        (shutdown(0),),
                        0,
                        None,
                        ((SCHED, SchedOp.SHUTDOWN_CODE, shutdown(1)),),
                        ended(1),
                    ),
                    *faults(shutdown(0)),
                ],
            ),
            SchedOp.SHUTDOWN_CODE: Operation(
                "latches the reason of a later end",
                SOURCE,
                [*anywhere(Row("valid", (shutdown(1),), 0, then=ended(None))), *faults(shutdown(0))],
            ),
            SchedOp.POLL: Operation(
                "waits for ports, or a time",
                "do_poll()",
                [
                    Row(
                        "nothing pending",
                        (put(SchedPoll, ports=PORTS, nr_ports=1),),
                        0,
                        None,
                        (IPI,),
                        waits(polls=True),
                    ),
                    Row("a time", (put(SchedPoll, timeout=SOON),), 0, then=waits(polls=True)),
                    Row("a time that is past", (put(SchedPoll, timeout=1),), 0),
                    Row("128 ports", (put(SchedPoll, ports=va(FREE), nr_ports=128),), 0, then=waits(polls=True)),
                    Row("129 ports", (put(SchedPoll, ports=UNMAPPED, nr_ports=129),), EINVAL),
                    Row("ports that are not mapped", (put(SchedPoll, ports=UNMAPPED, nr_ports=1),), EFAULT),
                    Row("ports in Xen's range", (put(SchedPoll, ports=IN_XEN, nr_ports=1),), EFAULT),
                    Row("none, in Xen's range", (put(SchedPoll, ports=IN_XEN, nr_ports=0),), EFAULT),
                    Row("no such port", (put(SchedPoll, ports=NO_PORT, nr_ports=1),), EINVAL),
                    *faults(put(SchedPoll)),
                ],
            ),
            SchedOp.REMOTE_SHUTDOWN: Operation(
                "ends another domain",
                SOURCE,
                [
                    *anywhere(Row("valid", (put(SchedRemoteShutdown, domain_id=NEIGHBOUR),), EPERM)),
                    Row("itself", (put(SchedRemoteShutdown, domain_id=OWN),), EPERM),
                    Row("domain 0", (put(SchedRemoteShutdown, domain_id=DOM0),), EPERM),
                    Row("DOMID_SELF", (put(SchedRemoteShutdown, domain_id=DOMID_SELF),), ESRCH),
                    Row("nobody", (put(SchedRemoteShutdown, domain_id=NOBODY),), ESRCH),
                    *faults(put(SchedRemoteShutdown, domain_id=NEIGHBOUR)),
                ],
            ),
            SchedOp.WATCHDOG: Operation(
                "starts, renews and stops watchdogs",
                "domain_watchdog()",
                [
                    *anywhere(Row("the first", (put(SchedWatchdog, timeout=100),), 1)),
                    Row("the second", (put(SchedWatchdog, timeout=100),), 2, before=(DOG,)),
                    Row("a third", (put(SchedWatchdog, timeout=100),), ENOSPC, before=(DOG, DOG)),
                    Row("renew", (put(SchedWatchdog, id=1, timeout=5),), 0, before=(DOG,)),
                    Row("stop", (put(SchedWatchdog, id=1, timeout=0),), 0, before=(DOG,)),
                    Row("stop one that does not run", (put(SchedWatchdog, id=2, timeout=0),), EINVAL, before=(DOG,)),
                    Row("beyond the last", (put(SchedWatchdog, id=3, timeout=5),), EINVAL),
                    *faults(put(SchedWatchdog)),
                ],
            ),
            SchedOp.PIN_OVERRIDE: Operation(
                "chooses a physical CPU",
                SOURCE,
                [
                    Row("valid", (put(SchedPinOverride, pcpu=0),), EPERM),
                    Row("before the argument is read", (UNMAPPED,), EPERM),
                ],
            ),
            "other": Operation(
                "any other command",
                SOURCE,
                [
                    Row("beyond the last", (8, NULL), ENOSYS),
                    Row("negative", (0xFFFF_FFFF, NULL), ENOSYS),
                    Row("the upper half does not count", (HIGH, NULL), 0),
                ],
            ),
        },
    ),
    Table(
        Hypercall.SCHED_OP_COMPAT,
        operations={
            None: Operation(
                "yields, blocks and shuts down, the reason being the argument itself",
                "do_sched_op_compat()",
                [
                    Row("yield", (SchedOp.YIELD, 0), 0),
                    Row("block", (SchedOp.BLOCK, 0), 0, then=waits(blocked=True)),
                    Row("shutdown", (SchedOp.SHUTDOWN, Shutdown.REBOOT), 0, then=ended(Shutdown.REBOOT)),
                    Row("a reason has 8 bits", (SchedOp.SHUTDOWN, 0x101), 0, then=ended(1)),
                    Row("poll, which is newer", (SchedOp.POLL, 0), ENOSYS),
                ],
            )
        },
    ),
    Table(
        VCPU,
        commands=VcpuOp,
        operations={
            VcpuOp.INITIALISE: Operation(
                "gives a vcpu its registers",
                "do_vcpu_op(), default_initialise_vcpu()",
                [
                    Row("the other", (1, STARTED.at(Place.LAST)), 0),
                    Row("one that has them", (0, va(FREE)), EEXIST),
                    Row("in a page and the next", (0, put(VcpuGuestContext).at(Place.LAST)), EEXIST),
                    NO_VCPU,
                    *faults(put(VcpuGuestContext), before=(0,)),
                ],
            ),
            VcpuOp.UP: Operation(
                "lets a vcpu run",
                "do_vcpu_op()",
                [
                    Row("one that is up", (0, NULL), 0),
                    Row("one that was not initialised", (1, NULL), EINVAL),
                    NO_VCPU,
                ],
            ),
            VcpuOp.DOWN: Operation(
                "stops a vcpu; with the last one the domain ends",
                "do_vcpu_op()",
                [
                    Row("one that is down", (1, NULL), 0, then=ended(None)),
                    Row("the last", (0, NULL), 0, then=ended(Shutdown.POWEROFF)),
                    NO_VCPU,
                ],
            ),
            VcpuOp.IS_UP: Operation(
                "tells whether a vcpu may run",
                "do_vcpu_op()",
                [
                    Row("the caller", (0, NULL), 1),
                    Row("the other", (1, NULL), 0),
                    Row("a number has 32 bits", (HIGH, NULL), 1),
                    NO_VCPU,
                    Row("far beyond", (0xFFFF_FFFF, NULL), ENOENT),
                ],
            ),
            VcpuOp.GET_RUNSTATE_INFO: Operation(
                "tells what a vcpu has done with its time",
                "do_vcpu_op(), vcpu_runstate_get()",
                [
                    Row("the caller", (0, put(VcpuRunstateInfo, state=9)), 0, {"state": 0}),
                    Row("the other", (1, put(VcpuRunstateInfo)), 0, {"state": 3}),
                    NO_VCPU,
                    *faults(put(VcpuRunstateInfo), before=(0,), written=True),
                ],
            ),
            VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA: Operation(
                "tells where that is to be kept up to date",
                "do_vcpu_op()",
                [
                    Row("valid", (0, put(VcpuRegisterRunstateMemoryArea, addr__v=va(FREE))), 0),
                    Row("null", (0, put(VcpuRegisterRunstateMemoryArea)), 0),
                    Row("of the other vcpu", (1, put(VcpuRegisterRunstateMemoryArea, addr__v=va(FREE))), 0),
                    Row("not mapped", (0, put(VcpuRegisterRunstateMemoryArea, addr__v=UNMAPPED)), 0),
                    Row("in Xen's range", (0, put(VcpuRegisterRunstateMemoryArea, addr__v=IN_XEN)), EFAULT),
                    NO_VCPU,
                    *faults(put(VcpuRegisterRunstateMemoryArea), before=(0,)),
                ],
            ),
            VcpuOp.SET_PERIODIC_TIMER: Operation(
                "starts the periodic timer",
                "do_vcpu_op()",
                [
                    *of_both(Row("10 ms", (0, put(VcpuSetPeriodicTimer, period_ns=10_000_000)), 0)),
                    Row("1 ms", (0, put(VcpuSetPeriodicTimer, period_ns=1_000_000)), 0),
                    Row("shorter than 1 ms", (0, put(VcpuSetPeriodicTimer, period_ns=999_999)), EINVAL),
                    Row("longer than Xen counts", (0, put(VcpuSetPeriodicTimer, period_ns=1 << 62)), EINVAL),
                    NO_VCPU,
                    *faults(put(VcpuSetPeriodicTimer), before=(0,)),
                ],
            ),
            VcpuOp.STOP_PERIODIC_TIMER: Operation(
                "stops it", "do_vcpu_op()", [*of_both(Row("valid", (0, NULL), 0)), NO_VCPU]
            ),
            VcpuOp.SET_SINGLESHOT_TIMER: Operation(
                "sets the caller's single-shot timer",
                "do_vcpu_op()",
                [
                    Row("valid", (0, put(VcpuSetSingleshotTimer, timeout_abs_ns=SOON)), 0),
                    Row("past", (0, put(VcpuSetSingleshotTimer, timeout_abs_ns=1)), 0),
                    Row("past, to be refused", (0, put(VcpuSetSingleshotTimer, timeout_abs_ns=1, flags=1)), 0),
                    Row("of the other vcpu", (1, UNMAPPED), EINVAL),
                    NO_VCPU,
                    *faults(put(VcpuSetSingleshotTimer), before=(0,)),
                ],
            ),
            VcpuOp.STOP_SINGLESHOT_TIMER: Operation(
                "stops it",
                "do_vcpu_op()",
                [Row("valid", (0, NULL), 0), Row("of the other vcpu", (1, NULL), EINVAL), NO_VCPU],
            ),
            VcpuOp.REGISTER_VCPU_INFO: Operation(
                "moves a vcpu_info",
                "map_vcpu_info()",
                [
                    *of_both(Row("valid", (0, put(VcpuRegisterVcpuInfo, mfn=mfn(FREE), offset=64)), 0)),
                    Row("at the end of the page", (0, put(VcpuRegisterVcpuInfo, mfn=mfn(FREE), offset=4032)), 0),
                    Row("beyond the page", (0, put(VcpuRegisterVcpuInfo, mfn=mfn(FREE), offset=4033)), EINVAL),
                    Row(
                        "a second time",
                        (0, put(VcpuRegisterVcpuInfo, mfn=mfn(FREE), offset=0)),
                        EINVAL,
                        None,
                        ((VCPU, VcpuOp.REGISTER_VCPU_INFO, 0, put(VcpuRegisterVcpuInfo, mfn=mfn(FREE))),),
                    ),
                    Row("in a page table", (0, put(VcpuRegisterVcpuInfo, mfn=mfn(L1))), EINVAL),
                    Row("in another domain's frame", (0, put(VcpuRegisterVcpuInfo, mfn=foreign_mfn(FREE))), EINVAL),
                    Row("in no RAM", (0, put(VcpuRegisterVcpuInfo, mfn=1 << 40)), EINVAL),
                    NO_VCPU,
                    *faults(put(VcpuRegisterVcpuInfo), before=(0,)),
                ],
            ),
            VcpuOp.SEND_NMI: Operation(
                "sends an NMI",
                "do_vcpu_op()",
                [
                    Row("the caller", (0, NULL), 0, None, (NMI_HANDLER,), goes_on_at(HANDLER)),
                    Row("the caller, without a handler", (0, NULL), 0),
                    Row("the other", (1, NULL), 0),
                    Row("an argument", (0, va(FREE)), EINVAL),
                    NO_VCPU,
                ],
            ),
            VcpuOp.GET_PHYSID: Operation(
                "tells the physical CPU; the vcpus are not pinned",
                "do_vcpu_op()",
                [
                    Row("valid", (0, va(FREE)), EINVAL),
                    Row("before the argument is read", (0, UNMAPPED), EINVAL),
                    NO_VCPU,
                ],
            ),
            VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA: Operation(
                "tells where the clock is to be kept up to date",
                "do_vcpu_op()",
                [
                    Row("valid", (0, put(VcpuRegisterTimeMemoryArea, addr__v=va(FREE))), 0),
                    Row("of the other vcpu", (1, put(VcpuRegisterTimeMemoryArea, addr__v=va(FREE))), 0),
                    Row("not mapped", (0, put(VcpuRegisterTimeMemoryArea, addr__v=UNMAPPED)), 0),
                    Row("in Xen's range", (0, put(VcpuRegisterTimeMemoryArea, addr__v=IN_XEN)), EFAULT),
                    NO_VCPU,
                    *faults(put(VcpuRegisterTimeMemoryArea), before=(0,)),
                ],
            ),
            "other": Operation(
                "any other command",
                "do_vcpu_op()",
                [
                    Row("beyond the last", (16, 0, NULL), ENOSYS),
                    Row("beyond the last, of no vcpu", (16, 2, NULL), ENOENT),
                ],
            ),
        },
    ),
)
