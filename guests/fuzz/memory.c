/* Frames, page tables and addresses to play with, and the way back from there. */
#include "fuzz.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/text.h>

#include <xen/grant_table.h>
#include <xen/memory.h>

#define VIRT_BASE_ADDRESS ((unsigned long)VIRT_BASE)
#define FUZZ_SLOTS 16     /* entries of the kernel's L2 that are free for tables of the pool */
#define FIRST_FUZZ_SLOT 64
#define KERNEL_L3_SLOT 510
#define NR_KERNEL_SLOTS 4 /* entries of the kernel's L2 that are in use at the most */
#define MAX_FRAMES (1ul << 18)
#define NR_GAINED 64

struct pool_page pool[NR_POOL];
unsigned long arena_unmapped;

static unsigned long kernel_l4, kernel_l3, kernel_l2; /* mfns */
static const uint64_t *l2;                            /* in virtual memory: the M2P may be wrong later */
static unsigned long other_frames[8];
static unsigned nr_other_frames;
static unsigned long essential[MAX_FRAMES / 64];      /* a bit for each frame that is in use for good */
static unsigned long gained[NR_GAINED];               /* frames that calls gave us */
static unsigned nr_gained;
static char *nothing_behind;                          /* a page in front of one that is not mapped */

static unsigned long frame_of(uint64_t entry)
{
    return (entry & PTE_FRAME) / PAGE_SIZE;
}

unsigned long boot_l4(void)
{
    return kernel_l4;
}

static long extended_op(unsigned cmd, unsigned long mfn)
{
    struct mmuext_op op = {.cmd = cmd, .arg1.mfn = mfn};

    return hypercall_mmuext_op(&op, 1);
}

static long remap(struct pool_page *page, int prot)
{
    return kernel_map(page->va, page->mfn, prot);
}

/* Whether the domain builder has mapped a page of the kernel half. */
static bool is_mapped(const char *va)
{
    uint64_t entry = l2[(unsigned long)va >> 21 & 511];
    const uint64_t *l1;

    if ((unsigned long)va >> 30 != (unsigned long)VIRT_BASE >> 30 || !(entry & PTE_PRESENT))
        return false;
    l1 = mfn_to_va(frame_of(entry));
    return l1[(unsigned long)va >> 12 & 511] & PTE_PRESENT;
}

/* Frames of Xen's that the domain may map. */
static void find_other_frames(void)
{
    static xen_pfn_t frames[4];
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};

    other_frames[nr_other_frames++] = start_info->shared_info / PAGE_SIZE;
    set_xen_guest_handle(setup.frame_list, frames);
    if (!HYPERCALL(grant_table_op, GNTTABOP_setup_table, &setup, 1, 0) && setup.status == GNTST_okay)
        other_frames[nr_other_frames++] = frames[0];

    struct xen_machphys_mfn_list list = {.max_extents = 4};

    set_xen_guest_handle(list.extent_start, frames);
    if (!HYPERCALL(memory_op, XENMEM_machphys_mfn_list, &list, 0, 0))
        for (unsigned i = 0; i < list.nr_extents; i++)
            other_frames[nr_other_frames++] = frames[i];
}

void memory_init(void)
{
    const uint64_t *l4 = (const uint64_t *)start_info->pt_base;
    const uint64_t *l3;

    kernel_l4 = va_to_mfn(l4);
    kernel_l3 = frame_of(l4[511]);
    l3 = mfn_to_va(kernel_l3);
    kernel_l2 = frame_of(l3[KERNEL_L3_SLOT]);
    l2 = mfn_to_va(kernel_l2);
    for (unsigned i = 0; i < NR_POOL; i++) {
        pool[i].va = page_alloc();
        pool[i].mfn = va_to_mfn(pool[i].va);
    }
    /* Free pages come in a row downwards: the one behind goes away. */
    char *behind = page_alloc();

    nothing_behind = page_alloc();
    if (nothing_behind + PAGE_SIZE != behind) {
        char *swap = nothing_behind;

        nothing_behind = behind;
        behind = swap;
    }
    if (nothing_behind + PAGE_SIZE == behind && hypercall_update_va_mapping((unsigned long)behind, 0, UVMF_INVLPG))
        fail("cannot unmap a page");
    arena_unmapped = (unsigned long)behind;
    find_other_frames();
    for (const char *va = VIRT_BASE; va < VIRT_BASE + start_info->nr_pages * PAGE_SIZE; va += PAGE_SIZE)
        if (is_mapped(va) && va_to_mfn(va) < MAX_FRAMES)
            essential[va_to_mfn(va) / 64] |= 1ul << va_to_mfn(va) % 64;
    for (unsigned i = 0; i < NR_POOL; i++)
        essential[pool[i].mfn / 64] &= ~(1ul << pool[i].mfn % 64);
}

/* -- frames */

unsigned long pool_frame(void)
{
    return pool[random_below(NR_POOL)].mfn;
}

/* Of those that the fuzzer runs on, one that page tables or text are in, or data. */
static unsigned long essential_frame(void)
{
    switch (random_below(6)) {
    case 0:
        return kernel_l4;
    case 1:
        return kernel_l3;
    case 2:
        return kernel_l2;
    case 3:
        return frame_of(l2[random_below(NR_KERNEL_SLOTS)]);
    case 4:
        return va_to_mfn(_text + random_below(_etext - _text));
    default:
        return va_to_mfn(_erodata + random_below(_end - _erodata));
    }
}

static unsigned long any_frame(void)
{
    switch (random_below(16)) {
    case 0:
        return essential_frame();
    case 1:
        return random_below(1u << 16); /* somebody's, most likely */
    case 2:
        return other_frames[random_below(nr_other_frames)];
    case 3:
        return random_value() & 0xffffffffff;
    case 4: {
        /* Own, and not mapped anywhere. */
        const unsigned long *p2m = (const unsigned long *)start_info->mfn_list;
        unsigned long half = start_info->nr_pages / 2;

        return p2m[half + random_below(half)];
    }
    default:
        return pool_frame();
    }
}

bool is_essential(unsigned long mfn)
{
    return mfn < MAX_FRAMES && essential[mfn / 64] >> mfn % 64 & 1;
}

unsigned long random_frame(bool *must_live)
{
    unsigned long mfn = any_frame();

    *must_live = is_essential(mfn);
    return mfn;
}

/* -- entries */

uint64_t random_pte(void)
{
    static const uint64_t flags[] = {7, 7, 7, 7, 5, 5, 5, 3, 1, 0x67, 0x65, 0x107, 0xe07, 0, 6, 0x8000000000000007, 0x8000000000000005};
    static const uint64_t odd[] = {0x8, 0x10, 0x80, 0x100, 1ul << 52, 1ul << 62, 0x7ff0000000000000, 1ul << 51};
    bool essential;
    uint64_t entry = random_frame(&essential) * PAGE_SIZE | PICK(flags);

    if (one_in(12))
        entry |= PICK(odd);
    if (one_in(24))
        entry = random_value();
    return is_essential(frame_of(entry)) ? entry & ~PTE_WRITABLE : entry;
}

uint64_t random_entry(void)
{
    unsigned slot = random_below(512);

    switch (random_below(10)) {
    case 0:
        return kernel_l2 * PAGE_SIZE + (FIRST_FUZZ_SLOT + random_below(FUZZ_SLOTS)) * 8;
    case 1:
        return kernel_l3 * PAGE_SIZE + random_below(KERNEL_L3_SLOT) * 8;
    case 2:
        return kernel_l4 * PAGE_SIZE + (one_in(2) ? 1 + random_below(254) : 256 + random_below(255)) * 8;
    case 3:
        return random_value() & 0xfff; /* frame 0: nobody's */
    case 4:
        return ((1ul << 30) + random_word() % (1ul << 40)) & ~7ul; /* beyond this machine, or another's */
    default:
        return pool_frame() * PAGE_SIZE + (one_in(3) ? slot : slot % 8) * 8;
    }
}

unsigned long random_slot(void)
{
    switch (random_below(12)) {
    case 0: {
        unsigned long va = bad_pointer();

        /* What bad_pointer() counts on must stay unmapped. */
        return va / PAGE_SIZE == arena_unmapped / PAGE_SIZE ? VIRT_BASE_ADDRESS - PAGE_SIZE : va;
    }
    case 1:
    case 2:
        return VIRT_BASE_ADDRESS + (FIRST_FUZZ_SLOT + random_below(FUZZ_SLOTS)) * 0x200000ul + random_below(512) * PAGE_SIZE;
    case 3:
        return random_below(256) * (1ul << 39) + random_below(512) * PAGE_SIZE;
    default:
        return (unsigned long)pool[random_below(NR_POOL)].va;
    }
}

/* -- pointers */

unsigned long bad_pointer(void)
{
    static const unsigned long bad[] = {
        1, 0xfff, 0x10000000, 0x7fffffffffff, 0x800000000000, 0x1234567890abcdef, 0xffff820000000000, 0xffff830000000000,
        0xffff87fffffffff8, 0xfffffffffffff000, 0xfffffffffffffff8, 1ul << 63,
    };

    return one_in(4) ? arena_unmapped + random_below(PAGE_SIZE) : PICK(bad);
}

unsigned long read_only_pointer(void)
{
    switch (random_below(4)) {
    case 0:
        return (unsigned long)_text + random_below(_etext - _text);
    case 1:
        return start_info->pt_base + random_below(PAGE_SIZE * 2) / 8 * 8;
    case 2:
        return MACH2PHYS_VIRT_START + random_below(PAGE_SIZE * 8) / 8 * 8;
    default:
        return (unsigned long)nothing_behind + PAGE_SIZE - 1 - random_below(64); /* and ends soon */
    }
}

unsigned long random_buffer(void)
{
    if (one_in(6))
        return bad_pointer();
    if (one_in(6))
        return read_only_pointer();
    return (unsigned long)pool[random_below(NR_POOL)].va + (one_in(2) ? 0 : random_below(PAGE_SIZE));
}

/* -- tables of the pool */

void prepare_table(void)
{
    struct pool_page *page = &pool[random_below(NR_POOL)];
    unsigned entries = random_below(4);

    if (remap(page, PROT_READ | PROT_WRITE))
        return;
    if (one_in(2))
        for (unsigned i = 0; i < 512; i++)
            page->va[i] = 0;
    for (unsigned i = 0; i < entries; i++)
        page->va[one_in(2) ? random_below(8) : random_below(512)] = random_pte();
    if (one_in(8))
        page->va[random_below(512)] = page->mfn * PAGE_SIZE | 5;
    remap(page, PROT_READ);
}

void poke_table(void)
{
    guarded_store(&pool[random_below(NR_POOL)].va[random_below(512)], random_pte());
}

/* -- giving back */

static long reservation(unsigned op, xen_pfn_t *frames, unsigned count)
{
    struct xen_memory_reservation request = {.nr_extents = count, .domid = DOMID_SELF};

    set_xen_guest_handle(request.extent_start, frames);
    return HYPERCALL(memory_op, op, &request, 0, 0);
}

/* Zeroes entries of a table; what Xen refuses stays. */
static void clear_entries(unsigned long table, unsigned first, unsigned end)
{
    static struct mmu_update list[128];

    while (first < end) {
        unsigned count = 0;

        for (; count < sizeof(list) / sizeof(list[0]) && first < end; first++)
            list[count++].ptr = table * PAGE_SIZE + first * 8;
        hypercall_mmu_update(list, count);
    }
}

static void clear_links(void)
{
    clear_entries(kernel_l2, FIRST_FUZZ_SLOT, FIRST_FUZZ_SLOT + FUZZ_SLOTS);
    clear_entries(kernel_l3, 0, KERNEL_L3_SLOT);
    clear_entries(kernel_l4, 0, 256);
    clear_entries(kernel_l4, 272, 511);
}

void memory_reset(void)
{
    static xen_pfn_t fresh;
    struct mmuext_op ldt = {.cmd = MMUEXT_SET_LDT};

    hypercall_mmuext_op(&ldt, 1);
    HYPERCALL(set_gdt, 0, 0, 0, 0);
    extended_op(MMUEXT_NEW_USER_BASEPTR, 0);
    clear_links();
    for (unsigned i = 0; i < NR_POOL; i++) {
        extended_op(MMUEXT_UNPIN_TABLE, pool[i].mfn);
        hypercall_update_va_mapping((unsigned long)pool[i].va, 0, UVMF_INVLPG);
    }
    for (; nr_gained; nr_gained--) {
        fresh = gained[nr_gained - 1];
        if (!is_essential(fresh))
            reservation(XENMEM_decrease_reservation, &fresh, 1);
    }
    for (unsigned i = 0; i < NR_POOL; i++) {
        /* A frame that went away is replaced; one that can't be had back now is tried again next time. */
        if (!remap(&pool[i], PROT_READ | PROT_WRITE) || !remap(&pool[i], PROT_READ))
            continue;
        fresh = ((const char *)pool[i].va - VIRT_BASE) / PAGE_SIZE;
        if (reservation(XENMEM_populate_physmap, &fresh, 1) == 1) {
            pool[i].mfn = fresh;
            remap(&pool[i], PROT_READ | PROT_WRITE);
        }
    }
    tlb_flush();
}

void memory_release(void)
{
    xen_pfn_t frame;

    memory_reset();
    for (unsigned i = 0; i < NR_POOL; i++) {
        hypercall_update_va_mapping((unsigned long)pool[i].va, 0, UVMF_INVLPG);
        frame = pool[i].mfn;
        reservation(XENMEM_decrease_reservation, &frame, 1);
    }
}

void take_frames(const uint64_t *list, long count)
{
    for (long i = 0; i < count && i < 4 && nr_gained < NR_GAINED; i++)
        gained[nr_gained++] = list[i];
}
