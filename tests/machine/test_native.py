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


_SET_AC_32, _CLEAR_AC_32 = (source.replace("fq", "fd").replace("rsp", "esp") for source in (_SET_AC, _CLEAR_AC))
_STACK_32 = "mov ebx, esp; sub esp, 16"
for _source in (
    "inc eax; dec ebx; inc ax; dec cx",
    "push eax; push cx; pop dx; pop eax; push 5; push -1; pop ebx",
    "pushad; popad; push cs; pop eax; push ss; pop ss; push ds; pop ds; push es; pop es",
    "pushfd; pop eax; pushf; pop bx",
    "mov al, 0x9a; add al, 0x38; daa; sub al, 0x47; das; aaa; aas; mov ax, 123; aam; aad; .byte 0xd6",
    "into; mov al, 127; add al, 1; into",
    (
        f"mov dword ptr [{DATA}], 2; mov dword ptr [{DATA + 4}], 9; mov eax, 5; bound eax, [{DATA}]; mov al, 1;"
        f" bound eax, [{DATA}]"
    ),
    "mov ax, 0x1230; mov bx, 0x1233; arpl ax, bx",
    ".byte 0x82, 0xc0, 5",
    "aam 0",
    "mov bx, 0x10; mov si, 0x20; lea eax, [bx + si + 5]; lea cx, [bp + di]",
    "lea ax, [bx]; .byte 0x67, 0x8d, 0x06, 0x34, 0x12; .byte 0x67, 0x8d, 0x8e, 0x34, 0x12",
    f"mov eax, [{DATA + 4}]; mov [{DATA + 32}], al; mov eax, 3; mov ebx, [{DATA} + eax * 4]; mov ecx, ss:[{DATA + 1}]",
    f"mov ebp, {DATA}; mov eax, [ebp + 8]; mov ecx, [ebp + eax]; mov edx, [ecx * 2 + {DATA}]",
    f"mov esi, {DATA}; mov edi, {DATA + 64}; mov ecx, 5; rep movsd; mov cl, 3; rep stosb; lodsw; scasd; cmpsb",
    f"mov ebx, {DATA}; mov al, 3; xlat; mov esi, ebx; addr16 lodsb; nop",
    f"mov ecx, 0x10003; mov edi, {DATA}; jcxz 2f; inc edx; 2: loop 2b; inc edx",
    "mov ecx, 0x10002; 1: inc eax; addr16 loop 1b; jcxz 2f; inc eax; 2: inc eax",
    "call 1f; 1: pop eax; jmp 2f; int3; 2: call 3f; int3; 3: ret 4",
    "enter 8, 1; leave",
    "mov eax, -1; mov ecx, 1; add ecx, eax; adc edx, 0; imul eax, ebx, 3; mul ebx; cdq; shld eax, ecx, 5; bswap edx",
    "cmpxchg8b [esp]; xadd eax, ebx; bsf eax, ebx; popcnt ecx, ebx; crc32 eax, bl; cmovz eax, ebx; setc dl",
    f"movups xmm0, [{DATA}]; addps xmm7, xmm0; movups [{DATA + 4}], xmm7; fld dword ptr [{DATA}]; fstp tbyte ptr [esp]",
    "mov eax, [0x10]",
    "mov eax, 0xfffffff0; mov [eax], eax",
    "mov eax, 0xfffffff0; mov ebx, 0x600020; mov ecx, [eax + ebx + 8]",
    "jmp 0x12345678",
    "mov eax, 0x80000000; jmp eax",
    "mov esp, 0x10; push eax",
    "xor ecx, ecx; div ecx",
    "cli",
    "hlt",
    "mov ds, esp",
    "mov cs, eax",
    "mov ss, edx",
    "mov eax, cr0",
    "mov dr0, eax",
    "rdmsr",
    "lldt ax",
    "int3",
    "ud2",
    ".byte 0xf0; mov [esp], eax",
    ".byte 0xf0; inc eax",
    ".byte 0xf0; inc dword ptr [esp]",
    ".byte 0xf0; les eax, [esp]",
    ".byte 0x8f, 0xc8",
    (
        f"{_SET_AC_32}; mov eax, [{DATA + 4}]; {_CLEAR_AC_32}; mov eax, [{DATA + 5}]; {_SET_AC_32}; inc eax;"
        f" mov eax, [{DATA + 5}]"
    ),
    f"{_STACK_32}; {_SET_AC_32}; mov bx, 1; mov si, 0; mov eax, 1; push ax; push eax",
    "pushfd; or dword ptr [esp], 0x100; popfd; nop; nop",
    "pushfd; or dword ptr [esp], 0x100; popfd; push ss; pop ss; nop; nop",
    "pushfd; push cs; call 1f; jmp 2f; 1: iretd; 2: inc eax",
    "push cs; push 0x400010; .byte 0xcb",
    "mov eax, 0x1f00; push eax; ldmxcsr [esp]; xorps xmm0, xmm0; divss xmm0, xmm0",
    (
        "mov eax, 0x1d80; push eax; ldmxcsr [esp]; xorps xmm1, xmm1; inc ebx;"
        " mov edx, 1; cvtsi2ss xmm0, edx; divss xmm0, xmm1"
    ),
):
    _gpr = {
        "rax": 0x1122_3344,
        "rbx": 0x99AA_BBCC,
        "rcx": 7,
        "rdx": 0x80,
        "rsi": DATA,
        "rdi": DATA + 128,
        "r9": 1 << 40,
    }
    CASES[f"32-bit: {_source}"] = State(
        assemble(f".code32\n{_source}"), data=bytes(range(1, 65)).ljust(256, b"\0"), compat=1
    ).with_registers(**_gpr)


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
