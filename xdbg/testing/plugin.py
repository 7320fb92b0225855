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
def xdbg_domains() -> Iterator[Callable[..., "list[GdbSession]"]]:
    """A function: `xdbg_domains(spec, spec, ...)` serves domains on one machine; a gdb attached to each.

    `options`: those of `xdbg serve`. The `guest` of each session is the one server.
    """
    from .gdb import GdbSession  # noqa: PLC0415 - as above
    from .served import serve_domains  # noqa: PLC0415

    with ExitStack() as stack:

        def start(*specs: str, options: Sequence[str] = ()) -> "list[GdbSession]":
            guest = stack.enter_context(serve_domains(*specs, options=options))
            sessions = [stack.enter_context(GdbSession(address)) for address in guest.addresses.values()]
            for session in sessions:
                session.guest = guest
            return sessions

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
