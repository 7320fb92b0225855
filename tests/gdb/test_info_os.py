"""gdb's `info os`."""

import re

import pytest

from xdbg.testing import GdbError


def test_tables_as_gdb_and_front_ends_read_them(processes):
    listed = processes.run("info os")
    for name in ("processes", "event-channels", "hypercalls", "p2m", "grants", "timers", "vcpus", "domains"):
        assert re.search(rf"^{name} ", listed, re.MULTILINE)
        assert len(processes.run(f"info os {name}").splitlines()) > 1
    assert re.search(r"^2 +\? +/bin/counter +0 ", processes.run("info os processes"), re.MULTILINE)
    available = processes.mi("-list-thread-groups --available")["groups"]
    assert [(group["id"], group["description"]) for group in available][:2] == [
        ("1", "/bin/init"),
        ("2", "/bin/counter"),
    ]
    assert re.search(r"^3 +VIRQ TIMER ", processes.run("info os event-channels"), re.MULTILINE)
    with pytest.raises(GdbError):
        processes.run("info os nonsense")


def test_counts_are_those_of_now(xdbg_gdb):
    gdb = xdbg_gdb("tasks")

    def irets():
        found = re.search(r"^23 +iret +(\d+)", gdb.run("info os hypercalls"), re.MULTILINE)
        return int(found[1]) if found else 0

    assert irets() == 0
    gdb.monitor("catch hypercall iret")
    for expected in range(3):
        gdb.cont()
        assert irets() == expected
