"""What Xen does with each kind of exit: one match, nothing else.

Exits that the guest did not cause (a deadline, a debugger's stop point) are no events of the guest: nothing is
delivered on them, so that the points at which a guest is interrupted do not depend on who is looking. A watch may come
with a #DB that the guest did cause.
"""

from xdbg.abi.x86 import Vector
from xdbg.machine.exits import (
    DeadlineExit,
    EngineExit,
    ExceptionExit,
    Exit,
    IoExit,
    StepExit,
    StopPointExit,
    SyscallExit,
    SysenterExit,
    WatchExit,
)

from . import entry, hypercall, traps
from .faults import DomainCrash
from .syscall_entry import syscall_entered
from .vcpu import Vcpu


def handle_exit(vcpu: Vcpu, came: Exit) -> None:
    """Consume one exit of the current vcpu and prepare its return. A crash ends its domain and nothing more."""
    try:
        match came:
            case SyscallExit():
                syscall_entered(vcpu)
                if vcpu.kernel_mode:
                    hypercall.pv_hypercall(vcpu)
                else:
                    entry.bounce_syscall(vcpu)
            case ExceptionExit():
                traps.take_exception(vcpu, came)
            case IoExit():
                # The engine has no I/O privilege check: this is the #GP that the CPU would have raised.
                traps.take_exception(vcpu, ExceptionExit(Vector.GP))
            case SysenterExit():
                entry.bounce_sysenter(vcpu)
            case EngineExit(reason):
                raise DomainCrash(reason)
            case WatchExit(trap=trap) if trap is not None:
                traps.take_exception(vcpu, trap)
            case DeadlineExit() | StepExit() | StopPointExit() | WatchExit():
                return
        if vcpu.runnable:
            entry.return_to_guest(vcpu)
        else:
            vcpu.check_events = True
    except DomainCrash as crash:
        vcpu.domain.hv.crash_domain(vcpu, crash.reason)
