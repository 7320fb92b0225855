"""The registers of a process that is not in user mode on any vcpu: where they are, and what completes them.

Mostly its kernel has saved them. On the kernel's first instructions after an entry it has not, and they are in the
bounce frame and in the vcpu: the profile knows how far the kernel has come.
"""

from dataclasses import dataclass, replace

from xdbg.abi.frames import Vaddr
from xdbg.guestos.events import KernelRegisters
from xdbg.guestos.profile import Process, Profile, UserRegisters
from xdbg.xen.domain import Domain
from xdbg.xen.vcpu import Vcpu

from .registers import NO_SYSCALL, Registers
from .vcpu_registers import gpr_of, read_vcpu, rip_of, write_vcpu


@dataclass(frozen=True, slots=True)
class Entering:
    """A vcpu that has just left user mode of a process, and the registers that its kernel has still to save."""

    vcpu: Vcpu
    kernel: KernelRegisters
    registers: UserRegisters


def kernel_registers(vcpu: Vcpu) -> KernelRegisters:
    """A vcpu as a profile sees it."""
    return KernelRegisters(gpr_of(vcpu), Vaddr(rip_of(vcpu)))


def entering(domain: Domain, profile: Profile, vcpu: Vcpu | None, pid: int) -> Entering | None:
    """What the kernel has still to save of a process; `vcpu`: whose kernel works on its behalf. None: nothing."""
    if vcpu is None or domain.shutdown_code is not None:
        return None
    kernel = kernel_registers(vcpu)
    registers = profile.unsaved_registers(pid, kernel)
    return None if registers is None else Entering(vcpu, kernel, registers)


def set_gpr(vcpu: Vcpu, values: dict[int, int]) -> None:
    """Set some of a vcpu's general registers."""
    if values:
        old = read_vcpu(vcpu)
        write_vcpu(vcpu, old, replace(old, gpr=tuple(values.get(i, old.gpr[i]) for i in range(16))))


def completed(domain: Domain, process: Process, saved: UserRegisters) -> Registers:
    """What the kernel saves, completed by what it leaves in the CPU while it works for the process."""
    registers = Registers(saved.gpr, saved.rip, saved.rflags, saved.cs, saved.ss)
    fpu, fs_base, gs_base = saved.fpu, saved.fs_base, saved.gs_base
    if process.vcpu_id is not None and process.vcpu_id < len(domain.vcpus):
        vcpu = domain.vcpus[process.vcpu_id]
        live = read_vcpu(vcpu)
        fpu = live.fpu
        fs_base = live.fs_base if fs_base is None else fs_base
        gs_base = (vcpu.gs_base_user if vcpu.kernel_mode else live.gs_base) if gs_base is None else gs_base
    return replace(
        registers,
        fpu=registers.fpu if fpu is None else fpu,
        orig_rax=NO_SYSCALL if saved.orig_rax is None else saved.orig_rax,
        fs_base=fs_base or 0,
        gs_base=gs_base or 0,
    )
