"""Segment registers: of a vcpu that gets the CPU, and of a return to a guest. Xen: load_segments(), arch/x86/domain.c.

Xen returns to a guest by the CPU's own iret, which loads CS and SS: their descriptors say whether the guest goes on in
64-bit or in 32-bit code, and what can't be loaded is a #GP. Xen: iret_exit_to_guest.

Xen loads DS, ES, FS and GS from the vcpu's own descriptor tables each time it gives it the CPU, then the 64-bit bases
of FS and GS, which are no part of a descriptor. A selector that can't be loaded any more (its descriptor has been
changed meanwhile) becomes 0, and the guest hears of it by its failsafe callback. The frame has the selectors as they
were, lowest address first: rcx, r11, ds, es, fs, gs, rip, cs with the upcall mask, rflags, rsp, ss.
"""

from struct import Struct
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.x86 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, RFLAGS_IOPL_SHIFT, Rflags, Vector
from xdbg.abi.x86_descriptors import SELECTOR_OFFSET, SELECTOR_TI
from xdbg.machine.registers import DS, ES, FS, GS, R11, RCX, RSP, SelectorError

from . import descriptor_tables, entry
from .callback import is_canonical
from .events import BounceFrame, HandlerEntered
from .faults import DomainCrash, GuestFault
from .guest_access import copy_to_guest
from .vcpu import Vcpu

_FRAME: Final = Struct("<11Q")
_RPL: Final = 3
_U32: Final = 0xFFFF_FFFF
_PRESENT, _SEGMENT, _CODE, _WRITABLE, _LONG = 1 << 47, 1 << 44, 1 << 43, 1 << 41, 1 << 53
"""Bits of a segment descriptor."""
_SHAPE: Final = 0xFFCF_00FF_FFFF_FFFF & ~(1 << 52)
"""Base, limit, granularity, default size and 64 bits of a code segment's descriptor."""
_FLAT_32: Final = 0x00CF_0000_0000_FFFF
"""They, of 4 GiB of 32-bit code from 0."""
_ARCH_IOPL: Final = 1 << VmasstType.ARCHITECTURAL_IOPL


def load_segments(vcpu: Vcpu) -> None:
    """Load what the current vcpu's segment registers name; its page table and descriptor tables are loaded.

    Raises `DomainCrash` when a selector is bad and the failsafe callback can't be told.
    """
    cpu = vcpu.domain.hv.cpu
    selectors = tuple(cpu.selector(number) for number in (DS, ES, FS, GS))
    if any(selector & ~_RPL for selector in selectors):
        _load_data_segments(vcpu, selectors)
    if cpu.cs != FLAT_KERNEL_CS64 or cpu.ss != FLAT_KERNEL_SS64:
        load_return_segments(vcpu, cpu.cs, cpu.ss)


def load_return_segments(vcpu: Vcpu, cs: int, ss: int) -> None:
    """Load what the current vcpu, which is on its way back to the guest, is to have in CS and SS.

    Where the CPU's own iret would raise #GP, the guest gets that as if it had already been at the place. Raises
    `DomainCrash` for code that this machine does not run: of 16 bits, or of 32 in a segment that is not flat.
    """
    error_code = _return_fault(vcpu, cs, ss)
    if error_code is not None:
        entry.inject(vcpu, Vector.GP, error_code)


def _return_fault(vcpu: Vcpu, cs: int, ss: int) -> int | None:
    cpu = vcpu.domain.hv.cpu
    code = descriptor_tables.read_descriptor(vcpu, cs)
    if code is None or code & (_PRESENT | _SEGMENT | _CODE) != _PRESENT | _SEGMENT | _CODE or not _ring3(code):
        return cs & ~_RPL
    if not code & _LONG and code & _SHAPE != _FLAT_32:
        raise DomainCrash(f"return to code segment {cs:#x}, which is neither of 64 bits nor flat and of 32")
    stack = descriptor_tables.read_descriptor(vcpu, ss)
    if stack is None or stack & (_PRESENT | _SEGMENT | _CODE | _WRITABLE) != _PRESENT | _SEGMENT | _WRITABLE:
        return ss & ~_RPL
    cpu.load_code(cs, code, ss, stack)
    if not code & _LONG:
        return 0 if cpu.rip > _U32 else None
    return None if is_canonical(cpu.rip) else 0


def _ring3(descriptor: int) -> bool:
    return descriptor >> 45 & 3 == 3


def _load_data_segments(vcpu: Vcpu, selectors: tuple[int, ...]) -> None:
    cpu = vcpu.domain.hv.cpu
    fs_base, gs_base = cpu.fs_base, cpu.gs_base
    bad = False
    for number, selector in zip((DS, ES, FS, GS), selectors, strict=True):
        if selector & SELECTOR_TI:
            # The CPU's own look-up would fault in Xen, which maps the page then.
            descriptor_tables.map_ldt_shadow_page(vcpu, selector & SELECTOR_OFFSET)
        try:
            cpu.load_segment(number, selector)
        except SelectorError:
            cpu.load_segment(number, 0)
            bad = True
    cpu.fs_base, cpu.gs_base = fs_base, gs_base
    if bad:
        _failsafe(vcpu, selectors)


def _failsafe(vcpu: Vcpu, selectors: tuple[int, ...]) -> None:
    hv = vcpu.domain.hv
    cpu, gpr = hv.cpu, hv.cpu.gpr
    rsp, cs, was_user = gpr[RSP], cpu.cs, not vcpu.kernel_mode
    if was_user:
        entry.toggle_guest_mode(vcpu)
        sp = vcpu.kernel_sp & ~0xF
    else:
        cs &= ~_RPL
        sp = rsp & ~0xF
    mask = entry.upcall_mask(vcpu)
    rflags = cpu.rflags
    shown = rflags & ~(Rflags.IF | Rflags.IOPL) | (0 if mask else Rflags.IF)
    if vcpu.domain.vm_assist & _ARCH_IOPL:
        shown |= vcpu.iopl << RFLAGS_IOPL_SHIFT
    words = (gpr[RCX], gpr[R11], *selectors, cpu.rip, cs | mask << 32, int(shown), rsp, cpu.ss)
    sp -= _FRAME.size
    try:
        copy_to_guest(vcpu, sp, _FRAME.pack(*words))
    except GuestFault as fault:
        raise DomainCrash(f"page fault while writing a failsafe frame at {fault.vaddr:#x}") from None
    if vcpu.failsafe_callback.masks_events:
        entry.set_upcall_mask(vcpu, 1)
    gpr[RSP] = sp
    cpu.rip = vcpu.failsafe_callback.address
    cpu.cs, cpu.ss = FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
    cpu.rflags = rflags & ~(Rflags.AC | Rflags.VM | Rflags.RF | Rflags.NT | Rflags.TF)
    if hv.observer is not None:
        hv.observer.observe(vcpu, BounceFrame(Vaddr(sp), words, False, was_user))
        hv.observer.observe(vcpu, HandlerEntered("failsafe", vcpu.failsafe_callback.address))
