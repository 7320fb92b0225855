"""A trace for people: it explains the way of each trap through the hypervisor, step by step.

Each record begins with the instruction count, domain and vcpu ("d1v0"), mode and pid; lines that continue it have none.
A trap's own steps (gate, trap_bounce, bounce frame, handler, iret) stand two columns right of the line that begins it;
what the guest's handler does while it is in the trap stands two more right, until its iret. So a nested trap is further
right than the one that it interrupts.

Which iret ends which trap is told by the stack pointer: a frame holds the interrupted rsp, and the iret goes back to
it. A kernel that returns elsewhere (to another process, out of a handler) ends the innermost trap. What happens in user
mode is in no trap.
"""

import json
from collections.abc import Iterator
from typing import TextIO

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import SelectorErrorCode, Vector

from .events import (
    GuestText,
    Record,
    TracedBounceFrame,
    TracedConsole,
    TracedException,
    TracedFixup,
    TracedHandler,
    TracedHypercall,
    TracedIret,
    TracedMemory,
    TracedPending,
    TracedPrivileged,
    TracedResult,
    TracedShutdown,
    TracedTrapBounce,
    TracedUpcall,
    TraceEvent,
    Value,
)

MAX_DEPTH = 8
"""Traps in traps that are still shown further right; a kernel that never returns from one must not run off the page."""

_MAX_OPEN = 64
_STEP = "  "
_LONG_NAMES = {
    Vector.DE: "divide error",
    Vector.DB: "debug exception",
    Vector.NMI: "non-maskable interrupt",
    Vector.BP: "breakpoint",
    Vector.OF: "overflow",
    Vector.BR: "bound range exceeded",
    Vector.UD: "invalid opcode",
    Vector.NM: "device not available",
    Vector.DF: "double fault",
    Vector.TS: "invalid TSS",
    Vector.NP: "segment not present",
    Vector.SS: "stack-segment fault",
    Vector.GP: "general protection",
    Vector.PF: "page fault",
    Vector.MF: "x87 floating-point error",
    Vector.AC: "alignment check",
    Vector.MC: "machine check",
    Vector.XM: "SIMD floating-point exception",
}
_DECIMAL_LIMIT = 1024
"""Numbers below are written in decimal: counts, ports, small flags. Addresses are in hex."""
_DECIMAL_SUFFIXES = ("_ns", "timeout", "time", "count")


class TextSink:
    """Writes to a text stream that the caller has opened and will close."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open_traps: dict[tuple[int, int], list[int | None]] = {}
        self._frame_rsp: int | None = None
        """Interrupted rsp of the frame that was written last: its handler is entered next."""

    def write(self, record: Record) -> None:
        """The lines of one record."""
        event = record.event
        open_traps = self._open_traps.setdefault((record.domid, record.vcpu), [])
        match event:
            case TracedBounceFrame(switched_stack=True):
                open_traps.clear()
            case TracedIret() if record.kernel_mode:
                _close(open_traps, event.rsp)
            case _ if not record.kernel_mode:
                open_traps.clear()
        indent = _STEP * (2 * min(len(open_traps), MAX_DEPTH))
        mode = "kernel" if record.kernel_mode else "user"
        if record.pid is not None:
            mode += f" {record.pid}"
        prefix = f"{record.count:>12} d{record.domid}v{record.vcpu} {mode:<9} {indent}"
        blank = " " * len(prefix)
        for line in lines(event):
            self._stream.write(f"{prefix}{line}".rstrip() + "\n")
            prefix = blank
        match event:
            case TracedBounceFrame():
                self._frame_rsp = event.words[-2].value
            case TracedHandler():
                open_traps.append(self._frame_rsp)
                self._frame_rsp = None
                del open_traps[:-_MAX_OPEN]


def _close(open_traps: list[int | None], rsp: int) -> None:
    """Take off the traps that an iret to `rsp` in kernel mode ends."""
    for depth in range(len(open_traps) - 1, -1, -1):
        if open_traps[depth] == rsp:
            del open_traps[depth:]
            return
    del open_traps[-1:]


def place(vaddr: Vaddr, symbol: str | None) -> str:
    """An address with its name, if it has one."""
    return f"{symbol} <{vaddr:#x}>" if symbol else f"{vaddr:#x}"


def lines(event: TraceEvent) -> Iterator[str]:
    """The text of one event, the first line being what it is about."""
    match event:
        case TracedException():
            yield from _exception(event)
        case TracedTrapBounce():
            yield _STEP + _trap_bounce(event)
        case TracedBounceFrame():
            yield from _bounce_frame(event)
        case TracedHandler():
            yield f"{_STEP}handler: the return to the guest lands in {place(event.rip, event.symbol)}, {_whose(event)}"
        case TracedIret():
            mode = "user" if event.user_mode else "kernel"
            yield (
                f"{_STEP}iret: back to {mode} mode at {place(event.rip, event.symbol)}, cs {event.cs & 0xFFFF:04x}, "
                f"rflags {event.rflags_text}, rsp {event.rsp:#x}, upcall mask {event.upcall_mask}"
            )
        case TracedHypercall():
            arguments = [event.sub_op] if event.sub_op is not None else []
            arguments += [f"{name}={show(name, value)}" for name, value in event.decoded.items()]
            batch = "in the multicall: " if event.in_multicall else ""
            # From an iret nobody goes on.
            caller = "" if event.number == Hypercall.IRET else f" for {place(event.caller, event.symbol)}"
            yield f"hypercall {batch}{event.name}({', '.join(arguments)}){caller}"
        case TracedResult():
            out = "".join(f", {name}={show(name, value)}" for name, value in event.out.items())
            result = f"-{event.errno}" if event.errno else show("", event.result)
            yield f"{_STEP}{event.name} = {result}{out}"
        case TracedPending():
            news = "; the vcpu has an upcall pending now" if event.upcall else ""
            yield f"event channel: port {event.port} ({event.bound_to}) becomes pending{news}"
        case TracedUpcall():
            ports = ", ".join(f"{port.port} ({port.bound_to})" for port in event.ports) or "none"
            yield f"upcall: the mask is clear and ports are pending: {ports}; Xen does not call the guest"
        case TracedPrivileged():
            yield f"{_STEP}emulated by Xen at {place(event.rip, event.symbol)}: {event.text}; the guest sees nothing"
        case TracedFixup():
            yield (
                f"{_STEP}repaired by Xen: access to {event.cr2:#x} at {place(event.rip, event.symbol)}: {event.text}; "
                "the guest sees nothing"
            )
        case TracedConsole():
            yield f"console: {json.dumps(event.text, ensure_ascii=False)}"
        case TracedMemory():
            yield f"{_STEP}Xen wrote {event.length} bytes at maddr {event.maddr:#x}"
        case TracedShutdown():
            reason = f": {event.reason}" if event.reason else ""
            yield f"domain ends: SHUTDOWN_{event.name.lower()} ({event.code}){reason}"


def _exception(event: TracedException) -> Iterator[str]:
    long_name = _LONG_NAMES.get(Vector(event.vector)) if event.name.startswith("#") else None
    title = f"{event.name} {long_name}" if long_name else event.name
    instruction = event.instruction or "no readable instruction"
    yield f"{title} at {place(event.insn, event.symbol)}: {instruction}"
    allowed = f", so {instruction.partition(' ')[0]} may use it at CPL 3" if event.software else ""
    yield (
        f"{_STEP}gate: vector {event.vector} of Xen's IDT (a domain has none), DPL {event.gate_dpl}{allowed}; "
        f"it leads to {event.gate_selector:04x}:{event.gate_offset:x}, in Xen"
    )
    if event.rip != event.insn:
        yield f"{_STEP}the CPU pushed rip {event.rip:#x}, behind the instruction"
    if event.cr2 is not None:
        yield f"{_STEP}cr2 {place(event.cr2, event.cr2_symbol)}, error code {event.error_code:#x} ({event.error_text})"
    elif event.error_code is not None:
        yield f"{_STEP}error code {event.error_code:#x}{_refused(event)}"


def _refused(event: TracedException) -> str:
    """What an error code other than that of a page fault names."""
    if not event.error_text:
        return ""
    assert event.error_code is not None
    if event.vector == Vector.GP and event.error_code & SelectorErrorCode.IDT:
        return f": {event.error_text} does not let `int` pass at CPL 3"
    return f": {event.error_text}"


def _trap_bounce(event: TracedTrapBounce) -> str:
    source = "failsafe callback" if event.vector is None else f"trap table entry {event.vector}"
    if event.eip == 0:
        return f"trap_bounce: set for {event.name}, but the guest has no {source}"
    error_code = "no error code" if event.error_code is None else f"error_code {event.error_code:#x}"
    return (
        f"trap_bounce: set to {{{error_code}, flags {event.flags_text}, cs {event.cs:04x}, "
        f"eip {place(event.eip, event.symbol)}}}, the guest's {source}; Xen does not call the guest"
    )


def _bounce_frame(event: TracedBounceFrame) -> Iterator[str]:
    if event.cause in {"syscall", "sysenter"}:
        yield f"{event.cause} of user mode, behind it {place(event.rip, event.symbol)}; Xen does not call the guest"
    stack = "of stack_switch; page table and GS base change too" if event.switched_stack else "the one in use"
    yield (
        f"{_STEP}bounce frame: on the way back Xen rewrites the return: {len(event.words)} words at {event.sp:#x} "
        f"on the guest kernel's stack ({stack})"
    )
    for word in event.words:
        yield f"{_STEP * 2}{word.address:#x}  {word.name:<14} {word.value:016x}  {word.note}"


def _whose(event: TracedHandler) -> str:
    match event.cause:
        case "trap":
            return f"the guest's own handler of {event.name}"
        case "event":
            return "the guest's event callback"
        case cause:
            return f"the guest's {cause} callback"


def show(name: str, value: Value) -> str:
    """A decoded argument: numbers in hex unless they are small or counts, text in quotes, names as they are."""
    match value:
        case None:
            return "(not readable)"
        case bool() | int():
            decimal = abs(value) < _DECIMAL_LIMIT or name.endswith(_DECIMAL_SUFFIXES)
            return f"{value:d}" if decimal else f"{value:#x}"
        case GuestText():
            return json.dumps(value, ensure_ascii=False)
        case str():
            return value
        case list():
            return f"[{', '.join(show(name, element) for element in value)}]"
        case dict():
            return f"{{{', '.join(f'{key}={show(key, part)}' for key, part in value.items())}}}"
