"""Small pieces of a PV vcpu's state that a guest sets by hypercall. Xen: arch/x86/pv/misc-hypercalls.c, domain.c.

Kernel stack, FPU trap, segment bases, assists; debug registers are in `debugreg`.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall, SegBase, VmasstCmd, VmasstType
from xdbg.abi.x86 import Cr0
from xdbg.abi.x86_descriptors import SELECTOR_OFFSET, SELECTOR_TI
from xdbg.machine.registers import SelectorError

from .callback import is_canonical
from .descriptor_tables import map_ldt_shadow_page
from .faults import HypercallError
from .hypercall import hypercall
from .vcpu import Vcpu

_ASSISTS = frozenset(int(assist) for assist in VmasstType)
"""What a 64-bit PV guest may ask for. Xen: PV_VM_ASSIST_VALID."""


@hypercall(Hypercall.STACK_SWITCH)
def do_stack_switch(vcpu: Vcpu, ss: int, esp: int) -> int:
    """HYPERVISOR_stack_switch(ss, esp): the stack for frames when user mode is interrupted. Xen: do_stack_switch()."""
    ss &= 0xFFFF
    vcpu.kernel_ss = ss | 3
    vcpu.kernel_sp = Vaddr(esp)
    return 0


@hypercall(Hypercall.FPU_TASKSWITCH)
def do_fpu_taskswitch(vcpu: Vcpu, set: int) -> int:  # noqa: A002 - the name in Xen's prototype
    """HYPERVISOR_fpu_taskswitch(set): the next x87 or SSE instruction traps (#NM) or not. Xen: do_fpu_taskswitch()."""
    if set:
        vcpu.cr0 |= Cr0.TS
    else:
        vcpu.cr0 &= ~Cr0.TS
    vcpu.domain.hv.cpu.cr0_ts = bool(set)
    return 0


@hypercall(Hypercall.VM_ASSIST)
def do_vm_assist(vcpu: Vcpu, cmd: int, uint32: int) -> int:
    """HYPERVISOR_vm_assist(cmd, type): switch an assist on or off. Xen: vm_assist()."""
    if uint32 not in _ASSISTS:
        raise HypercallError(Errno.EINVAL)
    match cmd:
        case VmasstCmd.ENABLE:
            vcpu.domain.vm_assist |= 1 << uint32
        case VmasstCmd.DISABLE:
            vcpu.domain.vm_assist &= ~(1 << uint32)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0


@hypercall(Hypercall.SET_SEGMENT_BASE)
def do_set_segment_base(vcpu: Vcpu, which: int, base: int) -> int:
    """HYPERVISOR_set_segment_base(which, base): FS, GS of either mode, or the user's GS selector.

    Xen: do_set_segment_base().
    """
    cpu = vcpu.domain.hv.cpu
    if which != SegBase.GS_USER_SEL and not is_canonical(base):
        raise HypercallError(Errno.EINVAL)
    match which:
        case SegBase.FS:
            cpu.fs_base = base
        case SegBase.GS_USER:
            vcpu.gs_base_user = base
        case SegBase.GS_KERNEL:
            cpu.gs_base = base
        case SegBase.GS_USER_SEL:
            _load_user_gs(vcpu, base & 0xFFFF)
        case _:
            raise HypercallError(Errno.EINVAL)
    return 0


def _load_user_gs(vcpu: Vcpu, selector: int) -> None:
    """Load the selector as `mov gs` would between two `swapgs`: the user's base becomes the descriptor's.

    One that can't be loaded is loaded as 0, and no error is given: a guest that cares reads GS again.
    """
    cpu = vcpu.domain.hv.cpu
    kernel_base = cpu.gs_base
    if selector > 3:
        selector |= 3
    if selector & SELECTOR_TI:
        map_ldt_shadow_page(vcpu, selector & SELECTOR_OFFSET)
    try:
        cpu.gs = selector
    except SelectorError:
        cpu.gs = 0
    vcpu.gs_base_user = cpu.gs_base
    cpu.gs_base = kernel_base
