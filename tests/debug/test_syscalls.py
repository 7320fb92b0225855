"""System calls of attached processes, caught at their entry and at their return."""

from collections.abc import Callable

import pytest

from xdbg.rsp.registers import BY_NAME
from xdbg.rsp.replies import Execed, ExitReply, Forked, StopEvent, StopReply, SyscallStop
from xdbg.rsp.threadid import Thread

Make = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest
INIT = Thread(1, 1)
EXIT, WRITE, WAIT, SLEEP, GETPID, FORK, EXEC = 1, 2, 4, 5, 6, 11, 12
RUNAWAY = 10_000


class Guest:
    """The kernel `tasks` with its first process attached, before its first instruction."""

    def __init__(self, make: Make, program: str) -> None:
        self.guest = make("tasks", f"init=/bin/{program}")
        self.target = self.guest.target
        self.guest.brk("schedule")
        assert isinstance(self.guest.cont(), StopReply)
        self.guest.clear("schedule")
        self.target.attach(1)
        self.target.events.report_process_events(fork=True, execs=True)

    def catch(self, *numbers: int) -> None:
        self.target.syscalls.catch_syscalls(frozenset(numbers))

    def register(self, thread: Thread, name: str) -> int:
        return int.from_bytes(self.target.read_register(thread, BY_NAME[name].number), "little", signed=True)

    def calls(self) -> list[tuple[int, object]]:
        """Pid and reason of all stops up to the end of the domain; ends as what they are."""
        found: list[tuple[int, object]] = []
        while len(found) < RUNAWAY:
            event: StopEvent | None = self.guest.cont()
            if isinstance(event, StopReply):
                found.append((event.thread.pid, event.reasons[0]))
            elif isinstance(event, ExitReply) and event.pid == 1:
                return found
        raise AssertionError


def pair(pid: int, number: int) -> list[tuple[int, object]]:
    return [(pid, SyscallStop(number, True)), (pid, SyscallStop(number, False))]


def test_a_call_stops_at_its_entry_and_when_it_is_back(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.catch(FORK)
    entry = guest.guest.cont()
    assert entry.reasons == (SyscallStop(FORK, True),)
    rip = guest.register(INIT, "rip")
    assert guest.target.read_memory(INIT, rip - 2, 2) == b"\x0f\x05"
    assert [guest.register(INIT, name) for name in ("rax", "orig_rax")] == [FORK, FORK]
    assert guest.guest.cont().reasons == (Forked(Thread(2, 2)),)
    back = guest.guest.cont()
    assert (back.thread, back.reasons) == (INIT, (SyscallStop(FORK, False),))
    assert [guest.register(INIT, name) for name in ("rip", "rax", "orig_rax")] == [rip, 2, FORK]
    assert not guest.target.domain.vcpus[0].kernel_mode
    guest.guest.step(INIT)
    assert guest.register(INIT, "orig_rax") == -1


def test_a_child_has_no_return_from_the_call_that_made_it(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.catch(FORK)
    fork = [(1, SyscallStop(FORK, True)), (1, Forked(Thread(2, 2))), (1, SyscallStop(FORK, False))]
    again = [fork[0], (1, Forked(Thread(3, 3))), fork[2]]
    assert guest.calls() == [*fork, *again, (3, Execed("/bin/counter"))]


def test_exec_returns_in_the_new_program_and_exit_never(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.catch(EXEC, EXIT)
    calls = [call for call in guest.calls() if not isinstance(call[1], Forked)]
    ends = [call for call in calls if isinstance(call[1], SyscallStop) and call[1].number == EXIT]
    assert sorted(ends) == [(pid, SyscallStop(EXIT, True)) for pid in (1, 2, 3)]
    assert [call for call in calls if call not in ends] == [
        (3, SyscallStop(EXEC, True)),
        (3, Execed("/bin/counter")),
        (3, SyscallStop(EXEC, False)),
    ]


def test_a_call_that_sleeps_returns_when_it_has_slept(bundled: Make) -> None:
    guest = Guest(bundled, "counter")
    guest.catch(SLEEP)
    assert guest.guest.cont().reasons == (SyscallStop(SLEEP, True),)
    before = guest.target.hv.now()
    guest.guest.brk("idle")
    assert guest.guest.cont().thread == guest.guest.kernel
    assert guest.register(INIT, "orig_rax") == SLEEP
    guest.guest.clear("idle")
    assert guest.guest.cont().reasons == (SyscallStop(SLEEP, False),)
    assert guest.target.hv.now() >= before + 1_000_000


def test_all_calls_are_caught_and_with_none_nothing_is_left_behind(bundled: Make) -> None:
    guest = Guest(bundled, "counter")
    guest.target.syscalls.catch_syscalls(None)
    for number in (WRITE, SLEEP):
        for entry in (True, False):
            assert guest.guest.cont().reasons == (SyscallStop(number, entry),)
    guest.catch()
    guest.guest.brk("sys_write")
    assert guest.guest.cont().thread == guest.guest.kernel
    guest.catch(SLEEP, WRITE)
    guest.guest.clear("sys_write")
    assert guest.guest.cont().reasons == (SyscallStop(SLEEP, True),)


def test_what_a_process_sets_at_the_entry_is_what_its_kernel_gets(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.catch(FORK)
    assert isinstance(guest.guest.cont(), StopReply)
    guest.target.write_register(INIT, BY_NAME["rax"].number, GETPID.to_bytes(8, "little"))
    assert guest.guest.cont().reasons == (SyscallStop(FORK, False),)
    assert guest.register(INIT, "rax") == 1
    assert guest.target.profile.process(2) is None


def test_the_kernel_breaks_at_its_entry_behind_a_caught_call(bundled: Make) -> None:
    guest = Guest(bundled, "forker")
    guest.catch(FORK)
    guest.guest.brk("entry_syscall")
    stops = [guest.guest.cont() for _ in range(2)]
    assert [stop.thread for stop in stops] == [INIT, guest.guest.kernel]
    assert guest.guest.where() == "entry_syscall"


@pytest.mark.parametrize("numbers", [(FORK, WAIT), (99,)])
def test_only_the_numbers_that_are_wanted(bundled: Make, numbers: tuple[int, ...]) -> None:
    guest = Guest(bundled, "forker")
    guest.target.events.report_process_events(fork=False, execs=False)
    guest.catch(*numbers)
    expected = [*pair(1, FORK), *pair(1, FORK), *pair(1, WAIT), *pair(1, WAIT)] if FORK in numbers else []
    assert guest.calls() == expected
