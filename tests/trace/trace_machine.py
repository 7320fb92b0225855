"""A vcpu that stands still: RAM and a page table are real, and events are told to a recorder as Xen would tell them."""

from dataclasses import dataclass, field
from io import StringIO
from types import SimpleNamespace
from typing import Any

from xdbg.abi.event_channel import EvtchnStat, Virq
from xdbg.abi.frames import PAGE_SIZE, Maddr, Mfn
from xdbg.abi.x86 import PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.ram import Ram
from xdbg.trace.events import Record
from xdbg.trace.recorder import Recorder
from xdbg.trace.symbols import RunningProcess
from xdbg.trace.text import TextSink
from xdbg.xen.event_channel import Port
from xdbg.xen.vcpu import Vcpu

BASE = 0x10_0000
"""Where the guest's two pages are mapped; nothing is mapped behind them."""
KERNEL = {0x10_0100: ("kernel_int3", 0x20), 0x10_0200: ("entry_stubs", 0xE00), 0x10_1000: ("stack", 0x1000)}
PROCESS = {0x10_0400: ("main", 0x100)}


@dataclass
class FixedSymbols:
    """Symbols from a dictionary of address -> (name, size)."""

    names: dict[int, tuple[str, int]]

    def lookup(self, vaddr: int, /) -> tuple[str, int] | None:
        for start, (name, size) in self.names.items():
            if start <= vaddr < start + size:
                return name, vaddr - start
        return None


class OneProcess:
    """The same process runs at all times."""

    def current(self, _vcpu: Any, /) -> RunningProcess:
        return RunningProcess(7, FixedSymbols(PROCESS))


@dataclass
class KeepingSink:
    """Keeps the records."""

    records: list[Record] = field(default_factory=list)

    def write(self, record: Record, /) -> None:
        self.records.append(record)


class Machine:
    """One domain with one vcpu, and a recorder with a sink of each kind."""

    def __init__(self) -> None:
        self.ram = Ram(16 * PAGE_SIZE)
        tables = [1, 2, 3, 4]
        indices = [BASE >> shift & 511 for shift in (39, 30, 21)]
        for table, index, below in zip(tables, indices, tables[1:], strict=False):
            self._entry(table, index, below)
        for page in range(2):
            self._entry(4, (BASE >> 12 & 511) + page, 8 + page)
        self.cpu = SimpleNamespace(
            count=1000, rip=BASE, gpr=list(range(16)), rflags=0x246, cs=0xE033, ss=0xE02B, is_64bit=True
        )
        hv = SimpleNamespace(ram=self.ram, cpu=self.cpu, observer=None)
        ports = [
            Port(),
            Port(EvtchnStat.VIRQ, virq=Virq.TIMER),
            Port(EvtchnStat.INTERDOMAIN, remote_domid=0, remote_port=2, backend="console"),
            Port(EvtchnStat.IPI),
        ]
        domain: Any = SimpleNamespace(hv=hv, domid=1, event_channels=SimpleNamespace(ports=ports))
        self.vcpu = Vcpu(domain, 0)
        self.vcpu.guest_table = Mfn(1)
        self.kept = KeepingSink()
        self.stream = StringIO()

    def _entry(self, table: int, index: int, mfn: int) -> None:
        self.ram.write_u64(table * PAGE_SIZE + 8 * index, mfn << 12 | PTE_PRESENT | PTE_RW | PTE_USER)

    def put(self, vaddr: int, data: bytes) -> int:
        """Store bytes where the guest sees them at `vaddr`."""
        self.ram.write(Maddr(8 * PAGE_SIZE + vaddr - BASE), data)
        return vaddr

    def tell(self, *events: Any, recorder: Recorder | None = None) -> str:
        """Tell the recorder of events, one instruction apart; the text form of them."""
        recorder = recorder or self.recorder()
        for event in events:
            recorder.observe(self.vcpu, event)
            self.cpu.count += 1
        return self.stream.getvalue()

    def recorder(self, **options: Any) -> Recorder:
        return Recorder(
            [self.kept, TextSink(self.stream)],
            **{"kernel": FixedSymbols(KERNEL), "processes": OneProcess(), **options},
        )

    def events(self) -> list[Any]:
        return [record.event for record in self.kept.records]
