"""Paths of the store: what they may look like, and what is above what. Xen: xenstored_core.c.

A path is absolute, or relative to the keys of the domain that asks: /local/domain/DOMID.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.xenstore import XENSTORE_REL_PATH_MAX

_VALID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@")
_DOMAINS = "/local/domain/"
_DOMID_DIGITS = 5


class XenstoreError(Exception):
    """The request is answered with XS_ERROR and this errno's name."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


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
    return f"{_DOMAINS}{domid}"


def absolute(text: str, domid: int) -> str:
    """The node that a domain names, by an absolute or a relative path; EINVAL if it can't be the name of a node.

    Xen: canonicalize(), is_valid_nodename().
    """
    path = text if text.startswith(("/", "@")) else f"{domain_path(domid)}/{text}"
    limit = XENSTORE_REL_PATH_MAX
    number, slash, _ = path.removeprefix(_DOMAINS).partition("/")
    if path.startswith(_DOMAINS) and slash and number.isdecimal() and len(number) <= _DOMID_DIGITS:
        limit += len(_DOMAINS) + len(number) + 1
    ends_badly = path.endswith("/") and path != "/"
    if not path.startswith("/") or ends_badly or "//" in path or len(path) > limit or not _VALID.issuperset(path):
        raise XenstoreError(Errno.EINVAL)
    return path
