"""Several hypercalls in one: multicall. Xen: common/multicall.c.

The calls are made in order, each result in its entry. Between two of them Xen looks whether something else has its
turn: an upcall that one of the calls made due, or another vcpu, the caller having gone to sleep or given up the CPU.
Then the rest becomes a call of its own, which the guest makes by itself when it runs again. A call that changes the
flow (iret) ends the list.
"""

import contextlib
from struct import Struct
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import MulticallEntry
from xdbg.machine.registers import RAX

from .continuation import BATCH, create_continuation
from .faults import GuestFault, HypercallError
from .guest_access import address_ok, copy_from_guest, copy_to_guest
from .hypercall import call, hypercall
from .sched import events_need_delivery
from .vcpu import Vcpu

_ENTRY: Final = Struct("<8Q")
"""struct multicall_entry: op, result, args. Unpacked by hand, since whole batches are made of it."""
_RESULT: Final = MulticallEntry.offset_of("result")
_WORD: Final = Struct("<Q")
_U64: Final = (1 << 64) - 1


@hypercall(Hypercall.MULTICALL)
def do_multicall(vcpu: Vcpu, call_list: int, nr_calls: int) -> int | None:
    """HYPERVISOR_multicall(list, nr_calls): several hypercalls, each result in its entry.

    -EFAULT when an entry can't be read or its result can't be written; a multicall among them gets -EINVAL.
    """
    if not address_ok(call_list) or nr_calls >= _U64 // _ENTRY.size:
        raise HypercallError(Errno.EFAULT)
    for index in range(nr_calls):
        at = call_list + index * _ENTRY.size
        if index and (index >= BATCH or hypercall_preempt_check(vcpu)):
            create_continuation(vcpu, at, nr_calls - index)
            return None
        op, _, *args = _ENTRY.unpack(copy_from_guest(vcpu, at, _ENTRY.size))
        if op == Hypercall.MULTICALL:
            result: int | None = -Errno.EINVAL
        else:
            result = call(vcpu, op, tuple(args), in_multicall=True)
        if result is None:
            # The frame that iret took has set all registers, rax as well; that is the result, if it can be told.
            with contextlib.suppress(GuestFault):
                copy_to_guest(vcpu, at + _RESULT, _WORD.pack(vcpu.domain.hv.cpu.gpr[RAX]))
            return None
        copy_to_guest(vcpu, at + _RESULT, _WORD.pack(result & _U64))
    return 0


def hypercall_preempt_check(vcpu: Vcpu) -> bool:
    """Whether something else has its turn before a long hypercall goes on."""
    hv = vcpu.domain.hv
    return not vcpu.runnable or events_need_delivery(vcpu) or hv.now() >= hv.next_tick_ns
