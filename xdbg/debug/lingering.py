"""Running without a debugger, for breakpoint commands that it has left behind (``set disconnected-dprintf on``).

Nothing stops: where such a breakpoint is reached its commands are run, and the guest goes past it. As with a debugger,
what the guest computes stays the same.
"""

from xdbg.machine.exits import StopPointExit
from xdbg.machine.registers import RSP
from xdbg.xen.setup import RunEnd
from xdbg.xen.vcpu import Vcpu

from .breakpoint_agent import BreakpointAgent
from .inferiors import Inferiors


class Lingering:
    """The run of a domain whose debugger has gone."""

    def __init__(self, inferiors: Inferiors, agent: BreakpointAgent) -> None:
        self._domain = inferiors.domain
        self._hv = inferiors.domain.hv
        self._inferiors = inferiors
        self._agent = agent
        self._passes: tuple[Vcpu, int, int] | None = None
        """Where a vcpu may go past a stop point: it has been looked at there."""

    def run(self, limit: int) -> RunEnd:
        """Run the domains to instruction count `limit` at the most, less far when much is printed."""
        hv = self._hv
        while hv.cpu.count < limit and not self._agent.console.full:
            vcpu = hv.schedule()
            if vcpu is None:
                return hv.idle_reason()
            skip = self._passes is not None and self._passes == self._place(vcpu)
            count = hv.cpu.count
            came = hv.enter(vcpu, limit, skip_stop_point=skip)
            if skip and hv.cpu.count > count:
                self._passes = None
            match came:
                case StopPointExit(vaddr):
                    if vcpu.domain is self._domain:
                        self._agent.hit(vcpu, self._inferiors.vcpu_thread(vcpu), vaddr)
                    self._passes = self._place(vcpu)
                case _:
                    hv.handle(vcpu, came)
        return RunEnd.LIMIT if hv.alive else RunEnd.SHUT_DOWN

    def _place(self, vcpu: Vcpu) -> tuple[Vcpu, int, int]:
        cpu = self._hv.cpu
        return vcpu, cpu.rip, cpu.gpr[RSP]
