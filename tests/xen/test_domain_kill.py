"""A domain that is destroyed gives back all that it held, whenever that is, and leaves the others as they were."""

from io import BytesIO

import pytest

from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import PAGE_SHIFT
from xdbg.session.console import Terminal
from xdbg.session.launch import MIB, Launch, Machine, launch_machine
from xdbg.session.run import Outcome, run_machine
from xdbg.xen.audit import audit
from xdbg.xen.domain_kill import destroy_domain
from xdbg.xen.event_channel_op import alloc_unbound, bind_interdomain
from xdbg.xen.xenstore_paths import domain_path

SMALL = 8 * MIB


def two(first: str, second: str = "tick") -> Machine:
    return launch_machine([Launch(first, memory=SMALL, name="a"), Launch(second, memory=SMALL, name="b")])


def run_for(machine: Machine, instructions: int) -> None:
    machine.hv.run(machine.hv.cpu.count + instructions)


@pytest.mark.parametrize("instructions", [0, 30_000, 20_000_000])
@pytest.mark.parametrize("guest", ["tasks", "crash"])
def test_all_frames_are_free_again_and_zero(guest, instructions):
    machine = two(guest)
    hv = machine.hv
    run_for(machine, instructions)
    domain = machine.domains[0].domain
    before = hv.heap.nr_free
    owned = len(hv.page_info.frames_of(domain.domid))
    destroy_domain(domain)
    audit(hv)
    assert hv.page_info.frames_of(domain.domid) == []
    # Xen's own tables for the domain are free, too: an L3, an L2, an L1, descriptors and a page of zeroes.
    assert hv.heap.nr_free == before + owned + 5
    free = [mfn for mfn, is_free in enumerate(hv.heap.free_map) if is_free]
    assert not any(hv.ram.buffer[free[0] << PAGE_SHIFT : (free[0] + 1) << PAGE_SHIFT])
    assert all(not any(hv.ram.page(mfn)) for mfn in free[:: max(1, len(free) // 500)])


def test_a_machine_on_which_domains_come_and_go_loses_no_frame():
    machine = two("tasks")
    free = None
    for round_ in range(4):
        run_for(machine, 3_000_000)
        renewed = machine.renew(machine.domains[0])
        assert renewed.domain.domid == 3 + round_, "no domid is given twice"
        audit(machine.hv)
        assert free in (None, machine.hv.heap.nr_free)
        free = machine.hv.heap.nr_free


def test_the_other_domain_computes_on():
    machine = two("tasks")
    run_for(machine, 5_000_000)
    destroy_domain(machine.domains[0].domain)
    output = BytesIO()
    outcomes = run_machine(machine, Terminal(output, named=True))
    assert outcomes == [Outcome.POWERED_OFF, Outcome.POWERED_OFF]
    assert b"b: PASS tick" in output.getvalue()


def test_destroying_twice_is_destroying_once():
    machine = two("hello")
    domain = machine.domains[0].domain
    destroy_domain(domain)
    free = machine.hv.heap.nr_free
    destroy_domain(domain)
    assert machine.hv.heap.nr_free == free
    assert list(machine.hv.domains) == [2]


def test_far_ends_of_its_event_channels_are_unbound_and_wait_for_its_domid():
    machine = two("hello", "hello")
    a, b = (launched.domain for launched in machine.domains)
    port = alloc_unbound(b, a.domid)
    bind_interdomain(a.vcpus[0], b.domid, port)
    far = b.event_channels.ports[port]
    assert (far.state, far.remote_domid) == (EvtchnStat.INTERDOMAIN, a.domid)
    destroy_domain(a)
    assert (far.state, far.remote_domid) == (EvtchnStat.UNBOUND, a.domid)


def test_its_keys_are_gone_from_the_store_and_the_others_are_there():
    machine = two("hello")
    nodes = machine.hv.xenstore_tree.nodes
    assert domain_path(1) in nodes
    destroy_domain(machine.domains[0].domain)
    assert not any(path.startswith(domain_path(1)) or path.endswith("000000000001") for path in nodes)
    assert domain_path(2) in nodes
