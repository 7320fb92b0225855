"""What lldb asks beyond gdb's packets. LLDB documentation: "GDB Remote Protocol Extensions".

Answers are rows of ``key:value;``. lldb takes registers from the target description when there is one, as gdb does;
qRegisterInfo serves those that came before it could.
"""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from binascii import hexlify
from collections.abc import Mapping
from dataclasses import replace
from errno import ENOENT
from typing import TYPE_CHECKING, Final

from xdbg.rsp.packets.lldb import Place, RegisterNumber
from xdbg.rsp.packets.session import Bare
from xdbg.rsp.register_info import register_info
from xdbg.rsp.replies import Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import MemoryRegions, Target, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection

_TRIPLE: Final = "x86_64-unknown-unknown"
"""What runs is a kernel: with an operating system named here lldb would look for that one's dynamic linker."""


def _row(fields: Mapping[str, str | int]) -> Reply:
    return Text("".join(f"{key}:{value};" for key, value in fields.items()).encode())


def _hex(text: str) -> str:
    return hexlify(text.encode(errors="surrogateescape")).decode()


@packet(b"qHostInfo", Bare, observing=True)
def host_info(conn: Connection, target: Target, request: Bare) -> Reply:
    """What kind of machine this is."""
    del conn, target, request
    machine: dict[str, str | int] = {"triple": _hex(_TRIPLE), "ptrsize": 8, "endian": "little"}
    return _row({**machine, "vm-page-size": 4096, "watchpoint_exceptions_received": "after"})


@packet(b"qProcessInfo", Bare, observing=True)
def process_info(conn: Connection, target: Target, request: Bare) -> Reply:
    """The current process."""
    del target, request
    return _row({"pid": f"{conn.thread().pid:x}", "triple": _hex(_TRIPLE), "ptrsize": 8, "endian": "little"})


@packet(b"qRegisterInfo", RegisterNumber, joined=True, observing=True)
def describe_register(conn: Connection, target: Target, request: RegisterNumber) -> Reply:
    """One register: name, size, place in the block, number in debug information."""
    del conn, target
    info = register_info(request.regnum)
    if info is None:
        raise TargetError(ENOENT, "no such register")
    return Text(info)


@packet(b"qMemoryRegionInfo:", Place, MemoryRegions, observing=True)
def memory_region(conn: Connection, target: MemoryRegions, request: Place) -> Reply:
    """The mapped region, or the hole, around an address."""
    region = target.memory_region(conn.thread(), request.vaddr)
    fields = {"start": f"{region.start:x}", "size": f"{region.size:x}"}
    if region.rights is not None:
        fields["permissions"] = region.rights
    if region.name:
        fields["name"] = _hex(region.name)
    return _row(fields)


@packet(b"QThreadSuffixSupported", Bare, observing=True)
def take_thread_suffix(conn: Connection, target: Target, request: Bare) -> Reply:
    """Packets about registers may name their thread: they always may."""
    del conn, target, request
    return Ok()


@packet(b"QListThreadsInStopReply", Bare, observing=True)
def list_threads_in_stops(conn: Connection, target: Target, request: Bare) -> Reply:
    """Stop replies name all threads from now on, and where they are."""
    del target, request
    conn.client = replace(conn.client, threads_in_stop_reply=True)
    return Ok()


@packet(b"QEnableErrorStrings", Bare, observing=True)
def enable_error_strings(conn: Connection, target: Target, request: Bare) -> Reply:
    """Errors explain themselves from now on."""
    del target, request
    conn.client = replace(conn.client, error_strings=True)
    return Ok()
