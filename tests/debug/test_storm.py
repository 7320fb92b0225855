"""Steps while an event is pending before each of them: a storm that would never let a plain step get on."""

import pytest

from xdbg.xen.event_channel import set_pending

STEPS = 100


@pytest.mark.parametrize("over_upcalls", [True, False])
def test_steps_in_a_storm_of_events(bundled, over_upcalls):
    guest = bundled("tick")
    guest.brk("timer_while_running")
    guest.cont()
    guest.brk("spin")
    guest.cont()
    guest.clear("spin")
    guest.target.run_control.stepping.over_upcalls = over_upcalls
    vcpu, port = guest.target.domain.vcpus[0], guest.word("ipi") & 0xFFFF_FFFF
    places, handled = [], 0
    for _ in range(STEPS):
        seen = upcalls(guest, port)
        set_pending(vcpu, port)
        vcpu.check_events = True  # as an interrupt that Xen takes itself
        guest.step()
        handled += upcalls(guest, port) - seen
        places.append(guest.where().partition("+")[0])
    if over_upcalls:
        assert handled == STEPS
        assert set(places) <= {"spin", "now_ns", "work", "rdtsc"}
    else:
        assert "entry_event" in places
        assert handled < STEPS // 10


def upcalls(guest, port):
    data = guest.target.read_memory(guest.kernel, guest.at("upcalls") + 4 * port, 4)
    return int.from_bytes(data, "little")
