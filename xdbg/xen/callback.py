"""The entry points that a guest registers: trap table, callbacks, kernel stack. Xen: arch/x86/pv/callback.c."""

from contextlib import suppress

from xdbg.abi.callback import CALLBACKF_MASK_EVENTS, CallbackOp, CallbackRegister, CallbackType, CallbackUnregister
from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.trap import TrapInfo
from xdbg.abi.x86 import FLAT_KERNEL_CS64, Vector

from .faults import HypercallError
from .guest_access import read_struct
from .hypercall import hypercall
from .vcpu import Callback, TrapGate, Vcpu

_CANONICAL = 1 << 47


def is_canonical(address: int) -> bool:
    """Whether bits 63..47 are equal. Xen: is_canonical_address()."""
    return address < _CANONICAL or address >= (1 << 64) - _CANONICAL


def fixup_guest_code_selector(selector: int) -> int:
    """The selector with the RPL that a guest's kernel has: 3. Xen: fixup_guest_selector()."""
    return selector | 3


@hypercall(Hypercall.SET_TRAP_TABLE)
def do_set_trap_table(vcpu: Vcpu, traps: int) -> int:
    """HYPERVISOR_set_trap_table(table): the virtual IDT, entry by entry until one with address 0.

    A null table clears every entry. A non-canonical handler is -EINVAL; entries before it stay set.
    Xen: do_set_trap_table().
    """
    if traps == 0:
        vcpu.trap_table = [None] * 256
        return 0
    while True:
        info = read_struct(vcpu, traps, TrapInfo)
        if info.address == 0:
            return 0
        if not is_canonical(info.address):
            raise HypercallError(Errno.EINVAL)
        vcpu.trap_table[info.vector] = TrapGate(
            info.vector, info.dpl, info.masks_events, fixup_guest_code_selector(info.cs), Vaddr(info.address)
        )
        traps += TrapInfo.SIZE


@hypercall(Hypercall.SET_CALLBACKS)
def do_set_callbacks(vcpu: Vcpu, event: int, failsafe: int, syscall: int) -> int:
    """HYPERVISOR_set_callbacks(event, failsafe, syscall): the older form of callback_op.

    An address that is not canonical is passed over in silence. Xen: do_set_callbacks().
    """
    for kind, address in (
        (CallbackType.EVENT, event),
        (CallbackType.FAILSAFE, failsafe),
        (CallbackType.SYSCALL, syscall),
    ):
        with suppress(HypercallError):
            _register(vcpu, kind, Vaddr(address), 0)
    return 0


@hypercall(Hypercall.CALLBACK_OP)
def do_callback_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_callback_op(cmd, arg): register or unregister one entry point. Xen: do_callback_op()."""
    match cmd:
        case CallbackOp.REGISTER:
            register = read_struct(vcpu, arg, CallbackRegister)
            _register(vcpu, register.type, Vaddr(register.address), register.flags)
        case CallbackOp.UNREGISTER:
            _unregister(vcpu, read_struct(vcpu, arg, CallbackUnregister).type)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


def _register(vcpu: Vcpu, kind: int, address: Vaddr, flags: int) -> None:
    masks = bool(flags & CALLBACKF_MASK_EVENTS)
    callback = Callback(address, masks, FLAT_KERNEL_CS64)
    if not is_canonical(address):
        raise HypercallError(Errno.EINVAL)
    match kind:
        case CallbackType.EVENT:
            # An upcall always masks: the flag changes nothing.
            vcpu.event_callback = Callback(address, True, FLAT_KERNEL_CS64)
        case CallbackType.FAILSAFE:
            vcpu.failsafe_callback = callback
        case CallbackType.SYSCALL:
            vcpu.syscall_callback = callback
        case CallbackType.SYSCALL32:
            vcpu.syscall32_callback = callback
        case CallbackType.SYSENTER:
            vcpu.sysenter_callback = callback
        case CallbackType.NMI:
            register_guest_nmi_callback(vcpu, address)
        case _:
            raise HypercallError(Errno.ENOSYS)


def _unregister(vcpu: Vcpu, kind: int) -> None:
    match kind:
        case (
            CallbackType.EVENT
            | CallbackType.FAILSAFE
            | CallbackType.SYSCALL
            | CallbackType.SYSCALL32
            | CallbackType.SYSENTER
        ):
            raise HypercallError(Errno.EINVAL)
        case CallbackType.NMI:
            unregister_guest_nmi_callback(vcpu)
        case _:
            raise HypercallError(Errno.ENOSYS)


def register_guest_nmi_callback(vcpu: Vcpu, address: Vaddr) -> None:
    """Make `address` the handler of vector 2, with events masked; -EINVAL if it is not canonical."""
    if not is_canonical(address):
        raise HypercallError(Errno.EINVAL)
    gate = TrapGate(Vector.NMI, 0, True, FLAT_KERNEL_CS64, address)
    vcpu.trap_table[Vector.NMI] = gate if address else None


def unregister_guest_nmi_callback(vcpu: Vcpu) -> None:
    """Vector 2 has no handler from now on."""
    vcpu.trap_table[Vector.NMI] = None
