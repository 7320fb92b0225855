"""What a guest may ask of its vcpus. Xen: common/domain.c, arch/x86/domain.c, public/vcpu.h.

A vcpu can be named only if the domain has it, else each command is -ENOENT: that is how a guest counts its vcpus. One
that has never been initialised can be given a vcpu_info, timers and areas, but not be taken up (-EINVAL). The
vcpu_info of a vcpu is in shared_info until the guest gives it another place, once; from then on that frame is
held as a writable page, so that it becomes neither a page table nor somebody else's.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn, Vaddr, maddr_to_mfn, mfn_to_maddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import Shutdown
from xdbg.abi.shared_info import VcpuInfo, VcpuTimeInfo
from xdbg.abi.vcpu import (
    VcpuGuestContext,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
)

from .event_channel import mark_events_pending
from .events import MemoryWritten
from .faults import HypercallError
from .guest_access import address_ok, read_struct, write_struct
from .hypercall import hypercall
from .page_info import PGT_WRITABLE_PAGE
from .page_table_types import get_page_and_type
from .runstate import runstate_info, update_runstate_area
from .sched import shutdown, vcpu_sleep, vcpu_wake
from .system_time import update_time_info
from .timer import STIME_DELTA_MAX, set_periodic_timer, set_singleshot_timer
from .vcpu import Vcpu
from .vcpu_context import set_info_guest

MIN_PERIOD_NS: Final = 1_000_000
"""A periodic timer that is faster is refused."""

_U64 = (1 << 64) - 1
_PENDING_SEL = VcpuInfo.offset_of("evtchn_pending_sel")


@hypercall(Hypercall.VCPU_OP)
def do_vcpu_op(vcpu: Vcpu, cmd: int, vcpuid: int, arg: int) -> int:
    """HYPERVISOR_vcpu_op(cmd, vcpuid, arg): vcpus up and down, timers, places of vcpu_info, run state and clock.

    The builder starts vcpu 0; the guest initialises the others and takes them up. Xen: common/domain.c.
    """
    domain = vcpu.domain
    vcpuid &= 0xFFFF_FFFF
    if vcpuid >= len(domain.vcpus):
        raise HypercallError(Errno.ENOENT)
    target = domain.vcpus[vcpuid]
    match cmd:
        case VcpuOp.INITIALISE:
            context = read_struct(vcpu, arg, VcpuGuestContext)
            if target.is_initialised:
                raise HypercallError(Errno.EEXIST)
            set_info_guest(target, context)
        case VcpuOp.UP:
            if not target.is_initialised:
                raise HypercallError(Errno.EINVAL)
            if not target.is_up:
                target.is_up = True
                vcpu_wake(target)
        case VcpuOp.DOWN:
            vcpu_down(target)
        case VcpuOp.IS_UP:
            return int(target.is_up)
        case VcpuOp.GET_RUNSTATE_INFO:
            write_struct(vcpu, arg, runstate_info(target, domain.hv.now()))
        case VcpuOp.SET_PERIODIC_TIMER:
            period_ns = read_struct(vcpu, arg, VcpuSetPeriodicTimer).period_ns
            if not MIN_PERIOD_NS <= period_ns <= STIME_DELTA_MAX:
                raise HypercallError(Errno.EINVAL)
            set_periodic_timer(target, period_ns)
        case VcpuOp.STOP_PERIODIC_TIMER:
            set_periodic_timer(target, 0)
        case VcpuOp.SET_SINGLESHOT_TIMER:
            _must_be_caller(vcpu, target)
            # VCPU_SSHOTTMR_future is ignored: a time that has passed fires at once.
            set_singleshot_timer(target, read_struct(vcpu, arg, VcpuSetSingleshotTimer).timeout_abs_ns)
        case VcpuOp.STOP_SINGLESHOT_TIMER:
            _must_be_caller(vcpu, target)
            target.timers.singleshot_ns = 0
        case VcpuOp.REGISTER_VCPU_INFO:
            info = read_struct(vcpu, arg, VcpuRegisterVcpuInfo)
            map_vcpu_info(vcpu, target, info.mfn, info.offset)
            update_time_info(target, vcpu)
        case VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA:
            target.runstate.area = _area(
                read_struct(vcpu, arg, VcpuRegisterRunstateMemoryArea).addr.v, VcpuRunstateInfo
            )
            # What is written now goes through the caller's page table: the target may have none yet.
            now_ns = None if target is vcpu else domain.hv.now()
            update_runstate_area(target, vcpu, now_ns)
        case VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA:
            target.time_area = _area(read_struct(vcpu, arg, VcpuRegisterTimeMemoryArea).addr.v, VcpuTimeInfo)
            update_time_info(target, vcpu)
        case VcpuOp.SEND_NMI:
            if arg:
                raise HypercallError(Errno.EINVAL)
            target.nmi_pending = target.check_events = True
        case VcpuOp.GET_PHYSID:
            # For a domain whose vcpus are pinned to physical CPUs.
            raise HypercallError(Errno.EINVAL)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


def vcpu_down(target: Vcpu) -> None:
    """Take a vcpu out of the running; with the last one the domain powers off."""
    domain = target.domain
    if not any(vcpu.is_up for vcpu in domain.vcpus if vcpu is not target):
        shutdown(domain, Shutdown.POWEROFF)
    elif target.is_up:
        target.is_up = False
        vcpu_sleep(target)


def map_vcpu_info(vcpu: Vcpu, target: Vcpu, mfn: int, offset: int) -> None:
    """Move the vcpu_info of `target` to `offset` in a frame of its domain; -EINVAL. Xen: map_vcpu_info.

    Everything is marked as pending, so that nothing that came meanwhile is lost.
    """
    domain = target.domain
    hv = domain.hv
    if offset > PAGE_SIZE - VcpuInfo.SIZE or maddr_to_mfn(target.vcpu_info) != domain.shared_info:
        raise HypercallError(Errno.EINVAL)
    if target is not vcpu and target.is_up:
        raise HypercallError(Errno.EINVAL)
    get_page_and_type(hv, mfn, domain.domid, PGT_WRITABLE_PAGE)
    place = Maddr(mfn_to_maddr(Mfn(mfn)) + offset)
    hv.ram.write(place, hv.ram.read(target.vcpu_info, VcpuInfo.SIZE))
    hv.ram.write_u64(place + _PENDING_SEL, _U64)
    target.vcpu_info = place
    if hv.observer is not None:
        hv.observer.observe(target, MemoryWritten(place, VcpuInfo.SIZE))
    mark_events_pending(target)


def _must_be_caller(vcpu: Vcpu, target: Vcpu) -> None:
    """A vcpu sets its own single-shot timer and no other's."""
    if target is not vcpu:
        raise HypercallError(Errno.EINVAL)


def _area(vaddr: int, kind: type[VcpuRunstateInfo] | type[VcpuTimeInfo]) -> Vaddr:
    """Where a guest wants a structure kept up to date; -EFAULT if that is not in its part of the address space."""
    if not address_ok(vaddr, kind.SIZE):
        raise HypercallError(Errno.EFAULT)
    return Vaddr(vaddr)
