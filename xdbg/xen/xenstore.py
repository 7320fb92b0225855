"""Xenstore: the ring page by which a domain reads and writes the shared tree. Xen: public/io/xs_wire.h, tools/xenstore.

Domain 0's daemon is part of this Xen: it is the backend behind the store's port. When a domain notifies the port

1. bytes are taken from the request ring; a request may come in any number of pieces, round the ring's end;
2. each whole request is answered, and whoever watches what it changed gets events, the caller's after the reply;
3. replies go into the response ring as far as there is room, and wait otherwise. While much waits nothing is taken;
4. a domain whose ring moved is notified.

The connection ends for good when the guest breaks the protocol: indices further apart than the ring, or a payload
longer than the limit; `error` in the ring page says so. It rests while the page is not plain memory of the domain.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from xdbg.abi.errno import Errno
from xdbg.abi.frames import INVALID_MFN, PAGE_SIZE, Maddr, Mfn, mfn_to_maddr
from xdbg.abi.xenstore import (
    XENSTORE_ERROR_PROTO,
    XENSTORE_ERROR_RINGIDX,
    XENSTORE_PAYLOAD_MAX,
    XENSTORE_REL_PATH_MAX,
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
    parse_permission,
)

BACKEND: Final = "xenstore"
"""The name for `EventChannels.bind_backend`."""
MAX_WATCHES: Final = 128
"""Watches and transactions that a domain may have: xenstored's defaults."""
MAX_TRANSACTIONS: Final = 10
BACKLOG: Final = 16 * 1024
"""Bytes of replies that may wait before requests are left in the ring."""
MAX_BACKLOG: Final = 1 << 20
"""Bytes of replies that wait at most; a domain that never reads its events is cut off."""

_PAGE = XenstoreDomainInterface.offset_of
_REQUESTS = RingLayout(_PAGE("req"), XENSTORE_RING_SIZE, _PAGE("req_cons"), _PAGE("req_prod"))
_REPLIES = RingLayout(_PAGE("rsp"), XENSTORE_RING_SIZE, _PAGE("rsp_cons"), _PAGE("rsp_prod"))
_U32 = 0xFFFF_FFFF
_OK = b"OK\0"


@dataclass(frozen=True, slots=True)
class Watch:
    """A domain wants to hear of changes at or below `path`; `relative`: it is told of them by relative paths."""

    path: str
    token: str
    relative: bool


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


def _introduce(store: View, domain: Domain) -> None:
    """The keys that a domain finds when it starts. What the guest may write to belongs to it, the rest it may read."""
    domid = domain.domid
    home = domain_path(domid)
    uuid = f"00000000-0000-0000-0000-{domid:012x}"
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


def read(domain: Domain, path: str) -> bytes | None:
    """A key's value as domain 0 sees it, None if it is not there; `path` may be relative to the domain's own keys."""
    node = domain.xenstore.tree.nodes.get(absolute(path, domain.domid))
    return None if node is None else node.value


# The ring


@backend(BACKEND)
def serve_xenstore(domain: Domain) -> None:
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


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `text` is its payload, a byte a character; paths and tokens in it end with NULs."""

    domain: Domain
    type: int
    req_id: int
    tx_id: int
    text: str

    @property
    def state(self) -> XenstoreState:
        """The connection that it came by."""
        return self.domain.xenstore

    def strings(self, count: int) -> list[str]:
        """The payload as exactly `count` strings, each with its NUL; EINVAL if it is anything else."""
        parts = self.text.split("\0")
        if len(parts) != count + 1 or parts.pop():
            raise XenstoreError(Errno.EINVAL)
        return parts

    def view(self) -> View:
        """The tree as the domain sees it, in the transaction that it names; ENOENT if it has no such transaction."""
        transaction = None
        if self.tx_id:
            transaction = self.state.transactions.get(self.tx_id)
            if transaction is None:
                raise XenstoreError(Errno.ENOENT)
        return View(self.state.tree, self.domain.domid, transaction)

    def path(self, text: str) -> str:
        """The node that the domain means."""
        return absolute(text, self.domain.domid)


@dataclass(slots=True)
class Answer:
    """The payload of a reply, and what the watchers have to know after it."""

    payload: bytes = _OK
    changes: list[Changed] = field(default_factory=list)
    first_event: Watch | None = None
    """A new watch: it fires once for a start."""


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
        answer = _HANDLERS.get(kind, _do_unknown)(request)
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


# XS_*


def _do_read(request: Request) -> Answer:
    return Answer(request.view().read(request.path(*request.strings(1))).value)


def _do_directory(request: Request) -> Answer:
    node = request.view().read(request.path(*request.strings(1)))
    names = "".join(f"{child}\0" for child in node.children)
    if len(names) > XENSTORE_PAYLOAD_MAX:
        raise XenstoreError(Errno.E2BIG)
    return Answer(names.encode())


def _do_directory_part(request: Request) -> Answer:
    """A long list of children by parts: the node's generation, then names from an offset on; a NUL ends the last."""
    name, offset = request.strings(2)
    node = request.view().read(request.path(name))
    if not (offset.isascii() and offset.isdecimal()) or len(offset) > 10:
        raise XenstoreError(Errno.EINVAL)
    names = "".join(f"{child}\0" for child in node.children)
    generation = f"{node.generation}\0"
    part = ""
    rest = names[int(offset) :]
    while rest and len(generation) + len(part) + rest.index("\0") + 2 <= XENSTORE_PAYLOAD_MAX:
        name, _, rest = rest.partition("\0")
        part += name + "\0"
    return Answer((generation + part + ("" if rest else "\0")).encode())


def _do_get_perms(request: Request) -> Answer:
    node = request.view().read(request.path(*request.strings(1)))
    return Answer("".join(f"{permission}\0" for permission in node.permissions).encode())


def _do_write(request: Request) -> Answer:
    name, nul, value = request.text.partition("\0")
    if not nul:
        raise XenstoreError(Errno.EINVAL)
    change = request.view().write(request.path(name), value.encode("latin-1"))
    return Answer(changes=_unless_in_transaction(request, [change]))


def _do_mkdir(request: Request) -> Answer:
    made = request.view().mkdir(request.path(*request.strings(1)))
    return Answer(changes=_unless_in_transaction(request, [] if made is None else [made]))


def _do_rm(request: Request) -> Answer:
    return Answer(changes=_unless_in_transaction(request, request.view().remove(request.path(*request.strings(1)))))


def _do_set_perms(request: Request) -> Answer:
    name, *texts = request.text.split("\0")
    if len(texts) < 2 or texts.pop():
        raise XenstoreError(Errno.EINVAL)
    permissions = tuple(parse_permission(text) for text in texts)
    change = request.view().set_permissions(request.path(name), permissions)
    return Answer(changes=_unless_in_transaction(request, [change]))


def _unless_in_transaction(request: Request, changes: list[Changed]) -> list[Changed]:
    """What watchers are told now: nothing of a transaction before its commit."""
    return [] if request.tx_id else changes


def _watch_of(request: Request) -> Watch:
    name, token = request.strings(2)
    if name.startswith("@"):
        if len(name) > XENSTORE_REL_PATH_MAX:
            raise XenstoreError(Errno.EINVAL)
        return Watch(name, token, relative=False)
    return Watch(request.path(name), token, relative=not name.startswith("/"))


def _do_watch(request: Request) -> Answer:
    watch = _watch_of(request)
    watches = request.state.watches
    if any((old.path, old.token) == (watch.path, watch.token) for old in watches):
        raise XenstoreError(Errno.EEXIST)
    if len(watches) >= MAX_WATCHES:
        raise XenstoreError(Errno.E2BIG)
    watches.append(watch)
    return Answer(first_event=watch)


def _do_unwatch(request: Request) -> Answer:
    watch = _watch_of(request)
    watches = request.state.watches
    for index, old in enumerate(watches):
        if (old.path, old.token) == (watch.path, watch.token):
            del watches[index]
            return Answer()
    raise XenstoreError(Errno.ENOENT)


def _do_reset_watches(request: Request) -> Answer:
    """A kernel that was started by another one drops what that one left behind."""
    request.state.watches.clear()
    request.state.transactions.clear()
    return Answer()


def _do_transaction_start(request: Request) -> Answer:
    state = request.state
    if request.tx_id:
        raise XenstoreError(Errno.EBUSY)
    if len(state.transactions) >= MAX_TRANSACTIONS:
        raise XenstoreError(Errno.ENOSPC)
    number = state.next_transaction
    state.transactions[number] = Transaction()
    state.next_transaction = number % _U32 + 1
    return Answer(f"{number}\0".encode())


def _do_transaction_end(request: Request) -> Answer:
    (verdict,) = request.strings(1)
    if verdict not in ("T", "F"):
        raise XenstoreError(Errno.EINVAL)
    view = request.view()
    if view.transaction is None:
        raise XenstoreError(Errno.ENOENT)
    del request.state.transactions[request.tx_id]
    return Answer(changes=view.commit() if verdict == "T" else [])


def _domid_of(request: Request) -> int:
    (text,) = request.strings(1)
    if not (text.isascii() and text.isdecimal()) or len(text) > 5:
        raise XenstoreError(Errno.EINVAL)
    return int(text)


def _do_get_domain_path(request: Request) -> Answer:
    return Answer(f"{domain_path(_domid_of(request))}\0".encode())


def _do_is_domain_introduced(request: Request) -> Answer:
    domid = _domid_of(request)
    return Answer(b"T\0" if domid == DOMID_PRIVILEGED or domid in request.domain.hv.domains else b"F\0")


def _do_unknown(_request: Request) -> Answer:
    """Not a request, or none that the store knows."""
    raise XenstoreError(Errno.ENOSYS)


def _do_privileged(_request: Request) -> Answer:
    """For domain 0 alone."""
    raise XenstoreError(Errno.EACCES)


_HANDLERS: dict[int, Callable[[Request], Answer]] = {
    XsMsgType.CONTROL: _do_privileged,
    XsMsgType.DIRECTORY: _do_directory,
    XsMsgType.READ: _do_read,
    XsMsgType.GET_PERMS: _do_get_perms,
    XsMsgType.WATCH: _do_watch,
    XsMsgType.UNWATCH: _do_unwatch,
    XsMsgType.TRANSACTION_START: _do_transaction_start,
    XsMsgType.TRANSACTION_END: _do_transaction_end,
    XsMsgType.INTRODUCE: _do_privileged,
    XsMsgType.RELEASE: _do_privileged,
    XsMsgType.GET_DOMAIN_PATH: _do_get_domain_path,
    XsMsgType.WRITE: _do_write,
    XsMsgType.MKDIR: _do_mkdir,
    XsMsgType.RM: _do_rm,
    XsMsgType.SET_PERMS: _do_set_perms,
    XsMsgType.IS_DOMAIN_INTRODUCED: _do_is_domain_introduced,
    XsMsgType.RESUME: _do_privileged,
    XsMsgType.SET_TARGET: _do_privileged,
    XsMsgType.RESET_WATCHES: _do_reset_watches,
    XsMsgType.DIRECTORY_PART: _do_directory_part,
}
