"""Physical devices, of which an unprivileged domain has none. Xen: arch/x86/physdev.c, drivers/pci/physdev.c.

What is left are the virtual IOPL and the I/O bitmap, which say whether an I/O instruction is emulated or is a #GP to
the guest; emulated reads give all ones. A guest may also set numbers of interrupts aside (`pirq`). All else is an
errno: of the domains that own devices, or of a machine that has none.
"""

from collections.abc import Callable
from typing import Final

from xdbg.abi.cstruct import CStruct
from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn, Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.physdev import (
    PHYSDEVOP_IRQ_UNMASK_NOTIFY,
    XEN_PCI_DEV_PXM,
    MapPirqType,
    PhysdevApic,
    PhysdevEoi,
    PhysdevGetFreePirq,
    PhysdevIrq,
    PhysdevIrqStatusQuery,
    PhysdevManagePci,
    PhysdevManagePciExt,
    PhysdevMapPirq,
    PhysdevOp,
    PhysdevOpStruct,
    PhysdevPciDevice,
    PhysdevPciDeviceAdd,
    PhysdevPirqEoiGmfn,
    PhysdevRestoreMsi,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevSetupGsi,
    PhysdevUnmapPirq,
    XenIrqStat,
)

from .domain_lookup import check_exists
from .faults import HypercallError
from .guest_access import address_ok, copy_from_guest, read_struct, write_struct
from .hypercall import hypercall
from .page_info import PGT_WRITABLE_PAGE
from .page_table_types import get_page_and_type, put_page_and_type
from .pirq import NR_GSIS, NR_PIRQS
from .vcpu import Vcpu

MAX_IO_PORTS: Final = 65536
_PXM_SIZE: Final = 4

_COMPAT = frozenset(
    {
        PHYSDEVOP_IRQ_UNMASK_NOTIFY,
        PhysdevOp.IRQ_STATUS_QUERY,
        PhysdevOp.SET_IOPL,
        PhysdevOp.SET_IOBITMAP,
        PhysdevOp.APIC_READ,
        PhysdevOp.APIC_WRITE,
        PhysdevOp.ALLOC_IRQ_VECTOR,
    }
)
"""Commands that the old form of the hypercall knows."""


@hypercall(Hypercall.PHYSDEV_OP)
def do_physdev_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_physdev_op(cmd, arg): virtual IOPL and I/O bitmap; the rest is for domains that own devices."""
    operation = _OPERATIONS.get(cmd)
    if operation is None:
        raise HypercallError(Errno.ENOSYS)
    return operation(vcpu, arg)


@hypercall(Hypercall.PHYSDEV_OP_COMPAT)
def do_physdev_op_compat(vcpu: Vcpu, op: int) -> int | None:
    """HYPERVISOR_physdev_op_compat(op): as physdev_op, the command being in the structure. Xen: common/compat.c."""
    cmd = read_struct(vcpu, op, PhysdevOpStruct).cmd
    if cmd not in _COMPAT:
        raise HypercallError(Errno.ENOSYS)
    return do_physdev_op(vcpu, cmd, op + PhysdevOpStruct.offset_of("u"))


# -- I/O instructions


def set_iopl(vcpu: Vcpu, iopl: int) -> None:
    """Set the virtual IOPL, 0 to 3; kernel mode counts as CPL 1 against it."""
    if iopl > 3:
        raise HypercallError(Errno.EINVAL)
    vcpu.iopl = iopl


def set_iobitmap(vcpu: Vcpu, bitmap: int, nr_ports: int) -> None:
    """Where the guest keeps its I/O bitmap; a clear bit permits the port, those from `nr_ports` on are forbidden."""
    if not address_ok(bitmap) or nr_ports > MAX_IO_PORTS:
        raise HypercallError(Errno.EINVAL)
    vcpu.io_bitmap = Vaddr(bitmap)
    vcpu.io_bitmap_ports = nr_ports


def _set_iopl(vcpu: Vcpu, arg: int) -> int:
    set_iopl(vcpu, read_struct(vcpu, arg, PhysdevSetIopl).iopl)
    return 0


def _set_iobitmap(vcpu: Vcpu, arg: int) -> int:
    request = read_struct(vcpu, arg, PhysdevSetIobitmap)
    set_iobitmap(vcpu, request.bitmap, request.nr_ports)
    return 0


# -- interrupts


def _irq_status_query(vcpu: Vcpu, arg: int) -> int:
    query = read_struct(vcpu, arg, PhysdevIrqStatusQuery)
    if query.irq >= NR_PIRQS:
        raise HypercallError(Errno.EINVAL)
    query.flags = XenIrqStat.NEEDS_EOI
    write_struct(vcpu, arg, query)
    return 0


def _irq_unmask_notify(_vcpu: Vcpu, _arg: int) -> int:
    """Acknowledge all interrupts: there are none."""
    return 0


def _eoi(vcpu: Vcpu, arg: int) -> int:
    """Acknowledge an interrupt; for a number that was set aside nothing is to be done. -EINVAL for others."""
    if read_struct(vcpu, arg, PhysdevEoi).irq not in vcpu.domain.pirqs.allocated:
        raise HypercallError(Errno.EINVAL)
    return 0


def _pirq_eoi_gmfn(vcpu: Vcpu, arg: int) -> int:
    """Name the page of interrupts that want to be acknowledged, once: then -EBUSY. -EINVAL if it can't be written."""
    mfn = Mfn(read_struct(vcpu, arg, PhysdevPirqEoiGmfn).gmfn)
    domain = vcpu.domain
    get_page_and_type(domain.hv, mfn, domain.domid, PGT_WRITABLE_PAGE)
    if domain.pirqs.eoi_frame is not None:
        put_page_and_type(domain.hv, mfn)
        raise HypercallError(Errno.EBUSY)
    domain.pirqs.eoi_frame = mfn
    return 0


def _get_free_pirq(vcpu: Vcpu, arg: int) -> int:
    """Set a number aside. -ENOSPC when all are; one that can't be told, the structure being read-only, is lost."""
    request = read_struct(vcpu, arg, PhysdevGetFreePirq)
    number = vcpu.domain.pirqs.allocate(gsi=request.type == MapPirqType.GSI)
    if number is None:
        raise HypercallError(Errno.ENOSPC)
    request.pirq = number
    write_struct(vcpu, arg, request)
    return 0


def _map_pirq(vcpu: Vcpu, arg: int) -> int:
    """Only a device model may, and the structure is written back all the same. -ESRCH for no such domain."""
    request = read_struct(vcpu, arg, PhysdevMapPirq)
    match request.type:
        case MapPirqType.MSI_SEG:
            request.type = MapPirqType.MSI
        case MapPirqType.MULTI_MSI if request.table_base:
            raise HypercallError(Errno.EINVAL)
        case _:
            pass
    try:
        check_exists(vcpu, request.domid)
    except HypercallError:
        write_struct(vcpu, arg, request)
        raise
    write_struct(vcpu, arg, request)
    raise HypercallError(Errno.EPERM)


def _unmap_pirq(vcpu: Vcpu, arg: int) -> int:
    check_exists(vcpu, read_struct(vcpu, arg, PhysdevUnmapPirq).domid)
    raise HypercallError(Errno.EPERM)


def _setup_gsi(vcpu: Vcpu, arg: int) -> int:
    if not 0 <= read_struct(vcpu, arg, PhysdevSetupGsi).gsi < NR_GSIS:
        raise HypercallError(Errno.EINVAL)
    raise HypercallError(Errno.EPERM)


# -- PCI


def _manage_pci_add_ext(vcpu: Vcpu, arg: int) -> int:
    request = read_struct(vcpu, arg, PhysdevManagePciExt)
    if request.is_extfn > 1 or request.is_virtfn > 1:
        raise HypercallError(Errno.EINVAL)
    raise HypercallError(Errno.EPERM)


def _pci_device_add(vcpu: Vcpu, arg: int) -> int:
    if read_struct(vcpu, arg, PhysdevPciDeviceAdd).flags & XEN_PCI_DEV_PXM:
        copy_from_guest(vcpu, arg + PhysdevPciDeviceAdd.SIZE, _PXM_SIZE)
    raise HypercallError(Errno.EPERM)


def _refuse(_vcpu: Vcpu, _arg: int) -> int:
    """Refused before the argument is looked at."""
    raise HypercallError(Errno.EPERM)


class _Refused:
    """Refused once the argument was read, a structure of `kind`."""

    def __init__(self, kind: type[CStruct], errno: Errno = Errno.EPERM) -> None:
        self.kind = kind
        self.errno = errno

    def __call__(self, vcpu: Vcpu, arg: int) -> int:
        read_struct(vcpu, arg, self.kind)
        raise HypercallError(self.errno)


_OPERATIONS: Final[dict[int, Callable[[Vcpu, int], int]]] = {
    PHYSDEVOP_IRQ_UNMASK_NOTIFY: _irq_unmask_notify,
    PhysdevOp.IRQ_STATUS_QUERY: _irq_status_query,
    PhysdevOp.SET_IOPL: _set_iopl,
    PhysdevOp.SET_IOBITMAP: _set_iobitmap,
    PhysdevOp.APIC_READ: _Refused(PhysdevApic),
    PhysdevOp.APIC_WRITE: _Refused(PhysdevApic),
    PhysdevOp.ALLOC_IRQ_VECTOR: _Refused(PhysdevIrq),
    PhysdevOp.EOI: _eoi,
    PhysdevOp.MAP_PIRQ: _map_pirq,
    PhysdevOp.UNMAP_PIRQ: _unmap_pirq,
    PhysdevOp.MANAGE_PCI_ADD: _Refused(PhysdevManagePci),
    PhysdevOp.MANAGE_PCI_REMOVE: _Refused(PhysdevManagePci),
    PhysdevOp.PIRQ_EOI_GMFN_V1: _pirq_eoi_gmfn,
    PhysdevOp.RESTORE_MSI: _Refused(PhysdevRestoreMsi, Errno.ENODEV),
    PhysdevOp.MANAGE_PCI_ADD_EXT: _manage_pci_add_ext,
    PhysdevOp.SETUP_GSI: _setup_gsi,
    PhysdevOp.GET_FREE_PIRQ: _get_free_pirq,
    PhysdevOp.PCI_MMCFG_RESERVED: _refuse,
    PhysdevOp.PCI_DEVICE_ADD: _pci_device_add,
    PhysdevOp.PCI_DEVICE_REMOVE: _Refused(PhysdevPciDevice),
    PhysdevOp.RESTORE_MSI_EXT: _Refused(PhysdevPciDevice, Errno.ENODEV),
    PhysdevOp.PIRQ_EOI_GMFN_V2: _pirq_eoi_gmfn,
    PhysdevOp.DBGP_OP: _refuse,
    PhysdevOp.PREPARE_MSIX: _Refused(PhysdevPciDevice),
    PhysdevOp.RELEASE_MSIX: _Refused(PhysdevPciDevice),
}
"""Each command and its function; any other is -ENOSYS."""
