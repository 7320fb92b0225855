"""Why the guest stands still, in words: for a stop of a source what that says, for any other what can be found out.

What was executed last is not recorded anywhere. Of a watch point's hit the instruction is found by disassembling its
function up to where the vcpu stands.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import Vaddr
from xdbg.abi.sched import Shutdown
from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.inferiors.vcpu_registers import rip_of
from xdbg.machine.paging import NotMappedError
from xdbg.rsp.replies import (
    Execed,
    ExitReply,
    Forked,
    HistoryEnd,
    HwBreak,
    LibrariesChanged,
    NoResumed,
    SignalledReply,
    StopReason,
    StopReply,
    SwBreak,
    SyscallStop,
    VforkDone,
    WatchHit,
)
from xdbg.rsp.signals import Signal
from xdbg.rsp.target import TargetError, WatchKind
from xdbg.rsp.threadid import Thread
from xdbg.xen.vcpu import Vcpu

if TYPE_CHECKING:
    from xdbg.debug.target import DebugTarget

_SIGNAL_NAMES: Final = {int(signal): f"SIG{signal.name}" for signal in Signal}
_KERNEL: Final = Thread(KERNEL_PID, 1)
_ACCESSES: Final = {WatchKind.WRITE: "written", WatchKind.READ: "read", WatchKind.ACCESS: "accessed"}


def why_stopped(target: "DebugTarget") -> Iterator[str]:
    """The lines: what happened first, then where and when."""
    last = target.run_control.last_stop
    told = target.run_control.sources.explanation(last)
    if told:
        yield from told
    else:
        match last:
            case StopReply():
                yield from _stopped(target, last)
            case ExitReply(status, pid):
                yield f"{_whose(target, pid)} has ended with status {status}"
            case SignalledReply(signal, pid):
                yield f"{_whose(target, pid)} was ended by {_SIGNAL_NAMES.get(signal, f'signal {signal}')}"
            case NoResumed():
                yield "no thread was resumed that the debugger is attached to"
    if target.domain.shutdown_code is not None:
        yield _ended(target)
    yield _where(target, _vcpu(target))


def _stopped(target: "DebugTarget", stop: StopReply) -> Iterator[str]:
    for reason in stop.reasons:
        yield from _reason(target, stop.thread, reason)
    if stop.reasons:
        return
    match stop.signal:
        case Signal.ZERO:
            yield f"the debugger stopped {_named(target, stop.thread)}"
        case Signal.INT:
            yield "the debugger interrupted the guest (Ctrl-C)"
        case Signal.ABRT if target.domain.shutdown_code is not None:
            yield "the domain has crashed; when it is resumed, its inferiors end"
        case Signal.TRAP if target.run_control.following.is_planted(_here(target, stop.thread)[0]):
            yield "an int3 that the debugger itself wrote into memory was reached"
        case Signal.TRAP if (vaddr := target.run_control.stops.place_in_kernel(stop)) is not None:
            place = _symbol(target, _KERNEL, vaddr)
            yield f"breakpoint of {_named(target, stop.thread)} in its kernel, at {place}: that instruction is next"
            yield "gdb shows where the process left user mode; the kernel's frames are those of inferior 1"
        case Signal.TRAP if target.signals.stands(stop.thread):
            yield f"{_named(target, stop.thread)} got SIGTRAP"
        case Signal.TRAP if target.run_control.stops.steps(stop.thread):
            yield f"a step of {_named(target, stop.thread)} is done"
        case Signal.TRAP:
            yield f"{_named(target, stop.thread)} was attached; nothing has happened since"
        case signal:
            yield f"{_named(target, stop.thread)} got {_SIGNAL_NAMES.get(signal, f'signal {signal}')}"


def _reason(target: "DebugTarget", thread: Thread, reason: StopReason) -> Iterator[str]:
    who = _named(target, thread)
    match reason:
        case SwBreak() | HwBreak():
            kind = "breakpoint" if isinstance(reason, SwBreak) else "hardware breakpoint"
            place = _symbol(target, thread, _here(target, thread)[1])
            yield f"{kind} of {who} at {place}: that instruction is next"
        case WatchHit(kind, vaddr):
            yield f"watch point of {who}: {_symbol(target, thread, vaddr)} was {_ACCESSES[WatchKind(kind)]}"
            yield _by_what(target)
        case SyscallStop(number, entry):
            yield f"system call {number} of {who}: {'it begins' if entry else 'it returns'}"
        case Forked(child, vfork):
            yield f"{who} has made process {child.pid}{' by vfork' if vfork else ''}"
        case VforkDone():
            yield f"the child of {who} has let go of its memory"
        case Execed(path):
            yield f"{who} runs {path} now"
        case LibrariesChanged():
            yield f"the libraries of {who} are other ones"
        case HistoryEnd(begin):
            yield f"the {'beginning' if begin else 'end'} of history"


def _by_what(target: "DebugTarget") -> str:
    """The access of a watch hit: of the instruction that has just been executed, or of Xen."""
    vcpu = _vcpu(target)
    if target.run_control.following.stored_by_xen:
        return "by Xen itself, on the guest's behalf"
    found = target.describer.instruction_before(vcpu, rip_of(vcpu))
    if found is None:
        return "by the instruction before the one that is next"
    at, text = found
    name = target.describer.name(vcpu, at, kernel_mode=vcpu.kernel_mode)
    return f"by {text} at {name} <{at:#x}>, which has been executed"


def _ended(target: "DebugTarget") -> str:
    domain = target.domain
    assert domain.shutdown_code is not None
    reason = domain.shutdown_reason or "it asked for that"
    return f"the domain has shut down: SHUTDOWN_{Shutdown.name_of(domain.shutdown_code).lower()}, {reason}"


def _where(target: "DebugTarget", vcpu: Vcpu) -> str:
    rip = rip_of(vcpu)
    name = target.describer.name(vcpu, Vaddr(rip), kernel_mode=vcpu.kernel_mode)
    place = f"{name} <{rip:#x}>" if name else f"{rip:#x}"
    mode = "kernel mode" if vcpu.kernel_mode else "user mode"
    pid = target.profile.current_pid(vcpu.vcpu_id)
    behalf = "" if pid is None else f", process {pid}"
    return f"vcpu {vcpu.vcpu_id} is at {place} in {mode}{behalf}, after {target.hv.cpu.count} instructions"


def _vcpu(target: "DebugTarget") -> Vcpu:
    current = target.hv.current
    return current if current is not None and current.domain is target.domain else target.domain.vcpus[0]


def _here(target: "DebugTarget", thread: Thread) -> tuple[int | None, int]:
    """Where a thread stands: machine address, None if that can't be known, and rip."""
    try:
        rip = target.inferiors.rip(thread)
    except TargetError:
        return None, 0
    try:
        return target.inferiors.space(thread).translate(rip).maddr, rip
    except (NotMappedError, TargetError):
        return None, rip


def _symbol(target: "DebugTarget", thread: Thread, vaddr: int) -> str:
    name = target.describer.name(_vcpu(target), Vaddr(vaddr), kernel_mode=thread.pid == KERNEL_PID)
    return f"{name} <{vaddr:#x}>" if name else f"{vaddr:#x}"


def _named(target: "DebugTarget", thread: Thread) -> str:
    if thread.pid != KERNEL_PID:
        return _whose(target, thread.pid)
    return f"the kernel (vcpu {thread.tid - 1})"


def _whose(target: "DebugTarget", pid: int | None) -> str:
    if pid in (None, KERNEL_PID):
        return "the kernel"
    assert pid is not None
    process = target.profile.process(pid)
    return f"process {pid}" if process is None else f"process {pid} ({process.exec_path or process.name})"
