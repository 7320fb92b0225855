"""From the hypervisor's events to the records of a trace.

A `Recorder` is an observer of a machine (`Hypervisor.observer`). For each event of a chosen kind it looks up what a
reader will want to know (symbols, the instruction, the meaning of arguments) and hands one `Record` to each sink. It
reads the guest's memory and changes nothing. An event that is not chosen costs one look into a dictionary.

Two things need more than one event:

* what a bounce frame is for is told by the `HandlerEntered` that always follows it at once: the frame is recorded then;
* what a hypercall has changed of its arguments is found by decoding them again when it returns.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from xdbg.abi.event_channel import EvtchnStat, Virq
from xdbg.abi.frames import Vaddr
from xdbg.abi.sched import Shutdown
from xdbg.abi.x86 import ERROR_CODE_VECTORS, Pfec, Rflags, SelectorErrorCode, Vector
from xdbg.machine.registers import GPR_NAMES, RSP
from xdbg.xen.domain import Domain
from xdbg.xen.events import (
    BounceFrame,
    ConsoleOutput,
    DomainShutdown,
    EventPending,
    ExceptionTaken,
    FaultFixedUp,
    HandlerEntered,
    HypercallDone,
    HypercallEntered,
    IretDone,
    MemoryWritten,
    PrivilegedOp,
    TrapBounceSet,
    Upcall,
    XenEvent,
)
from xdbg.xen.faults import GuestFault
from xdbg.xen.guest_access import copy_from_guest
from xdbg.xen.vcpu import TBF_EXCEPTION, TBF_EXCEPTION_ERRCODE, TBF_INTERRUPT, Vcpu

from .decode import Decoded, changed, decode_call, errno_name
from .disassembly import Disassembler, read_code
from .events import (
    DEFAULT_KINDS,
    FrameWord,
    PendingPort,
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
)
from .formats import Sink
from .structures import enum_name
from .symbols import Processes, Symbols, symbol_at

_FRAME_WORDS = ("rcx", "r11", "error code", "rip", "cs|saved mask", "rflags", "rsp", "ss")
_TBF_NAMES = ((TBF_EXCEPTION, "EXCEPTION"), (TBF_EXCEPTION_ERRCODE, "ERRCODE"), (TBF_INTERRUPT, "INTERRUPT"))
_SELECTOR_INDEX = ~7
_STUB_END = b"\x41\x5b\x59\xc3"
"""`pop %r11; pop %rcx; ret`: what follows the `syscall` in the hypercall page. Xen: pv_ring3_init_hypercall_page()."""
_STUB_PUSHED = 16
"""Bytes that a stub has pushed above the return address."""
_VECTORS = frozenset(int(vector) for vector in Vector)


@dataclass(frozen=True, slots=True)
class _OpenCall:
    """A hypercall that has not returned yet."""

    nr: int
    args: tuple[int, ...]
    decoded: Decoded


class Recorder:
    """Records the chosen kinds of events. Implements `xen.events.Observer`."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        kinds: Iterable[str] = DEFAULT_KINDS,
        *,
        kernel: Symbols | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._sinks = tuple(sinks)
        self._kernel = kernel
        self._processes = processes
        self._disassembler = Disassembler()
        self._frame: BounceFrame | None = None
        self._open_calls: dict[tuple[int, int], list[_OpenCall]] = {}
        chosen = frozenset(kinds)
        self._chosen = chosen
        # (kind, event, method). A frame needs the next event to be complete, so both go together.
        rows: tuple[tuple[bool, type, Callable[..., None]], ...] = (
            ("exception" in chosen, ExceptionTaken, self._exception),
            ("trap_bounce" in chosen, TrapBounceSet, self._trap_bounce),
            ("bounce_frame" in chosen, BounceFrame, self._bounce_frame),
            ("bounce_frame" in chosen or "handler" in chosen, HandlerEntered, self._handler),
            ("iret" in chosen, IretDone, self._iret),
            ("hypercall" in chosen, HypercallEntered, self._hypercall),
            ("hypercall" in chosen, HypercallDone, self._result),
            ("event" in chosen, EventPending, self._pending),
            ("upcall" in chosen, Upcall, self._upcall),
            ("privileged" in chosen, PrivilegedOp, self._privileged),
            ("fixup" in chosen, FaultFixedUp, self._fixup),
            ("console" in chosen, ConsoleOutput, self._console),
            ("memory" in chosen, MemoryWritten, self._memory),
            ("shutdown" in chosen, DomainShutdown, self._shutdown),
        )
        self._methods = {event: method for wanted, event, method in rows if wanted}

    def observe(self, vcpu: Vcpu, event: XenEvent) -> None:
        """Record the event, if it is of a chosen kind."""
        method = self._methods.get(type(event))
        if method is not None:
            method(vcpu, event)

    def _record(self, vcpu: Vcpu, event: TraceEvent, *, kernel_mode: bool | None = None) -> None:
        domain = vcpu.domain
        mode = vcpu.kernel_mode if kernel_mode is None else kernel_mode
        running = None if self._processes is None else self._processes.current(vcpu)
        pid = None if running is None else running.pid
        record = Record(domain.hv.cpu.count, domain.domid, vcpu.vcpu_id, mode, pid, event)
        for sink in self._sinks:
            sink.write(record)

    def _name(self, vcpu: Vcpu, vaddr: Vaddr, *, kernel_mode: bool = True) -> str | None:
        """The symbol of an address: of user mode in the process, then in the kernel, whose image may hold user code."""
        if kernel_mode or self._processes is None:
            return symbol_at(vaddr, self._kernel)
        running = self._processes.current(vcpu)
        return symbol_at(vaddr, running.symbols if running is not None else None, self._kernel)

    # -- the way of a trap

    def _exception(self, vcpu: Vcpu, event: ExceptionTaken) -> None:
        code = read_code(vcpu, event.insn)
        found = self._disassembler.text(code, event.insn)
        text, length = found if found is not None else (None, 0)
        has_error_code = event.vector in ERROR_CODE_VECTORS and not event.software
        kernel_mode = event.kernel_mode
        traced = TracedException(
            vector=event.vector,
            name=vector_name(event.vector),
            error_code=event.error_code if has_error_code else None,
            error_text=error_text(event.vector, event.error_code) if has_error_code else "",
            cr2=event.cr2,
            cr2_symbol=None if event.cr2 is None else self._name(vcpu, event.cr2, kernel_mode=kernel_mode),
            software=event.software,
            gate_dpl=event.gate_dpl,
            gate_selector=event.gate_selector,
            gate_offset=event.gate_offset,
            rip=event.rip,
            insn=event.insn,
            symbol=self._name(vcpu, event.insn, kernel_mode=kernel_mode),
            bytes=code[:length].hex(),
            instruction=text,
            registers=_registers(vcpu),
        )
        self._record(vcpu, traced, kernel_mode=kernel_mode)

    def _trap_bounce(self, vcpu: Vcpu, event: TrapBounceSet) -> None:
        vector = event.vector if event.vector >= 0 else None
        traced = TracedTrapBounce(
            vector=vector,
            name="failsafe" if vector is None else vector_name(vector),
            error_code=event.error_code,
            flags=event.flags,
            flags_text="|".join(name for bit, name in _TBF_NAMES if event.flags & bit) or "0",
            cs=event.cs,
            eip=event.eip,
            symbol=self._name(vcpu, event.eip) if event.eip else None,
        )
        self._record(vcpu, traced)

    def _bounce_frame(self, vcpu: Vcpu, event: BounceFrame) -> None:
        del vcpu
        self._frame = event

    def _handler(self, vcpu: Vcpu, event: HandlerEntered) -> None:
        frame, self._frame = self._frame, None
        if frame is not None:
            self._record(vcpu, self._traced_frame(vcpu, frame, event))
        if "handler" in self._chosen:
            name = event.kind if event.vector is None else vector_name(event.vector)
            traced = TracedHandler(event.kind, event.vector, name, event.rip, self._name(vcpu, event.rip))
            self._record(vcpu, traced)

    def _traced_frame(self, vcpu: Vcpu, frame: BounceFrame, entered: HandlerEntered) -> TracedBounceFrame:
        names = _FRAME_WORDS if frame.has_error_code else (*_FRAME_WORDS[:2], *_FRAME_WORDS[3:])
        rip = Vaddr(frame.words[-5])
        symbol = self._name(vcpu, rip, kernel_mode=not frame.switched_stack)
        words = []
        for index, (name, value) in enumerate(zip(names, frame.words, strict=True)):
            note = ""
            match name:
                case "error code" if entered.vector is not None:
                    note = error_text(entered.vector, value)
                case "rip":
                    note = symbol or ""
                case "cs|saved mask":
                    note = f"cs {value & 0xFFFF:04x}, upcall mask {value >> 32 & 0xFF}"
                case "rflags":
                    note = Rflags.names_in(value)
            words.append(FrameWord(Vaddr(frame.sp + 8 * index), name, value, note))
        return TracedBounceFrame(
            entered.kind, entered.vector, frame.sp, frame.switched_stack, rip, symbol, tuple(words)
        )

    def _iret(self, vcpu: Vcpu, event: IretDone) -> None:
        traced = TracedIret(
            rip=event.rip,
            symbol=self._name(vcpu, event.rip, kernel_mode=not event.user_mode),
            cs=event.cs,
            rflags=event.rflags,
            rflags_text=Rflags.names_in(event.rflags),
            rsp=event.rsp,
            ss=event.ss,
            user_mode=event.user_mode,
            upcall_mask=event.upcall_mask,
        )
        self._record(vcpu, traced, kernel_mode=not event.user_mode)

    # -- hypercalls

    def _hypercall(self, vcpu: Vcpu, event: HypercallEntered) -> None:
        calls = self._open_calls.setdefault((vcpu.domain.domid, vcpu.vcpu_id), [])
        if not event.in_multicall:
            # One that changed the flow, or whose domain crashed in it, never returned.
            calls.clear()
        decoded = decode_call(event.nr, event.args, partial(_read, vcpu))
        calls.append(_OpenCall(event.nr, event.args, decoded))
        caller = _caller(vcpu)
        traced = TracedHypercall(
            number=event.nr,
            name=decoded.name,
            sub_op=decoded.sub_op,
            args=event.args,
            decoded=decoded.args,
            in_multicall=event.in_multicall,
            caller=caller,
            symbol=self._name(vcpu, caller),
        )
        self._record(vcpu, traced)

    def _result(self, vcpu: Vcpu, event: HypercallDone) -> None:
        calls = self._open_calls.get((vcpu.domain.domid, vcpu.vcpu_id))
        before = calls.pop() if calls else None
        if before is None or before.nr != event.nr:
            # The trace began inside the call: nobody knows what was there before.
            decoded = decode_call(event.nr, event.args, partial(_read, vcpu))
            out = {}
        else:
            decoded = decode_call(event.nr, before.args, partial(_read, vcpu))
            out = changed(before.decoded.args, decoded.args)
        traced = TracedResult(
            number=event.nr,
            name=decoded.name,
            sub_op=decoded.sub_op,
            result=event.result,
            errno=errno_name(event.result),
            out=out,
            in_multicall=event.in_multicall,
        )
        self._record(vcpu, traced)

    # -- event channels

    def _pending(self, vcpu: Vcpu, event: EventPending) -> None:
        self._record(vcpu, TracedPending(event.port, bound_to(vcpu.domain, event.port), event.upcall))

    def _upcall(self, vcpu: Vcpu, event: Upcall) -> None:
        ports = tuple(PendingPort(port, bound_to(vcpu.domain, port)) for port in event.ports)
        self._record(vcpu, TracedUpcall(ports))

    # -- what Xen does itself

    def _privileged(self, vcpu: Vcpu, event: PrivilegedOp) -> None:
        symbol = self._name(vcpu, event.rip, kernel_mode=vcpu.kernel_mode)
        self._record(vcpu, TracedPrivileged(event.rip, symbol, event.text))

    def _fixup(self, vcpu: Vcpu, event: FaultFixedUp) -> None:
        symbol = self._name(vcpu, event.rip, kernel_mode=vcpu.kernel_mode)
        self._record(vcpu, TracedFixup(event.rip, symbol, event.cr2, event.text))

    def _console(self, vcpu: Vcpu, event: ConsoleOutput) -> None:
        self._record(vcpu, TracedConsole(event.data.decode("utf-8", "backslashreplace")))

    def _memory(self, vcpu: Vcpu, event: MemoryWritten) -> None:
        self._record(vcpu, TracedMemory(event.maddr, event.length))

    def _shutdown(self, vcpu: Vcpu, event: DomainShutdown) -> None:
        self._record(vcpu, TracedShutdown(event.code, enum_name(Shutdown, event.code), event.reason))


def vector_name(vector: int) -> str:
    """What a vector is called: "#BP", or "vector 128" where there is no name."""
    known = vector in _VECTORS
    return f"#{Vector(vector).name}" if known else f"vector {vector}"


def error_text(vector: int, error_code: int) -> str:
    """The bits of a page fault's error code, or what a selector's error code names; empty for 0."""
    if vector == Vector.PF:
        return Pfec.names_in(error_code)
    if error_code == 0:
        return ""
    index = (error_code & _SELECTOR_INDEX) >> 3
    external = ", external" if error_code & SelectorErrorCode.EXT else ""
    if error_code & SelectorErrorCode.IDT:
        return f"gate {index} of the IDT{external}"
    table = "LDT" if error_code & SelectorErrorCode.TI else "GDT"
    return f"selector {error_code & _SELECTOR_INDEX:#x} of the {table}{external}"


def bound_to(domain: Domain, number: int) -> str:
    """What a port is for: "VIRQ TIMER", "IPI", "console of domain 0", ..."""
    ports = domain.event_channels.ports
    if number >= len(ports):
        return "no port"
    port = ports[number]
    match port.state:
        case EvtchnStat.VIRQ:
            return f"VIRQ {enum_name(Virq, port.virq)}"
        case EvtchnStat.INTERDOMAIN if port.backend is not None:
            return f"{port.backend} of domain {port.remote_domid}"
        case EvtchnStat.INTERDOMAIN:
            return f"port {port.remote_port} of domain {port.remote_domid}"
        case EvtchnStat.UNBOUND:
            return f"unbound, for domain {port.remote_domid}"
        case _:
            return port.state.name


def _registers(vcpu: Vcpu) -> dict[str, int]:
    """The registers of the current vcpu, by name."""
    cpu = vcpu.domain.hv.cpu
    registers = dict(zip(GPR_NAMES, cpu.gpr, strict=True))
    return {**registers, "rflags": cpu.rflags, "cs": cpu.cs, "ss": cpu.ss}


def _caller(vcpu: Vcpu) -> Vaddr:
    """Where a hypercall returns to: behind the `syscall`, or behind the call of a stub of the hypercall page."""
    cpu = vcpu.domain.hv.cpu
    rip = Vaddr(cpu.rip)
    if _read(vcpu, rip, len(_STUB_END)) != _STUB_END:
        return rip
    returns_to = _read(vcpu, cpu.gpr[RSP] + _STUB_PUSHED, 8)
    return rip if returns_to is None else Vaddr(int.from_bytes(returns_to, "little"))


def _read(vcpu: Vcpu, vaddr: int, length: int) -> bytes | None:
    """What Xen would read at a guest's pointer."""
    try:
        return copy_from_guest(vcpu, vaddr, length)
    except GuestFault:
        return None
