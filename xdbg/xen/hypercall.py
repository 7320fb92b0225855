"""The hypercall table and its dispatch. Xen: arch/x86/pv/hypercall.c, include/hypercall-defs.c.

A hypercall is a `syscall` from kernel mode: rax is the number, rdi rsi rdx r10 r8 r9 the arguments, rax the result.
A handler is `do_NAME(vcpu, ...)`, put into the table by `@hypercall(Hypercall.NAME)`; its number of parameters is the
number of registers it gets, and parameters named in `_UINT32` are cut to 32 bits as in Xen's prototypes. It returns the
result or raises. `HypercallError` and `GuestFault` become `-errno` here and nowhere else.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.machine.registers import R8, R9, R10, RAX, RDI, RDX, RSI

from .domain import NR_HYPERCALLS
from .events import HypercallDone, HypercallEntered
from .faults import GuestFault, HypercallError
from .vcpu import Vcpu

Handler = Callable[..., int | None]

_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: the handler, how many arguments it takes, which of them are 32 bits wide, and what it does in a line."""

    number: Hypercall
    handler: Handler
    nr_args: int
    narrow: tuple[int, ...]
    summary: str


TABLE: dict[int, Entry] = {}
"""Every hypercall that is implemented, by number."""

_UINT32 = frozenset({"cmd", "count", "set", "which", "cmd_type", "domid", "uint32"})


def hypercall(number: Hypercall) -> Callable[[Handler], Handler]:
    """Enter a handler in the table under its number. It returns the result; None: it set the registers itself."""

    def enter(handler: Handler) -> Handler:
        names = list(inspect.signature(handler).parameters)[1:]
        assert number not in TABLE, number
        narrow = tuple(i for i, name in enumerate(names) if name in _UINT32)
        summary = (inspect.getdoc(handler) or "").partition("\n")[0]
        TABLE[number] = Entry(number, handler, len(names), narrow, summary)
        return handler

    return enter


def call(vcpu: Vcpu, number: int, args: tuple[int, ...], *, in_multicall: bool = False) -> int | None:
    """Carry out one hypercall; the result is signed. None: the handler changed the flow itself (iret)."""
    entry = TABLE.get(number)
    domain = vcpu.domain
    domain.hypercalls[min(NR_HYPERCALLS, number)] += 1
    observer = domain.hv.observer
    args = args[: entry.nr_args] if entry is not None else ()
    if observer is not None:
        observer.observe(vcpu, HypercallEntered(number, args, in_multicall))
    values = list(args)
    result: int | None
    if entry is None:
        result = -Errno.ENOSYS
    else:
        for i in entry.narrow:
            values[i] &= _U32
        try:
            result = entry.handler(vcpu, *values)
        except HypercallError as error:
            result = -error.errno
        except GuestFault:
            result = -Errno.EFAULT
    if observer is not None and result is not None:
        observer.observe(vcpu, HypercallDone(number, tuple(values), result, in_multicall))
    return result


def pv_hypercall(vcpu: Vcpu) -> None:
    """A `syscall` from kernel mode: RIP is already behind it. Xen: pv_hypercall()."""
    cpu = vcpu.domain.hv.cpu
    gpr = cpu.gpr
    result = call(
        vcpu,
        gpr[RAX],
        (gpr[RDI], gpr[RSI], gpr[RDX], gpr[R10], gpr[R8], gpr[R9]),
    )
    if result is not None:
        gpr[RAX] = result & _U64
