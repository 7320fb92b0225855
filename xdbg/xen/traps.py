"""What Xen does with an exception of a guest: at most it fills `trap_bounce`. Xen: arch/x86/traps.c, pv/traps.c.

A handler here never calls the guest. It decides whether Xen itself deals with the exception (emulation, a repaired page
fault), and if not, `entry.inject` notes in the vcpu's `trap_bounce` which handler of the guest is to run. That is the
whole of "delivery" at this point: `entry` sees the flag on the way back and rewrites the return.
"""

from collections.abc import Callable

from xdbg.abi.frames import Vaddr
from xdbg.abi.x86 import ERROR_CODE_VECTORS, Cr0, Rflags, SelectorErrorCode, Vector
from xdbg.machine.exits import ExceptionExit

from . import emul_priv_op, invalid_op
from .entry import inject, inject_page_fault
from .events import ExceptionTaken
from .idt import LINUX_SYSCALL, Delivery
from .ptwr import fixup_page_fault
from .vcpu import Vcpu

TrapHandler = Callable[[Vcpu, Delivery, ExceptionExit], None]

_DR6_CAUSES = 0xE00F
"""DR6 bits that a debug exception may set: B0-B3, BD, BS, BT."""


def take_exception(vcpu: Vcpu, taken: ExceptionExit) -> None:
    """An exception of the current guest, from the CPU through Xen's IDT to its `do_` function."""
    hv = vcpu.domain.hv
    cpu = hv.cpu
    rip = Vaddr(cpu.rip)
    delivery = hv.idt.vector(taken, rip)
    if delivery.vector != taken.vector:
        # The CPU refused the software interrupt: #GP is a fault, so it stands at the instruction again.
        rip = delivery.insn
        cpu.rip = rip
        cpu.rflags |= Rflags.RF
    if hv.observer is not None:
        hv.observer.observe(vcpu, _taken(vcpu, taken, delivery, rip))
    HANDLERS.get(delivery.vector, do_trap)(vcpu, delivery, taken)


def about_to_take(vcpu: Vcpu, taken: ExceptionExit, rip: Vaddr) -> ExceptionTaken:
    """What an observer will be told of an exception of the current vcpu, whose exit left rip at `rip`."""
    delivery = vcpu.domain.hv.idt.vector(taken, rip)
    return _taken(vcpu, taken, delivery, rip if delivery.vector == taken.vector else delivery.insn)


def _taken(vcpu: Vcpu, taken: ExceptionExit, delivery: Delivery, rip: Vaddr) -> ExceptionTaken:
    gate = delivery.gate
    return ExceptionTaken(
        delivery.vector,
        delivery.error_code,
        delivery.software,
        gate.selector,
        gate.offset,
        gate.dpl,
        vcpu.kernel_mode,
        rip,
        taken.cr2,
        delivery.insn,
    )


def permit_softint(vcpu: Vcpu, dpl: int) -> bool:
    """Whether `int n` may use a virtual gate: kernel mode counts as CPL 1. Xen: permit_softint()."""
    return dpl >= (1 if vcpu.kernel_mode else 3)


def do_trap(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """A vector that Xen passes on as it is, with its error code where the vector has one."""
    has_error_code = delivery.vector in ERROR_CODE_VECTORS
    inject(vcpu, delivery.vector, delivery.error_code if has_error_code else None)


def do_int3(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#BP. A debugger's breakpoint was taken out of the way before (see `setup`): this one is the guest's own."""
    inject(vcpu, Vector.BP, None)


def do_debug(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#DB: the causes are added to the virtual DR6, which is sticky; `int1` has none."""
    vcpu.debugreg[6] |= taken.dr6 & _DR6_CAUSES
    inject(vcpu, Vector.DB, None)


def do_device_not_available(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#NM: the guest's when it asked for it by fpu_taskswitch or CR0.TS; delivering it clears TS."""
    vcpu.domain.hv.cpu.cr0_ts = False
    if vcpu.cr0 & Cr0.TS:
        inject(vcpu, Vector.NM, None)
        vcpu.cr0 &= ~Cr0.TS


def do_invalid_op(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#UD: a forced emulation (`ud2a; .ascii "xen"; cpuid`), or the guest's."""
    if not invalid_op.emulate_forced_invalid_op(vcpu):
        inject(vcpu, Vector.UD, None)


def do_general_protection(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#GP: an `int n` that the virtual trap table allows, a privileged instruction to emulate, or the guest's.

    Xen: do_general_protection(). An error code whose low two bits are 2 names a gate of the IDT.
    """
    if delivery.error_code & 3 == 2:
        vector = delivery.error_code >> 3
        gate = vcpu.trap_table[vector]
        if permit_softint(vcpu, gate.dpl if gate is not None else 0):
            cpu = vcpu.domain.hv.cpu
            cpu.rip += 2
            cpu.clear_flags(Rflags.RF)
            inject(vcpu, vector, None)
            return
    elif delivery.error_code == 0 and emul_priv_op.emulate_privileged_op(vcpu):
        return
    inject(vcpu, Vector.GP, delivery.error_code)


def do_int80(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """`int 0x80` goes to its entry of the trap table whatever DPL that has; without one it is as any other `int n`.

    Xen: int80_direct_trap, int80_slow_path.
    """
    if vcpu.trap_table[LINUX_SYSCALL] is not None:
        inject(vcpu, LINUX_SYSCALL, None)
        return
    cpu = vcpu.domain.hv.cpu
    cpu.rip -= taken.length
    inject(vcpu, Vector.GP, LINUX_SYSCALL << 3 | SelectorErrorCode.IDT)


def do_page_fault(vcpu: Vcpu, delivery: Delivery, taken: ExceptionExit) -> None:
    """#PF: repaired by Xen (writable page tables, a spurious fault), or the guest's."""
    assert taken.cr2 is not None
    if not fixup_page_fault(vcpu, taken.cr2, delivery.error_code):
        inject_page_fault(vcpu, delivery.error_code, taken.cr2)


HANDLERS: dict[int, TrapHandler] = {
    Vector.DB: do_debug,
    Vector.BP: do_int3,
    Vector.UD: do_invalid_op,
    Vector.NM: do_device_not_available,
    Vector.GP: do_general_protection,
    Vector.PF: do_page_fault,
    LINUX_SYSCALL: do_int80,
}
"""The `do_` function of each vector; all others go to `do_trap`."""
