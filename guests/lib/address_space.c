/*
 * User halves of address spaces: two level-4 tables over shared lower ones.
 *
 * A fresh table is an ordinary page first. Its last writable mapping goes away, then the first entry that refers to it
 * (or the pin, for level 4) makes Xen check it and give it its type. The way back is the same in reverse: unpinned and
 * no longer referred to, it loses its type and may be written again.
 */
#include "mm_internal.h"

#include <pv/console.h>
#include <pv/hypercall.h>

#define USER_ENTRIES 256 /* of a level-4 table: addresses with bit 47 clear */
#define TABLE_RIGHTS (PTE_PRESENT | PTE_WRITABLE | PTE_USER | PTE_ACCESSED | PTE_DIRTY)

static unsigned index_of(unsigned long va, unsigned level)
{
    return va >> (3 + 9 * level) & 511;
}

static void set_entry(const uint64_t *entry, uint64_t value)
{
    struct mmu_update update = {.ptr = machine_address(entry) | MMU_NORMAL_PT_UPDATE, .val = value};

    if (hypercall_mmu_update(&update, 1))
        fail("mmu_update refuses %lx", value);
}

static void extended_op(unsigned cmd, unsigned long mfn)
{
    struct mmuext_op op = {.cmd = cmd, .arg1.mfn = mfn};

    if (hypercall_mmuext_op(&op, 1))
        fail("mmuext_op %u refuses frame %lx", cmd, mfn);
}

/* Makes a page read-only and returns its frame: now it can become a table. */
static unsigned long table_frame(void *page)
{
    if (kernel_protect(page, PROT_READ))
        fail("cannot write-protect a page table");
    return va_to_mfn(page);
}

static void table_free(unsigned long mfn)
{
    void *page = mfn_to_va(mfn);

    if (kernel_protect(page, PROT_READ | PROT_WRITE))
        fail("a page table that is still in use");
    page_free(page);
}

void address_space_create(struct address_space *space)
{
    uint64_t *kernel_l4 = page_alloc();
    const uint64_t *boot_l4 = (const uint64_t *)start_info->pt_base;

    /* Entries 256-271 are Xen's: it fills them itself. */
    for (unsigned i = 272; i < 512; i++)
        kernel_l4[i] = boot_l4[i];
    space->kernel_l4 = table_frame(kernel_l4);
    space->user_l4 = table_frame(page_alloc());
    extended_op(MMUEXT_PIN_L4_TABLE, space->kernel_l4);
    extended_op(MMUEXT_PIN_L4_TABLE, space->user_l4);
}

/* Only now are the tables below without a type. The frames in level 1 are the caller's. */
static void tables_free(unsigned long mfn, unsigned level)
{
    const uint64_t *table = mfn_to_va(mfn);
    unsigned entries = level == 4 ? USER_ENTRIES : 512;

    for (unsigned i = 0; level > 1 && i < entries; i++)
        if (table[i] & PTE_PRESENT)
            tables_free((table[i] & PTE_FRAME) / PAGE_SIZE, level - 1);
    table_free(mfn);
}

void address_space_destroy(struct address_space *space)
{
    extended_op(MMUEXT_UNPIN_TABLE, space->kernel_l4);
    extended_op(MMUEXT_UNPIN_TABLE, space->user_l4);
    table_free(space->kernel_l4);
    tables_free(space->user_l4, 4);
    *space = (struct address_space){0};
}

void address_space_switch(const struct address_space *space)
{
    struct mmuext_op ops[2] = {
        {.cmd = MMUEXT_NEW_BASEPTR, .arg1.mfn = space ? space->kernel_l4 : va_to_mfn((void *)start_info->pt_base)},
        {.cmd = MMUEXT_NEW_USER_BASEPTR, .arg1.mfn = space ? space->user_l4 : 0},
    };

    if (hypercall_mmuext_op(ops, 2))
        fail("cannot switch to another address space");
}

/* The table of `level` for `va` comes into being below both level-4 tables. */
static void table_add(const struct address_space *space, unsigned long va, unsigned level)
{
    const uint64_t *user_l4 = mfn_to_va(space->user_l4), *kernel_l4 = mfn_to_va(space->kernel_l4);
    uint64_t entry = table_frame(page_alloc()) * PAGE_SIZE | TABLE_RIGHTS;

    if (level < 3) {
        set_entry(walk(user_l4, va, level + 1), entry);
        return;
    }
    set_entry(&user_l4[index_of(va, 4)], entry);
    set_entry(&kernel_l4[index_of(va, 4)], entry);
}

void user_map(const struct address_space *space, unsigned long va, unsigned long mfn, int prot)
{
    const uint64_t *user_l4 = mfn_to_va(space->user_l4);

    for (unsigned level = 3; level >= 1; level--)
        if (!(*walk(user_l4, va, level + 1) & PTE_PRESENT))
            table_add(space, va, level);
    set_entry(walk(user_l4, va, 1), mfn * PAGE_SIZE | rights(prot) | PTE_USER);
}

uint64_t user_pte(const struct address_space *space, unsigned long va)
{
    const uint64_t *entry = va >> 47 ? NULL : walk(mfn_to_va(space->user_l4), va, 1);

    return entry ? *entry : 0;
}

void user_image_map(struct address_space *space, unsigned long stack_top)
{
    address_space_create(space);
    for (unsigned long at = 0; _user_start + at < _user_end; at += PAGE_SIZE)
        user_map(space, (unsigned long)_user_start + at, va_to_mfn(_user_image + at), PROT_READ | PROT_EXEC);
    user_map(space, stack_top - PAGE_SIZE, va_to_mfn(page_alloc()), PROT_READ | PROT_WRITE);
    address_space_switch(space);
}
