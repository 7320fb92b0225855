"""Privileged instructions of a guest kernel: at CPL 3 a #GP, which Xen emulates. Xen: arch/x86/pv/emul-priv-op.c.

Done here: in/out as far as the virtual IOPL allows (there is no hardware behind: reads are all ones), cli and sti (no
effect: a PV guest masks by its upcall mask), clts, wbinvd, mov to and from CR0-CR4 and DR0-DR7, rdmsr, wrmsr, rdtsc,
rdtscp, cpuid. Anything else, and everything but I/O, cli and sti from user mode, is the guest's own #GP.
"""

from collections.abc import Callable
from dataclasses import dataclass

from xdbg.abi.frames import Mfn, Vaddr
from xdbg.abi.x86 import Cr0, Cr4, Efer, Msr, Rflags, Vector
from xdbg.machine.registers import RAX, RBX, RCX, RDX

from . import mm, pv_state
from .callback import is_canonical
from .cpuid import cpuid
from .events import PrivilegedOp
from .faults import GuestFault, HypercallError
from .guest_access import copy_from_guest
from .vcpu import Vcpu

_LONGEST = 15
_U32 = 0xFFFF_FFFF
_U64 = (1 << 64) - 1
_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_XEN_PAT = 0x0000_0501_0007_0406
_GUEST_CR4 = Cr4.DE | Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
"""What mov from CR4 shows whatever the guest wrote: the features that it has."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A decoded privileged instruction: its opcode without prefixes, REX, operand size, ModRM and length."""

    opcode: bytes
    rex: int
    operand16: bool
    modrm: int
    immediate: int
    length: int

    @property
    def reg(self) -> int:
        """The register that ModRM.reg names: number of the control or debug register."""
        return (self.modrm >> 3) & 7 | (self.rex & 4) << 1

    @property
    def rm(self) -> int:
        """The general register that ModRM.rm names."""
        return self.modrm & 7 | (self.rex & 1) << 3


Emulator = Callable[[Vcpu, Instruction], str | None]
"""Carries an instruction out and says what it was; None: it is the guest's #GP."""


def emulate_privileged_op(vcpu: Vcpu) -> bool:
    """Whether the instruction at rip was emulated; rip is then behind it. Xen: pv_emulate_privileged_op()."""
    hv = vcpu.domain.hv
    cpu = hv.cpu
    rip = cpu.rip
    instruction = decode(_fetch(vcpu, rip))
    if instruction is None:
        return False
    emulator = EMULATORS.get(instruction.opcode)
    if emulator is None or not (vcpu.kernel_mode or instruction.opcode in _BY_IOPL):
        return False
    text = emulator(vcpu, instruction)
    if text is None:
        return False
    cpu.rip = rip + instruction.length
    rflags = cpu.rflags
    if rflags & Rflags.RF:
        cpu.rflags = rflags & ~Rflags.RF
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
    operand16 = False
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        operand16 |= code[at] == 0x66
        at += 1
    if at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    for size in (1, 2, 3):
        opcode = code[at : at + size]
        if len(opcode) == size and opcode in EMULATORS:
            at += size
            needed = (opcode in _WITH_MODRM) + (opcode in _WITH_IMMEDIATE)
            if at + needed > len(code):
                return None
            operand = code[at] if needed else 0
            return Instruction(opcode, rex, operand16, operand, operand, at + needed)
    return None


def _io_ok(vcpu: Vcpu, port: int, size: int) -> bool:
    """Whether the guest may touch these ports: by IOPL, or by its I/O bitmap. Xen: guest_io_okay()."""
    if vcpu.iopl >= (1 if vcpu.kernel_mode else 3):
        return True
    if not vcpu.io_bitmap or port + size > vcpu.io_bitmap_ports:
        return False
    try:
        bits = int.from_bytes(copy_from_guest(vcpu, vcpu.io_bitmap + port // 8, 2), "little")
    except GuestFault:
        return False
    return not (bits >> (port & 7)) & ((1 << size) - 1)


def _in_out(vcpu: Vcpu, instruction: Instruction) -> str | None:
    opcode = instruction.opcode[0]
    gpr = vcpu.domain.hv.cpu.gpr
    port = gpr[RDX] & 0xFFFF if opcode & 8 else instruction.immediate
    size = 1 if not opcode & 1 else 2 if instruction.operand16 else 4
    if not _io_ok(vcpu, port, size):
        return None
    if opcode & 2:
        return f"out port {port:#x}, {size} bytes"
    ones = (1 << 8 * size) - 1
    gpr[RAX] = ones if size == 4 else gpr[RAX] & ~ones & _U64 | ones
    return f"in port {port:#x}, {size} bytes"


def _cli_sti(vcpu: Vcpu, instruction: Instruction) -> str | None:
    if vcpu.iopl < (1 if vcpu.kernel_mode else 3):
        return None
    return "cli, ignored" if instruction.opcode == b"\xfa" else "sti, ignored"


def _clts(vcpu: Vcpu, instruction: Instruction) -> str:
    pv_state.do_fpu_taskswitch(vcpu, 0)
    return "clts"


def _wbinvd(vcpu: Vcpu, instruction: Instruction) -> str:
    return "wbinvd, ignored"


def _read_cr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    match instruction.reg:
        case 0:
            value = vcpu.cr0
        case 2:
            value = vcpu.domain.hv.guest_cr2(vcpu)
        case 3:
            value = vcpu.kernel_cr3
        case 4:
            value = vcpu.cr4 | _GUEST_CR4
        case _:
            return None
    vcpu.domain.hv.cpu.gpr[instruction.rm] = value
    return f"read cr{instruction.reg} = {value:#x}"


def _write_cr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    value = vcpu.domain.hv.cpu.gpr[instruction.rm]
    match instruction.reg:
        case 0:
            if (value ^ vcpu.cr0) & ~Cr0.TS & _U64:
                return None
            pv_state.do_fpu_taskswitch(vcpu, value & Cr0.TS)
        case 2:
            vcpu.cr2 = Vaddr(value)
            vcpu.domain.hv.set_guest_cr2(vcpu, Vaddr(value))
        case 3:
            try:
                mm.new_guest_cr3(vcpu, Mfn(value >> 12))
            except HypercallError:
                return None
        case 4:
            vcpu.cr4 = value & _GUEST_CR4
        case _:
            return None
    return f"write cr{instruction.reg} = {value:#x}"


def _read_dr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    number = {4: 6, 5: 7}.get(instruction.reg, instruction.reg)
    if number > 7:
        return None
    value = vcpu.debugreg[number]
    vcpu.domain.hv.cpu.gpr[instruction.rm] = value
    return f"read dr{number} = {value:#x}"


def _write_dr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    number = {4: 6, 5: 7}.get(instruction.reg, instruction.reg)
    value = vcpu.domain.hv.cpu.gpr[instruction.rm]
    try:
        pv_state.do_set_debugreg(vcpu, number, value)
    except HypercallError:
        return None
    return f"write dr{number} = {value:#x}"


def _read_msr(vcpu: Vcpu, msr: int) -> int | None:
    cpu = vcpu.domain.hv.cpu
    match msr:
        case Msr.FS_BASE:
            return cpu.fs_base
        case Msr.GS_BASE:
            return cpu.gs_base
        case Msr.SHADOW_GS_BASE:
            return vcpu.gs_base_user
        case Msr.TSC:
            return vcpu.domain.hv.now()
        case Msr.EFER:
            return Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE
        case Msr.PAT:
            return _XEN_PAT
        case Msr.TSC_AUX:
            return cpu.tsc_aux
        case _:
            return _CONSTANT_MSRS.get(msr)


def _rdmsr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    gpr = vcpu.domain.hv.cpu.gpr
    msr = gpr[RCX] & _U32
    value = _read_msr(vcpu, msr)
    if value is None:
        # Early in its boot a kernel has no #GP handler yet and expects the old, lax behaviour.
        if vcpu.trap_table[Vector.GP] is not None:
            return None
        value = 0
    gpr[RAX] = value & _U32
    gpr[RDX] = value >> 32
    return f"rdmsr {msr:#x} = {value:#x}"


def _wrmsr(vcpu: Vcpu, instruction: Instruction) -> str | None:
    cpu = vcpu.domain.hv.cpu
    gpr = cpu.gpr
    msr = gpr[RCX] & _U32
    value = (gpr[RDX] & _U32) << 32 | gpr[RAX] & _U32
    match msr:
        case Msr.FS_BASE | Msr.GS_BASE | Msr.SHADOW_GS_BASE:
            if not is_canonical(value):
                return None
            if msr == Msr.FS_BASE:
                cpu.fs_base = value
            elif msr == Msr.GS_BASE:
                cpu.gs_base = value
            else:
                vcpu.gs_base_user = value
        case _:
            same = _read_msr(vcpu, msr) == value
            if not same and msr not in _WRITE_IGNORED and vcpu.trap_table[Vector.GP] is not None:
                return None
    return f"wrmsr {msr:#x} = {value:#x}"


def _rdtsc(vcpu: Vcpu, instruction: Instruction) -> str:
    hv = vcpu.domain.hv
    value = hv.now()
    hv.cpu.gpr[RAX] = value & _U32
    hv.cpu.gpr[RDX] = value >> 32
    return f"rdtsc = {value:#x}"


def _rdtscp(vcpu: Vcpu, instruction: Instruction) -> str:
    text = _rdtsc(vcpu, instruction)
    vcpu.domain.hv.cpu.gpr[RCX] = vcpu.domain.hv.cpu.tsc_aux
    return text.replace("rdtsc", "rdtscp")


def _cpuid(vcpu: Vcpu, instruction: Instruction) -> str:
    gpr = vcpu.domain.hv.cpu.gpr
    leaf = gpr[RAX] & _U32
    gpr[RAX], gpr[RBX], gpr[RCX], gpr[RDX] = cpuid(leaf, gpr[RCX] & _U32)
    return f"cpuid leaf {leaf:#x}"


_CONSTANT_MSRS: dict[int, int] = {
    Msr.APIC_BASE: 0xFEE0_0100,
    Msr.MISC_ENABLE: 0x1801,  # fast strings; branch trace and PEBS unavailable
    Msr.UCODE_REV: 0,
    Msr.PLATFORM_INFO: 0,
    Msr.MISC_FEATURES_ENABLES: 0,
    Msr.ARCH_CAPABILITIES: 0,
    Msr.PERF_CTL: 0,
}
_WRITE_IGNORED = frozenset({int(Msr.UCODE_REV), int(Msr.MISC_ENABLE), int(Msr.PAT), int(Msr.APIC_BASE)})

EMULATORS: dict[bytes, Emulator] = {
    **dict.fromkeys((b"\xe4", b"\xe5", b"\xe6", b"\xe7", b"\xec", b"\xed", b"\xee", b"\xef"), _in_out),
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

_BY_IOPL = frozenset(opcode for opcode, emulator in EMULATORS.items() if emulator in {_in_out, _cli_sti})
_WITH_MODRM = frozenset({b"\x0f\x20", b"\x0f\x21", b"\x0f\x22", b"\x0f\x23"})
_WITH_IMMEDIATE = frozenset({b"\xe4", b"\xe5", b"\xe6", b"\xe7"})
