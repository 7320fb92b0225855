"""The registers as lldb's qRegisterInfo describes them: `registers` with what gdb's description leaves unsaid.

Numbers in debug information are those of the System V ABI for x86-64, section "DWARF Definition", for DWARF and for
GCC's unwind tables alike.
"""

from functools import cache
from typing import Final

from xdbg.rsp.registers import BY_NAME, REGISTERS

_DWARF: Final = {
    name: number
    for number, name in enumerate(
        ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{index}" for index in range(8, 16)), "rip"]
        + [f"xmm{index}" for index in range(16)]
        + [f"st{index}" for index in range(8)]
    )
} | {
    "eflags": 49,
    "es": 50,
    "cs": 51,
    "ss": 52,
    "ds": 53,
    "fs": 54,
    "gs": 55,
    "fs_base": 58,
    "gs_base": 59,
    "mxcsr": 64,
}

_ALTERNATIVE: Final = {
    "rip": "pc",
    "rsp": "sp",
    "rbp": "fp",
    "eflags": "flags",
    "rdi": "arg1",
    "rsi": "arg2",
    "rdx": "arg3",
    "rcx": "arg4",
    "r8": "arg5",
    "r9": "arg6",
}
"""Another name of the register, and its role in any machine."""

_SETS: Final = (
    (BY_NAME["gs"].number, "General Purpose Registers"),
    (BY_NAME["mxcsr"].number, "Floating Point Registers"),
    (BY_NAME["gs_base"].number, "Thread Registers"),
    (REGISTERS[-1].number, "System Registers"),
)
"""Sets by the number of their last register."""


@cache
def register_info(number: int) -> bytes | None:
    """The row of ``key:value;`` for a register; None if there is none of that number."""
    if not 0 <= number < len(REGISTERS):
        return None
    register = REGISTERS[number]
    is_vector = register.bitsize > 64
    fields: dict[str, str | int] = {"name": register.name}
    alternative = _ALTERNATIVE.get(register.name)
    if alternative is not None:
        fields["alt-name"] = alternative
    fields["bitsize"] = register.bitsize
    if register.offset is not None:
        fields["offset"] = register.offset
    fields["encoding"] = "vector" if is_vector else "uint"
    fields["format"] = "vector-uint8" if is_vector else "hex"
    fields["set"] = next(name for last, name in _SETS if number <= last)
    if register.name in _DWARF:
        fields["gcc"] = fields["dwarf"] = _DWARF[register.name]
    if alternative is not None:
        fields["generic"] = alternative
    return "".join(f"{key}:{value};" for key, value in fields.items()).encode()
