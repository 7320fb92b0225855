"""The files behind virtual disks: opened when a domain is launched, read when the domain reads.

The machine knows an image by a name alone, DOMID/VDEV; what has that name is here. A file is opened for writing only if
its disk writes through.
"""

import hashlib
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path

from xdbg.xen.block_backend import add_disk
from xdbg.xen.block_contents import SECTOR_SIZE, Access, BlockContents, BlockError
from xdbg.xen.domain import Domain

from .disks import Disk, DiskError, with_devices


@dataclass(frozen=True, slots=True)
class _File:
    """An open file. `identity`: device and inode."""

    descriptor: int
    path: Path
    size: int
    identity: tuple[int, int]
    writable: bool


class DiskImages:
    """The open images of one machine; they are closed with it."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        weakref.finalize(self, _close_all, self._files)

    def open(self, image: str, disk: Disk) -> int:
        """Open the file of a disk under the name `image`; its size in sectors. Raises `DiskError`."""
        file = _open(disk.path, writable=disk.access is Access.WRITE_THROUGH)
        for other in self._files.values():
            if other.identity == file.identity and (other.writable or file.writable):
                os.close(file.descriptor)
                raise DiskError(f"{disk.path}: it is behind another disk, and one of them writes to it")
        self._files[image] = file
        return file.size // SECTOR_SIZE

    def close(self, prefix: str) -> None:
        """Close all images whose names begin with `prefix`."""
        for image in [image for image in self._files if image.startswith(prefix)]:
            os.close(self._files.pop(image).descriptor)

    def read(self, image: str, offset: int, length: int) -> bytes:
        """`length` bytes of an image; `BlockError` if they can't be read."""
        file = self._file(image)
        try:
            data = b""
            while len(data) < length:
                piece = os.pread(file.descriptor, length - len(data), offset + len(data))
                if not piece:
                    raise BlockError(f"{file.path}: it has become shorter")
                data += piece
        except OSError as error:
            raise BlockError(f"{file.path}: {error.strerror or error}") from error
        return data

    def write(self, image: str, offset: int, data: bytes) -> None:
        """Write to an image; `BlockError` if that fails."""
        file = self._file(image)
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(file.descriptor, data[done:], offset + done)
        except OSError as error:
            raise BlockError(f"{file.path}: {error.strerror or error}") from error

    def flush(self, image: str) -> None:
        """Have the host write out what was written; `BlockError` if that fails."""
        file = self._file(image)
        try:
            os.fsync(file.descriptor)
        except OSError as error:
            raise BlockError(f"{file.path}: {error.strerror or error}") from error

    def _file(self, image: str) -> _File:
        file = self._files.get(image)
        if file is None:
            raise BlockError(f"{image}: there is no such image")
        return file


def _close_all(files: dict[str, _File]) -> None:
    for file in files.values():
        os.close(file.descriptor)
    files.clear()


def check_image(disk: Disk) -> None:
    """Raise `DiskError` if the file of a disk can't be opened as it has to be."""
    os.close(_open(disk.path, writable=disk.access is Access.WRITE_THROUGH).descriptor)


def digest_of(disk: Disk) -> str:
    """The SHA-256 of what is on a disk, in hexadecimal. Raises `DiskError`."""
    try:
        with disk.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DiskError(f"{disk.path}: {error.strerror or error}") from error


def _open(path: Path, *, writable: bool) -> _File:
    """The file of an image. Raises `DiskError` if it is not there, is no file, or has no whole number of sectors."""
    try:
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DiskError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no file"
            raise DiskError(f"{path}: it is {what}, not the image of a disk")
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size == 0 or size % SECTOR_SIZE:
            raise DiskError(f"{path}: it has {size} bytes, which is no number of sectors of {SECTOR_SIZE} bytes")
    except (OSError, DiskError) as error:
        os.close(descriptor)
        if isinstance(error, DiskError):
            raise
        raise DiskError(f"{path}: {error.strerror or error}") from error
    return _File(descriptor, path, size, (status.st_dev, status.st_ino), writable)


def attach_disks(domain: Domain, images: DiskImages, disks: tuple[Disk, ...]) -> None:
    """Give a new domain its disks. Raises `DiskError`; then no image of its is open."""
    prefix = f"{domain.domid}/"
    try:
        for number, disk in with_devices(disks):
            image = prefix + disk.vdev
            contents = BlockContents(image, images.open(image, disk), disk.access)
            add_disk(domain, number, disk.vdev, contents, target=disk.path.name, cdrom=disk.cdrom)
    except DiskError:
        images.close(prefix)
        raise
