"""The tables of `info os`, held against what the monitor commands and the guest itself say."""

import pytest

from xdbg.abi.hypercalls import Hypercall
from xdbg.debug.inferiors.os_tables import MAX_ROWS, OsTables
from xdbg.rsp.replies import ExitReply
from xdbg.rsp.target import OsData, TargetError
from xdbg.session.launch import Launch, launch


@pytest.fixture(scope="module")
def tasks():
    """The guest tasks in the middle of its work."""
    from xdbg.debug.target import DebugTarget

    launched = launch(Launch("tasks"))
    target = DebugTarget(launched.hv, launched.domain, launched.profile())
    launched.hv.run(4_000_000)
    return target


def tables_of(target):
    (part,) = [part for part in target.parts if isinstance(part, OsTables)]
    assert isinstance(part, OsData)
    return part


def rows(target, name):
    table = tables_of(target).os_table(name)
    assert all(len(row) == len(table.columns) for row in table.rows)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_every_table_that_is_listed_can_be_shown(tasks):
    names = [table.name for table in tables_of(tasks).os_tables()]
    assert names == sorted(names)
    assert {"processes", "threads", "vcpus", "event-channels", "grants", "hypercalls", "p2m", "domains", "timers"} == {
        *names
    }
    for name in names:
        assert rows(tasks, name)
    with pytest.raises(TargetError, match="no table 'nonsense'"):
        tables_of(tasks).os_table("nonsense")


def test_processes_are_those_of_the_kernel(tasks):
    found = {int(row["pid"]): row for row in rows(tasks, "processes")}
    assert list(found) == [process.pid for process in tasks.profile.processes()]
    assert found[1]["command"] == "/bin/init"
    (on_vcpu,) = [pid for pid, row in found.items() if row["cores"] == "0"]
    assert on_vcpu == tasks.profile.current_pid(0)
    assert {row["tid"] for row in rows(tasks, "threads")} == set(map(str, found))


def test_the_p2m_is_told_in_runs_that_cover_each_page_once(tasks):
    domain = tasks.domain
    pages = 0
    for row in rows(tasks, "p2m"):
        first, last, mfn = (int(row[name], 16) for name in ("first pfn", "last pfn", "first mfn"))
        assert domain.page_mfn(first) == mfn
        assert domain.page_mfn(last) == mfn + last - first
        assert int(row["pages"]) == last - first + 1
        pages += int(row["pages"])
    assert pages == domain.nr_pages


def test_a_p2m_in_pieces_does_not_make_the_table_endless(small):
    guest = small()
    hv = guest.target.hv
    for pfn in range(0, 1000, 2):
        hv.m2p.set(guest.target.domain.page_mfn(pfn), 1 << 40 | pfn)
    assert len(rows(guest.target, "p2m")) > 900
    assert len(rows(guest.target, "p2m")) <= MAX_ROWS + 1


def test_hypercalls_are_counted_from_the_start_with_and_without_a_debugger(bundled):
    watched = bundled("tasks")
    assert isinstance(watched.cont(), ExitReply)
    alone = launch(Launch("tasks"))
    alone.hv.run(watched.count + 1)
    assert alone.domain.hypercalls == watched.target.domain.hypercalls
    counts = {row["hypercall"]: int(row["count"]) for row in rows(watched.target, "hypercalls")}
    assert counts["iret"] == alone.domain.hypercalls[Hypercall.IRET] > 100
    assert "" not in counts


def test_a_number_that_no_hypercall_has_is_counted_as_well(bundled):
    guest = bundled("crash", append="garbage")
    assert isinstance(guest.cont(), ExitReply)
    assert sum(int(row["count"]) for row in rows(guest.target, "hypercalls")) == sum(guest.target.domain.hypercalls)


def test_ports_grants_timers_and_vcpus(tasks):
    ports = {row["port"]: row for row in rows(tasks, "event-channels")}
    assert {row["bound to"] for row in ports.values()} >= {"console of domain 0", "VIRQ TIMER"}
    assert {row["type"] for row in rows(tasks, "grants")} == {"access"}
    (timer,) = rows(tasks, "timers")
    assert int(timer["due ns"]) == tasks.hv.now() + int(timer["in ns"]) == tasks.domain.vcpus[0].timers.singleshot_ns
    (vcpu,) = rows(tasks, "vcpus")
    assert int(vcpu["kernel cr3"], 16) == tasks.domain.vcpus[0].kernel_cr3
    (domain,) = rows(tasks, "domains")
    assert (domain["name"], domain["state"]) == ("tasks", "running")
