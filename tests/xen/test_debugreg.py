"""Debug registers of a vcpu: what Xen lets in, and that they belong to the vcpu."""

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import Cr4
from xdbg.xen.debugreg import io_breakpoints, read_debugreg, set_debugreg
from xdbg.xen.faults import HypercallError

from .conftest import Guest

IO_AT_0 = 1 | 2 << 16


@pytest.fixture(autouse=True)
def _another_vcpu_has_the_cpu(guest: Guest):
    guest.hv.current = None


@pytest.mark.parametrize(
    ("reg", "value", "result"),
    [
        (0, 0x1000, 0),
        (3, 0xFFFF_8800_0000_0000, 0),
        (0, 0xFFFF_8000_0000_0000, -Errno.EPERM),
        (1, 0x8000_0000_0000, -Errno.EPERM),
        (6, 0, 0),
        (6, 1 << 32, -Errno.EINVAL),
        (7, 1 << 32, -Errno.EINVAL),
        (7, 0x2000, -Errno.EPERM),
        (7, IO_AT_0, -Errno.EPERM),
        (4, 0, 0),
        (5, 0x1, 0),
        (8, 0, -Errno.ENODEV),
    ],
)
def test_what_a_guest_may_set(guest: Guest, reg: int, value: int, result: int):
    assert guest.call(Hypercall.SET_DEBUGREG, reg, value) == result


def test_reserved_bits_are_as_the_processor_has_them(guest: Guest):
    guest.call(Hypercall.SET_DEBUGREG, 6, 0xFFFF_FFFF)
    guest.call(Hypercall.SET_DEBUGREG, 7, 0x0000_D8FF)
    assert guest.call(Hypercall.GET_DEBUGREG, 6) == 0xFFFF_EFFF
    assert guest.call(Hypercall.GET_DEBUGREG, 7) == 0x0000_04FF
    assert guest.call(Hypercall.GET_DEBUGREG, 4) == 0xFFFF_EFFF
    assert guest.call(Hypercall.GET_DEBUGREG, 9) == -Errno.ENODEV


def test_with_cr4_de_there_are_breakpoints_for_ports_and_no_dr4(guest: Guest):
    vcpu = guest.vcpu
    vcpu.cr4 |= Cr4.DE
    set_debugreg(vcpu, 0, 0x80)
    set_debugreg(vcpu, 7, IO_AT_0 | 1 << 18)
    assert read_debugreg(vcpu, 7) == IO_AT_0 | 1 << 18 | 0x400
    assert vcpu.debugreg[7] & 0xFF == 0
    assert [io_breakpoints(vcpu, port, 1) for port in (0x7F, 0x80, 0x81, 0x82)] == [0, 1, 1, 0]
    with pytest.raises(HypercallError):
        read_debugreg(vcpu, 4)
