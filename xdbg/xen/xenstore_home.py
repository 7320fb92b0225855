"""What the tool stack writes into the store for a domain: its home, its console. Xen: libxl_create.c, libxl_dom.c.

A domain may read its home, /local/domain/DOMID, and what is in it unless said otherwise; what it is to write to belongs
to it. Everything else is domain 0's, and nobody else may look at it.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.frames import PAGE_SIZE, Mfn

from .xenstore_paths import domain_path
from .xenstore_tree import DOMID_PRIVILEGED, Permission, Permissions, View

if TYPE_CHECKING:
    from .domain import Domain
    from .setup import Hypervisor

CONSOLE_LIMIT: Final = 1 << 20
"""Characters that domain 0's console daemon would keep. Xen: LIBXL_XENCONSOLE_LIMIT."""

_ITS_OWN = (
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)
"""What a domain owns of its home from the start. Xen: libxl__domain_make(), `rwperm`."""
_READ_ONLY = ("cpu", "memory", "device", "control")


def as_tool_stack(hv: "Hypervisor") -> View:
    """The store as domain 0 works with it."""
    return View(hv.xenstore_tree, DOMID_PRIVILEGED)


def readable_by(domid: int) -> Permissions:
    """Domain 0's, and one domain may read."""
    return (Permission("n", DOMID_PRIVILEGED), Permission("r", domid))


def owned_by(domid: int) -> Permissions:
    """One domain's own."""
    return (Permission("n", domid),)


def make_node(view: View, path: str, permissions: Permissions, value: str = "") -> None:
    """A node with its permissions. Xen: libxl__xs_mknod()."""
    view.write(path, value.encode())
    view.set_permissions(path, permissions)


def make_dom0(hv: "Hypervisor") -> None:
    """What is there before the first domain is made. Xen: setup_structure(), init-dom0."""
    view = as_tool_stack(hv)
    for path, value in (
        ("/tool/xenstored", ""),
        (f"{domain_path(DOMID_PRIVILEGED)}/domid", "0"),
        (f"{domain_path(DOMID_PRIVILEGED)}/name", "Domain-0"),
    ):
        view.write(path, value.encode())


def homes(domid: int) -> tuple[str, ...]:
    """All folders that are kept for one domain; those of its devices' backends are domain 0's."""
    dom0 = domain_path(DOMID_PRIVILEGED)
    backends = (f"{dom0}/backend/{kind}/{domid}" for kind in ("console", "vbd"))
    errors = f"{dom0}/error/backend/vbd/{domid}"
    return domain_path(domid), _vm_path(domid), f"/libxl/{domid}", *backends, errors


def _vm_path(domid: int) -> str:
    return f"/vm/00000000-0000-0000-0000-{domid:012x}"


def make_home(domain: "Domain", nr_vcpus: int) -> None:
    """The home of a new domain, whose rings do not exist yet. Xen: libxl__domain_make(), libxl__build_post()."""
    view = as_tool_stack(domain.hv)
    domid = domain.domid
    home = domain_path(domid)
    vm = _vm_path(domid)
    for path in (home, vm, *(f"{home}/{name}" for name in _READ_ONLY)):
        make_node(view, path, readable_by(domid))
    make_node(view, f"/libxl/{domid}", (Permission("n", DOMID_PRIVILEGED),))
    for name in _ITS_OWN:
        make_node(view, f"{home}/{name}", owned_by(domid))
    kib = domain.max_pages * (PAGE_SIZE // 1024)
    for path, value in (
        (f"{home}/vm", vm),
        (f"{home}/name", domain.name),
        (f"{vm}/name", domain.name),
        (f"{vm}/uuid", vm.removeprefix("/vm/")),
        (f"{home}/control/platform-feature-multiprocessor-suspend", "1"),
        (f"{home}/control/platform-feature-xs_reset_watches", "1"),
        (f"/libxl/{domid}/type", "pv"),
        (f"{home}/memory/static-max", str(kib)),
        (f"{home}/memory/target", str(kib)),
        (f"{home}/memory/videoram", "0"),
        (f"{home}/domid", str(domid)),
        *((f"{home}/cpu/{number}/availability", "online") for number in range(nr_vcpus)),
        (f"{vm}/image/ostype", "linux"),
    ):
        view.write(path, value.encode())


def make_store_keys(domain: "Domain", ring: Mfn, port: int) -> None:
    """Where the domain's connection to the store is. Xen: libxl__build_post()."""
    view = as_tool_stack(domain.hv)
    home = domain_path(domain.domid)
    view.write(f"{home}/store/port", str(port).encode())
    view.write(f"{home}/store/ring-ref", str(ring).encode())


def make_console_keys(domain: "Domain", ring: Mfn, port: int) -> None:
    """The two ends of the first console. Xen: libxl__device_console_add(), libxl__device_generic_add()."""
    view = as_tool_stack(domain.hv)
    domid = domain.domid
    front = f"{domain_path(domid)}/console"
    back = f"{domain_path(DOMID_PRIVILEGED)}/backend/console/{domid}/0"
    make_node(view, front, readable_by(domid))
    make_node(view, f"{front}/backend-id", (*owned_by(domid), Permission("r", DOMID_PRIVILEGED)), "0")
    for name, value in (
        ("backend", back),
        ("limit", str(CONSOLE_LIMIT)),
        ("type", "xenconsoled"),
        ("output", "pty"),
        ("tty", ""),
        ("port", str(port)),
        ("ring-ref", str(ring)),
    ):
        view.write(f"{front}/{name}", value.encode())
    make_node(view, back, readable_by(domid))
    for name, value in (
        ("frontend", front),
        ("frontend-id", str(domid)),
        ("online", "1"),
        ("state", "1"),
        ("protocol", "vt100"),
    ):
        view.write(f"{back}/{name}", value.encode())
