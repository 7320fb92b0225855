"""Each model-specific register has a value, drops writes, or is #GP."""

import pytest

from xdbg.abi.frames import Vaddr
from xdbg.xen.msr import read_msr, write_msr
from xdbg.xen.vcpu import TrapGate

from .conftest import Guest

HANDLER = TrapGate(13, 0, False, 0xE033, Vaddr(0x1000))


@pytest.fixture(autouse=True)
def _has_a_handler(guest: Guest):
    guest.vcpu.trap_table[13] = HANDLER


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0x10A, None),  # ARCH_CAPABILITIES
        (0x48, None),  # SPEC_CTRL
        (0x800, None),  # an x2APIC register
        (0xDEAD, None),
        (0xCE, 1 << 31),  # PLATFORM_INFO: CPUID faulting
        (0xC1, 0),  # a performance counter
        (0x179, 0x0100_0802),  # MCG_CAP
        (0x400, (1 << 64) - 1),  # MC0_CTL
        (0x401, 0),
        (0x1B, 0xFEE0_0900),
        (0x277, 0x0000_0501_0007_0406),
        (0x4000_0000, 0),
    ],
)
def test_what_is_read(guest: Guest, msr: int, value: int | None):
    assert read_msr(guest.vcpu, msr) == value


@pytest.mark.parametrize(
    ("msr", "value", "taken"),
    [
        (0xC000_0080, 0xD01, True),
        (0xC000_0080, 0xC01, False),
        (0x8B, 0, True),
        (0x8B, 1, False),
        (0x199, 5, True),
        (0x198, 0, False),
        (0x401, 0, True),
        (0x401, 1, False),
        (0x186, 5, True),
        (0x1A0, 5, True),
        (0x277, 0x0000_0501_0007_0406, False),
        (0x140, 1, True),
        (0x140, 2, False),
        (0xC000_0102, 1 << 47, False),
        (0x4000_0000, 1, False),
    ],
)
def test_what_may_be_written(guest: Guest, msr: int, value: int, taken: bool):
    assert write_msr(guest.vcpu, msr, value) is taken


def test_before_it_has_a_handler_a_guest_reads_what_the_processor_has_as_zero(guest: Guest):
    guest.vcpu.trap_table[13] = None
    assert read_msr(guest.vcpu, 0x10A) == 0
    assert read_msr(guest.vcpu, 0xDEAD) is None


def test_the_hypercall_page_is_filled_where_the_guest_wants_it(guest: Guest):
    mfn = guest.frames[0]
    assert write_msr(guest.vcpu, 0x4000_0000, mfn << 12)
    assert guest.hv.ram.read(mfn << 12, 4) == b"\x51\x41\x53\xb8"
    assert not write_msr(guest.vcpu, 0x4000_0000, 1 << 40)
