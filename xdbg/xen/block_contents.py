"""What is on a virtual disk: an image outside of the machine, and what the domain has written over it.

The image is reached by its name through `Hypervisor.block_images`, which whoever made the machine puts there. What a
domain writes to a copy-on-write disk stays in the machine, as plain data by chunks: the image is never written to.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

SECTOR_SIZE: Final = 512
CHUNK_SIZE: Final = 4096
"""Bytes that are copied together when some of them are written."""
MAX_WRITTEN: Final = 1 << 30
"""Bytes that a copy-on-write disk takes up at the most; then it is full, and a write fails."""


class BlockError(Exception):
    """The image can't be read or written, or the disk is full: the request fails."""


class BlockImages(Protocol):
    """The images that are there, by name. Every method may raise `BlockError`."""

    def read(self, image: str, offset: int, length: int) -> bytes:
        """`length` bytes of an image from `offset` on."""

    def write(self, image: str, offset: int, data: bytes) -> None:
        """Write to an image."""

    def flush(self, image: str) -> None:
        """What was written is to survive."""


class Access(Enum):
    """What becomes of a write."""

    READ_ONLY = "r"
    COPY_ON_WRITE = "w"
    WRITE_THROUGH = "write-through"


@dataclass(slots=True)
class BlockContents:
    """The contents of one disk of `nr_sectors` sectors of 512 bytes."""

    image: str
    """Its name in `BlockImages`."""
    nr_sectors: int
    access: Access
    written: dict[int, bytes] = field(default_factory=dict)
    """Chunk number -> its bytes, of those that a copy-on-write disk has instead of the image's."""

    def read(self, images: BlockImages, sector: int, count: int) -> bytes:
        """The bytes of `count` sectors, which are on the disk."""
        start, end = sector * SECTOR_SIZE, (sector + count) * SECTOR_SIZE
        if not self.written:
            return images.read(self.image, start, end - start)
        first, last = start // CHUNK_SIZE, (end - 1) // CHUNK_SIZE
        if not any(number in self.written for number in range(first, last + 1)):
            return images.read(self.image, start, end - start)
        data = b"".join(self._chunk(images, number) for number in range(first, last + 1))
        offset = start - first * CHUNK_SIZE
        return data[offset : offset + end - start]

    def write(self, images: BlockImages, sector: int, data: bytes) -> None:
        """Write whole sectors, which are on the disk; a disk that is full is as it was."""
        start = sector * SECTOR_SIZE
        if self.access is Access.WRITE_THROUGH:
            images.write(self.image, start, data)
            return
        assert self.access is Access.COPY_ON_WRITE
        changed: dict[int, bytes] = {}
        done = 0
        while done < len(data):
            number, offset = divmod(start + done, CHUNK_SIZE)
            piece = data[done : done + CHUNK_SIZE - offset]
            if len(piece) < CHUNK_SIZE:
                old = self._chunk(images, number)
                piece = old[:offset] + piece + old[offset + len(piece) :]
            changed[number] = piece
            done += CHUNK_SIZE - offset
        more = sum(number not in self.written for number in changed)
        if (len(self.written) + more) * CHUNK_SIZE > MAX_WRITTEN:
            raise BlockError("the disk is full")
        self.written.update(changed)

    def flush(self, images: BlockImages) -> None:
        """What was written is to survive, if it is written to the image."""
        if self.access is Access.WRITE_THROUGH:
            images.flush(self.image)

    def _chunk(self, images: BlockImages, number: int) -> bytes:
        """The bytes of a chunk; the last one of a disk may be shorter."""
        written = self.written.get(number)
        if written is not None:
            return written
        start = number * CHUNK_SIZE
        return images.read(self.image, start, min(CHUNK_SIZE, self.nr_sectors * SECTOR_SIZE - start))
