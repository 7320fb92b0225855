"""What a target answers, as values, and the one encoder that turns them into payloads.

Payloads are what stands between ``$`` and ``#``: already escaped where they are binary, not yet framed.
GDB manual: "Stop Reply Packets", "Packets".

Stop replies name the thread that stopped, and say more about it in *reasons*. A reason is only sent to a client that
asked for it in qSupported. ``SwBreak`` and ``HwBreak`` are for breakpoints of the client alone: gdb takes them for one
of its own and resumes silently when it knows none there. Every other stop (a fault, a caught hypercall, an int3 of
the guest) has no reason and is a plain signal.
"""

from binascii import hexlify
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from errno import ENAMETOOLONG, ENOSYS
from typing import Final

from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.framing import escape
from xdbg.rsp.threadid import Thread


@dataclass(frozen=True, slots=True)
class SwBreak:
    """A Z0 breakpoint of the client was reached; rip is its address."""


@dataclass(frozen=True, slots=True)
class HwBreak:
    """A Z1 breakpoint of the client was reached; rip is its address."""


@dataclass(frozen=True, slots=True)
class WatchHit:
    """A watched place was accessed. `kind`: 2 write, 3 read, 4 either (`target.WatchKind`); `vaddr`: the data's."""

    kind: int
    vaddr: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The thread's process made a child (`vfork`: one that shares its memory)."""

    child: Thread
    vfork: bool = False


@dataclass(frozen=True, slots=True)
class VforkDone:
    """The child of a vfork has let go of the parent's memory."""


@dataclass(frozen=True, slots=True)
class Execed:
    """The process runs another program now."""

    path: str


@dataclass(frozen=True, slots=True)
class LibrariesChanged:
    """The list of loaded libraries is another than before."""


@dataclass(frozen=True, slots=True)
class SyscallStop:
    """A caught system call, at its entry or at its return."""

    number: int
    entry: bool


@dataclass(frozen=True, slots=True)
class HistoryEnd:
    """Execution came to the `begin` or the end of what can be replayed."""

    begin: bool


@dataclass(frozen=True, slots=True)
class Created:
    """The thread is new, and stands before its first instruction."""


@dataclass(frozen=True, slots=True)
class Cloned:
    """The thread made another one, `child`, which stands before its first instruction."""

    child: Thread


StopReason = (
    SwBreak
    | HwBreak
    | WatchHit
    | Forked
    | VforkDone
    | Execed
    | LibrariesChanged
    | SyscallStop
    | HistoryEnd
    | Created
    | Cloned
)


@dataclass(frozen=True, slots=True)
class StopReply:
    """``T``: a thread stopped.

    `registers` are sent along to spare the client a round trip: number -> bytes as `Target.read_register` gives them;
    rbp, rsp and rip (6, 7, 16) are what gdb wants at each stop.
    """

    signal: int
    thread: Thread
    reasons: tuple[StopReason, ...] = ()
    registers: Mapping[int, bytes] = field(default_factory=dict)
    core: int | None = None
    threads: tuple[tuple[Thread, int | None], ...] = ()
    """All threads and where each is (None: not known), for a client that wants to hear of them at each stop."""


@dataclass(frozen=True, slots=True)
class ExitReply:
    """``W``: a process ended with a status. `pid` None: the only one there was."""

    status: int
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class SignalledReply:
    """``X``: a process was ended by a signal."""

    signal: int
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class ThreadExited:
    """``w``: a thread ended with a status, and its process goes on."""

    status: int
    thread: Thread


@dataclass(frozen=True, slots=True)
class NoResumed:
    """``N``: no thread is left that runs, although none has stopped. TRAP in place of it for a client without N."""


StopEvent = StopReply | ExitReply | SignalledReply | ThreadExited | NoResumed
"""What a target stands still for."""


@dataclass(frozen=True, slots=True)
class Ok:
    """Done."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The packet is not supported."""


@dataclass(frozen=True, slots=True)
class Error:
    """``E NN``, or ``E.text`` when there is text and the client takes it. `errno` in Linux numbering."""

    errno: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A payload as it stands: printable, nothing in it to be escaped."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class HexData:
    """Bytes in hexadecimal: memory, registers, encoded text."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BinaryData:
    """Bytes escaped, behind a prefix that is not."""

    prefix: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Threads:
    """Part of the thread list: ``mID,ID,...``, or ``l`` when there are no more."""

    threads: tuple[Thread, ...]


@dataclass(frozen=True, slots=True)
class CurrentThread:
    """``QC``: the thread that g, m and the others speak of."""

    thread: Thread


@dataclass(frozen=True, slots=True)
class HostIoResult:
    """``F``: the result of a vFile packet, with what was read."""

    result: int
    attachment: bytes | None = None


@dataclass(frozen=True, slots=True)
class HostIoError:
    """``F-1,errno``. `errno` in Linux numbering; the protocol has a numbering of its own."""

    errno: int


@dataclass(frozen=True, slots=True)
class Output:
    """``O``: text for the client's console. Legal while the target runs, and before the answer to qRcmd."""

    text: str


Reply = (
    StopEvent
    | Ok
    | Empty
    | Error
    | Text
    | HexData
    | BinaryData
    | Threads
    | CurrentThread
    | HostIoResult
    | HostIoError
    | Output
)

_FILEIO_EUNKNOWN: Final = 9999
_FILEIO_SAME: Final = frozenset({1, 2, 4, 9, 13, 14, 16, 17, 19, 20, 21, 22, 23, 24, 27, 28, 29, 30})
_FILEIO_OTHER: Final = {ENOSYS: 88, ENAMETOOLONG: 91}


class _Watch(IntEnum):
    """The words of T packets for the kinds of watch points."""

    watch = 2
    rwatch = 3
    awatch = 4


def encode(reply: Reply, client: ClientFeatures) -> bytes:
    """The payload of a reply for a client with these features."""
    match reply:
        case HexData(data):
            return hexlify(data)
        case Ok():
            return b"OK"
        case StopReply():
            return _encode_stop(reply, client)
        case Text(payload):
            return payload
        case BinaryData(prefix, data):
            return prefix + escape(data)
        case Empty():
            return b""
        case Error(errno, text):
            return _encode_error(errno, text, client)
        case Threads(threads):
            return b"m" + b",".join([t.encode(multiprocess=client.multiprocess) for t in threads]) if threads else b"l"
        case CurrentThread(thread):
            return b"QC" + thread.encode(multiprocess=client.multiprocess)
        case HostIoResult(result, attachment):
            return b"F%x" % result if attachment is None else b"F%x;" % result + escape(attachment)
        case HostIoError(errno):
            number = errno if errno in _FILEIO_SAME else _FILEIO_OTHER.get(errno, _FILEIO_EUNKNOWN)
            return b"F-1,%x" % number
        case Output(text):
            return b"O" + hexlify(text.encode(errors="replace"))
        case ExitReply(status, pid):
            return b"W%02x" % (status & 0xFF) + _process(pid, client)
        case SignalledReply(signal, pid):
            return b"X%02x" % (signal & 0xFF) + _process(pid, client)
        case ThreadExited(status, thread):
            return b"w%02x;%s" % (status & 0xFF, thread.encode(multiprocess=client.multiprocess))
        case NoResumed():
            return b"N" if client.no_resumed else b"S05"


def _encode_error(errno: int, text: str, client: ClientFeatures) -> bytes:
    if text and client.error_message:
        printable = "".join(c if c.isprintable() and c not in "#$}*" else "?" for c in text)
        return b"E." + printable.encode(errors="replace")
    number = b"E%02d" % (errno if 0 < errno < 100 else 99)
    if text and client.error_strings:
        return number + b";" + hexlify(text.encode(errors="replace"))
    return number


def _process(pid: int | None, client: ClientFeatures) -> bytes:
    return b";process:%x" % pid if pid is not None and client.multiprocess else b""


def _encode_stop(reply: StopReply, client: ClientFeatures) -> bytes:
    parts = [b"T%02x" % (reply.signal & 0xFF)]
    for reason in _told(reply.reasons, client):
        parts.append(_encode_reason(reason, client))
    for number, value in reply.registers.items():
        parts.append(b"%x:%s;" % (number, hexlify(value)))
    parts.append(b"thread:%s;" % reply.thread.encode(multiprocess=client.multiprocess))
    if reply.core is not None:
        parts.append(b"core:%x;" % reply.core)
    if reply.threads:
        parts.append(b"threads:%s;" % b",".join(t.encode(multiprocess=client.multiprocess) for t, _ in reply.threads))
        places = [b"%x" % rip for _, rip in reply.threads if rip is not None]
        if len(places) == len(reply.threads):
            parts.append(b"thread-pcs:%s;" % b",".join(places))
    return b"".join(parts)


def _told(reasons: tuple[StopReason, ...], client: ClientFeatures) -> Iterable[StopReason]:
    """Of several watch points that were hit at once only the first, for a client that does not take more."""
    if len(reasons) < 2 or client.multi_wp_addr:
        return reasons
    rest = [reason for reason in reasons[1:] if not isinstance(reason, WatchHit)]
    return [reasons[0], *rest] if isinstance(reasons[0], WatchHit) else reasons


def _encode_reason(reason: StopReason, client: ClientFeatures) -> bytes:
    """One ``name:value;`` of a T packet; nothing when the client did not ask for this kind."""
    match reason:
        case SwBreak():
            return b"swbreak:;" if client.swbreak else b""
        case HwBreak():
            return b"hwbreak:;" if client.hwbreak else b""
        case WatchHit(kind, vaddr):
            return b"%s:%x;" % (_Watch(kind).name.encode(), vaddr)
        case Forked(child, vfork):
            if not (client.vfork_events if vfork else client.fork_events):
                return b""
            word = b"vfork" if vfork else b"fork"
            return b"%s:%s;" % (word, child.encode(multiprocess=client.multiprocess))
        case VforkDone():
            return b"vforkdone:;" if client.vfork_events else b""
        case Execed(path):
            return b"exec:%s;" % hexlify(path.encode(errors="surrogateescape")) if client.exec_events else b""
        case LibrariesChanged():
            return b"library:;"
        case SyscallStop(number, entry):
            return b"%s:%x;" % (b"syscall_entry" if entry else b"syscall_return", number)
        case HistoryEnd(begin):
            return b"replaylog:%s;" % (b"begin" if begin else b"end")
        case Created():
            return b"create:;"
        case Cloned(child):
            return b"clone:%s;" % child.encode(multiprocess=client.multiprocess)
