"""Monitor commands about addresses: virtual, machine, and the guest's own numbering."""

from collections.abc import Iterator, Sequence
from errno import EFAULT, EINVAL
from typing import Final

from xdbg.abi.frames import PAGE_SHIFT, Maddr, Mfn, Pfn, maddr_to_mfn
from xdbg.abi.x86 import (
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_GLOBAL,
    PTE_NX,
    PTE_PCD,
    PTE_PRESENT,
    PTE_PSE,
    PTE_PWT,
    PTE_RW,
    PTE_USER,
)
from xdbg.debug.monitor import MonitorContext, arguments, monitor, number
from xdbg.machine.paging import NotMappedError, walk, walk_entries
from xdbg.rsp.target import TargetError
from xdbg.xen.m2p import INVALID_M2P_ENTRY

_XP_LENGTH: Final = 64
_XP_LIMIT: Final = 4096
"""Bytes that `xp` shows, if nothing else is said and at most."""

_BITS = (
    (PTE_PRESENT, "P"),
    (PTE_RW, "RW"),
    (PTE_USER, "US"),
    (PTE_PWT, "PWT"),
    (PTE_PCD, "PCD"),
    (PTE_ACCESSED, "A"),
    (PTE_DIRTY, "D"),
    (PTE_PSE, "PS"),
    (PTE_GLOBAL, "G"),
    (PTE_NX, "NX"),
)


def _bits(entry: int, *, leaf: bool) -> str:
    """The bits of an entry by name. Bit 7 of an l1e is a PAT bit."""
    names = [("PAT" if leaf and name == "PS" else name) for bit, name in _BITS if entry & bit]
    return " ".join(names) or "not present"


def _frame(context: MonitorContext, mfn: int) -> str:
    """What is known of a frame: pfn, owner, type."""
    hv = context.hv
    if not 0 <= mfn < hv.ram.nr_frames:
        return "outside RAM"
    pfn = hv.m2p.get(Mfn(mfn))
    number_in_guest = "no pfn" if pfn == INVALID_M2P_ENTRY else f"pfn {pfn:#x}"
    return f"{number_in_guest}, {hv.page_info.describe(mfn)}"


@monitor("translate", "VADDR", observing=True)
def translate(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Where a virtual address of the current thread is: machine frame, pfn, rights"""
    vaddr = number(arguments(words, "translate VADDR", 1)[0], context)
    try:
        found = context.space.translate(vaddr)
    except NotMappedError as error:
        raise TargetError(EFAULT, str(error)) from error
    mfn = maddr_to_mfn(found.maddr)
    rights = ["readable", "writable" if found.flags & PTE_RW else "read-only"]
    rights.append("no execute" if found.flags & PTE_NX else "executable")
    rights.append("user" if found.flags & PTE_USER else "supervisor")
    size = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}[found.level]
    yield f"{vaddr:#x} -> maddr {found.maddr:#x}, mfn {mfn:#x} ({_frame(context, mfn)})"
    yield f"{size} page, {', '.join(rights)}; l{found.level}e {found.pte:#x}"


@monitor("walk", "VADDR", observing=True)
def walk_tables(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The page table walk of a virtual address, level by level"""
    vaddr = number(arguments(words, "walk VADDR", 1)[0], context)
    space = context.space
    *others, cr3 = space.tables(vaddr)
    for other in others:
        try:
            walk(space.ram, other, vaddr)
        except NotMappedError:
            continue
        cr3 = other
        break
    yield f"{vaddr:#x} under cr3 {cr3:#x}"
    last = None
    for last in walk_entries(space.ram, cr3, vaddr):
        leaf = last.level == 1 or (last.level < 4 and bool(last.entry & PTE_PSE))
        yield (
            f"l{last.level} table mfn {last.table_mfn:#x} [{last.index}]: {last.entry:#018x} "
            f"{_bits(last.entry, leaf=last.level == 1)}"
            + (f" -> mfn {(last.entry & 0x000F_FFFF_FFFF_F000) >> PAGE_SHIFT:#x}" if last.entry & PTE_PRESENT else "")
            + (f" ({_frame(context, (last.entry & 0x000F_FFFF_FFFF_F000) >> PAGE_SHIFT)})" if leaf else "")
        )
    try:
        found = walk(space.ram, cr3, vaddr)
    except NotMappedError as error:
        yield f"not mapped: the walk ends at level {error.level}"
    else:
        yield f"maddr {found.maddr:#x}"


@monitor("xp", "MADDR [LENGTH]", observing=True)
def read_machine_memory(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Machine memory by machine address, whoever owns it: 64 bytes, or as many as are asked for"""
    chosen = arguments(words, "xp MADDR [LENGTH]", 1, 2)
    maddr = number(chosen[0], context)
    length = number(chosen[1]) if len(chosen) > 1 else _XP_LENGTH
    ram = context.hv.ram
    if not 0 < length <= _XP_LIMIT:
        raise TargetError(EINVAL, f"between 1 and {_XP_LIMIT} bytes are shown at once")
    if maddr + length > ram.size:
        raise TargetError(EFAULT, f"the machine's memory ends at {ram.size:#x}")
    data = ram.read(Maddr(maddr), length)
    for at in range(0, length, 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{maddr + at:#010x}  {row.hex(' '):<47}  {text}"


@monitor("p2m", "PFN", observing=True)
def p2m(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The machine frame of one of the domain's pfns"""
    pfn = number(arguments(words, "p2m PFN", 1)[0])
    mfn = context.domain.page_mfn(Pfn(pfn))
    if mfn is None:
        raise TargetError(EINVAL, f"the domain has no pfn {pfn:#x}")
    yield f"pfn {pfn:#x} -> mfn {mfn:#x} ({_frame(context, mfn)})"


@monitor("m2p", "MFN", observing=True)
def m2p(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """The pfn, owner and type of a machine frame"""
    mfn = number(arguments(words, "m2p MFN", 1)[0])
    if mfn >= context.hv.ram.nr_frames:
        raise TargetError(EINVAL, f"the machine has frames 0 to {context.hv.ram.nr_frames - 1:#x}")
    yield f"mfn {mfn:#x}: {_frame(context, mfn)}"
