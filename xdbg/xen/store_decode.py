"""The instructions by which a kernel writes to its page tables, decoded. Intel SDM volume 2, "Instruction Format".

Xen uses its x86 emulator here (x86_emulate.c). These are the stores of at most 8 bytes that kernels use on page table
entries: mov, movnti, xchg, cmpxchg, xadd, and, or, xor, add, sub, adc, sbb, inc, dec, not, neg, bts, btr, btc, stos and
movs, locked or not, in any addressing form.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from xdbg.machine.registers import RAX

from .vcpu import Vcpu

_U64: Final = (1 << 64) - 1
_OPERAND_SIZE: Final = 0x66
_ADDRESS_SIZE: Final = 0x67
_REPEAT: Final = frozenset({0xF2, 0xF3})
_SEGMENTS: Final = {0x26: "", 0x2E: "", 0x36: "", 0x3E: "", 0x64: "fs", 0x65: "gs"}
"""Prefixes that name a segment; those of es, cs, ss and ds mean nothing in 64-bit mode."""
_PREFIXES: Final = frozenset({_OPERAND_SIZE, _ADDRESS_SIZE, 0xF0, *_REPEAT, *_SEGMENTS})
_TWO_BYTES: Final = 0x0F
_MOVNTI: Final = 0x0FC3
_MANDATORY: Final = _REPEAT | {_OPERAND_SIZE}
"""Prefixes with which movnti is another instruction, or none."""
_ARITHMETIC: Final = ("add", "or", "adc", "sbb", "and", "sub", "xor")
"""By bits 3 to 5 of the opcode, or the reg field of the ModRM byte."""

BIT_OPERATIONS: Final = frozenset({"bts", "btr", "btc"})


@dataclass(frozen=True, slots=True)
class Register:
    """A general register, or a part of one: `size` bytes of `Cpu.gpr[index]` from bit `shift` on."""

    index: int
    size: int
    shift: int = 0

    def read(self, vcpu: Vcpu) -> int:
        """Its value."""
        return int(vcpu.domain.hv.cpu.gpr[self.index]) >> self.shift & (1 << 8 * self.size) - 1

    def write(self, vcpu: Vcpu, value: int) -> None:
        """Give it a value: 32 bits clear the upper half, 8 and 16 leave the rest alone."""
        gpr = vcpu.domain.hv.cpu.gpr
        if self.size >= 4:
            gpr[self.index] = value
        else:
            mask = (1 << 8 * self.size) - 1 << self.shift
            gpr[self.index] = gpr[self.index] & ~mask & _U64 | value << self.shift


@dataclass(frozen=True, slots=True)
class Store:
    """A decoded store: operation `name` on `size` bytes at segment + base + index * scale + displacement.

    `source` is a register, an immediate value, or None. `address_size` is 8, or 4 with an address-size prefix.
    """

    name: str
    length: int
    size: int
    source: Register | int | None
    base: Register | None = None
    index: Register | None = None
    scale: int = 1
    displacement: int = 0
    rip_relative: bool = False
    segment: str = ""
    address_size: int = 8
    repeated: bool = False

    @property
    def is_string(self) -> bool:
        """Whether it is stos or movs, which move on in memory."""
        return self.name in {"stos", "movs"}

    def address(self, vcpu: Vcpu) -> int:
        """The address that it writes to."""
        cpu = vcpu.domain.hv.cpu
        address = self.displacement
        if self.base is not None:
            address += self.base.read(vcpu)
        if self.index is not None:
            address += self.index.read(vcpu) * self.scale
        if self.rip_relative:
            address += cpu.rip + self.length
        if self.name in BIT_OPERATIONS and isinstance(self.source, Register):
            bits = 8 * self.size
            offset = self.source.read(vcpu)
            address += ((offset ^ 1 << bits - 1) - (1 << bits - 1)) // bits * self.size
        address &= (1 << 8 * self.address_size) - 1
        match self.segment:
            case "fs":
                address += cpu.fs_base
            case "gs":
                address += cpu.gs_base
        return int(address) & _U64


@dataclass(frozen=True, slots=True)
class _Form:
    """How an opcode is decoded: `names` by the ModRM byte's reg field (one for all if there is just one).

    `source`: "reg" the ModRM byte's reg field, "imm" an immediate of the operand's size, "imm8" one byte, "" none,
    "rax" with the address in the instruction, "string" rdi and rax or rsi.
    """

    names: tuple[str | None, ...]
    source: str = "reg"
    byte: bool = False


def _forms() -> dict[int, _Form]:
    """Every opcode that is a store; those of two bytes are 0x0F00 and the second byte."""
    forms = {}
    for number, name in enumerate(_ARITHMETIC):
        forms[number << 3] = _Form((name,), byte=True)
        forms[number << 3 | 1] = _Form((name,))
    pairs: dict[int, tuple[tuple[str | None, ...], str]] = {
        0x80: ((*_ARITHMETIC, None), "imm"),
        0x86: (("xchg",), "reg"),
        0x88: (("mov",), "reg"),
        0xA2: (("mov",), "rax"),
        0xA4: (("movs",), "string"),
        0xAA: (("stos",), "string"),
        0xC6: (("mov", None, None, None, None, None, None, None), "imm"),
        0xF6: ((None, None, "not", "neg", None, None, None, None), ""),
        0xFE: (("inc", "dec", None, None, None, None, None, None), ""),
        0x0FB0: (("cmpxchg",), "reg"),
        0x0FC0: (("xadd",), "reg"),
    }
    for opcode, (names, source) in pairs.items():
        forms[opcode] = _Form(names, source, byte=True)
        forms[opcode | 1] = _Form(names, source)
    forms[0x83] = _Form((*_ARITHMETIC, None), "imm8")
    forms[_MOVNTI] = _Form(("mov",))
    forms[0x0FAB] = _Form(("bts",))
    forms[0x0FB3] = _Form(("btr",))
    forms[0x0FBB] = _Form(("btc",))
    forms[0x0FBA] = _Form((None, None, None, None, None, "bts", "btr", "btc"), "imm8")
    return forms


_FORMS: Final = _forms()


@lru_cache(maxsize=1024)
def decode_store(code: bytes) -> Store | None:
    """The store that the bytes begin with; None if they are something else. A pure function, so remembered."""
    try:
        store = _Decoder(code).decode()
    except IndexError:
        return None
    return store if store is not None and store.length <= len(code) else None


class _Decoder:
    """Reads one instruction from the front. IndexError where the bytes end."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.at = 0
        self.rex = 0

    def byte(self) -> int:
        self.at += 1
        return self.code[self.at - 1]

    def signed(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self.code[self.at - size : self.at], "little", signed=True)

    def register(self, number: int, size: int) -> Register:
        """The register that an encoding names: without REX, byte registers 4 to 7 are ah, ch, dh and bh."""
        if size == 1 and not self.rex and 4 <= number < 8:
            return Register(number - 4, 1, 8)
        return Register(number, size)

    def decode(self) -> Store | None:
        """The store, or None."""
        prefixes = set()
        segment = ""
        while self.code[self.at] in _PREFIXES:
            prefix = self.byte()
            prefixes.add(prefix)
            segment = _SEGMENTS.get(prefix) or segment
        if self.code[self.at] & 0xF0 == 0x40:
            self.rex = self.byte()
        opcode = self.byte()
        if opcode == _TWO_BYTES:
            opcode = opcode << 8 | self.byte()
        form = _FORMS.get(opcode)
        if form is None or (opcode == _MOVNTI and prefixes & _MANDATORY):
            return None
        size = 1 if form.byte else 8 if self.rex & 8 else 2 if _OPERAND_SIZE in prefixes else 4
        address_size = 4 if _ADDRESS_SIZE in prefixes else 8
        match form.source:
            case "string":
                return self._string(form, size, address_size, segment, repeated=bool(prefixes & _REPEAT))
            case "rax":
                address = self.signed(address_size)
                source = Register(RAX, size)
                name = form.names[0] or ""
                return Store(
                    name, self.at, size, source, displacement=address, segment=segment, address_size=address_size
                )
        return self._modrm(form, size, address_size, segment)

    def _string(self, form: _Form, size: int, address_size: int, segment: str, *, repeated: bool) -> Store | None:
        name = form.names[0] or ""
        if segment:
            return None
        source = Register(RAX, size) if name == "stos" else None
        rdi = Register(7, address_size)
        return Store(name, self.at, size, source, base=rdi, address_size=address_size, repeated=repeated)

    def _modrm(self, form: _Form, size: int, address_size: int, segment: str) -> Store | None:
        """ModRM, SIB, displacement and immediate. SDM volume 2, "ModR/M and SIB Bytes"."""
        modrm = self.byte()
        mod, reg, rm = modrm >> 6, modrm >> 3 & 7, modrm & 7
        name = form.names[reg if len(form.names) > 1 else 0]
        if name is None or mod == 3:
            return None
        base: Register | None = None
        index: Register | None = None
        scale = 1
        rip_relative = False
        displacement_size = (0, 1, 4)[mod]
        if rm == 4:
            sib = self.byte()
            rm = sib & 7
            number = sib >> 3 & 7 | (self.rex & 2) << 2
            if number != 4:
                index, scale = Register(number, address_size), 1 << (sib >> 6)
            if rm == 5 and mod == 0:
                displacement_size = 4
            else:
                base = Register(rm | (self.rex & 1) << 3, address_size)
        elif rm == 5 and mod == 0:
            displacement_size, rip_relative = 4, True
        else:
            base = Register(rm | (self.rex & 1) << 3, address_size)
        displacement = self.signed(displacement_size)
        source: Register | int | None = None
        match form.source:
            case "reg":
                source = self.register(reg | (self.rex & 4) << 1, size)
            case "imm":
                source = self.signed(min(size, 4)) & (1 << 8 * size) - 1
            case "imm8":
                source = self.signed(1) & (1 << 8 * size) - 1
        return Store(name, self.at, size, source, base, index, scale, displacement, rip_relative, segment, address_size)
