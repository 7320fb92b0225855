"""The tree of keys and values that domains share, with permissions and transactions. Xen: xenstored_core.c.

Each node has a value, the names of its children and a list of permissions. The first permission names the owner, who
may do anything, and says what everyone else may; those that follow are for one domain each. A new node has its parent's
permissions, its creator being the owner. Domain 0 may do anything.

A transaction sees each node as it was at the first look, plus its own changes. It commits only if all nodes that it saw
are unchanged by then, and fails with EAGAIN otherwise: the guest is to start over. A transaction that can't commit any
more may find a child without its parent. Watchers are told of its changes when it commits, node by node in the order in
which it came by them.

Who is told of a change is decided by permissions, too: whoever may read the node, or its parent, or could read the node
before its permissions were changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from xdbg.abi.errno import Errno

from .xenstore_paths import XenstoreError, child_path, parent_of

MAX_NODES: Final = 1000
"""Nodes that a domain may own: xenstored's default, as are the other limits."""
MAX_NODE_SIZE: Final = 2048
"""Bytes of a node, of which there must be fewer: header, value, names of children, and eight for each permission."""
MAX_NODES_IN_TRANSACTION: Final = 1024
"""Nodes that one transaction may look at."""
DOMID_PRIVILEGED: Final = 0

_HEADER_SIZE = 24
_PERMISSION_SIZE = 8


@dataclass(frozen=True, slots=True)
class Permission:
    """What domain `domid` may do with a node: "n" nothing, "r" read, "w" write, "b" both.

    `ignored`: there was no such domain when it was given, so it is of no use to one that gets the number later.
    """

    letter: str
    domid: int
    ignored: bool = False

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


Permissions = tuple[Permission, ...]


def permission_of(permissions: Permissions, domid: int) -> Permission:
    """What a list of permissions lets a domain do. Xen: perm_for_conn()."""
    if domid in (DOMID_PRIVILEGED, permissions[0].domid):
        return Permission("b", domid)
    return next((p for p in permissions[1:] if p.domid == domid and not p.ignored), permissions[0])


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `generation` is when it last changed."""

    value: bytes
    permissions: Permissions
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


@dataclass(slots=True)
class Transaction:
    """What a transaction saw and what it changed."""

    seen: dict[str, Node | None] = field(default_factory=dict)
    """Path -> the node at the first look; None: there was none."""
    changed: dict[str, Node | None] = field(default_factory=dict)
    """Path -> the node as the transaction leaves it; None: removed."""
    told: dict[str, bool] = field(default_factory=dict)
    """Of which paths watchers are told after the commit; True: only those of that very path."""
    made_nodes: bool = False
    """Whether it has made any node: then the number of nodes is checked once more at its end."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A node was written or removed. `exact`: it went with its parent, which only its own watches are told of.

    `readers`: the lists of permissions of which any lets a domain know of it.
    """

    path: str
    readers: tuple[Permissions, ...]
    exact: bool = False

    def may_be_known_to(self, domid: int) -> bool:
        """Whether a domain's watches are told. Xen: watch_permitted()."""
        return any(permission_of(permissions, domid).may_read for permissions in self.readers)


@dataclass(slots=True)
class XenstoreTree:
    """All nodes by absolute path: one tree for all domains of a machine."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node(b"", (Permission("n", DOMID_PRIVILEGED),))})
    generation: int = 0
    owned: dict[int, int] = field(default_factory=lambda: {DOMID_PRIVILEGED: 1})
    """How many nodes each domain owns."""
    unseen: list[Changed] = field(default_factory=list)
    """Changes that domain 0's drivers have not looked at yet."""


@dataclass(frozen=True, slots=True)
class View:
    """The tree as domain `domid` works with it, in a transaction or not. Errors are raised as `XenstoreError`.

    What changes is returned for the watchers: nothing in a transaction before its commit.
    """

    tree: XenstoreTree
    domid: int
    transaction: Transaction | None = None

    def read(self, path: str) -> Node:
        """A node that the domain may read: ENOENT or EACCES otherwise."""
        return self._get(path, write=False)

    def write(self, path: str, value: bytes) -> list[Changed]:
        """Set a node's value; the node and what is missing above it are made. Xen: do_write()."""
        try:
            node = self._get(path, write=True)
        except XenstoreError as error:
            if error.errno is not Errno.ENOENT:
                raise
            return self._create(path, value)
        return self._store(path, replace(node, value=value))

    def mkdir(self, path: str) -> list[Changed]:
        """Make an empty node, unless it is there. Xen: do_mkdir()."""
        try:
            self._get(path, write=True)
        except XenstoreError as error:
            if error.errno is not Errno.ENOENT:
                raise
            return self._create(path, b"")
        return []

    def remove(self, path: str) -> list[Changed]:
        """Remove a node and all below it, from below. One that is not there is no error, as long as its parent is.

        Xen: do_rm(), rm_node().
        """
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
            raise XenstoreError(Errno.EINVAL)
        gone = list(self._with_all_below(path, node))
        changes = [self._changed(at, (), exact=at != path) for at, _ in gone]
        for at, _ in gone:
            self._put(at, None)
        name = path.rpartition("/")[2]
        self._put(parent_of(path), replace(above, children=tuple(c for c in above.children if c != name)))
        return [] if self.transaction is not None else changes

    def set_permissions(self, path: str, permissions: Permissions) -> list[Changed]:
        """Replace a node's permissions. Only its owner may, and only domain 0 may give it away. Xen: do_set_perms()."""
        node = self._get(path, write=True)
        if self.domid not in (DOMID_PRIVILEGED, node.owner):
            raise XenstoreError(Errno.EACCES)
        if self.domid != DOMID_PRIVILEGED and permissions[0].domid != node.owner:
            raise XenstoreError(Errno.EPERM)
        return self._store(path, replace(node, permissions=permissions), before=(node.permissions,))

    def commit(self) -> list[Changed]:
        """Make the transaction's changes real; EAGAIN if the tree has changed under it. Xen: do_transaction_end()."""
        transaction = self.transaction
        assert transaction is not None
        if self.domid != DOMID_PRIVILEGED and transaction.made_nodes and self._nr_owned() >= MAX_NODES:
            raise XenstoreError(Errno.ENOSPC)
        for path, node in transaction.seen.items():
            if self.tree.nodes.get(path) != node:
                raise XenstoreError(Errno.EAGAIN)
        outside = View(self.tree, self.domid)
        for path, changed in transaction.changed.items():
            outside._put(path, changed)
        changes = []
        for path, before in transaction.seen.items():
            if path in transaction.told:
                readers = () if before is None else (before.permissions,)
                changes.append(outside._changed(path, readers, exact=transaction.told[path]))
        return changes

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
        permission = permission_of(deciding.permissions, self.domid)
        if not (permission.may_write if write else permission.may_read):
            raise XenstoreError(Errno.EACCES)
        if node is None:
            raise XenstoreError(Errno.ENOENT)
        return node

    def _create(self, path: str, value: bytes) -> list[Changed]:
        """Make a node and its missing parents. Nothing is made if anything is refused. Xen: create_node()."""
        missing = [path]
        above = parent_of(path)
        while (top := self._lookup(above)) is None:
            missing.append(above)
            above = parent_of(above)
        permissions = top.permissions
        if self.domid != DOMID_PRIVILEGED:
            permissions = (Permission(permissions[0].letter, self.domid), *permissions[1:])
            if self._nr_owned() + len(missing) > MAX_NODES:
                raise XenstoreError(Errno.ENOSPC)
        made: list[tuple[str, Node]] = []
        child: tuple[str, ...] = ()
        for name in missing:
            made.append((name, Node(value if name == path else b"", permissions, child)))
            child = (name.rpartition("/")[2],)
        made.append((above, replace(top, children=top.children + child)))
        for _, node in made:
            self._check_size(node)
        for name, node in reversed(made):
            self._put(name, node)
        if self.transaction is not None:
            self.transaction.made_nodes = True
        return self._tell(path)

    def _store(self, path: str, node: Node, before: tuple[Permissions, ...] = ()) -> list[Changed]:
        self._check_size(node)
        self._put(path, node)
        return self._tell(path, before)

    def _check_size(self, node: Node) -> None:
        if node.size >= MAX_NODE_SIZE and self.domid != DOMID_PRIVILEGED:
            raise XenstoreError(Errno.ENOSPC)

    def _with_all_below(self, path: str, node: Node) -> Iterator[tuple[str, Node]]:
        """A node and all below it, children first; nothing is removed yet."""
        waiting = [(path, node, iter(node.children))]
        while waiting:
            at, its, children = waiting[-1]
            name = next(children, None)
            if name is None:
                waiting.pop()
                yield at, its
                continue
            below = child_path(at, name)
            child = self._lookup(below)
            if child is not None:
                waiting.append((below, child, iter(child.children)))

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

    def _tell(self, path: str, before: tuple[Permissions, ...] = ()) -> list[Changed]:
        """The change of a node that is there."""
        change = self._changed(path, before, exact=False)
        return [] if self.transaction is not None else [change]

    def _changed(self, path: str, readers: tuple[Permissions, ...], *, exact: bool) -> Changed:
        """A change with those who may know of it; a transaction keeps it for its commit."""
        if self.transaction is not None:
            self.transaction.told[path] = exact
        node = self.tree.nodes.get(path)
        above = self.tree.nodes.get(parent_of(path))
        if node is not None:
            readers += (node.permissions,)
            if above is not None:
                readers += (above.permissions,)
        return Changed(path, readers, exact)

    def _nr_owned(self) -> int:
        """How many nodes the domain would own if the transaction were committed."""
        count = self.tree.owned.get(self.domid, 0)
        if self.transaction is not None:
            for path, node in self.transaction.changed.items():
                old = self.tree.nodes.get(path)
                count += (node is not None and node.owner == self.domid) - (old is not None and old.owner == self.domid)
        return count
