"""The debug registers of a PV vcpu. Xen: arch/x86/pv/misc-hypercalls.c, asm-x86/debugreg.h.

A guest sets them by hypercall or by `mov dr`; both come to `set_debugreg`. What is enabled is in the CPU while the vcpu
is: breakpoints for execution and data raise #DB in the guest by themselves. Breakpoints for ports (CR4.DE) the
hardware can not have, as port instructions are emulated: their enable bits are kept apart in `dr7_emul` and looked at
there. DR6 is sticky: #DB adds its causes, the guest takes them out.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import (
    DEBUG_LENGTHS,
    DR6_DEFAULT,
    DR6_RESERVED_ZERO,
    DR7_ACTIVE_MASK,
    DR7_CONTROL_SHIFT,
    DR7_CONTROL_SIZE,
    DR7_DEFAULT,
    DR7_RESERVED_ZERO,
    HYPERVISOR_VIRT_END,
    HYPERVISOR_VIRT_START,
    Cr4,
    DebugAccess,
    Dr7,
)

from .callback import is_canonical
from .faults import HypercallError
from .hypercall import hypercall
from .vcpu import Vcpu

_NR_BREAKPOINTS: Final = 4
_U32: Final = 0xFFFF_FFFF


def load_debugregs(vcpu: Vcpu) -> None:
    """Put the breakpoints of the vcpu that becomes current into the CPU. Xen: activate_debugregs()."""
    vcpu.domain.hv.cpu.breakpoints.load(vcpu.debugreg, vcpu.debugreg[7])


def breakpoint_addr_ok(address: int) -> bool:
    """Whether a breakpoint may be there: not in Xen's own range. Xen: breakpoint_addr_ok()."""
    return is_canonical(address) and not HYPERVISOR_VIRT_START <= address < HYPERVISOR_VIRT_END


def set_debugreg(vcpu: Vcpu, reg: int, value: int) -> None:
    """Write a debug register; that of the current vcpu is in the CPU, too. Xen: set_debugreg().

    -ENODEV: there is no such register (DR4 and DR5 are DR6 and DR7, without CR4.DE); -EINVAL: DR6 and DR7 have 32 bits;
    -EPERM: an address of Xen's, DR7.GD, a breakpoint for ports without CR4.DE.
    """
    match reg:
        case 0 | 1 | 2 | 3:
            if not breakpoint_addr_ok(value):
                raise HypercallError(Errno.EPERM)
            vcpu.debugreg[reg] = value
        case 4 | 6:
            _require(vcpu, reg, value)
            vcpu.debugreg[6] = value & ~DR6_RESERVED_ZERO | DR6_DEFAULT
        case 5 | 7:
            _require(vcpu, reg, value)
            _set_dr7(vcpu, value & ~DR7_RESERVED_ZERO | DR7_DEFAULT)
        case _:
            raise HypercallError(Errno.ENODEV)
    if vcpu is vcpu.domain.hv.current:
        load_debugregs(vcpu)


def _require(vcpu: Vcpu, reg: int, value: int) -> None:
    if reg < 6 and vcpu.cr4 & Cr4.DE:
        raise HypercallError(Errno.ENODEV)
    if value > _U32:
        raise HypercallError(Errno.EINVAL)


def _set_dr7(vcpu: Vcpu, value: int) -> None:
    if value & Dr7.GD:
        raise HypercallError(Errno.EPERM)
    for_ports = 0
    if value & DR7_ACTIVE_MASK:
        for number in range(_NR_BREAKPOINTS):
            if _control(value, number) & 3 == DebugAccess.IO:
                if not vcpu.cr4 & Cr4.DE:
                    raise HypercallError(Errno.EPERM)
                for_ports |= value & 3 << 2 * number
    vcpu.dr7_emul = for_ports
    vcpu.debugreg[7] = value & ~for_ports


def _control(dr7: int, number: int) -> int:
    return dr7 >> DR7_CONTROL_SHIFT + DR7_CONTROL_SIZE * number


def read_debugreg(vcpu: Vcpu, reg: int) -> int:
    """A debug register as the guest sees it; -ENODEV as for writing. Xen: x86emul_read_dr()."""
    if reg in {4, 5} and vcpu.cr4 & Cr4.DE:
        raise HypercallError(Errno.ENODEV)
    match reg:
        case 0 | 1 | 2 | 3:
            return vcpu.debugreg[reg]
        case 4 | 6:
            return vcpu.debugreg[6]
        case 5 | 7:
            return vcpu.debugreg[7] | vcpu.dr7_emul
        case _:
            raise HypercallError(Errno.ENODEV)


def io_breakpoints(vcpu: Vcpu, port: int, size: int) -> int:
    """Which breakpoints for ports an access touches: bits of DR6. Xen: check_guest_io_breakpoint()."""
    if not vcpu.dr7_emul or not vcpu.cr4 & Cr4.DE:
        return 0
    match = 0
    for number in range(_NR_BREAKPOINTS):
        if vcpu.dr7_emul >> 2 * number & 3:
            start = vcpu.debugreg[number]
            length = DEBUG_LENGTHS[_control(vcpu.debugreg[7], number) >> 2 & 3]
            if start < port + size and port < start + length:
                match |= 1 << number
    return match


@hypercall(Hypercall.SET_DEBUGREG)
def do_set_debugreg(vcpu: Vcpu, reg: int, value: int) -> int:
    """HYPERVISOR_set_debugreg(reg, value): write a debug register; errors as `set_debugreg`."""
    set_debugreg(vcpu, reg & _U32, value)
    return 0


@hypercall(Hypercall.GET_DEBUGREG)
def do_get_debugreg(vcpu: Vcpu, reg: int) -> int:
    """HYPERVISOR_get_debugreg(reg): a debug register; -ENODEV if there is none. Xen: do_get_debugreg()."""
    return read_debugreg(vcpu, reg & _U32)
