"""What a domain may ask of the store, one function for each request. Xen: xenstored_core.c, public/io/xs_wire.h.

A payload is strings, each with its NUL; a value comes without one. Paths are absolute, or relative to the domain's own
keys. What is wrong with a request is its errno's name, and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.xenstore import XENSTORE_PAYLOAD_MAX, XENSTORE_REL_PATH_MAX, XsMsgType

from .domain import Domain
from .xenstore_tree import (
    DOMID_PRIVILEGED,
    Changed,
    Transaction,
    View,
    XenstoreError,
    absolute,
    domain_path,
    parse_permission,
)

if TYPE_CHECKING:
    from .xenstore import XenstoreState

MAX_WATCHES: Final = 128
"""Watches and transactions that a domain may have: xenstored's defaults."""
MAX_TRANSACTIONS: Final = 10

_U32 = 0xFFFF_FFFF
_OK = b"OK\0"


@dataclass(frozen=True, slots=True)
class Watch:
    """A domain wants to hear of changes at or below `path`; `relative`: it is told of them by relative paths."""

    path: str
    token: str
    relative: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `text` is its payload, a byte a character; paths and tokens in it end with NULs."""

    domain: Domain
    type: int
    req_id: int
    tx_id: int
    text: str

    @property
    def state(self) -> "XenstoreState":
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


def do_unknown(_request: Request) -> Answer:
    """Not a request, or none that the store knows."""
    raise XenstoreError(Errno.ENOSYS)


def _do_privileged(_request: Request) -> Answer:
    """For domain 0 alone."""
    raise XenstoreError(Errno.EACCES)


HANDLERS: Final[dict[int, Callable[[Request], Answer]]] = {
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
