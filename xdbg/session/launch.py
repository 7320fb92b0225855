"""From what a user names (kernels, modules, command lines, amounts of memory) to a machine that is ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from xdbg.abi.shared_info import XEN_LEGACY_MAX_VCPUS
from xdbg.guestos.profile import Profile
from xdbg.guestos.select import select_profile
from xdbg.xen.dom_builder import build_domain
from xdbg.xen.domain import Domain
from xdbg.xen.domain_kill import destroy_domain
from xdbg.xen.elf_image import KernelImage, read_image
from xdbg.xen.elf_notes import ImageError
from xdbg.xen.setup import Hypervisor

from .bundled import find_guest
from .disk_images import DiskImages, attach_disks, check_image
from .disks import Disk, DiskError, with_devices
from .guest_memory import DomainMemory

MIB = 1 << 20
MIN_MEMORY = 4 * MIB
MAX_MEMORY = 16 << 30
"""Of all domains together."""
MAX_VCPUS = XEN_LEGACY_MAX_VCPUS
"""Those whose vcpu_info has a place in shared_info; a kernel finds no more before it has registered others."""
MAX_DOMAINS: Final = 16


class LaunchError(Exception):
    """What the user named can't be launched; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run as one domain. `kernel`: a bundled guest's name or a path; `memory` in bytes.

    `vcpus`: 0 is as many as a bundled guest wants, and one for any other kernel. `name`: the domain's; empty: that of
    its kernel.
    """

    kernel: str
    modules: tuple[Path, ...] = ()
    append: str = ""
    memory: int = 128 * MIB
    vcpus: int = 0
    name: str = ""
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class Launched:
    """A domain that is about to execute its first instruction. `name`: its kernel's file."""

    hv: Hypervisor
    domain: Domain
    image: KernelImage
    name: str
    modules: tuple[bytes, ...]
    what: Launch

    def profile(self) -> Profile:
        """What there is to know of the kernel's own data: processes, files."""
        memory = DomainMemory(self.hv, self.domain)
        return select_profile(self.name, self.image.elf, self.modules, memory)


@dataclass(slots=True)
class Machine:
    """A machine, and its domains in the order in which they were named."""

    hv: Hypervisor
    domains: list[Launched]
    images: DiskImages = field(default_factory=DiskImages)

    def renew(self, former: Launched, append: str | None = None) -> Launched:
        """The same domain from its beginning, perhaps with another command line, in place of `former`.

        The only domain of a machine gets a new machine. Of several, this one alone is destroyed and created again, with
        a new domid, while the others stay as they are. Raises `LaunchError`: the files are read again, and if that
        fails nothing has happened.
        """
        place = self.domains.index(former)
        what = former.what if append is None else replace(former.what, append=append)
        if len(self.domains) == 1:
            machine = launch_machine([what], audit_every=self.hv.audit_every)
            self.hv, self.domains, self.images = machine.hv, machine.domains, machine.images
        else:
            prepared = _prepare(what)
            destroy_domain(former.domain)
            self.images.close(f"{former.domain.domid}/")
            self.domains[place] = _build(self.hv, self.images, prepared, former.domain.name)
        return self.domains[place]


@dataclass(frozen=True, slots=True)
class _Files:
    """Where what a domain is made of is to be found."""

    kernel: Path
    modules: tuple[Path, ...]
    disks: tuple[Disk, ...]
    vcpus: int


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What a domain is made of, read from its files; its disks are there."""

    what: Launch
    kernel: Path
    image: KernelImage
    modules: tuple[bytes, ...]
    disks: tuple[Disk, ...]
    vcpus: int


def launch(what: Launch) -> Launched:
    """A machine with one domain. Raises `LaunchError`."""
    return launch_machine([what]).domains[0]


def launch_machine(wanted: Sequence[Launch], *, audit_every: int = 0) -> Machine:
    """Build a machine with these domains; their domids are 1 and up in this order. Raises `LaunchError`.

    The machine has the memory of all of them. If there are several it has room for the largest once more, so that any
    can be made anew while frames of its former self are still mapped by another. `audit_every`: see `Hypervisor`.
    """
    if not 1 <= len(wanted) <= MAX_DOMAINS:
        raise LaunchError(f"a machine has between 1 and {MAX_DOMAINS} domains")
    prepared = [_prepare(what) for what in wanted]
    names = names_of(wanted)
    sizes = [what.memory >> 12 for what in wanted]
    if sum(sizes) << 12 > MAX_MEMORY:
        raise LaunchError(f"the domains have more than {MAX_MEMORY // MIB} MiB of memory together")
    hv = Hypervisor(sum(sizes) + (max(sizes) if len(sizes) > 1 else 0))
    hv.audit_every = audit_every
    images = DiskImages()
    hv.block_images = images
    return Machine(hv, [_build(hv, images, one, name) for one, name in zip(prepared, names, strict=True)], images)


def files_of(what: Launch) -> tuple[bytes, tuple[bytes, ...]]:
    """The kernel's file and those of its modules as they are now. Raises `LaunchError`."""
    files = _resolve(what)
    return _read(files.kernel), tuple(_read(module) for module in files.modules)


def disks_of(what: Launch) -> tuple[Disk, ...]:
    """The disks that the domain gets: a bundled guest may have one by itself. Raises `LaunchError`."""
    return _resolve(what).disks


def _prepare(what: Launch) -> _Prepared:
    files = _resolve(what)
    if not MIN_MEMORY <= what.memory <= MAX_MEMORY:
        raise LaunchError(f"a domain has between {MIN_MEMORY // MIB} MiB and {MAX_MEMORY // MIB} MiB of memory")
    try:
        image = read_image(files.kernel)
    except ImageError as error:
        raise LaunchError(str(error)) from error
    if not 1 <= files.vcpus <= MAX_VCPUS:
        raise LaunchError(f"a domain has between 1 and {MAX_VCPUS} vcpus")
    try:
        for _, disk in with_devices(files.disks):
            check_image(disk)
    except DiskError as error:
        raise LaunchError(str(error)) from error
    modules = tuple(_read(module) for module in files.modules)
    return _Prepared(what, files.kernel, image, modules, files.disks, files.vcpus)


def names_of(wanted: Sequence[Launch]) -> list[str]:
    """The names that domains get. Two may not be given the same one; where none is given, a number tells them apart.

    Raises `LaunchError`.
    """
    names: dict[str, None] = {}
    given = [what.name for what in wanted if what.name]
    for name in given:
        if given.count(name) > 1:
            raise LaunchError(f"two domains have the name {name}")
    for what in wanted:
        stem = _resolve(what).kernel.stem
        name, number = what.name or stem, 1
        while not what.name and (name in names or name in given):
            number += 1
            name = f"{stem}-{number}"
        names[name] = None
    return list(names)


def _build(hv: Hypervisor, images: DiskImages, prepared: _Prepared, name: str) -> Launched:
    what = prepared.what
    nr_pages = what.memory >> 12
    if not hv.heap.has_room(nr_pages):
        raise LaunchError(f"{name}: no memory is left for it: other domains have its former frames mapped")
    domain = hv.create_domain(name, nr_pages, prepared.vcpus)
    try:
        build_domain(domain, prepared.image, modules=prepared.modules, command_line=what.append.encode())
        attach_disks(domain, images, prepared.disks)
    except ImageError as error:
        destroy_domain(domain)
        raise LaunchError(f"{prepared.kernel}: {error}") from error
    except DiskError as error:
        destroy_domain(domain)
        raise LaunchError(str(error)) from error
    return Launched(hv, domain, prepared.image, prepared.kernel.name, prepared.modules, what)


def _resolve(what: Launch) -> _Files:
    """Where everything is. A name without a slash is a bundled guest before it is a file."""
    guest = find_guest(what.kernel) if "/" not in what.kernel else None
    if guest is not None:
        if not guest.built:
            raise LaunchError(f"the bundled guest {guest.name} is not built: run scripts/build-guests")
        disks = what.disks or tuple(Disk(path) for path in guest.disks)
        return _Files(guest.kernel, what.modules or guest.modules, disks, what.vcpus or guest.vcpus)
    path = Path(what.kernel)
    if not path.exists():
        raise LaunchError(f"{what.kernel}: neither a bundled guest (see `xdbg guests`) nor a file")
    return _Files(path, what.modules, what.disks, what.vcpus or 1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror or error}") from error
