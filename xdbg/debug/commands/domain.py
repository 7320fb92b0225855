"""Monitor commands about the domain: its vcpus, what they have registered with Xen, its ports and processes."""

from collections.abc import Iterator, Sequence
from errno import EINVAL

from xdbg.abi.event_channel import EvtchnStat, Virq
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.sched import Shutdown
from xdbg.abi.vcpu import Runstate
from xdbg.abi.x86 import Vector
from xdbg.debug.inferiors.vcpu_registers import rip_of, rsp_of, system_value
from xdbg.debug.monitor import MonitorContext, arguments, monitor, number
from xdbg.rsp.registers import REGISTERS
from xdbg.rsp.target import TargetError
from xdbg.xen.event_channel import is_masked, is_pending, pending_ports
from xdbg.xen.vcpu import Callback, Vcpu


@monitor("info domain", observing=True)
def info_domain(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The domain: state, memory, what Xen assists it with"""
    arguments(words, "info domain", 0)
    domain = context.domain
    row = domain.describe()
    yield f"domain {domain.domid} {domain.name}: {row['state']}, {row['vcpus']} vcpu(s)"
    yield f"memory: {domain.nr_pages} pages of at most {domain.max_pages} ({domain.nr_pages >> 8} MiB)"
    yield f"shared_info: mfn {domain.shared_info:#x}"
    assists = [kind.name.lower() for kind in VmasstType if domain.vm_assist >> kind & 1]
    yield f"vm_assist: {', '.join(assists) or 'none'}"
    if domain.shutdown_code is not None:
        reason = f": {domain.shutdown_reason}" if domain.shutdown_reason else ""
        yield f"shut down with code {domain.shutdown_code} ({Shutdown.name_of(domain.shutdown_code).lower()}){reason}"
    yield f"guest: {context.target.profile.name}, kernel file {context.target.profile.kernel_path}"


def _vcpus(context: MonitorContext, words: Sequence[str], usage: str) -> Sequence[Vcpu]:
    """The vcpu of that number, or all."""
    chosen = arguments(words, usage, 0, 1)
    if not chosen:
        return context.domain.vcpus
    index = number(chosen[0])
    if index >= len(context.domain.vcpus):
        raise TargetError(EINVAL, f"there is no vcpu {index}")
    return [context.domain.vcpus[index]]


def _callback(context: MonitorContext, callback: Callback) -> str:
    if not callback.address:
        return "none"
    masks = ", masks events" if callback.masks_events else ""
    return f"{context.symbol(callback.address)}{masks}"


@monitor("info vcpu", "[N]", observing=True)
def info_vcpu(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """vcpus: mode, page tables, entry points, pending events, timers"""
    for vcpu in _vcpus(context, words, "info vcpu [N]"):
        yield f"vcpu {vcpu.vcpu_id}: {context.inferiors.describe_vcpu(vcpu)}, run state {_runstate(vcpu)}"
        if not vcpu.is_initialised:
            continue
        yield f"  rip {context.symbol(rip_of(vcpu))}, rsp {rsp_of(vcpu):#x}, kernel stack {vcpu.kernel_sp:#x}"
        user = "none" if vcpu.guest_table_user is None else f"mfn {vcpu.guest_table_user:#x}"
        yield f"  page tables: kernel mfn {vcpu.guest_table:#x}, user {user}; cr3 {vcpu.cr3:#x}"
        yield f"  trap table: {sum(gate is not None for gate in vcpu.trap_table)} gates"
        for name in ("event", "failsafe", "syscall", "sysenter", "syscall32"):
            yield f"  {name} callback: {_callback(context, getattr(vcpu, f'{name}_callback'))}"
        mask = system_value(vcpu, "xen_upcall_mask")
        pending = system_value(vcpu, "xen_upcall_pending")
        ports = ", ".join(map(str, pending_ports(vcpu))) or "none"
        yield f"  upcall mask {mask}, upcall pending {pending}, unmasked pending ports: {ports}"
        one_shot, period = vcpu.timers.singleshot_ns or "off", vcpu.timers.periodic_period_ns or "off"
        yield f"  timers: one-shot at {one_shot}, periodic {period}, poll until {vcpu.timers.poll_ns or 'off'} (ns)"
        gdt = f"{vcpu.gdt_entries} entries in {len(vcpu.gdt_frames)} frames" if vcpu.gdt_entries else "none"
        yield f"  iopl {vcpu.iopl}, gdt {gdt}, ldt {vcpu.ldt_entries} entries"


def _runstate(vcpu: Vcpu) -> str:
    return Runstate.name_of(vcpu.runstate.state).lower()


@monitor("traps", "[N]", observing=True)
def traps(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The trap table of the first or the given vcpu"""
    chosen = _vcpus(context, words, "traps [N]")[0]
    yield "vector  name  dpl  masks events  handler"
    for gate in chosen.trap_table:
        if gate is not None:
            name = Vector.name_of(gate.vector) if gate.vector in list(Vector) else "-"
            masks = "yes" if gate.masks_events else "no"
            yield f"{gate.vector:6}  #{name:<4} {gate.dpl:3}  {masks:<12}  {gate.cs:#x}:{context.symbol(gate.address)}"


@monitor("events", observing=True)
def events(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The event channels: what each port is bound to, pending, masked"""
    arguments(words, "events", 0)
    domain = context.domain
    yield "port  bound to                    vcpu  pending  masked"
    for index, port in enumerate(domain.event_channels.ports):
        match port.state:
            case EvtchnStat.CLOSED:
                continue
            case EvtchnStat.VIRQ:
                bound = f"virq {Virq.name_of(port.virq).lower()}"
            case EvtchnStat.INTERDOMAIN if port.backend is not None:
                bound = f"backend {port.backend}"
            case EvtchnStat.INTERDOMAIN:
                bound = f"domain {port.remote_domid} port {port.remote_port}"
            case EvtchnStat.UNBOUND:
                bound = f"waits for domain {port.remote_domid}"
            case _:
                bound = EvtchnStat.name_of(port.state).lower()
        pending = "yes" if is_pending(domain, index) else "no"
        masked = "yes" if is_masked(domain, index) else "no"
        yield f"{index:4}  {bound:<26}  {port.vcpu_id:4}  {pending:<7}  {masked}"


@monitor("regs xen", observing=True)
def xen_registers(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The registers of the paravirtual interface and the control registers"""
    arguments(words, "regs xen", 0)
    thread = context.thread or context.inferiors.vcpu_thread(context.vcpu)
    for register in REGISTERS:
        if register.offset is None:
            value = int.from_bytes(context.inferiors.read_system(thread, register.number), "little")
            yield f"{register.name:<20}{value:#x}"


@monitor("ps", observing=True)
def ps(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The guest's processes; `attach PID` debugs one"""
    arguments(words, "ps", 0)
    processes = context.target.profile.processes()
    if not processes:
        yield "no processes are known"
        return
    attached = context.inferiors.pids()
    yield "   pid  parent  state       cr3          program"
    for process in processes:
        parent = "-" if process.parent_pid is None else process.parent_pid
        cr3 = "-" if process.cr3 is None else f"{process.cr3:#x}"
        notes = " (attached)" if process.pid in attached else ""
        if process.vcpu_id is not None:
            notes = f" on vcpu {process.vcpu_id}{notes}"
        program = process.exec_path or process.name
        yield f"{process.pid:6}  {parent:>6}  {process.state:<10}  {cr3:<11}  {program}{notes}"
