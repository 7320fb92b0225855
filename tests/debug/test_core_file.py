"""The core of a domain, read by pyelftools: both views of it, and what a hostile guest can do to it."""

import hashlib
import io
import os
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from xdbg.abi.dump_core import DumpcoreHeader, DumpcoreP2m, DumpcoreXenVersion
from xdbg.abi.frames import PAGE_SIZE, Vaddr
from xdbg.abi.shared_info import SharedInfo
from xdbg.abi.vcpu import VcpuGuestContext
from xdbg.abi.x86 import PTE_ADDR_MASK, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.debug.cores.file import CoreFileError, write_core
from xdbg.debug.cores.segments import MAX_PLACES, find_segments, pages_of
from xdbg.machine.paging import read_virtual, walk
from xdbg.session.core_files import CoreFiles


class Sink(io.BytesIO):
    def skip(self, length: int) -> None:
        self.write(bytes(length))


def core_of(guest, **options):
    sink = Sink()
    summary = write_core(guest.target.domain, guest.target.kernel_symbols, sink, **options)
    assert summary.size == len(sink.getvalue())
    return ELFFile(sink)


def notes_in(segment_or_section):
    return [(note["n_name"], note["n_type"], note["n_descdata"]) for note in segment_or_section.iter_notes()]


def segments_of(elf):
    return [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]


def read(elf, vaddr, length):
    for segment in segments_of(elf):
        if segment["p_vaddr"] <= vaddr < segment["p_vaddr"] + segment["p_memsz"]:
            elf.stream.seek(segment["p_offset"] + vaddr - segment["p_vaddr"])
            return elf.stream.read(length)
    raise AssertionError(f"{vaddr:#x} is in no segment")


@pytest.fixture
def stopped(small):
    guest = small()
    guest.brk("squared")
    guest.cont()
    return guest


def test_the_sections_are_those_of_xens_format(stopped):
    elf = core_of(stopped)
    domain = stopped.target.domain
    assert elf.header["e_type"] == "ET_CORE"
    raw = {note["n_type"]: note for note in elf.get_section_by_name(".note.Xen").iter_notes()}
    assert {note["n_name"] for note in raw.values()} == {"Xen"}
    header, version = (
        DumpcoreHeader.from_bytes(_desc(raw[0x2000001])),
        DumpcoreXenVersion.from_bytes(_desc(raw[0x2000002])),
    )
    assert (header.magic, header.nr_vcpus, header.nr_pages, header.page_size) == (
        0xF00FEBED,
        1,
        domain.nr_pages,
        PAGE_SIZE,
    )
    assert (version.major_version, version.minor_version, version.capabilities) == (4, 17, b"xen-3.0-x86_64 ")
    assert _desc(raw[0x2000003]) == (1).to_bytes(8, "little")
    assert _desc(raw[0x2000000]) == b""
    shared = elf.get_section_by_name(".xen_shared_info").data()
    assert SharedInfo.from_bytes(shared) == SharedInfo.at(domain.hv.ram, domain.shared_info_maddr)


def _desc(note):
    data = note["n_descdata"]
    return data.encode("latin-1") if isinstance(data, str) else data


def test_the_pages_are_the_domains_memory_in_the_order_of_the_p2m(stopped):
    elf = core_of(stopped)
    ram = stopped.target.hv.ram
    p2m = elf.get_section_by_name(".xen_p2m").data()
    pages = elf.get_section_by_name(".xen_pages").data()
    entries = [DumpcoreP2m.from_bytes(p2m[at:]) for at in range(0, len(p2m), 16)]
    assert [entry.pfn for entry in entries] == list(range(stopped.target.domain.nr_pages))
    for index, entry in enumerate(entries):
        assert stopped.target.domain.page_mfn(entry.pfn) == entry.gmfn
        assert pages[index << 12 : (index + 1) << 12] == bytes(ram.page(entry.gmfn))


def test_the_vcpu_is_told_as_xen_tells_it(stopped):
    elf = core_of(stopped)
    context = VcpuGuestContext.from_bytes(elf.get_section_by_name(".xen_prstatus").data())
    vcpu = stopped.target.domain.vcpus[0]
    cpu = stopped.target.hv.cpu
    regs = context.user_regs
    assert (regs.rip, regs.rsp, regs.rax, regs.r15) == (cpu.rip, cpu.gpr[4], cpu.gpr[0], cpu.gpr[15])
    assert (regs.cs, regs.ss, regs.rflags) == (cpu.cs, cpu.ss, cpu.rflags)
    assert context.ctrlreg[3] == vcpu.kernel_cr3
    assert context.trap_ctxt[3].address == stopped.at("on_int3")
    assert (context.trap_ctxt[3].vector, context.trap_ctxt[3].dpl) == (3, 3)
    assert context.flags & 0x25 == 0x25
    assert bytes(context.fpu_ctxt) == cpu.read_fpu()


def test_the_notes_for_gdb_have_the_registers_and_what_linux_tells_of_itself(stopped):
    elf = core_of(stopped)
    (segment,) = [segment for segment in elf.iter_segments() if isinstance(segment, NoteSegment)]
    notes = list(segment.iter_notes())
    assert [note["n_name"] for note in notes] == ["CORE", "CORE", "VMCOREINFO"]
    assert [note["n_descsz"] for note in notes] == [336, 512, 19]
    elf.stream.seek(segment["p_offset"])
    raw = elf.stream.read(segment["p_filesz"])
    registers = raw[20 + 112 : 20 + 112 + 27 * 8]
    assert int.from_bytes(registers[16 * 8 : 17 * 8], "little") == stopped.rip
    assert b"OSRELEASE=of a test" in raw


def test_virtual_memory_reads_as_in_the_guest(stopped):
    elf = core_of(stopped)
    ram, cr3 = stopped.target.hv.ram, stopped.target.domain.vcpus[0].kernel_cr3
    assert read(elf, stopped.at("counter"), 8) == read_virtual(ram, cr3, stopped.at("counter"), 8)
    total = 0
    for segment in segments_of(elf):
        vaddr, length = segment["p_vaddr"], segment["p_memsz"]
        assert read(elf, vaddr, length) == read_virtual(ram, cr3, Vaddr(vaddr), length)
        rights = walk(ram, cr3, Vaddr(vaddr)).flags
        assert bool(segment["p_flags"] & 2) == bool(rights & PTE_RW)
        total += length
    assert total >= stopped.target.domain.nr_pages // 2 * PAGE_SIZE


def test_without_segments_it_is_what_xens_own_tools_write(stopped):
    elf = core_of(stopped, with_segments=False)
    assert elf.num_segments() == 0
    assert [section.name for section in elf.iter_sections()] == [
        "",
        ".note.Xen",
        ".xen_prstatus",
        ".xen_shared_info",
        ".xen_pages",
        ".xen_p2m",
        ".shstrtab",
    ]


def test_the_same_state_gives_the_same_bytes_and_writing_changes_nothing(small):
    digests = set()
    for _ in range(2):
        guest = small()
        guest.brk("squared")
        guest.cont()
        before = guest.outcome()
        digests.update(hashlib.sha256(core_of(guest).stream.getvalue()).digest() for _ in range(2))
        assert guest.outcome() == before
    assert len(digests) == 1


def frames_of(guest):
    return [mfn for _, mfn in pages_of(guest.target.domain)]


def test_tables_that_map_themselves_over_and_over_are_followed_in_some_places_only(small):
    guest = small()
    guest.step()
    vcpu = guest.target.domain.vcpus[0]
    ram = guest.target.hv.ram
    plain = find_segments(vcpu, frames_of(guest))
    assert not plain.repeats
    table = guest.target.domain.page_mfn(900)
    link = table << 12 | PTE_PRESENT | PTE_RW | PTE_USER
    for index in range(512):
        ram.q[table * 512 + index] = link
    ram.q[vcpu.guest_table * 512 + 5] = link
    found = find_segments(vcpu, frames_of(guest))
    assert found.repeats
    assert not found.left_out
    assert len(plain.segments) < len(found.segments) <= len(plain.segments) + MAX_PLACES


def test_a_page_that_stands_for_many_is_shown_in_the_first_places_and_hides_nothing_behind_it(small):
    guest = small()
    guest.step()
    domain = guest.target.domain
    ram = guest.target.hv.ram
    rights = PTE_PRESENT | PTE_RW | PTE_USER
    l3, l2, l1, page = (domain.page_mfn(pfn) for pfn in (900, 901, 902, 903))
    ram.q[domain.vcpus[0].guest_table * 512 + 5] = l3 << 12 | rights
    ram.q[l3 * 512] = l2 << 12 | rights
    for index in range(512):  # as Linux does it: 262,144 times one page
        ram.q[l2 * 512 + index] = l1 << 12 | rights
        ram.q[l1 * 512 + index] = page << 12 | rights
    elf = core_of(guest)
    base = 5 << 39
    shown = [segment["p_vaddr"] for segment in segments_of(elf) if base <= segment["p_vaddr"] < base + (1 << 30)]
    assert shown == [base + (index << 12) for index in range(len(shown))]
    assert MAX_PLACES - 4 < len(shown) <= MAX_PLACES
    assert read(elf, guest.at("counter"), 8) == read_virtual(ram, domain.vcpus[0].kernel_cr3, guest.at("counter"), 8)


@pytest.mark.parametrize(("limit", "value"), [("MAX_TABLES", 3), ("MAX_SEGMENTS", 2), ("MAPPED_ANYHOW", 3)])
def test_a_search_that_a_limit_ends_says_so(small, monkeypatch, limit, value):
    guest = small()
    guest.step()
    monkeypatch.setattr(f"xdbg.debug.cores.segments.{limit}", value)
    monkeypatch.setattr("xdbg.debug.cores.segments.MAPPED_PER_FRAME", 4 if limit != "MAPPED_ANYHOW" else 0)
    found = find_segments(guest.target.domain.vcpus[0], frames_of(guest))
    assert found.left_out
    assert len(found.segments) <= 2


def test_physical_addresses_are_those_in_the_page_tables(stopped):
    """A reader that knows only these and the tables' root gets where the segments lead."""
    elf = core_of(stopped)
    loads = segments_of(elf)

    def physical(maddr, length):
        for segment in loads:
            if segment["p_paddr"] <= maddr < segment["p_paddr"] + segment["p_memsz"]:
                elf.stream.seek(segment["p_offset"] + maddr - segment["p_paddr"])
                return elf.stream.read(length)
        raise AssertionError(f"{maddr:#x} is in no segment")

    root = VcpuGuestContext.from_bytes(elf.get_section_by_name(".xen_prstatus").data()).ctrlreg[3]
    vaddr = stopped.at("counter")
    at = root
    for shift in (39, 30, 21, 12):
        entry = int.from_bytes(physical(at + (vaddr >> shift & 511) * 8, 8), "little")
        assert entry & PTE_PRESENT
        at = entry & PTE_ADDR_MASK
    assert physical(at + (vaddr & 0xFFF), 8) == read(elf, vaddr, 8)
    assert int.from_bytes(physical(at + (vaddr & 0xFFF), 8), "little") > 0


def test_a_run_ends_where_physical_addresses_do_not_go_on(small):
    guest = small()
    guest.step()
    domain, ram = guest.target.domain, guest.target.hv.ram
    shared = domain.shared_info
    frames = frames_of(guest)
    place = frames.index(domain.page_mfn(903)) + 1
    frames.insert(place, shared)  # behind 903 in the file, elsewhere in the machine
    rights = PTE_PRESENT | PTE_RW | PTE_USER
    l3, l2, l1 = (domain.page_mfn(pfn) for pfn in (900, 901, 902))
    ram.q[domain.vcpus[0].guest_table * 512 + 5] = l3 << 12 | rights
    ram.q[l3 * 512] = l2 << 12 | rights
    ram.q[l2 * 512] = l1 << 12 | rights
    for index, mfn in enumerate((domain.page_mfn(903), shared)):
        ram.q[l1 * 512 + index] = mfn << 12 | rights
    base = 5 << 39
    found = [one for one in find_segments(domain.vcpus[0], frames).segments if base <= one.vaddr < base + (1 << 30)]
    assert [(one.vaddr, one.paddr >> 12, one.length) for one in found] == [
        (base, domain.page_mfn(903), PAGE_SIZE),
        (base + PAGE_SIZE, shared, PAGE_SIZE),
    ]


def test_a_vmcoreinfo_that_leads_nowhere_is_left_out(small):
    guest = small()
    guest.step()
    for place, value in (("vmcoreinfo_data", 0xDEAD_0000), ("vmcoreinfo_size", 1 << 50), ("vmcoreinfo_size", 0)):
        guest.target.write_memory(guest.kernel, guest.at(place), value.to_bytes(8, "little"))
        assert b"VMCOREINFO" not in core_of(guest).stream.getvalue()[:0x3000]


def _fill_the_disk(files):
    with files.create("broken") as sink:
        sink.write(b"x")
        raise OSError(28, os.strerror(28))


def test_a_file_is_new_plainly_named_sparse_and_gone_after_an_error(small, tmp_path):
    guest = small()
    target = guest.target
    target.core_files = CoreFiles(tmp_path)
    (line,) = target.monitor(None, "dump-core a.core")
    assert line.startswith(f"a.core: {target.domain.nr_pages} pages, ")
    made = tmp_path / "a.core"
    assert made.read_bytes() == core_of(guest).stream.getvalue()
    assert made.stat().st_blocks * 512 < made.stat().st_size
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("a.core", "link", "../b", "/tmp/b", ".", "..", "x/b", "n" * 256):
        with pytest.raises(Exception, match=r"File exists|not the plain name") as refused:
            list(target.monitor(None, f"dump-core {name}"))
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(CoreFileError, match="No space"):
        _fill_the_disk(target.core_files)
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["a.core", "link"]
