"""Physical devices: physdev_op. A domU uses set_iopl; the rest is for domains that own devices.

Xen public/physdev.h.
"""

from typing import Final

from xdbg.abi.cenum import CBits, CEnum
from xdbg.abi.cstruct import S32, U8, U16, U32, U64, CStruct, CUnion, GuestHandle, abi

PHYSDEVOP_IRQ_UNMASK_NOTIFY: Final = 4
"""Command of physdev_op_compat: send an end of interrupt."""
XEN_PCI_DEV_PXM: Final = 4
"""Flag of physdev_pci_device_add: the first word behind the structure is a proximity domain."""


class PhysdevOp(CEnum, prefix="PHYSDEVOP_"):
    """PHYSDEVOP_*: first argument of physdev_op. Xen public/physdev.h."""

    IRQ_STATUS_QUERY = 5
    SET_IOPL = 6
    SET_IOBITMAP = 7
    APIC_READ = 8
    APIC_WRITE = 9
    ALLOC_IRQ_VECTOR = 10
    FREE_IRQ_VECTOR = 11
    EOI = 12
    MAP_PIRQ = 13
    UNMAP_PIRQ = 14
    MANAGE_PCI_ADD = 15
    MANAGE_PCI_REMOVE = 16
    PIRQ_EOI_GMFN_V1 = 17
    RESTORE_MSI = 19
    MANAGE_PCI_ADD_EXT = 20
    SETUP_GSI = 21
    GET_FREE_PIRQ = 23
    PCI_MMCFG_RESERVED = 24
    PCI_DEVICE_ADD = 25
    PCI_DEVICE_REMOVE = 26
    RESTORE_MSI_EXT = 27
    PIRQ_EOI_GMFN_V2 = 28
    DBGP_OP = 29
    PREPARE_MSIX = 30
    RELEASE_MSIX = 31


class XenIrqStat(CBits, prefix="XENIRQSTAT_"):
    """XENIRQSTAT_*: out flags of irq_status_query. Xen public/physdev.h."""

    NEEDS_EOI = 1 << 0
    SHARED = 1 << 1


class MapPirqType(CEnum, prefix="MAP_PIRQ_TYPE_"):
    """MAP_PIRQ_TYPE_*: `type` of struct physdev_map_pirq. Xen public/physdev.h."""

    MSI = 0
    GSI = 1
    UNKNOWN = 2
    MSI_SEG = 3
    MULTI_MSI = 4


@abi(size=4)
class PhysdevEoi(CStruct):
    """struct physdev_eoi. Xen public/physdev.h."""

    irq: U32


@abi(size=8)
class PhysdevPirqEoiGmfn(CStruct):
    """struct physdev_pirq_eoi_gmfn. Xen public/physdev.h."""

    gmfn: U64


@abi(size=8)
class PhysdevIrqStatusQuery(CStruct):
    """struct physdev_irq_status_query: in irq; out flags, see XenIrqStat. Xen public/physdev.h."""

    irq: U32
    flags: U32


@abi(size=4)
class PhysdevSetIopl(CStruct):
    """struct physdev_set_iopl: virtual IOPL of the vcpu, 0 to 3; 1 lets the kernel do I/O, 3 the user too.

    Xen public/physdev.h.
    """

    iopl: U32


@abi(size=16)
class PhysdevSetIobitmap(CStruct):
    """struct physdev_set_iobitmap: a set bit forbids the port. Xen public/physdev.h."""

    bitmap: GuestHandle
    nr_ports: U32


@abi(size=16)
class PhysdevApic(CStruct):
    """struct physdev_apic: a register of an I/O APIC. Xen public/physdev.h."""

    apic_physbase: U64
    reg: U32
    value: U32


@abi(size=8)
class PhysdevIrq(CStruct):
    """struct physdev_irq: out vector. Xen public/physdev.h."""

    irq: U32
    vector: U32


@abi(size=40)
class PhysdevMapPirq(CStruct):
    """struct physdev_map_pirq: `type` is a MapPirqType. Xen public/physdev.h."""

    domid: U16
    type: S32
    index: S32
    pirq: S32
    bus: S32
    devfn: S32
    entry_nr: S32
    table_base: U64


@abi(size=8)
class PhysdevUnmapPirq(CStruct):
    """struct physdev_unmap_pirq. Xen public/physdev.h."""

    domid: U16
    pirq: S32


@abi(size=8)
class PhysdevGetFreePirq(CStruct):
    """struct physdev_get_free_pirq: out pirq. Xen public/physdev.h."""

    type: S32
    pirq: U32


@abi(size=2)
class PhysdevManagePci(CStruct):
    """struct physdev_manage_pci. Xen public/physdev.h."""

    bus: U8
    devfn: U8


@abi(size=2)
class PhysdevRestoreMsi(CStruct):
    """struct physdev_restore_msi. Xen public/physdev.h."""

    bus: U8
    devfn: U8


@abi(size=2, tag="")
class PhysdevPhysfn(CStruct):
    """physfn of struct physdev_manage_pci_ext and of struct physdev_pci_device_add. Xen public/physdev.h."""

    bus: U8
    devfn: U8


@abi(size=16)
class PhysdevManagePciExt(CStruct):
    """struct physdev_manage_pci_ext. Xen public/physdev.h."""

    bus: U8
    devfn: U8
    is_extfn: U32
    is_virtfn: U32
    physfn: PhysdevPhysfn


@abi(size=16)
class PhysdevPciMmcfgReserved(CStruct):
    """struct physdev_pci_mmcfg_reserved. Xen public/physdev.h."""

    address: U64
    segment: U16
    start_bus: U8
    end_bus: U8
    flags: U32


@abi(size=12)
class PhysdevPciDeviceAdd(CStruct):
    """struct physdev_pci_device_add; `optarr` begins at its end. Xen public/physdev.h."""

    seg: U16
    bus: U8
    devfn: U8
    flags: U32
    physfn: PhysdevPhysfn


@abi(size=4)
class PhysdevPciDevice(CStruct):
    """struct physdev_pci_device. Xen public/physdev.h."""

    seg: U16
    bus: U8
    devfn: U8


@abi(size=8)
class PhysdevSetupGsi(CStruct):
    """struct physdev_setup_gsi. Xen public/physdev.h."""

    gsi: S32
    triggering: U8
    polarity: U8


@abi(size=16, tag="")
class PhysdevOpUnion(CUnion):
    """u of struct physdev_op; `cmd` says which member holds. Xen public/physdev.h."""

    irq_status_query: PhysdevIrqStatusQuery
    set_iopl: PhysdevSetIopl
    set_iobitmap: PhysdevSetIobitmap
    apic_op: PhysdevApic
    irq_op: PhysdevIrq


@abi(size=24, tag="physdev_op")
class PhysdevOpStruct(CStruct):
    """struct physdev_op: the one argument of physdev_op_compat. Xen public/physdev.h."""

    cmd: U32
    u: PhysdevOpUnion
