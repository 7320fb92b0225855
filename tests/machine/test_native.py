"""The emulated CPU ends where the host's processor does: the same exception, registers and memory, case by case.

What a case lists in `apart` the two do not do alike, and why is said beside it.
"""

import os
import platform
import shutil
import struct
from functools import cache

import pytest

from .conftest import CODE, DATA, assemble
from .native import State, run_emulated, run_natively

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("gcc") is None or not hasattr(os, "fork"),
    reason="the oracle is an x86-64 processor",
)

NOT_CANONICAL = 0x1234_5678_90AB_CDEF
ARITHMETIC = 0x8D5
TARGET = CODE + 20

CASES: dict[str, State] = {}


def case(
    name: str, source: str, rflags: int = 0x202, mxcsr: int = 0x1F80, xmm: bytes = b"", data: bytes = b"", **gpr: int
):
    state = State(assemble(source), rflags=rflags, mxcsr=mxcsr, xmm=xmm.ljust(256, b"\0"), data=data.ljust(256, b"\0"))
    CASES[name] = state.with_registers(**gpr)


for _source in (
    "push rax",
    "pop rax",
    "call rcx",
    "ret",
    "ret 8",
    "mov rax, [rsp]",
    "mov rax, [rbp]",
    "mov [rbp], rax",
    "mov rax, ds:[rbp]",
    "mov rax, [rax]",
    "mov rax, ss:[rax]",
    "mov rax, [rax + rbp]",
    "mov rax, [rsp + rax * 2]",
    "mov rax, [rbp + rax * 2 + 1]",
    "mov rax, [rax * 2 + 1]",
    "mov rax, gs:[rax]",
    "mov rax, gs:[rbp]",
    "mov rax, [r12]",
    "mov rax, [r13]",
    "leave",
    "enter 8, 0",
    "push [rax]",
    "pop [rax]",
    "call [rax]",
    "call [rbp]",
    "jmp [rbp]",
    "pushfq",
    "popfq",
    "iretq",
    "push fs",
    "pop gs",
    "lodsq",
    "stosb",
    "movsb",
    "xlat",
    "fxsave [rax]",
    "fld tbyte ptr [rbp]",
    "movups xmm0, [rax]",
    "movups [rsp], xmm0",
    "pshufb xmm0, [rbp + 1]",
    "pcmpestri xmm0, [rbp], 1",
    ".byte 0xf0; cmpxchg [rbp], rcx",
    "cli",
    "hlt",
    "rdmsr",
    "mov cr0, rax",
    "mov dr7, rax",
    "lgdt [rsp]",
    "invlpg [rax]",
    "rdpmc",
    "wbinvd",
    "clts",
):
    _all = dict.fromkeys(("rax", "rbx", "rsp", "rbp", "rsi", "rdi", "r12", "r13"), NOT_CANONICAL)
    case(f"no canonical address: {_source}", _source, **_all, rcx=TARGET)

for _source in (
    "jmp rax",
    "push rax; ret",
    "push rax; inc ebx; ret 8",
    f"mov [{DATA}], rax; jmp [{DATA}]",
    "inc ebx; 1: inc ebx; cmp ebx, 4; jne 1b; jmp rax",
):
    case(f"branch to no canonical address: {_source}", _source, rax=NOT_CANONICAL)

_NUMBERS = struct.pack("<8I", *range(3, 11)) * 8
for _offset in (0, 1, 2, 4, 8):
    for _source in (
        "mov al, [rdi]",
        "mov ax, [rdi]",
        "mov eax, [rdi]",
        "mov rax, [rdi]",
        "mov [rdi], eax",
        "movups xmm0, [rdi]",
        "movups [rdi], xmm0",
        "movdqu xmm0, [rdi]",
        "movdqu [rdi], xmm0",
        "lddqu xmm0, [rdi]",
        "movq xmm0, [rdi]",
        "movss xmm0, [rdi]",
        "movsd xmm0, [rdi]",
        "movlps xmm0, [rdi]",
        "movhps [rdi], xmm0",
        "fld qword ptr [rdi]",
        "fld tbyte ptr [rdi]",
        "fild word ptr [rdi]",
        "fld1; fistp dword ptr [rdi]",
        "stmxcsr [rdi]",
        "bt [rdi], rax",
        "cmpxchg8b [rdi]",
        "lock xadd [rdi], rax",
        "mov rsi, rdi; movsq",
        "mov rsi, rdi; cmpsd",
        "mov ecx, 2; rep stosq",
        "mov rsp, rdi; push rax",
        "mov rsp, rdi; pop rax",
        "mov rsp, rdi; call .+5",
        "mov rsp, rdi; pushfq",
        "mov rsp, rdi; enter 16, 0",
        "pinsrw xmm0, [rdi], 1",
        "movnti [rdi], rax",
        "crc32 rax, qword ptr [rdi]",
        "cvtsi2sd xmm0, qword ptr [rdi]",
        "pmovzxbd xmm0, [rdi]",
        "prefetcht0 [rdi]",
    ):
        case(f"AC, {_offset} bytes off: {_source}", _source, 0x40202, data=_NUMBERS, rdi=DATA + 64 + _offset)

_SET_AC = "pushfq; or dword ptr [rsp], 0x40000; popfq"
_CLEAR_AC = "pushfq; and dword ptr [rsp], ~0x40000; popfq"
_LOAD = f"mov rdi, {DATA + 1}; mov eax, [rdi]"
case("AC set by popf", f"{_LOAD}; {_SET_AC}; inc ebx; {_LOAD}")
case("AC set and cleared by popf", f"{_SET_AC}; inc ebx; {_CLEAR_AC}; {_LOAD}; {_SET_AC}; inc ebx; jmp 1f; 1: {_LOAD}")
case("AC in a loop", f"mov ecx, 3; 1: {_LOAD}; {_SET_AC}; {_CLEAR_AC}; dec ecx; jnz 1b; {_SET_AC}; {_LOAD}")


for _source in (
    ".byte 0xf0; mov [rdi], eax",
    ".byte 0xf0; test [rdi], eax",
    ".byte 0xf0; cmp [rdi], eax",
    ".byte 0xf0; add eax, eax",
    ".byte 0xf0; bt [rdi], eax",
    ".byte 0xf0; shl dword ptr [rdi], 1",
    ".byte 0xf0; lea eax, [rdi]",
    ".byte 0xf0; push rax",
    ".byte 0xf0; movups xmm0, [rdi]",
    ".byte 0xf0; add [rdi], eax",
    ".byte 0xf0; sbb byte ptr [rdi], 1",
    ".byte 0xf0; bts dword ptr [rdi], 3",
    ".byte 0xf0; neg qword ptr [rdi]",
    ".byte 0xf0; dec word ptr [rdi]",
    "xchg [rdi], eax",
    ".byte 0xf0; xchg [rdi], ax",
    ".byte 0xf0; cmpxchg16b [rdi]",
    ".byte 0xf0, 0x90",
    ".byte 0xc6, 0xf8, 0; nop",
    ".byte 0x8f, 0xc8; nop",
    ".byte 0x66, 0x0f, 0xae, 0xf0",
    ".byte 0x0f, 0xff, 0",
    ".byte 0x0f, 0xb9, 0",
    ".byte 0x8d, 0xc0",
    ".byte 0x8e, 0xc8",
    ".byte 0xce",
    ".byte 0x06",
    ".byte 0xd6",
    ".byte 0x0f, 0x0f, 0xc0, 0x9e",
    ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90; nop",
    ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90; nop",
    "monitor",
    "mwait",
    "clac",
    ".byte 0x0f, 0x35",
    ".byte 0x48, 0x0f, 0x07",
    "smsw eax",
):
    case(f"valid or not: {_source}", _source, rdi=DATA, data=bytes(range(64)))

_SINGLES = (
    (1, 2, 3, 4),
    (0, 1, 0, 2),
    (-1, 0, 0, 0),
    (3e38, 1e30, 5, 6),
    None,
    (1e-30, 1, 1, 1),
    (3,) * 4,
    (1.5, 1, 1, 1),
)
_SIGNALLING = struct.pack("<4I", 0x7FA0_0000, 0, 0, 0)
_XMM = b"".join(_SIGNALLING if value is None else struct.pack("<4f", *value) for value in _SINGLES)
for _mxcsr in (0x1F80, 0, 0x1D80, 0x1F00, 0x1B80, 0x1780, 0x0F80, 0x9F80, 0x8000):
    for _source in (
        "divss xmm0, xmm1",
        "divps xmm0, xmm1",
        "addps xmm0, xmm1",
        "sqrtss xmm0, xmm2",
        "cvtss2si eax, xmm3",
        "comiss xmm0, xmm4",
        "ucomiss xmm0, xmm4",
        "mulss xmm3, xmm3",
        "mulss xmm5, xmm5",
        "divss xmm0, xmm6",
        "cvttps2dq xmm0, xmm3",
        "maxss xmm0, xmm4",
        "cmpltss xmm0, xmm4",
        "roundss xmm0, xmm7, 0",
        "dpps xmm0, xmm1, 0xff",
        "haddps xmm0, xmm1",
        "mov rax, 0x7fffffffffffffff; cvtsi2sd xmm0, rax",
    ):
        case(f"MXCSR {_mxcsr:#x}: {_source}", _source, mxcsr=_mxcsr, xmm=_XMM)

_LOAD_MXCSR = f"mov [{DATA + 8}], eax; nop; ldmxcsr [{DATA + 8}]; nop"
case(
    "flags of MXCSR are raised and taken out",
    f"divss xmm0, xmm1; stmxcsr [{DATA}]; mov eax, 0x1f80; {_LOAD_MXCSR}; stmxcsr [{DATA + 4}]; divss xmm2, xmm6;"
    f"stmxcsr [{DATA + 16}]",
    xmm=_XMM,
)
case(
    "exceptions unmasked by ldmxcsr",
    f"divss xmm0, xmm6; xor eax, eax; {_LOAD_MXCSR}; inc ebx; divss xmm2, xmm6",
    xmm=_XMM,
)
case("exceptions masked by ldmxcsr", f"mov eax, 0x1f80; {_LOAD_MXCSR}; inc ebx; divss xmm2, xmm6", mxcsr=0, xmm=_XMM)
_LOOP = "mov ecx, 5; 1: inc rax; mulss xmm0, xmm0; mulss xmm0, xmm3; dec ecx; jnz 1b"
case("an overflow in a loop", _LOOP, mxcsr=0x1B80, xmm=_XMM)


@cache
def natively() -> dict[str, State]:
    return dict(zip(CASES, run_natively(list(CASES.values())), strict=True))


def seen(state: State) -> dict[str, object]:
    return {
        "vector": state.vector,
        "error": state.error,
        "rip": hex(state.rip),
        "rflags": hex(state.rflags & ~ARITHMETIC),
        "gpr": [hex(value) for value in state.gpr],
        "cr2": state.cr2 if state.vector == 14 else 0,
        "mxcsr": hex(state.mxcsr),
        "xmm": state.xmm.hex(),
        "data": state.data.hex(),
        "stack": state.stack.hex(),
    }


@pytest.mark.parametrize("name", CASES)
def test_the_emulated_cpu_ends_as_the_hosts_does(name: str):
    assert seen(run_emulated(CASES[name])) == seen(natively()[name])
