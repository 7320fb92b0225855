"""What a reader will want to know of an event: symbols, the instruction, the meaning of arguments.

Both who records events and who stops at them describe them by this. Nothing here changes the guest.
"""

from collections.abc import Sequence
from functools import partial

from xdbg.abi.event_channel import EvtchnStat, Virq
from xdbg.abi.frames import Vaddr
from xdbg.abi.x86 import ERROR_CODE_VECTORS, Pfec, SelectorErrorCode, Vector
from xdbg.machine.registers import GPR_NAMES, RSP
from xdbg.xen.domain import Domain
from xdbg.xen.events import ExceptionTaken
from xdbg.xen.faults import GuestFault
from xdbg.xen.guest_access import copy_from_guest
from xdbg.xen.vcpu import Vcpu

from .decode import Decoded, commands_in, decode_call
from .disassembly import Disassembler, read_code
from .events import PendingPort, TracedException, TracedHypercall, TracedUpcall
from .structures import enum_name
from .symbols import Processes, Symbols, symbol_at

_SELECTOR_INDEX = ~7
_STUB_END = b"\x41\x5b\x59\xc3"
"""`pop %r11; pop %rcx; ret`: what follows the `syscall` in the hypercall page. Xen: pv_ring3_init_hypercall_page()."""
_STUB_PUSHED = 16
"""Bytes that a stub has pushed above the return address."""
_LONGEST_FUNCTION = 1 << 16
"""Bytes in which an instruction is looked for."""
_VECTORS = frozenset(int(vector) for vector in Vector)


class Describer:
    """Knows the symbols of the kernel and of processes, where there are any."""

    def __init__(self, kernel: Symbols | None = None, processes: Processes | None = None) -> None:
        self._kernel = kernel
        self._processes = processes
        self._disassembler = Disassembler()

    def pid(self, vcpu: Vcpu) -> int | None:
        """The process that the vcpu runs, in user mode or in the kernel on its behalf; None: none, or unknown."""
        running = None if self._processes is None else self._processes.current(vcpu)
        return None if running is None else running.pid

    def name(self, vcpu: Vcpu, vaddr: Vaddr, *, kernel_mode: bool = True) -> str | None:
        """The symbol of an address: of user mode in the process, then in the kernel, whose image may hold user code."""
        if kernel_mode or self._processes is None:
            return symbol_at(vaddr, self._kernel)
        running = self._processes.current(vcpu)
        return symbol_at(vaddr, running.symbols if running is not None else None, self._kernel)

    def exception(self, vcpu: Vcpu, event: ExceptionTaken) -> TracedException:
        """An exception that the CPU has taken, or is about to take."""
        code = read_code(vcpu, event.insn)
        found = self._disassembler.text(code, event.insn, is_64bit=vcpu.domain.hv.cpu.is_64bit)
        text, length = found if found is not None else (None, 0)
        has_error_code = event.vector in ERROR_CODE_VECTORS and not event.software
        kernel_mode = event.kernel_mode
        return TracedException(
            vector=event.vector,
            name=vector_name(event.vector),
            error_code=event.error_code if has_error_code else None,
            error_text=error_text(event.vector, event.error_code) if has_error_code else "",
            cr2=event.cr2,
            cr2_symbol=None if event.cr2 is None else self.name(vcpu, event.cr2, kernel_mode=kernel_mode),
            software=event.software,
            gate_dpl=event.gate_dpl,
            gate_selector=event.gate_selector,
            gate_offset=event.gate_offset,
            rip=event.rip,
            insn=event.insn,
            symbol=self.name(vcpu, event.insn, kernel_mode=kernel_mode),
            bytes=code[:length].hex(),
            instruction=text,
            registers=_registers(vcpu),
        )

    def call(self, vcpu: Vcpu, nr: int, args: tuple[int, ...]) -> Decoded:
        """A hypercall in words, as its arguments are now."""
        return decode_call(nr, args, partial(read_guest, vcpu))

    def commands(self, vcpu: Vcpu, nr: int, args: tuple[int, ...]) -> Sequence[int]:
        """The sub-operations that a hypercall asks for."""
        return commands_in(nr, args, partial(read_guest, vcpu))

    def hypercall(
        self, vcpu: Vcpu, nr: int, args: tuple[int, ...], behind: Vaddr, decoded: Decoded, *, in_multicall: bool
    ) -> TracedHypercall:
        """A hypercall that begins. `behind`: where its `syscall` ends."""
        caller = _caller(vcpu, behind)
        return TracedHypercall(
            number=nr,
            name=decoded.name,
            sub_op=decoded.sub_op,
            args=args,
            decoded=decoded.args,
            in_multicall=in_multicall,
            caller=caller,
            symbol=self.name(vcpu, caller),
        )

    def instruction_before(self, vcpu: Vcpu, rip: int) -> tuple[Vaddr, str] | None:
        """The instruction that ends at `rip`, and its text.

        It is found by going from instruction to instruction from the beginning of the function on. None without a
        symbol, or when none ends there.
        """
        name = self.name(vcpu, Vaddr(rip - 1), kernel_mode=vcpu.kernel_mode)
        if name is None:
            return None
        at = Vaddr(rip - 1 - int(name.rpartition("+")[2], 16)) if "+" in name else Vaddr(rip - 1)
        if rip - at > _LONGEST_FUNCTION:
            return None
        while at < rip:
            found = self._disassembler.text(read_code(vcpu, at), at, is_64bit=vcpu.domain.hv.cpu.is_64bit)
            if found is None:
                return None
            text, length = found
            if at + length == rip:
                return at, text
            at = Vaddr(at + length)
        return None


def upcall(domain: Domain, ports: Sequence[int]) -> TracedUpcall:
    """An upcall for these ports."""
    return TracedUpcall(tuple(PendingPort(port, bound_to(domain, port)) for port in ports))


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


def _caller(vcpu: Vcpu, rip: Vaddr) -> Vaddr:
    """Where a hypercall returns to: behind the `syscall`, or behind the call of a stub of the hypercall page."""
    cpu = vcpu.domain.hv.cpu
    if read_guest(vcpu, rip, len(_STUB_END)) != _STUB_END:
        return rip
    returns_to = read_guest(vcpu, cpu.gpr[RSP] + _STUB_PUSHED, 8)
    return rip if returns_to is None else Vaddr(int.from_bytes(returns_to, "little"))


def read_guest(vcpu: Vcpu, vaddr: int, length: int) -> bytes | None:
    """What Xen would read at a guest's pointer."""
    try:
        return copy_from_guest(vcpu, vaddr, length)
    except GuestFault:
        return None
