"""Entry points, stacks, registers, assists, timers: hypercalls on the state of a vcpu or domain.

Read from arch/x86/pv/callback.c, arch/x86/pv/misc-hypercalls.c, arch/x86/pv/descriptor-tables.c, common/domain.c,
common/sched/core.c and drivers/char/console.c.
"""

from xdbg.abi.callback import CallbackOp, CallbackRegister, CallbackType, CallbackUnregister
from xdbg.abi.console import ConsoleIo
from xdbg.abi.hypercalls import Hypercall, SegBase, VmasstCmd, VmasstType
from xdbg.abi.nmi import XenNmi, XennmiCallback
from xdbg.abi.trap import TrapInfo

from .domain_under_test import FREE, HOLE, L1, READ_ONLY_PAGE, DomainUnderTest
from .vocabulary import (
    EFAULT,
    EINVAL,
    ENODEV,
    ENOSYS,
    EPERM,
    HIGH,
    IN_M2P,
    IN_XEN,
    NOT_CANONICAL,
    NULL,
    UNMAPPED,
    Later,
    Operation,
    Place,
    Put,
    Row,
    Table,
    anywhere,
    faults,
    fields,
    foreign_mfn,
    mfn,
    put,
    put_list,
    va,
    words,
)

HANDLER = 0xFFFF_FFFF_8000_0000
END = fields(TrapInfo)


def only(number: Hypercall, summary: str, source: str, *rows: Row) -> Table:
    return Table(number, {None: Operation(summary, source, rows)})


def gate(vector: int, address: int = HANDLER, **values: int):
    return fields(TrapInfo, vector=vector, cs=0xE033, address=address, **values)


def gates_are(*vectors: int):
    """The trap table has handlers for these vectors and no other."""

    def look(guest: DomainUnderTest) -> str | None:
        found = [vector for vector, entry in enumerate(guest.vcpu.trap_table) if entry is not None]
        return None if found == list(vectors) else f"there are handlers for {found}"

    return look


def state_is(path: str, wanted: object):
    """What a later exit would go by is this."""

    def look(guest: DomainUnderTest) -> str | None:
        value: object = guest.vcpu
        for name in path.split("."):
            value = getattr(value, name)
        return None if value == wanted else f"{path} is {value}"

    return look


TRAPS = only(
    Hypercall.SET_TRAP_TABLE,
    "fills the virtual IDT",
    "do_set_trap_table()",
    *anywhere(Row("two vectors", (put_list(gate(3), gate(14), END),), 0, then=gates_are(3, 14))),
    Row("an empty table keeps all", (put_list(END),), 0, None, ((0, put_list(gate(3), END)),), gates_are(3)),
    Row("null clears all", (NULL,), 0, None, ((0, put_list(gate(3), END)),), gates_are()),
    Row("twice the same vector", (put_list(gate(3), gate(3, 0x1000), END),), 0, then=gates_are(3)),
    Row("not canonical", (put_list(gate(3), gate(4, NOT_CANONICAL), gate(5), END),), EINVAL, then=gates_are(3)),
    Row("a handler in Xen's range", (put_list(gate(3, IN_XEN), END),), 0, then=gates_are(3)),
    Row("no end before what is not mapped", (put_list(gate(3), gate(4)).at(Place.LAST),), EFAULT, then=gates_are(3, 4)),
    *(row for row in faults(put_list(gate(3))) if row.what != "null pointer"),
)

GDT = only(
    Hypercall.SET_GDT,
    "makes frames the GDT",
    "do_set_gdt(), pv_set_gdt()",
    *anywhere(Row("a page", (words(mfn(HOLE)), 512), 0)),
    Row("a page that is mapped writable", (words(mfn(FREE)), 512), EINVAL),
    Row("none", (NULL, 0), 0),
    Row("none, from nowhere", (UNMAPPED, 0), 0),
    Row("as many as can be", (words(*[mfn(HOLE)] * 14), 7168), 0),
    Row("too many", (UNMAPPED, 7169), EINVAL),
    Row("a count has 32 bits", (NULL, HIGH), 0),
    Row("a page table", (words(mfn(L1)), 1), EINVAL),
    Row("another domain's", (words(foreign_mfn(FREE)), 1), EINVAL),
    Row("no RAM", (words(1 << 40), 1), EINVAL),
    Row("the second is another domain's", (words(mfn(HOLE), foreign_mfn(FREE)), 513), EINVAL),
    *(row for row in faults(words(mfn(HOLE)), after=(1,))),
)

FLAT = 0x00CF_F300_0000_FFFF
GATE = 0x0000_EE00_0008_0000
DPL0 = 0x00CF_9300_0000_FFFF


def descriptor(pfn: int, offset: int = 0) -> Later:
    return (mfn(pfn) << 12) + offset


DESCRIPTOR = only(
    Hypercall.UPDATE_DESCRIPTOR,
    "stores a descriptor",
    "do_update_descriptor()",
    Row("in a writable page", (descriptor(FREE, 8), FLAT), 0),
    Row("null", (descriptor(FREE), 0), 0),
    Row("not present", (descriptor(FREE), FLAT & ~(1 << 47)), 0),
    Row("a DPL of 0 is made 3", (descriptor(FREE), DPL0), 0),
    Row("a gate", (descriptor(FREE), GATE), EINVAL),
    Row("an address that is not aligned", (descriptor(FREE, 4), FLAT), EINVAL),
    Row("a page table", (descriptor(L1), FLAT), EINVAL),
    Row("another domain's", (foreign_mfn(FREE) << 12, FLAT), EINVAL),
    Row("no RAM", (1 << 52, FLAT), EINVAL),
    Row("a page that is mapped read-only", (descriptor(READ_ONLY_PAGE), FLAT), 0),
)

STACK = only(
    Hypercall.STACK_SWITCH,
    "sets the kernel's stack",
    "do_stack_switch()",
    Row("valid", (0xE02B, va(FREE)), 0),
    Row("a null selector", (0, va(FREE)), 0, then=state_is("kernel_ss", 3)),
    Row("RPL 0", (0xE028, va(FREE)), 0, then=state_is("kernel_ss", 0xE02B)),
    Row("any address", (0xE02B, IN_XEN), 0, then=state_is("kernel_sp", IN_XEN)),
    Row("a selector of Xen's", (0xE008, va(FREE)), 0),
)


def callbacks(event: int, failsafe: int, syscall: int, result: int, what: str, then=None) -> Row:
    return Row(what, (event, failsafe, syscall), result, then=then)


CALLBACKS = only(
    Hypercall.SET_CALLBACKS,
    "registers the event, failsafe and syscall callbacks",
    "do_set_callbacks()",
    callbacks(HANDLER, HANDLER, HANDLER, 0, "valid", state_is("syscall_callback.address", HANDLER)),
    callbacks(0, 0, 0, 0, "none"),
    callbacks(NOT_CANONICAL, HANDLER, 0x1000, 0, "one not canonical", state_is("syscall_callback.address", 0x1000)),
    callbacks(NOT_CANONICAL, HANDLER, HANDLER, 0, "which is left as it was", state_is("event_callback.address", 0)),
)


def register(kind: int, address: object = HANDLER, flags: int = 0) -> Put:
    return put(CallbackRegister, type=kind, flags=flags, address=address)


PERMANENT = tuple(sorted(set(CallbackType) - {CallbackType.NMI, CallbackType.SYSENTER_DEPRECATED}))
CALLBACK_OP = Table(
    Hypercall.CALLBACK_OP,
    commands=CallbackOp,
    operations={
        CallbackOp.REGISTER: Operation(
            "registers an entry point",
            "register_guest_callback()",
            [
                *anywhere(Row("event", (register(CallbackType.EVENT),), 0)),
                Row("failsafe", (register(CallbackType.FAILSAFE, flags=1),), 0),
                Row("syscall", (register(CallbackType.SYSCALL, flags=1),), 0),
                Row("syscall32", (register(CallbackType.SYSCALL32),), 0),
                Row("sysenter", (register(CallbackType.SYSENTER),), 0),
                Row("sysenter, the old number", (register(CallbackType.SYSENTER_DEPRECATED),), ENOSYS),
                Row("NMI", (register(CallbackType.NMI),), 0, then=gates_are(2)),
                Row("an unknown flag", (register(CallbackType.EVENT, flags=0x8000),), 0),
                Row("unknown, 6", (register(6),), ENOSYS),
                Row("unknown, 8", (register(8),), ENOSYS),
                Row("not canonical", (register(CallbackType.EVENT, NOT_CANONICAL),), EINVAL),
                Row("unknown, not canonical", (register(99, NOT_CANONICAL),), EINVAL),
                Row("in a read-only page", (register(CallbackType.EVENT).at(Place.READ_ONLY),), 0),
                *faults(register(CallbackType.EVENT)),
            ],
        ),
        CallbackOp.UNREGISTER: Operation(
            "unregisters an entry point",
            "unregister_guest_callback()",
            [
                *anywhere(Row("NMI", (put(CallbackUnregister, type=CallbackType.NMI),), 0)),
                Row(
                    "NMI that was registered",
                    (put(CallbackUnregister, type=CallbackType.NMI),),
                    0,
                    None,
                    ((Hypercall.CALLBACK_OP, 0, register(CallbackType.NMI)),),
                    gates_are(),
                ),
                *(Row(one.name, (put(CallbackUnregister, type=one),), EINVAL) for one in PERMANENT),
                Row("sysenter, the old number", (put(CallbackUnregister, type=3),), ENOSYS),
                Row("unknown, 6", (put(CallbackUnregister, type=6),), ENOSYS),
                *faults(put(CallbackUnregister, type=CallbackType.NMI)),
            ],
        ),
        "other": Operation(
            "any other command",
            "do_callback_op()",
            [Row("2", (2, NULL), ENOSYS), Row("beyond", (1000, UNMAPPED), ENOSYS)],
        ),
    },
)

NMI = Table(
    Hypercall.NMI_OP,
    commands=XenNmi,
    operations={
        XenNmi.REGISTER_CALLBACK: Operation(
            "registers the NMI handler",
            "register_guest_nmi_callback()",
            [
                *anywhere(Row("valid", (put(XennmiCallback, handler_address=HANDLER),), 0, then=gates_are(2))),
                Row("not canonical", (put(XennmiCallback, handler_address=NOT_CANONICAL),), EINVAL, then=gates_are()),
                Row("in a read-only page", (put(XennmiCallback, handler_address=HANDLER).at(Place.READ_ONLY),), 0),
                *faults(put(XennmiCallback, handler_address=HANDLER)),
            ],
        ),
        XenNmi.UNREGISTER_CALLBACK: Operation(
            "unregisters it",
            "unregister_guest_nmi_callback()",
            [
                Row("nothing was registered", (NULL,), 0),
                Row("the argument is not looked at", (IN_XEN,), 0),
                Row(
                    "one of the trap table goes, too",
                    (NULL,),
                    0,
                    None,
                    ((0, put_list(gate(2), gate(3), END)),),
                    gates_are(3),
                ),
            ],
        ),
        "other": Operation("any other command", "do_nmi_op()", [Row("2", (2, NULL), ENOSYS)]),
    },
)

FPU = only(
    Hypercall.FPU_TASKSWITCH,
    "lets the next FPU instruction trap, or not",
    "do_fpu_taskswitch()",
    Row("set", (1,), 0),
    Row("clear", (0,), 0),
    Row("any number", (0xFFFF_FFFF,), 0, then=state_is("domain.hv.cpu.cr0_ts", True)),
    Row("the upper half does not count", (HIGH,), 0, then=state_is("domain.hv.cpu.cr0_ts", False)),
)

SET_DEBUGREG = only(
    Hypercall.SET_DEBUGREG,
    "writes a debug register",
    "set_debugreg()",
    *(Row(f"DR{n}", (n, HANDLER), 0) for n in range(4)),
    Row("DR0 null", (0, 0), 0),
    Row("DR0 in Xen's range", (0, IN_XEN), EPERM),
    Row("DR0 in the M2P", (0, IN_M2P), EPERM),
    Row("DR0 not canonical", (0, NOT_CANONICAL), EPERM),
    Row("DR4, which is DR6", (4, 0), 0),
    Row("DR5, which is DR7", (5, 1 << 13), EPERM),
    Row("DR6", (6, 0xFFFF_FFFF), 0),
    Row("DR6 has 32 bits", (6, HIGH), EINVAL),
    Row("DR7 has 32 bits", (7, HIGH), EINVAL),
    Row("DR7 off", (7, 0), 0),
    Row("DR7 execution", (7, 1), 0),
    Row("DR7 write", (7, 1 | 1 << 16), 0),
    Row("DR7 I/O", (7, 1 | 2 << 16), EPERM),
    Row("DR7 I/O, not enabled", (7, 2 << 16), 0),
    Row("DR7.GD", (7, 1 << 13), EPERM),
    Row("DR8", (8, 0), ENODEV),
    Row("negative", (0xFFFF_FFFF, 0), ENODEV),
    Row("the upper half of the number does not count", (HIGH, HANDLER), 0),
)


def debugreg(number: int, value: int) -> tuple:
    return ((Hypercall.SET_DEBUGREG, number, value),)


GET_DEBUGREG = only(
    Hypercall.GET_DEBUGREG,
    "reads a debug register",
    "do_get_debugreg()",
    Row("DR0", (0,), 0x1234, before=debugreg(0, 0x1234)),
    Row("DR3", (3,), HANDLER - (1 << 64), before=debugreg(3, HANDLER)),
    Row("DR4, which is DR6", (4,), 0xFFFF_0FF0),
    Row("DR5, which is DR7", (5,), 0x401, before=debugreg(7, 1)),
    Row("DR6 at the start", (6,), 0xFFFF_0FF0),
    Row("DR6 has fixed bits", (6,), 0xFFFF_EFFF, before=debugreg(6, 0xFFFF_FFFF)),
    Row("DR7 at the start", (7,), 0x400),
    Row("DR7 has fixed bits", (7,), 0x401, before=debugreg(7, 1)),
    Row("DR8", (8,), ENODEV),
    Row("negative", (0xFFFF_FFFF,), ENODEV),
)

SEGMENT_BASE = Table(
    Hypercall.SET_SEGMENT_BASE,
    commands=SegBase,
    operations={
        SegBase.FS: Operation(
            "sets the FS base",
            "do_set_segment_base()",
            [
                Row("valid", (HANDLER,), 0, then=state_is("domain.hv.cpu.fs_base", HANDLER)),
                Row("in Xen's range", (IN_XEN,), 0),
                Row("not canonical", (NOT_CANONICAL,), EINVAL),
            ],
        ),
        SegBase.GS_USER: Operation(
            "sets the GS base of user mode",
            "do_set_segment_base()",
            [
                Row("valid", (HANDLER,), 0, then=state_is("gs_base_user", HANDLER)),
                Row("not canonical", (NOT_CANONICAL,), EINVAL),
            ],
        ),
        SegBase.GS_KERNEL: Operation(
            "sets the GS base of kernel mode",
            "do_set_segment_base()",
            [
                Row("valid", (HANDLER,), 0, then=state_is("domain.hv.cpu.gs_base", HANDLER)),
                Row("not canonical", (NOT_CANONICAL,), EINVAL),
            ],
        ),
        SegBase.GS_USER_SEL: Operation(
            "loads the GS selector of user mode",
            "do_set_segment_base()",
            [
                Row("null", (0,), 0),
                Row("Xen's flat data", (0xE02B,), 0),
                Row("beyond the GDT", (0x8003,), 0, then=state_is("domain.hv.cpu.gs", 0)),
                Row("a selector has 16 bits", (0x10000,), 0),
            ],
        ),
        "other": Operation(
            "any other command",
            "do_set_segment_base()",
            [Row("4", (4, HANDLER), EINVAL), Row("the upper half does not count", (HIGH, HANDLER), 0)],
        ),
    },
)

ASSISTS = (0, 1, 2, 3, 4, 5, 32)


def assist(command: VmasstCmd) -> Operation:
    return Operation(
        "switches an assist on" if command == VmasstCmd.ENABLE else "switches an assist off",
        "do_vm_assist()",
        [
            *(Row(VmasstType(kind).name, (kind,), 0) for kind in ASSISTS),
            Row("unknown, 6", (6,), EINVAL),
            Row("unknown, 31", (31,), EINVAL),
            Row("unknown, 33", (33,), EINVAL),
            Row("beyond", (64,), EINVAL),
            Row("the upper half does not count", (HIGH | 3,), 0),
        ],
    )


VM_ASSIST = Table(
    Hypercall.VM_ASSIST,
    commands=VmasstCmd,
    operations={
        VmasstCmd.ENABLE: assist(VmasstCmd.ENABLE),
        VmasstCmd.DISABLE: assist(VmasstCmd.DISABLE),
        "other": Operation(
            "any other command",
            "do_vm_assist()",
            [Row("of an assist", (2, 0), ENOSYS), Row("of none", (2, 64), EINVAL)],
        ),
    },
)


def timer_is(look):
    def check(guest: DomainUnderTest) -> str | None:
        found = guest.vcpu.timers.singleshot_ns
        return None if look(found, guest.hv.now()) else f"the timer is {found}"

    return check


SOON = Later("soon", lambda guest: guest.hv.now() + 5_000_000)
FAR = Later("far", lambda guest: guest.hv.now() + (1 << 50) + 1000)
NOT_FAR = Later("not far", lambda guest: guest.hv.now() + (1 << 50) - 1000)
IN_100_MS = timer_is(lambda found, now: now + 99_000_000 < found <= now + 100_000_000)
SET_TIMER = only(
    Hypercall.SET_TIMER_OP,
    "sets the single-shot timer",
    "do_set_timer_op()",
    Row("soon", (SOON,), 0, then=timer_is(lambda found, now: now + 4_000_000 < found <= now + 5_000_000)),
    Row("stop", (0,), 0, None, ((15, SOON),), timer_is(lambda found, _now: found == 0)),
    Row("past", (1,), 0),
    Row("negative", ((1 << 64) - 1,), 0, then=IN_100_MS),
    Row("farther than 2^50 ns", (FAR,), 0, then=IN_100_MS),
    Row("not so far", (NOT_FAR,), 0, then=timer_is(lambda found, now: found > now + (1 << 49))),
)


CONSOLE = Table(
    Hypercall.CONSOLE_IO,
    commands=ConsoleIo,
    operations={
        ConsoleIo.WRITE: Operation(
            "writes to Xen's console, which is another console of the domain here",
            "do_console_io(), guest_console_write()",
            [
                *anywhere(Row("valid", (3, Put((b"hi\n",))), 0)),
                Row("nothing", (0, UNMAPPED), 0),
                *faults(Put((b"hello\n",)), before=(6,)),
            ],
        ),
        ConsoleIo.READ: Operation(
            "reads from Xen's console",
            "do_console_io(), xsm_console_io()",
            [Row("valid", (16, va(FREE)), EPERM), Row("before the buffer is looked at", (16, UNMAPPED), EPERM)],
        ),
        "other": Operation(
            "any other command",
            "do_console_io(), xsm_console_io()",
            [Row("2", (2, 0, NULL), EPERM)],
        ),
    },
)

TABLES = (
    TRAPS,
    GDT,
    DESCRIPTOR,
    STACK,
    CALLBACKS,
    CALLBACK_OP,
    NMI,
    FPU,
    SET_DEBUGREG,
    GET_DEBUGREG,
    SEGMENT_BASE,
    VM_ASSIST,
    SET_TIMER,
    CONSOLE,
)
