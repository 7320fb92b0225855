"""physdev_op and its old form. Read from arch/x86/physdev.c, drivers/pci/physdev.c and common/compat.c."""

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.abi.physdev import (
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
)

from .domain_under_test import FREE, L1, READ_ONLY_PAGE
from .vocabulary import (
    DOM0,
    EBUSY,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOSPC,
    ENOSYS,
    EPERM,
    ESRCH,
    HIGH,
    IN_XEN,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Operation,
    Place,
    Row,
    Table,
    anywhere,
    faults,
    foreign_mfn,
    mfn,
    put,
    va,
)

SOURCE = "do_physdev_op()"
OP = Hypercall.PHYSDEV_OP


def refused(summary: str, kind: type, result: int = EPERM, **values: int) -> Operation:
    """Refused once the structure was read."""
    good = put(kind, **values)
    return Operation(summary, SOURCE, [*anywhere(Row("valid", (good,), result)), *faults(good)])


def get_free(kind: int) -> tuple:
    return (OP, PhysdevOp.GET_FREE_PIRQ, put(PhysdevGetFreePirq, type=kind))


def eoi_page(command: PhysdevOp) -> Operation:
    good = put(PhysdevPirqEoiGmfn, gmfn=mfn(FREE))
    return Operation(
        "names the page of interrupts that want to be acknowledged",
        SOURCE,
        [
            *anywhere(Row("a writable page", (good,), 0)),
            Row("a page that is mapped read-only", (put(PhysdevPirqEoiGmfn, gmfn=mfn(READ_ONLY_PAGE)),), 0),
            Row("a second time", (put(PhysdevPirqEoiGmfn, gmfn=mfn(FREE + 1)),), EBUSY, before=((OP, command, good),)),
            Row("the same page again", (good,), EBUSY, before=((OP, command, good),)),
            Row("a page table", (put(PhysdevPirqEoiGmfn, gmfn=mfn(L1)),), EINVAL),
            Row("a frame of another domain", (put(PhysdevPirqEoiGmfn, gmfn=foreign_mfn(FREE)),), EINVAL),
            Row("no RAM", (put(PhysdevPirqEoiGmfn, gmfn=1 << 40),), EINVAL),
            *faults(good),
        ],
    )


MAP = put(PhysdevMapPirq, domid=DOMID_SELF, type=MapPirqType.GSI, index=1, pirq=-1)
BITMAP = put(PhysdevSetIobitmap, bitmap=va(FREE), nr_ports=65536)
_PAGE_END = 0xFF0

TABLES = (
    Table(
        OP,
        commands=PhysdevOp,
        operations={
            4: Operation(
                "acknowledges every interrupt",
                SOURCE,
                [Row("there is none", (NULL,), 0), Row("the argument is not looked at", (IN_XEN,), 0)],
            ),
            PhysdevOp.IRQ_STATUS_QUERY: Operation(
                "tells whether an interrupt wants to be acknowledged",
                SOURCE,
                [
                    *anywhere(Row("valid", (put(PhysdevIrqStatusQuery, irq=3),), 0, {"irq": 3, "flags": 1})),
                    Row("the last of the domain's", (put(PhysdevIrqStatusQuery, irq=55, flags=6),), 0, {"flags": 1}),
                    Row("beyond the domain's", (put(PhysdevIrqStatusQuery, irq=56),), EINVAL),
                    Row("negative", (put(PhysdevIrqStatusQuery, irq=0xFFFF_FFFF),), EINVAL),
                    *faults(put(PhysdevIrqStatusQuery), written=True),
                ],
            ),
            PhysdevOp.SET_IOPL: Operation(
                "sets the virtual IOPL",
                SOURCE,
                [
                    *anywhere(Row("3", (put(PhysdevSetIopl, iopl=3),), 0)),
                    Row("in a read-only page", (put(PhysdevSetIopl, iopl=3).at(Place.READ_ONLY),), 0),
                    Row("beyond 3", (put(PhysdevSetIopl, iopl=4),), EINVAL),
                    Row("high bits", (put(PhysdevSetIopl, iopl=0x8000_0001),), EINVAL),
                    *faults(put(PhysdevSetIopl)),
                ],
            ),
            PhysdevOp.SET_IOBITMAP: Operation(
                "tells where the I/O bitmap is",
                SOURCE,
                [
                    *anywhere(Row("valid", (BITMAP,), 0)),
                    Row("that is not mapped", (put(PhysdevSetIobitmap, bitmap=UNMAPPED, nr_ports=1),), 0),
                    Row("that ends beyond canonical", (put(PhysdevSetIobitmap, bitmap=(1 << 47) - 1, nr_ports=1),), 0),
                    Row("null", (put(PhysdevSetIobitmap, bitmap=NULL, nr_ports=0),), 0),
                    Row("in Xen's range", (put(PhysdevSetIobitmap, bitmap=IN_XEN, nr_ports=1),), EINVAL),
                    Row("too many ports", (put(PhysdevSetIobitmap, bitmap=va(FREE), nr_ports=65537),), EINVAL),
                    *faults(BITMAP),
                ],
            ),
            PhysdevOp.APIC_READ: refused("reads an I/O APIC", PhysdevApic),
            PhysdevOp.APIC_WRITE: refused("writes an I/O APIC", PhysdevApic),
            PhysdevOp.ALLOC_IRQ_VECTOR: refused("gives an interrupt a vector", PhysdevIrq, irq=9),
            PhysdevOp.FREE_IRQ_VECTOR: Operation(
                "is gone from Xen", SOURCE, [Row("valid", (put(PhysdevIrq, irq=9),), ENOSYS), Row("null", (0,), ENOSYS)]
            ),
            PhysdevOp.EOI: Operation(
                "acknowledges an interrupt",
                SOURCE,
                [
                    *anywhere(Row("nothing is known of it", (put(PhysdevEoi, irq=3),), EINVAL)),
                    Row("set aside", (put(PhysdevEoi, irq=16),), 0, before=(get_free(MapPirqType.GSI),)),
                    Row("beyond the domain's", (put(PhysdevEoi, irq=56),), EINVAL),
                    *faults(put(PhysdevEoi)),
                ],
            ),
            PhysdevOp.MAP_PIRQ: Operation(
                "maps an interrupt to a number",
                "do_physdev_op(), physdev_map_pirq()",
                [
                    *anywhere(Row("valid", (MAP,), EPERM)),
                    Row("by its own number", (put(PhysdevMapPirq, domid=OWN, type=1),), EPERM),
                    Row("for another domain", (put(PhysdevMapPirq, domid=NEIGHBOUR, type=1),), EPERM),
                    Row("for domain 0", (put(PhysdevMapPirq, domid=DOM0, type=1),), EPERM),
                    Row("for no domain", (put(PhysdevMapPirq, domid=NOBODY, type=1),), ESRCH),
                    Row("an unknown type", (put(PhysdevMapPirq, domid=DOMID_SELF, type=9),), EPERM),
                    Row("segment", (put(PhysdevMapPirq, domid=DOMID_SELF, type=3),), EPERM, {"type": 0}),
                    Row("several MSIs", (put(PhysdevMapPirq, domid=DOMID_SELF, type=4, entry_nr=2),), EPERM),
                    Row("several MSI-X", (put(PhysdevMapPirq, domid=NOBODY, type=4, table_base=1),), EINVAL),
                    *faults(MAP, written=True),
                ],
            ),
            PhysdevOp.UNMAP_PIRQ: Operation(
                "takes it back",
                "do_physdev_op(), physdev_unmap_pirq()",
                [
                    *anywhere(Row("valid", (put(PhysdevUnmapPirq, domid=DOMID_SELF, pirq=3),), EPERM)),
                    Row("of another domain", (put(PhysdevUnmapPirq, domid=NEIGHBOUR),), EPERM),
                    Row("of domain 0", (put(PhysdevUnmapPirq, domid=DOM0),), EPERM),
                    Row("of no domain", (put(PhysdevUnmapPirq, domid=NOBODY),), ESRCH),
                    *faults(put(PhysdevUnmapPirq, domid=DOMID_SELF)),
                ],
            ),
            PhysdevOp.MANAGE_PCI_ADD: refused("tells of a PCI device", PhysdevManagePci),
            PhysdevOp.MANAGE_PCI_REMOVE: refused("tells that it is gone", PhysdevManagePci),
            PhysdevOp.PIRQ_EOI_GMFN_V1: eoi_page(PhysdevOp.PIRQ_EOI_GMFN_V1),
            PhysdevOp.RESTORE_MSI: refused(
                "writes a device's MSIs anew; there is no device", PhysdevRestoreMsi, ENODEV
            ),
            PhysdevOp.MANAGE_PCI_ADD_EXT: Operation(
                "tells of a PCI device",
                SOURCE,
                [
                    *anywhere(Row("valid", (put(PhysdevManagePciExt, is_extfn=1, is_virtfn=1),), EPERM)),
                    Row("no flag, function", (put(PhysdevManagePciExt, is_extfn=2),), EINVAL),
                    Row("no flag, virtual function", (put(PhysdevManagePciExt, is_virtfn=2),), EINVAL),
                    *faults(put(PhysdevManagePciExt)),
                ],
            ),
            PhysdevOp.SETUP_GSI: Operation(
                "says how a line of the I/O APIC is triggered",
                SOURCE,
                [
                    *anywhere(Row("valid", (put(PhysdevSetupGsi, gsi=9),), EPERM)),
                    Row("beyond the I/O APIC", (put(PhysdevSetupGsi, gsi=24),), EINVAL),
                    Row("negative", (put(PhysdevSetupGsi, gsi=-1),), EINVAL),
                    *faults(put(PhysdevSetupGsi)),
                ],
            ),
            PhysdevOp.GET_FREE_PIRQ: Operation(
                "sets a number for an interrupt aside",
                "do_physdev_op(), get_free_pirq()",
                [
                    *anywhere(Row("of a line", (put(PhysdevGetFreePirq, type=1),), 0, {"pirq": 16})),
                    *anywhere(Row("of an MSI", (put(PhysdevGetFreePirq, type=0),), 0, {"pirq": 55})),
                    Row("an unknown type", (put(PhysdevGetFreePirq, type=77),), 0, {"pirq": 55}),
                    Row("the next line", (put(PhysdevGetFreePirq, type=1),), 0, {"pirq": 17}, (get_free(1),)),
                    Row("a ninth line", (put(PhysdevGetFreePirq, type=1),), 0, {"pirq": 55}, (get_free(1),) * 8),
                    Row("all but lines gone", (put(PhysdevGetFreePirq),), ENOSPC, before=(get_free(0),) * 32),
                    Row("all gone", (put(PhysdevGetFreePirq, type=1),), ENOSPC, before=(get_free(1),) * 40),
                    *faults(put(PhysdevGetFreePirq), written=True),
                ],
            ),
            PhysdevOp.PCI_MMCFG_RESERVED: Operation(
                "tells of a range of PCI configuration space",
                SOURCE,
                [Row("valid", (va(FREE),), EPERM), Row("before the argument is read", (UNMAPPED,), EPERM)],
            ),
            PhysdevOp.PCI_DEVICE_ADD: Operation(
                "tells of a PCI device",
                "pci_physdev_op()",
                [
                    *anywhere(Row("valid", (put(PhysdevPciDeviceAdd),), EPERM)),
                    Row("with proximity", (put(PhysdevPciDeviceAdd, flags=4),), EPERM),
                    Row("proximity not mapped", (put(PhysdevPciDeviceAdd, flags=4).at(Place.LAST),), EFAULT),
                    *faults(put(PhysdevPciDeviceAdd)),
                ],
            ),
            PhysdevOp.PCI_DEVICE_REMOVE: refused("tells that it is gone", PhysdevPciDevice),
            PhysdevOp.RESTORE_MSI_EXT: refused(
                "writes a device's MSIs anew; there is no device", PhysdevPciDevice, ENODEV
            ),
            PhysdevOp.PIRQ_EOI_GMFN_V2: eoi_page(PhysdevOp.PIRQ_EOI_GMFN_V2),
            PhysdevOp.DBGP_OP: Operation(
                "prepares the USB debug port",
                SOURCE,
                [Row("valid", (va(FREE),), EPERM), Row("before the argument is read", (UNMAPPED,), EPERM)],
            ),
            PhysdevOp.PREPARE_MSIX: refused("takes a device's MSI-X table", PhysdevPciDevice),
            PhysdevOp.RELEASE_MSIX: refused("gives it back", PhysdevPciDevice),
            "other": Operation(
                "any other command",
                SOURCE,
                [
                    Row("beyond the last", (1000, NULL), ENOSYS),
                    Row("a hole, 22", (22, NULL), ENOSYS),
                    Row("negative", (0xFFFF_FFFF, NULL), ENOSYS),
                    Row("the upper half does not count", (HIGH | PhysdevOp.SET_IOPL, put(PhysdevSetIopl, iopl=1)), 0),
                ],
            ),
        },
    ),
    Table(
        Hypercall.PHYSDEV_OP_COMPAT,
        operations={
            None: Operation(
                "as physdev_op, for the commands up to alloc_irq_vector",
                "do_physdev_op_compat()",
                [
                    *anywhere(Row("set_iopl", (put(PhysdevOpStruct, cmd=6, u__set_iopl__iopl=3),), 0)),
                    Row("set_iopl beyond 3", (put(PhysdevOpStruct, cmd=6, u__set_iopl__iopl=4),), EINVAL),
                    Row("set_iobitmap", (put(PhysdevOpStruct, cmd=7, u__set_iobitmap__nr_ports=8),), 0),
                    Row(
                        "irq_status_query",
                        (put(PhysdevOpStruct, cmd=5, u__irq_status_query__irq=3),),
                        0,
                        {"u.irq_status_query.flags": 1},
                    ),
                    Row("unmask_notify", (put(PhysdevOpStruct, cmd=4),), 0),
                    Row("apic_read", (put(PhysdevOpStruct, cmd=8),), EPERM),
                    Row("apic_write", (put(PhysdevOpStruct, cmd=9),), EPERM),
                    Row("alloc_irq_vector", (put(PhysdevOpStruct, cmd=10),), EPERM),
                    Row("free_irq_vector", (put(PhysdevOpStruct, cmd=11),), ENOSYS),
                    Row("a newer command", (put(PhysdevOpStruct, cmd=12),), ENOSYS),
                    *faults(put(PhysdevOpStruct, cmd=4)),
                ],
            )
        },
    ),
)
