"""Event channels: what each operation does to ports, and how a bit becomes an upcall."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdbg.abi.errno import Errno
from xdbg.abi.event_channel import (
    EvtchnAllocUnbound,
    EvtchnBindInterdomain,
    EvtchnBindIpi,
    EvtchnBindPirq,
    EvtchnBindVcpu,
    EvtchnBindVirq,
    EvtchnClose,
    EvtchnInitControl,
    EvtchnOp,
    EvtchnOpStruct,
    EvtchnReset,
    EvtchnSend,
    EvtchnSetPriority,
    EvtchnStat,
    EvtchnStatus,
    EvtchnUnmask,
    Virq,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_SELF
from xdbg.xen import event_channel, event_channel_op
from xdbg.xen.event_channel import MAX_PORT, set_pending
from xdbg.xen.events import EventPending, MemoryWritten
from xdbg.xen.faults import HypercallError


def op(guest: Any, cmd: int, **fields: int) -> tuple[int, Any]:
    """The result of an operation and its structure afterwards."""
    kind = {
        EvtchnOp.BIND_INTERDOMAIN: EvtchnBindInterdomain,
        EvtchnOp.BIND_VIRQ: EvtchnBindVirq,
        EvtchnOp.BIND_PIRQ: EvtchnBindPirq,
        EvtchnOp.CLOSE: EvtchnClose,
        EvtchnOp.SEND: EvtchnSend,
        EvtchnOp.STATUS: EvtchnStatus,
        EvtchnOp.ALLOC_UNBOUND: EvtchnAllocUnbound,
        EvtchnOp.BIND_IPI: EvtchnBindIpi,
        EvtchnOp.BIND_VCPU: EvtchnBindVcpu,
        EvtchnOp.UNMASK: EvtchnUnmask,
        EvtchnOp.RESET: EvtchnReset,
        event_channel_op.RESET_CONT: EvtchnReset,
        EvtchnOp.INIT_CONTROL: EvtchnInitControl,
        EvtchnOp.SET_PRIORITY: EvtchnSetPriority,
    }[cmd]
    return guest.call(Hypercall.EVENT_CHANNEL_OP, cmd, guest.put(kind(**fields))), guest.get(kind)


def bind_ipi(guest: Any, vcpu: int = 0) -> int:
    result, bind = op(guest, EvtchnOp.BIND_IPI, vcpu=vcpu)
    assert result == 0
    return int(bind.port)


def status(guest: Any, port: int) -> Any:
    result, query = op(guest, EvtchnOp.STATUS, dom=DOMID_SELF, port=port)
    assert result == 0
    return query


def pending(guest: Any, port: int) -> bool:
    return bool(guest.shared_info.evtchn_pending[port >> 6] >> (port & 63) & 1)


def mask(guest: Any, port: int) -> None:
    guest.shared_info.evtchn_mask[port >> 6] |= 1 << (port & 63)


def test_a_send_sets_the_pending_bit_the_selector_and_the_upcall_in_that_order(guest: Any) -> None:
    ports = [bind_ipi(guest) for _ in range(70)]
    guest.hv.observer = guest
    assert op(guest, EvtchnOp.SEND, port=ports[-1])[0] == 0
    port = ports[-1]
    assert pending(guest, port)
    assert guest.info().evtchn_pending_sel == 1 << (port >> 6)
    assert guest.info().evtchn_upcall_pending == 1
    shared = guest.domain.shared_info_maddr
    assert [e for e in guest.events if isinstance(e, (MemoryWritten, EventPending))] == [
        MemoryWritten(shared + 2048 + 8, 8),
        MemoryWritten(shared + 8, 8),
        MemoryWritten(shared, 1),
        EventPending(port, upcall=True),
    ]


def test_a_pending_port_is_not_made_pending_again(guest: Any) -> None:
    port = bind_ipi(guest)
    op(guest, EvtchnOp.SEND, port=port)
    guest.info().evtchn_upcall_pending = 0
    guest.info().evtchn_pending_sel = 0
    assert op(guest, EvtchnOp.SEND, port=port)[0] == 0
    assert guest.info().evtchn_upcall_pending == 0


def test_a_masked_port_waits_until_it_is_unmasked(guest: Any) -> None:
    port = bind_ipi(guest)
    mask(guest, port)
    op(guest, EvtchnOp.SEND, port=port)
    assert pending(guest, port)
    assert guest.info().evtchn_pending_sel == 0
    assert guest.info().evtchn_upcall_pending == 0
    assert event_channel.pending_ports(guest.vcpu) == ()
    assert op(guest, EvtchnOp.UNMASK, port=port)[0] == 0
    assert guest.info().evtchn_upcall_pending == 1
    assert guest.shared_info.evtchn_mask[0] == 0
    assert event_channel.pending_ports(guest.vcpu) == (port,)


def test_an_event_wakes_a_blocked_vcpu_of_another_domain_and_has_it_checked(guest: Any, neighbour: Any) -> None:
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    result, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=neighbour.domain.domid, remote_port=alloc.port)
    assert result == 0
    neighbour.vcpu.blocked = True
    assert op(guest, EvtchnOp.SEND, port=bind.local_port)[0] == 0
    assert not neighbour.vcpu.blocked
    assert neighbour.vcpu.check_events
    assert not guest.vcpu.check_events
    assert pending(neighbour, alloc.port)


def test_a_masked_port_wakes_nobody_but_a_poller(guest: Any) -> None:
    port, other = bind_ipi(guest), bind_ipi(guest)
    mask(guest, port)
    mask(guest, other)
    guest.vcpu.polling = (port,)
    guest.vcpu.timers.poll_ns = 5
    set_pending(guest.vcpu, other)
    assert guest.vcpu.polling == (port,)
    set_pending(guest.vcpu, port)
    assert guest.vcpu.polling is None
    assert guest.vcpu.timers.poll_ns == 0


def test_a_poll_for_several_ports_ends_with_any_port_as_in_xen(guest: Any) -> None:
    ports = [bind_ipi(guest) for _ in range(3)]
    guest.vcpu.polling = tuple(ports[:2])
    set_pending(guest.vcpu, ports[2])
    assert guest.vcpu.polling is None


def test_binding_a_channel_makes_the_local_port_pending_and_both_ends_know_each_other(
    guest: Any, neighbour: Any
) -> None:
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    unbound = status(neighbour, alloc.port)
    assert (unbound.status, unbound.u.unbound.dom) == (EvtchnStat.UNBOUND, guest.domain.domid)
    _, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=neighbour.domain.domid, remote_port=alloc.port)
    assert pending(guest, bind.local_port)
    near, far = status(guest, bind.local_port), status(neighbour, alloc.port)
    assert near.status == far.status == EvtchnStat.INTERDOMAIN
    assert (near.u.interdomain.dom, near.u.interdomain.port) == (neighbour.domain.domid, alloc.port)
    assert (far.u.interdomain.dom, far.u.interdomain.port) == (guest.domain.domid, bind.local_port)


def test_after_a_close_the_far_end_is_unbound_and_may_be_bound_again(guest: Any, neighbour: Any) -> None:
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    fields = {"remote_dom": neighbour.domain.domid, "remote_port": alloc.port}
    _, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, **fields)
    assert op(guest, EvtchnOp.CLOSE, port=bind.local_port)[0] == 0
    assert not pending(guest, bind.local_port)
    assert status(guest, bind.local_port).status == EvtchnStat.CLOSED
    assert status(neighbour, alloc.port).status == EvtchnStat.UNBOUND
    assert op(neighbour, EvtchnOp.SEND, port=alloc.port)[0] == 0, "a send to nobody is dropped"
    assert op(guest, EvtchnOp.BIND_INTERDOMAIN, **fields)[0] == 0


def test_a_port_made_for_someone_else_can_not_be_bound(guest: Any, neighbour: Any, another: Any) -> None:
    third = another()
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=third.domain.domid)
    fields = {"remote_dom": neighbour.domain.domid, "remote_port": alloc.port}
    assert op(guest, EvtchnOp.BIND_INTERDOMAIN, **fields)[0] == -Errno.EINVAL
    assert op(third, EvtchnOp.BIND_INTERDOMAIN, **fields)[0] == 0
    assert op(third, EvtchnOp.BIND_INTERDOMAIN, **fields)[0] == -Errno.EINVAL, "bound already"


def test_a_domain_may_have_a_channel_to_itself(guest: Any) -> None:
    _, alloc = op(guest, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=DOMID_SELF)
    _, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=DOMID_SELF, remote_port=alloc.port)
    assert bind.local_port != alloc.port
    op(guest, EvtchnOp.SEND, port=bind.local_port)
    assert pending(guest, alloc.port)
    assert op(guest, EvtchnOp.CLOSE, port=alloc.port)[0] == 0
    assert status(guest, bind.local_port).status == EvtchnStat.UNBOUND


def test_a_backend_looks_like_domain_0_and_is_served_on_each_send(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[int, int]] = []
    monkeypatch.setitem(event_channel.BACKENDS, "test", lambda domain, device: served.append((domain.domid, device)))
    port = guest.domain.event_channels.bind_backend("test", 5)
    query = status(guest, port)
    assert (query.status, query.u.interdomain.dom) == (EvtchnStat.INTERDOMAIN, 0)
    assert op(guest, EvtchnOp.SEND, port=port)[0] == 0
    assert served == [(guest.domain.domid, 5)]
    assert op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=0, remote_port=port)[0] == -Errno.EINVAL
    assert op(guest, EvtchnOp.CLOSE, port=port)[0] == 0
    assert op(guest, EvtchnOp.SEND, port=port)[0] == -Errno.EINVAL
    bind_ipi(guest)
    result, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=0, remote_port=port)
    assert result == 0
    assert bind.local_port != port
    op(guest, EvtchnOp.SEND, port=bind.local_port)
    assert served == [(guest.domain.domid, 5)] * 2


def test_a_backend_binds_to_a_port_that_the_guest_made_for_domain_0(
    guest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[int, int]] = []
    monkeypatch.setitem(event_channel.BACKENDS, "disk", lambda domain, device: served.append((domain.domid, device)))
    ports = [op(guest, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=0)[1].port for _ in range(2)]
    for device, port in enumerate(ports):
        event_channel.bind_backend_port(guest.domain, port, "disk", device)
        query = status(guest, port)
        assert (query.status, query.u.interdomain.dom) == (EvtchnStat.INTERDOMAIN, 0)
    assert op(guest, EvtchnOp.SEND, port=ports[1])[0] == 0
    assert served == [(guest.domain.domid, 1)]
    event_channel.notify_from_backend(guest.domain, "disk", 0)
    assert pending(guest, ports[0])
    assert not pending(guest, ports[1])
    for wrong in (ports[0], bind_ipi(guest), 63, 64):
        with pytest.raises(HypercallError):
            event_channel.bind_backend_port(guest.domain, wrong, "disk", 2)
    event_channel.unbind_backend_port(guest.domain, "disk", 1)
    query = status(guest, ports[1])
    assert (query.status, query.u.unbound.dom) == (EvtchnStat.UNBOUND, 0)
    assert op(guest, EvtchnOp.CLOSE, port=ports[0])[0] == 0
    reused = bind_ipi(guest)
    assert reused == ports[0]
    event_channel.notify_from_backend(guest.domain, "disk", 0)
    assert not pending(guest, reused)


def test_a_virq_is_bound_once_a_vcpu_and_free_again_after_a_close(guest: Any) -> None:
    guest.add_vcpu()
    _, first = op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.TIMER, vcpu=0)
    _, second = op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.TIMER, vcpu=1)
    assert op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.TIMER, vcpu=1)[0] == -Errno.EEXIST
    event_channel.send_guest_vcpu_virq(guest.domain.vcpus[1], Virq.TIMER)
    assert not pending(guest, first.port)
    assert pending(guest, second.port)
    assert guest.info(1).evtchn_upcall_pending == 1
    assert status(guest, second.port).u.virq == Virq.TIMER
    assert status(guest, second.port).vcpu == 1
    op(guest, EvtchnOp.CLOSE, port=second.port)
    event_channel.send_guest_vcpu_virq(guest.domain.vcpus[1], Virq.TIMER)
    assert not pending(guest, second.port)
    assert op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.TIMER, vcpu=1)[0] == 0


def test_a_global_virq_goes_to_the_vcpu_that_its_port_notifies(guest: Any) -> None:
    guest.add_vcpu()
    assert op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.CONSOLE, vcpu=1)[0] == -Errno.EINVAL
    _, bind = op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.CONSOLE, vcpu=0)
    assert op(guest, EvtchnOp.BIND_VCPU, port=bind.port, vcpu=1)[0] == 0
    event_channel.send_guest_global_virq(guest.domain, Virq.CONSOLE)
    assert guest.info(1).evtchn_upcall_pending == 1
    assert guest.info(0).evtchn_upcall_pending == 0


def test_only_some_kinds_of_ports_can_notify_another_vcpu(guest: Any) -> None:
    guest.add_vcpu()
    ipi = bind_ipi(guest)
    _, timer = op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.TIMER, vcpu=0)
    _, unbound = op(guest, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=DOMID_SELF)
    results = [op(guest, EvtchnOp.BIND_VCPU, port=port, vcpu=1)[0] for port in (ipi, timer.port, unbound.port, 60)]
    assert results == [-Errno.EINVAL, -Errno.EINVAL, 0, -Errno.EINVAL]
    assert op(guest, EvtchnOp.BIND_VCPU, port=unbound.port, vcpu=2)[0] == -Errno.ENOENT


def test_ports_end_at_the_limit_of_the_domain(guest: Any) -> None:
    ports = [bind_ipi(guest) for _ in range(MAX_PORT)]
    assert ports == list(range(1, MAX_PORT + 1))
    assert op(guest, EvtchnOp.BIND_IPI, vcpu=0)[0] == -Errno.ENOSPC
    assert op(guest, EvtchnOp.CLOSE, port=17)[0] == 0
    assert bind_ipi(guest) == 17


def test_a_reset_closes_all_ports(guest: Any) -> None:
    ports = [bind_ipi(guest) for _ in range(3)]
    assert op(guest, EvtchnOp.RESET, dom=DOMID_SELF)[0] == 0
    assert [status(guest, port).status for port in ports] == [EvtchnStat.CLOSED] * 3
    assert op(guest, EvtchnOp.RESET, dom=guest.domain.domid)[0] == 0


@pytest.mark.parametrize(
    ("cmd", "fields", "errno"),
    [
        (EvtchnOp.SEND, {"port": 0}, Errno.EINVAL),
        (EvtchnOp.SEND, {"port": 5}, Errno.EINVAL),
        (EvtchnOp.SEND, {"port": 0xFFFF_FFFF}, Errno.EINVAL),
        (EvtchnOp.CLOSE, {"port": 0}, Errno.EINVAL),
        (EvtchnOp.CLOSE, {"port": 4096}, Errno.EINVAL),
        (EvtchnOp.UNMASK, {"port": 64}, Errno.EINVAL),
        (EvtchnOp.STATUS, {"dom": DOMID_SELF, "port": 64}, Errno.EINVAL),
        (EvtchnOp.STATUS, {"dom": 77, "port": 1}, Errno.ESRCH),
        (EvtchnOp.STATUS, {"dom": 2, "port": 1}, Errno.EPERM),
        (EvtchnOp.RESET, {"dom": 2}, Errno.EPERM),
        (EvtchnOp.ALLOC_UNBOUND, {"dom": 2, "remote_dom": 1}, Errno.EPERM),
        (EvtchnOp.ALLOC_UNBOUND, {"dom": 77, "remote_dom": 1}, Errno.ESRCH),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 77, "remote_port": 1}, Errno.ESRCH),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 2, "remote_port": 9999}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": 24, "vcpu": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": Virq.TIMER, "vcpu": 1}, Errno.ENOENT),
        (EvtchnOp.BIND_IPI, {"vcpu": 1}, Errno.ENOENT),
        (EvtchnOp.BIND_PIRQ, {"pirq": 1}, Errno.EPERM),
        (EvtchnOp.BIND_PIRQ, {"pirq": 56}, Errno.EINVAL),
        (EvtchnOp.INIT_CONTROL, {}, Errno.EOPNOTSUPP),
        (EvtchnOp.SET_PRIORITY, {"port": 1}, Errno.ENOSYS),
    ],
)
@pytest.mark.usefixtures("neighbour")
def test_what_is_refused_and_how(guest: Any, cmd: EvtchnOp, fields: dict[str, int], errno: Errno) -> None:
    assert op(guest, cmd, **fields)[0] == -errno


def test_a_bad_pointer_is_a_fault_and_an_unknown_operation_is_none(guest: Any) -> None:
    for cmd in range(EvtchnOp.RESET + 1):
        assert guest.call(Hypercall.EVENT_CHANNEL_OP, cmd, guest.unmapped) == -Errno.EFAULT, cmd
    assert guest.call(Hypercall.EVENT_CHANNEL_OP, 99, guest.unmapped) == -Errno.ENOSYS
    assert guest.call(Hypercall.EVENT_CHANNEL_OP, EvtchnOp.BIND_IPI, guest.read_only) == -Errno.EFAULT


def test_the_old_form_of_the_hypercall_does_the_same(guest: Any) -> None:
    request = EvtchnOpStruct(cmd=EvtchnOp.BIND_IPI)
    assert guest.call(Hypercall.EVENT_CHANNEL_OP_COMPAT, guest.put(request)) == 0
    port = guest.get(EvtchnOpStruct).u.bind_ipi.port
    assert status(guest, port).status == EvtchnStat.IPI
    assert guest.call(Hypercall.EVENT_CHANNEL_OP_COMPAT, guest.put(EvtchnOpStruct(cmd=EvtchnOp.RESET))) == -Errno.ENOSYS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 15), st.binary(min_size=24, max_size=24)), max_size=12))
def test_no_argument_makes_anything_but_an_errno_or_a_port(guest: Any, calls: list[tuple[int, bytes]]) -> None:
    for cmd, raw in calls:
        # Small numbers are what ports, vcpus and domains have: half of the arguments get them.
        small = bytes(byte % 3 if index % 4 == 0 else 0 for index, byte in enumerate(raw))
        for argument in (raw, small):
            result = guest.call(Hypercall.EVENT_CHANNEL_OP, cmd, guest.put(argument))
            assert result == 0 or Errno(-result)
    for number, port in enumerate(guest.domain.event_channels.ports):
        if port.state == EvtchnStat.INTERDOMAIN and port.backend is None:
            far = guest.hv.domains[port.remote_domid].event_channels.ports[port.remote_port]
            assert (far.state, far.remote_port) == (EvtchnStat.INTERDOMAIN, number)


FREE, BEYOND = 63, 64
"""Ports that nobody has taken, in a bucket that exists and in one that does not."""


@pytest.mark.parametrize(
    ("cmd", "fields", "errno"),
    [
        (EvtchnOp.ALLOC_UNBOUND, {"dom": 2, "remote_dom": 1}, Errno.EPERM),
        (EvtchnOp.ALLOC_UNBOUND, {"dom": 0, "remote_dom": 1}, Errno.EPERM),
        (EvtchnOp.ALLOC_UNBOUND, {"dom": 77, "remote_dom": 1}, Errno.ESRCH),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 77, "remote_port": 1}, Errno.ESRCH),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 2, "remote_port": FREE}, Errno.EINVAL),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 2, "remote_port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": 0, "remote_port": 1}, Errno.EINVAL),
        (EvtchnOp.BIND_INTERDOMAIN, {"remote_dom": DOMID_SELF, "remote_port": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": 24, "vcpu": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": 0xFFFF_FFFF, "vcpu": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": Virq.CONSOLE, "vcpu": 1}, Errno.EINVAL),
        (EvtchnOp.BIND_VIRQ, {"virq": Virq.DEBUG, "vcpu": 1}, Errno.ENOENT),
        (EvtchnOp.BIND_VIRQ, {"virq": Virq.TIMER, "vcpu": 0xFFFF_FFFF}, Errno.ENOENT),
        (EvtchnOp.BIND_IPI, {"vcpu": 1}, Errno.ENOENT),
        (EvtchnOp.BIND_PIRQ, {"pirq": 55}, Errno.EPERM),
        (EvtchnOp.BIND_PIRQ, {"pirq": 56}, Errno.EINVAL),
        (EvtchnOp.BIND_PIRQ, {"pirq": 0xFFFF_FFFF}, Errno.EINVAL),
        (EvtchnOp.CLOSE, {"port": 0}, Errno.EINVAL),
        (EvtchnOp.CLOSE, {"port": FREE}, Errno.EINVAL),
        (EvtchnOp.CLOSE, {"port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.SEND, {"port": 0}, Errno.EINVAL),
        (EvtchnOp.SEND, {"port": FREE}, Errno.EINVAL),
        (EvtchnOp.SEND, {"port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.UNMASK, {"port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.BIND_VCPU, {"port": FREE, "vcpu": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VCPU, {"port": BEYOND, "vcpu": 0}, Errno.EINVAL),
        (EvtchnOp.BIND_VCPU, {"port": BEYOND, "vcpu": 1}, Errno.ENOENT),
        (EvtchnOp.STATUS, {"dom": DOMID_SELF, "port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.STATUS, {"dom": 2, "port": 0}, Errno.EPERM),
        (EvtchnOp.STATUS, {"dom": 2, "port": BEYOND}, Errno.EINVAL),
        (EvtchnOp.STATUS, {"dom": 0, "port": 1}, Errno.EPERM),
        (EvtchnOp.STATUS, {"dom": 77, "port": 1}, Errno.ESRCH),
        (EvtchnOp.RESET, {"dom": 2}, Errno.EPERM),
        (EvtchnOp.RESET, {"dom": 0}, Errno.EPERM),
        (EvtchnOp.RESET, {"dom": 77}, Errno.ESRCH),
        (event_channel_op.RESET_CONT, {"dom": DOMID_SELF}, Errno.EBUSY),
        (event_channel_op.RESET_CONT, {"dom": 2}, Errno.EPERM),
    ],
)
def test_what_is_refused_changes_nothing(guest: Any, neighbour: Any, cmd: Any, fields: Any, errno: Any) -> None:
    before = [repr(party.domain.event_channels) for party in (guest, neighbour)]
    assert op(guest, cmd, **fields)[0] == -errno
    assert [repr(party.domain.event_channels) for party in (guest, neighbour)] == before


@pytest.mark.parametrize("dom", [DOMID_SELF, 1])
def test_a_port_that_is_free_is_closed_and_unmasking_it_is_no_error(guest: Any, dom: Any) -> None:
    for port in (0, FREE):
        assert status(guest, port).status == EvtchnStat.CLOSED
        assert op(guest, EvtchnOp.STATUS, dom=dom, port=port)[0] == 0
        assert op(guest, EvtchnOp.UNMASK, port=port)[0] == 0


def test_a_virq_can_not_be_sent_by_the_guest(guest: Any) -> None:
    _, bind = op(guest, EvtchnOp.BIND_VIRQ, virq=Virq.DEBUG, vcpu=0)
    assert op(guest, EvtchnOp.SEND, port=bind.port)[0] == -Errno.EINVAL
    assert not pending(guest, bind.port)


def test_a_domain_that_has_shut_down_keeps_its_channels(guest: Any, neighbour: Any) -> None:
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    fields = {"remote_dom": neighbour.domain.domid, "remote_port": alloc.port}
    guest.hv.shutdown_domain(neighbour.domain, 0)
    result, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, **fields)
    assert result == 0
    assert op(guest, EvtchnOp.SEND, port=bind.local_port)[0] == 0
    assert pending(neighbour, alloc.port)
    event_channel_op.destroy(neighbour.domain)
    near = status(guest, bind.local_port)
    assert (near.status, near.u.unbound.dom) == (EvtchnStat.UNBOUND, neighbour.domain.domid)
    assert op(guest, EvtchnOp.SEND, port=bind.local_port)[0] == 0
    assert op(guest, EvtchnOp.BIND_INTERDOMAIN, **fields)[0] == -Errno.EINVAL


def test_the_far_ends_vcpu_is_the_one_that_is_told(guest: Any, neighbour: Any) -> None:
    neighbour.add_vcpu()
    _, alloc = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    assert op(neighbour, EvtchnOp.BIND_VCPU, port=alloc.port, vcpu=1)[0] == 0
    _, bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, remote_dom=neighbour.domain.domid, remote_port=alloc.port)
    op(guest, EvtchnOp.SEND, port=bind.local_port)
    assert [neighbour.info(number).evtchn_upcall_pending for number in (0, 1)] == [0, 1]
    op(guest, EvtchnOp.CLOSE, port=bind.local_port)
    assert status(neighbour, alloc.port).vcpu == 1, "an unbound port keeps its vcpu"
    op(neighbour, EvtchnOp.CLOSE, port=alloc.port)
    _, again = op(neighbour, EvtchnOp.ALLOC_UNBOUND, dom=DOMID_SELF, remote_dom=guest.domain.domid)
    assert (again.port, status(neighbour, again.port).vcpu) == (alloc.port, 0), "a closed one does not"
