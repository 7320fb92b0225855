"""Where the domain builder puts everything, with nothing written anywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdbg.abi.frames import Vaddr
from xdbg.xen.dom_layout import Layout, Region, plan
from xdbg.xen.elf_image import KernelImage, Segment
from xdbg.xen.elf_notes import BootParameters, ImageError

MIB = 1 << 20
LINUX_BASE = 0xFFFF_FFFF_8000_0000


def kernel(virt_base: int, start: int, end: int, *, init_p2m: int | None = None, unmapped: bool = False) -> KernelImage:
    return KernelImage(
        elf=b"",
        parameters=BootParameters(mod_start_pfn=unmapped),
        segments=(Segment(start, b"", end - start),),
        entry=Vaddr(virt_base + start),
        virt_base=Vaddr(virt_base),
        start=start,
        end=end,
        hypercall_page=None,
        init_p2m=None if init_p2m is None else Vaddr(init_p2m),
    )


def regions(layout: Layout) -> list[Region]:
    """Every part, in the order of pfns."""
    single = [layout.start_info, layout.xenstore, layout.console, layout.boot_stack]
    parts = [layout.kernel, layout.modules, layout.p2m, layout.p2m_tables, layout.page_tables]
    parts += [Region(pfn, 1) for pfn in single]
    return sorted((part for part in parts if part is not None), key=lambda part: part.pfn)


def test_a_small_kernel_has_the_layout_of_the_real_builder() -> None:
    layout = plan(kernel(0, 0x100000, 0x111000), 128 * MIB >> 12, 0)
    assert layout.vaddr(layout.kernel.pfn) == 0x100000
    assert layout.p2m_vaddr == 0x111000
    assert layout.vaddr(layout.start_info) == 0x151000
    assert layout.vaddr(layout.xenstore) == 0x152000
    assert layout.vaddr(layout.console) == 0x153000
    assert layout.vaddr(layout.page_tables.pfn) == 0x154000
    assert layout.vaddr(layout.boot_stack) == 0x159000
    assert layout.tables == {(4, 0): 0x154, (3, 0): 0x155, (2, 0): 0x156, (1, 0): 0x157, (1, 1): 0x158}
    assert layout.mappings[0].region == Region(0, 0x400)


def test_a_module_comes_between_kernel_and_p2m_list() -> None:
    layout = plan(kernel(0, 0x100000, 0x111000), 8192, 5000)
    assert layout.modules == Region(0x111, 2)
    assert layout.modules_mapped
    assert layout.p2m.pfn == 0x113


def test_a_module_that_need_not_be_mapped_follows_the_mapping() -> None:
    layout = plan(kernel(LINUX_BASE, 0x100000, 0x111000, unmapped=True), 8192, 5000)
    assert layout.modules == Region(layout.mappings[0].region.end, 2)
    assert not layout.modules_mapped
    assert layout.p2m.pfn == 0x111


def test_init_p2m_has_tables_of_its_own_that_are_mapped_nowhere() -> None:
    layout = plan(kernel(LINUX_BASE, 0x1000000, 0x3E00000, init_p2m=0x80_0000_0000, unmapped=True), 65536, 2700000)
    run, p2m = layout.mappings
    assert layout.modules is not None
    assert layout.p2m == Region(layout.modules.end, 128)
    assert layout.p2m_tables == Region(layout.p2m.end, 3)
    assert (p2m.vaddr, p2m.region) == (0x80_0000_0000, layout.p2m)
    assert [layout.tables[key] for key in ((3, 1), (2, 512), (1, 512 * 512))] == [
        *range(layout.p2m.end, layout.p2m.end + 3)
    ]
    assert run.region.end <= layout.p2m.pfn


def test_init_p2m_shares_the_tables_that_exist() -> None:
    layout = plan(kernel(0x4030_0000, 0, 0x10000, init_p2m=0x4020_0000), 4096, 0)
    assert layout.p2m_tables == Region(layout.p2m.end, 0)
    assert layout.tables[1, 0x4020_0000 >> 21] in range(layout.page_tables.pfn, layout.page_tables.end)


@pytest.mark.parametrize(
    ("image", "nr_pages", "message"),
    [
        (kernel(0, 0x100000, 0x111000), 0x3FF, "need 4.0 MiB, the domain has 4.0"),
        (kernel(LINUX_BASE, 0x1000000, 0x3E00000), 4096, "the domain has 16.0"),
        (kernel(0, 0, 1 << 46), 4096, "the kernel and its modules need"),
        (kernel((1 << 64) - 8 * MIB, 0, 8 * MIB - 4096), 8192, "would reach to 0x1"),
        (kernel((1 << 47) - 8 * MIB, 0, 8 * MIB - 4096), 8192, "would reach to 0x8000"),
        (kernel(LINUX_BASE, 0, 4096, init_p2m=LINUX_BASE - 4096), 8192, "the p2m list at INIT_P2M"),
        (kernel(LINUX_BASE, 0, 4096, init_p2m=(1 << 47) - 4096), 8192, "the p2m list at INIT_P2M"),
    ],
)
def test_what_does_not_fit_is_refused(image: KernelImage, nr_pages: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        plan(image, nr_pages, 0)


def test_a_module_that_is_too_large_is_refused_mapped_or_not() -> None:
    for unmapped in (False, True):
        with pytest.raises(ImageError, match="need"):
            plan(kernel(LINUX_BASE, 0, 4096, unmapped=unmapped), 4096, 16 * MIB)


@settings(deadline=None)
@given(
    virt_base=st.sampled_from([0, 0x100000, 0x4010_0000, LINUX_BASE, LINUX_BASE + 0x12_3000]),
    start=st.integers(0, 4 * MIB),
    size=st.integers(1, 20 * MIB),
    modules=st.integers(0, 10 * MIB),
    nr_pages=st.integers(1, 32768),
    init_p2m=st.sampled_from([None, 0x80_0000_0000, 0x1000]),
    unmapped=st.booleans(),
)
def test_parts_never_overlap_and_the_mapping_is_as_promised(
    *, virt_base: int, start: int, size: int, modules: int, nr_pages: int, init_p2m: int | None, unmapped: bool
) -> None:
    wanted = init_p2m if init_p2m is not None and init_p2m < virt_base else None
    image = kernel(virt_base, start, start + size, init_p2m=wanted, unmapped=unmapped)
    try:
        layout = plan(image, nr_pages, modules)
    except ImageError:
        return
    end = 0
    for region in regions(layout):
        assert region.pfn >= end
        end = region.end
    assert end <= nr_pages
    assert layout.kernel.pfn << 12 <= start
    assert start + size <= layout.kernel.end << 12
    run = layout.mappings[0].region
    assert (virt_base + (run.end << 12)) % (4 * MIB) == 0
    assert (run.end - layout.boot_stack - 1) << 12 >= 512 << 10
    used = sorted(layout.tables.values())
    assert used == [*range(layout.page_tables.pfn, layout.page_tables.end)] + (
        [*range(layout.p2m_tables.pfn, layout.p2m_tables.end)] if layout.p2m_tables else []
    )
