"""The tree of keys and values that domains share, with permissions and transactions. Xen: xenstored_core.c.

Each node has a value, the names of its children and a list of permissions. The first permission names the owner, who
may do anything, and says what everyone else may; those that follow are for one domain each. A new node has its parent's
permissions, its creator being the owner. Domain 0 may do anything.

A transaction sees each node as it was at the first look, plus its own changes. It commits only if all nodes that it saw
are unchanged by then, and fails with EAGAIN otherwise: the guest is to start over. A transaction that can't commit any
more may find a child without its parent.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.xenstore import XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX

MAX_NODES: Final = 1000
"""Nodes that a domain may own: xenstored's default, as are the other limits."""
MAX_NODE_SIZE: Final = 2048
"""Bytes of a node: header, value, names of children, and eight for each permission."""
MAX_NODES_IN_TRANSACTION: Final = 1024
"""Nodes that one transaction may look at."""
DOMID_PRIVILEGED: Final = 0

_HEADER_SIZE = 20
_PERMISSION_SIZE = 8
_VALID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@")


class XenstoreError(Exception):
    """The request is answered with XS_ERROR and this errno's name."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Permission:
    """What domain `domid` may do with a node: "n" nothing, "r" read, "w" write, "b" both."""

    letter: str
    domid: int

    @property
    def may_read(self) -> bool:
        """Whether it lets a domain read."""
        return self.letter in "rb"

    @property
    def may_write(self) -> bool:
        """Whether it lets a domain write."""
        return self.letter in "wb"

    def __str__(self) -> str:
        return f"{self.letter}{self.domid}"


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `generation` is when it last changed."""

    value: bytes
    permissions: tuple[Permission, ...]
    children: tuple[str, ...] = ()
    generation: int = 0

    @property
    def owner(self) -> int:
        """The domid of the owner."""
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes that count against MAX_NODE_SIZE."""
        names = sum(len(child) + 1 for child in self.children)
        return _HEADER_SIZE + _PERMISSION_SIZE * len(self.permissions) + len(self.value) + names

    def permission_of(self, domid: int) -> Permission:
        """What `domid` may do."""
        if domid in (DOMID_PRIVILEGED, self.owner):
            return Permission("b", domid)
        return next((p for p in self.permissions[1:] if p.domid == domid), self.permissions[0])


@dataclass(slots=True)
class Transaction:
    """What a transaction saw and what it changed."""

    seen: dict[str, Node | None] = field(default_factory=dict)
    """Path -> the node at the first look; None: there was none."""
    changed: dict[str, Node | None] = field(default_factory=dict)
    """Path -> the node as the transaction leaves it; None: removed."""
    events: dict[str, "Changed"] = field(default_factory=dict)
    """What watchers are told after the commit, in the order of the first change."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A node was written or removed. `exact`: it went with its parent, which only its own watches are told of."""

    path: str
    node: Node
    exact: bool = False


@dataclass(slots=True)
class XenstoreTree:
    """All nodes by absolute path."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node(b"", (Permission("n", DOMID_PRIVILEGED),))})
    generation: int = 0
    owned: dict[int, int] = field(default_factory=lambda: {DOMID_PRIVILEGED: 1})
    """How many nodes each domain owns."""


@dataclass(frozen=True, slots=True)
class View:
    """The tree as domain `domid` works with it, in a transaction or not. Errors are raised as `XenstoreError`."""

    tree: XenstoreTree
    domid: int
    transaction: Transaction | None = None

    def read(self, path: str) -> Node:
        """A node that the domain may read: ENOENT or EACCES otherwise."""
        return self._get(path, write=False)

    def write(self, path: str, value: bytes) -> Changed:
        """Set a node's value; the node and what is missing above it are made."""
        try:
            node = self._get(path, write=True)
        except XenstoreError as error:
            if error.errno is not Errno.ENOENT:
                raise
            return self._create(path, value)
        return self._store(path, replace(node, value=value))

    def mkdir(self, path: str) -> Changed | None:
        """Make an empty node; None if it was there already."""
        try:
            self._get(path, write=True)
        except XenstoreError as error:
            if error.errno is not Errno.ENOENT:
                raise
            return self._create(path, b"")
        return None

    def remove(self, path: str) -> list[Changed]:
        """Remove a node and all below it. One that is not there is no error, as long as its parent is."""
        try:
            node = self._get(path, write=True)
        except XenstoreError as error:
            if error.errno is Errno.ENOENT and self._lookup(parent_of(path)) is not None:
                return []
            raise
        if path == "/":
            raise XenstoreError(Errno.EINVAL)
        above = self._lookup(parent_of(path))
        if above is None:
            raise XenstoreError(Errno.EAGAIN)
        changes = self._with_all_below(path, node)
        name = path.rpartition("/")[2]
        self._put(parent_of(path), replace(above, children=tuple(c for c in above.children if c != name)))
        for change in changes:
            self._put(change.path, None)
        return self._tell(changes)

    def set_permissions(self, path: str, permissions: tuple[Permission, ...]) -> Changed:
        """Replace a node's permissions. Only its owner may, and only domain 0 may give it away."""
        node = self._get(path, write=True)
        if self.domid not in (DOMID_PRIVILEGED, node.owner):
            raise XenstoreError(Errno.EACCES)
        if self.domid != DOMID_PRIVILEGED and permissions[0].domid != node.owner:
            raise XenstoreError(Errno.EPERM)
        return self._store(path, replace(node, permissions=permissions))

    def commit(self) -> list[Changed]:
        """Make the transaction's changes real, or EAGAIN if the tree has changed under it."""
        transaction = self.transaction
        assert transaction is not None
        for path, node in transaction.seen.items():
            if self.tree.nodes.get(path) != node:
                raise XenstoreError(Errno.EAGAIN)
        if self.domid != DOMID_PRIVILEGED and self._nr_owned() > MAX_NODES:
            raise XenstoreError(Errno.ENOSPC)
        outside = View(self.tree, self.domid)
        for path, changed in transaction.changed.items():
            outside._put(path, changed)
        return list(transaction.events.values())

    def _lookup(self, path: str) -> Node | None:
        """The node whatever its permissions."""
        transaction = self.transaction
        if transaction is None:
            return self.tree.nodes.get(path)
        if path in transaction.changed:
            return transaction.changed[path]
        if path not in transaction.seen:
            if len(transaction.seen) >= MAX_NODES_IN_TRANSACTION and self.domid != DOMID_PRIVILEGED:
                raise XenstoreError(Errno.ENOSPC)
            transaction.seen[path] = self.tree.nodes.get(path)
        return transaction.seen[path]

    def _get(self, path: str, *, write: bool) -> Node:
        """A node with permission; that there is none is told only to those who may look at what is above."""
        node = self._lookup(path)
        above = path
        deciding = node
        while deciding is None:
            above = parent_of(above)
            deciding = self._lookup(above)
        permission = deciding.permission_of(self.domid)
        if not (permission.may_write if write else permission.may_read):
            raise XenstoreError(Errno.EACCES)
        if node is None:
            raise XenstoreError(Errno.ENOENT)
        return node

    def _create(self, path: str, value: bytes) -> Changed:
        """Make a node and its missing parents. Nothing is made if anything is refused."""
        missing = [path]
        above = parent_of(path)
        while (top := self._lookup(above)) is None:
            missing.append(above)
            above = parent_of(above)
        permissions = top.permissions
        if self.domid != DOMID_PRIVILEGED:
            permissions = (replace(permissions[0], domid=self.domid), *permissions[1:])
            if self._nr_owned() + len(missing) > MAX_NODES:
                raise XenstoreError(Errno.ENOSPC)
        made: list[tuple[str, Node]] = []
        child: tuple[str, ...] = ()
        for name in missing:
            made.append((name, Node(value if name == path else b"", permissions, child)))
            child = (name.rpartition("/")[2],)
        made.append((above, replace(top, children=top.children + child)))
        if any(node.size > MAX_NODE_SIZE for _, node in made) and self.domid != DOMID_PRIVILEGED:
            raise XenstoreError(Errno.ENOSPC)
        for name, node in reversed(made):
            self._put(name, node)
        return self._tell([Changed(path, made[0][1])])[0]

    def _store(self, path: str, node: Node) -> Changed:
        if node.size > MAX_NODE_SIZE and self.domid != DOMID_PRIVILEGED:
            raise XenstoreError(Errno.ENOSPC)
        self._put(path, node)
        return self._tell([Changed(path, node)])[0]

    def _with_all_below(self, path: str, node: Node) -> list[Changed]:
        """The removal of a node and of all below it, from the top down; nothing is removed yet."""
        changes = [Changed(path, node)]
        for change in changes:
            for name in change.node.children:
                below = child_path(change.path, name)
                child = self._lookup(below)
                if child is not None:
                    changes.append(Changed(below, child, exact=True))
        return changes

    def _put(self, path: str, node: Node | None) -> None:
        """Store or remove a node, here or in the transaction."""
        if self.transaction is not None:
            self.transaction.changed[path] = node
            return
        tree = self.tree
        old = tree.nodes.get(path)
        if old is not None:
            tree.owned[old.owner] -= 1
        if node is None:
            tree.nodes.pop(path, None)
            return
        tree.generation += 1
        tree.nodes[path] = replace(node, generation=tree.generation)
        tree.owned[node.owner] = tree.owned.get(node.owner, 0) + 1

    def _tell(self, changes: list[Changed]) -> list[Changed]:
        """Remember changes for the watchers until the commit."""
        if self.transaction is not None:
            for change in changes:
                self.transaction.events.setdefault(change.path, change)
        return changes

    def _nr_owned(self) -> int:
        """How many nodes the domain would own if the transaction were committed."""
        count = self.tree.owned.get(self.domid, 0)
        if self.transaction is not None:
            for path, node in self.transaction.changed.items():
                old = self.tree.nodes.get(path)
                count += (node is not None and node.owner == self.domid) - (old is not None and old.owner == self.domid)
        return count


def parent_of(path: str) -> str:
    """The path of the node above; that of "/" is "/"."""
    return path.rpartition("/")[0] or "/"


def child_path(path: str, name: str) -> str:
    """The path of a child."""
    return f"/{name}" if path == "/" else f"{path}/{name}"


def is_below(path: str, above: str) -> bool:
    """Whether a path is `above` or lies below it."""
    return above in ("/", path) or path.startswith(above + "/")


def domain_path(domid: int) -> str:
    """Where a domain's own keys are; relative paths of its requests start there."""
    return f"/local/domain/{domid}"


def absolute(text: str, domid: int) -> str:
    """The node that a domain names, by an absolute or a relative path; EINVAL if it can't be the name of a node."""
    path = text if text.startswith("/") else f"{domain_path(domid)}/{text}"
    limit = XENSTORE_ABS_PATH_MAX
    home, _, rest = path.removeprefix("/local/domain/").partition("/")
    if path.startswith("/local/domain/") and home.isdecimal():
        limit = min(limit, len(path) - len(rest) + XENSTORE_REL_PATH_MAX)
    bad_ends = text.startswith("@") or (path.endswith("/") and path != "/")
    if bad_ends or "//" in path or len(path) > limit or not _VALID.issuperset(path):
        raise XenstoreError(Errno.EINVAL)
    return path


def parse_permission(text: str) -> Permission:
    """A permission as the protocol writes it, "r5"; EINVAL if it is none."""
    letter, number = text[:1], text[1:]
    if letter not in ("n", "r", "w", "b") or not (number.isascii() and number.isdecimal()) or len(number) > 5:
        raise XenstoreError(Errno.EINVAL)
    return Permission(letter, int(number) & 0xFFFF)
