"""Scheduling as a guest asks for it: sched_op. Xen public/sched.h."""

from typing import Final

from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import S32, U16, U32, U64, CStruct, GuestHandle, abi


class SchedOp(CEnum, prefix="SCHEDOP_"):
    """SCHEDOP_*: first argument of sched_op. Xen public/sched.h."""

    YIELD = 0
    BLOCK = 1
    SHUTDOWN = 2
    POLL = 3
    REMOTE_SHUTDOWN = 4
    SHUTDOWN_CODE = 5
    WATCHDOG = 6
    PIN_OVERRIDE = 7


class Shutdown(CEnum, prefix="SHUTDOWN_"):
    """SHUTDOWN_*: why a domain stopped. Xen public/sched.h."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


SHUTDOWN_MAX: Final = 5


@abi(size=4)
class SchedShutdown(CStruct):
    """struct sched_shutdown: `reason` is a Shutdown. Xen public/sched.h."""

    reason: U32


@abi(size=24)
class SchedPoll(CStruct):
    """struct sched_poll: waits for one of `nr_ports` ports, a U32 each, or until `timeout`.

    `timeout` is in ns of system time, 0 for never. Xen public/sched.h.
    """

    ports: GuestHandle
    nr_ports: U32
    timeout: U64


@abi(size=8)
class SchedRemoteShutdown(CStruct):
    """struct sched_remote_shutdown. Xen public/sched.h."""

    domain_id: U16
    reason: U32


@abi(size=8)
class SchedWatchdog(CStruct):
    """struct sched_watchdog: `id` 0 makes a new one; `timeout` in seconds, 0 removes it. Xen public/sched.h."""

    id: U32
    timeout: U32


@abi(size=4)
class SchedPinOverride(CStruct):
    """struct sched_pin_override: a negative pcpu ends the override. Xen public/sched.h."""

    pcpu: S32
