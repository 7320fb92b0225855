"""Physical devices, of which an unprivileged domain has none. Xen: arch/x86/physdev.c, public/physdev.h.

What is left are the virtual IOPL and the I/O bitmap, which say whether an I/O instruction is emulated or is a #GP to
the guest; emulated reads give all ones. All else is an errno, since no physical interrupt is permitted to the domain.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.physdev import (
    PHYSDEVOP_IRQ_UNMASK_NOTIFY,
    PhysdevApic,
    PhysdevEoi,
    PhysdevGetFreePirq,
    PhysdevIrq,
    PhysdevIrqStatusQuery,
    PhysdevMapPirq,
    PhysdevOp,
    PhysdevOpStruct,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevUnmapPirq,
    XenIrqStat,
)

from .event_channel_op import NR_PIRQS, domain_by_id
from .faults import HypercallError
from .guest_access import address_ok, read_struct, write_struct
from .hypercall import hypercall
from .vcpu import Vcpu

MAX_IO_PORTS = 65536
_IO_BITMAP_BYTES = MAX_IO_PORTS // 8

_PRIVILEGED = frozenset(
    {
        PhysdevOp.MANAGE_PCI_ADD,
        PhysdevOp.MANAGE_PCI_REMOVE,
        PhysdevOp.MANAGE_PCI_ADD_EXT,
        PhysdevOp.PCI_DEVICE_ADD,
        PhysdevOp.PCI_DEVICE_REMOVE,
        PhysdevOp.RESTORE_MSI,
        PhysdevOp.RESTORE_MSI_EXT,
        PhysdevOp.PREPARE_MSIX,
        PhysdevOp.RELEASE_MSIX,
        PhysdevOp.PCI_MMCFG_RESERVED,
        PhysdevOp.SETUP_GSI,
        PhysdevOp.DBGP_OP,
    }
)
"""Commands of the domain that owns the hardware."""
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


def set_iopl(vcpu: Vcpu, iopl: int) -> None:
    """Set the virtual IOPL, 0 to 3; kernel mode counts as CPL 1 against it."""
    if iopl > 3:
        raise HypercallError(Errno.EINVAL)
    vcpu.iopl = iopl


def set_iobitmap(vcpu: Vcpu, bitmap: int, nr_ports: int) -> None:
    """Where the guest keeps its I/O bitmap; a clear bit permits the port, those from `nr_ports` on are forbidden."""
    if not address_ok(bitmap, _IO_BITMAP_BYTES) or nr_ports > MAX_IO_PORTS:
        raise HypercallError(Errno.EINVAL)
    vcpu.io_bitmap = Vaddr(bitmap)
    vcpu.io_bitmap_ports = nr_ports


@hypercall(Hypercall.PHYSDEV_OP)
def do_physdev_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_physdev_op(cmd, arg): virtual IOPL and I/O bitmap; the rest is for domains that own devices.

    The page of PIRQs that want an end of interrupt (pirq_eoi_gmfn) is -ENOSYS: the domain has no PIRQ.
    Xen: arch/x86/physdev.c.
    """
    match cmd:
        case PhysdevOp.SET_IOPL:
            set_iopl(vcpu, read_struct(vcpu, arg, PhysdevSetIopl).iopl)
            return 0
        case PhysdevOp.SET_IOBITMAP:
            request = read_struct(vcpu, arg, PhysdevSetIobitmap)
            set_iobitmap(vcpu, request.bitmap, request.nr_ports)
            return 0
        case PhysdevOp.IRQ_STATUS_QUERY:
            query = read_struct(vcpu, arg, PhysdevIrqStatusQuery)
            if query.irq >= NR_PIRQS:
                raise HypercallError(Errno.EINVAL)
            query.flags = XenIrqStat.NEEDS_EOI
            write_struct(vcpu, arg, query)
            return 0
        case _ if cmd == PHYSDEVOP_IRQ_UNMASK_NOTIFY:
            return 0
        case PhysdevOp.EOI:
            # No PIRQ is bound, so there is none to end.
            read_struct(vcpu, arg, PhysdevEoi)
            raise HypercallError(Errno.EINVAL)
        case PhysdevOp.GET_FREE_PIRQ:
            free = read_struct(vcpu, arg, PhysdevGetFreePirq)
            # Xen puts what it found there, be it an errno.
            free.pirq = -Errno.ENOSPC & 0xFFFF_FFFF
            write_struct(vcpu, arg, free)
            return 0
        case PhysdevOp.MAP_PIRQ:
            domain_by_id(vcpu, read_struct(vcpu, arg, PhysdevMapPirq).domid)
        case PhysdevOp.UNMAP_PIRQ:
            domain_by_id(vcpu, read_struct(vcpu, arg, PhysdevUnmapPirq).domid)
        case PhysdevOp.APIC_READ | PhysdevOp.APIC_WRITE:
            read_struct(vcpu, arg, PhysdevApic)
        case PhysdevOp.ALLOC_IRQ_VECTOR:
            read_struct(vcpu, arg, PhysdevIrq)
        case _ if cmd not in _PRIVILEGED:
            raise HypercallError(Errno.ENOSYS)
        case _:
            pass
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.PHYSDEV_OP_COMPAT)
def do_physdev_op_compat(vcpu: Vcpu, op: int) -> int | None:
    """HYPERVISOR_physdev_op_compat(op): as physdev_op, the command being in the structure. Xen: common/compat.c."""
    cmd = read_struct(vcpu, op, PhysdevOpStruct).cmd
    if cmd not in _COMPAT:
        raise HypercallError(Errno.ENOSYS)
    return do_physdev_op(vcpu, cmd, op + PhysdevOpStruct.offset_of("u"))
