"""What a domain may ask of the store, one function for each request. Xen: xenstored_core.c, public/io/xs_wire.h.

A payload is strings, each with its NUL; a value comes without one. Paths are absolute, or relative to the domain's own
keys. What is wrong with a request is its errno's name, and changes nothing. In this order: the type is known, the
domain may use it, the transaction exists (types in `WITHOUT_TRANSACTION` don't look), the payload is right.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.xenstore import XENSTORE_PAYLOAD_MAX, XENSTORE_REL_PATH_MAX, XsMsgType

from .domain import Domain
from .xenstore_paths import XenstoreError, absolute, domain_path
from .xenstore_tree import DOMID_PRIVILEGED, Changed, Permission, Transaction, View

if TYPE_CHECKING:
    from .xenstore import XenstoreState

MAX_WATCHES: Final = 128
"""A domain that has more watches than this gets no other; so with transactions. These are xenstored's defaults."""
MAX_TRANSACTIONS: Final = 10
MAX_PERMISSIONS: Final = 5
"""Permissions that a domain may give a node."""

_U32 = 0xFFFF_FFFF
_LONG_MAX = (1 << 63) - 1
_OK = b"OK\0"
_SPECIAL = ("@introduceDomain", "@releaseDomain")
_ATOI = re.compile(r"[ \t-\r]*([+-]?[0-9]+)")
_STRTOL = re.compile(r"[ \t-\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")


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

    def only_string(self) -> str:
        """The payload as one string with its NUL and nothing behind it; EINVAL for anything else. Xen: onearg()."""
        text, nul, rest = self.text.partition("\0")
        if not nul or rest:
            raise XenstoreError(Errno.EINVAL)
        return text

    def strings(self) -> list[str]:
        """The strings of the payload; what comes after the last NUL is ignored. Xen: get_strings()."""
        return self.text.split("\0")[:-1]

    def view(self) -> View:
        """The tree as the domain sees it, in the transaction that it names; ENOENT if it has no such transaction."""
        transaction = None
        if self.tx_id:
            transaction = self.state.transactions.get(self.tx_id)
            if transaction is None:
                raise XenstoreError(Errno.ENOENT)
        return View(self.domain.hv.xenstore_tree, self.domain.domid, transaction)

    def path(self, text: str) -> str:
        """The node that the domain means."""
        return absolute(text, self.domain.domid)


@dataclass(slots=True)
class Answer:
    """The payload of a reply, and what the watchers are told before it."""

    payload: bytes = _OK
    changes: list[Changed] = field(default_factory=list)
    first_event: Watch | None = None
    """A new watch: it fires once for a start, after the reply."""


def answer(request: Request) -> Answer:
    """Carry a request out; raises `XenstoreError`. Xen: process_message()."""
    handler = HANDLERS.get(request.type)
    if handler is None:
        raise XenstoreError(Errno.ENOSYS)
    if handler is not _do_privileged and request.type not in WITHOUT_TRANSACTION:
        request.view()
    return handler(request)


def _do_read(request: Request) -> Answer:
    return Answer(request.view().read(request.path(request.only_string())).value)


def _do_directory(request: Request) -> Answer:
    node = request.view().read(request.path(request.only_string()))
    names = "".join(f"{child}\0" for child in node.children)
    if len(names) > XENSTORE_PAYLOAD_MAX:
        raise XenstoreError(Errno.E2BIG)
    return Answer(names.encode())


def _do_directory_part(request: Request) -> Answer:
    """A long list of children by parts: the node's generation, then names from an offset on; a NUL ends the last."""
    strings = request.strings()
    if len(strings) != 2:
        raise XenstoreError(Errno.EINVAL)
    node = request.view().read(request.path(strings[0]))
    names = "".join(f"{child}\0" for child in node.children)
    generation = f"{node.generation}\0"
    part = ""
    rest = names[_atoi(strings[1]) & _U32 :]
    while rest and len(generation) + len(part) + rest.index("\0") + 2 <= XENSTORE_PAYLOAD_MAX:
        name, _, rest = rest.partition("\0")
        part += name + "\0"
    return Answer((generation + part + ("" if rest else "\0")).encode())


def _do_get_perms(request: Request) -> Answer:
    node = request.view().read(request.path(request.only_string()))
    return Answer("".join(f"{permission}\0" for permission in node.permissions).encode())


def _do_write(request: Request) -> Answer:
    name, nul, value = request.text.partition("\0")
    if not nul:
        raise XenstoreError(Errno.EINVAL)
    return Answer(changes=request.view().write(request.path(name), value.encode("latin-1")))


def _do_mkdir(request: Request) -> Answer:
    return Answer(changes=request.view().mkdir(request.path(request.only_string())))


def _do_rm(request: Request) -> Answer:
    return Answer(changes=request.view().remove(request.path(request.only_string())))


def _do_set_perms(request: Request) -> Answer:
    """What is wrong with the permissions comes before what is wrong with the path. Xen: do_set_perms()."""
    name, *texts = request.strings() or [""]
    if not texts:
        raise XenstoreError(Errno.EINVAL)
    if len(texts) > MAX_PERMISSIONS:
        raise XenstoreError(Errno.ENOSPC)
    permissions = tuple(_permission(request.domain, text) for text in texts)
    if permissions[0].ignored:
        raise XenstoreError(Errno.ENOENT)
    if name.startswith("@"):
        raise XenstoreError(Errno.EACCES if name in _SPECIAL and not request.tx_id else Errno.EINVAL)
    return Answer(changes=request.view().set_permissions(request.path(name), permissions))


def _permission(domain: Domain, text: str) -> Permission:
    """A permission as the protocol writes it, "r5"; EINVAL if it is none. Xen: xs_strings_to_perms()."""
    found = _STRTOL.fullmatch(text[1:])
    if text[:1] not in ("n", "r", "w", "b") or found is None:
        raise XenstoreError(Errno.EINVAL)
    digits = found[2]
    octal = digits[:1] == "0" and digits[1:2] not in ("x", "X")
    number = min(int(digits, 8 if octal else 0), _LONG_MAX) * (-1 if found[1] == "-" else 1)
    domid = number & _U32
    signed = domid - (1 << 32) if domid >> 31 else domid
    return Permission(text[0], signed, ignored=domid != DOMID_PRIVILEGED and domid not in domain.hv.domains)


def _watch_of(request: Request) -> Watch:
    strings = request.strings()
    if len(strings) != 2:
        raise XenstoreError(Errno.EINVAL)
    name, token = strings
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
    if len(watches) > MAX_WATCHES:
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
    if len(state.transactions) > MAX_TRANSACTIONS:
        raise XenstoreError(Errno.ENOSPC)
    number = state.next_transaction
    while number == 0 or number in state.transactions:
        number = number + 1 & _U32
    state.transactions[number] = Transaction()
    state.next_transaction = number + 1 & _U32
    return Answer(f"{number}\0".encode())


def _do_transaction_end(request: Request) -> Answer:
    verdict = request.only_string()
    if verdict not in ("T", "F"):
        raise XenstoreError(Errno.EINVAL)
    view = request.view()
    if view.transaction is None:
        raise XenstoreError(Errno.ENOENT)
    del request.state.transactions[request.tx_id]
    return Answer(changes=view.commit() if verdict == "T" else [])


def _atoi(text: str) -> int:
    """A number as C's atoi() reads it: what does not begin with one is 0."""
    found = _ATOI.match(text)
    if found is None:
        return 0
    value = max(-_LONG_MAX - 1, min(int(found[1]), _LONG_MAX)) & _U32
    return value - (1 << 32) if value >> 31 else value


def _do_get_domain_path(request: Request) -> Answer:
    return Answer(f"{domain_path(_atoi(request.only_string()) & _U32)}\0".encode())


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
    XsMsgType.IS_DOMAIN_INTRODUCED: _do_privileged,
    XsMsgType.RESUME: _do_privileged,
    XsMsgType.SET_TARGET: _do_privileged,
    XsMsgType.RESET_WATCHES: _do_reset_watches,
    XsMsgType.DIRECTORY_PART: _do_directory_part,
}
"""Any other type is ENOSYS."""

WITHOUT_TRANSACTION: Final = frozenset({XsMsgType.WATCH, XsMsgType.UNWATCH})
"""Their transaction number is not looked at. Xen: XS_FLAG_NOTID."""
