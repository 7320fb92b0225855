"""A built domain, looked at from outside: what its kernel will find, word for word."""

import gzip
import lzma
import struct
from array import array

import capstone
import pytest

from xdbg.abi.event_channel import EvtchnStat
from xdbg.abi.frames import Maddr, Mfn, Vaddr
from xdbg.abi.grant_table import GTF_PERMIT_ACCESS, Gtf
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.shared_info import SharedInfo
from xdbg.abi.start_info import Sif, StartInfo, XenMultibootModList
from xdbg.abi.x86 import PTE_RW, PTE_USER
from xdbg.machine.cpu import Cpu
from xdbg.machine.paging import NotMappedError, read_virtual, walk
from xdbg.machine.registers import RSI, RSP
from xdbg.xen.audit import audit
from xdbg.xen.dom_builder import build_domain, pack_modules
from xdbg.xen.domain import Domain
from xdbg.xen.elf_image import KernelImage, Segment
from xdbg.xen.elf_notes import BootParameters, ImageError
from xdbg.xen.hypercall_page import hypercall_page
from xdbg.xen.setup import Hypervisor

BASE = 0xFFFF_FFFF_8000_0000
TEXT = bytes(range(1, 256)) * 40
NR_PAGES = 4096
START = 0x100000
KERNEL_PAGES = 16


def kernel(*, init_p2m: int | None = None, unmapped: bool = False, hypercalls: bool = True) -> KernelImage:
    """16 pages at 1 MiB: text, a page for hypercalls, the rest bss."""
    return KernelImage(
        elf=b"",
        parameters=BootParameters(mod_start_pfn=unmapped),
        segments=(Segment(START, TEXT, KERNEL_PAGES << 12),),
        entry=Vaddr(BASE + START + 0x10),
        virt_base=Vaddr(BASE),
        start=START,
        end=START + (KERNEL_PAGES << 12),
        hypercall_page=Vaddr(BASE + START + 0x4000) if hypercalls else None,
        init_p2m=None if init_p2m is None else Vaddr(init_p2m),
    )


def build(
    image: KernelImage | None = None, *, modules: tuple[bytes, ...] = (), command_line: bytes = b"", nr: int = NR_PAGES
) -> Domain:
    hv = Hypervisor(nr)
    domain = hv.create_domain("test", nr)
    build_domain(domain, image or kernel(), modules=modules, command_line=command_line)
    return domain


def start_info(domain: Domain) -> StartInfo:
    return StartInfo.from_bytes(read(domain, entered(domain).gpr[RSI], StartInfo.SIZE))


def entered(domain: Domain) -> Cpu:
    """The CPU as it is when vcpu 0 begins."""
    context = domain.vcpus[0].context
    assert context is not None
    domain.hv.cpu.load(context)
    return domain.hv.cpu


def read(domain: Domain, vaddr: int, length: int) -> bytes:
    return read_virtual(domain.hv.ram, domain.vcpus[0].kernel_cr3, Vaddr(vaddr), length)


def p2m(domain: Domain) -> list[int]:
    return array("Q", read(domain, start_info(domain).mfn_list, 8 * domain.nr_pages)).tolist()


def test_the_kernel_is_loaded_and_its_bss_is_zero() -> None:
    domain = build(kernel(hypercalls=False))
    assert read(domain, BASE + START, KERNEL_PAGES << 12) == TEXT + bytes((KERNEL_PAGES << 12) - len(TEXT))
    assert read(domain, BASE, START) == bytes(START)


def test_p2m_and_m2p_are_inverse_and_no_frame_has_its_own_number() -> None:
    domain = build()
    table = p2m(domain)
    assert len(set(table)) == NR_PAGES
    assert [domain.hv.m2p.get(Mfn(mfn)) for mfn in table] == [*range(NR_PAGES)]
    assert all(mfn != pfn for pfn, mfn in enumerate(table))
    assert all(domain.hv.page_info.owner(mfn) == domain.domid for mfn in table)
    assert domain.nr_pages == NR_PAGES


def test_the_initial_mapping_is_pfn_by_pfn_and_only_page_tables_are_read_only() -> None:
    domain = build()
    info, table = start_info(domain), p2m(domain)
    first_table = (info.pt_base - BASE) >> 12
    tables = range(first_table, first_table + info.nr_pt_frames)
    for pfn in range(1024):
        found = walk(domain.hv.ram, domain.vcpus[0].kernel_cr3, Vaddr(BASE + (pfn << 12)))
        assert found.maddr == table[pfn] << 12
        assert found.flags & PTE_USER
        assert bool(found.flags & PTE_RW) == (pfn not in tables)
    with pytest.raises(NotMappedError):
        walk(domain.hv.ram, domain.vcpus[0].kernel_cr3, Vaddr(BASE + (1024 << 12)))
    assert domain.vcpus[0].guest_table == table[first_table]


def test_start_info_tells_where_everything_is() -> None:
    domain = build(command_line=b"console=hvc0 quiet")
    info, table = start_info(domain), p2m(domain)
    assert info.magic == b"xen-3.0-x86_64"
    assert info.nr_pages == NR_PAGES
    assert info.shared_info == domain.shared_info_maddr
    assert domain.shared_info not in table
    assert info.flags == Sif.VIRT_P2M_4TOOLS
    assert info.cmd_line == b"console=hvc0 quiet"
    assert (info.mod_start, info.mod_len) == (0, 0)
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (0, 0)
    # Kernel, p2m list (8 pages), start_info, xenstore, console, page tables.
    assert info.mfn_list == BASE + START + (KERNEL_PAGES << 12)
    page = (START >> 12) + KERNEL_PAGES + 8
    assert domain.start_info == table[page]
    assert (info.store_mfn, info.console.domU.mfn) == (table[page + 1], table[page + 2])
    assert (info.store_evtchn, info.console.domU.evtchn) == (1, 2)
    assert info.pt_base == BASE + ((page + 3) << 12)
    assert info.nr_pt_frames == 5


def test_rings_are_granted_and_their_ports_bound() -> None:
    domain = build()
    info = start_info(domain)
    for ref, mfn in ((0, info.console.domU.mfn), (1, info.store_mfn)):
        entry = domain.grant_table.entry(ref)
        assert (entry.flags, entry.domid, entry.frame) == (GTF_PERMIT_ACCESS | Gtf.READING | Gtf.WRITING, 0, mfn)
    ports = domain.event_channels.ports
    assert [(ports[n].state, ports[n].backend) for n in (1, 2)] == [
        (EvtchnStat.INTERDOMAIN, "xenstore"),
        (EvtchnStat.INTERDOMAIN, "console"),
    ]
    assert (domain.console.ring, domain.console.port) == (info.console.domU.mfn, 2)
    assert (domain.xenstore.ring, domain.xenstore.port) == (info.store_mfn, 1)


def test_events_are_masked_for_every_vcpu() -> None:
    domain = build()
    shared = SharedInfo.at(domain.hv.ram, domain.shared_info_maddr)
    assert [info.evtchn_upcall_mask for info in shared.vcpu_info] == [1] * 32
    assert [info.evtchn_upcall_pending for info in shared.vcpu_info] == [0] * 32


def test_vcpu_0_starts_at_the_entry_point() -> None:
    domain = build()
    vcpu, info = domain.vcpus[0], start_info(domain)
    cpu = entered(domain)
    boot_stack_end = info.pt_base + (info.nr_pt_frames << 12) + 0x1000
    expected = [0] * 16
    expected[RSP], expected[RSI] = boot_stack_end, info.mfn_list + 0x8000
    assert list(cpu.gpr) == expected
    assert (cpu.rip, cpu.rflags & ~2) == (BASE + START + 0x10, 0x200)
    assert (cpu.cs, cpu.ss, cpu.ds, cpu.es, cpu.fs, cpu.gs) == (0xE033, 0xE02B, 0, 0, 0, 0)
    assert (cpu.fs_base, cpu.gs_base) == (0, 0)
    assert (cpu.cr2, cpu.cr0_ts) == (0, False)
    fpu = cpu.read_fpu()
    assert fpu[:2] == b"\x7f\x03"  # FCW: all exceptions masked, 64-bit precision
    assert fpu[2:24] == bytes(22)
    assert fpu[24:28] == b"\x80\x1f\0\0"  # MXCSR
    assert fpu[32:416] == bytes(384)
    assert (vcpu.kernel_ss, vcpu.kernel_sp) == (0xE02B, boot_stack_end)
    assert vcpu.is_up
    assert vcpu.kernel_mode
    assert read(domain, boot_stack_end - 0x1000, 0x1000) == bytes(0x1000)


def test_a_module_is_mapped_behind_the_kernel() -> None:
    module = bytes(range(256)) * 20
    domain = build(modules=(module,))
    info = start_info(domain)
    assert (info.mod_start, info.mod_len) == (BASE + START + (KERNEL_PAGES << 12), 0x2000)
    assert read(domain, info.mod_start, info.mod_len) == module.ljust(0x2000, b"\0")
    assert info.flags == Sif.VIRT_P2M_4TOOLS


def test_a_module_need_not_be_mapped_if_the_kernel_says_so() -> None:
    module = bytes(range(256)) * 20
    domain = build(kernel(unmapped=True), modules=(module,))
    info = start_info(domain)
    assert info.flags == Sif.VIRT_P2M_4TOOLS | Sif.MOD_START_PFN
    assert (info.mod_start, info.mod_len) == (1024, 0x2000)
    assert domain.hv.ram.read(Maddr(p2m(domain)[1024] << 12), len(module)) == module


def ramdisk(file: bytes) -> bytes:
    domain = build(modules=(file,))
    info = start_info(domain)
    return read(domain, info.mod_start, info.mod_len)


def test_a_ram_disk_is_unpacked_if_it_is_packed_by_gzip() -> None:
    content = bytes(range(1, 256)) * 100
    assert ramdisk(gzip.compress(content)) == content.ljust(0x7000, b"\0")
    page = TEXT[:4096]
    assert ramdisk(gzip.compress(page)) == page + bytes(4096)  # Xen makes room for 16 bytes more
    assert ramdisk(gzip.compress(b"")).rstrip(b"\0") == b""


NOT_UNPACKED = {
    "cut": gzip.compress(TEXT)[:-20] + struct.pack("<I", len(TEXT)),
    "wrong checksum": gzip.compress(TEXT)[:-8] + b"1234" + struct.pack("<I", len(TEXT)),
    "longer than it says": gzip.compress(TEXT)[:-4] + struct.pack("<I", len(TEXT) - 17),
    "a gigabyte and more": gzip.compress(TEXT)[:-4] + struct.pack("<I", (1 << 30) + 1),
    "magic alone": b"\x1f\x8b",
    "magic and a length": b"\x1f\x8b" + struct.pack("<I", 9000),
    "xz": lzma.compress(TEXT),
}


@pytest.mark.parametrize("file", NOT_UNPACKED.values(), ids=NOT_UNPACKED)
def test_a_ram_disk_that_can_not_be_unpacked_is_given_as_it_is(file: bytes) -> None:
    given = ramdisk(file)
    assert given.rstrip(b"\0") == file.rstrip(b"\0")
    assert len(given) % 4096 == 0


def test_a_ram_disk_that_unpacks_to_more_than_the_memory_is_refused_by_what_it_says_of_itself() -> None:
    lie = gzip.compress(TEXT)[:-4] + struct.pack("<I", 1 << 30)
    with pytest.raises(ImageError, match=r"the kernel and its modules need 10\d\d\.\d MiB, the domain has 16\.0"):
        build(modules=(lie,))


def test_an_empty_ram_disk_is_refused() -> None:
    with pytest.raises(ImageError, match="a module is empty"):
        build(modules=(b"",))


def test_several_modules_make_a_list() -> None:
    modules = (b"first", b"second" * 1000, b"third")
    domain = build(modules=modules)
    info = start_info(domain)
    assert info.flags == Sif.VIRT_P2M_4TOOLS | Sif.MULTIBOOT_MOD
    package = read(domain, info.mod_start, info.mod_len)
    found = []
    for at in range(0, len(package), XenMultibootModList.SIZE):
        row = XenMultibootModList.from_bytes(package[at:])
        if not row.mod_start:
            break
        found.append(package[row.mod_start : row.mod_end + 1])
        assert row.mod_start % 4096 == 0
        assert package[row.cmdline] == 0
    assert tuple(found) == modules


def test_no_module_and_an_empty_one_are_told_apart() -> None:
    assert pack_modules(()) == b""
    with pytest.raises(ImageError, match="a module is empty"):
        build(modules=(b"a", b""))


def test_init_p2m_puts_the_list_where_the_kernel_wants_it() -> None:
    domain = build(kernel(init_p2m=0x80_0000_0000, unmapped=True), modules=(b"initrd" * 1000,))
    info, table = start_info(domain), p2m(domain)
    assert info.mfn_list == 0x80_0000_0000
    assert [domain.hv.m2p.get(Mfn(mfn)) for mfn in table] == [*range(NR_PAGES)]
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (1024 + 2, 8 + 3)
    found = walk(domain.hv.ram, domain.vcpus[0].kernel_cr3, Vaddr(info.mfn_list))
    assert found.maddr == table[info.first_p2m_pfn] << 12
    assert found.flags & PTE_RW
    assert info.nr_pt_frames == 5


def test_the_hypercall_page_is_written_only_where_it_is_wanted() -> None:
    domain = build()
    assert read(domain, BASE + START + 0x4000, 4096) == hypercall_page()
    domain = build(kernel(hypercalls=False))
    assert read(domain, BASE + START + 0x4000, 4096) == bytes(4096)


@pytest.mark.parametrize("number", [*Hypercall, 127])
def test_an_entry_of_the_hypercall_page_makes_its_call(number: int) -> None:
    code = hypercall_page()[number * 32 : (number + 1) * 32]
    lines = [
        f"{i.mnemonic} {i.op_str}".strip()
        for i in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, 0)
    ]
    call = [f"mov eax, {number if number < 10 else hex(number)}", "syscall"]
    if number == Hypercall.IRET:
        assert lines[:5] == ["push rcx", "push r11", "push rax", *call]
    else:
        assert lines[:7] == ["push rcx", "push r11", *call, "pop r11", "pop rcx", "ret"]
    assert set(code[len(code) - 12 :]) == {0xCC}


def test_what_does_not_fit_leaves_the_machine_as_it_was() -> None:
    hv = Hypervisor(NR_PAGES)
    domain = hv.create_domain("test", NR_PAGES)
    free = hv.heap.nr_free
    with pytest.raises(ImageError, match="the domain has 16"):
        build_domain(domain, kernel(), modules=(bytes(NR_PAGES << 12),))
    with pytest.raises(ImageError, match="command line has 1024 bytes"):
        build_domain(domain, kernel(), command_line=b"x" * 1024)
    assert hv.heap.nr_free == free
    build_domain(domain, kernel(), command_line=b"x" * 1023)
    assert start_info(domain).cmd_line == b"x" * 1023


def test_the_same_kernel_gives_the_same_memory() -> None:
    first, second = (build(modules=(b"module",), command_line=b"a=b") for _ in range(2))
    assert bytes(first.hv.ram.buffer) == bytes(second.hv.ram.buffer)
    assert first.vcpus[0].context == second.vcpus[0].context


def test_building_leaves_the_registers_of_a_running_domain_alone() -> None:
    hv = Hypervisor(2 * NR_PAGES)
    hv.cpu.gpr[RSI] = 12345
    hv.cpu.rip = 0x1234
    hv.cpu.fs_base = 77
    before = hv.cpu.save()
    domains = [hv.create_domain(name, NR_PAGES) for name in ("first", "second")]
    for domain in domains:
        build_domain(domain, kernel())
    assert hv.cpu.save() == before
    assert domains[0].vcpus[0].context == domains[1].vcpus[0].context
    assert not {*p2m(domains[0])} & {*p2m(domains[1])}


@pytest.mark.parametrize("init_p2m", [None, 0x80_0000_0000])
def test_types_and_references_of_all_frames_are_as_a_recount_finds_them(init_p2m: int | None) -> None:
    domain = build(kernel(init_p2m=init_p2m, unmapped=True), modules=(b"module",))
    audit(domain.hv)
    page_info = domain.hv.page_info
    info, table = start_info(domain), p2m(domain)
    first = (info.pt_base - BASE) >> 12
    kinds = [page_info.describe(table[first + index]) for index in range(info.nr_pt_frames)]
    assert [next(word for word in kind.split() if word.startswith("l")) for kind in kinds] == [
        "l4",
        "l3",
        "l2",
        "l1",
        "l1",
    ]
