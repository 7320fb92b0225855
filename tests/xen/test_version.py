"""What Xen tells of itself, and the few things that a domain without devices may ask about devices."""

from typing import Any

import pytest

from xdbg.abi.errno import Errno
from xdbg.abi.features import XenFeat
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.physdev import (
    PhysdevGetFreePirq,
    PhysdevIrqStatusQuery,
    PhysdevMapPirq,
    PhysdevOp,
    PhysdevOpStruct,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevUnmapPirq,
)
from xdbg.abi.version import XenCompileInfo, XenFeatureInfo, XenPlatformParameters, XenVer


def ask(guest: Any, cmd: int, argument: Any = b"") -> int:
    return int(guest.call(Hypercall.XEN_VERSION, cmd, guest.put(argument)))


def physdev(guest: Any, cmd: int, argument: Any = b"") -> int:
    return int(guest.call(Hypercall.PHYSDEV_OP, cmd, guest.put(argument)))


def test_the_version_is_4_17(guest: Any) -> None:
    assert guest.call(Hypercall.XEN_VERSION, XenVer.VERSION, 0) == 4 << 16 | 17


@pytest.mark.parametrize(
    ("cmd", "size", "text"),
    [
        (XenVer.EXTRAVERSION, 16, b".7"),
        (XenVer.CAPABILITIES, 1024, b"xen-3.0-x86_64 "),
        (XenVer.CHANGESET, 64, b"unavailable"),
    ],
)
def test_a_string_is_zero_to_the_end_of_its_buffer_and_no_further(
    guest: Any, cmd: XenVer, size: int, text: bytes
) -> None:
    assert ask(guest, cmd, b"\xff" * 2000) == 0
    assert guest.hv.ram.read(guest.frames[0] * 4096, 2000) == text.ljust(size, b"\0").ljust(2000, b"\xff")


def test_the_command_line_and_the_build_are_denied(guest: Any) -> None:
    assert ask(guest, XenVer.COMMANDLINE, b"\xff" * 16) == 0
    assert guest.hv.ram.read(guest.frames[0] * 4096, 16) == b"<denied>\0".ljust(16, b"\xff")
    assert ask(guest, XenVer.BUILD_ID) == -Errno.EPERM


def test_the_build_says_the_same_to_everybody(guest: Any) -> None:
    assert ask(guest, XenVer.COMPILE_INFO) == 0
    assert guest.get(XenCompileInfo).compile_by == b"xdbg"


def test_features_are_those_of_a_pv_domain(guest: Any) -> None:
    assert ask(guest, XenVer.GET_FEATURES, XenFeatureInfo(submap_idx=0)) == 0
    submap = guest.get(XenFeatureInfo).submap
    assert submap >> XenFeat.MMU_PT_UPDATE_PRESERVE_AD & 1
    for absent in (XenFeat.AUTO_TRANSLATED_PHYSMAP, XenFeat.DOM0, XenFeat.HVM_CALLBACK_VECTOR):
        assert not submap >> absent & 1
    assert not submap >> XenFeat.PAE_PGDIR_ABOVE_4GB & 1
    guest.domain.vm_assist = 1 << VmasstType.PAE_EXTENDED_CR3
    ask(guest, XenVer.GET_FEATURES, XenFeatureInfo(submap_idx=0))
    assert guest.get(XenFeatureInfo).submap == submap | 1 << XenFeat.PAE_PGDIR_ABOVE_4GB
    assert ask(guest, XenVer.GET_FEATURES, XenFeatureInfo(submap_idx=1)) == -Errno.EINVAL


def test_numbers_of_the_platform(guest: Any) -> None:
    assert ask(guest, XenVer.PLATFORM_PARAMETERS) == 0
    assert guest.get(XenPlatformParameters).virt_start == 0xFFFF_8000_0000_0000
    assert guest.call(Hypercall.XEN_VERSION, XenVer.PAGESIZE, 0) == 4096
    assert ask(guest, XenVer.PAGESIZE) == -Errno.EINVAL
    assert ask(guest, XenVer.GUEST_HANDLE) == 0
    assert guest.hv.ram.read(guest.frames[0] * 4096, 16) == bytes(15) + b"\1"
    assert ask(guest, 11) == -Errno.ENOSYS


def test_a_bad_pointer_is_a_fault(guest: Any) -> None:
    for cmd in (1, 2, 3, 4, 5, 6, 8, 9):
        for where in (guest.unmapped, guest.read_only):
            assert guest.call(Hypercall.XEN_VERSION, cmd, where) == -Errno.EFAULT, cmd


def test_the_virtual_iopl_opens_the_ports_for_the_kernel(guest: Any) -> None:
    assert physdev(guest, PhysdevOp.SET_IOPL, PhysdevSetIopl(iopl=1)) == 0
    assert guest.vcpu.iopl == 1
    assert physdev(guest, PhysdevOp.SET_IOPL, PhysdevSetIopl(iopl=4)) == -Errno.EINVAL
    assert guest.vcpu.iopl == 1
    assert physdev(guest, PhysdevOp.SET_IOPL, PhysdevSetIopl(iopl=0)) == 0
    assert guest.vcpu.iopl == 0


def test_the_io_bitmap_is_a_place_in_the_guest(guest: Any) -> None:
    assert physdev(guest, PhysdevOp.SET_IOBITMAP, PhysdevSetIobitmap(bitmap=0x1000, nr_ports=1024)) == 0
    assert (guest.vcpu.io_bitmap, guest.vcpu.io_bitmap_ports) == (0x1000, 1024)
    for bitmap, nr_ports in ((0x1000, 65537), (0xFFFF_8000_0000_0000, 8)):
        request = PhysdevSetIobitmap(bitmap=bitmap, nr_ports=nr_ports)
        assert physdev(guest, PhysdevOp.SET_IOBITMAP, request) == -Errno.EINVAL
    assert guest.vcpu.io_bitmap == 0x1000


def test_there_are_no_physical_interrupts(guest: Any) -> None:
    assert physdev(guest, PhysdevOp.IRQ_STATUS_QUERY, PhysdevIrqStatusQuery(irq=9)) == 0
    assert guest.get(PhysdevIrqStatusQuery).flags == 1
    assert physdev(guest, PhysdevOp.IRQ_STATUS_QUERY, PhysdevIrqStatusQuery(irq=56)) == -Errno.EINVAL
    assert physdev(guest, PhysdevOp.EOI) == -Errno.EINVAL
    assert physdev(guest, PhysdevOp.MAP_PIRQ, PhysdevMapPirq(domid=guest.domain.domid)) == -Errno.EPERM
    assert physdev(guest, PhysdevOp.MAP_PIRQ, PhysdevMapPirq(domid=9)) == -Errno.ESRCH
    assert physdev(guest, PhysdevOp.UNMAP_PIRQ, PhysdevUnmapPirq(domid=9)) == -Errno.ESRCH
    assert physdev(guest, PhysdevOp.GET_FREE_PIRQ, PhysdevGetFreePirq()) == 0
    assert guest.get(PhysdevGetFreePirq).pirq == 55


def test_physical_devices_are_for_others(guest: Any) -> None:
    for cmd in (8, 9, 10, 15, 16, 20, 21, 24, 25, 26, 29, 30, 31):
        assert physdev(guest, cmd) == -Errno.EPERM, cmd
    for cmd in (19, 27):
        assert physdev(guest, cmd) == -Errno.ENODEV, cmd
    for cmd in (11, 18, 22, 32):
        assert physdev(guest, cmd) == -Errno.ENOSYS, cmd
    for cmd in (5, 6, 7, 8, 9, 10, 12, 13, 14, 23):
        assert guest.call(Hypercall.PHYSDEV_OP, cmd, guest.unmapped) == -Errno.EFAULT, cmd


def test_the_old_form_of_the_hypercall_does_the_same(guest: Any) -> None:
    request = PhysdevOpStruct(cmd=PhysdevOp.SET_IOPL)
    request.u.set_iopl.iopl = 3
    assert guest.call(Hypercall.PHYSDEV_OP_COMPAT, guest.put(request)) == 0
    assert guest.vcpu.iopl == 3
    assert guest.call(Hypercall.PHYSDEV_OP_COMPAT, guest.put(PhysdevOpStruct(cmd=PhysdevOp.EOI))) == -Errno.ENOSYS
