/* The kernel half: rights, and free pages. The user half is in address_space.c. */
#include "mm_internal.h"

#include <pv/console.h>
#include <pv/hypercall.h>
#include <pv/text.h>

#define MACHINE_TO_PHYS ((const unsigned long *)MACH2PHYS_VIRT_START)

extern char *boot_stack_top;

static struct free_page {
    struct free_page *next;
} *free_list;
static unsigned nr_free;
static uint64_t no_execute; /* PTE_NX, if the processor has it */

unsigned long va_to_mfn(const void *va)
{
    const unsigned long *p2m = (const unsigned long *)start_info->mfn_list;

    return p2m[((const char *)va - VIRT_BASE) / PAGE_SIZE];
}

void *mfn_to_va(unsigned long mfn)
{
    return VIRT_BASE + MACHINE_TO_PHYS[mfn] * PAGE_SIZE;
}

const uint64_t *walk(const uint64_t *table, unsigned long va, unsigned level)
{
    for (unsigned at = 4;; at--) {
        const uint64_t *entry = &table[va >> (3 + 9 * at) & 511];

        if (at == level)
            return entry;
        if (!(*entry & PTE_PRESENT))
            return NULL;
        table = mfn_to_va((*entry & PTE_FRAME) / PAGE_SIZE);
    }
}

uint64_t machine_address(const void *va)
{
    return va_to_mfn(va) * PAGE_SIZE + (unsigned long)va % PAGE_SIZE;
}

uint64_t rights(int prot)
{
    uint64_t write = prot & PROT_WRITE ? PTE_WRITABLE | PTE_DIRTY : 0;

    return PTE_PRESENT | PTE_ACCESSED | write | (prot & PROT_EXEC ? 0 : no_execute);
}

long kernel_map(const void *va, unsigned long mfn, int prot)
{
    return hypercall_update_va_mapping((unsigned long)va, mfn * PAGE_SIZE | rights(prot), UVMF_INVLPG | UVMF_LOCAL);
}

long kernel_protect(const void *va, int prot)
{
    return kernel_map(va, va_to_mfn(va), prot);
}

/*
 * What a page of the initial mapping may be used for. The bootstrap page tables came read-only and stay so. Nothing
 * but text is executable: that is sound anywhere, and makes stores fast for a processor that watches for changed code.
 */
static uint64_t boot_rights(const char *va)
{
    const char *tables = (const char *)start_info->pt_base;

    if (va >= _text && va < _etext)
        return rights(PROT_READ | PROT_EXEC);
    if (va >= _etext && va < _erodata)
        return rights(PROT_READ);
    if (va >= tables && va < tables + start_info->nr_pt_frames * PAGE_SIZE)
        return rights(PROT_READ);
    return rights(PROT_READ | PROT_WRITE);
}

/* The instruction alone would tell of the bare processor: the prefix asks Xen for its view of it. */
static bool has_no_execute(void)
{
    uint32_t eax = 0x80000001, ebx, ecx = 0, edx;

    __asm__ volatile("ud2a; .ascii \"xen\"; cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return edx >> 20 & 1;
}

static void update(const struct mmu_update *list, unsigned count)
{
    if (count && hypercall_mmu_update(list, count))
        fail("mmu_update refuses the kernel's own mapping");
}

static void protect_all(const char *end)
{
    static struct mmu_update list[128];
    unsigned count = 0;

    for (const char *va = VIRT_BASE; va < end; va += PAGE_SIZE) {
        const uint64_t *entry = walk((const uint64_t *)start_info->pt_base, (unsigned long)va, 1);

        list[count].ptr = machine_address(entry) | MMU_NORMAL_PT_UPDATE;
        list[count].val = (*entry & PTE_FRAME) | boot_rights(va);
        if (++count == sizeof(list) / sizeof(list[0])) {
            update(list, count);
            count = 0;
        }
    }
    update(list, count);
    tlb_flush();
}

static const char *mapping_end(void)
{
    const char *va = boot_stack_top;

    for (;; va += PAGE_SIZE) {
        const uint64_t *entry = walk((const uint64_t *)start_info->pt_base, (unsigned long)va, 1);

        if (!entry || !(*entry & PTE_PRESENT))
            return va;
    }
}

void mm_init(void)
{
    const char *end = mapping_end();

    no_execute = has_no_execute() ? PTE_NX : 0;
    protect_all(end);
    for (char *va = (char *)end - PAGE_SIZE; va >= boot_stack_top; va -= PAGE_SIZE)
        page_free(va);
    for (char *va = _text - PAGE_SIZE; va >= VIRT_BASE; va -= PAGE_SIZE)
        page_free(va);
}

void *page_alloc(void)
{
    struct free_page *page = free_list;

    if (!page)
        fail("out of memory");
    free_list = page->next;
    nr_free--;
    return memset(page, 0, PAGE_SIZE);
}

void page_free(void *page)
{
    struct free_page *free = page;

    free->next = free_list;
    free_list = free;
    nr_free++;
}

unsigned pages_free(void)
{
    return nr_free;
}

void tlb_flush(void)
{
    struct mmuext_op op = {.cmd = MMUEXT_TLB_FLUSH_LOCAL};

    if (hypercall_mmuext_op(&op, 1))
        fail("cannot flush the TLB");
}
