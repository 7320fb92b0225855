"""A built domain on a whole machine, whose kernel executes one `syscall` after the other with the registers it is told.

Each call is a real exit: the CPU runs the instruction in the guest's own page tables, and comes back to Xen through
`Hypervisor.handle`. A neighbour, another domain, is there to be named; it never runs.

    pfn 0        code: the syscall
    pfn 1, 2     structures, writable
    pfn 3        writable; the page behind it is not mapped
    pfn 5        read-only
    pfn 6        the kernel stack, with a frame for iret
    pfn 8 to 11  the page tables, L4 to L1, read-only
    pfn 12 ...   free pages, writable
"""

from struct import pack
from typing import Any, Final

from xdbg.abi.frames import PAGE_SIZE, Mfn, Pfn
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.registers import R8, R9, R10, RAX, RDI, RDX, RSI, RSP
from xdbg.xen.domain import Domain
from xdbg.xen.events import MemoryWritten
from xdbg.xen.mm import adopt_initial_tables
from xdbg.xen.setup import Hypervisor
from xdbg.xen.vcpu import Vcpu

from .vocabulary import Fields, Place, Put, Row, get_field, known

VIRT_BASE: Final = 0xFFFF_FFFF_8000_0000
NR_PAGES: Final = 32
CODE, ARGUMENTS, LAST_MAPPED, HOLE, READ_ONLY_PAGE, STACK = 0, 1, 3, 4, 5, 6
L4, L3, L2, L1 = 8, 9, 10, 11
FREE: Final = 12
"""The first of the free pages."""
NR_VCPUS: Final = 2
"""The second is down and was never initialised."""
MAX_PAGES: Final = NR_PAGES + 8
RW = PTE_PRESENT | PTE_RW | PTE_USER
RO = PTE_PRESENT | PTE_USER
SYSCALL: Final = bytes.fromhex("0f05")
IRET_RESULT: Final = 0x1234
"""rax in the frame on top of the stack, which leads back to where a hypercall ends."""
_ARGUMENTS = (RDI, RSI, RDX, R10, R8, R9)
_RUBBISH = 0xDEAD_BEEF_DEAD_F00D
_LIMIT = 100_000
"""Instructions until a hypercall must have come back."""


class _Writes:
    """What Xen itself wrote into guest memory during a call."""

    def __init__(self) -> None:
        self.told: set[int] = set()

    def observe(self, _vcpu: Vcpu, event: Any) -> None:
        if isinstance(event, MemoryWritten):
            self.told.update(range(event.maddr, event.maddr + event.length))


def build(hv: Hypervisor, name: str, nr_vcpus: int) -> Domain:
    domain = hv.create_domain(name, MAX_PAGES, nr_vcpus)
    base = hv.heap.alloc(domain.domid, NR_PAGES)
    domain.nr_pages = NR_PAGES
    hv.m2p.set_range(base, Pfn(0), NR_PAGES)

    def entry(table: int, index: int, pfn: int, flags: int = RW) -> None:
        hv.ram.write_u64((base + table) * PAGE_SIZE + index * 8, (base + pfn) << 12 | flags)

    entry(L4, 511, L3)
    entry(L3, 510, L2)
    entry(L2, 0, L1)
    read_only = {READ_ONLY_PAGE, L4, L3, L2, L1}
    for pfn in range(NR_PAGES):
        if pfn != HOLE:
            entry(L1, pfn, pfn, RO if pfn in read_only else RW)
    adopt_initial_tables(domain, Mfn(base + L4))
    return domain


class DomainUnderTest:
    """The machine, the domain and its neighbour."""

    def __init__(self) -> None:
        self.hv = Hypervisor(2 * MAX_PAGES + 64)
        self.domain = build(self.hv, "guest", NR_VCPUS)
        self.neighbour = build(self.hv, "neighbour", 1)
        self.base = self.domain.vcpus[0].guest_table - L4
        self.foreign_base = self.neighbour.vcpus[0].guest_table - L4
        self.hv.ram.write(self.mfn(CODE) * PAGE_SIZE, SYSCALL)
        cpu = self.hv.cpu
        cpu.rip = self.va(CODE)
        cpu.rflags = 0x202
        cpu.cs, cpu.ss = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
        back = self.va(CODE) + len(SYSCALL)
        frame = pack("<9Q", IRET_RESULT, 0, 0, 0, back, cpu.cs & ~3, cpu.rflags, self.va(STACK), cpu.ss)
        self.hv.ram.write((self.mfn(STACK) + 1) * PAGE_SIZE - len(frame), frame)
        cpu.gpr[RSP] = self.va(STACK) + PAGE_SIZE - len(frame)
        self.vcpu.context = cpu.save()
        self.vcpu.is_initialised = self.vcpu.is_up = True
        self._offset = 0
        self._stored: dict[int, bytes] = {}
        """What was put where."""

    @property
    def vcpu(self) -> Vcpu:
        return self.domain.vcpus[0]

    def mfn(self, pfn: int) -> int:
        return self.base + pfn

    def foreign_mfn(self, pfn: int) -> int:
        return self.foreign_base + pfn

    def va(self, pfn: int) -> int:
        return VIRT_BASE + pfn * PAGE_SIZE

    @property
    def unmapped(self) -> int:
        return self.va(HOLE)

    @property
    def read_only(self) -> int:
        return self.va(READ_ONLY_PAGE)

    # -- calls

    def call(self, number: int, *args: int) -> int:
        """The result of a hypercall; registers that it does not need hold rubbish."""
        hv = self.hv
        vcpu = hv.schedule()
        assert vcpu is self.vcpu, "the vcpu does not run"
        gpr = hv.cpu.gpr
        gpr[RAX] = number
        for register, value in zip(_ARGUMENTS, (*args, *[_RUBBISH] * (6 - len(args))), strict=True):
            gpr[register] = value & (1 << 64) - 1
        hv.cpu.rip = start = self.va(CODE)
        limit = hv.cpu.count + _LIMIT
        while hv.cpu.rip == start:
            assert hv.cpu.count < limit, "the hypercall does not come to its end"
            vcpu = hv.schedule()
            assert vcpu is self.vcpu
            hv.handle(vcpu, hv.enter(vcpu, limit))
        result = gpr[RAX]
        return result - (1 << 64) if result >> 63 else result

    def place(self, argument: Any) -> int:
        """The number for the register; a structure is stored first."""
        if not isinstance(argument, Put):
            return known(self, argument)
        data = self.encode(argument)
        vaddr = self._find_room(argument.place, len(data))
        self._write(vaddr, data)
        self._stored[vaddr] = data
        return vaddr

    def encode(self, argument: Put) -> bytes:
        return b"".join(
            part.build(self)
            if isinstance(part, Fields)
            else part
            if isinstance(part, bytes)
            else pack("<Q", self.place(part) & (1 << 64) - 1)
            for part in argument.parts
        )

    def _find_room(self, place: Place, size: int) -> int:
        match place:
            case Place.WRITABLE:
                at = self.va(ARGUMENTS) + self._offset
                self._offset += size + 15 & ~15
                assert self._offset <= PAGE_SIZE
                return at
            case Place.UNALIGNED:
                return self.va(ARGUMENTS + 1) + 0x801
            case Place.SPLIT:
                return self.va(ARGUMENTS + 1) + PAGE_SIZE - max(1, size // 2)
            case Place.STRADDLE:
                return self.va(LAST_MAPPED) + PAGE_SIZE - max(1, size // 2)
            case Place.READ_ONLY:
                return self.read_only
            case Place.LAST:
                return self.va(LAST_MAPPED) + PAGE_SIZE - size

    def _pieces(self, vaddr: int, size: int) -> list[tuple[int, int]]:
        """Machine ranges behind what the guest's first L1 maps at the start; ends where nothing is mapped."""
        pieces = []
        while size > 0 and vaddr != self.unmapped:
            piece = min(size, PAGE_SIZE - vaddr % PAGE_SIZE)
            pieces.append(((vaddr - VIRT_BASE) + self.base * PAGE_SIZE, piece))
            vaddr += piece
            size -= piece
        return pieces

    def _bytes(self, vaddr: int, size: int) -> list[int]:
        return [maddr + i for maddr, piece in self._pieces(vaddr, size) for i in range(piece)]

    def _write(self, vaddr: int, data: bytes) -> None:
        for maddr, piece in self._pieces(vaddr, len(data)):
            self.hv.ram.write(maddr, data[:piece])
            data = data[piece:]

    def read(self, vaddr: int, size: int) -> bytes:
        return b"".join(self.hv.ram.read(maddr, piece) for maddr, piece in self._pieces(vaddr, size))

    # -- rows

    def run(self, number: int, row: Row, first: tuple[Any, ...]) -> list[str]:
        """Carry out a row of the table; what differs from it."""
        for step in row.before:
            result = self.call(step[0], *(self.place(argument) for argument in step[1:]))
            if result < 0:
                return [f"the call before, {Hypercall.name_of(step[0])}{step[1:]}, gives {result}"]
        arguments = (*first, *row.args)
        values = [self.place(argument) for argument in arguments]
        given = next((i for i, argument in enumerate(arguments) if isinstance(argument, Put)), None)
        observer = _Writes()
        self.hv.observer = observer
        result = self.call(number, *values)
        self.hv.observer = None
        wrong = []
        expected = known(self, row.result)
        if result != expected:
            wrong.append(f"the result is {result:#x} ({result}), not {expected:#x} ({expected})")
        if given is not None:
            wrong += self._compare(row, arguments[given], values[given], observer)
        elif row.wrote is not None:
            wrong.append("the row has no structure that could be written")
        if row.then is not None and (problem := row.then(self)) is not None:
            wrong.append(problem)
        return wrong

    def _compare(self, row: Row, argument: Put, vaddr: int, observer: _Writes) -> list[str]:
        """The first structure, after the call, against what the row says."""
        before = self._stored[vaddr]
        after = self.read(vaddr, len(before))
        before = before[: len(after)]
        wrong = []
        if row.wrote is None:
            if after != before:
                wrong.append(f"it was changed from {before.hex()} to {after.hex()}")
        elif isinstance(row.wrote, bytes):
            if after[: len(row.wrote)] != row.wrote:
                wrong.append(f"it holds {after.hex()}, not {row.wrote.hex()}")
        else:
            part = argument.parts[0]
            assert isinstance(part, Fields)
            value = part.kind.from_bytes(after)
            for path, expected in row.wrote.items():
                found = get_field(value, path)
                wanted = expected if isinstance(expected, bytes) else known(self, expected)
                if found != wanted:
                    wrong.append(f"{path} is {found!r}, not {wanted!r}")
        changed = {
            maddr for maddr, old, new in zip(self._bytes(vaddr, len(before)), before, after, strict=True) if old != new
        }
        if not changed <= observer.told:
            wrong.append("the observer was not told of all that Xen wrote")
        return wrong
