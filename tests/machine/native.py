"""Machine code on the host's own processor and on the emulated one, both seen in the same form (native.c)."""

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from xdbg.machine.exits import ExceptionExit
from xdbg.machine.registers import GPR_NAMES

from .conftest import CODE, DATA, RW, RX, STACK_TOP, Guest

_STATE = struct.Struct("<256s16Q8Q256s256s64s")
_MXCSR_AT, _XMM_AT = 24, 160
_FLAT_CODE_32, _FLAT_DATA_32, _FLAT_CODE = 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF, 0x00AF_FB00_0000_FFFF
_GDT = 0x70_0000
_USER32_CS, _USER_DS, _USER_CS = 0x23, 0x2B, 0x33
"""Of Linux: asm/segment.h."""


@dataclass(frozen=True)
class State:
    """`struct state` of native.c: how the code begins, or where and how its first exception left it."""

    code: bytes
    gpr: tuple[int, ...] = (0, 0, 0, 0, STACK_TOP - 32, *[0] * 11)
    rip: int = CODE
    rflags: int = 0x202
    vector: int = 0
    error: int = 0
    cr2: int = 0
    mxcsr: int = 0x1F80
    fcw: int = 0x37F
    compat: int = 0
    xmm: bytes = bytes(256)
    data: bytes = bytes(256)
    stack: bytes = field(default=bytes(64))

    def with_registers(self, **values: int) -> "State":
        gpr = list(self.gpr)
        for name, value in values.items():
            gpr[GPR_NAMES.index(name)] = value & (1 << 64) - 1
        return replace(self, gpr=tuple(gpr))

    def pack(self) -> bytes:
        words = (*self.gpr, self.rip, self.rflags, self.vector, self.error, self.cr2, self.mxcsr, self.fcw, self.compat)
        return _STATE.pack(self.code.ljust(256, b"\xcc"), *words, self.xmm, self.data, self.stack)

    @classmethod
    def unpack(cls, raw: bytes) -> "State":
        code, *words, xmm, data, stack = _STATE.unpack(raw)
        rip, rflags, vector, error, cr2, mxcsr, fcw, compat = words[16:]
        return cls(code, tuple(words[:16]), rip, rflags, vector, error, cr2, mxcsr, fcw, compat, xmm, data, stack)


@cache
def _oracle() -> Path:
    program = Path(mkdtemp(prefix="xdbg-native-")) / "native"
    source = Path(__file__).with_name("native.c")
    subprocess.run(["gcc", "-O1", "-mno-red-zone", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


def run_natively(states: Sequence[State]) -> list[State]:
    """Where the host's processor ends with each."""
    done = subprocess.run(
        [_oracle()], input=b"".join(state.pack() for state in states), stdout=subprocess.PIPE, check=True
    )
    raw = done.stdout
    return [State.unpack(raw[at : at + _STATE.size]) for at in range(0, len(raw), _STATE.size)]


def run_emulated(state: State) -> State:
    """Where the emulated processor ends."""
    made = Guest()
    made.ram.write(made.map(CODE, RX), state.code.ljust(4096, b"\xcc"))
    data = made.map(DATA, RW)
    made.ram.write(data, state.data)
    frames = [made.map(STACK_TOP - page * 4096, RW) for page in range(1, 5)]
    stack = frames[0] + 4096 - 64
    made.ram.write(stack, state.stack)
    cpu = made.cpu
    for number, value in enumerate(state.gpr):
        cpu.gpr[number] = value
    cpu.rip, cpu.rflags = state.rip, state.rflags
    if state.compat:
        table = struct.pack("<7Q", 0, 0, 0, 0, _FLAT_CODE_32, _FLAT_DATA_32, _FLAT_CODE)
        made.ram.write(made.map(_GDT, RW), table)
        cpu.set_gdt(_GDT, len(table) - 1)
        cpu.load_code(_USER32_CS, _FLAT_CODE_32, _USER_DS, _FLAT_DATA_32)
        cpu.ds = cpu.es = _USER_DS
    fpu = bytearray(cpu.read_fpu())
    fpu[0:2] = struct.pack("<H", state.fcw)
    fpu[_MXCSR_AT : _MXCSR_AT + 4] = struct.pack("<I", state.mxcsr)
    fpu[_XMM_AT : _XMM_AT + 256] = state.xmm
    cpu.write_fpu(bytes(fpu))
    came = made.run_to_end()
    assert isinstance(came, ExceptionExit), came
    fpu = bytearray(cpu.read_fpu())
    return State(
        state.code.ljust(256, b"\xcc"),
        tuple(cpu.gpr),
        cpu.rip,
        cpu.rflags,
        came.vector,
        came.error_code,
        came.cr2 or 0,
        *struct.unpack_from("<I", fpu, _MXCSR_AT),
        *struct.unpack_from("<H", fpu, 0),
        state.compat,
        bytes(fpu[_XMM_AT : _XMM_AT + 256]),
        bytes(made.ram.read(data, 256)),
        bytes(made.ram.read(stack, 64)),
    )
