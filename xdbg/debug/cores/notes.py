"""The notes and the vcpus' states in the core of a domain.

There are two views of the same vcpus. gdb reads a NT_PRSTATUS and a NT_FPREGSET for each, as in the core of a Linux
process: struct elf_prstatus of x86-64 with its struct user_regs_struct, and the FXSAVE image. Xen's own tools read a
struct vcpu_guest_context, as XEN_DOMCTL_getvcpucontext gives it.
"""

import ctypes
from struct import Struct
from typing import Final

from xdbg.abi.cstruct import CStruct
from xdbg.abi.dump_core import (
    FORMAT_VERSION,
    XC_CORE_MAGIC,
    DumpcoreFormatVersion,
    DumpcoreHeader,
    DumpcoreXenVersion,
)
from xdbg.abi.elfnote import ELFNOTE_OWNER, ElfNote
from xdbg.abi.frames import PAGE_SIZE, Vaddr
from xdbg.abi.vcpu import VcpuGuestContext, Vgcf
from xdbg.abi.x86 import HYPERVISOR_VIRT_START
from xdbg.debug.inferiors.vcpu_registers import read_vcpu
from xdbg.guestos.symbols import SymbolTable
from xdbg.machine.paging import NotMappedError, read_virtual
from xdbg.xen.entry import upcall_mask
from xdbg.xen.vcpu import Vcpu
from xdbg.xen.version import (
    CAPABILITIES,
    CHANGESET,
    XEN_EXTRA_VERSION,
    XEN_MAJOR_VERSION,
    XEN_MINOR_VERSION,
    compile_info,
)

NT_PRSTATUS: Final = 1
NT_FPREGSET: Final = 2
_NOTE: Final = Struct("<III")
_PRSTATUS: Final = Struct("<3ih2x2Q4i8Q27Qi4x")
"""pr_info, pr_cursig, pr_sigpend, pr_sighold, pr_pid to pr_sid, four times, pr_reg, pr_fpvalid."""
_GPR_ORDER: Final = (15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7)
"""Where the machine's numbers of r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi stand in pr_reg."""
_GPR_NAMES: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_RSP: Final = 4
_MAX_VMCOREINFO: Final = 64 << 10


def note(owner: bytes, kind: int, value: bytes) -> bytes:
    """One ELF note; name and value are padded to four bytes."""
    name = owner + b"\0"
    return _NOTE.pack(len(name), len(value), kind) + _padded(name) + _padded(value)


def vcpu_notes(vcpu: Vcpu, signal: int) -> bytes:
    """What gdb reads of a vcpu; `signal`: by what it stopped, 0 for nothing."""
    registers = read_vcpu(vcpu)
    tid = vcpu.vcpu_id + 1
    prstatus = _PRSTATUS.pack(
        *(signal, 0, 0, signal, 0, 0, tid, 0, 0, 0),
        *[0] * 8,
        *[registers.gpr[index] for index in _GPR_ORDER],
        registers.orig_rax,
        registers.rip,
        registers.cs,
        registers.rflags,
        registers.gpr[_RSP],
        registers.ss,
        registers.fs_base,
        registers.gs_base,
        registers.ds,
        registers.es,
        registers.fs,
        registers.gs,
        1,
    )
    return note(b"CORE", NT_PRSTATUS, prstatus) + note(b"CORE", NT_FPREGSET, registers.fpu)


def vmcoreinfo_note(vcpu: Vcpu, symbols: SymbolTable) -> bytes:
    """The VMCOREINFO of a Linux kernel, which tells crash and drgn about it; empty if there is none."""
    data, size = symbols.get("vmcoreinfo_data"), symbols.get("vmcoreinfo_size")
    if data is None or size is None:
        return b""
    try:
        at = int.from_bytes(_kernel(vcpu, data.address, 8), "little")
        length = int.from_bytes(_kernel(vcpu, size.address, 8), "little")
        if not 0 < length <= _MAX_VMCOREINFO:
            return b""
        return note(b"VMCOREINFO", 0, _kernel(vcpu, at, length))
    except NotMappedError:
        return b""


def xen_notes(nr_vcpus: int, nr_pages: int) -> bytes:
    """The notes of Xen's format."""
    header = DumpcoreHeader()
    header.magic = XC_CORE_MAGIC
    header.nr_vcpus = nr_vcpus
    header.nr_pages = nr_pages
    header.page_size = PAGE_SIZE
    version = DumpcoreXenVersion()
    version.major_version = XEN_MAJOR_VERSION
    version.minor_version = XEN_MINOR_VERSION
    version.extra_version = XEN_EXTRA_VERSION
    version.compile_info = compile_info()
    version.capabilities = CAPABILITIES
    version.changeset = CHANGESET
    version.platform_parameters.virt_start = HYPERVISOR_VIRT_START
    version.pagesize = PAGE_SIZE
    layout = DumpcoreFormatVersion()
    layout.version = FORMAT_VERSION
    values: tuple[tuple[ElfNote, CStruct | None], ...] = (
        (ElfNote.DUMPCORE_NONE, None),
        (ElfNote.DUMPCORE_HEADER, header),
        (ElfNote.DUMPCORE_XEN_VERSION, version),
        (ElfNote.DUMPCORE_FORMAT_VERSION, layout),
    )
    return b"".join(note(ELFNOTE_OWNER, kind, b"" if value is None else value.to_bytes()) for kind, value in values)


def guest_context(vcpu: Vcpu) -> bytes:
    """Struct vcpu_guest_context of a vcpu. Xen: arch_get_info_guest()."""
    registers = read_vcpu(vcpu)
    context = VcpuGuestContext()
    ctypes.memmove(context.fpu_ctxt, registers.fpu, len(registers.fpu))
    flags = int(Vgcf.I387_VALID)
    flags |= Vgcf.IN_KERNEL if vcpu.kernel_mode else 0
    flags |= Vgcf.ONLINE if vcpu.is_up else 0
    flags |= Vgcf.FAILSAFE_DISABLES_EVENTS if vcpu.failsafe_callback.masks_events else 0
    flags |= Vgcf.SYSCALL_DISABLES_EVENTS if vcpu.syscall_callback.masks_events else 0
    context.flags = flags
    regs = context.user_regs
    for name, value in zip(_GPR_NAMES, registers.gpr, strict=True):
        setattr(regs, name, value)
    regs.rip = registers.rip
    regs.rflags = registers.rflags
    regs.saved_upcall_mask = upcall_mask(vcpu)
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        setattr(regs, name, getattr(registers, name))
    for gate in vcpu.trap_table:
        if gate is not None:
            info = context.trap_ctxt[gate.vector]
            info.vector = gate.vector
            info.flags = gate.dpl | (4 if gate.masks_events else 0)
            info.cs = gate.cs
            info.address = gate.address
    context.ldt_base, context.ldt_ents = vcpu.ldt_base, vcpu.ldt_entries
    for index, frame in enumerate(vcpu.gdt_frames):
        context.gdt_frames[index] = frame
    context.gdt_ents = vcpu.gdt_entries
    context.kernel_ss, context.kernel_sp = vcpu.kernel_ss, vcpu.kernel_sp
    context.ctrlreg[0] = vcpu.cr0
    context.ctrlreg[1] = 0 if vcpu.guest_table_user is None else vcpu.guest_table_user << 12
    context.ctrlreg[3] = vcpu.kernel_cr3
    context.ctrlreg[4] = vcpu.cr4
    for index, value in enumerate(vcpu.debugreg):
        context.debugreg[index] = value
    context.event_callback_eip = vcpu.event_callback.address
    context.failsafe_callback_eip = vcpu.failsafe_callback.address
    context.syscall_callback_eip = vcpu.syscall_callback.address
    context.vm_assist = vcpu.domain.vm_assist
    context.fs_base = registers.fs_base
    context.gs_base_kernel = registers.gs_base if vcpu.kernel_mode else vcpu.gs_base_kernel
    context.gs_base_user = vcpu.gs_base_user if vcpu.kernel_mode else registers.gs_base
    return context.to_bytes()


def _kernel(vcpu: Vcpu, vaddr: int, length: int) -> bytes:
    return read_virtual(vcpu.domain.hv.ram, vcpu.kernel_cr3, Vaddr(vaddr), length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
