"""The machine under Xen: RAM, the one physical CPU, Xen's own tables, and the domains on it. Xen: arch/x86/setup.c.

How it is run, from above::

    vcpu = hv.schedule()            # timers that are due, then the next vcpu; None: nobody can run
    exit = hv.enter(vcpu, limit)    # the guest runs
    hv.handle(vcpu, exit)           # Xen's part; what is pending is delivered

A debugger looks at `exit` between the second and the third line. Time is the instruction count: one instruction, one
nanosecond, one tick of the TSC. When every vcpu waits, time jumps to the next timer. Nothing here knows the host's
clock.
"""

from enum import Enum

from xdbg.abi.frames import Maddr, Vaddr, mfn_to_maddr
from xdbg.abi.mmu import DOMID_XEN
from xdbg.abi.sched import Shutdown
from xdbg.abi.shared_info import SharedInfo, VcpuInfo
from xdbg.abi.x86 import NR_VECTORS, Cr4
from xdbg.abi.x86_descriptors import IdtGate
from xdbg.machine.cpu import Cpu
from xdbg.machine.exits import Exit
from xdbg.machine.ram import Ram

from . import (  # those that nobody names here fill the hypercall table and that of the backends
    block_backend,
    callback,
    control,
    debugreg,
    descriptor_tables,
    event_channel_op,
    grant_table_op,
    hvm_op,
    iret,
    memory,
    mm,
    mmuext,
    multicall,
    nmi,
    physdev,
    pv_state,
    sched,
    sched_op,
    system_time,
    timer,
    vcpu_op,
    version,
)
from .block_contents import BlockImages
from .console import ConsoleState
from .cpuid import Leaf, guest_cpuid
from .domain import Domain
from .domain_kill import reap
from .entry import return_to_guest
from .event_channel import EventChannels
from .events import DomainShutdown, Observer
from .exit_handler import handle_exit
from .faults import DomainCrash
from .grant_table import GrantTable
from .heap import Heap
from .idt import TSS_SELECTOR, Idt
from .m2p import M2p
from .page_info import PageInfoTable
from .segments import load_segments
from .vcpu import Vcpu
from .xenstore import XenstoreState
from .xenstore_home import make_dom0
from .xenstore_tree import XenstoreTree

BACKEND_MODULES = (block_backend,)
"""The modules with backends, beside those that are used here."""

HYPERCALL_MODULES = (
    callback,
    control,
    debugreg,
    descriptor_tables,
    event_channel_op,
    grant_table_op,
    hvm_op,
    iret,
    memory,
    mm,
    mmuext,
    multicall,
    nmi,
    physdev,
    pv_state,
    sched_op,
    timer,
    vcpu_op,
    version,
)
"""The modules with hypercalls, beside those that are used here."""

XEN_OVERHEAD_FRAMES = 512
"""Frames beside those of the domains, for Xen's tables of a small machine; the M2P is counted extra."""

DIRECTMAP_VIRT_START = 0xFFFF_8300_0000_0000
"""Where Xen's own mapping of all RAM begins; a guest sees no more of it than addresses."""

TICK_NS = 10_000_000
"""Xen's own tick: an upcall that the guest unmasked without telling Xen is seen at the next one at the latest."""

_CR2 = VcpuInfo.offset_of("arch")
_MASK = VcpuInfo.offset_of("evtchn_upcall_mask")


class RunEnd(Enum):
    """Why `Hypervisor.run` came back."""

    LIMIT = "the instruction count was reached"
    IDLE = "nothing can run before there is input"
    SHUT_DOWN = "every domain has shut down"


class Hypervisor:
    """A machine with room for domains of `nr_pages` frames in all."""

    def __init__(self, nr_pages: int) -> None:
        nr_frames = nr_pages + XEN_OVERHEAD_FRAMES + nr_pages // 256
        self.ram = Ram(nr_frames << 12)
        self.cpu = Cpu(self.ram)
        self.cpu.cpuid = self._cpuid
        self.observer: Observer | None = None
        self.page_info = PageInfoTable(nr_frames)
        self.heap = Heap(self.ram, self.page_info)
        self.m2p = M2p(self)
        self.cpu.set_tr(TSS_SELECTOR)
        self.idt = Idt(self.ram, self.heap.alloc(DOMID_XEN))
        self.cpu.set_idt(Vaddr(DIRECTMAP_VIRT_START + self.idt.maddr), IdtGate.SIZE * NR_VECTORS - 1)
        self.domains: dict[int, Domain] = {}
        self.last_domid = 0
        """The domid that was given last; none is given twice."""
        self.dying: list[int] = []
        """Domains that were destroyed, and of which frames are left: other domains have them mapped."""
        self.xenstore_tree = XenstoreTree()
        self.block_images: BlockImages | None = None
        """The images behind the domains' disks: like the observer, no part of the state."""
        self.current: Vcpu | None = None
        """The vcpu whose registers are in the CPU; it keeps them there while nobody else runs."""
        self.running: Vcpu | None = None
        """The vcpu that has the CPU; None while all wait."""
        self.reset_state = self.cpu.save()
        """The registers of a vcpu that nobody has started."""
        self.next_tick_ns = TICK_NS
        self.slice_end_ns = 0
        """The end of the turn of `running`, if another wants the CPU."""
        self.nr_vcpus = 0
        """Of all domains."""
        self._entry_limit = 0
        """The instruction count at which Xen had something to do, when a vcpu was last scheduled."""
        self.contended = False
        """Another vcpu than the one that was last scheduled could run, too."""
        self.audit_every = 0
        """After so many exits all types and references are recounted (`audit`), to find mistakes of Xen's; 0: never."""
        self.exits_since_audit = 0
        make_dom0(self)

    # -- domains

    def create_domain(self, name: str, nr_pages: int, nr_vcpus: int = 1) -> Domain:
        """A domain of `nr_pages` frames, not yet built: `dom_builder` fills it. Of its vcpus only the first starts."""
        self.last_domid += 1
        domid = self.last_domid
        domain = Domain(self, domid, name, nr_pages)
        self.domains[domid] = domain
        domain.shared_info = self.heap.alloc(DOMID_XEN)
        domain.vcpus.extend(self._create_vcpu(domain, number) for number in range(nr_vcpus))
        self.nr_vcpus += nr_vcpus
        domain.event_channels = EventChannels.create(domain)
        domain.grant_table = GrantTable.create(domain)
        domain.console = ConsoleState.create(domain)
        domain.xenstore = XenstoreState.create(domain)
        system_time.init_wallclock(domain)
        return domain

    def _create_vcpu(self, domain: Domain, vcpu_id: int) -> Vcpu:
        vcpu = Vcpu(domain, vcpu_id, context=self.reset_state)
        vcpu.vcpu_info = Maddr(mfn_to_maddr(domain.shared_info) + SharedInfo.offset_of("vcpu_info") + 64 * vcpu_id)
        self.ram.buffer[vcpu.vcpu_info + _MASK] = 1
        descriptor_tables.init_vcpu(vcpu)
        system_time.update_time_info(vcpu)
        return vcpu

    def crash_domain(self, vcpu: Vcpu, reason: str) -> None:
        """End a domain that can't go on; it stays readable. Xen: domain_crash()."""
        self.shutdown_domain(vcpu.domain, Shutdown.CRASH, reason)

    def shutdown_domain(self, domain: Domain, code: int, reason: str = "") -> None:
        """End a domain with a SHUTDOWN_* code. Its memory and registers stay as they are."""
        if domain.shutdown_code is None:
            domain.shutdown_code = code
            domain.shutdown_reason = reason
            if self.observer is not None:
                self.observer.observe(domain.vcpus[0], DomainShutdown(code, reason))

    # -- time

    def now(self) -> int:
        """System time in ns."""
        return self.cpu.tsc

    def guest_cr2(self, vcpu: Vcpu) -> Vaddr:
        """The CR2 that the guest sees."""
        return Vaddr(self.ram.read_u64(vcpu.vcpu_info + _CR2))

    def set_guest_cr2(self, vcpu: Vcpu, cr2: Vaddr) -> None:
        """Put a fault address where the guest reads it. Xen: arch_set_cr2()."""
        self.ram.write_u64(vcpu.vcpu_info + _CR2, cr2)

    def _cpuid(self, leaf: int, subleaf: int, count: int) -> Leaf:
        """What the CPU says to the current vcpu; always the same, whatever the instruction `count`."""
        del count
        assert self.current is not None
        return guest_cpuid(self.current, leaf, subleaf)

    # -- running

    def schedule(self) -> Vcpu | None:
        """Fire the timers that are due and make the next vcpu current.

        With all vcpus waiting, time jumps to the next timer. None: no domain can run, ever or before there is input.
        """
        if self.dying:
            reap(self)
        while True:
            now = self.now()
            interrupted = now >= self.next_tick_ns
            due = timer.next_deadline_ns(self)
            current = self.current
            if due is not None and due <= now:
                timer.run_timers(self, now)
                interrupted = True
                current = None
            vcpu = self.running
            if vcpu is None or not vcpu.runnable or (now >= self.slice_end_ns and self._others_runnable(vcpu)):
                vcpu = sched.pick_vcpu(self)
                self._account(vcpu, now)
            if vcpu is None:
                due = timer.next_deadline_ns(self)
                if due is None:
                    return None
                self.cpu.tsc_offset += max(0, due - now)
                continue
            if interrupted:
                # An interrupt of Xen's own: its way back is a return to the guest like any other.
                self.next_tick_ns = now - now % TICK_NS + TICK_NS
                vcpu.check_events = True
            try:
                if vcpu is not self.current:
                    self.switch_to(vcpu)
                if vcpu.check_events:
                    return_to_guest(vcpu)
            except DomainCrash as crash:
                self.crash_domain(vcpu, crash.reason)
                continue
            self.contended = self._others_runnable(vcpu)
            if vcpu is not current:
                # Timers have fired, or are the other vcpu's.
                due = timer.next_deadline_ns(self)
            self._entry_limit = self._next_event_count(due)
            return vcpu

    def _others_runnable(self, vcpu: Vcpu) -> bool:
        return self.nr_vcpus > 1 and sched.others_runnable(self, vcpu)

    def _account(self, vcpu: Vcpu | None, now: int) -> None:
        """The CPU goes from `running` to `vcpu` (None: idleness): runstates change."""
        if vcpu is not self.running:
            sched.context_switched(self.running, vcpu, now)
            self.running = vcpu
            self.slice_end_ns = now + sched.SLICE_NS

    def switch_to(self, vcpu: Vcpu) -> None:
        """Put a vcpu's registers into the CPU, the former current one's into its `context`. Xen: context_switch().

        Its page table comes with it: nothing of the TLB is left. Raises `DomainCrash` if its segments can't be loaded.
        """
        cpu = self.cpu
        if self.current is not None:
            self.current.context = cpu.save()
        assert vcpu.context is not None
        cpu.load(vcpu.context)
        vcpu.context = None
        self.current = vcpu
        cpu.cr3 = vcpu.cr3
        cpu.cpuid_allowed = vcpu.kernel_mode or not vcpu.cpuid_faulting
        cpu.rdtsc_allowed = not vcpu.cr4 & Cr4.TSD
        cpu.tsc_aux = vcpu.tsc_aux
        descriptor_tables.load_gdt(vcpu)
        load_segments(vcpu)
        debugreg.load_debugregs(vcpu)
        vcpu.check_events = True

    def enter(self, vcpu: Vcpu, limit: int, *, skip_stop_point: bool = False) -> Exit:
        """Run the current vcpu until an exit, at most to instruction count `limit`."""
        assert vcpu is self.current
        event = self._next_event_count(timer.next_deadline_ns(self))
        return self.cpu.enter(min(limit, event), skip_stop_point=skip_stop_point)

    def spin(self, vcpu: Vcpu) -> bool:
        """Let time pass to Xen's next event, as if the current vcpu executed jumps to itself; it executes nothing.

        False, and no time has passed, when nothing will ever come of it before there is input.
        """
        assert vcpu is self.current
        if (
            timer.next_deadline_ns(self) is None
            and not sched.events_need_delivery(vcpu)
            and not sched.others_runnable(self, vcpu)
        ):
            return False
        event = self._next_event_count(timer.next_deadline_ns(self))
        self.cpu.tsc_offset += max(0, event - self.cpu.count)
        return True

    def step(self, vcpu: Vcpu) -> Exit:
        """Run one instruction of the current vcpu."""
        assert vcpu is self.current
        return self.cpu.step()

    def handle(self, vcpu: Vcpu, came: Exit) -> None:
        """Xen's part of an exit. Raises `AuditError` if its counts are wrong afterwards, and anybody looks."""
        handle_exit(vcpu, came)
        if self.audit_every:
            self._count_exit()

    def run(self, limit: int) -> RunEnd:
        """Run the domains, with nobody looking at the exits, to instruction count `limit` at the most."""
        while self.cpu.count < limit:
            vcpu = self.schedule()
            if vcpu is None:
                return self.idle_reason()
            self.handle(vcpu, self.cpu.enter(min(limit, self._entry_limit)))
        return RunEnd.LIMIT if self.alive else RunEnd.SHUT_DOWN

    def _count_exit(self) -> None:
        self.exits_since_audit += 1
        if self.exits_since_audit >= self.audit_every:
            self.exits_since_audit = 0
            from .audit import audit  # noqa: PLC0415 - numpy takes a while to load, and few runs need it

            audit(self, scrubbed=False)

    @property
    def alive(self) -> bool:
        """Whether any domain has not shut down."""
        return any(domain.shutdown_code is None for domain in self.domains.values())

    def idle_reason(self) -> RunEnd:
        """What it means that `schedule` found nobody."""
        return RunEnd.IDLE if self.alive else RunEnd.SHUT_DOWN

    def _next_event_count(self, next_timer: int | None) -> int:
        """The instruction count at which Xen itself has something to do; its first timer is due at `next_timer`."""
        due = self.next_tick_ns
        if next_timer is not None and next_timer < due:
            due = next_timer
        if self.contended and self.slice_end_ns < due:
            due = self.slice_end_ns
        return due - self.cpu.tsc_offset
