"""The commands behind gdb's monitor."""

from collections.abc import Callable, Sequence

import pytest

from xdbg.debug.monitor import rows
from xdbg.rsp.target import TargetError

Small = Callable[..., "Debugged"]  # type: ignore[name-defined] # noqa: F821 - the class is in conftest


def say(guest: "Debugged", command: str) -> str:  # type: ignore[name-defined] # noqa: F821
    return "".join(guest.target.monitor(guest.kernel, command))


def test_help_lists_every_command_with_what_it_does(small: Small) -> None:
    text = say(small(), "help")
    assert text == say(small(), "")
    lines = text.splitlines()
    assert len(lines) == len(rows())
    for row, line in zip(rows(), lines, strict=True):
        assert line.startswith(row.usage)
        assert len(row.summary) > 10
        assert line.endswith(row.summary)
    info = [line for line in lines if line.startswith("info")]
    assert [line.split() for line in say(small(), "help info").splitlines()] == [line.split() for line in info]


def test_translate_and_walk_agree_with_each_other_and_the_numbers_of_frames(small: Small) -> None:
    guest = small()
    vaddr = guest.at("_start")
    found = guest.target.inferiors.space(guest.kernel).translate(vaddr)
    mfn, pfn = found.maddr >> 12, guest.target.hv.m2p.get(found.maddr >> 12)
    text = say(guest, f"translate {vaddr:#x}")
    assert f"maddr {found.maddr:#x}, mfn {mfn:#x} (pfn {pfn:#x}, " in text
    assert say(guest, f"translate {vaddr:x}") == text == say(guest, "translate $rip") == say(guest, "translate $pc")
    levels = say(guest, f"walk {vaddr:#x}").splitlines()
    assert [line.split()[0] for line in levels[1:5]] == ["l4", "l3", "l2", "l1"]
    assert f"-> mfn {mfn:#x}" in levels[4]
    assert levels[5] == f"maddr {found.maddr:#x}"
    assert say(guest, f"p2m {pfn:#x}").startswith(f"pfn {pfn:#x} -> mfn {mfn:#x} (")
    assert say(guest, f"m2p {mfn:#x}").startswith(f"mfn {mfn:#x}: pfn {pfn:#x}, ")
    assert "the walk ends at level" in say(guest, "walk 0x123456789000")


@pytest.mark.parametrize(
    "command",
    [
        *("nothing", "translate", "translate 1 2", "translate x", "translate -1", "translate 0x123456789000"),
        *(
            "translate $nothing",
            "walk",
            "p2m 0xffffffffff",
            "m2p 0xffffffffff",
            "info vcpu 7",
            "traps 7",
            "info domain x",
        ),
        *("trace", "trace on", "step-mask maybe", "when x", "ps x", "events x", "regs xen x", "help nothing", "info"),
    ],
)
def test_a_mistake_is_one_line(small: Small, command: str) -> None:
    with pytest.raises(TargetError) as caught:
        say(small(), command)
    assert caught.value.text
    assert "\n" not in caught.value.text


def test_the_domain_and_its_vcpu(small: Small) -> None:
    guest = small()
    assert "blocked" not in say(guest, "info domain")
    guest.brk("ask")
    guest.cont()
    text = say(guest, "info vcpu")
    assert "kernel mode" in text
    assert f"rip {guest.at('ask'):#x} <ask>" in text
    assert "trap table: 1 gates" in text
    traps = say(guest, "traps").splitlines()
    assert len(traps) == 2
    assert traps[1].split()[:3] == ["3", "#BP", "3"]
    assert traps[1].endswith("<on_int3>")
    assert "backend console" in say(guest, "events")
    assert say(guest, "ps") == "no processes are known\n"
    assert say(guest, "when").startswith(f"{guest.count} instructions")
    assert f"cr3                 {guest.target.domain.vcpus[0].cr3:#x}" in say(guest, "regs xen")


def test_a_crash_is_explained(small: Small) -> None:
    guest = small("bad")
    guest.cont()
    assert "shut down with code 3 (crash): unhandled vector 6" in say(guest, "info domain")
    assert "domain has ended" in say(guest, "info vcpu")


class Recorder:
    """A trace that only remembers what it was told."""

    kinds = ("exception", "iret")
    destination = "trace.txt"

    def __init__(self) -> None:
        self.active: Sequence[str] = ()

    def start(self, kinds: Sequence[str]) -> None:
        if unknown := [kind for kind in kinds if kind not in self.kinds]:
            raise ValueError(f"no such kind: {unknown[0]}")
        self.active = kinds or self.kinds

    def stop(self) -> None:
        self.active = ()


def test_trace_is_turned_on_and_off(small: Small) -> None:
    guest = small()
    guest.target.trace = Recorder()
    assert say(guest, "trace") == "trace is off; kinds: exception, iret\n"
    assert say(guest, "trace on") == "trace is on: exception, iret; to trace.txt\n"
    assert say(guest, "trace on iret") == "trace is on: iret; to trace.txt\n"
    with pytest.raises(TargetError):
        say(guest, "trace on everything")
    assert say(guest, "trace off") == "trace is off; kinds: exception, iret\n"


def test_step_mask(small: Small) -> None:
    guest = small()
    assert say(guest, "step-mask") == "step-mask is on\n"
    assert say(guest, "step-mask off") == "step-mask is off\n"
    assert not guest.target.run_control.stepping.over_upcalls


def test_commands_work_with_no_process_attached(small: Small) -> None:
    guest = small()
    for row in rows():
        if not row.arguments or row.arguments.startswith("["):
            if row.name in ("trace", "clients"):  # the session provides these
                continue
            assert "".join(guest.target.monitor(None, row.name))
