"""Files on the host for the cores of domains: new ones only, in one directory, written sparsely."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from xdbg.debug.cores.file import CoreFileError, CoreSink, CoreSummary, write_core
from xdbg.trace.symbols import ProfileKernel

from .launch import Launched

_MAX_NAME: Final = 255
_BUFFER: Final = 1 << 20


class CoreFiles:
    """What ``monitor dump-core`` may make: files in `directory` that were not there before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def create(self, name: str) -> Iterator[CoreSink]:
        """A new file of that name. Raises `CoreFileError`; what was written until then is removed."""
        if not name or name in {".", ".."} or "/" in name or "\0" in name or len(os.fsencode(name)) > _MAX_NAME:
            raise CoreFileError(f"{name!r} is not the plain name of a file")
        with _create(self._directory / name, name) as sink:
            yield sink


def save_core(launched: Launched, path: Path, *, with_segments: bool = True) -> CoreSummary:
    """Write the core of a launched domain to a new file, as `write_core` does. Raises `CoreFileError`."""
    with _create(path, str(path)) as sink:
        return write_core(launched.domain, ProfileKernel(launched.profile()).table, sink, with_segments=with_segments)


class _SparseFile:
    """A file that is written from front to back; what is skipped takes no room."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def write(self, data: bytes | memoryview, /) -> None:
        """These bytes come next."""
        self._file.write(data)
        self._at += len(data)

    def skip(self, length: int, /) -> None:
        """So many zeroes come next."""
        self._at += length
        self._file.seek(self._at)

    def finish(self) -> None:
        """The file ends here, be it in a hole."""
        self._file.flush()
        self._file.truncate(self._at)


@contextmanager
def _create(path: Path, shown: str) -> Iterator[_SparseFile]:
    """`shown`: what the file is called in errors."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CoreFileError(f"{shown}: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb", _BUFFER) as file:
            sparse = _SparseFile(file)
            yield sparse
            sparse.finish()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CoreFileError(f"{shown}: {error.strerror or error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
