"""Page faults that Xen repairs itself. Xen: fixup_page_fault(), arch/x86/traps.c; pv/ro-page-fault.c; pv/traps.c.

**Writable page tables.** With VMASST_TYPE_writable_pagetables a guest kernel may write to an L1 table as if it were
mapped writable. The write faults; Xen decodes it, checks the new entry as mmu_update would, stores it and goes on
behind the instruction. What is refused, what is no aligned store of 1, 2, 4 or 8 bytes, and writes to L2 to L4 tables
are the guest's own page fault.

**LDT.** Its pages are mapped where the CPU looks for them when it first does.

The engine walks the tables again before it reports a fault, so a fault that a stale translation caused does not happen.
"""

from typing import Final

from xdbg.abi.frames import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Maddr, Vaddr
from xdbg.abi.hypercalls import VmasstType
from xdbg.abi.x86 import (
    HYPERVISOR_VIRT_END,
    HYPERVISOR_VIRT_START,
    PTE_ADDR_MASK,
    PTE_PRESENT,
    PTE_RW,
    PTE_SIZE,
    Dr6,
    Pfec,
    Rflags,
    SelectorErrorCode,
    Vector,
)
from xdbg.machine.registers import RAX, RCX, RDI, RSI

from .descriptor_tables import ldt_offset, map_ldt_shadow_page
from .entry import inject
from .events import FaultFixedUp, MemoryWritten
from .faults import GuestFault, HypercallError
from .guest_access import copy_from_guest
from .mm import guest_l1e
from .page_info import PGT_L1_PAGE_TABLE
from .page_table_entries import write_l1_entry
from .store_decode import Register, Store, decode_store
from .store_emulate import Inputs, effect_of
from .vcpu import Vcpu

_LONGEST: Final = 15
_U64: Final = (1 << 64) - 1
_CANONICAL_LOW_END: Final = 1 << 47


def fixup_page_fault(vcpu: Vcpu, cr2: Vaddr, error_code: int) -> bool:
    """Whether Xen dealt with the fault; if not, it is the guest's."""
    if HYPERVISOR_VIRT_START <= cr2 < HYPERVISOR_VIRT_END:
        if error_code & (Pfec.USER_MODE | Pfec.RESERVED_BIT):
            return False
        return _ldt_mapping_fault(vcpu, cr2, error_code)
    wanted = Pfec.PAGE_PRESENT | Pfec.WRITE_ACCESS
    if (
        error_code & (wanted | Pfec.RESERVED_BIT | Pfec.INSN_FETCH) == wanted
        and vcpu.kernel_mode
        and vcpu.domain.vm_assist >> VmasstType.WRITABLE_PAGETABLES & 1
    ):
        return _ptwr_fault(vcpu, cr2)
    return False


# -- LDT


def _ldt_mapping_fault(vcpu: Vcpu, cr2: Vaddr, error_code: int) -> bool:
    """The CPU loads a selector of the LDT. Xen: handle_gdt_ldt_mapping_fault()."""
    offset = ldt_offset(vcpu, cr2)
    if offset is None:
        return False
    hv = vcpu.domain.hv
    if map_ldt_shadow_page(vcpu, offset):
        _observe(vcpu, cr2, f"page of the LDT mapped, offset {offset:#x}")
        return True
    fault = vcpu.ldt_base + offset & _U64
    if _CANONICAL_LOW_END <= fault < HYPERVISOR_VIRT_START:
        low_bits = SelectorErrorCode.EXT | SelectorErrorCode.IDT | SelectorErrorCode.TI
        inject(vcpu, Vector.GP, offset & ~low_bits & 0xFFFF | SelectorErrorCode.TI)
        return True
    vcpu.cr2 = Vaddr(fault)
    hv.set_guest_cr2(vcpu, vcpu.cr2)
    inject(vcpu, Vector.PF, error_code & ~Pfec.USER_MODE | (0 if vcpu.kernel_mode else Pfec.USER_MODE))
    return True


# -- writable page tables


def _ptwr_fault(vcpu: Vcpu, cr2: Vaddr) -> bool:
    """Carry out the write at rip if it goes to an L1 table of the domain. Xen: pv_ro_page_fault().

    Xen would do it for 32-bit code in kernel mode, too; here that is the guest's own page fault.
    """
    hv = vcpu.domain.hv
    at = guest_l1e(vcpu, cr2)
    if at is None:
        return False
    l1e = hv.ram.q[at]
    if l1e & (PTE_PRESENT | PTE_RW) != PTE_PRESENT:
        return False
    table = (l1e & PTE_ADDR_MASK) >> PAGE_SHIFT
    if hv.page_info.owner(table) != vcpu.domain.domid or hv.page_info.type_of(table) != PGT_L1_PAGE_TABLE:
        return False
    if not hv.cpu.is_64bit:
        return False
    store = decode_store(_fetch(vcpu, hv.cpu.rip))
    if store is None or not _where(vcpu, store, cr2):
        return False
    return _emulate(vcpu, store, cr2, Maddr(table << PAGE_SHIFT | cr2 & PAGE_MASK))


def _fetch(vcpu: Vcpu, rip: int) -> bytes:
    """The instruction's bytes, fewer than the longest one has if the next page can't be read."""
    try:
        return copy_from_guest(vcpu, rip, _LONGEST)
    except GuestFault:
        in_page = PAGE_SIZE - (rip & PAGE_MASK)
        try:
            return copy_from_guest(vcpu, rip, in_page) if in_page < _LONGEST else b""
        except GuestFault:
            return b""


def _where(vcpu: Vcpu, store: Store, cr2: Vaddr) -> bool:
    """Whether the store, all of it, is the one that faulted, and aligned."""
    return cr2 % store.size == 0 and store.address(vcpu) == cr2


def _emulate(vcpu: Vcpu, store: Store, cr2: Vaddr, maddr: Maddr) -> bool:
    """Work out what the store does, let the checks of an l1e have it, and finish the instruction.

    Xen: ptwr_emulated_update().
    """
    hv = vcpu.domain.hv
    cpu = hv.cpu
    mask = (1 << 8 * store.size) - 1
    try:
        source = _source(vcpu, store)
    except GuestFault:
        return False
    word_at = maddr // PTE_SIZE
    shift = 8 * (maddr % PTE_SIZE)
    word = hv.ram.q[word_at]
    rflags = cpu.rflags
    effect = effect_of(store, Inputs(word >> shift & mask, source, cpu.gpr[RAX] & mask, rflags, 8 * store.size))
    if effect.value is not None:
        new = word & ~(mask << shift) & _U64 | effect.value << shift
        try:
            write_l1_entry(hv, word_at, new, vcpu.domain.domid)
        except HypercallError:
            return False
    if effect.source is not None and isinstance(store.source, Register):
        store.source.write(vcpu, effect.source)
    if effect.accumulator is not None:
        Register(RAX, store.size).write(vcpu, effect.accumulator)
    _observe(vcpu, cr2, f"{store.name} to a page table")
    if hv.observer is not None:
        hv.observer.observe(vcpu, MemoryWritten(Maddr(word_at * PTE_SIZE), PTE_SIZE))
    _retire(vcpu, store, effect.rflags)
    return True


def _source(vcpu: Vcpu, store: Store) -> int:
    """The value of the source operand; raises `GuestFault` if it is in memory and can't be read."""
    if store.name == "movs":
        return int.from_bytes(copy_from_guest(vcpu, Register(RSI, store.address_size).read(vcpu), store.size), "little")
    if isinstance(store.source, Register):
        return store.source.read(vcpu)
    return store.source or 0


def _retire(vcpu: Vcpu, store: Store, rflags: int) -> None:
    """Move on: behind the instruction, or to the next element of a repeated one."""
    cpu = vcpu.domain.hv.cpu
    done = True
    if store.is_string:
        step = -store.size if rflags & Rflags.DF else store.size
        mask = (1 << 8 * store.address_size) - 1
        for number in (RDI, RSI) if store.name == "movs" else (RDI,):
            pointer = Register(number, store.address_size)
            pointer.write(vcpu, pointer.read(vcpu) + step & mask)
        if store.repeated:
            count = Register(RCX, store.address_size)
            count.write(vcpu, count.read(vcpu) - 1 & mask)
            done = count.read(vcpu) == 0
    if done:
        cpu.rip = cpu.rip + store.length & _U64
    cpu.rflags = rflags & ~Rflags.RF
    if rflags & Rflags.TF:
        vcpu.debugreg[6] |= Dr6.BS
        inject(vcpu, Vector.DB, None)


def _observe(vcpu: Vcpu, cr2: Vaddr, text: str) -> None:
    hv = vcpu.domain.hv
    if hv.observer is not None:
        hv.observer.observe(vcpu, FaultFixedUp(Vaddr(hv.cpu.rip), cr2, text))
