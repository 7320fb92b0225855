"""xen_version. Read from common/kernel.c and include/xsm/dummy.h: xsm_xen_version()."""

from xdbg.abi.hypercalls import Hypercall, VmasstCmd, VmasstType
from xdbg.abi.version import XenBuildId, XenCompileInfo, XenFeatureInfo, XenPlatformParameters, XenVer

from .domain_under_test import FREE
from .vocabulary import (
    EINVAL,
    ENOSYS,
    EPERM,
    HIGH,
    IN_XEN,
    NULL,
    READ_ONLY,
    UNMAPPED,
    Operation,
    Place,
    Put,
    Row,
    Table,
    anywhere,
    faults,
    put,
    va,
)

SOURCE = "do_xen_version()"
VERSION = 4 << 16 | 17
FEATURES = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 16
"""mmu_pt_update_preserve_ad, highmem_assist, gnttab_map_avail_bits, memory_op_vnode_supported, not_direct_mapped."""
PAE_PGDIR_ABOVE_4GB = 1 << 4


def text(summary: str, size: int, content: bytes) -> Operation:
    """A string of `size` bytes, zero behind its end; the buffer was full of other bytes."""
    buffer = Put((b"\xee" * size,))
    return Operation(
        summary,
        SOURCE,
        [*anywhere(Row("valid", (buffer,), 0, content.ljust(size, b"\0"))), *faults(buffer, written=True)],
    )


def _field(value: bytes, size: int) -> bytes:
    return value.ljust(size, b"\0")


COMPILE_INFO = (
    _field(b"Python", 64)
    + _field(b"xdbg", 16)
    + _field(b"localdomain", 32)
    + _field(b"Sun Jan  1 00:00:00 UTC 2006", 32)
)
HANDLE = (1).to_bytes(16, "big")

TABLES = (
    Table(
        Hypercall.XEN_VERSION,
        commands=XenVer,
        operations={
            XenVer.VERSION: Operation(
                "tells the version: 4.17",
                SOURCE,
                [
                    Row("valid", (NULL,), VERSION),
                    Row("the argument is not looked at", (IN_XEN,), VERSION),
                ],
            ),
            XenVer.EXTRAVERSION: text("tells the rest of the version", 16, b".7"),
            XenVer.COMPILE_INFO: Operation(
                "tells who built Xen",
                SOURCE,
                [
                    *anywhere(Row("valid", (Put((b"\xee" * XenCompileInfo.SIZE,)),), 0, COMPILE_INFO)),
                    *faults(put(XenCompileInfo, compiler=b"x"), written=True),
                ],
            ),
            XenVer.CAPABILITIES: text("tells the kinds of guests", 1024, b"xen-3.0-x86_64 "),
            XenVer.CHANGESET: text("tells the revision of the source", 64, b"unavailable"),
            XenVer.PLATFORM_PARAMETERS: Operation(
                "tells where Xen's part of the address space begins",
                SOURCE,
                [
                    *anywhere(Row("valid", (put(XenPlatformParameters),), 0, {"virt_start": 0xFFFF_8000_0000_0000})),
                    *faults(put(XenPlatformParameters), written=True),
                ],
            ),
            XenVer.GET_FEATURES: Operation(
                "tells the features, 32 at a time",
                SOURCE,
                [
                    *anywhere(Row("submap 0", (put(XenFeatureInfo, submap=1 << 31),), 0, {"submap": FEATURES})),
                    Row(
                        "with L4s above 4 GB",
                        (put(XenFeatureInfo),),
                        0,
                        {"submap": FEATURES | PAE_PGDIR_ABOVE_4GB},
                        ((Hypercall.VM_ASSIST, VmasstCmd.ENABLE, VmasstType.PAE_EXTENDED_CR3),),
                    ),
                    Row("submap 1", (put(XenFeatureInfo, submap_idx=1, submap=5),), EINVAL),
                    Row("submap beyond", (put(XenFeatureInfo, submap_idx=0xFFFF_FFFF),), EINVAL),
                    Row("submap 1, read-only", (put(XenFeatureInfo, submap_idx=1).at(Place.READ_ONLY),), EINVAL),
                    *faults(put(XenFeatureInfo), written=True),
                ],
            ),
            XenVer.PAGESIZE: Operation(
                "tells the size of a page",
                SOURCE,
                [
                    Row("null", (NULL,), 4096),
                    Row("an argument", (va(FREE),), EINVAL),
                    Row("an argument in Xen's range", (IN_XEN,), EINVAL),
                ],
            ),
            XenVer.GUEST_HANDLE: Operation(
                "tells the domain's UUID",
                SOURCE,
                [
                    *anywhere(Row("valid", (Put((b"\xee" * 16,)),), 0, HANDLE)),
                    *faults(Put((b"\xee" * 16,)), written=True),
                ],
            ),
            XenVer.COMMANDLINE: Operation(
                "tells Xen's command line: `<denied>`",
                SOURCE,
                [
                    *anywhere(Row("valid", (Put((b"\xee" * 16,)),), 0, b"<denied>\0" + b"\xee" * 7)),
                    Row("nine bytes are enough", (Put((b"\xee" * 9,)).at(Place.LAST),), 0, b"<denied>\0"),
                    *faults(Put((b"\xee" * 9,)), written=True),
                ],
            ),
            XenVer.BUILD_ID: Operation(
                "tells the build",
                SOURCE,
                [
                    Row("null", (NULL,), EPERM),
                    Row("valid", (put(XenBuildId, len=20),), EPERM),
                    Row("before the argument is read", (UNMAPPED,), EPERM),
                ],
            ),
            "other": Operation(
                "any other command",
                SOURCE,
                [
                    Row("of Xen 4.18", (11, NULL), ENOSYS),
                    Row("beyond", (1000, READ_ONLY), ENOSYS),
                    Row("negative", (0xFFFF_FFFF, NULL), ENOSYS),
                    Row("the upper half does not count", (HIGH, NULL), VERSION),
                ],
            ),
        },
    ),
)
