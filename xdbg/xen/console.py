"""The console of a domain: its ring page and console_io. Xen: drivers/char/console.c, public/io/console.h.

Domain 0's console daemon is part of this Xen: it is the backend behind the console's port. When the guest notifies it

1. what the guest put into `out` is taken, all of it, and `out_cons` moves on, so that a guest that waits for an empty
   ring does not wait at all;
2. input that waits is put into `in` as far as there is room;
3. the guest is notified if either moved, by the port to which it has bound the console now: a kernel that was started
   by another one closes that one's ports and binds anew.

The guest writes to its side of the ring at any time and may write nonsense: indices more than a ring apart. The console
then takes nothing until they make sense again. It also leaves the page alone while it is not plain memory of the
domain: a guest may have given it back or made a page table of it.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Final, Self

from xdbg.abi.console import ConsoleIo, XenconsInterface
from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, Mfn
from xdbg.abi.hypercalls import Hypercall

from .domain import Domain
from .event_channel import backend, notify_from_backend
from .events import ConsoleOutput
from .faults import HypercallError
from .guest_access import copy_from_guest
from .hypercall import hypercall
from .shared_ring import RingIndexError, RingLayout, is_plain_memory, put, take
from .vcpu import Vcpu

BACKEND: Final = "console"
"""The name for `EventChannels.bind_backend`."""
CONSOLE_IO_MAX: Final = 1 << 20
"""Bytes that one console_io takes at most; a guest that asks for more has lost a length, not something to say."""

_IN = RingLayout(
    XenconsInterface.offset_of("in_"),
    1024,
    XenconsInterface.offset_of("in_cons"),
    XenconsInterface.offset_of("in_prod"),
)
_OUT = RingLayout(
    XenconsInterface.offset_of("out"),
    2048,
    XenconsInterface.offset_of("out_cons"),
    XenconsInterface.offset_of("out_prod"),
)


@dataclass(slots=True)
class ConsoleState:
    """The console of one domain."""

    ring: Mfn = INVALID_MFN
    """The guest's ring page; there is none before the builder says so."""
    port: int = 0
    """The guest's port."""
    output: bytearray = field(default_factory=bytearray)
    """What the guest wrote and nobody has taken yet."""
    input: bytearray = field(default_factory=bytearray)
    """What was typed and does not fit into the ring yet."""
    io_allowed: bool = True
    """Whether console_io is for this domain. A release build of Xen refuses a domU, a debug build does not."""

    @classmethod
    def create(cls, domain: Domain) -> Self:
        """A console without a ring."""
        del domain
        return cls()

    def connect(self, ring: Mfn, port: int) -> None:
        """The domain has its ring page and port; for the builder."""
        self.ring = ring
        self.port = port

    def take_output(self) -> bytes:
        """What the guest wrote since the last call."""
        data = bytes(self.output)
        self.output.clear()
        return data


def send_input(domain: Domain, data: bytes) -> None:
    """Type something on the domain's console. It arrives now, or when the guest makes room."""
    domain.console.input += data
    serve_console(domain)


@backend(BACKEND)
def serve_console(domain: Domain, _device: int = 0) -> None:
    """Move what can be moved in both directions, and tell the guest if something was."""
    console = domain.console
    if not is_plain_memory(domain, console.ring):
        return
    output = b""
    filled = False
    with contextlib.suppress(RingIndexError):
        output = take(domain, console.ring, _OUT)
    with contextlib.suppress(RingIndexError):
        filled = put(domain, console.ring, _IN, console.input)
    if output:
        _output(domain.vcpus[0], output)
    if output or filled:
        notify_from_backend(domain, BACKEND)


def _output(vcpu: Vcpu, data: bytes) -> None:
    vcpu.domain.console.output += data
    observer = vcpu.domain.hv.observer
    if observer is not None:
        observer.observe(vcpu, ConsoleOutput(data))


@hypercall(Hypercall.CONSOLE_IO)
def do_console_io(vcpu: Vcpu, cmd: int, count: int, buffer: int) -> int:
    """HYPERVISOR_console_io(cmd, count, buffer): write to Xen's own console. Xen: drivers/char/console.c.

    It is what a kernel prints to before it has found its ring. Reading is for domain 0.
    """
    if not vcpu.domain.console.io_allowed:
        raise HypercallError(Errno.EPERM)
    match cmd:
        case ConsoleIo.WRITE:
            if count > CONSOLE_IO_MAX:
                raise HypercallError(Errno.E2BIG)
            if count:
                _output(vcpu, copy_from_guest(vcpu, buffer, count))
            return 0
        case _:
            raise HypercallError(Errno.EPERM)
