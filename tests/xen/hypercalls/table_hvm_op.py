"""hvm_op, as a PV guest sees it. Read from arch/x86/hvm/hvm.c."""

from xdbg.abi.hvm_op import HvmOp, XenHvmGetMemType, XenHvmGetTime, XenHvmPagetableDying, XenHvmParam, XenHvmXentrace
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF

from .domain_under_test import FREE, DomainUnderTest
from .vocabulary import (
    DOM0,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    HIGH,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Operation,
    Row,
    Table,
    anywhere,
    faults,
    put,
    va,
)


def param(summary: str, source: str) -> Operation:
    good = put(XenHvmParam, domid=DOMID_SELF, index=1, value=5)
    return Operation(
        summary,
        source,
        [
            *anywhere(Row("its own", (good,), EINVAL)),
            Row("by its number", (put(XenHvmParam, domid=OWN, index=1),), EINVAL),
            Row("another domain's", (put(XenHvmParam, domid=NEIGHBOUR, index=1),), EINVAL),
            Row("domain 0's", (put(XenHvmParam, domid=DOM0, index=1),), EINVAL),
            Row("nobody's", (put(XenHvmParam, domid=NOBODY, index=1),), ESRCH),
            Row("the last one, nobody's", (put(XenHvmParam, domid=NOBODY, index=38),), ESRCH),
            Row("beyond the last one, nobody's", (put(XenHvmParam, domid=NOBODY, index=39),), EINVAL),
            *faults(good),
        ],
    )


def _time_is_now(guest: DomainUnderTest) -> str | None:
    told = int.from_bytes(guest.read(guest.va(1), 8), "little")
    return None if guest.hv.now() - 2 <= told <= guest.hv.now() else f"it is {told}, and told at {guest.hv.now()}"


TABLES = (
    Table(
        Hypercall.HVM_OP,
        commands=HvmOp,
        operations={
            HvmOp.SET_PARAM: param("sets a parameter of an HVM domain", "hvmop_set_param()"),
            HvmOp.GET_PARAM: param("tells a parameter of an HVM domain", "hvmop_get_param()"),
            HvmOp.FLUSH_TLBS: Operation(
                "flushes an HVM domain's TLBs",
                "hvmop_flush_tlb_all()",
                [Row("valid", (NULL,), EINVAL), Row("an argument", (va(FREE),), EINVAL)],
            ),
            HvmOp.PAGETABLE_DYING: Operation(
                "tells that an HVM domain drops a page table",
                "do_hvm_op()",
                [
                    *anywhere(Row("valid", (put(XenHvmPagetableDying, domid=DOMID_SELF),), EINVAL)),
                    Row("another domain's", (put(XenHvmPagetableDying, domid=NEIGHBOUR),), EINVAL),
                    Row("nobody's", (put(XenHvmPagetableDying, domid=NOBODY),), ESRCH),
                    *faults(put(XenHvmPagetableDying, domid=DOMID_SELF)),
                ],
            ),
            HvmOp.GET_TIME: Operation(
                "tells system time",
                "do_hvm_op()",
                [
                    Row("valid", (put(XenHvmGetTime),), 0, {}, then=_time_is_now),
                    *faults(put(XenHvmGetTime), written=True),
                ],
            ),
            HvmOp.XENTRACE: Operation(
                "leaves an event in Xen's trace",
                "do_hvm_op()",
                [
                    *anywhere(Row("valid", (put(XenHvmXentrace, event=7, extra_bytes=8),), 0)),
                    Row("as much as there can be", (put(XenHvmXentrace, event=0xFFF, extra_bytes=28),), 0),
                    Row("too much", (put(XenHvmXentrace, event=7, extra_bytes=29),), EINVAL),
                    Row("an event of Xen's own", (put(XenHvmXentrace, event=0x1000),), EINVAL),
                    *faults(put(XenHvmXentrace)),
                ],
            ),
            HvmOp.GET_MEM_TYPE: Operation(
                "tells the type of an HVM domain's page",
                "hvmop_get_mem_type()",
                [
                    *anywhere(Row("valid", (put(XenHvmGetMemType, domid=DOMID_SELF),), EINVAL)),
                    Row("by its number", (put(XenHvmGetMemType, domid=OWN),), EINVAL),
                    Row("another domain's", (put(XenHvmGetMemType, domid=NEIGHBOUR),), EPERM),
                    Row("domain 0's", (put(XenHvmGetMemType, domid=DOM0),), EPERM),
                    Row("nobody's", (put(XenHvmGetMemType, domid=NOBODY),), ESRCH),
                    *faults(put(XenHvmGetMemType, domid=DOMID_SELF)),
                ],
            ),
            HvmOp.SET_EVTCHN_UPCALL_VECTOR: Operation(
                "sets the vector of an HVM vcpu's upcalls",
                "hvmop_set_evtchn_upcall_vector()",
                [Row("valid", (va(FREE),), EINVAL), Row("before the argument is read", (UNMAPPED,), EINVAL)],
            ),
            HvmOp.GUEST_REQUEST_VM_EVENT: Operation(
                "calls whoever monitors the domain: nobody",
                "do_hvm_op()",
                [Row("valid", (NULL,), 0), Row("an argument", (va(FREE),), EINVAL)],
            ),
            HvmOp.ALTP2M: Operation(
                "other views of an HVM domain's memory",
                "do_altp2m_op()",
                [Row("valid", (va(FREE),), EOPNOTSUPP), Row("before the argument is read", (UNMAPPED,), EOPNOTSUPP)],
            ),
            "other": Operation(
                "any other command",
                "do_hvm_op()",
                [
                    *(
                        Row(f"of an older interface, {op}", (op, va(FREE)), ENOSYS)
                        for op in (2, 3, 4, 6, 7, 8, 12, 13, 14)
                    ),
                    Row("beyond", (26, NULL), ENOSYS),
                    Row("the upper half counts", (HIGH | HvmOp.GUEST_REQUEST_VM_EVENT, NULL), ENOSYS),
                ],
            ),
        },
    ),
)
