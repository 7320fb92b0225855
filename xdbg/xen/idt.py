"""Xen's own interrupt descriptor table: 256 gates in a frame that no guest can reach. Xen: arch/x86/traps.c, desc.h.

The CPU takes every exception of a guest through this table, never through a table of the guest's. Two rules of the
hardware are applied here (SDM volume 3, "Exception- and Interrupt-Handler Procedures"):

* a software interrupt (`int n`, `int3`) needs a gate whose DPL is not below the CPL, which is always 3: only vectors
  3 (#BP), 4 (#OF) and 0x80 (Linux's own, which Xen hands on directly) have such gates;
* where the DPL refuses, or no gate is present, the CPU raises #GP with error code `n * 8 + 2` (IDT bit set) at the
  instruction instead, and goes through gate 13.
"""

from dataclasses import dataclass

from xdbg.abi.frames import Mfn, Vaddr, mfn_to_maddr
from xdbg.abi.x86 import NR_VECTORS, Vector
from xdbg.abi.x86_descriptors import IdtGate
from xdbg.machine.exits import ExceptionExit
from xdbg.machine.ram import Ram

XEN_CS = 0xE008
"""Selector of Xen's own 64-bit code segment. Xen: __HYPERVISOR_CS."""

TSS_SELECTOR = 0xE040
"""Selector of Xen's task state segment, which `str` shows. Xen: TSS_SELECTOR."""

HANDLER_BASE = 0xFFFF_82D0_4020_0000
"""Where the entry stubs of Xen's image are; gate n's stub is at HANDLER_BASE + 16 * n."""

LINUX_SYSCALL = 0x80
"""The vector of `int 0x80`. Xen: int80_direct_trap."""

_IDT_ERROR = 2


@dataclass(frozen=True, slots=True)
class Delivery:
    """What went through which gate: the vector after the rules above, and where the instruction begins."""

    vector: int
    error_code: int
    gate: IdtGate
    insn: Vaddr
    software: bool


class Idt:
    """The table in frame `mfn`."""

    def __init__(self, ram: Ram, mfn: Mfn) -> None:
        self.maddr = mfn_to_maddr(mfn)
        for vector in range(NR_VECTORS):
            dpl = 3 if vector in {Vector.BP, Vector.OF, LINUX_SYSCALL} else 0
            gate = IdtGate(HANDLER_BASE + 16 * vector, XEN_CS, dpl=dpl)
            ram.write(self.maddr + IdtGate.SIZE * vector, gate.to_bytes())
        # As the CPU finds them in the table; nobody writes to it once it is made.
        table = ram.read(self.maddr, IdtGate.SIZE * NR_VECTORS)
        self._gates = tuple(IdtGate.from_bytes(table[IdtGate.SIZE * vector :]) for vector in range(NR_VECTORS))

    def gate(self, vector: int) -> IdtGate:
        """The descriptor that the CPU finds for a vector."""
        return self._gates[vector]

    def vector(self, taken: ExceptionExit, rip: Vaddr) -> Delivery:
        """Take an exception or software interrupt through its gate; `rip` is where the CPU stood at the exit.

        The instruction of a software interrupt is one byte long for `int3` and two for `int n`; which of the two an
        exit with vector 3 was, the CPU tells by `taken.length`.
        """
        gate = self.gate(taken.vector)
        if not taken.software:
            return Delivery(taken.vector, taken.error_code, gate, rip, software=False)
        insn = Vaddr(rip - taken.length)
        if gate.present and gate.dpl == 3:
            return Delivery(taken.vector, 0, gate, insn, software=True)
        return Delivery(Vector.GP, taken.vector * 8 + _IDT_ERROR, self.gate(Vector.GP), insn, software=False)
