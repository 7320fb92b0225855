"""Requests: what a client's packets say, as values. GDB manual: "Packets", "General Query Packets", "Host I/O Packets".

Each class has `parse`, which gets the arguments of a packet (what stands behind the name in the packet table) and is
strict: whatever it does not accept is a ValueError, and nothing else is ever raised. Numbers are hexadecimal without
sign and prefix. Data is already unescaped.
"""

import re
from binascii import Error as HexError
from binascii import unhexlify
from dataclasses import dataclass
from typing import Final, Protocol, Self

from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.target import ResumeAction, ResumeKind
from xdbg.rsp.threadid import ANY, EVERY_THREAD, ThreadId

_HEX: Final = re.compile(rb"[0-9a-fA-F]{1,16}\Z")
_VADDR_LENGTH: Final = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})\Z")
_THREAD_SUFFIX: Final = re.compile(rb";thread:([-p.0-9a-fA-F]+);?\Z")
_ACTION: Final = re.compile(
    rb"(?:([cst])|([CS])([0-9a-fA-F]{2})|r([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16}))(?::([-p.0-9a-fA-F]+))?\Z"
)
_POINT: Final = re.compile(rb"([0-4]),([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})(;.*)?\Z", re.DOTALL)
_EXPRESSION: Final = re.compile(rb"X([0-9a-fA-F]{1,5}),([0-9a-fA-F]*)")


class Request(Protocol):
    """What the packet table needs of a request."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The request, from a packet's arguments."""
        ...


def _number(text: bytes) -> int:
    if _HEX.match(text) is None:
        raise ValueError(f"not a hexadecimal number: {text[:40]!r}")
    return int(text, 16)


def _pid(text: bytes) -> int:
    pid = _number(text)
    if pid == ANY:
        raise ValueError("no process has the number 0")
    return pid


def _hex_data(text: bytes) -> bytes:
    try:
        return unhexlify(text)
    except HexError as error:
        raise ValueError(str(error)) from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _split(text: bytes, separator: bytes, count: int) -> list[bytes]:
    fields = text.split(separator, count - 1)
    if len(fields) != count:
        raise ValueError(f"{count} fields are wanted")
    return fields


def _vaddr_length(text: bytes) -> tuple[int, int]:
    found = _VADDR_LENGTH.match(text)
    if found is None:
        raise ValueError("vaddr,length is wanted")
    vaddr = int(found[1], 16)
    return vaddr, min(int(found[2], 16), (1 << 64) - vaddr)


def _thread_suffix(text: bytes) -> tuple[bytes, ThreadId | None]:
    """Splits off ``;thread:ID;``, with which lldb says whose registers it means."""
    if b";" not in text:
        return text, None
    found = _THREAD_SUFFIX.search(text)
    if found is None:
        raise ValueError("an unknown suffix")
    return text[: found.start()], ThreadId.parse(found[1])


@dataclass(frozen=True, slots=True)
class Bare:
    """A packet that has no arguments."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing is accepted."""
        if arguments:
            raise ValueError("this packet has no arguments")
        return cls()


@dataclass(frozen=True, slots=True)
class Anything:
    """A packet whose arguments don't matter."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """All is accepted."""
        del arguments
        return cls()


@dataclass(frozen=True, slots=True)
class Supported:
    """``qSupported:FEATURE;...``."""

    client: ClientFeatures

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Features that are not known are skipped; the whole list may be missing."""
        return cls(ClientFeatures.parse(arguments.removeprefix(b":")))


@dataclass(frozen=True, slots=True)
class SelectThread:
    """``HgID`` or ``HcID``."""

    pattern: ThreadId

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A thread id."""
        return cls(ThreadId.parse(arguments))


@dataclass(frozen=True, slots=True)
class ReadRegisters:
    """``g``; `pattern` None: of the current thread."""

    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing, or lldb's suffix."""
        rest, pattern = _thread_suffix(arguments)
        if rest:
            raise ValueError("g has no arguments")
        return cls(pattern)


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """``GDATA``."""

    block: bytes
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The block in hexadecimal, perhaps with lldb's suffix."""
        block, pattern = _thread_suffix(arguments)
        return cls(_hex_data(block), pattern)


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """``pN``."""

    regnum: int
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A register number, perhaps with lldb's suffix."""
        regnum, pattern = _thread_suffix(arguments)
        return cls(_number(regnum), pattern)


@dataclass(frozen=True, slots=True)
class WriteRegister:
    """``PN=VALUE``."""

    regnum: int
    value: bytes
    pattern: ThreadId | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A register number and its value in hexadecimal, perhaps with lldb's suffix."""
        assignment, pattern = _thread_suffix(arguments)
        regnum, value = _split(assignment, b"=", 2)
        return cls(_number(regnum), _hex_data(value), pattern)


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """``mVADDR,LENGTH``; the length is cut at the end of the address space."""

    vaddr: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A place and a length."""
        return cls(*_vaddr_length(arguments))


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """``MVADDR,LENGTH:DATA``, data in hexadecimal."""

    vaddr: int
    data: bytes

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The length and the amount of data must agree."""
        place, text = _split(arguments, b":", 2)
        return cls._checked(place, _hex_data(text))

    @classmethod
    def _checked(cls, place: bytes, data: bytes) -> Self:
        vaddr, length = _vaddr_length(place)
        if len(data) != length:
            raise ValueError(f"{length} bytes were announced, {len(data)} came")
        return cls(vaddr, data)


@dataclass(frozen=True, slots=True)
class WriteBinary(WriteMemory):
    """``XVADDR,LENGTH:DATA``, data as it is."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The length and the amount of data must agree."""
        return cls._checked(*_split(arguments, b":", 2))


@dataclass(frozen=True, slots=True)
class Point:
    """``zTYPE,VADDR,LENGTH``: type 0 software, 1 hardware breakpoint; 2 write, 3 read, 4 access watch point."""

    type: int
    vaddr: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """For a breakpoint the length says how long a breakpoint instruction would be."""
        found = _POINT.match(arguments)
        if found is None or found[4]:
            raise ValueError("type,vaddr,length is wanted")
        return cls(int(found[1]), int(found[2], 16), int(found[3], 16))


@dataclass(frozen=True, slots=True)
class SetPoint:
    """``ZTYPE,VADDR,LENGTH[;CONDITIONS][;cmds:PERSIST,COMMANDS]``; each of the last two a row of agent expressions."""

    type: int
    vaddr: int
    length: int
    conditions: tuple[bytes, ...] = ()
    commands: tuple[bytes, ...] = ()
    persist: bool = False

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Expressions stand in a row without separators, each with its length: ``X2,2701X2,2700``."""
        found = _POINT.match(arguments)
        if found is None:
            raise ValueError("type,vaddr,length is wanted")
        conditions: tuple[bytes, ...] = ()
        commands: tuple[bytes, ...] = ()
        persist = False
        for part in (found[4] or b";").split(b";")[1:]:
            if part.startswith(b"cmds:"):
                flag, rest = _split(part[5:], b",", 2)
                persist = _number(flag) != 0
                commands = _expressions(rest)
            elif part:
                conditions = _expressions(part)
        return cls(int(found[1]), int(found[2], 16), int(found[3], 16), conditions, commands, persist)


def _expressions(text: bytes) -> tuple[bytes, ...]:
    expressions: list[bytes] = []
    place = 0
    while place < len(text):
        found = _EXPRESSION.match(text, place)
        digits = 2 * int(found[1], 16) if found else 0
        if found is None or digits == 0 or len(found[2]) < digits:
            raise ValueError("an agent expression is cut short")
        expressions.append(_hex_data(found[2][:digits]))
        place = found.start(2) + digits
    return tuple(expressions)


@dataclass(frozen=True, slots=True)
class ResumeThreads:
    """``vCont;ACTION[:ID];...``."""

    actions: tuple[ResumeAction, ...]

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Actions in the order of the packet; one without a thread id is for all that have none before it."""
        return cls(tuple(_action(text) for text in arguments.split(b";")))


def _action(text: bytes) -> ResumeAction:
    found = _ACTION.match(text)
    if found is None:
        raise ValueError(f"not an action: {text[:40]!r}")
    plain, signalled, signal, start, end, thread = found.groups()
    pattern = EVERY_THREAD if thread is None else ThreadId.parse(thread)
    if plain is not None:
        return ResumeAction(pattern, ResumeKind(plain))
    if signalled is not None:
        return ResumeAction(pattern, ResumeKind(signalled.lower()), int(signal, 16))
    return ResumeAction(pattern, ResumeKind.RANGE_STEP, start=int(start, 16), end=int(end, 16))


@dataclass(frozen=True, slots=True)
class ResumeCurrent:
    """``c[VADDR]``, ``s[VADDR]``, ``CSIGNAL[;VADDR]``, ``SSIGNAL[;VADDR]``: the thread that Hc chose goes on."""

    kind: ResumeKind
    signal: int
    vaddr: int | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The letter is part of the arguments."""
        letter, rest = arguments[:1], arguments[1:]
        signal = 0
        if letter in b"CS":
            number, separator, rest = rest.partition(b";")
            signal = _number(number)
            if signal > 0xFF or (separator and not rest):
                raise ValueError("not a signal")
        return cls(ResumeKind(letter.lower()), signal, _number(rest) if rest else None)


@dataclass(frozen=True, slots=True)
class Process:
    """A packet that names one process: vAttach, vKill."""

    pid: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A process number."""
        return cls(_pid(arguments))


@dataclass(frozen=True, slots=True)
class OptionalProcess:
    """A packet that may name a process: ``D;PID``, ``qAttached:PID``. None: the one there is, or all."""

    pid: int | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Nothing, or a separator and a process number."""
        if not arguments:
            return cls(None)
        if arguments[:1] not in (b";", b":"):
            raise ValueError("a process number is wanted")
        return cls(_pid(arguments[1:]))


@dataclass(frozen=True, slots=True)
class Transfer:
    """``qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH``, from the annex on."""

    annex: str
    offset: int
    length: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The annex may be empty."""
        annex, place = _split(arguments, b":", 2)
        offset, length = _split(place, b",", 2)
        return cls(_text(annex), _number(offset), _number(length))


@dataclass(frozen=True, slots=True)
class Search:
    """``qSearch:memory:VADDR;LENGTH;PATTERN``."""

    vaddr: int
    length: int
    pattern: bytes

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The pattern is binary and not empty."""
        vaddr, length, pattern = _split(arguments, b";", 3)
        if not pattern:
            raise ValueError("nothing to search for")
        return cls(*_vaddr_length(vaddr + b"," + length), pattern)


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """``qRcmd,COMMAND``."""

    command: str

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A command line in hexadecimal."""
        return cls(_text(_hex_data(arguments)))


@dataclass(frozen=True, slots=True)
class SetFileSystem:
    """``vFile:setfs:PID``: whose files the next ones are; 0: the target's root."""

    pid: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A process number or 0."""
        return cls(_number(arguments))


@dataclass(frozen=True, slots=True)
class OpenFile:
    """``vFile:open:PATH,FLAGS,MODE``."""

    path: str
    flags: int
    mode: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The path is in hexadecimal."""
        path, flags, mode = _split(arguments, b",", 3)
        return cls(_text(_hex_data(path)), _number(flags), _number(mode))


@dataclass(frozen=True, slots=True)
class PreadFile:
    """``vFile:pread:FD,COUNT,OFFSET``."""

    fd: int
    count: int
    offset: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Three numbers."""
        fd, count, offset = _split(arguments, b",", 3)
        return cls(_number(fd), _number(count), _number(offset))


@dataclass(frozen=True, slots=True)
class FileDescriptor:
    """``vFile:fstat:FD``, ``vFile:close:FD``."""

    fd: int

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A number."""
        return cls(_number(arguments))


@dataclass(frozen=True, slots=True)
class ReadLink:
    """``vFile:readlink:PATH``."""

    path: str

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The path is in hexadecimal."""
        return cls(_text(_hex_data(arguments)))
