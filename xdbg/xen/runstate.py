"""How long a vcpu was running, runnable, blocked and offline. Xen: vcpu_runstate_change(), update_runstate_area().

The times add up to the system time since the vcpu was made: each change adds the time since the last one to the state
that ends. A guest may have a copy kept in its own memory; it is brought up to date when the vcpu gets the CPU and when
it loses it. So it always says "running" to the vcpu itself, and to others what has become of it.
"""

from xdbg.abi.vcpu import Runstate, VcpuRunstateInfo

from .faults import GuestFault
from .guest_access import copy_to_guest
from .vcpu import Vcpu


def runstate_change(vcpu: Vcpu, state: Runstate, now_ns: int) -> None:
    """The vcpu is in `state` from system time `now_ns` on. Xen: vcpu_runstate_change."""
    runstate = vcpu.runstate
    if runstate.state == state:
        return
    runstate.time_ns[runstate.state] += now_ns - runstate.since_ns
    runstate.state = state
    runstate.since_ns = now_ns


def runstate_info(vcpu: Vcpu, now_ns: int) -> VcpuRunstateInfo:
    """The times up to `now_ns`, those of the current state included. Xen: vcpu_runstate_get()."""
    info = _as_kept(vcpu)
    info.time[vcpu.runstate.state] += now_ns - vcpu.runstate.since_ns
    return info


def update_runstate_area(vcpu: Vcpu, through: Vcpu | None = None, now_ns: int | None = None) -> None:
    """Write the guest's copy, if it wants one. A place that it can't be written to is the guest's own loss.

    It is found by the page table of `through`, or of the vcpu itself; the times are those up to the last change, or
    up to `now_ns`.

    The update flag of VMASST_TYPE_runstate_update_flag is for readers on another CPU: with one CPU none sees it set.
    """
    if vcpu.runstate.area:
        info = _as_kept(vcpu) if now_ns is None else runstate_info(vcpu, now_ns)
        write_kernel_area(through or vcpu, vcpu.runstate.area, info.to_bytes())


def write_kernel_area(vcpu: Vcpu, vaddr: int, data: bytes) -> bool:
    """Store in memory that the guest's kernel registered, through its page table whatever mode the guest is in.

    False if it can't be written. Xen: update_guest_memory_policy().
    """
    mode = vcpu.kernel_mode
    vcpu.kernel_mode = True
    try:
        copy_to_guest(vcpu, vaddr, data)
    except GuestFault:
        return False
    finally:
        vcpu.kernel_mode = mode
    return True


def _as_kept(vcpu: Vcpu) -> VcpuRunstateInfo:
    """The times as of the last change."""
    info = VcpuRunstateInfo()
    info.state = vcpu.runstate.state
    info.state_entry_time = vcpu.runstate.since_ns
    for state, time_ns in enumerate(vcpu.runstate.time_ns):
        info.time[state] = time_ns
    return info
