"""Two domains of one machine, ping and pong: a granted page, an event channel between them, recounted all the way."""

import io
import re

import pytest

from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, launch_machine
from xdbg.session.limits import Limits
from xdbg.session.run import Outcome, run_machine
from xdbg.trace.events import EVENT_KINDS
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder
from xdbg.xen.audit import audit
from xdbg.xen.domain_kill import destroy_domain
from xdbg.xen.grant_audit import flag_problems

MEMORY = 8 << 20
LIMIT = 100_000_000


def launch_pair(*append, order=("ping", "pong"), audit_every=0):
    append = append or ("", "")
    wanted = [Launch(name, append=text, memory=MEMORY) for name, text in zip(order, append, strict=True)]
    return launch_machine(wanted, audit_every=audit_every)


def run_pair(machine):
    console = io.BytesIO()
    outcomes = run_machine(machine, Terminal(console), Limits(max_instructions=LIMIT))
    return outcomes, console.getvalue().decode()


def test_ping_and_pong_find_each_other_and_end_well():
    machine = launch_pair()
    outcomes, console = run_pair(machine)
    assert outcomes == [Outcome.POWERED_OFF] * 2, console
    for line in ("200 messages there and back", "PASS ping", "205 messages answered", "PASS pong"):
        assert line in console
    audit(machine.hv)
    assert flag_problems(machine.hv) == []
    ping, pong = (launched.domain for launched in machine.domains)
    assert set(ping.grant_table.active) == {0, 1}, "only the rings of console and store are in use"
    assert pong.grant_table.maptrack.mappings == {}


@pytest.mark.parametrize("order", [("ping", "pong"), ("pong", "ping")])
def test_the_command_line_names_the_other_domain(order):
    outcomes, console = run_pair(launch_pair("2", "1", order=order))
    assert outcomes == [Outcome.POWERED_OFF] * 2, console
    assert "PASS ping" in console
    assert "PASS pong" in console


def test_every_exit_of_the_two_leaves_the_counts_right():
    machine = launch_pair(audit_every=20)
    outcomes, console = run_pair(machine)
    assert outcomes == [Outcome.POWERED_OFF] * 2, console


def test_the_pair_twice_gives_equal_traces_and_memory():
    def traced():
        machine = launch_pair()
        text = io.StringIO()
        machine.hv.observer = Recorder([FORMATS["jsonl"](text)], frozenset(EVENT_KINDS))
        _, console = run_pair(machine)
        return text.getvalue(), console, machine.hv.cpu.count, bytes(machine.hv.ram.buffer)

    assert traced() == traced()


def run_until(machine, happened):
    """Run in small pieces until something is the case."""
    hv = machine.hv
    while not happened():
        assert hv.cpu.count < LIMIT
        hv.run(hv.cpu.count + 1000)


def test_a_domain_that_dies_takes_its_mappings_along_and_the_other_lives():
    machine = launch_pair()
    ping, pong = (launched.domain for launched in machine.domains)
    run_until(machine, lambda: pong.grant_table.maptrack.mappings)
    machine.hv.run(machine.hv.cpu.count + 1_000_000)
    (ref,) = (ref for ref, entry in ping.grant_table.active.items() if entry.domid == pong.domid)
    destroy_domain(pong)
    audit(machine.hv)
    assert ref not in ping.grant_table.active
    assert flag_problems(machine.hv) == []
    machine.hv.run(machine.hv.cpu.count + 1_000_000)
    assert ping.shutdown_code is None, "it waits for ever, but it is there"


def test_the_page_of_a_domain_that_dies_stays_while_it_is_mapped():
    machine = launch_pair()
    ping, pong = (launched.domain for launched in machine.domains)
    run_until(machine, lambda: pong.grant_table.maptrack.mappings)
    (mapping,) = pong.grant_table.maptrack.mappings.values()
    mfn = ping.grant_table.active[mapping.ref].mfn
    destroy_domain(ping)
    audit(machine.hv)
    assert machine.hv.page_info.owner(mfn) == ping.domid
    destroy_domain(pong)
    audit(machine.hv)
    assert machine.hv.page_info.owner(mfn) is None


def test_a_trace_shows_a_notification_go_from_one_domain_to_the_other():
    machine = launch_pair()
    text = io.StringIO()
    machine.hv.observer = Recorder([FORMATS["text"](text)], frozenset(EVENT_KINDS))
    run_pair(machine)
    assert re.search(
        r"d1v0 kernel +hypercall event_channel_op\(SEND.*\n"
        r"(.*d2v0 .*Xen wrote.*\n)+"
        r".*d2v0 .*event channel: port \d+ \(port \d+ of domain 1\) becomes pending",
        text.getvalue(),
    )
