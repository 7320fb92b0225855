"""memory_op and grant_table_op. Read from common/memory.c, arch/x86/mm.c and common/grant_table.c."""

from xdbg.abi.grant_table import (
    Gntst,
    GnttabCacheFlush,
    GnttabCopy,
    GnttabDumpTable,
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabMapGrantRef,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.memory import (
    XenAddToPhysmap,
    XenMachphysMapping,
    XenMem,
    XenMemoryDomain,
    XenMemoryExchange,
    XenMemoryReservation,
)
from xdbg.abi.mmu import DOMID_SELF

from .domain_under_test import FREE, HOLE, MAX_PAGES, NR_PAGES
from .vocabulary import (
    DOM0,
    EACCES,
    EFAULT,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    IN_XEN,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Later,
    Operation,
    Row,
    Table,
    anywhere,
    faults,
    mfn,
    put,
    va,
    words,
)

GRANTS = Hypercall.GRANT_TABLE_OP


def reservation(frames: object, number: int, domid: object = DOMID_SELF, order: int = 0):
    return put(XenMemoryReservation, extent_start=frames, nr_extents=number, extent_order=order, domid=domid)


def extents(summary: str, source: str, *rows: Row) -> Operation:
    """A command that returns how many extents were done, whatever is wrong with the others."""
    frames = words(mfn(HOLE))
    return Operation(
        summary,
        source,
        [
            *rows,
            Row("none", (reservation(frames, 0),), 0),
            Row("another domain's", (reservation(frames, 1, NEIGHBOUR),), 0),
            Row("domain 0's", (reservation(frames, 1, DOM0),), 0),
            Row("nobody's", (reservation(frames, 1, NOBODY),), 0),
            Row("too large an extent", (reservation(frames, 1, order=10),), 0),
            Row("a list in Xen's range", (reservation(IN_XEN, 1),), 0),
            *faults(reservation(frames, 1), result=0),
        ],
    )


def about(summary: str, result: int) -> Operation:
    good = put(XenMemoryDomain, domid=DOMID_SELF)
    return Operation(
        summary,
        "do_memory_op()",
        [
            *anywhere(Row("valid", (good,), result)),
            Row("by its number", (put(XenMemoryDomain, domid=OWN),), result),
            Row("another domain's", (put(XenMemoryDomain, domid=NEIGHBOUR),), EPERM),
            Row("domain 0's", (put(XenMemoryDomain, domid=DOM0),), EPERM),
            Row("nobody's", (put(XenMemoryDomain, domid=NOBODY),), ESRCH),
            *faults(good),
        ],
    )


def refused(summary: str, result: int, source: str = "do_memory_op()") -> Operation:
    """Refused, be the argument all zeros."""
    return Operation(summary, source, [Row("valid", (va(FREE),), result)])


def exchanged(given: object, wanted: object, number: int = 1):
    lists = {"in_.extent_start": words(mfn(HOLE)), "out.extent_start": words(77)}
    numbers = {"in_.nr_extents": number, "out.nr_extents": number}
    return put(XenMemoryExchange, **{"in_.domid": given, "out.domid": wanted, **lists, **numbers})


HIGHEST = Later("number of frames", lambda guest: guest.hv.page_info.nr_frames)

MEMORY = Table(
    Hypercall.MEMORY_OP,
    commands=XenMem,
    operations={
        XenMem.INCREASE_RESERVATION: extents(
            "takes frames",
            "increase_reservation()",
            Row("two", (reservation(words(0, 0), 2),), 2),
            Row("without a list", (reservation(NULL, 1),), 1),
            Row("more than there may be", (reservation(NULL, 100),), MAX_PAGES - NR_PAGES),
        ),
        XenMem.DECREASE_RESERVATION: extents(
            "gives frames back",
            "decrease_reservation()",
            Row("one", (reservation(words(mfn(HOLE)), 1),), 1),
            Row("no RAM", (reservation(words(1 << 40), 1),), 0),
            Row("one, and one that is no frame", (reservation(words(mfn(HOLE), 1 << 40), 2),), 1),
        ),
        XenMem.POPULATE_PHYSMAP: extents(
            "takes frames for pfns", "populate_physmap()", Row("two", (reservation(words(77, 78), 2),), 2)
        ),
        XenMem.MAXIMUM_RAM_PAGE: Operation(
            "tells where RAM ends",
            "do_memory_op()",
            [Row("valid", (NULL,), HIGHEST)],
        ),
        XenMem.CURRENT_RESERVATION: about("tells how many frames the domain has", NR_PAGES),
        XenMem.MAXIMUM_RESERVATION: about("tells how many it may have", MAX_PAGES),
        XenMem.MAXIMUM_GPFN: about("tells the highest pfn, as the guest wrote it into shared_info", 0),
        XenMem.MACHPHYS_MAPPING: Operation(
            "tells where the M2P is",
            "arch_memory_op()",
            [
                *anywhere(Row("valid", (put(XenMachphysMapping),), 0, {"v_start": 0xFFFF_8000_0000_0000})),
                *faults(put(XenMachphysMapping), written=True),
            ],
        ),
        XenMem.EXCHANGE: Operation(
            "swaps frames",
            "memory_exchange()",
            [
                Row("one", (exchanged(DOMID_SELF, DOMID_SELF),), 0, {"nr_exchanged": 1}),
                Row("none", (exchanged(DOMID_SELF, DOMID_SELF, 0),), 0),
                Row("for nobody", (exchanged(NOBODY, NOBODY),), ESRCH),
                Row("for another domain", (exchanged(NEIGHBOUR, NEIGHBOUR),), EPERM),
                Row("between two", (exchanged(DOMID_SELF, NEIGHBOUR),), EINVAL),
                *faults(put(XenMemoryExchange)),
            ],
        ),
        XenMem.ADD_TO_PHYSMAP: Operation(
            "puts frames into a translated domain's map",
            "xenmem_add_to_physmap()",
            [
                Row("valid", (put(XenAddToPhysmap, domid=DOMID_SELF),), EACCES),
                Row("another domain's", (put(XenAddToPhysmap, domid=NEIGHBOUR),), EACCES),
                Row("nobody's", (put(XenAddToPhysmap, domid=NOBODY),), ESRCH),
                Row("of another domain", (put(XenAddToPhysmap, domid=DOMID_SELF, space=4),), ENOSYS),
                *faults(put(XenAddToPhysmap, domid=DOMID_SELF)),
            ],
        ),
        XenMem.MACHPHYS_MFN_LIST: refused("tells the frames of the M2P, as far as there is room: none", 0),
        XenMem.MACHPHYS_COMPAT_MFN_LIST: refused("tells the frames of the M2P of 32-bit guests", EOPNOTSUPP),
        XenMem.MEMORY_MAP: refused("tells the domain's memory map, if it was given one", ENOSYS),
        XenMem.SET_MEMORY_MAP: refused("gives a domain, here domain 0, a memory map", EPERM),
        XenMem.ADD_TO_PHYSMAP_BATCH: refused("the same, many at once", EACCES),
        XenMem.REMOVE_FROM_PHYSMAP: refused("takes frames out of such a map", EACCES),
        XenMem.CLAIM_PAGES: refused("stakes memory for a domain", EPERM),
        XenMem.GET_VNUMAINFO: refused("tells a domain's, here domain 0's, NUMA nodes", EPERM),
        XenMem.RESERVED_DEVICE_MEMORY_MAP: refused("tells what devices reserve", 0),
        XenMem.ACQUIRE_RESOURCE: refused("maps what Xen keeps for a domain", EPERM),
        XenMem.PAGING_OP: refused("paging (CONFIG_MEM_PAGING)", ENOSYS),
        XenMem.ACCESS_OP: refused("access rights of HVM pages", EINVAL),
        XenMem.SHARING_OP: refused("sharing of frames (CONFIG_MEM_SHARING)", ENOSYS),
        XenMem.MACHINE_MEMORY_MAP: refused("tells the machine's memory map", EPERM, "arch_memory_op()"),
        XenMem.SET_POD_TARGET: refused("sets a target of populate on demand", EINVAL, "arch_memory_op()"),
        XenMem.GET_POD_TARGET: refused("tells a target of populate on demand", EINVAL, "arch_memory_op()"),
        XenMem.GET_SHARING_FREED_PAGES: refused("tells what sharing saves", 0, "arch_memory_op()"),
        XenMem.GET_SHARING_SHARED_PAGES: refused("tells what is shared", 0, "arch_memory_op()"),
        "other": Operation("any other command", "arch_memory_op()", [Row("beyond the last", (63, NULL), ENOSYS)]),
    },
)


def versioned(kind: type, **values: object) -> list[Row]:
    """Rows of an operation on a list of structures."""
    good = put(kind, **values)
    return [
        Row("none", (NULL, 0), 0),
        Row("none, from nowhere", (UNMAPPED, 0), 0),
        Row("none, in Xen's range", (IN_XEN, 0), EFAULT),
        Row("more than can be counted", (NULL, 0x8000_0000), EINVAL),
        *faults(good, after=(1,)),
    ]


def grants(summary: str, source: str, *rows: Row) -> Operation:
    return Operation(summary, source, rows)


def status(what: str, kind: type, found: Gntst, **values: object) -> Row:
    return Row(what, (put(kind, **values), 1), 0, {"status": found})


def table_of(kind: type, **values: object) -> list[Row]:
    """Rows of an operation on a domain's table, which must be the caller's."""
    return [
        status("its own", kind, Gntst.OKAY, dom=DOMID_SELF, **values),
        status("by its number", kind, Gntst.OKAY, dom=OWN, **values),
        status("another domain's", kind, Gntst.PERMISSION_DENIED, dom=NEIGHBOUR, **values),
        status("domain 0's", kind, Gntst.PERMISSION_DENIED, dom=DOM0, **values),
        status("nobody's", kind, Gntst.BAD_DOMAIN, dom=NOBODY, **values),
        Row("two", (put(kind, dom=DOMID_SELF, **values), 2), EINVAL),
        Row("none", (put(kind, dom=DOMID_SELF, **values), 0), EINVAL),
        *faults(put(kind, dom=DOMID_SELF), after=(1,), written=True),
    ]


GRANT_TABLE = Table(
    GRANTS,
    commands=GnttabOp,
    operations={
        GnttabOp.MAP_GRANT_REF: grants(
            "maps granted frames",
            "gnttab_map_grant_ref()",
            status("of nobody", GnttabMapGrantRef, Gntst.BAD_DOMAIN, dom=NOBODY, flags=2),
            status("that was not granted", GnttabMapGrantRef, Gntst.GENERAL_ERROR, dom=NEIGHBOUR, ref=9, flags=2),
            status("beyond the table", GnttabMapGrantRef, Gntst.BAD_GNTREF, dom=NEIGHBOUR, ref=1 << 20, flags=2),
            *versioned(GnttabMapGrantRef, dom=NEIGHBOUR, flags=2),
        ),
        GnttabOp.UNMAP_GRANT_REF: grants(
            "unmaps them",
            "gnttab_unmap_grant_ref()",
            status("by no handle", GnttabUnmapGrantRef, Gntst.BAD_HANDLE, handle=77),
            *versioned(GnttabUnmapGrantRef, handle=77),
        ),
        GnttabOp.SETUP_TABLE: grants(
            "tells, and makes, the frames of the table",
            "gnttab_setup_table()",
            *table_of(GnttabSetupTable),
            status("too many frames", GnttabSetupTable, Gntst.GENERAL_ERROR, dom=DOMID_SELF, nr_frames=65),
        ),
        GnttabOp.DUMP_TABLE: grants(
            "is gone from Xen", "do_grant_table_op()", Row("valid", (put(GnttabDumpTable, dom=DOMID_SELF), 1), ENOSYS)
        ),
        GnttabOp.TRANSFER: grants(
            "gives frames to another domain",
            "gnttab_transfer()",
            status("to nobody", GnttabTransfer, Gntst.BAD_DOMAIN, mfn=mfn(HOLE), domid=NOBODY),
            status("no RAM", GnttabTransfer, Gntst.BAD_PAGE, mfn=1 << 40, domid=NEIGHBOUR),
            *versioned(GnttabTransfer, mfn=1 << 40, domid=NEIGHBOUR),
        ),
        GnttabOp.COPY: grants(
            "copies between frames",
            "gnttab_copy()",
            Row(
                "between its own frames",
                (
                    put(
                        GnttabCopy,
                        source__u__gmfn=mfn(FREE),
                        source__domid=DOMID_SELF,
                        dest__u__gmfn=mfn(FREE + 1),
                        dest__domid=DOMID_SELF,
                        len=8,
                    ),
                    1,
                ),
                0,
                {"status": Gntst.OKAY},
            ),
            Row(
                "from another's frame",
                (put(GnttabCopy, source__domid=NEIGHBOUR, dest__domid=DOMID_SELF, len=8), 1),
                0,
                {"status": Gntst.PERMISSION_DENIED},
            ),
            *versioned(GnttabCopy),
        ),
        GnttabOp.QUERY_SIZE: grants("tells how long the table is", "gnttab_query_size()", *table_of(GnttabQuerySize)),
        GnttabOp.UNMAP_AND_REPLACE: grants(
            "unmaps, and maps another page there",
            "gnttab_unmap_and_replace()",
            status("by no handle", GnttabUnmapAndReplace, Gntst.BAD_HANDLE, handle=77),
            *versioned(GnttabUnmapAndReplace, handle=77),
        ),
        GnttabOp.SET_VERSION: grants(
            "chooses the table's version: 1",
            "gnttab_set_version()",
            Row("1", (put(GnttabSetVersion, version=1), 1), 0, {"version": 1}),
            Row("2", (put(GnttabSetVersion, version=2), 1), ENOSYS, {"version": 1}),
            Row("3", (put(GnttabSetVersion, version=3), 1), EINVAL, {}),
        ),
        GnttabOp.GET_STATUS_FRAMES: grants(
            "tells version 2's frames of flags",
            "gnttab_get_status_frames()",
            Row("two", (put(GnttabGetStatusFrames, dom=DOMID_SELF), 2), EINVAL),
        ),
        GnttabOp.GET_VERSION: grants(
            "tells the table's version",
            "gnttab_get_version()",
            Row("its own", (put(GnttabGetVersion, dom=DOMID_SELF), 1), 0, {"version": 1}),
            Row("another domain's", (put(GnttabGetVersion, dom=NEIGHBOUR), 1), EPERM),
            Row("domain 0's", (put(GnttabGetVersion, dom=DOM0), 1), EPERM),
            Row("nobody's", (put(GnttabGetVersion, dom=NOBODY), 1), ESRCH),
            *faults(put(GnttabGetVersion, dom=DOMID_SELF), after=(1,), written=True),
        ),
        GnttabOp.SWAP_GRANT_REF: grants(
            "swaps two entries",
            "gnttab_swap_grant_ref()",
            status("that are not in use", GnttabSwapGrantRef, Gntst.OKAY, ref_a=8, ref_b=9),
            status("beyond the table", GnttabSwapGrantRef, Gntst.BAD_GNTREF, ref_a=8, ref_b=1 << 20),
            *versioned(GnttabSwapGrantRef, ref_a=8, ref_b=9),
        ),
        GnttabOp.CACHE_FLUSH: grants(
            "flushes caches over a frame",
            "gnttab_cache_flush()",
            Row("nothing asked for", (put(GnttabCacheFlush), 1), 0),
            *versioned(GnttabCacheFlush)[:2],
        ),
        "other": grants(
            "any other command",
            "do_grant_table_op()",
            Row("beyond the last", (13, NULL, 1), ENOSYS),
            Row("more than can be counted", (13, NULL, 0x8000_0000), EINVAL),
        ),
    },
)
TABLES = (MEMORY, GRANT_TABLE)
