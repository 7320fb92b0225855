"""vFile: files of the target, for reading only.

Descriptors are numbers of the connection and end with it. GDB manual: "Host I/O Packets"; the structure and the error
numbers are those of "File-I/O Remote Protocol Extension", all big-endian.
"""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

import struct
from errno import EBADF, EINVAL, ELOOP, EMFILE, ENOSYS, EROFS
from typing import TYPE_CHECKING, Final

from xdbg.rsp.packets.files import FileDescriptor, NamedFile, OpenFile, PreadFile, SetFileSystem
from xdbg.rsp.packets.session import Anything
from xdbg.rsp.replies import HostIoError, HostIoResult, Reply
from xdbg.rsp.table import packet
from xdbg.rsp.target import File, FileStat, HostIo, TargetError

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


_MAX_OPEN_FILES: Final = 64
_STAT: Final = struct.Struct(">7I3Q3I")
_BLOCK: Final = 512
_MAX_LINKS: Final = 8
_LINK_MODE: Final = 0o120777


def _failure(errno: int, text: str) -> Reply:
    del text
    return HostIoError(errno)


def _file(conn: Connection, fd: int) -> File:
    try:
        return conn.files[fd]
    except KeyError:
        raise TargetError(EBADF) from None


@packet(b"vFile:setfs:", SetFileSystem, HostIo, failure=_failure, observing=True)
def set_file_system(conn: Connection, target: HostIo, request: SetFileSystem) -> Reply:
    """Chooses the process whose view of the files counts; 0 is the target's root."""
    del target
    conn.file_system = request.pid
    return HostIoResult(0)


@packet(b"vFile:open:", OpenFile, HostIo, failure=_failure, observing=True)
def open_file(conn: Connection, target: HostIo, request: OpenFile) -> Reply:
    """Opens a file for reading."""
    if request.flags:
        raise TargetError(EROFS)
    if len(conn.files) >= _MAX_OPEN_FILES:
        raise TargetError(EMFILE)
    file = target.open_file(conn.file_system, request.path)
    fd = next(number for number in range(_MAX_OPEN_FILES) if number not in conn.files)
    conn.files[fd] = file
    return HostIoResult(fd)


@packet(b"vFile:pread:", PreadFile, HostIo, failure=_failure, observing=True)
def pread_file(conn: Connection, target: HostIo, request: PreadFile) -> Reply:
    """Reads a part of an open file; nothing at its end."""
    del target
    count = min(request.count, conn.reply_limit)
    data = conn.fitting(_file(conn, request.fd).pread(count, request.offset))
    return HostIoResult(len(data), data)


@packet(b"vFile:fstat:", FileDescriptor, HostIo, failure=_failure, observing=True)
def stat_file(conn: Connection, target: HostIo, request: FileDescriptor) -> Reply:
    """Size, mode and times of an open file."""
    del target
    return _stat(_file(conn, request.fd).stat())


@packet(b"vFile:stat:", NamedFile, HostIo, failure=_failure, observing=True)
def stat_path(conn: Connection, target: HostIo, request: NamedFile) -> Reply:
    """The same of a file by its path; of what it points to, if it is a link."""
    path = request.path
    for _ in range(_MAX_LINKS):
        link = _link(conn, target, path)
        if link is None:
            return _stat(target.open_file(conn.file_system, path).stat())
        path = link
    raise TargetError(ELOOP)


@packet(b"vFile:lstat:", NamedFile, HostIo, failure=_failure, observing=True)
def stat_link(conn: Connection, target: HostIo, request: NamedFile) -> Reply:
    """The same of a file by its path; of the link itself, if it is one."""
    link = _link(conn, target, request.path)
    if link is None:
        return _stat(target.open_file(conn.file_system, request.path).stat())
    return _stat(FileStat(len(link.encode(errors="surrogateescape")), _LINK_MODE))


def _link(conn: Connection, target: HostIo, path: str) -> str | None:
    """Where a link points; None: it is none."""
    try:
        return target.read_link(conn.file_system, path)
    except TargetError as error:
        if error.errno == EINVAL:
            return None
        raise


def _stat(stat: FileStat) -> Reply:
    blocks = -(-stat.size // _BLOCK)
    time = stat.mtime & 0xFFFFFFFF
    inode = stat.inode & 0xFFFFFFFF
    data = _STAT.pack(0, inode, stat.mode & 0xFFFFFFFF, 1, 0, 0, 0, stat.size, _BLOCK, blocks, time, time, time)
    return HostIoResult(len(data), data)


@packet(b"vFile:close:", FileDescriptor, HostIo, failure=_failure, observing=True)
def close_file(conn: Connection, target: HostIo, request: FileDescriptor) -> Reply:
    """Ends the use of a descriptor."""
    del target
    _file(conn, request.fd)
    del conn.files[request.fd]
    return HostIoResult(0)


@packet(b"vFile:readlink:", NamedFile, HostIo, failure=_failure, observing=True)
def read_link(conn: Connection, target: HostIo, request: NamedFile) -> Reply:
    """Where a symbolic link points."""
    data = conn.fitting(target.read_link(conn.file_system, request.path).encode(errors="surrogateescape"))
    return HostIoResult(len(data), data)


@packet(b"vFile:", Anything, HostIo, failure=_failure, observing=True)
def refuse_file_operation(conn: Connection, target: HostIo, request: Anything) -> Reply:
    """All that would change files is refused with ENOSYS."""
    del conn, target, request
    return HostIoError(ENOSYS)
