"""Signal numbers as gdb counts them, whatever the target's own numbering is. GDB: include/gdb/signals.def."""

from enum import IntEnum
from typing import Final


class Signal(IntEnum):
    """enum gdb_signal, the part with POSIX names. ZERO in a resume action means "no signal"."""

    ZERO = 0
    HUP = 1
    INT = 2
    QUIT = 3
    ILL = 4
    TRAP = 5
    ABRT = 6
    EMT = 7
    FPE = 8
    KILL = 9
    BUS = 10
    SEGV = 11
    SYS = 12
    PIPE = 13
    ALRM = 14
    TERM = 15
    URG = 16
    STOP = 17
    TSTP = 18
    CONT = 19
    CHLD = 20
    TTIN = 21
    TTOU = 22
    IO = 23
    XCPU = 24
    XFSZ = 25
    VTALRM = 26
    PROF = 27
    WINCH = 28
    LOST = 29
    USR1 = 30
    USR2 = 31
    PWR = 32
    POLL = 33
    UNKNOWN = 143


_LINUX: Final = {
    1: Signal.HUP,
    2: Signal.INT,
    3: Signal.QUIT,
    4: Signal.ILL,
    5: Signal.TRAP,
    6: Signal.ABRT,
    7: Signal.BUS,
    8: Signal.FPE,
    9: Signal.KILL,
    10: Signal.USR1,
    11: Signal.SEGV,
    12: Signal.USR2,
    13: Signal.PIPE,
    14: Signal.ALRM,
    15: Signal.TERM,
    17: Signal.CHLD,
    18: Signal.CONT,
    19: Signal.STOP,
    20: Signal.TSTP,
    21: Signal.TTIN,
    22: Signal.TTOU,
    23: Signal.URG,
    24: Signal.XCPU,
    25: Signal.XFSZ,
    26: Signal.VTALRM,
    27: Signal.PROF,
    28: Signal.WINCH,
    29: Signal.IO,
    30: Signal.PWR,
    31: Signal.SYS,
}
"""Signals of Linux on x86-64 in gdb's numbering. SIGSTKFLT (16) is unknown to gdb."""


def from_linux(number: int) -> Signal:
    """The signal that Linux counts as `number`; UNKNOWN if gdb has no name for it."""
    return _LINUX.get(number, Signal.UNKNOWN)


def to_linux(signal: int) -> int | None:
    """Linux's number of a signal; None: it has none."""
    return next((number for number, known in _LINUX.items() if known == signal), None)


def name_of(signal: int) -> str:
    """As gdb writes it: "SIGSEGV"."""
    try:
        return f"SIG{Signal(signal).name}"
    except ValueError:
        return f"signal {signal}"
