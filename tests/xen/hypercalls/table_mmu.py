"""mmu_update, update_va_mapping and mmuext_op. Read from arch/x86/mm.c."""

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_IO, DOMID_SELF, DOMID_XEN, MmuextOp, MmuextOpStruct, Uvmf

from .domain_under_test import FREE, HOLE, L1, L2, L4, RO, RW, DomainUnderTest
from .vocabulary import (
    DOM0,
    EACCES,
    EBUSY,
    EFAULT,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
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
    Put,
    Row,
    Table,
    anywhere,
    faults,
    foreign_mfn,
    mfn,
    pte,
    put,
    slot,
    va,
    words,
)

GOOD = words(slot(L1, FREE + 1), pte(FREE + 2, RW))
SECOND_FAILS = words(slot(L1, FREE + 1), 0, slot(L1, 0) + 5, 0)
DONE = Put((b"\xee" * 4,))


def one(what: str, ptr: object, value: object, result: int, foreigndom: object = DOMID_SELF) -> Row:
    return Row(what, (words(ptr, value), 1, NULL, foreigndom), result)


def whole(kind: Hypercall, summary: str, source: str, *rows: Row) -> Table:
    return Table(kind, {None: Operation(summary, source, rows)})


def done_is(number: int, offset: int):
    """What was told of requests that were done, `offset` bytes into the first page of arguments."""

    def look(guest: DomainUnderTest) -> str | None:
        found = int.from_bytes(guest.read(guest.va(1) + offset, 4), "little")
        return None if found == number else f"{found:#x} are said to be done"

    return look


MMU_UPDATE = whole(
    Hypercall.MMU_UPDATE,
    "changes entries of page tables, and the M2P",
    "do_mmu_update()",
    *anywhere(Row("an l1e", (GOOD, 1, NULL, DOMID_SELF), 0)),
    Row("told how many", (GOOD, 1, DONE, DOMID_SELF), 0, None, (), done_is(1, 16)),
    Row("told nowhere", (GOOD, 1, UNMAPPED, DOMID_SELF), 0),
    Row(
        "the second fails",
        (words(slot(L1, FREE + 1), 0, slot(L1, 0) + 5, 0), 2, DONE, DOMID_SELF),
        ENOSYS,
        None,
        (),
        done_is(1, 32),
    ),
    Row("none", (NULL, 0, NULL, DOMID_SELF), 0),
    Row("none, in Xen's range", (IN_XEN, 0, NULL, DOMID_SELF), EFAULT),
    Row("none, for nobody", (NULL, 0, NULL, NOBODY), ESRCH),
    Row("none, for itself by number", (NULL, 0, NULL, OWN), ESRCH),
    Row("none, for another domain", (NULL, 0, NULL, NEIGHBOUR), 0),
    Row("none, for domain 0", (NULL, 0, NULL, DOM0), 0),
    Row("none, in tables of nobody", (NULL, 0, NULL, (NOBODY + 1) << 16 | DOMID_SELF), ESRCH),
    one("an entry that is cleared", slot(L1, FREE + 1), 0, 0),
    one("A and D kept", slot(L1, FREE + 1) | 2, pte(FREE + 2, RW), 0),
    one("no translation", slot(L1, FREE + 1) | 3, pte(FREE + 2, RW), 0),
    one("a word of a plain page", slot(HOLE, 3), 0x1234, 0),
    one("an M2P entry", mfn(FREE) << 12 | 1, 77, 0),
    one("an M2P entry of another's frame", foreign_mfn(FREE) << 12 | 1, 77, EINVAL),
    one("an M2P entry of no RAM", 1 << 52 | 1, 77, EINVAL),
    one("an unknown command, 4", slot(L1, FREE) | 4, 0, ENOSYS),
    one("an unknown command, 7", slot(L1, FREE) | 7, 0, ENOSYS),
    one("another domain's table", foreign_mfn(L1) << 12, 0, EINVAL),
    one("no RAM", 1 << 52, 0, EINVAL),
    one("for another domain", slot(L1, FREE + 1), 0, EPERM, NEIGHBOUR),
    one("for domain 0", slot(L1, FREE + 1), 0, EPERM, DOM0),
    one("for dom_xen", slot(L1, FREE + 1), 0, EPERM, DOMID_XEN),
    one("in another domain's tables", slot(L1, FREE + 1), 0, EPERM, (NEIGHBOUR + 1) << 16 | DOMID_SELF),
    one("an l1e that would write to a table", slot(L1, FREE + 1), pte(L2, RW), EBUSY),
    one("an l1e that reads a table", slot(L1, FREE + 1), pte(L2, RO), 0),
    one("an l1e of another's frame", slot(L1, FREE + 1), foreign_mfn(FREE) << 12 | RO, EBUSY),
    one("an l1e with a reserved bit", slot(L1, FREE + 1), pte(FREE, RO) | 1 << 62, 0),
    one("an l1e of no RAM", slot(L1, FREE + 1), 1 << 40 | RO, EPERM),
    one("an l2e of a page that is mapped writable", slot(L2, 7), pte(FREE, RW), EINVAL),
    one("a superpage", slot(L2, 7), pte(FREE, RW) | 1 << 7, EINVAL),
    one("an l4e of Xen's", slot(L4, 260), 0, EINVAL),
    *faults(GOOD, after=(1, NULL, DOMID_SELF)),
    Row("requests in a read-only page", (GOOD.at(Place.READ_ONLY), 1, NULL, DOMID_SELF), 0),
)

NEW = pte(FREE + 2, RW)


def mapping(*domid: object) -> list[Row]:
    """What both forms have in common."""
    return [
        Row("valid", (va(FREE + 1), NEW, Uvmf.INVLPG, *domid), 0),
        Row("cleared", (va(FREE + 1), 0, 0, *domid), 0),
        Row("TLB of all", (va(FREE + 1), NEW, Uvmf.TLB_FLUSH | Uvmf.ALL, *domid), 0),
        Row("TLB of some, from nowhere", (va(FREE + 1), NEW, UNMAPPED | Uvmf.INVLPG, *domid), EFAULT),
        Row("an unknown flush", (va(FREE + 1), NEW, 3, *domid), 0),
        Row("not an address", (0x0000_8000_0000_0000, NEW, 0, *domid), EINVAL),
        Row("an address without a table", (0x1000, NEW, 0, *domid), EINVAL),
        Row("an address of Xen's", (IN_XEN, NEW, 0, *domid), EINVAL),
        Row("a table, writable", (va(FREE + 1), pte(L1, RW), 0, *domid), EBUSY),
        Row("another's frame", (va(FREE + 1), foreign_mfn(FREE) << 12 | RO, 0, *domid), EBUSY),
        Row("no RAM", (va(FREE + 1), 1 << 40 | RO, 0, *domid), EPERM),
    ]


VA_MAPPING = whole(
    Hypercall.UPDATE_VA_MAPPING,
    "maps a frame at an address",
    "do_update_va_mapping()",
    *mapping(),
)
VA_MAPPING_OTHER = whole(
    Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN,
    "maps a frame of another domain at an address",
    "do_update_va_mapping_otherdomain()",
    Row("its own", (va(FREE + 1), NEW, 0, DOMID_SELF), 0),
    Row("its own by number", (va(FREE + 1), NEW, 0, OWN), ESRCH),
    Row("another domain's", (va(FREE + 1), foreign_mfn(FREE) << 12 | RO, 0, NEIGHBOUR), EPERM),
    Row("domain 0's", (va(FREE + 1), NEW, 0, DOM0), EPERM),
    Row("nobody's", (va(FREE + 1), NEW, 0, NOBODY), ESRCH),
    Row("dom_xen's", (va(FREE + 1), NEW, 0, DOMID_XEN), EPERM),
    Row("devices'", (va(FREE + 1), 0, 0, DOMID_IO), 0),
    Row("a domid has 16 bits", (va(FREE + 1), NEW, 0, DOMID_SELF | HIGH | 1 << 16), 0),
    *mapping(DOMID_SELF)[1:],
)


def op(cmd: object, arg1: object = 0, arg2: object = 0) -> Put:
    return put(MmuextOpStruct, cmd=cmd, arg1__mfn=arg1, arg2__src_mfn=arg2)


def ext(
    what: str, result: int, cmd: object, arg1: object = 0, arg2: object = 0, foreigndom: object = DOMID_SELF
) -> Row:
    return Row(what, (op(cmd, arg1, arg2), 1, NULL, DOMID_SELF), result)


def doing(summary: str, *rows: Row) -> Operation:
    return Operation(summary, "do_mmuext_op()", rows)


def pin(cmd: MmuextOp, level: int) -> Operation:
    return doing(
        f"keeps a frame an L{level} table",
        ext("an empty page", 0, cmd, mfn(HOLE)),
        ext("a page that is mapped writable", EINVAL, cmd, mfn(FREE)),
        ext("another domain's", EINVAL, cmd, foreign_mfn(HOLE)),
        ext("no RAM", EINVAL, cmd, 1 << 40),
        Row(
            "twice",
            (op(cmd, mfn(HOLE)), 1, NULL, DOMID_SELF),
            EINVAL,
            None,
            ((Hypercall.MMUEXT_OP, op(cmd, mfn(HOLE)), 1, NULL, DOMID_SELF),),
        ),
    )


def flush(cmd: MmuextOp, summary: str) -> Operation:
    return doing(summary, ext("valid", 0, cmd, va(FREE)), ext("any address", 0, cmd, IN_XEN))


def flush_multi(cmd: MmuextOp, summary: str) -> Operation:
    return doing(
        summary,
        ext("this vcpu", 0, cmd, va(FREE), words(1)),
        ext("no vcpu that is there", 0, cmd, va(FREE), words(1 << 60)),
        ext("a mask that is not mapped", EINVAL, cmd, va(FREE), UNMAPPED),
    )


MMUEXT = Table(
    Hypercall.MMUEXT_OP,
    commands=MmuextOp,
    first=False,
    operations={
        MmuextOp.PIN_L1_TABLE: pin(MmuextOp.PIN_L1_TABLE, 1),
        MmuextOp.PIN_L2_TABLE: pin(MmuextOp.PIN_L2_TABLE, 2),
        MmuextOp.PIN_L3_TABLE: pin(MmuextOp.PIN_L3_TABLE, 3),
        MmuextOp.PIN_L4_TABLE: pin(MmuextOp.PIN_L4_TABLE, 4),
        MmuextOp.UNPIN_TABLE: doing(
            "ends that",
            Row(
                "one that is pinned",
                (op(MmuextOp.UNPIN_TABLE, mfn(HOLE)), 1, NULL, DOMID_SELF),
                0,
                None,
                ((Hypercall.MMUEXT_OP, op(MmuextOp.PIN_L1_TABLE, mfn(HOLE)), 1, NULL, DOMID_SELF),),
            ),
            ext("one that is not", EINVAL, MmuextOp.UNPIN_TABLE, mfn(HOLE)),
            ext("another domain's", EINVAL, MmuextOp.UNPIN_TABLE, foreign_mfn(L4)),
        ),
        MmuextOp.NEW_BASEPTR: doing(
            "changes the kernel's tables",
            ext("to those in use", 0, MmuextOp.NEW_BASEPTR, mfn(L4)),
            ext("to a page that is mapped writable", EINVAL, MmuextOp.NEW_BASEPTR, mfn(FREE)),
            ext("to another domain's", EINVAL, MmuextOp.NEW_BASEPTR, foreign_mfn(L4)),
        ),
        MmuextOp.NEW_USER_BASEPTR: doing(
            "changes user mode's tables",
            ext("to an L4", 0, MmuextOp.NEW_USER_BASEPTR, mfn(L4)),
            ext("to none", 0, MmuextOp.NEW_USER_BASEPTR, 0),
            ext("to a page that is mapped writable", EINVAL, MmuextOp.NEW_USER_BASEPTR, mfn(FREE)),
        ),
        MmuextOp.TLB_FLUSH_LOCAL: flush(MmuextOp.TLB_FLUSH_LOCAL, "flushes this vcpu's TLB"),
        MmuextOp.INVLPG_LOCAL: flush(MmuextOp.INVLPG_LOCAL, "flushes one address of it"),
        MmuextOp.TLB_FLUSH_MULTI: flush_multi(MmuextOp.TLB_FLUSH_MULTI, "flushes some vcpus' TLBs"),
        MmuextOp.INVLPG_MULTI: flush_multi(MmuextOp.INVLPG_MULTI, "flushes one address of them"),
        MmuextOp.TLB_FLUSH_ALL: flush(MmuextOp.TLB_FLUSH_ALL, "flushes all TLBs"),
        MmuextOp.INVLPG_ALL: flush(MmuextOp.INVLPG_ALL, "flushes one address of them"),
        MmuextOp.FLUSH_CACHE: doing(
            "flushes the caches: for domains with devices", ext("valid", EACCES, MmuextOp.FLUSH_CACHE)
        ),
        MmuextOp.FLUSH_CACHE_GLOBAL: doing(
            "flushes all caches: needs devices", ext("valid", EACCES, MmuextOp.FLUSH_CACHE_GLOBAL)
        ),
        MmuextOp.SET_LDT: doing(
            "sets the LDT",
            ext("a page", 0, MmuextOp.SET_LDT, va(FREE), 512),
            ext("none", 0, MmuextOp.SET_LDT, 0, 0),
            ext("as many as can be", 0, MmuextOp.SET_LDT, va(FREE), 8192),
            ext("too many", EINVAL, MmuextOp.SET_LDT, va(FREE), 8193),
            ext("not at a page's start", EINVAL, MmuextOp.SET_LDT, va(FREE, 8), 8),
            ext("in Xen's range", EINVAL, MmuextOp.SET_LDT, 0xFFFF_8300_0000_0000, 8),
        ),
        MmuextOp.CLEAR_PAGE: doing(
            "clears a page",
            ext("valid", 0, MmuextOp.CLEAR_PAGE, mfn(FREE)),
            ext("a table", EINVAL, MmuextOp.CLEAR_PAGE, mfn(L1)),
            ext("another domain's", EINVAL, MmuextOp.CLEAR_PAGE, foreign_mfn(FREE)),
        ),
        MmuextOp.COPY_PAGE: doing(
            "copies a page",
            ext("valid", 0, MmuextOp.COPY_PAGE, mfn(FREE), mfn(FREE + 1)),
            ext("from a table", 0, MmuextOp.COPY_PAGE, mfn(FREE), mfn(L1)),
            ext("to a table", EINVAL, MmuextOp.COPY_PAGE, mfn(L1), mfn(FREE)),
            ext("from another domain's", EINVAL, MmuextOp.COPY_PAGE, mfn(FREE), foreign_mfn(FREE)),
        ),
        MmuextOp.MARK_SUPER: doing("made a superpage", ext("valid", EOPNOTSUPP, MmuextOp.MARK_SUPER, mfn(FREE))),
        MmuextOp.UNMARK_SUPER: doing("unmade a superpage", ext("valid", EOPNOTSUPP, MmuextOp.UNMARK_SUPER, mfn(FREE))),
        "other": doing(
            "any other command, and the list as a whole",
            ext("14", ENOSYS, 14),
            ext("beyond the last", ENOSYS, 21),
            Row("none", (NULL, 0, NULL, DOMID_SELF), 0),
            Row("none, in Xen's range", (IN_XEN, 0, NULL, DOMID_SELF), EFAULT),
            Row("none, for nobody", (NULL, 0, NULL, NOBODY), ESRCH),
            Row("none, for itself by number", (NULL, 0, NULL, OWN), ESRCH),
            Row("for another domain", (op(MmuextOp.TLB_FLUSH_LOCAL), 1, NULL, NEIGHBOUR), EPERM),
            Row("for domain 0", (op(MmuextOp.TLB_FLUSH_LOCAL), 1, NULL, DOM0), EPERM),
            Row("told how many", (op(MmuextOp.TLB_FLUSH_LOCAL), 1, DONE, DOMID_SELF), 0, None, (), done_is(1, 32)),
            *faults(op(MmuextOp.TLB_FLUSH_LOCAL), after=(1, NULL, DOMID_SELF)),
        ),
    },
)

TABLES = (MMU_UPDATE, VA_MAPPING, VA_MAPPING_OTHER, MMUEXT)
