"""The files that gdb reads over vFile: the guest's own, and a /proc made up for it. Never a file of the host.

Programs with their debug information come from the guest's profile, by the paths that `exec_file` gives: gdb's
sysroot is the target, so symbols load unasked. /proc/PID/ has what `info proc` and `gcore` read, in Linux's format,
for each process and for the kernel under its number as an inferior. A file is made when it is opened and does not
change afterwards.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import EACCES, EINVAL, ENOENT
from typing import Final

from xdbg.abi.frames import PAGE_SIZE, Vaddr
from xdbg.abi.x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START
from xdbg.guestos.elf_file import PT_LOAD, ElfError, ElfFile
from xdbg.guestos.profile import Process, Vma
from xdbg.machine.paging import PTE_NX, PTE_RW, mapped_ranges
from xdbg.rsp.target import FileStat, TargetError

from .address_space import KERNEL_HALF, AddressSpace
from .attached import KERNEL_PID, Inferiors

_PROC: Final = re.compile(r"/proc/(self|\d+)/(?:task/\d+/)?([a-z]+)\Z")
KERNEL: Final = "[kernel]"
XEN: Final = "[xen]"
"""Names of mappings: the kernel's image, and Xen's own part of each address space."""
_USER_END: Final = 1 << 47
_END: Final = 1 << 64
_READ: Final = 1
_WRITE: Final = 2
_EXECUTE: Final = 4
_STATES: Final = {
    "running": "R (running)",
    "ready": "R (running)",
    "stopped": "T (stopped)",
    "tracing": "S (sleeping)",
    "zombie": "Z (zombie)",
}
_SLEEPING: Final = "S (sleeping)"


@dataclass(frozen=True, slots=True)
class GuestFile:
    """An open file: bytes that stay as they are."""

    data: bytes

    def stat(self) -> FileStat:
        """A regular file that everybody may read."""
        return FileStat(len(self.data))

    def pread(self, count: int, offset: int) -> bytes:
        """At most `count` bytes from `offset`."""
        return self.data[offset : offset + count]


class GuestFiles:
    """All files that there are for gdb."""

    def __init__(self, inferiors: Inferiors) -> None:
        self._inferiors = inferiors

    def open(self, pid: int, path: str) -> GuestFile:
        """A file by its path; `pid` is who /proc/self is. TargetError: ENOENT, or EACCES for a link."""
        found = _PROC.match(path)
        if found is not None:
            owner = pid if found[1] == "self" else int(found[1])
            if found[2] in _LINKS:
                raise TargetError(EACCES, f"{path} is a link")
            return GuestFile(self._proc_file(owner, found[2], path))
        data = self._inferiors.profile.file(path)
        if data is None:
            raise TargetError(ENOENT, f"the guest has no file {path}")
        return GuestFile(data)

    def read_link(self, pid: int, path: str) -> str:
        """Where a link points: exe, cwd, root of /proc/PID. TargetError: EINVAL for a file, ENOENT for nothing."""
        found = _PROC.match(path)
        if found is None or found[2] not in _LINKS:
            self.open(pid, path)
            raise TargetError(EINVAL, f"{path} is no link")
        owner = pid if found[1] == "self" else int(found[1])
        program = self._program(owner)
        target = _LINKS[found[2]] or program
        if not target:
            raise TargetError(ENOENT, f"{path}: not known")
        return target

    def _program(self, pid: int) -> str:
        if pid == KERNEL_PID:
            return self._inferiors.profile.kernel_path
        return self._inferiors.find_process(pid).exec_path

    def _proc_file(self, pid: int, name: str, path: str) -> bytes:
        if name not in _FILES:
            raise TargetError(ENOENT, f"the guest has no file {path}")
        return _FILES[name](self._subject(pid))

    def _subject(self, pid: int) -> "_Subject":
        inferiors = self._inferiors
        if pid == KERNEL_PID:
            space = AddressSpace(inferiors.domain.hv.ram, inferiors.domain.vcpus[0].kernel_cr3)
            name = inferiors.domain.name
            vmas = (
                *_mapped(space, KERNEL_HALF, HYPERVISOR_VIRT_START, ""),
                *_mapped(space, HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_END, XEN),
                *self._with_kernel(_mapped(space, HYPERVISOR_VIRT_END, _END, "")),
            )
            return _Subject(pid, name, "running", 0, inferiors.profile.kernel_path, b"", vmas)
        process = inferiors.find_process(pid)
        return _Subject(
            pid,
            process.name,
            process.state,
            process.parent_pid or 0,
            process.exec_path,
            process.auxv,
            process.vmas or self._guessed(process),
        )

    def _with_kernel(self, vmas: tuple[Vma, ...]) -> Iterator[Vma]:
        """The kernel's mappings, those named that hold its image."""
        try:
            image = ElfFile(self._inferiors.profile.file(self._inferiors.profile.kernel_path) or b"")
        except ElfError:
            image = None
        loaded = [
            (segment.vaddr & -PAGE_SIZE, -(-(segment.vaddr + segment.size) // PAGE_SIZE) * PAGE_SIZE)
            for segment in (image.segments if image is not None else ())
            if segment.type == PT_LOAD
        ]
        for vma in vmas:
            yield from _named(vma, loaded)

    def _guessed(self, process: Process) -> tuple[Vma, ...]:
        """The memory of a process whose kernel keeps no list of it: what its page table maps."""
        if process.cr3 is None:
            return ()
        return _mapped(self._inferiors.space_of_process(process), 0, _USER_END, "")


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom a file under /proc tells of."""

    pid: int
    name: str
    state: str
    parent_pid: int
    path: str
    auxv: bytes
    vmas: tuple[Vma, ...]

    @property
    def linux_state(self) -> str:
        return _STATES.get(self.state, _SLEEPING)


def _mapped(space: AddressSpace, start: int, end: int, name: str) -> tuple[Vma, ...]:
    """Runs of equal rights in a page table."""
    cr3 = space.kernel_cr3 if start >= KERNEL_HALF or space.user_cr3 is None else space.user_cr3
    runs: list[Vma] = []
    for vaddr, length, flags, _ in mapped_ranges(space.ram, cr3, start, end):
        prot = _READ | (_WRITE if flags & PTE_RW else 0) | (0 if flags & PTE_NX else _EXECUTE)
        if runs and runs[-1].end == vaddr and runs[-1].prot == prot:
            runs[-1] = Vma(runs[-1].start, Vaddr(vaddr + length), prot, 0, name)
        else:
            runs.append(Vma(vaddr, Vaddr(vaddr + length), prot, 0, name))
    return tuple(runs)


def _named(vma: Vma, image: Sequence[tuple[int, int]]) -> Iterator[Vma]:
    """The mapping in pieces: what is in one of the kernel's segments has its name."""
    at = vma.start
    for start, end in sorted(image):
        start, end = max(start, at), min(end, vma.end)
        if start < end:
            if at < start:
                yield Vma(at, Vaddr(start), vma.prot, 0, "")
            yield Vma(Vaddr(start), Vaddr(end), vma.prot, 0, KERNEL)
            at = Vaddr(end)
    if at < vma.end:
        yield Vma(at, vma.end, vma.prot, 0, "")


def _rights(prot: int) -> str:
    letters = ((_READ, "r"), (_WRITE, "w"), (_EXECUTE, "x"))
    return "".join(letter if prot & bit else "-" for bit, letter in letters) + "p"


def _map_line(vma: Vma) -> str:
    is_file = vma.name.startswith("/")
    head = f"{vma.start:08x}-{vma.end:08x} {_rights(vma.prot)} {vma.offset:08x} 00:00 {1 if is_file else 0}"
    return f"{head:<72} {vma.name}".rstrip() + "\n"


def _maps(subject: _Subject) -> bytes:
    return "".join(_map_line(vma) for vma in subject.vmas).encode()


def _smaps(subject: _Subject) -> bytes:
    """What `gcore` decides by: file-backed pages that were never written are not in a core."""
    lines = []
    for vma in subject.vmas:
        size = (vma.end - vma.start) // 1024
        own = 0 if vma.name.startswith("/") and not vma.prot & _WRITE else size
        flags = [word for bit, word in ((_READ, "rd"), (_WRITE, "wr"), (_EXECUTE, "ex")) if vma.prot & bit]
        values = {"Size": size, "Rss": size, "Shared_Clean": 0, "Shared_Dirty": 0, "Private_Clean": size - own}
        values |= {"Private_Dirty": own, "Anonymous": own, "Swap": 0, "KernelPageSize": PAGE_SIZE // 1024}
        lines.append(_map_line(vma))
        lines.extend(f"{key + ':':<16}{value:>8} kB\n" for key, value in values.items())
        lines.append(f"VmFlags: {' '.join([*flags, 'mr', 'mw', 'me', 'ac'])}\n")
    return "".join(lines).encode()


def _cmdline(subject: _Subject) -> bytes:
    return (subject.path or subject.name).encode() + b"\0"


def _stat(subject: _Subject) -> bytes:
    """The 52 fields of /proc/PID/stat; what a guest has no word for is 0."""
    size = sum(vma.end - vma.start for vma in subject.vmas)
    numbers = [0] * 52
    numbers[3] = subject.parent_pid
    numbers[4] = numbers[5] = subject.pid
    numbers[19] = 1
    numbers[22] = size
    numbers[23] = size // PAGE_SIZE
    text = next((vma for vma in subject.vmas if vma.prot & _EXECUTE and vma.name != XEN), None)
    if text is not None:
        numbers[25], numbers[26] = text.start, text.end
    numbers[27] = next((vma.end for vma in subject.vmas if vma.name == "[stack]"), 0)
    fields = [str(subject.pid), f"({subject.name})", subject.linux_state[0], *map(str, numbers[3:])]
    return (" ".join(fields) + "\n").encode()


def _status(subject: _Subject) -> bytes:
    size = sum(vma.end - vma.start for vma in subject.vmas) // 1024
    lines = {
        "Name": subject.name,
        "State": subject.linux_state,
        "Tgid": subject.pid,
        "Pid": subject.pid,
        "PPid": subject.parent_pid,
        "TracerPid": 0,
        "Uid": "0\t0\t0\t0",
        "Gid": "0\t0\t0\t0",
        "VmSize": f"{size:8} kB",
        "VmRSS": f"{size:8} kB",
        "Threads": 1,
    }
    return "".join(f"{key}:\t{value}\n" for key, value in lines.items()).encode()


def _comm(subject: _Subject) -> bytes:
    return subject.name.encode() + b"\n"


def _auxv(subject: _Subject) -> bytes:
    return subject.auxv


_FILES: Final[dict[str, Callable[[_Subject], bytes]]] = {
    "maps": _maps,
    "smaps": _smaps,
    "cmdline": _cmdline,
    "stat": _stat,
    "status": _status,
    "comm": _comm,
    "auxv": _auxv,
}
"""What /proc/PID/ has."""

_LINKS: Final[dict[str, str | None]] = {"exe": None, "cwd": "/", "root": "/"}
"""... and its links; None is the path of the process's program."""
