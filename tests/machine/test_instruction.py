"""Instruction lengths agree with a disassembler: each encoding, and whatever a compiler makes."""

import ctypes
import random
import sys
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile

from xdbg.machine import clock


@pytest.fixture(scope="module")
def disassembler() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


@pytest.fixture(scope="module")
def disassembler_32() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)


def length(code: bytes, *, compat: bool = False) -> int:
    function = clock.load_library().xdbg_instruction_length
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_bool]
    function.restype = ctypes.c_uint
    return int(function(code, len(code), compat))


def disassembled(disassembler: capstone.Cs, code: bytes) -> tuple[int, str] | None:
    return next(((size, name) for _, size, name, _ in disassembler.disasm_lite(code, 0, 1)), None)


# Encodings of which the disassembler thinks otherwise than the engine, or that the engine does not have.
OTHERWISE = (
    "xacquire",
    "xrelease",
    "bnd",
    "ud",
    "xbegin",
    "xabort",
    "extrq",
    "insertq",
    "jmpe",
    "getsec",
    "sysexit",
    "vmread",
)


@pytest.mark.parametrize("prefix", [b"", b"\x66", b"\x48", b"\x41", b"\xf2", b"\xf3", b"\x67", b"\x66\x48", b"\x64"])
def test_each_opcode_has_the_length_that_the_disassembler_says(disassembler, prefix):
    choose = random.Random(1)
    compared = 0
    for lead in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"):
        for opcode in range(256):
            if not lead and opcode in (0x0F, 0xC4, 0xC5, 0x62, 0x8F):
                continue
            for _ in range(12):
                code = prefix + lead + bytes([opcode]) + choose.randbytes(15)
                known = disassembled(disassembler, code[:15])
                if known is None or known[1].startswith(OTHERWISE):
                    continue
                near_branch = (not lead and opcode in (0xE8, 0xE9)) or (lead == b"\x0f" and 0x80 <= opcode < 0x90)
                if (near_branch or opcode in (0xC2, 0xCA)) and b"\x66" in prefix:
                    continue  # Intel ignores the prefix of a branch, AMD does not
                assert length(code) == known[0], f"{code.hex()} {known}"
                compared += 1
    assert compared > 3000


@pytest.mark.parametrize("prefix", [b"", b"\x66", b"\xf2", b"\xf3", b"\x67", b"\x66\x67", b"\x64", b"\x26"])
def test_each_opcode_of_32_bit_code_has_the_length_that_the_disassembler_says(disassembler_32, prefix):
    choose = random.Random(1)
    compared = 0
    for lead in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"):
        for opcode in range(256):
            if not lead and opcode in (0x0F, 0x8F):
                continue
            for _ in range(12):
                code = prefix + lead + bytes([opcode]) + choose.randbytes(15)
                known = disassembled(disassembler_32, code[:15])
                if known is None or known[1].startswith(OTHERWISE):
                    continue
                if not lead and opcode in (0x62, 0xC4, 0xC5) and code[len(prefix) + 1] >= 0xC0:
                    continue  # VEX, EVEX
                assert length(code, compat=True) == known[0], f"{code.hex()} {known}"
                compared += 1
    assert compared > 3000


def test_compiled_code_is_cut_as_the_disassembler_cuts_it(disassembler):
    with Path(sys.executable).resolve().open("rb") as file:
        elf = ELFFile(file)
        section = elf.get_section_by_name(".text")
        code = section.data()[:200_000]
    at = 0
    for _, size, name, _ in disassembler.disasm_lite(code, 0):
        if not name.startswith("v"):
            assert length(code[at : at + 15]) == size, f"{code[at : at + 15].hex()} {name}"
        at += size


def test_an_instruction_that_is_cut_off_has_no_length():
    whole = bytes.fromhex("48c7442408 78563412")
    assert length(whole) == len(whole)
    for cut in range(len(whole)):
        assert length(whole[:cut]) == 0
