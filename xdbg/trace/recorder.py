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

from xdbg.abi.frames import Vaddr
from xdbg.abi.sched import Shutdown
from xdbg.abi.x86 import Rflags
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
from xdbg.xen.vcpu import TBF_EXCEPTION, TBF_EXCEPTION_ERRCODE, TBF_INTERRUPT, Vcpu

from .decode import Decoded, changed, errno_name
from .describing import Describer, bound_to, error_text, upcall, vector_name
from .events import (
    DEFAULT_KINDS,
    FrameWord,
    Record,
    TracedBounceFrame,
    TracedConsole,
    TracedFixup,
    TracedHandler,
    TracedIret,
    TracedMemory,
    TracedPending,
    TracedPrivileged,
    TracedResult,
    TracedShutdown,
    TracedTrapBounce,
    TraceEvent,
)
from .formats import Sink
from .structures import enum_name
from .symbols import Processes, Symbols

_FRAME_WORDS = ("rcx", "r11", "error code", "rip", "cs|saved mask", "rflags", "rsp", "ss")
_TBF_NAMES = ((TBF_EXCEPTION, "EXCEPTION"), (TBF_EXCEPTION_ERRCODE, "ERRCODE"), (TBF_INTERRUPT, "INTERRUPT"))


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
        self._describe = Describer(kernel, processes)
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
        pid = self._describe.pid(vcpu)
        record = Record(domain.hv.cpu.count, domain.domid, vcpu.vcpu_id, mode, pid, event)
        for sink in self._sinks:
            sink.write(record)

    # -- the way of a trap

    def _exception(self, vcpu: Vcpu, event: ExceptionTaken) -> None:
        self._record(vcpu, self._describe.exception(vcpu, event), kernel_mode=event.kernel_mode)

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
            symbol=self._describe.name(vcpu, event.eip) if event.eip else None,
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
            traced = TracedHandler(event.kind, event.vector, name, event.rip, self._describe.name(vcpu, event.rip))
            self._record(vcpu, traced)

    def _traced_frame(self, vcpu: Vcpu, frame: BounceFrame, entered: HandlerEntered) -> TracedBounceFrame:
        names = _FRAME_WORDS if frame.has_error_code else (*_FRAME_WORDS[:2], *_FRAME_WORDS[3:])
        rip = Vaddr(frame.words[-5])
        symbol = self._describe.name(vcpu, rip, kernel_mode=not frame.switched_stack)
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
            symbol=self._describe.name(vcpu, event.rip, kernel_mode=not event.user_mode),
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
        decoded = self._describe.call(vcpu, event.nr, event.args)
        calls.append(_OpenCall(event.nr, event.args, decoded))
        behind = Vaddr(vcpu.domain.hv.cpu.rip)
        traced = self._describe.hypercall(vcpu, event.nr, event.args, behind, decoded, in_multicall=event.in_multicall)
        self._record(vcpu, traced)

    def _result(self, vcpu: Vcpu, event: HypercallDone) -> None:
        calls = self._open_calls.get((vcpu.domain.domid, vcpu.vcpu_id))
        before = calls.pop() if calls else None
        if before is None or before.nr != event.nr:
            # The trace began inside the call: nobody knows what was there before.
            decoded = self._describe.call(vcpu, event.nr, event.args)
            out = {}
        else:
            decoded = self._describe.call(vcpu, event.nr, before.args)
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
        self._record(vcpu, upcall(vcpu.domain, event.ports))

    # -- what Xen does itself

    def _privileged(self, vcpu: Vcpu, event: PrivilegedOp) -> None:
        symbol = self._describe.name(vcpu, event.rip, kernel_mode=vcpu.kernel_mode)
        self._record(vcpu, TracedPrivileged(event.rip, symbol, event.text))

    def _fixup(self, vcpu: Vcpu, event: FaultFixedUp) -> None:
        symbol = self._describe.name(vcpu, event.rip, kernel_mode=vcpu.kernel_mode)
        self._record(vcpu, TracedFixup(event.rip, symbol, event.cr2, event.text))

    def _console(self, vcpu: Vcpu, event: ConsoleOutput) -> None:
        self._record(vcpu, TracedConsole(event.data.decode("utf-8", "backslashreplace")))

    def _memory(self, vcpu: Vcpu, event: MemoryWritten) -> None:
        self._record(vcpu, TracedMemory(event.maddr, event.length))

    def _shutdown(self, vcpu: Vcpu, event: DomainShutdown) -> None:
        self._record(vcpu, TracedShutdown(event.code, enum_name(Shutdown, event.code), event.reason))
