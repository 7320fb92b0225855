"""Monitor commands about the debugger itself: help, time, steps, traces, who is connected."""

from collections.abc import Iterator, Sequence
from errno import EINVAL, ENOTSUP

from xdbg.debug.monitor import MonitorContext, arguments, monitor, rows
from xdbg.rsp.target import TargetError


@monitor("help", "[COMMAND]", observing=True)
def help_commands(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """These lines"""
    del context
    wanted = " ".join(words)
    chosen = [row for row in rows() if row.name.startswith(wanted)]
    if not chosen:
        raise TargetError(EINVAL, f"no command {wanted!r}; `monitor help` lists all")
    width = max(len(row.usage) for row in chosen)
    for row in chosen:
        yield f"{row.usage:<{width}}  {row.summary}"


@monitor("when", observing=True)
def when(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """How many instructions have been executed, and the system time"""
    arguments(words, "when", 0)
    yield f"{context.hv.cpu.count} instructions, system time {context.hv.now()} ns"


@monitor("step-mask", "[on|off]")
def step_mask(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Whether a step of the kernel runs through the upcalls that come in between (on) or ends in them"""
    chosen = arguments(words, "step-mask [on|off]", 0, 1)
    stepping = context.target.run_control.stepping
    if chosen:
        if chosen[0] not in ("on", "off"):
            raise TargetError(EINVAL, "usage: monitor step-mask [on|off]")
        stepping.over_upcalls = chosen[0] == "on"
    yield f"step-mask is {'on' if stepping.over_upcalls else 'off'}"


@monitor("trace", "[on [KINDS] | off]")
def trace(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Turn the trace of the guest's way through the hypervisor on or off; KINDS as `exception,iret`"""
    control = context.target.trace
    if control is None:
        raise TargetError(ENOTSUP, "there is no trace here")
    match words:
        case []:
            pass
        case ["off"]:
            control.stop()
        case ["on", *kinds]:
            try:
                control.start([kind for word in kinds for kind in word.split(",") if kind])
            except ValueError as error:
                raise TargetError(EINVAL, str(error)) from error
        case _:
            raise TargetError(EINVAL, "usage: monitor trace [on [KINDS] | off]")
    if control.active:
        yield f"trace is on: {', '.join(control.active)}; to {control.destination}"
    else:
        yield f"trace is off; kinds: {', '.join(control.kinds)}"


@monitor("clients", observing=True)
def clients(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Who is connected: the debugger, and those who only observe"""
    arguments(words, "clients", 0)
    if context.target.clients is None:
        raise TargetError(ENOTSUP, "there is no list of clients here")
    yield from context.target.clients.describe()
