"""gdb's watch points, and the bytes of RAM that they mean when the guest is resumed.

A watch point is a range of addresses in one inferior's address space. The CPU watches machine addresses, so the range
is looked up in the page table, piece by piece, whenever the guest is resumed and whenever page tables may have
changed (`follow`); what is not mapped then is watched as soon as it is. A watched frame is watched through whatever
mapping it is touched, by the guest or by Xen; run control decides whether a hit belongs to the inferior.

A hit is told as gdb expects it: the kind that was asked for, and the address of the first byte touched inside of the
range, not where the access began.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from xdbg.abi.frames import PAGE_MASK, PAGE_SIZE, Maddr
from xdbg.debug.inferiors.address_space import AddressSpace
from xdbg.machine.clock import NOT_MAPPED
from xdbg.machine.stoppoints import Access, Watch
from xdbg.rsp.replies import WatchHit
from xdbg.rsp.target import WatchKind

ACCESS: Final = {
    WatchKind.WRITE: Access.WRITE,
    WatchKind.READ: Access.READ,
    WatchKind.ACCESS: Access.READ | Access.WRITE,
}


class WatchSet(Protocol):
    """The CPU's side: `Cpu.watches`."""

    def add(self, watch: Watch) -> None:
        """Stop after an access to the watched bytes."""

    def remove(self, watch: Watch) -> None:
        """Undo one `add`."""


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """[vaddr, vaddr + length) as inferior `pid` sees it. `number`: of a conditional watch, 0 of one of gdb."""

    pid: int
    kind: WatchKind
    vaddr: int
    length: int
    number: int = 0


@dataclass(slots=True)
class Watchpoints:
    """All watch points, and the pieces of RAM that the CPU watches for them now."""

    _numbers: dict[Watchpoint, int] = field(default_factory=dict)
    """Each with a number, which its pieces carry as `Watch.owner`."""
    _by_number: dict[int, Watchpoint] = field(default_factory=dict)
    """Those and the ones that have been removed since the last `follow`: most of them come back before the next."""
    _removed: dict[Watchpoint, int] = field(default_factory=dict)
    _pieces: dict[Watch, int] = field(default_factory=dict)
    """What is installed, and the virtual address of each piece's first byte."""
    _next_number: int = 1
    _first_new: int = 1
    """The lowest number that `follow` has not seen."""
    _followed: list[tuple[Watchpoint, int]] = field(default_factory=list)
    """The points that the last `follow` found; `_pages` and `_frames`: by pid, their pages and where those were."""
    _pages: "dict[int, array[int]]" = field(default_factory=dict)
    _frames: "dict[int, array[int] | None]" = field(default_factory=dict)

    def insert(self, point: Watchpoint) -> None:
        """Idempotent."""
        if point in self._numbers:
            return
        number = self._removed.pop(point, None)
        if number is None:
            number = self._next_number
            self._next_number += 1
            self._by_number[number] = point
        self._numbers[point] = number

    def remove(self, point: Watchpoint) -> None:
        """No error when there is none."""
        number = self._numbers.pop(point, None)
        if number is None:
            return
        if number < self._first_new:
            self._removed[point] = number
        else:
            del self._by_number[number]

    def forget(self, pid: int) -> None:
        """Remove all watch points of an inferior."""
        for point in [point for point in self._numbers if point.pid == pid]:
            self.remove(point)

    def clear(self) -> None:
        """Remove everything."""
        for point in list(self._numbers):
            self.remove(point)

    def __len__(self) -> int:
        return len(self._numbers)

    def __bool__(self) -> bool:
        """Whether anything is to be watched, or is being watched still."""
        return bool(self._numbers or self._pieces)

    def follow(self, watches: WatchSet, space_of: Callable[[int], AddressSpace | None]) -> None:
        """Bring the CPU's watches in line with watch points and page tables. `space_of(pid)`: None if it has gone."""
        now = list(self._numbers.items())
        same = now == self._followed
        if not same:
            self._followed = now
            self._first_new = self._next_number
            self._pages = _pages(self._numbers)
            for number in self._removed.values():
                del self._by_number[number]
            self._removed.clear()
        frames: dict[int, array[int] | None] = {}
        for pid, pages in self._pages.items():
            space = space_of(pid)
            frames[pid] = None if space is None else space.frames(pages)
        if same and frames == self._frames:
            return
        self._frames = frames
        wanted: dict[Watch, int] = {}
        where = {
            (pid, page): frame
            for pid, found in frames.items()
            if found is not None
            for page, frame in zip(self._pages[pid], found, strict=True)
            if frame != NOT_MAPPED
        }
        for point, number in now:
            wanted.update(_pieces(point, number, where))
        for watch in [watch for watch in self._pieces if watch not in wanted]:
            watches.remove(watch)
        for watch in wanted:
            if watch not in self._pieces:
                watches.add(watch)
        self._pieces = wanted

    def __contains__(self, point: Watchpoint) -> bool:
        return point in self._numbers

    def hits(self, touched: Iterable[Watch], maddr: int, size: int) -> list[tuple[int, WatchHit]]:
        """What an access of the guest to [maddr, maddr + size) means: (pid, hit) for each of gdb's, oldest first."""
        found = []
        for watch, point in self._touched(touched, maddr, size):
            if not point.number:
                first = self._pieces[watch] + max(0, maddr - watch.maddr)
                found.append((point.pid, WatchHit(int(point.kind), first)))
        return found

    def conditional(self, touched: Iterable[Watch], maddr: int, size: int) -> list[int]:
        """The numbers of the conditional watches that an access of the guest concerns, each once."""
        points = (point for _, point in self._touched(touched, maddr, size))
        return list(dict.fromkeys(point.number for point in points if point.number))

    def stored(self, maddr: int, length: int) -> list[Watch]:
        """The pieces that a store by Xen itself to [maddr, maddr + length) touches."""
        return [
            watch
            for watch in self._pieces
            if watch.access & Access.WRITE and maddr < watch.maddr + watch.length and watch.maddr < maddr + length
        ]

    def _touched(self, touched: Iterable[Watch], maddr: int, size: int) -> Iterator[tuple[Watch, Watchpoint]]:
        for watch in touched:
            point = self._by_number.get(watch.owner)
            if watch not in self._pieces or point is None:
                continue
            if maddr < watch.maddr + watch.length and watch.maddr < maddr + size:
                yield watch, point


def _pages(points: Iterable[Watchpoint]) -> "dict[int, array[int]]":
    """The pages that the points of each inferior touch, each once."""
    pages: dict[int, dict[int, None]] = {}
    for point in points:
        of_pid = pages.setdefault(point.pid, {})
        end = point.vaddr + point.length
        for page in range(point.vaddr & ~PAGE_MASK, end, PAGE_SIZE):
            of_pid[page] = None
    return {pid: array("Q", of_pid) for pid, of_pid in pages.items()}


def _pieces(point: Watchpoint, number: int, frames: dict[tuple[int, int], int]) -> dict[Watch, int]:
    """A watch for each run of consecutive machine addresses behind a range. `frames` has those of mapped pages."""
    access = ACCESS[point.kind]
    vaddr, left = point.vaddr, point.length
    if left <= PAGE_SIZE - (vaddr & PAGE_MASK):
        frame = frames.get((point.pid, vaddr & ~PAGE_MASK))
        return {} if frame is None else {Watch(Maddr(frame + (vaddr & PAGE_MASK)), left, access, number): vaddr}
    pieces: dict[Watch, int] = {}
    begin_vaddr, begin, length = 0, 0, 0
    while left > 0:
        part = min(left, PAGE_SIZE - (vaddr & PAGE_MASK))
        frame = frames.get((point.pid, vaddr & ~PAGE_MASK))
        if frame is not None and length and frame + (vaddr & PAGE_MASK) == begin + length:
            length += part
        else:
            if length:
                pieces[Watch(Maddr(begin), length, access, number)] = begin_vaddr
            length = 0
            if frame is not None:
                begin_vaddr, begin, length = vaddr, frame + (vaddr & PAGE_MASK), part
        vaddr += part
        left -= part
    if length:
        pieces[Watch(Maddr(begin), length, access, number)] = begin_vaddr
    return pieces
