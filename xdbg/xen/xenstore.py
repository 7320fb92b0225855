"""Xenstore: the ring page by which a domain reads and writes the shared tree. Xen: public/io/xs_wire.h, tools/xenstore.

Domain 0's daemon is part of this Xen: it is the backend behind the store's port. When a domain notifies the port, it
takes turns at two things until neither can be done:

1. one request is taken out of the request ring, if one has come; it may come in any number of pieces, round the ring's
   end. Whoever watches what it changes is sent an event, then it is answered (a new watch's first event comes last);
2. what waits for the domain is put into the response ring, as far as there is room.

A domain whose ring moved is notified. Nothing is taken from a domain that leaves too many replies unread.

The connection ends for good when the guest breaks the protocol: indices further apart than the ring, or a payload
longer than the limit; `error` in the ring page says so. It rests while the page is not plain memory of the domain.

Drivers of domain 0 that are part of this Xen follow changes, too: functions with `@watches_store`, called after the
request that changed something.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.xenstore import (
    XENSTORE_ERROR_PROTO,
    XENSTORE_ERROR_RINGIDX,
    XENSTORE_PAYLOAD_MAX,
    XENSTORE_RING_SIZE,
    XENSTORE_SERVER_FEATURE_ERROR,
    XSD_ERRORS,
    XenstoreDomainInterface,
    XsdSockmsg,
    XsMsgType,
)

from .domain import Domain
from .event_channel import backend, notify_from_backend
from .shared_ring import RingIndexError, RingLayout, is_plain_memory, put, store_u32, take
from .xenstore_home import as_tool_stack, homes, make_home, make_store_keys
from .xenstore_outbox import MAX_OUTSTANDING, Outbox
from .xenstore_paths import XenstoreError, absolute, domain_path, is_below
from .xenstore_requests import Answer, Request, Watch, answer
from .xenstore_tree import Changed, Node, Permissions, Transaction, View

if TYPE_CHECKING:
    from .setup import Hypervisor

BACKEND: Final = "xenstore"
"""The name for `EventChannels.bind_backend`."""

_PAGE = XenstoreDomainInterface.offset_of
_REQUESTS = RingLayout(_PAGE("req"), XENSTORE_RING_SIZE, _PAGE("req_cons"), _PAGE("req_prod"))
_REPLIES = RingLayout(_PAGE("rsp"), XENSTORE_RING_SIZE, _PAGE("rsp_cons"), _PAGE("rsp_prod"))

StoreWatcher = Callable[["Hypervisor", str], None]

STORE_WATCHERS: list[StoreWatcher] = []
"""Domain 0's drivers: each is called with the path of each node that has changed or gone."""


def watches_store(watcher: StoreWatcher) -> StoreWatcher:
    """Enter a function in `STORE_WATCHERS`."""
    STORE_WATCHERS.append(watcher)
    return watcher


@dataclass(slots=True)
class XenstoreState:
    """One domain's connection to the store."""

    ring: Mfn = INVALID_MFN
    """The guest's ring page; there is none before the builder says so."""
    port: int = 0
    """The guest's port."""
    broken: bool = False
    request: bytearray = field(default_factory=bytearray)
    """A request of which not all has come."""
    outbox: Outbox = field(default_factory=Outbox)
    watches: list[Watch] = field(default_factory=list)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    next_transaction: int = 1

    @classmethod
    def create(cls, domain: Domain) -> Self:
        """A connection without a ring; the domain's own keys are written as a tool stack does."""
        make_home(domain, len(domain.vcpus))
        return cls()

    def connect(self, domain: Domain, ring: Mfn, port: int) -> None:
        """The domain has its ring page and port; for the builder."""
        self.ring = ring
        self.port = port
        store_u32(domain, Maddr(mfn_to_maddr(ring) + _PAGE("server_features")), XENSTORE_SERVER_FEATURE_ERROR)
        make_store_keys(domain, ring, port)


# For domain 0: its tools and its drivers


def read(domain: Domain, path: str) -> bytes | None:
    """A key's value as domain 0 sees it, None if it is not there; `path` may be relative to the domain's own keys."""
    node = domain.hv.xenstore_tree.nodes.get(absolute(path, domain.domid))
    return None if node is None else node.value


def write(domain: Domain, path: str, value: str, permissions: Permissions | None = None) -> None:
    """Set a key as domain 0 would, and tell the watchers; `path` may be relative to the domain's own keys."""
    view = as_tool_stack(domain.hv)
    path = absolute(path, domain.domid)
    changes = view.write(path, value.encode())
    if permissions is not None:
        changes += view.set_permissions(path, permissions)
    tell_watchers(domain.hv, changes)
    _send_to_all(domain.hv)


def remove(domain: Domain, path: str) -> None:
    """Remove a key and all below it as domain 0 would; nothing happens if it is not there."""
    path = absolute(path, domain.domid)
    if path in domain.hv.xenstore_tree.nodes:
        tell_watchers(domain.hv, as_tool_stack(domain.hv).remove(path))
        _send_to_all(domain.hv)


def read_as(domain: Domain, domid: int, path: str) -> Node | None:
    """A node as domain `domid` sees it, or None; a name that can't be one is no node."""
    try:
        return View(domain.hv.xenstore_tree, domid).read(absolute(path, domain.domid))
    except XenstoreError:
        return None


def release(domain: Domain) -> None:
    """A domain is no more: its connection ends, and its keys go, wherever they are.

    Xen: destroy_domain(), domain_tree_remove(), libxl__destroy_domid().
    """
    domain.xenstore.ring = INVALID_MFN
    _break_off(domain, XENSTORE_ERROR_PROTO)
    nodes = domain.hv.xenstore_tree.nodes
    owned = [path for path, node in nodes.items() if node.owner == domain.domid]
    for path in (*homes(domain.domid), *owned):
        remove(domain, path)


# The ring


@backend(BACKEND)
def serve_xenstore(domain: Domain, _device: int = 0) -> None:
    """Answer what the domain asked, as far as its ring has room."""
    state = domain.xenstore
    if state.broken or not is_plain_memory(domain, state.ring):
        return
    moved = False
    while not state.broken:
        taken = state.outbox.nr_replies < MAX_OUTSTANDING and _receive(domain)
        sent = _send(domain)
        if not taken and not sent:
            break
        moved = True
    if moved:
        notify_from_backend(domain, BACKEND)
    _send_to_all(domain.hv)


def _send_to_all(hv: "Hypervisor") -> None:
    """Let domain 0's drivers see what has changed, and put what waits for any domain into its ring."""
    tree = hv.xenstore_tree
    while tree.unseen:
        change = tree.unseen.pop(0)
        for watcher in STORE_WATCHERS:
            watcher(hv, change.path)
    for domid in sorted(hv.domains):
        domain = hv.domains[domid]
        if domain.xenstore.outbox.messages and _send(domain):
            notify_from_backend(domain, BACKEND)


def _receive(domain: Domain) -> bool:
    """Take what has come of one request, and answer it if that is all; whether anything had. Xen: handle_input()."""
    state = domain.xenstore
    taken = False
    if len(state.request) < XsdSockmsg.SIZE:
        taken = _take(domain, XsdSockmsg.SIZE - len(state.request))
        if state.broken or len(state.request) < XsdSockmsg.SIZE:
            return taken
    header = XsdSockmsg.from_bytes(state.request)
    if header.len > XENSTORE_PAYLOAD_MAX:
        _break_off(domain, XENSTORE_ERROR_PROTO)
        return True
    end = XsdSockmsg.SIZE + header.len
    if len(state.request) < end:
        taken |= _take(domain, end - len(state.request))
        if state.broken or len(state.request) < end:
            return taken
    text = bytes(state.request[XsdSockmsg.SIZE :]).decode("latin-1")
    state.request.clear()
    _answer(Request(domain, header.type, header.req_id, header.tx_id, text))
    return True


def _take(domain: Domain, count: int) -> bool:
    """Move at most `count` bytes of the request ring to the request; whether there were any."""
    state = domain.xenstore
    try:
        data = take(domain, state.ring, _REQUESTS, count)
    except RingIndexError:
        _break_off(domain, XENSTORE_ERROR_RINGIDX)
        return False
    state.request += data
    return bool(data)


def _send(domain: Domain) -> bool:
    """Put waiting messages into the response ring; whether any byte fitted. Xen: handle_output()."""
    state = domain.xenstore
    if state.broken or not is_plain_memory(domain, state.ring):
        return False
    sent = False
    try:
        messages = state.outbox.messages
        while messages and put(domain, state.ring, _REPLIES, messages[0].left):
            sent = True
            if messages[0].left:
                break
            state.outbox.drop_sent()
    except RingIndexError:
        _break_off(domain, XENSTORE_ERROR_RINGIDX)
    return sent


def _break_off(domain: Domain, error: int) -> None:
    """End the connection: what the guest holds in it is given up. Xen: ignore_connection()."""
    state = domain.xenstore
    state.broken = True
    state.request.clear()
    state.outbox = Outbox()
    state.watches.clear()
    state.transactions.clear()
    if is_plain_memory(domain, state.ring):
        store_u32(domain, Maddr(mfn_to_maddr(state.ring) + _PAGE("error")), error)


# Messages


def _answer(request: Request) -> None:
    """Carry out one request: send the events, then its reply. Xen: process_message()."""
    kind = request.type
    try:
        result = answer(request)
    except XenstoreError as error:
        kind = XsMsgType.ERROR
        name = error.errno if error.errno in XSD_ERRORS else Errno.EINVAL
        result = Answer(name.name.encode() + b"\0")
    tell_watchers(request.domain.hv, result.changes)
    request.domain.xenstore.outbox.reply(kind, request.req_id, request.tx_id, result.payload)
    if result.first_event is not None:
        _event(request.domain, result.first_event, result.first_event.path)


def _event(domain: Domain, watch: Watch, path: str) -> None:
    """Queue an event of a watch, which may be told of relative paths. Xen: get_watch_path(), send_event()."""
    if watch.relative:
        path = path.removeprefix(domain_path(domain.domid)).removeprefix("/")
    domain.xenstore.outbox.event(path, watch.token)


def tell_watchers(hv: "Hypervisor", changes: list[Changed]) -> None:
    """Queue the events of all who watch what has changed and may know of it; for domain 0's drivers, too.

    They go out when the request is done that is being served. Xen: fire_watches().
    """
    hv.xenstore_tree.unseen += changes
    for change in changes:
        for domid in sorted(hv.domains):
            domain = hv.domains[domid]
            state = domain.xenstore
            if not state.watches or not change.may_be_known_to(domid):
                continue
            for watch in state.watches:
                if change.path == watch.path or (not change.exact and is_below(change.path, watch.path)):
                    _event(domain, watch, change.path)
