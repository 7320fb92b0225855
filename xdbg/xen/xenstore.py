"""Xenstore: the ring page by which a domain reads and writes the shared tree. Xen: public/io/xs_wire.h, tools/xenstore.

Domain 0's daemon is part of this Xen: it is the backend behind the store's port. When a domain notifies the port

1. bytes are taken from the request ring; a request may come in any number of pieces, round the ring's end;
2. each whole request is answered, and whoever watches what it changed gets events, the caller's after the reply;
3. replies go into the response ring as far as there is room, and wait otherwise. While much waits nothing is taken;
4. a domain whose ring moved is notified.

The connection ends for good when the guest breaks the protocol: indices further apart than the ring, or a payload
longer than the limit; `error` in the ring page says so. It rests while the page is not plain memory of the domain.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
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
from .event_channel import backend, notify
from .shared_ring import RingIndexError, RingLayout, is_plain_memory, put, store_u32, take
from .xenstore_requests import HANDLERS, Answer, Request, Watch, do_unknown
from .xenstore_tree import (
    DOMID_PRIVILEGED,
    Changed,
    Permission,
    Transaction,
    View,
    XenstoreError,
    XenstoreTree,
    absolute,
    domain_path,
    is_below,
)

BACKEND: Final = "xenstore"
"""The name for `EventChannels.bind_backend`."""
BACKLOG: Final = 16 * 1024
"""Bytes of replies that may wait before requests are left in the ring."""
MAX_BACKLOG: Final = 1 << 20
"""Bytes of replies that wait at most; a domain that never reads its events is cut off."""

_PAGE = XenstoreDomainInterface.offset_of
_REQUESTS = RingLayout(_PAGE("req"), XENSTORE_RING_SIZE, _PAGE("req_cons"), _PAGE("req_prod"))
_REPLIES = RingLayout(_PAGE("rsp"), XENSTORE_RING_SIZE, _PAGE("rsp_cons"), _PAGE("rsp_prod"))


@dataclass(slots=True)
class XenstoreState:
    """One domain's connection to the store."""

    tree: XenstoreTree
    """All domains of a machine share one."""
    ring: Mfn = INVALID_MFN
    """The guest's ring page; there is none before the builder says so."""
    port: int = 0
    """The guest's port."""
    broken: bool = False
    request: bytearray = field(default_factory=bytearray)
    """A request of which not all has come."""
    replies: bytearray = field(default_factory=bytearray)
    """Messages that wait for room in the ring."""
    watches: list[Watch] = field(default_factory=list)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    next_transaction: int = 1

    @classmethod
    def create(cls, domain: Domain) -> Self:
        """A connection without a ring; the domain's own keys are written as a tool stack does."""
        others = (other for other in domain.hv.domains.values() if other is not domain)
        other = next(others, None)
        state = cls(XenstoreTree() if other is None else other.xenstore.tree)
        _introduce(View(state.tree, DOMID_PRIVILEGED), domain)
        return state

    def connect(self, domain: Domain, ring: Mfn, port: int) -> None:
        """The domain has its ring page and port; for the builder."""
        self.ring = ring
        self.port = port
        store_u32(domain, Maddr(mfn_to_maddr(ring) + _PAGE("server_features")), XENSTORE_SERVER_FEATURE_ERROR)
        write(domain, "store/ring-ref", str(ring))
        write(domain, "store/port", str(port))


def _uuid(domid: int) -> str:
    return f"00000000-0000-0000-0000-{domid:012x}"


def _introduce(store: View, domain: Domain) -> None:
    """The keys that a domain finds when it starts. What the guest may write to belongs to it, the rest it may read."""
    domid = domain.domid
    home = domain_path(domid)
    uuid = _uuid(domid)
    read_only = (Permission("n", DOMID_PRIVILEGED), Permission("r", domid))
    its_own = (Permission("n", domid),)
    store.mkdir(f"/vm/{uuid}")
    store.set_permissions(f"/vm/{uuid}", read_only)
    store.mkdir(home)
    store.set_permissions(home, read_only)
    kib = domain.max_pages * (PAGE_SIZE // 1024)
    for path, value in (
        (f"/vm/{uuid}/uuid", uuid),
        (f"/vm/{uuid}/name", domain.name),
        (f"{home}/vm", f"/vm/{uuid}"),
        (f"{home}/name", domain.name),
        (f"{home}/domid", str(domid)),
        (f"{home}/cpu/0/availability", "online"),
        (f"{home}/memory/static-max", str(kib)),
        (f"{home}/memory/target", str(kib)),
        (f"{home}/control/platform-feature-multiprocessor-suspend", "1"),
        (f"{home}/control/platform-feature-xs_reset_watches", "1"),
        (f"{home}/console/type", "xenconsoled"),
        (f"{home}/console/limit", "1048576"),
    ):
        store.write(path, value.encode())
    for name in ("control/shutdown", "device", "data", "drivers", "feature", "attr", "error"):
        store.mkdir(f"{home}/{name}")
        store.set_permissions(f"{home}/{name}", its_own)


def write(domain: Domain, path: str, value: str) -> None:
    """Set a key as domain 0 would, and tell the watchers; `path` may be relative to the domain's own keys."""
    view = View(domain.xenstore.tree, DOMID_PRIVILEGED)
    _fire(domain, [view.write(absolute(path, domain.domid), value.encode())])
    serve_xenstore(domain)


def read(domain: Domain, path: str) -> bytes | None:
    """A key's value as domain 0 sees it, None if it is not there; `path` may be relative to the domain's own keys."""
    node = domain.xenstore.tree.nodes.get(absolute(path, domain.domid))
    return None if node is None else node.value


def release(domain: Domain) -> None:
    """The domain is no more: its connection ends and its own keys go, of which their watchers are told."""
    state = domain.xenstore
    state.broken = True
    state.ring = INVALID_MFN
    for waiting in (state.request, state.replies, state.watches, state.transactions):
        waiting.clear()
    store = View(state.tree, DOMID_PRIVILEGED)
    home = domain_path(domain.domid)
    _fire(domain, [*store.remove(home), *store.remove(f"/vm/{_uuid(domain.domid)}")])


# The ring


@backend(BACKEND)
def serve_xenstore(domain: Domain, device: int = 0) -> None:
    """Answer what the domain asked, as far as its ring has room."""
    state = domain.xenstore
    if state.broken or not is_plain_memory(domain, state.ring):
        return
    moved = False
    while not state.broken:
        moved |= _send(domain)
        if len(state.replies) > BACKLOG or not _receive(domain):
            break
        moved = True
        _answer_all(domain)
    if moved:
        notify(domain, state.port)


def _receive(domain: Domain) -> bool:
    """Take all bytes out of the request ring; whether there were any."""
    state = domain.xenstore
    try:
        data = take(domain, state.ring, _REQUESTS)
    except RingIndexError:
        _break_off(domain, XENSTORE_ERROR_RINGIDX)
        return False
    state.request += data
    return bool(data)


def _send(domain: Domain) -> bool:
    """Put waiting replies into the response ring; whether any fitted."""
    state = domain.xenstore
    if state.broken or not is_plain_memory(domain, state.ring):
        return False
    try:
        return put(domain, state.ring, _REPLIES, state.replies)
    except RingIndexError:
        _break_off(domain, XENSTORE_ERROR_RINGIDX)
        return False


def _break_off(domain: Domain, error: int) -> None:
    """End the connection: what the guest holds in it is given up."""
    state = domain.xenstore
    state.broken = True
    state.request.clear()
    state.replies.clear()
    state.watches.clear()
    state.transactions.clear()
    if is_plain_memory(domain, state.ring):
        store_u32(domain, Maddr(mfn_to_maddr(state.ring) + _PAGE("error")), error)


# Messages


def _answer_all(domain: Domain) -> None:
    """Answer each request that has come whole."""
    state = domain.xenstore
    while len(state.request) >= XsdSockmsg.SIZE and not state.broken:
        header = XsdSockmsg.from_bytes(state.request)
        if header.len > XENSTORE_PAYLOAD_MAX:
            _break_off(domain, XENSTORE_ERROR_PROTO)
            return
        end = XsdSockmsg.SIZE + header.len
        if len(state.request) < end:
            return
        text = bytes(state.request[XsdSockmsg.SIZE : end]).decode("latin-1")
        del state.request[:end]
        _answer(Request(domain, header.type, header.req_id, header.tx_id, text))


def _answer(request: Request) -> None:
    """Carry out one request and send its reply, then the events."""
    kind = request.type
    try:
        answer = HANDLERS.get(kind, do_unknown)(request)
    except XenstoreError as error:
        kind = XsMsgType.ERROR
        name = error.errno if error.errno in XSD_ERRORS else Errno.EINVAL
        answer = Answer(name.name.encode() + b"\0")
    _message(request.domain, kind, request.req_id, request.tx_id, answer.payload)
    if answer.first_event is not None:
        _event(request.domain, answer.first_event, answer.first_event.path)
    _fire(request.domain, answer.changes)


def _message(domain: Domain, kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
    header = XsdSockmsg()
    header.type = kind
    header.req_id = req_id
    header.tx_id = tx_id
    header.len = len(payload)
    domain.xenstore.replies += header.to_bytes() + payload


def _event(domain: Domain, watch: Watch, path: str) -> None:
    """Queue a watch event; one that would not fit into a message is lost, as in xenstored."""
    if watch.relative:
        path = path.removeprefix(domain_path(domain.domid) + "/")
    payload = f"{path}\0{watch.token}\0".encode("latin-1")
    if len(payload) <= XENSTORE_PAYLOAD_MAX:
        _message(domain, XsMsgType.WATCH_EVENT, 0, 0, payload)


def _fire(origin: Domain, changes: list[Changed]) -> None:
    """Queue the events of all who watch what has changed and may read it; the rings of others are served at once."""
    if not changes:
        return
    for domid in sorted(origin.hv.domains):
        domain = origin.hv.domains[domid]
        state = domain.xenstore
        before = len(state.replies)
        for change in changes:
            if not change.node.permission_of(domid).may_read:
                continue
            for watch in state.watches:
                if change.path == watch.path or (not change.exact and is_below(change.path, watch.path)):
                    _event(domain, watch, change.path)
        if len(state.replies) > MAX_BACKLOG:
            _break_off(domain, XENSTORE_ERROR_PROTO)
        elif len(state.replies) != before and domain is not origin and _send(domain):
            notify(domain, state.port)
