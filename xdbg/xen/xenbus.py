"""The backends' side of the store: keys of either end of a device, states, errors. Linux: drivers/xen/xenbus.

The two ends of a device are two folders of the store, each of which names the other. Each end writes its own "state"
and watches the other's.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdbg.abi.errno import Errno
from xdbg.abi.xenbus import XenbusState

from .xenstore import tell_watchers
from .xenstore_home import as_tool_stack
from .xenstore_paths import domain_path
from .xenstore_tree import DOMID_PRIVILEGED

if TYPE_CHECKING:
    from .setup import Hypervisor

_UNSIGNED = re.compile(rb"[ \t-\r]*([0-9]{1,20})")
_SIGNED = re.compile(rb"[ \t-\r]*(-?[0-9]{1,20})")
_U32 = 0xFFFF_FFFF
_HOME = domain_path(DOMID_PRIVILEGED)


@dataclass(frozen=True, slots=True)
class DeviceEnds:
    """The folders of device `devid` of kind `kind` of a domain: the frontend's and, in domain 0, the backend's."""

    kind: str
    domid: int
    devid: int

    @property
    def front(self) -> str:
        """The frontend's folder."""
        return f"{domain_path(self.domid)}/device/{self.kind}/{self.devid}"

    @property
    def back(self) -> str:
        """The backend's folder."""
        return f"{_HOME}/backend/{self.kind}/{self.domid}/{self.devid}"


def read_key(hv: "Hypervisor", path: str) -> bytes | None:
    """A key's value; None if it is not there."""
    node = hv.xenstore_tree.nodes.get(path)
    return None if node is None else node.value


def read_unsigned(hv: "Hypervisor", path: str) -> int | None:
    """The 32-bit number that a key begins with; None if there is none. Linux: xenbus_scanf() with %u."""
    found = _UNSIGNED.match(read_key(hv, path) or b"")
    return None if found is None else int(found[1]) & _U32


def read_state(hv: "Hypervisor", folder: str) -> int:
    """The state of an end; 0 (unknown) if it has none. Linux: xenbus_read_driver_state()."""
    found = _SIGNED.match(read_key(hv, f"{folder}/state") or b"")
    return XenbusState.UNKNOWN if found is None else int(found[1])


def write_keys(hv: "Hypervisor", folder: str, keys: dict[str, str]) -> None:
    """Write keys of a backend. Watchers are sent their events when the present request is done."""
    view = as_tool_stack(hv)
    for name, value in keys.items():
        tell_watchers(hv, view.write(f"{folder}/{name}", value.encode()))


def report_error(hv: "Hypervisor", ends: DeviceEnds, errno: Errno, text: str) -> None:
    """Say in the store what is wrong with a device. Linux: xenbus_va_dev_error()."""
    write_keys(hv, f"{_HOME}/error/{ends.back.removeprefix(_HOME + '/')}", {"error": f"{-errno} {text}"})
