"""Port instructions of a PV guest. Xen: arch/x86/pv/emul-priv-op.c (guest_io_okay, guest_io_read, read_io, rep_ins...).

Whether a guest may use a port its virtual IOPL says, or its I/O bitmap. A domain without devices then reads all ones
and writes nowhere, but for two registers that Xen keeps for each domain: the index of the CMOS clock (port 0x70) and
the address of PCI configuration space (0xcf8, 4 bytes at a time). Breakpoints for ports are looked at here
(`debugreg`).
"""

from dataclasses import dataclass

from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.x86 import Rflags
from xdbg.machine.paging import NotMappedError, read_virtual
from xdbg.machine.registers import RAX, RCX, RDI, RDX, RSI

from .debugreg import io_breakpoints
from .faults import GuestFault
from .guest_access import copy_from_guest, copy_to_guest
from .vcpu import Vcpu

_ARCHITECTURAL_IOPL = 1 << VmasstType.ARCHITECTURAL_IOPL
_U16, _U32, _U64 = 0xFFFF, 0xFFFF_FFFF, (1 << 64) - 1
_CMOS_INDEX = 0x70
_PCI_ADDRESS = 0xCF8
_REPEATS_AT_ONCE = 1024
"""Iterations of a repeated instruction between two looks at what else is to do."""


@dataclass(frozen=True, slots=True)
class PortAccess:
    """A port instruction: `in`, `out`, `ins` or `outs`."""

    port: int
    size: int
    write: bool
    is_string: bool = False
    repeated: bool = False
    address_size: int = 8
    segment: int | None = None
    """The segment register whose base counts; None for one without a base: in 64-bit code all but FS and GS."""


class StringFault(Exception):  # noqa: N818 - the field's word
    """The memory operand of a string instruction faults."""

    def __init__(self, fault: GuestFault) -> None:
        super().__init__(str(fault))
        self.vaddr = fault.vaddr
        self.write = fault.write


def iopl_ok(vcpu: Vcpu) -> bool:
    """Whether the virtual IOPL allows port instructions, cli and sti. Xen: iopl_ok()."""
    if not vcpu.kernel_mode:
        return vcpu.iopl == 3
    return bool(vcpu.domain.vm_assist & _ARCHITECTURAL_IOPL) or vcpu.iopl >= 1


def io_okay(vcpu: Vcpu, port: int, size: int) -> bool:
    """Whether the guest may touch these ports. Xen: guest_io_okay()."""
    if iopl_ok(vcpu):
        return True
    if port + size > vcpu.io_bitmap_ports:
        return False
    bits = 0xFFFF
    for index in (0, 1):
        try:
            # The bitmap is the kernel's, whatever mode the instruction is in.
            byte = read_virtual(vcpu.domain.hv.ram, vcpu.kernel_cr3, vcpu.io_bitmap + port // 8 + index, 1)[0]
        except NotMappedError:
            break
        bits = bits & ~(0xFF << 8 * index) | byte << 8 * index
    return not bits >> (port & 7) & (1 << size) - 1


def access(vcpu: Vcpu, what: PortAccess) -> tuple[str, int, bool] | None:
    """Carry an allowed instruction out: text, breakpoints touched (bits of DR6), whether it is done with all
    repetitions. None: it is not allowed. Raises `StringFault`.
    """
    port, size = what.port, what.size
    if not io_okay(vcpu, port, size):
        return None
    hit = io_breakpoints(vcpu, port, size)
    done = True
    if what.is_string:
        done = _string(vcpu, what, once=hit != 0)
    elif what.write:
        _write(vcpu, port, size, vcpu.domain.hv.cpu.gpr[RAX])
    else:
        gpr = vcpu.domain.hv.cpu.gpr
        ones = (1 << 8 * size) - 1
        value = _read(vcpu, port, size)
        gpr[RAX] = value if size == 4 else gpr[RAX] & ~ones & _U64 | value
    return f"{'out' if what.write else 'in'}{'s' * what.is_string} port {port:#x}, {size} bytes", hit, done


def _string(vcpu: Vcpu, what: PortAccess, *, once: bool) -> bool:
    """Iterations of `ins` or `outs`; whether the last has been made."""
    cpu = vcpu.domain.hv.cpu
    gpr, mask = cpu.gpr, (1 << 8 * what.address_size) - 1
    pointer = RSI if what.write else RDI
    base = 0 if what.segment is None else cpu.segment_base(what.segment)
    linear = _U64 if cpu.is_64bit else _U32
    step = -what.size if cpu.rflags & Rflags.DF else what.size
    for _ in range(_REPEATS_AT_ONCE):
        if what.repeated and not gpr[RCX] & mask:
            return True
        vaddr = base + (gpr[pointer] & mask) & linear
        try:
            if what.write:
                data = copy_from_guest(vcpu, vaddr, what.size)
                _write(vcpu, what.port, what.size, int.from_bytes(data, "little"))
            else:
                copy_to_guest(vcpu, vaddr, _read(vcpu, what.port, what.size).to_bytes(what.size, "little"))
        except GuestFault as fault:
            raise StringFault(fault) from None
        _set(gpr, pointer, gpr[pointer] + step, mask)
        if not what.repeated:
            return True
        _set(gpr, RCX, gpr[RCX] - 1, mask)
        if once:
            break
    return not gpr[RCX] & mask


def _set(gpr: memoryview, number: int, value: int, mask: int) -> None:
    gpr[number] = value & mask | (gpr[number] & ~mask if mask == _U16 else 0)


def _read(vcpu: Vcpu, port: int, size: int) -> int:
    domain = vcpu.domain
    if port == _PCI_ADDRESS and size == 4:
        return domain.pci_cf8
    value = (1 << 8 * size) - 1
    if port <= _CMOS_INDEX < port + size:
        shift = 8 * (_CMOS_INDEX - port)
        value = value & ~(0xFF << shift) | domain.cmos_idx << shift
    return value


def _write(vcpu: Vcpu, port: int, size: int, value: int) -> None:
    domain = vcpu.domain
    if port == _PCI_ADDRESS and size == 4:
        domain.pci_cf8 = value & 0xFFFF_FFFF
    elif port <= _CMOS_INDEX < port + size:
        domain.cmos_idx = value >> 8 * (_CMOS_INDEX - port) & 0xFF


def port_in_dx(vcpu: Vcpu) -> int:
    """The port that DX names."""
    return vcpu.domain.hv.cpu.gpr[RDX] & 0xFFFF
