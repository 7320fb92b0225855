"""Monitor commands about what the hypervisor does: catching it, and telling why the guest stands still."""

from collections.abc import Iterator, Sequence
from errno import EINVAL

from xdbg.debug.events.catch_events import parse_request
from xdbg.debug.events.why import why_stopped
from xdbg.debug.monitor import MonitorContext, arguments, monitor
from xdbg.rsp.target import TargetError


@monitor("catch", "[EVENT]")
def catch(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The catches and how often each has stopped the guest; with an EVENT one more"""
    if words:
        yield from _add(context, words, temporary=False)
        return
    if not len(context.target.catches):
        yield "no catches"
        return
    yield "number      hits  event"
    for one in context.target.catches:
        note = " (temporary)" if one.temporary else ""
        yield f"{one.number:6}  {one.hits:8}  {one.request}{note}"


@monitor("catch hypercall", "[NAME|NUMBER[/SUBOP]] [process PID]")
def catch_hypercall(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Stop before Xen handles a hypercall: sched_op, 29, sched_op/block, mmuext_op/new_baseptr"""
    yield from _add(context, ("hypercall", *words), temporary=False)


@monitor("catch trap", "[VECTOR|NAME] [user|kernel] [process PID]")
def catch_trap(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Stop at an exception or software interrupt, before the guest's kernel sees it: 14, pf, #PF, int3"""
    yield from _add(context, ("trap", *words), temporary=False)


@monitor("catch upcall", "[PORT] [user|kernel] [process PID]")
def catch_upcall(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Stop at the first instruction of the event callback when an upcall was delivered"""
    yield from _add(context, ("upcall", *words), temporary=False)


@monitor("catch crash")
def catch_crash(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Stop when the guest asks for the end of its domain as crashed, or did what makes Xen end it"""
    yield from _add(context, ("crash", *words), temporary=False)


@monitor("tcatch", "EVENT")
def tcatch(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """As catch, but for one stop only"""
    yield from _add(context, words, temporary=True)


@monitor("uncatch", "N|all")
def uncatch(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Remove a catch, or all"""
    (which,) = arguments(words, "uncatch N|all", 1)
    if which == "all":
        context.target.catches.clear()
    elif which.isdecimal():
        context.target.catches.remove(int(which))
    else:
        raise TargetError(EINVAL, "usage: monitor uncatch N|all")
    yield f"{len(context.target.catches)} left"


@monitor("why")
def why(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Why the guest stands still, in full"""
    arguments(words, "why", 0)
    yield from why_stopped(context.target)


def _add(context: MonitorContext, words: Sequence[str], *, temporary: bool) -> Iterator[str]:
    made = context.target.catches.add(parse_request(words), temporary=temporary)
    yield f"catch {made.number}: {made.request}"
