"""The tables of gdb's ``info os``: the guest's processes, and what Xen keeps of the domain.

A table is a function with `@os_table(name, description, *columns)`, which yields rows of texts. The columns of
`processes` and `threads` have the names that gdb and front ends know them by. Addresses and frames are in hex. No
table has more than `MAX_ROWS` rows: the last says how many are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import ENOENT
from itertools import islice
from typing import Final

from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import Vaddr
from xdbg.abi.grant_table import GTF_ACCEPT_TRANSFER, GTF_PERMIT_ACCESS, GTF_TRANSITIVE, GTF_TYPE_MASK, Gtf
from xdbg.abi.vcpu import Runstate
from xdbg.rsp.target import OsTable, OsTableName, TargetError
from xdbg.trace.arguments import call_name
from xdbg.trace.describing import Describer, bound_to
from xdbg.xen.domain import NR_HYPERCALLS, Domain
from xdbg.xen.event_channel import is_masked, is_pending
from xdbg.xen.m2p import INVALID_M2P_ENTRY

from .attached import Inferiors
from .vcpu_registers import rip_of

MAX_ROWS: Final = 4096

_GRANT_TYPES: Final = {
    GTF_PERMIT_ACCESS: "access",
    GTF_ACCEPT_TRANSFER: "transfer",
    GTF_TRANSITIVE: "transitive",
}

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Source:
    """What tables are made of."""

    inferiors: Inferiors
    describer: Describer

    @property
    def domain(self) -> Domain:
        """The domain that is debugged."""
        return self.inferiors.domain


Rows = Callable[[Source], Iterable[Row]]


@dataclass(frozen=True, slots=True)
class _Table:
    name: OsTableName
    columns: tuple[str, ...]
    rows: Rows


_TABLES: Final[dict[str, _Table]] = {}


def os_table(name: str, description: str, *columns: str) -> Callable[[Rows], Rows]:
    """Enter a table under its name."""

    def enter(rows: Rows) -> Rows:
        assert name not in _TABLES, name
        title = name.replace("-", " ").capitalize()
        _TABLES[name] = _Table(OsTableName(name, description, title), columns, rows)
        return rows

    return enter


class OsTables:
    """Implements `rsp.target.OsData`."""

    def __init__(self, inferiors: Inferiors, describer: Describer) -> None:
        self._source = Source(inferiors, describer)

    def os_tables(self) -> Sequence[OsTableName]:
        """All tables, by name."""
        return [_TABLES[name].name for name in sorted(_TABLES)]

    def os_table(self, name: str) -> OsTable:
        """One table. TargetError(ENOENT)."""
        table = _TABLES.get(name)
        if table is None:
            raise TargetError(ENOENT, f"no table {name!r}; there are {', '.join(sorted(_TABLES))}")
        rows = iter(table.rows(self._source))
        shown = list(islice(rows, MAX_ROWS))
        left = sum(1 for _ in rows)
        if left:
            shown.append([f"... {left} more", *[""] * (len(table.columns) - 1)])
        return OsTable(table.columns, shown)


# -- the guest's


@os_table("processes", "Listing of all processes", "pid", "user", "command", "cores", "state", "parent")
def processes(source: Source) -> Iterator[Row]:
    """A process that no vcpu runs has no core; no profile knows users."""
    for process in source.inferiors.profile.processes():
        core = "" if process.vcpu_id is None else str(process.vcpu_id)
        parent = "" if process.parent_pid is None else str(process.parent_pid)
        yield str(process.pid), "?", process.exec_path or process.name, core, process.state, parent


@os_table("threads", "Listing of all threads", "pid", "command", "tid", "core")
def threads(source: Source) -> Iterator[Row]:
    """A process has one thread with its own number."""
    for process in source.inferiors.profile.processes():
        core = "" if process.vcpu_id is None else str(process.vcpu_id)
        yield str(process.pid), process.name, str(process.pid), core


# -- Xen's


@os_table("domains", "The domains of the machine", "domid", "name", "state", "pages", "vcpus")
def domains(source: Source) -> Iterator[Row]:
    """As `xl list`."""
    for domid in sorted(source.domain.hv.domains):
        row = source.domain.hv.domains[domid].describe()
        yield [str(row[key]) for key in ("domid", "name", "state", "pages", "vcpus")]


@os_table("vcpus", "The domain's virtual CPUs", "vcpu", "state", "doing", "rip", "symbol", "kernel cr3", "user cr3")
def vcpus(source: Source) -> Iterator[Row]:
    """Where each is."""
    for vcpu in source.domain.vcpus:
        rip = rip_of(vcpu)
        user = "" if vcpu.guest_table_user is None else f"{vcpu.guest_table_user << 12:#x}"
        yield (
            str(vcpu.vcpu_id),
            Runstate.name_of(vcpu.runstate.state).lower(),
            source.inferiors.describe_vcpu(vcpu),
            f"{rip:#x}",
            source.describer.name(vcpu, Vaddr(rip), kernel_mode=vcpu.kernel_mode) or "",
            f"{vcpu.kernel_cr3:#x}" if vcpu.is_initialised else "",
            user,
        )


@os_table("event-channels", "The domain's event channels", "port", "bound to", "vcpu", "pending", "masked")
def event_channels(source: Source) -> Iterator[Row]:
    """Those that are in use."""
    domain = source.domain
    for number, port in enumerate(domain.event_channels.ports):
        if port.state is not EvtchnStat.CLOSED:
            pending, masked = is_pending(domain, number), is_masked(domain, number)
            yield str(number), bound_to(domain, number), str(port.vcpu_id), _yes(pending), _yes(masked)


@os_table("grants", "The entries in use of the domain's grant table", "ref", "type", "flags", "domid", "frame")
def grants(source: Source) -> Iterator[Row]:
    """What it lets others do with its frames. Frames are mfns."""
    table = source.domain.grant_table
    for ref in range(table.nr_entries):
        entry = table.entry(ref)
        kind = entry.flags & GTF_TYPE_MASK
        if kind:
            flags = Gtf.names_in(entry.flags & ~GTF_TYPE_MASK)
            yield str(ref), _GRANT_TYPES.get(kind, str(kind)), flags, str(entry.domid), f"{entry.frame:#x}"


@os_table("hypercalls", "How often the domain has made each hypercall since its start", "number", "hypercall", "count")
def hypercalls(source: Source) -> Iterator[Row]:
    """Those in a multicall are counted as well."""
    for number, count in enumerate(source.domain.hypercalls):
        if count:
            beyond = number == NR_HYPERCALLS
            yield (f">= {number}" if beyond else str(number)), ("" if beyond else call_name(number)), str(count)


@os_table(
    "p2m", "The domain's memory: runs of pfns and the mfns behind them", "first pfn", "last pfn", "first mfn", "pages"
)
def p2m(source: Source) -> Iterator[Row]:
    """As the M2P has it, where the guest can write what it likes for its own frames: in the order of mfns."""
    hv = source.domain.hv
    begin = pfn = length = 0
    for mfn in hv.page_info.frames_of(source.domain.domid):
        found = hv.m2p.get(mfn)
        if length and mfn == begin + length and found == pfn + length:
            length += 1
            continue
        if length:
            yield f"{pfn:#x}", f"{pfn + length - 1:#x}", f"{begin:#x}", str(length)
        begin, pfn, length = mfn, found, 0 if found == INVALID_M2P_ENTRY else 1
    if length:
        yield f"{pfn:#x}", f"{pfn + length - 1:#x}", f"{begin:#x}", str(length)


@os_table("timers", "The timers that run for the domain", "timer", "vcpu", "due ns", "in ns", "period ns")
def timers(source: Source) -> Iterator[Row]:
    """Times are system time."""
    domain = source.domain
    now = domain.hv.now()
    for vcpu in domain.vcpus:
        running = vcpu.timers
        times = (
            ("single-shot", running.singleshot_ns, ""),
            (
                "periodic",
                running.periodic_next_ns if running.periodic_period_ns else 0,
                str(running.periodic_period_ns),
            ),
            ("poll", running.poll_ns, ""),
        )
        for name, due, again in times:
            if due:
                yield name, str(vcpu.vcpu_id), str(due), str(due - now), again
    for number, due in enumerate(domain.event_channels.watchdogs_ns):
        if due:
            yield f"watchdog {number + 1}", "", str(due), str(due - now), ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
