"""pytest fixtures for scripted debug sessions; loaded by pytest wherever xdbg is installed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .gdb import GdbSession
    from .served import ServedGuest


@pytest.fixture
def xdbg_serve() -> Iterator[Callable[..., "ServedGuest"]]:
    """A function: `xdbg_serve(kernel, *options)` serves a guest until the test ends."""
    from .served import serve  # noqa: PLC0415 - the plugin is loaded in every pytest run

    with ExitStack() as stack:

        def start(kernel: str | Path, *options: str) -> "ServedGuest":
            return stack.enter_context(serve(kernel, *options))

        yield start


@pytest.fixture
def xdbg_gdb(xdbg_serve: Callable[..., "ServedGuest"]) -> Iterator[Callable[..., "GdbSession"]]:
    """A function: `xdbg_gdb(kernel, *options)` is a gdb attached to a served guest; its `guest` is the server.

    `gdb`: the command that starts another gdb than the system's; `clients` has one.
    """
    from .gdb import GdbSession  # noqa: PLC0415 - as above

    with ExitStack() as stack:

        def start(kernel: str | Path, *options: str, gdb: Sequence[str] = ("gdb",)) -> "GdbSession":
            guest = xdbg_serve(kernel, *options)
            session = stack.enter_context(GdbSession(guest.address, gdb=gdb))
            session.guest = guest
            return session

        yield start
