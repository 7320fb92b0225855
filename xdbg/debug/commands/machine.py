"""Monitor commands about all domains of the machine."""

from collections.abc import Iterator, Sequence
from errno import EINVAL, EPERM

from xdbg.abi.frames import PAGE_SHIFT
from xdbg.abi.vcpu import Runstate
from xdbg.debug.monitor import MonitorContext, arguments, monitor
from xdbg.debug.running.stops import CRASHES
from xdbg.rsp.target import TargetError
from xdbg.xen.domain import Domain
from xdbg.xen.runstate import runstate_info
from xdbg.xen.sched import domain_pause, domain_unpause
from xdbg.xen.setup import Hypervisor

_MIB_SHIFT = 20 - PAGE_SHIFT


@monitor("list", observing=True)
def list_domains(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The domains of the machine, as xl list: r running, b blocked, p paused, s shut down, c crashed, d dying"""
    arguments(words, "list", 0)
    clients = context.target.clients
    addresses = {} if clients is None else clients.addresses()
    yield f"{'Name':<24}  {'ID':>3}  {'Mem':>6}  {'VCPUs':>5}  State   {'Time(ns)':>14}  gdb"
    for domid in sorted(context.hv.domains):
        domain = context.hv.domains[domid]
        mark = " (this one)" if domain is context.domain else ""
        yield (
            f"{domain.name:<24}  {domid:>3}  {domain.nr_pages >> _MIB_SHIFT:>6}  {len(domain.vcpus):>5}  "
            f"{_state(context.hv, domain)}  {_time_ns(domain):>14}  {addresses.get(domid, '-')}{mark}"
        )


@monitor("pause", "DOMAIN")
def pause(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Let another domain, named or numbered as in `list`, execute nothing while the others run"""
    domain = _other(context, words, "pause")
    domain_pause(domain)
    yield f"domain {domain.domid} ({domain.name}) is paused"


@monitor("unpause", "DOMAIN")
def unpause(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Undo `pause`; a domain that was made anew and waits for a debugger begins, too"""
    domain = _other(context, words, "unpause")
    domain_unpause(domain)
    yield f"domain {domain.domid} ({domain.name}) runs with the others"


def _other(context: MonitorContext, words: Sequence[str], command: str) -> Domain:
    wanted = arguments(words, f"{command} DOMAIN", 1)[0]
    for domid in sorted(context.hv.domains):
        domain = context.hv.domains[domid]
        if wanted in (domain.name, str(domid)):
            if domain is context.domain:
                raise TargetError(EPERM, f"{wanted} is the domain that is debugged here: it stands when it is stopped")
            return domain
    raise TargetError(EINVAL, f"there is no domain {wanted}; `monitor list` has all")


def _state(hv: Hypervisor, domain: Domain) -> str:
    """Xen: XEN_DOMINF_* as xl's list_domains() shows them."""
    has_cpu = hv.running is not None and hv.running.domain is domain
    is_over = domain.shutdown_code is not None
    waits = not is_over and not any(vcpu.runnable or vcpu.paused for vcpu in domain.vcpus)
    return "".join(
        letter if holds else "-"
        for letter, holds in (
            ("r", has_cpu and not is_over and not domain.paused),
            ("b", waits and not domain.paused),
            ("p", domain.paused),
            ("s", is_over),
            ("c", domain.shutdown_code in CRASHES),
            ("d", domain.is_dying),
        )
    )


def _time_ns(domain: Domain) -> int:
    """How long its vcpus had the CPU."""
    now = domain.hv.now()
    return sum(int(runstate_info(vcpu, now).time[Runstate.RUNNING]) for vcpu in domain.vcpus)
