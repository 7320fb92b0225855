"""From what a user names (a kernel, modules, a command line, an amount of memory) to a domain that is ready to run."""

from dataclasses import dataclass, replace
from pathlib import Path

from xdbg.abi.shared_info import XEN_LEGACY_MAX_VCPUS
from xdbg.guestos.profile import Profile
from xdbg.guestos.select import select_profile
from xdbg.xen.dom_builder import build_domain
from xdbg.xen.domain import Domain
from xdbg.xen.elf_image import KernelImage, read_image
from xdbg.xen.elf_notes import ImageError
from xdbg.xen.setup import Hypervisor

from .bundled import find_guest
from .guest_memory import DomainMemory

MIB = 1 << 20
MIN_MEMORY = 4 * MIB
MAX_MEMORY = 16 << 30
MAX_VCPUS = XEN_LEGACY_MAX_VCPUS
"""Those whose vcpu_info has a place in shared_info; a kernel finds no more before it has registered others."""


class LaunchError(Exception):
    """What the user named can't be launched; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run as one domain. `kernel`: a bundled guest's name or a path; `memory` in bytes.

    `vcpus`: 0 is as many as a bundled guest wants, and one for any other kernel.
    """

    kernel: str
    modules: tuple[Path, ...] = ()
    append: str = ""
    memory: int = 128 * MIB
    vcpus: int = 0


@dataclass(frozen=True, slots=True)
class Launched:
    """A machine with one domain that is about to execute its first instruction."""

    hv: Hypervisor
    domain: Domain
    image: KernelImage
    name: str
    modules: tuple[bytes, ...]
    what: Launch

    def again(self, append: str | None = None) -> "Launched":
        """Another machine for the same, perhaps with another command line. Raises `LaunchError`."""
        return launch(self.what if append is None else replace(self.what, append=append))

    def profile(self) -> Profile:
        """What there is to know of the kernel's own data: processes, files."""
        memory = DomainMemory(self.hv, self.domain)
        return select_profile(self.name, self.image.elf, self.modules, memory)


def launch(what: Launch) -> Launched:
    """Build the machine. Raises `LaunchError`."""
    kernel, modules = _resolve(what)
    if not MIN_MEMORY <= what.memory <= MAX_MEMORY:
        raise LaunchError(f"a domain has between {MIN_MEMORY // MIB} MiB and {MAX_MEMORY // MIB} MiB of memory")
    try:
        image = read_image(kernel)
    except ImageError as error:
        raise LaunchError(str(error)) from error
    vcpus = what.vcpus or _wanted_vcpus(what)
    if not 1 <= vcpus <= MAX_VCPUS:
        raise LaunchError(f"a domain has between 1 and {MAX_VCPUS} vcpus")
    data = tuple(_read(module) for module in modules)
    nr_pages = what.memory >> 12
    hv = Hypervisor(nr_pages)
    domain = hv.create_domain(kernel.stem, nr_pages, vcpus)
    try:
        build_domain(domain, image, modules=data, command_line=what.append.encode())
    except ImageError as error:
        raise LaunchError(f"{kernel}: {error}") from error
    return Launched(hv, domain, image, kernel.name, data, what)


def files_of(what: Launch) -> tuple[bytes, tuple[bytes, ...]]:
    """The kernel's file and those of its modules as they are now. Raises `LaunchError`."""
    kernel, modules = _resolve(what)
    return _read(kernel), tuple(_read(module) for module in modules)


def _resolve(what: Launch) -> tuple[Path, tuple[Path, ...]]:
    """Paths of the kernel and its modules. A name without a slash is a bundled guest before it is a file."""
    guest = find_guest(what.kernel) if "/" not in what.kernel else None
    if guest is not None:
        if not guest.built:
            raise LaunchError(f"the bundled guest {guest.name} is not built: run scripts/build-guests")
        return guest.kernel, what.modules or guest.modules
    path = Path(what.kernel)
    if not path.exists():
        raise LaunchError(f"{what.kernel}: neither a bundled guest (see `xdbg guests`) nor a file")
    return path, what.modules


def _wanted_vcpus(what: Launch) -> int:
    guest = find_guest(what.kernel) if "/" not in what.kernel else None
    return 1 if guest is None else guest.vcpus


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror or error}") from error
