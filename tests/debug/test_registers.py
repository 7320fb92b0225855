"""Registers as gdb sees them: the g block, one at a time, the FPU's, and those of the paravirtual interface."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdbg.debug.inferiors.registers import FPU_SIZE, Registers, decode, encode, read_one, with_one
from xdbg.rsp.registers import BY_NAME, G_REGISTERS, G_SIZE, REGISTERS
from xdbg.rsp.target import TargetError

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
MSB = 1 << 63


def number(name: str) -> int:
    return BY_NAME[name].number


def value(block: bytes, name: str) -> int:
    register = BY_NAME[name]
    assert register.offset is not None
    return int.from_bytes(block[register.offset : register.offset + register.size], "little")


def test_each_general_register_is_at_its_place() -> None:
    registers = Registers(tuple(range(100, 116)), 0x1234, 0x202, 1, 2, 3, 4, 5, 6, fs_base=7, gs_base=8)
    block = encode(registers)
    assert len(block) == G_SIZE
    names = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15"
    assert [value(block, name) for name in names.split()] == list(range(100, 116))
    assert [
        value(block, name) for name in ("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")
    ] == [*(0x1234, 0x202, 1, 2, 3, 4, 5, 6, 7, 8)]
    assert value(block, "orig_rax") == (1 << 64) - 1
    assert [value(block, name) for name in ("fctrl", "fstat", "ftag", "mxcsr")] == [0x37F, 0, 0xFFFF, 0x1F80]


def test_the_full_tag_word_is_computed_from_contents_and_top() -> None:
    image = bytearray(FPU_SIZE)
    top = 6
    image[2:4] = (top << 11).to_bytes(2, "little")
    image[4] = 0b1101_0001
    contents = {
        6: (1 << 63, 0x3FFF),  # physical 6 is st0: one
        7: (0, 0),  # zero
        0: (1, 0x7FFF),  # not a number
        4: (1, 0x3FFF),  # the integer bit is missing
    }
    for physical, (fraction, exponent) in contents.items():
        at = 32 + 16 * ((physical - top) & 7)
        image[at : at + 10] = fraction.to_bytes(8, "little") + exponent.to_bytes(2, "little")
    block = encode(Registers(fpu=bytes(image)))
    tags = value(block, "ftag")
    assert [tags >> 2 * physical & 3 for physical in range(8)] == [2, 3, 3, 3, 2, 3, 0, 1]


@given(st.integers(0, 2**32))
def test_decoding_the_encoded_block_gives_the_same_registers(seed: int) -> None:
    random = Random(seed)
    image = bytearray(random.randbytes(FPU_SIZE))
    image[5] = 0
    image[6:8] = (random.getrandbits(11)).to_bytes(2, "little")
    words = [random.getrandbits(64) for _ in range(16)]
    registers = Registers(
        tuple(words),
        random.getrandbits(64),
        random.getrandbits(22),
        *(random.getrandbits(16) for _ in range(6)),
        fpu=bytes(image),
        orig_rax=random.getrandbits(64),
        fs_base=random.getrandbits(47),
        gs_base=random.getrandbits(47),
    )
    assert decode(encode(registers), registers) == registers
    fresh = decode(encode(registers), Registers())
    assert encode(fresh) == encode(registers)


@given(st.integers(0, len(G_REGISTERS) - 1), st.integers(0))
def test_setting_one_register_changes_no_other(index: int, seed: int) -> None:
    register = G_REGISTERS[index]
    data = Random(seed).randbytes(register.size)
    if register.name in ("cs", "ss", "ds", "es", "fs", "gs", "fctrl", "fstat", "fiseg", "foseg"):
        data = data[:2] + bytes(2)
    if register.name == "fop":
        data = data[:1] + bytes(3)
    old = Registers()
    new = with_one(old, index, data)
    for other in range(len(G_REGISTERS)):
        # The tag of an x87 register depends on its contents once it is in use; here all are empty.
        if other == index and register.name != "ftag":
            assert read_one(new, other) == data
        elif register.name not in ("ftag", "fstat") or other not in (index, number("ftag")):
            assert read_one(new, other) == read_one(old, other)


def test_selectors_are_changed_before_bases() -> None:
    old = Registers()
    changed = old.changes(replace(old, fs=3, fs_base=4, rip=5))
    assert changed == ["rip", "fs", "fs_base"]


def test_a_vcpu_shows_the_same_before_and_after_it_got_the_cpu(small: Small) -> None:
    guest = small()
    assert guest.target.domain.vcpus[0].context is not None
    before = guest.target.read_registers(guest.kernel)
    assert value(before, "rip") == guest.at("_start")
    guest.target.hv.schedule()
    assert guest.target.domain.vcpus[0].context is None
    assert guest.target.read_registers(guest.kernel) == before


def test_registers_of_a_vcpu_that_has_not_got_the_cpu_can_be_changed(small: Small) -> None:
    guest = small()
    guest.target.write_register(guest.kernel, number("rbx"), (77).to_bytes(8, "little"))
    guest.target.write_register(guest.kernel, number("xmm3"), bytes(range(16)))
    guest.step()
    block = guest.target.read_registers(guest.kernel)
    assert value(block, "rbx") == 77
    assert value(block, "xmm3") == int.from_bytes(bytes(range(16)), "little")


def test_the_g_block_that_was_read_can_be_written_back(small: Small) -> None:
    guest = small()
    guest.brk("squared")
    guest.cont()
    block = guest.target.read_registers(guest.kernel)
    guest.step()
    guest.target.write_registers(guest.kernel, block)
    assert guest.target.read_registers(guest.kernel) == block
    assert guest.where() == "squared"


def test_flags_of_the_hypervisor_stay(small: Small) -> None:
    guest = small()
    before = value(guest.target.read_registers(guest.kernel), "eflags")
    guest.target.write_register(guest.kernel, number("eflags"), (0xFFFF_FFFF).to_bytes(4, "little"))
    after = value(guest.target.read_registers(guest.kernel), "eflags")
    assert after & 0x3200 == before & 0x3200
    assert after & 0x8D5 == 0x8D5


def test_the_guests_mode_is_not_changed_by_selectors(small: Small) -> None:
    guest = small()
    with pytest.raises(TargetError):
        guest.target.write_register(guest.kernel, number("cs"), (0x33).to_bytes(4, "little"))
    with pytest.raises(TargetError):
        guest.target.write_register(guest.kernel, number("ds"), (0x1230).to_bytes(4, "little"))
    same = guest.target.read_register(guest.kernel, number("cs"))
    guest.target.write_register(guest.kernel, number("cs"), same)


def test_every_register_can_be_read_alone_and_written_back(small: Small) -> None:
    guest = small()
    guest.brk("ask")
    guest.cont()
    block = guest.target.read_registers(guest.kernel)
    for register in REGISTERS:
        data = guest.target.read_register(guest.kernel, register.number)
        assert len(data) == register.size
        if register.offset is not None:
            assert data == block[register.offset : register.offset + register.size]
        guest.target.write_register(guest.kernel, register.number, data)
    assert guest.target.read_registers(guest.kernel) == block


def test_registers_of_the_interface(small: Small) -> None:
    guest = small()
    vcpu = guest.target.domain.vcpus[0]

    def read(name: str) -> int:
        return int.from_bytes(guest.target.read_register(guest.kernel, number(name)), "little")

    assert read("cr3") == vcpu.kernel_cr3
    assert (read("xen_kernel_mode"), read("xen_upcall_mask"), read("xen_upcall_pending")) == (1, 1, 0)
    guest.target.write_register(guest.kernel, number("xen_upcall_mask"), b"\0")
    guest.target.write_register(guest.kernel, number("cr2"), (0x1234).to_bytes(8, "little"))
    assert (read("xen_upcall_mask"), read("cr2"), guest.target.hv.guest_cr2(vcpu)) == (0, 0x1234, 0x1234)
    for name in ("cr3", "efer", "xen_kernel_mode"):
        with pytest.raises(TargetError):
            guest.target.write_register(guest.kernel, number(name), bytes([9]) + bytes(BY_NAME[name].size - 1))
    for bad in (-1, len(REGISTERS), 9999):
        with pytest.raises(TargetError):
            guest.target.read_register(guest.kernel, bad)
        with pytest.raises(TargetError):
            guest.target.write_register(guest.kernel, bad, b"\0")
