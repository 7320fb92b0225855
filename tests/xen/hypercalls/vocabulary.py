"""The words in which the tables of hypercalls are written: rows of (input class, arguments, result).

A `Table` is one hypercall. It holds an `Operation` for each sub-operation, and an operation holds `Row`s: what the
caller passes and what Xen 4.17 gives an unprivileged domain for it, read from the function that `source` names. The
first row of an operation is its ordinary use: what becomes of that is what the documentation says of the operation.

An argument is a number, a `Later` (a number that depends on the machine: a frame, an address), or a structure that is
first stored in guest memory, in a page of a certain kind (`Place`), and passed by address. Unless a row says what was
`wrote`, the structure must be as before.
"""

import ctypes
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from xdbg.abi.cenum import CEnum
from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall

if TYPE_CHECKING:
    from .domain_under_test import DomainUnderTest


class Later:
    """A number that is known when the row runs. Arithmetic with it gives another."""

    def __init__(self, name: str, value: "Callable[[DomainUnderTest], int]") -> None:
        self.name = name
        self.value = value

    def _with(self, other: "int | Later", what: Callable[[int, int], int], sign: str) -> "Later":
        return Later(f"{self.name} {sign} {other}", lambda guest: what(self.value(guest), known(guest, other)))

    def __add__(self, other: "int | Later") -> "Later":
        return self._with(other, operator.add, "+")

    def __sub__(self, other: "int | Later") -> "Later":
        return self._with(other, operator.sub, "-")

    def __or__(self, other: "int | Later") -> "Later":
        return self._with(other, operator.or_, "|")

    def __and__(self, other: "int | Later") -> "Later":
        return self._with(other, operator.and_, "&")

    def __lshift__(self, other: "int | Later") -> "Later":
        return self._with(other, operator.lshift, "<<")

    def __repr__(self) -> str:
        return self.name


def known(guest: "DomainUnderTest", value: "int | Later") -> int:
    return value.value(guest) if isinstance(value, Later) else value


class Place(Enum):
    """Where a structure lies in the guest's memory."""

    WRITABLE = "aligned, in a writable page"
    UNALIGNED = "unaligned"
    SPLIT = "across two writable pages"
    STRADDLE = "its end in a page that is not mapped"
    READ_ONLY = "in a read-only page"
    LAST = "the last in its page, the next one not mapped"


@dataclass(frozen=True)
class Put:
    """Bytes for guest memory: structures and words, in order; the argument is their address."""

    parts: tuple[Any, ...]
    place: Place = Place.WRITABLE

    def at(self, place: Place) -> "Put":
        return replace(self, place=place)


@dataclass(frozen=True)
class Fields:
    """A structure of `kind` with these fields; dots lead into unions; all else is 0. A `Put` is a pointer to it."""

    kind: type[Any]
    values: Mapping[str, Any]

    def build(self, guest: "DomainUnderTest") -> bytes:
        value = self.kind()
        for path, given in self.values.items():
            set_field(value, path, given if isinstance(given, bytes) else guest.place(given))
        return value.to_bytes()


def put(kind: type[Any], **values: Any) -> Put:
    """A structure; `in_` and the like as in the class, `u__ipi__vcpu` for a field within, `ctrlreg__3` of an array."""
    return Put((fields(kind, **values),))


def fields(kind: type[Any], **values: Any) -> Fields:
    return Fields(kind, {name.replace("__", "."): value for name, value in values.items()})


def words(*values: "int | Later") -> Put:
    """64-bit words."""
    return Put(values)


def put_list(*parts: Any) -> Put:
    return Put(parts)


def set_field(value: Any, path: str, given: Any) -> None:
    *outer, last = path.split(".")
    for name in outer:
        value = getattr(value, name)
    if last.isdigit():
        value[int(last)] = given
    else:
        setattr(value, last, given)


def get_field(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return bytes(value) if isinstance(value, ctypes.Array) else value


Argument = "int | Later | Put"
Result = "int | Later"


@dataclass(frozen=True)
class Row:
    """One input class and its result; a negative `Errno` for a refusal.

    `wrote` are fields of the first structure afterwards, or all its bytes. `before` are calls (number, arguments) that
    must succeed first. `then` looks at the domain afterwards; it says what is wrong, or nothing.
    """

    what: str
    args: tuple[Any, ...]
    result: Any
    wrote: Mapping[str, Any] | bytes | None = None
    before: tuple[tuple[Any, ...], ...] = ()
    then: "Callable[[DomainUnderTest], str | None] | None" = None


@dataclass(frozen=True)
class Operation:
    """One sub-operation: what it does in a few words, the function it was read from, its rows."""

    summary: str
    source: str
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        names = [row.what for row in self.rows]
        assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]

    @property
    def outcome(self) -> str:
        """What becomes of the ordinary use, as the documentation says it."""
        result = self.rows[0].result
        if isinstance(result, Later) or result >= 0:
            return "done"
        name = Errno(-result).name
        return "not in this build: -ENOSYS" if name == "ENOSYS" else f"refused: -{name}"


@dataclass(frozen=True)
class Table:
    """One hypercall. With `commands` each operation's key is the first argument, and every command must have one."""

    number: Hypercall
    operations: Mapping[Any, Operation]
    commands: type[CEnum] | None = None
    first: bool = True
    """Whether the command is the first argument; else it stands somewhere in a structure, and rows are whole."""
    not_commands: frozenset[CEnum] = field(default_factory=frozenset)
    """Members of `commands` that are no commands of this hypercall."""

    @property
    def name(self) -> str:
        return Hypercall(self.number).name.lower()


def errno(value: Errno) -> int:
    return -int(value)


EPERM, ENOENT, ESRCH, E2BIG = (errno(e) for e in (Errno.EPERM, Errno.ENOENT, Errno.ESRCH, Errno.E2BIG))
ENOMEM, EACCES, EFAULT, EBUSY = (errno(e) for e in (Errno.ENOMEM, Errno.EACCES, Errno.EFAULT, Errno.EBUSY))
EEXIST, ENODEV, EINVAL, ENOSPC = (errno(e) for e in (Errno.EEXIST, Errno.ENODEV, Errno.EINVAL, Errno.ENOSPC))
ENOSYS, EOPNOTSUPP, ENOBUFS = (errno(e) for e in (Errno.ENOSYS, Errno.EOPNOTSUPP, Errno.ENOBUFS))
EDOM, ENXIO, EXDEV, EOVERFLOW = (errno(e) for e in (Errno.EDOM, Errno.ENXIO, Errno.EXDEV, Errno.EOVERFLOW))

# -- pointers

NULL = 0
IN_XEN = 0xFFFF_8300_0000_1000
"""In Xen's own range, in the direct map."""
IN_M2P = 0xFFFF_8000_0000_0000
"""In Xen's own range, where the guest may read; a hypercall may not be sent there all the same."""
NOT_CANONICAL = 0x0000_8000_0000_0000
UNMAPPED = Later("unmapped", lambda guest: guest.unmapped)
READ_ONLY = Later("read-only", lambda guest: guest.read_only)

HIGH = 1 << 32
"""A bit that a 32-bit argument does not have."""


def faults(
    *kinds: Any,
    before: tuple[Any, ...] = (),
    after: tuple[Any, ...] = (),
    written: bool = False,
    result: int = EFAULT,
) -> list[Row]:
    """Rows for a structure that can't be read: -EFAULT for each kind of bad pointer, or what comes before that.

    `before` and `after` are the other arguments; `written`: it can't be written either when it is read-only.
    """
    (good,) = kinds
    rows = [
        Row(what, (*before, pointer, *after), result)
        for what, pointer in (
            ("null pointer", NULL),
            ("pointer to nothing", UNMAPPED),
            ("pointer into Xen's range", IN_XEN),
            ("pointer into the M2P", IN_M2P),
            ("pointer that is not canonical", NOT_CANONICAL),
        )
    ]
    rows.append(Row("structure half in a page that is not mapped", (*before, good.at(Place.STRADDLE), *after), result))
    if written:
        rows.append(Row("structure that can't be written", (*before, good.at(Place.READ_ONLY), *after), result))
    return rows


def anywhere(row: Row) -> list[Row]:
    """The row itself, and the same for a structure that is not aligned or lies across two pages."""
    rows = [row]
    for place in (Place.UNALIGNED, Place.SPLIT):
        args = tuple(arg.at(place) if isinstance(arg, Put) else arg for arg in row.args)
        rows.append(replace(row, what=f"{row.what}, {place.value}", args=args))
    return rows


# -- the machine's numbers

OWN = Later("own domid", lambda guest: guest.domain.domid)
NEIGHBOUR = Later("neighbour", lambda guest: guest.neighbour.domid)
NOBODY = 0x7777
"""The number of no domain."""
DOMID_INVALID = 0x7FF4
DOM0 = 0


def mfn(pfn: int) -> Later:
    return Later(f"mfn({pfn})", lambda guest: guest.mfn(pfn))


def va(pfn: int, offset: int = 0) -> Later:
    return Later(f"va({pfn}, {offset:#x})", lambda guest: guest.va(pfn) + offset)


def foreign_mfn(pfn: int) -> Later:
    return Later(f"foreign_mfn({pfn})", lambda guest: guest.foreign_mfn(pfn))


def slot(pfn: int, index: int) -> Later:
    """Machine address of an entry of the table at `pfn`."""
    return Later(f"slot({pfn}, {index})", lambda guest: guest.mfn(pfn) * 4096 + index * 8)


def pte(pfn: int, flags: int) -> Later:
    return mfn(pfn) << 12 | flags
