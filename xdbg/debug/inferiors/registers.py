"""A thread's registers as one value, and the two forms they have outside: FXSAVE and gdb's `g` block.

The FPU part is kept as the 512-byte FXSAVE image, 64-bit form: fcw, fsw, abridged tags, fop, fip, fdp, mxcsr, then
st0-7 in 16 bytes each, then xmm0-15. gdb wants full 16-bit tags, which are computed from the contents as a CPU would.
`decode` keeps what a `g` block does not show (MXCSR_MASK, reserved bytes) from the registers that it is laid over.

Intel SDM volume 1: "FXSAVE Area"; GDB manual: "i386 Features"; layout of the block: `xdbg.rsp.registers`.
"""

from dataclasses import dataclass, field, fields, replace
from struct import Struct
from typing import Final

from xdbg.rsp.registers import G_REGISTERS, G_SIZE
from xdbg.rsp.registers import RBP as GDB_RBP
from xdbg.rsp.registers import RIP as GDB_RIP
from xdbg.rsp.registers import RSP as GDB_RSP

FPU_SIZE: Final = 512
NO_SYSCALL: Final = (1 << 64) - 1
"""orig_rax of a thread that is in no system call."""

_GDB_ORDER: Final = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)
"""Which machine register stands at each place of the `g` block: rax rbx rcx rdx rsi rdi rbp rsp r8-r15."""
_CORE: Final = Struct("<17Q7I")
_X87_CONTROL: Final = Struct("<8I")
_TAIL: Final = Struct("<3Q")
_FXSAVE_HEAD: Final = Struct("<HHBBHIHHIHH")
"""fcw, fsw, tags, reserved, fop, fip low, fcs (fip high), reserved, fdp low, fds, reserved."""
_U64: Final = Struct("<Q")
_ST: Final = 32
_XMM: Final = 160
_XMM_END: Final = _XMM + 256
_MXCSR: Final = 24
_X87_AT: Final = _CORE.size
_CONTROL_AT: Final = _X87_AT + 80
_XMM_AT: Final = _CONTROL_AT + _X87_CONTROL.size
_TAIL_AT: Final = _XMM_AT + 260
assert _TAIL_AT + _TAIL.size == G_SIZE

_EMPTY: Final = 3
_SPECIAL: Final = 2
_ZERO: Final = 1
_VALID: Final = 0

_FRESH_FPU: Final = (
    _FXSAVE_HEAD.pack(0x37F, *[0] * 10) + (0x1F80).to_bytes(4, "little") + (0xFFFF).to_bytes(4, "little")
).ljust(FPU_SIZE, b"\0")
"""The FPU after FNINIT and LDMXCSR of the default: what a program starts with."""


@dataclass(frozen=True, slots=True)
class Registers:
    """Everything that the `g` block shows. `gpr`: RAX RCX RDX RBX RSP RBP RSI RDI R8-R15, the machine's order."""

    gpr: tuple[int, ...] = (0,) * 16
    rip: int = 0
    rflags: int = 2
    cs: int = 0
    ss: int = 0
    ds: int = 0
    es: int = 0
    fs: int = 0
    gs: int = 0
    fpu: bytes = field(default=_FRESH_FPU, repr=False)
    orig_rax: int = NO_SYSCALL
    fs_base: int = 0
    gs_base: int = 0

    def changes(self, new: "Registers") -> list[str]:
        """The names of the fields in which `new` differs, in the order in which they are to be written.

        Selectors come before the bases, because loading fs or gs also loads its base.
        """
        return [name for name in _FIELD_NAMES if getattr(self, name) != getattr(new, name)]


_FIELD_NAMES: Final = tuple(item.name for item in fields(Registers))


def encode(registers: Registers) -> bytes:
    """The `g` block."""
    gpr = registers.gpr
    fpu = registers.fpu
    fcw, fsw, abridged, _, fop, fip, fcs, _, fdp, fds, _ = _FXSAVE_HEAD.unpack_from(fpu)
    tags = _full_tags(fpu, fsw, abridged) if abridged else 0xFFFF
    return b"".join(
        (
            _CORE.pack(
                *[gpr[i] for i in _GDB_ORDER],
                registers.rip,
                registers.rflags & 0xFFFF_FFFF,
                registers.cs,
                registers.ss,
                registers.ds,
                registers.es,
                registers.fs,
                registers.gs,
            ),
            *[fpu[at : at + 10] for at in range(_ST, _XMM, 16)],
            _X87_CONTROL.pack(fcw, fsw, tags, fcs, fip, fds, fdp, fop & 0x7FF),
            fpu[_XMM:_XMM_END],
            fpu[_MXCSR : _MXCSR + 4],
            _TAIL.pack(registers.orig_rax, registers.fs_base, registers.gs_base),
        )
    )


def decode(block: bytes, under: Registers) -> Registers:
    """The registers that a `g` block of 560 bytes describes; what it does not show is taken from `under`."""
    values = _CORE.unpack_from(block)
    gpr = [0] * 16
    for place, index in enumerate(_GDB_ORDER):
        gpr[index] = values[place]
    fpu = bytearray(under.fpu)
    for index in range(8):
        at = _X87_AT + 10 * index
        fpu[_ST + 16 * index : _ST + 16 * index + 10] = block[at : at + 10]
    _, _, _, reserved5, _, _, _, reserved14, _, _, reserved22 = _FXSAVE_HEAD.unpack_from(fpu)
    fcw, fsw, tags, fcs, fip, fds, fdp, fop = _X87_CONTROL.unpack_from(block, _CONTROL_AT)
    _FXSAVE_HEAD.pack_into(
        fpu,
        0,
        fcw & 0xFFFF,
        fsw & 0xFFFF,
        sum(1 << i for i in range(8) if tags >> 2 * i & 3 != _EMPTY),
        reserved5,
        fop & 0x7FF,
        fip,
        fcs & 0xFFFF,
        reserved14,
        fdp,
        fds & 0xFFFF,
        reserved22,
    )
    fpu[_XMM:_XMM_END] = block[_XMM_AT : _XMM_AT + 256]
    fpu[_MXCSR : _MXCSR + 4] = block[_XMM_AT + 256 : _TAIL_AT]
    orig_rax, fs_base, gs_base = _TAIL.unpack_from(block, _TAIL_AT)
    rip, rflags, cs, ss, ds, es, fs, gs = values[16:]
    return Registers(tuple(gpr), rip, rflags, cs, ss, ds, es, fs, gs, bytes(fpu), orig_rax, fs_base, gs_base)


def read_one(registers: Registers, number: int) -> bytes:
    """One register of the `g` block by gdb's number."""
    register = G_REGISTERS[number]
    assert register.offset is not None
    return encode(registers)[register.offset : register.offset + register.size]


def with_one(registers: Registers, number: int, value: bytes) -> Registers:
    """The registers with one of the `g` block's set; `value` has that register's size."""
    register = G_REGISTERS[number]
    assert register.offset is not None
    if number == GDB_RIP:
        return replace(registers, rip=int.from_bytes(value, "little"))
    block = bytearray(encode(registers))
    block[register.offset : register.offset + register.size] = value
    return decode(bytes(block), registers)


def expedited(rip: int, rsp: int, rbp: int) -> dict[int, bytes]:
    """What a stop reply sends along: the registers that gdb wants at each stop."""
    return {GDB_RBP: _U64.pack(rbp), GDB_RSP: _U64.pack(rsp), GDB_RIP: _U64.pack(rip)}


def _full_tags(fpu: bytes, fsw: int, abridged: int) -> int:
    """The 16-bit tag word: two bits for each physical register, of which st0 is number TOP."""
    top = fsw >> 11 & 7
    tags = 0
    for physical in range(8):
        if abridged >> physical & 1:
            at = _ST + 16 * ((physical - top) & 7)
            tag = _tag(fpu[at : at + 10])
        else:
            tag = _EMPTY
        tags |= tag << 2 * physical
    return tags


def _tag(value: bytes) -> int:
    """Valid, zero or special: what a CPU computes for the contents of a register."""
    fraction = int.from_bytes(value[:8], "little")
    exponent = int.from_bytes(value[8:], "little") & 0x7FFF
    if exponent == 0x7FFF:
        return _SPECIAL
    if exponent == 0:
        return _SPECIAL if fraction else _ZERO
    return _VALID if fraction >> 63 else _SPECIAL
