"""Privileged instructions of a guest kernel: at CPL 3 a #GP, which Xen emulates. Xen: arch/x86/pv/emul-priv-op.c.

Port instructions as far as virtual IOPL and I/O bitmap allow (`io_ports`), cli and sti by IOPL (no effect: a PV guest
masks by its upcall mask), clts, wbinvd, mov to and from CR0-CR4 and DR0-DR7, rdmsr and wrmsr (`msr`), rdtsc, rdtscp,
cpuid. Anything else is the guest's own #GP, and so is all but ports, cli, sti and cpuid in user mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn, Vaddr
from xdbg.abi.x86 import Cr0, Cr4, Pfec, Vector
from xdbg.machine.registers import CS, DS, ES, FS, GS, RAX, RBX, RCX, RDX, SS

from . import debugreg, io_ports, mm, msr, pv_state
from .cpuid import guest_cpuid
from .emulate import instruction_done
from .entry import inject, inject_page_fault
from .events import PrivilegedOp
from .faults import GuestFault, HypercallError
from .guest_access import copy_from_guest
from .vcpu import CR4_VISIBLE, Vcpu

_LONGEST: Final = 15
_U32: Final = 0xFFFF_FFFF
_LEGACY_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_OVERRIDES: Final = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
"""Segment override prefixes."""
_GUEST_CR4: Final = int(Cr4.TSD | Cr4.DE)
"""What a guest may choose for itself; FSGSBASE and OSXSAVE the processor does not have."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A decoded privileged instruction: opcode without prefixes, what the prefixes say, ModRM or immediate, length."""

    opcode: bytes
    prefixes: bytes
    rex: int
    operand: int
    length: int

    @property
    def reg(self) -> int:
        """The register that ModRM.reg names: number of the control or debug register."""
        return (self.operand >> 3) & 7 | (self.rex & 4) << 1

    @property
    def rm(self) -> int:
        """The general register that ModRM.rm names."""
        return self.operand & 7 | (self.rex & 1) << 3


@dataclass(frozen=True, slots=True)
class Done:
    """The instruction was carried out; `text` says which. `again`: it is repeated, and not at its end."""

    text: str
    dr6: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Raise:
    """It raises this in the guest."""

    vector: int


Emulator = Callable[[Vcpu, Instruction], "Done | Raise | None"]
"""Carries an instruction out; None: it is the guest's #GP."""


def fixup_guest_cr4(value: int) -> int:
    """What CR4 becomes when a guest wants it to be `value`. Xen: pv_fixup_guest_cr4()."""
    return value & _GUEST_CR4 | CR4_VISIBLE


def emulate_privileged_op(vcpu: Vcpu) -> bool:
    """Whether Xen dealt with the instruction at rip. Xen: pv_emulate_privileged_op()."""
    hv = vcpu.domain.hv
    rip = hv.cpu.rip
    instruction = decode(_fetch(vcpu, rip))
    if instruction is None:
        return False
    emulator = EMULATORS.get(instruction.opcode)
    if emulator is None or not (vcpu.kernel_mode or instruction.opcode in _IN_USER_MODE):
        return False
    try:
        outcome = emulator(vcpu, instruction)
    except io_ports.StringFault as fault:
        # An emulator has no more to say of it: the page may be there. Xen: x86_emul_pagefault().
        inject_page_fault(vcpu, Pfec.WRITE_ACCESS if fault.write else 0, fault.vaddr)
        return True
    match outcome:
        case None:
            return False
        case Raise(vector):
            inject(vcpu, vector, None)
        case Done(text, dr6, again):
            instruction_done(vcpu, rip if again else rip + instruction.length, dr6)
            if hv.observer is not None:
                hv.observer.observe(vcpu, PrivilegedOp(Vaddr(rip), text))
    return True


def _fetch(vcpu: Vcpu, rip: int) -> bytes:
    """As many bytes of the instruction as can be read, at most 15."""
    try:
        return copy_from_guest(vcpu, rip, _LONGEST)
    except GuestFault as fault:
        readable = fault.vaddr - rip
        return copy_from_guest(vcpu, rip, readable) if readable > 0 else b""


def decode(code: bytes) -> Instruction | None:
    """Prefixes, opcode, ModRM and immediate of an instruction that `EMULATORS` knows; None for any other."""
    at = rex = 0
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        at += 1
    prefixes = code[:at]
    if at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    for size in (1, 2, 3):
        opcode = code[at : at + size]
        if len(opcode) == size and opcode in EMULATORS:
            at += size
            needed = opcode in _WITH_OPERAND
            if at + needed > len(code):
                return None
            return Instruction(opcode, prefixes, rex, code[at] if needed else 0, at + needed)
    return None


def _in_out(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    opcode = instruction.opcode[0]
    is_string = opcode < 0x70
    prefixes = instruction.prefixes
    result = io_ports.access(
        vcpu,
        io_ports.PortAccess(
            port=io_ports.port_in_dx(vcpu) if opcode & 8 else instruction.operand,
            size=1 if not opcode & 1 else 2 if 0x66 in prefixes and not instruction.rex & 8 else 4,
            write=bool(opcode & 2),
            is_string=is_string,
            repeated=is_string and (0xF2 in prefixes or 0xF3 in prefixes),
            address_size=_address_size(vcpu, prefixes),
            segment=_string_segment(vcpu, prefixes, write=bool(opcode & 2)),
        ),
    )
    if result is None:
        return None
    text, hit, done = result
    return Done(text, hit, again=not done)


def _address_size(vcpu: Vcpu, prefixes: bytes) -> int:
    return (8 if vcpu.domain.hv.cpu.is_64bit else 4) // (2 if 0x67 in prefixes else 1)


def _string_segment(vcpu: Vcpu, prefixes: bytes, *, write: bool) -> int | None:
    """The segment register of the operand in memory of `outs` (`write`) or `ins`, if it has a base."""
    is_64bit = vcpu.domain.hv.cpu.is_64bit
    if not write:
        return None if is_64bit else ES
    segments = [_OVERRIDES[prefix] for prefix in prefixes if prefix in _OVERRIDES]
    segment = segments[-1] if segments else DS
    return segment if segment in (FS, GS) or not is_64bit else None


def _cli_sti(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    if not io_ports.iopl_ok(vcpu):
        return None
    return Done("cli, ignored" if instruction.opcode == b"\xfa" else "sti, ignored")


def _clts(vcpu: Vcpu, instruction: Instruction) -> Done:
    pv_state.do_fpu_taskswitch(vcpu, 0)
    return Done("clts")


def _wbinvd(vcpu: Vcpu, instruction: Instruction) -> Done:
    return Done("wbinvd, ignored")


def _read_cr(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    match instruction.reg:
        case 0:
            value = vcpu.cr0
        case 2:
            value = int(vcpu.cr2)
        case 3:
            value = vcpu.kernel_cr3
        case 4:
            value = vcpu.cr4
        case _:
            return None
    vcpu.domain.hv.cpu.gpr[instruction.rm] = value
    return Done(f"read cr{instruction.reg} = {value:#x}")


def _write_cr(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    hv = vcpu.domain.hv
    value = hv.cpu.gpr[instruction.rm]
    match instruction.reg:
        case 0:
            if (value ^ vcpu.cr0) & ~Cr0.TS:
                return None
            pv_state.do_fpu_taskswitch(vcpu, value & Cr0.TS)
        case 2:
            vcpu.cr2 = Vaddr(value)
            hv.set_guest_cr2(vcpu, Vaddr(value))
        case 3:
            try:
                mm.new_guest_cr3(vcpu, Mfn(value >> 12))
            except HypercallError:
                return None
        case 4:
            vcpu.cr4 = fixup_guest_cr4(value)
            hv.cpu.rdtsc_allowed = not vcpu.cr4 & Cr4.TSD
        case _:
            return None
    return Done(f"write cr{instruction.reg} = {value:#x}")


def _read_dr(vcpu: Vcpu, instruction: Instruction) -> Done | Raise:
    number = instruction.reg
    try:
        value = debugreg.read_debugreg(vcpu, number)
    except HypercallError:
        return Raise(Vector.UD)
    vcpu.domain.hv.cpu.gpr[instruction.rm] = value
    return Done(f"read dr{number} = {value:#x}")


def _write_dr(vcpu: Vcpu, instruction: Instruction) -> Done | Raise | None:
    number = instruction.reg
    value = vcpu.domain.hv.cpu.gpr[instruction.rm]
    try:
        debugreg.set_debugreg(vcpu, number, value)
    except HypercallError as error:
        return Raise(Vector.UD) if error.errno == Errno.ENODEV else None
    return Done(f"write dr{number} = {value:#x}")


def _rdmsr(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    gpr = vcpu.domain.hv.cpu.gpr
    number = gpr[RCX] & _U32
    value = msr.read_msr(vcpu, number)
    if value is None:
        return None
    gpr[RAX] = value & _U32
    gpr[RDX] = value >> 32
    return Done(f"rdmsr {number:#x} = {value:#x}")


def _wrmsr(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    gpr = vcpu.domain.hv.cpu.gpr
    number = gpr[RCX] & _U32
    value = (gpr[RDX] & _U32) << 32 | gpr[RAX] & _U32
    return Done(f"wrmsr {number:#x} = {value:#x}") if msr.write_msr(vcpu, number, value) else None


def _rdtsc(vcpu: Vcpu, instruction: Instruction) -> Done:
    hv = vcpu.domain.hv
    value = hv.now()
    hv.cpu.gpr[RAX] = value & _U32
    hv.cpu.gpr[RDX] = value >> 32
    return Done(f"rdtsc = {value:#x}")


def _rdtscp(vcpu: Vcpu, instruction: Instruction) -> Done:
    vcpu.domain.hv.cpu.gpr[RCX] = vcpu.tsc_aux
    return Done(_rdtsc(vcpu, instruction).text.replace("rdtsc", "rdtscp"))


def _cpuid(vcpu: Vcpu, instruction: Instruction) -> Done | None:
    if vcpu.cpuid_faulting and not vcpu.kernel_mode:
        return None
    gpr = vcpu.domain.hv.cpu.gpr
    leaf = gpr[RAX] & _U32
    gpr[RAX], gpr[RBX], gpr[RCX], gpr[RDX] = guest_cpuid(vcpu, leaf, gpr[RCX] & _U32)
    return Done(f"cpuid leaf {leaf:#x}")


_PORTS: Final = tuple(bytes([opcode]) for opcode in (*range(0x6C, 0x70), *range(0xE4, 0xE8), *range(0xEC, 0xF0)))

EMULATORS: Final[dict[bytes, Emulator]] = {
    **dict.fromkeys(_PORTS, _in_out),
    b"\xfa": _cli_sti,
    b"\xfb": _cli_sti,
    b"\x0f\x06": _clts,
    b"\x0f\x09": _wbinvd,
    b"\x0f\x20": _read_cr,
    b"\x0f\x21": _read_dr,
    b"\x0f\x22": _write_cr,
    b"\x0f\x23": _write_dr,
    b"\x0f\x30": _wrmsr,
    b"\x0f\x31": _rdtsc,
    b"\x0f\x32": _rdmsr,
    b"\x0f\xa2": _cpuid,
    b"\x0f\x01\xf9": _rdtscp,
}
"""Opcode -> what Xen does with it."""

_IN_USER_MODE: Final = frozenset(
    opcode for opcode, emulator in EMULATORS.items() if emulator in {_in_out, _cli_sti, _cpuid}
)
_WITH_OPERAND: Final = frozenset(
    {b"\x0f\x20", b"\x0f\x21", b"\x0f\x22", b"\x0f\x23", b"\xe4", b"\xe5", b"\xe6", b"\xe7"}
)
"""Those with a ModRM byte or an immediate."""
