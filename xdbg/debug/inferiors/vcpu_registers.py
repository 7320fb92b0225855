"""The registers of a vcpu, wherever they are: in the CPU while it is current, otherwise in its `context`.

The Xen side of a vcpu is shown as registers too, behind those of the `g` block. gdb restores all of them after each
call of a guest's function: so writing what is there already is no error, and those that may have changed meanwhile can
be written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL, EPERM
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.abi.shared_info import VcpuInfo
from xdbg.abi.x86 import Cr0, Efer, Rflags
from xdbg.machine.cpu import Cpu
from xdbg.machine.registers import RBP, RSP, SelectorError
from xdbg.rsp.registers import REGISTERS
from xdbg.rsp.target import TargetError
from xdbg.xen.sched import vcpu_unblock
from xdbg.xen.vcpu import Vcpu

from .registers import Registers, expedited

_SETTABLE_RFLAGS: Final = (
    Rflags.CF
    | Rflags.PF
    | Rflags.AF
    | Rflags.ZF
    | Rflags.SF
    | Rflags.TF
    | Rflags.DF
    | Rflags.OF
    | Rflags.NT
    | Rflags.AC
    | Rflags.ID
)
"""Flags that a debugger sets; IF and IOPL are Xen's, whatever it writes."""
_PENDING: Final = VcpuInfo.offset_of("evtchn_upcall_pending")
_MASK: Final = VcpuInfo.offset_of("evtchn_upcall_mask")
_EFER: Final = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE


def rip_of(vcpu: Vcpu) -> int:
    """Where the vcpu is."""
    return vcpu.domain.hv.cpu.rip if vcpu.context is None else vcpu.context.rip


def rsp_of(vcpu: Vcpu) -> int:
    """Its stack pointer."""
    return vcpu.domain.hv.cpu.gpr[RSP] if vcpu.context is None else vcpu.context.gpr["rsp"]


def gpr_of(vcpu: Vcpu) -> tuple[int, ...]:
    """Its general registers, in the machine's order."""
    return tuple(vcpu.domain.hv.cpu.gpr) if vcpu.context is None else read_vcpu(vcpu).gpr


def expedited_of_vcpu(vcpu: Vcpu) -> dict[int, bytes]:
    """What a stop reply sends along."""
    if vcpu.context is None:
        cpu = vcpu.domain.hv.cpu
        return expedited(cpu.rip, cpu.gpr[RSP], cpu.gpr[RBP])
    gpr = vcpu.context.gpr
    return expedited(vcpu.context.rip, gpr["rsp"], gpr["rbp"])


@contextmanager
def _in_cpu(vcpu: Vcpu) -> Iterator[Cpu]:
    """The CPU with the vcpu's registers in it; what it held before comes back afterwards."""
    cpu = vcpu.domain.hv.cpu
    if vcpu.context is None:
        yield cpu
        return
    before = cpu.save()
    cpu.load(vcpu.context)
    try:
        yield cpu
        vcpu.context = cpu.save()
    finally:
        cpu.load(before)


def read_vcpu(vcpu: Vcpu) -> Registers:
    """All registers of the `g` block."""
    context = vcpu.context
    if context is None:
        return _read_cpu(vcpu.domain.hv.cpu)
    es, cs, ss, ds, fs, gs = context.selectors
    return Registers(
        tuple(context.gpr.values()),
        context.rip,
        context.rflags,
        cs,
        ss,
        ds,
        es,
        fs,
        gs,
        context.fpu,
        fs_base=context.fs_base,
        gs_base=context.gs_base,
    )


def _read_cpu(cpu: Cpu) -> Registers:
    return Registers(
        tuple(cpu.gpr),
        cpu.rip,
        cpu.rflags,
        cpu.cs,
        cpu.ss,
        cpu.ds,
        cpu.es,
        cpu.fs,
        cpu.gs,
        cpu.read_fpu(),
        fs_base=cpu.fs_base,
        gs_base=cpu.gs_base,
    )


def write_vcpu(vcpu: Vcpu, old: Registers, new: Registers) -> None:
    """Change what differs. A vcpu that waits for an event and is sent elsewhere goes on at once.

    TargetError(EINVAL), with nothing changed, for cs and ss: they are the guest's mode. For another selector that
    can't be loaded it comes when those before it have been.
    """
    changed = old.changes(new)
    for name in ("cs", "ss"):
        if name in changed:
            raise TargetError(EINVAL, f"{name} says which mode the guest is in, and can't be changed")
    with _in_cpu(vcpu) as cpu:
        for name in changed:
            value = getattr(new, name)
            match name:
                case "gpr":
                    for index in range(16):
                        cpu.gpr[index] = value[index]
                case "rflags":
                    cpu.rflags = (value & _SETTABLE_RFLAGS) | (old.rflags & ~_SETTABLE_RFLAGS)
                case "fpu":
                    cpu.write_fpu(value)
                case "orig_rax":
                    continue
                case _:
                    try:
                        setattr(cpu, name, value)
                    except SelectorError as error:
                        raise TargetError(EINVAL, str(error)) from error
    if "rip" in changed:
        vcpu_unblock(vcpu)


def _upcall_byte(offset: int) -> Callable[[Vcpu], int]:
    return lambda vcpu: vcpu.domain.hv.ram.buffer[vcpu.vcpu_info + offset]


_SYSTEM: Final[dict[str, Callable[[Vcpu], int]]] = {
    "cr0": lambda vcpu: vcpu.cr0,
    "cr2": lambda vcpu: vcpu.domain.hv.guest_cr2(vcpu),
    "cr3": lambda vcpu: vcpu.cr3 if vcpu.is_initialised else 0,
    "cr4": lambda vcpu: vcpu.cr4,
    "cr8": lambda _: 0,
    "efer": lambda _: _EFER,
    "xen_kernel_mode": lambda vcpu: int(vcpu.kernel_mode),
    "xen_upcall_mask": _upcall_byte(_MASK),
    "xen_upcall_pending": _upcall_byte(_PENDING),
    "xen_kernel_sp": lambda vcpu: vcpu.kernel_sp,
    "xen_gs_base_user": lambda vcpu: vcpu.gs_base_user,
    "xen_cr3_user": lambda vcpu: 0 if vcpu.guest_table_user is None else vcpu.guest_table_user << 12,
}
"""The registers behind the `g` block, by name."""


def system_value(vcpu: Vcpu, name: str) -> int:
    """A register behind the `g` block, by name. KeyError for an unknown one."""
    return _SYSTEM[name](vcpu)


def read_system(vcpu: Vcpu, number: int, cr3: Maddr | None = None) -> bytes:
    """A register behind the `g` block; `cr3` replaces the vcpu's own. TargetError(EINVAL) for an unknown number."""
    if not 0 <= number < len(REGISTERS) or REGISTERS[number].name not in _SYSTEM:
        raise TargetError(EINVAL, f"no register {number}")
    register = REGISTERS[number]
    value = cr3 if register.name == "cr3" and cr3 is not None else _SYSTEM[register.name](vcpu)
    return (value & (1 << register.bitsize) - 1).to_bytes(register.size, "little")


def _set_upcall_mask(vcpu: Vcpu, value: int) -> None:
    vcpu.domain.hv.ram.buffer[vcpu.vcpu_info + _MASK] = 1 if value else 0


def _set_cr0(vcpu: Vcpu, value: int) -> None:
    if (value ^ vcpu.cr0) & ~Cr0.TS:
        raise TargetError(EPERM, "of cr0 only the TS bit can be changed")
    vcpu.cr0 = value
    with _in_cpu(vcpu) as cpu:
        cpu.cr0_ts = bool(value & Cr0.TS)


def _set_cr2(vcpu: Vcpu, value: int) -> None:
    vcpu.cr2 = Vaddr(value)
    vcpu.domain.hv.set_guest_cr2(vcpu, Vaddr(value))


def _set_kernel_sp(vcpu: Vcpu, value: int) -> None:
    vcpu.kernel_sp = Vaddr(value)


def _set_gs_base_user(vcpu: Vcpu, value: int) -> None:
    vcpu.gs_base_user = value


def _leave_pending(vcpu: Vcpu, value: int) -> None:
    """An event that came meanwhile is not to be lost."""


_SETTERS: Final[dict[str, Callable[[Vcpu, int], None]]] = {
    "cr0": _set_cr0,
    "cr2": _set_cr2,
    "xen_upcall_mask": _set_upcall_mask,
    "xen_upcall_pending": _leave_pending,
    "xen_kernel_sp": _set_kernel_sp,
    "xen_gs_base_user": _set_gs_base_user,
}


def write_system(vcpu: Vcpu, number: int, value: bytes, present: bytes) -> None:
    """Sets a register behind the `g` block, which has the value `present`. TargetError(EPERM) if it is Xen's."""
    if value == present:
        return
    name = REGISTERS[number].name
    if name not in _SETTERS:
        raise TargetError(EPERM, f"{name} is Xen's, and can't be changed")
    _SETTERS[name](vcpu, int.from_bytes(value, "little"))
