"""What every emulated instruction has in common. Xen: arch/x86/pv/emulate.c."""

from typing import Final

from xdbg.abi.x86 import Dr6, Rflags, Vector

from .entry import inject
from .vcpu import Vcpu

_RF: Final = int(Rflags.RF)


def instruction_done(vcpu: Vcpu, rip: int, dr6: int = 0) -> None:
    """Go on at `rip`, behind an instruction that Xen has carried out; what it leaves is that of the instruction.

    `dr6`: causes of a #DB beside the guest's single step. Xen: pv_emul_instruction_done().
    """
    cpu = vcpu.domain.hv.cpu
    cpu.rip = rip
    rflags = cpu.rflags
    if rflags & _RF:
        cpu.clear_flags(_RF)
    if rflags & Rflags.TF:
        dr6 |= Dr6.BS
    if dr6:
        vcpu.debugreg[6] |= dr6
        inject(vcpu, Vector.DB, None)
