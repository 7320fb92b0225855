"""Hypercalls in words: the name, the sub-operation, the arguments by the names of Xen's prototypes, and the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdbg.abi.cenum import CEnum
from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MMU_CMD_MASK, MMU_UPDATE_PREEMPTED, MmuextOp, MmuextOpStruct, MmuUpdate, MmuUpdateCmd

from .arguments import U32, Call, Named, call_name, uvm_flags
from .events import Value
from .hypercall_table import TABLE
from .structures import Read, enum_name

_MAX_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class _Requests:
    """A list of requests: each of `size` bytes, its command in the first `width` of them, under `mask`."""

    kind: type[CEnum]
    size: int
    width: int
    mask: int


_LISTS: Mapping[int, _Requests] = {
    Hypercall.MMU_UPDATE: _Requests(MmuUpdateCmd, MmuUpdate.SIZE, 8, MMU_CMD_MASK),
    Hypercall.MMUEXT_OP: _Requests(MmuextOp, MmuextOpStruct.SIZE, 4, U32),
}
"""Hypercalls with a pointer to requests in argument 0 and their number in argument 1."""

MAX_REQUESTS = 1024
"""Requests of one call in which a command is looked for: a guest may pass millions."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A hypercall in words. `args` by the names of the parameters, in their order."""

    name: str
    sub_op: str | None = None
    args: dict[str, Value] = field(default_factory=dict)


def decode_call(nr: int, args: tuple[int, ...], read: Read) -> Decoded:
    """What a hypercall asks for. Arguments beyond those of the prototype are left out; a null pointer is 0."""
    name = call_name(nr)
    row = TABLE.get(nr)
    if row is None:
        return Decoded(name, None, {f"arg{i}": value for i, value in enumerate(args)})
    call = Call(args, read)
    sub_op = None
    decoded: dict[str, Value] = {}
    for index, ((param, show), value) in enumerate(zip(row.params, args, strict=False)):
        if index == 0 and row.sub_ops is not None:
            sub_op = enum_name(row.sub_ops.kind, value & row.sub_ops.mask)
        else:
            # Zero is a name where the enumeration has one for it, else a number or the null pointer.
            decoded[param] = show(call, value) if value or isinstance(show, Named) or show is uvm_flags else 0
    return Decoded(name, sub_op, decoded)


def commands_of(nr: int) -> type[CEnum] | None:
    """The sub-operations that a hypercall has names for; None: it has none."""
    if nr in _LISTS:
        return _LISTS[nr].kind
    row = TABLE.get(nr)
    return None if row is None or row.sub_ops is None else row.sub_ops.kind


def commands_in(nr: int, args: tuple[int, ...], read: Read) -> Sequence[int]:
    """The sub-operations that one call asks for; of a list of requests the readable, up to `MAX_REQUESTS`."""
    if nr in _LISTS and len(args) > 1:
        requests = _LISTS[nr]
        count = min(args[1] & U32 & ~MMU_UPDATE_PREEMPTED, MAX_REQUESTS)
        commands: list[int] = []
        for index in range(count):
            data = read(args[0] + index * requests.size, requests.size)
            if data is None:
                break
            commands.append(int.from_bytes(data[: requests.width], "little") & requests.mask)
        return commands
    row = TABLE.get(nr)
    return (args[0] & row.sub_ops.mask,) if row is not None and row.sub_ops is not None and args else ()


def errno_name(result: int) -> str | None:
    """The name of the error that a result is, or None for a value."""
    if not -_MAX_ERRNO <= result < 0:
        return None
    return enum_name(Errno, -result)


def changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Value]:
    """What of `after` is not as it was `before`: in dictionaries the parts that differ, lists as a whole."""
    out: dict[str, Value] = {}
    for name, value in after.items():
        old = before.get(name)
        if value == old:
            continue
        out[name] = changed(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out
