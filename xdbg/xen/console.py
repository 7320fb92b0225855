"""The console of a domain: its ring page and console_io. Xen: drivers/char/console.c, public/io/console.h.

Domain 0's console daemon is part of this Xen: it is the backend behind the console's port. When the guest notifies it

1. what the guest put into `out` is taken, all of it, and `out_cons` moves on, so that a guest that waits for an empty
   ring does not wait at all;
2. input that waits is put into `in` as far as there is room;
3. the guest is notified if either moved.

The guest writes to its side of the ring at any time and may write nonsense: indices more than a ring apart. The console
then takes nothing until they make sense again. It also leaves the page alone while it is not plain memory of the
domain: a guest may have given it back or made a page table of it.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from xdbg.abi.console import ConsoleIo, XenconsInterface
from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.hypercalls import Hypercall

from .domain import Domain
from .event_channel import backend, notify
from .events import ConsoleOutput, MemoryWritten
from .faults import HypercallError
from .guest_access import copy_from_guest
from .hypercall import hypercall
from .vcpu import Vcpu

BACKEND: Final = "console"
"""The name for `EventChannels.bind_backend`."""
CONSOLE_IO_MAX: Final = 1 << 20
"""Bytes that one console_io takes at most; a guest that asks for more has lost a length, not something to say."""

_IN = XenconsInterface.offset_of("in_")
_OUT = XenconsInterface.offset_of("out")
_IN_SIZE = 1024
_OUT_SIZE = 2048
_IN_CONS = XenconsInterface.offset_of("in_cons")
_IN_PROD = XenconsInterface.offset_of("in_prod")
_OUT_CONS = XenconsInterface.offset_of("out_cons")
_OUT_PROD = XenconsInterface.offset_of("out_prod")
_U32 = 0xFFFF_FFFF


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
def serve_console(domain: Domain) -> None:
    """Move what can be moved in both directions, and tell the guest if something was."""
    if domain.console.ring == INVALID_MFN:
        return
    took = _drain(domain)
    gave = _fill(domain)
    if took or gave:
        notify(domain, domain.console.port)


def _drain(domain: Domain) -> bool:
    """Take the guest's output out of the ring; whether there was any."""
    ram = domain.hv.ram
    ring = mfn_to_maddr(domain.console.ring)
    cons = ram.read_u32(ring + _OUT_CONS)
    length = ram.read_u32(ring + _OUT_PROD) - cons & _U32
    if length == 0 or length > _OUT_SIZE:
        return False
    start = cons % _OUT_SIZE
    data = ram.read(ring + _OUT, _OUT_SIZE)
    data = (data + data)[start : start + length]
    _store_u32(domain, ring + _OUT_CONS, cons + length)
    _output(domain.vcpus[0], data)
    return True


def _fill(domain: Domain) -> bool:
    """Put waiting input into the ring; whether any fitted."""
    ram = domain.hv.ram
    waiting = domain.console.input
    ring = mfn_to_maddr(domain.console.ring)
    prod = ram.read_u32(ring + _IN_PROD)
    used = prod - ram.read_u32(ring + _IN_CONS) & _U32
    if used > _IN_SIZE:
        return False
    length = min(len(waiting), _IN_SIZE - used)
    if length == 0:
        return False
    for index in range(length):
        _store(domain, ring + _IN + (prod + index) % _IN_SIZE, waiting[index : index + 1])
    del waiting[:length]
    _store_u32(domain, ring + _IN_PROD, prod + length)
    return True


def _store(domain: Domain, maddr: int, data: bytes | bytearray) -> None:
    hv = domain.hv
    hv.ram.write(maddr, data)
    if hv.observer is not None:
        hv.observer.observe(domain.vcpus[0], MemoryWritten(Maddr(maddr), len(data)))


def _store_u32(domain: Domain, maddr: int, value: int) -> None:
    _store(domain, maddr, (value & _U32).to_bytes(4, "little"))


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
        case ConsoleIo.READ:
            raise HypercallError(Errno.EPERM)
        case _:
            raise HypercallError(Errno.ENOSYS)
