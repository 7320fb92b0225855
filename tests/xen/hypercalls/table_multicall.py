"""multicall and iret, and numbers that are no hypercall. Read from common/multicall.c, arch/x86/pv/hypercall.c."""

from struct import unpack

from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.sched import SchedOp

from .domain_under_test import FREE, IRET_RESULT, DomainUnderTest
from .vocabulary import (
    EFAULT,
    EINVAL,
    ENOSYS,
    HIGH,
    IN_XEN,
    NULL,
    UNMAPPED,
    Operation,
    Place,
    Put,
    Row,
    Table,
    faults,
    va,
    words,
)

VERSION = 4 << 16 | 17
MARK = 0x5555_5555_5555_5555
U64 = (1 << 64) - 1


def calls(*entries: tuple) -> Put:
    """A list of struct multicall_entry; the results are a mark before the call."""
    return words(*(word for op, *args in entries for word in (op, MARK, *args, *[0] * (6 - len(args)))))


def results(*wanted: int):
    """The results in the first entries of the list at the start of the arguments."""

    def look(guest: DomainUnderTest) -> str | None:
        raw = guest.read(guest.va(1), 64 * len(wanted))
        found = tuple(unpack("<8Q", raw[at : at + 64])[1] for at in range(0, len(raw), 64))
        expected = tuple(value & U64 for value in wanted)
        return None if found == expected else f"the results are {[hex(value) for value in found]}"

    return look


XEN_VERSION = (Hypercall.XEN_VERSION, 0)
STACK = (Hypercall.STACK_SWITCH, 0xE02B, va(FREE))


def row(what: str, list_of_calls: Put, count: int, result: int, *wanted: int) -> Row:
    return Row(what, (list_of_calls, count), result, b"", then=results(*wanted))


TABLES = (
    Table(
        Hypercall.MULTICALL,
        {
            None: Operation(
                "makes several hypercalls",
                "do_multicall(), arch_do_multicall_call()",
                [
                    row("two", calls(XEN_VERSION, STACK), 2, 0, VERSION, 0),
                    *(
                        Row(f"two, {p.value}", (calls(STACK, STACK).at(p), 2), 0, b"")
                        for p in (Place.UNALIGNED, Place.SPLIT)
                    ),
                    row("one of two", calls(XEN_VERSION, STACK), 1, 0, VERSION, MARK),
                    row("a failure does not end it", calls((Hypercall.XEN_VERSION, 99), STACK), 2, 0, ENOSYS, 0),
                    row("a multicall within", calls((Hypercall.MULTICALL, NULL, 0), STACK), 2, 0, EINVAL, 0),
                    row("no hypercall", calls((63,), (1000,), STACK), 3, 0, ENOSYS, ENOSYS, 0),
                    row("a number has 64 bits", calls((HIGH | Hypercall.XEN_VERSION, 0)), 1, 0, ENOSYS),
                    row("yield within", calls((Hypercall.SCHED_OP, SchedOp.YIELD), XEN_VERSION), 2, 0, 0, VERSION),
                    Row("none", (NULL, 0), 0),
                    Row("none, from nowhere", (UNMAPPED, 0), 0),
                    Row("none, in Xen's range", (IN_XEN, 0), EFAULT),
                    Row("too many to count", (va(FREE), U64), EFAULT),
                    Row("more than are mapped", (calls(STACK, STACK).at(Place.LAST), 3), EFAULT, b""),
                    Row("a list that can't be written", (calls(XEN_VERSION).at(Place.READ_ONLY), 1), EFAULT),
                    *faults(calls(XEN_VERSION), after=(1,)),
                ],
            )
        },
    ),
    Table(
        Hypercall.IRET,
        {
            None: Operation(
                "returns to what was interrupted",
                "do_iret()",
                [
                    Row("the result is the rax of the frame", (NULL,), IRET_RESULT),
                ],
            )
        },
    ),
)
