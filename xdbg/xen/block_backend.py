"""The block backend: virtual disks, as Linux's xen-blkback in domain 0 and the tool stack would offer them.

Xen: public/io/blkif.h, tools/libs/light/libxl_disk.c; Linux: drivers/block/xen-blkback/xenbus.c.

A disk is a device of kind "vbd" in the store. The backend follows the frontend's state:

- Initialising: the backend goes to InitWait, if it was Closed;
- Initialised, Connected: unless it is connected, it connects: it maps the ring by its grants, binds the port, tells
  what the disk is like, goes to Connected, and looks for requests;
- Closing: it goes to Closing;
- Closed: it gives ring and port back and goes to Closed; the frontend may start again;
- no state: it gives them back and is gone for good;
- any other is an error.

An error is told in the store, below /local/domain/0/error, and the backend goes to Closing; the frontend may try once
more. When the frontend notifies, requests are carried out one by one, in order, and answered at once: no time passes.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xdbg.abi.blkif import XEN_IO_PROTO_ABI_X86_32, XEN_IO_PROTO_ABI_X86_64, Vdisk
from xdbg.abi.errno import Errno
from xdbg.abi.frames import Mfn
from xdbg.abi.xenbus import XenbusState

from .block_contents import SECTOR_SIZE, Access, BlockContents
from .block_requests import carry_out
from .block_ring import X86_32, X86_64, BlockRing, RingAbi
from .event_channel import BACKEND_DOMID, backend, bind_backend_port, notify_from_backend, unbind_backend_port
from .faults import HypercallError
from .grant_access import GrantError, acquire_grant, release_grant
from .xenbus import DeviceEnds, read_key, read_state, read_unsigned, report_error, write_keys
from .xenstore import watches_store
from .xenstore_home import as_tool_stack, make_node, owned_by, readable_by
from .xenstore_tree import Permission

if TYPE_CHECKING:
    from .domain import Domain
    from .setup import Hypervisor

BACKEND: Final = "vbd"
"""The kind of the device, and the backend's name for ports."""
MAX_RING_PAGE_ORDER: Final = 4
"""A ring has up to 2^4 pages. Linux: XENBUS_MAX_RING_GRANT_ORDER."""

PROTOCOLS: Final[dict[bytes | None, RingAbi]] = {
    XEN_IO_PROTO_ABI_X86_64.encode(): X86_64,
    XEN_IO_PROTO_ABI_X86_32.encode(): X86_32,
    None: X86_32,
}
"""The frontend's key "protocol"; a frontend without it is an old one of 32 bits."""

_STATE_KEY = re.compile(r"/local/domain/([0-9]+)/device/vbd/([0-9]+)/state")


class ConnectError(Exception):
    """The frontend's keys are not good for a connection."""

    def __init__(self, errno: Errno, text: str) -> None:
        super().__init__(text)
        self.errno = errno
        self.text = text


@dataclass(slots=True)
class BlockDevice:
    """One disk of a domain. Linux: struct backend_info, struct xen_blkif."""

    ends: DeviceEnds
    name: str
    """What the domain is to call it, "xvda"."""
    contents: BlockContents
    cdrom: bool = False
    state: XenbusState = XenbusState.INITIALISING
    ring: BlockRing | None = None
    gone: bool = False
    """The frontend took its state away: the device does not come back."""


def add_disk(
    domain: "Domain", devid: int, name: str, contents: BlockContents, *, target: str, cdrom: bool = False
) -> None:
    """Give a domain a disk; it has no disk `devid` yet. `target`: what the image is called, for people.

    Xen: device_disk_add(), Linux: xen_blkbk_probe().
    """
    hv = domain.hv
    ends = DeviceEnds(BACKEND, domain.domid, devid)
    device = BlockDevice(ends, name, contents, cdrom)
    assert devid not in domain.disks
    domain.disks[devid] = device
    view = as_tool_stack(hv)
    make_node(view, ends.front, (*owned_by(domain.domid), Permission("r", BACKEND_DOMID)))
    kind = "cdrom" if cdrom else "disk"
    front = {
        "backend": ends.back,
        "backend-id": str(BACKEND_DOMID),
        "state": str(int(XenbusState.INITIALISING)),
        "virtual-device": str(devid),
        "device-type": kind,
        "protocol": XEN_IO_PROTO_ABI_X86_64,
    }
    writable = contents.access is not Access.READ_ONLY
    back = {
        "frontend": ends.front,
        "params": target,
        "script": "/etc/xen/scripts/block",
        "frontend-id": str(domain.domid),
        "online": "1",
        "removable": str(int(cdrom)),
        "bootable": "1",
        "state": str(int(XenbusState.INITIALISING)),
        "dev": name,
        "type": "phy",
        "mode": "w" if writable else "r",
        "device-type": kind,
        "discard-enable": str(int(writable)),
        "multi-queue-max-queues": "1",
        "max-ring-page-order": str(MAX_RING_PAGE_ORDER),
        "physical-device": f"7:{len(domain.disks) - 1:x}",
        "hotplug-status": "connected",
    }
    make_node(view, ends.back, readable_by(domain.domid))
    write_keys(hv, ends.back, back)
    write_keys(hv, ends.front, front)
    _switch_state(hv, device, XenbusState.INITWAIT)


@watches_store
def frontend_state_changed(hv: "Hypervisor", path: str) -> None:
    """A key of the store changed; it may be the state of a disk's frontend. Linux: frontend_changed()."""
    found = _STATE_KEY.fullmatch(path)
    if found is None:
        return
    domain = hv.domains.get(int(found[1]))
    device = None if domain is None else domain.disks.get(int(found[2]))
    if domain is None or device is None or device.gone or path != f"{device.ends.front}/state":
        return
    state = read_state(hv, device.ends.front)
    match state:
        case XenbusState.INITIALISING:
            if device.state is XenbusState.CLOSED:
                _switch_state(hv, device, XenbusState.INITWAIT)
        case XenbusState.INITIALISED | XenbusState.CONNECTED:
            if device.state is not XenbusState.CONNECTED:
                _connect(domain, device)
        case XenbusState.CLOSING:
            _switch_state(hv, device, XenbusState.CLOSING)
        case XenbusState.CLOSED:
            _disconnect(domain, device)
            _switch_state(hv, device, XenbusState.CLOSED)
        case XenbusState.UNKNOWN:
            _disconnect(domain, device)
            device.gone = True
        case _:
            _fail(hv, device, ConnectError(Errno.EINVAL, f"saw state {state} at frontend"))


def _switch_state(hv: "Hypervisor", device: BlockDevice, state: XenbusState) -> None:
    """The backend's own state. Linux: xenbus_switch_state()."""
    if device.state is not state:
        device.state = state
        write_keys(hv, device.ends.back, {"state": str(int(state))})


def _fail(hv: "Hypervisor", device: BlockDevice, error: ConnectError) -> None:
    """Linux: xenbus_dev_fatal()."""
    report_error(hv, device.ends, error.errno, error.text)
    _switch_state(hv, device, XenbusState.CLOSING)


def _connect(domain: "Domain", device: BlockDevice) -> None:
    """Take the frontend's ring and port, and tell it of the disk. Linux: connect_ring(), connect()."""
    hv = domain.hv
    _disconnect(domain, device)
    try:
        device.ring = _map_ring(domain, device.ends)
    except ConnectError as error:
        _fail(hv, device, error)
        return
    contents = device.contents
    info = Vdisk.CDROM * device.cdrom | Vdisk.READONLY * (contents.access is Access.READ_ONLY)
    keys = {
        "feature-flush-cache": "1",
        "feature-discard": "0",
        "feature-barrier": "1",
        "feature-persistent": "0",
        "sectors": str(contents.nr_sectors),
        "info": str(int(info)),
        "sector-size": str(SECTOR_SIZE),
        "physical-sector-size": str(SECTOR_SIZE),
    }
    write_keys(hv, device.ends.back, keys)
    _switch_state(hv, device, XenbusState.CONNECTED)
    serve_disk(domain, device.ends.devid)


def _map_ring(domain: "Domain", ends: DeviceEnds) -> BlockRing:
    """Map the ring that the frontend's keys tell of and bind its port. Raises `ConnectError`, and has done nothing."""
    hv = domain.hv
    protocol = read_key(hv, f"{ends.front}/protocol")
    if protocol not in PROTOCOLS:
        raise ConnectError(Errno.ENOSYS, "unknown fe protocol")
    nr_queues = read_unsigned(hv, f"{ends.front}/multi-queue-num-queues")
    if nr_queues not in (None, 1):
        raise ConnectError(Errno.ENOSYS, f"guest requested {nr_queues} queues, exceeding the maximum of 1.")
    port = read_unsigned(hv, f"{ends.front}/event-channel")
    if port is None:
        raise ConnectError(Errno.EINVAL, f"reading {ends.front}/event-channel")
    refs = _read_refs(hv, ends)
    pages: list[Mfn] = []
    try:
        for ref in refs:
            pages.append(acquire_grant(domain, ref, BACKEND_DOMID, readonly=False))
        ring = BlockRing(pages, refs, PROTOCOLS[protocol])
        if not ring.attach(domain):
            raise ConnectError(Errno.EIO, f"mapping ring-ref port {port}")
        bind_backend_port(domain, port, BACKEND, ends.devid)
    except (GrantError, HypercallError, ConnectError) as error:
        for ref, _ in zip(refs, pages, strict=False):
            release_grant(domain, ref, BACKEND_DOMID, readonly=False)
        if isinstance(error, ConnectError):
            raise
        raise ConnectError(Errno.EINVAL, f"mapping ring-ref port {port}") from error
    return ring


def _read_refs(hv: "Hypervisor", ends: DeviceEnds) -> list[int]:
    """The grants of the ring's pages. Linux: read_per_ring_refs()."""
    order = read_unsigned(hv, f"{ends.front}/ring-page-order")
    if order is None:
        names = ["ring-ref"]
    elif order <= MAX_RING_PAGE_ORDER:
        names = [f"ring-ref{number}" for number in range(1 << order)]
    else:
        text = f"{ends.front}/request {order} ring page order exceed max:{MAX_RING_PAGE_ORDER}"
        raise ConnectError(Errno.EINVAL, text)
    refs = []
    for name in names:
        ref = read_unsigned(hv, f"{ends.front}/{name}")
        if ref is None:
            raise ConnectError(Errno.EINVAL, f"reading {ends.front}/{name}")
        refs.append(ref)
    return refs


def _disconnect(domain: "Domain", device: BlockDevice) -> None:
    """Give ring and port back, if there are any. Linux: xen_blkif_disconnect()."""
    ring = device.ring
    if ring is None:
        return
    device.ring = None
    unbind_backend_port(domain, BACKEND, device.ends.devid)
    for ref in ring.refs:
        release_grant(domain, ref, BACKEND_DOMID, readonly=False)


@backend(BACKEND)
def serve_disk(domain: "Domain", devid: int) -> None:
    """Carry out the requests that have come, and tell the frontend if it wants to be told. Linux: do_block_io_op()."""
    device = domain.disks[devid]
    ring = device.ring
    if ring is None:
        return
    tell = False
    for _ in range(ring.nr_entries):
        request = ring.take(domain)
        if request is None:
            break
        status = carry_out(domain, device.contents, request)
        tell |= ring.answer(domain, request, status)
    else:
        # The domain does not run meanwhile: more requests than there were entries come from reads into the ring itself.
        ring.halted = ring.take(domain) is not None
    if tell:
        notify_from_backend(domain, BACKEND, devid)
