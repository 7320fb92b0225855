/*
 * Data watch points: hooks on accesses to frames that the engine holds protected (watches.py protects them).
 *
 * The engine drops a store into a write-protected frame and calls the hook with it, once for an aligned store, and for one
 * that is not aligned once whole and then byte by byte. The hook makes the store itself. When the store touches a watched byte
 * it does not: it leaves the instruction at once, as a page fault at the same place would, so that all of the
 * instruction's work can be done again. The run loop then runs just that instruction (`watch_step`); its stores are made by the
 * hook and noted, and the exit comes after it.
 *
 * The engine calls the hook of a read-protected frame only when the frame's page is not in its TLB, and then reads. So each
 * first read is left and stepped, and the TLB flushed before and after. A store or a fetch puts the page there, too: such a store
 * is stepped, and the TLB flushed when a block of such a frame begins (clock.c).
 *
 * An access that crosses from an unprotected page into a protected one is announced late (a store, byte by byte, when its first
 * bytes are stored) or not at all (a load). So the frames of pages that lie before a watched page are protected, too
 * (`xdbg_find_predecessors`), and an access that runs on from one is stepped. What a load touches in the second page is
 * taken from the pairs found; where a frame is mapped twice with different pages behind it, both are taken as touched.
 *
 * A store into a frame with translated code is stepped, too: the engine does not see stores made here.
 *
 * A protected frame may have no watch at all: it lies between two that have one (watches.py). Its stores are made here and its
 * loads let pass.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { UC_MEM_WRITE_PROT = 22, READ = 1, WRITE = 2, PREDECESSOR = 4 };

static uint8_t frame_flags(const struct clock *c, uint64_t maddr)
{
    return maddr < c->engine.ram_size ? c->frame_is_watched[maddr / PAGE] : 0;
}

/* How many watches begin before an address: those are the first in the array. */
static uint64_t watches_before(const struct clock *c, uint64_t maddr)
{
    uint64_t low = 0, high = c->nr_watches;

    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (c->watches[middle].maddr < maddr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_watched(const struct clock *c, uint64_t maddr, uint64_t size, uint64_t access)
{
    if (!((frame_flags(c, maddr) | frame_flags(c, maddr + size - 1)) & access))
        return false;
    for (uint64_t i = watches_before(c, maddr + size); i > 0 && c->watches[i - 1].reach > maddr; i--) {
        const struct watch *w = &c->watches[i - 1];
        if ((w->access & access) && maddr < w->maddr + w->length)
            return true;
    }
    return false;
}

/* Is the frame at this machine address held against reads for a reason? It may also lie between two that are. */
static bool is_read_protected(const struct clock *c, uint64_t frame)
{
    return frame_flags(c, frame) & (READ | PREDECESSOR);
}

/* A block is about to run: does it come from a frame that is held against reads? Its fetch was not one, but let them pass. */
bool is_block_read_protected(const struct clock *c, const struct block *b)
{
    return c->watches_read && (is_read_protected(c, PAGE_BASE(b->maddr)) ||
                               (b->maddr2 != ~(uint64_t)0 && is_read_protected(c, b->maddr2)));
}

/* Note what the stepped instruction touches. */
static void note(struct clock *c, uint64_t maddr, uint64_t size, uint64_t access)
{
    for (uint64_t i = watches_before(c, maddr + size); i > 0 && c->watches[i - 1].reach > maddr; i--) {
        struct watch *w = &c->watches[i - 1];
        uint64_t first = maddr > w->maddr ? maddr : w->maddr;
        if (!(w->access & access) || maddr >= w->maddr + w->length)
            continue;
        w->hit = 1;
        if (w->number < NR_BREAKPOINTS)
            continue;
        if (first < c->watch_first)
            c->watch_first = first;
        if (maddr + size > c->watch_end)
            c->watch_end = maddr + size;
        if (access == WRITE)
            c->watch_write = 1;
    }
}

/*
 * How many bytes are loaded from where `size` are. If those are the first part of a longer load, the others will not be announced,
 * as the page is in the TLB by then.
 */
static uint64_t size_of_load(const struct clock *c, uint64_t size)
{
    struct instruction instruction;

    if (!c->last || c->watch_loads)
        return size;
    decode_at(c->last->block, 0, &instruction);
    return instruction.load_parts > size ? instruction.load_parts : size;
}

/* Note a load, and what it touches in the page behind, which is announced no more either. */
static void note_load(struct clock *c, uint64_t maddr, uint64_t size)
{
    uint64_t left = PAGE - PAGE_OFFSET(maddr);

    size = size_of_load(c, size);
    note(c, maddr, size < left ? size : left, READ);
    if (size > left)
        for (uint64_t i = 0; i < c->nr_predecessors; i++)
            if (c->predecessors[i].maddr == PAGE_BASE(maddr))
                note(c, c->predecessors[i].next, size - left, READ);
}

/* Leave the instruction, to be stepped. */
static _Noreturn void hit(struct clock *c)
{
    settle(c, *c->engine.eip);
    leave(c, EVENT_WATCH_HIT);
    restart(c, 0);
}

/* UC_HOOK_MEM_WRITE_PROT | UC_HOOK_MEM_READ_PROT */
bool xdbg_watch_hook(void *uc, int type, uint64_t maddr, int size, int64_t value, struct clock *c)
{
    struct engine *e = &c->engine;
    bool whole = !(maddr & (uint64_t)(size - 1)); /* else the bytes follow singly, if it is a store */
    bool runs_on = PAGE_OFFSET(maddr) + (uint64_t)size > PAGE;

    (void)uc;
    if (type != UC_MEM_WRITE_PROT) {
        if (!is_read_protected(c, maddr))
            return true;
        if (!c->watch_step)
            hit(c);
        note_load(c, maddr, (uint64_t)size);
        c->watch_loads++;
        return true;
    }
    if (!c->watch_step) {
        if (runs_on || c->frame_has_code[maddr / PAGE] || is_watched(c, maddr, (uint64_t)size, WRITE) ||
            (c->watches_read && is_read_protected(c, PAGE_BASE(maddr))))
            hit(c);
    } else if (!runs_on) {
        note(c, maddr, (uint64_t)size, WRITE);
    }
    if (whole)
        memcpy(e->ram + maddr, &value, (size_t)size);
    return true;
}

static const uint64_t NONE = ~(uint64_t)0, PTE_PRESENT = 1, PTE_PSE = 1 << 7, PTE_ADDRESS = 0x000ffffffffff000;

/* Where the entry is that maps a virtual page, present or not, or ~0; `*shift` is that of its size. */
static uint64_t entry_of(const uint8_t *ram, uint64_t ram_size, uint64_t cr3, uint64_t vaddr, int *shift)
{
    uint64_t entry = cr3, at = NONE;

    if (vaddr >> 47 && vaddr >> 47 != 0x1ffff)
        return NONE;
    for (*shift = 39; *shift >= 12; *shift -= 9) {
        at = (entry & PTE_ADDRESS) + (vaddr >> *shift & 511) * 8;
        if (at + 8 > ram_size)
            return NONE;
        memcpy(&entry, ram + at, sizeof(entry));
        if (*shift == 12 || (*shift < 39 && (entry & PTE_PRESENT) && entry & PTE_PSE))
            return at;
        if (!(entry & PTE_PRESENT))
            return NONE;
    }
    return NONE;
}

/* The machine address of the entry that maps a virtual page, present or not; ~0 if there is no such table. */
uint64_t leaf_of(const uint8_t *ram, uint64_t ram_size, uint64_t cr3, uint64_t vaddr)
{
    int shift;

    return entry_of(ram, ram_size, cr3, vaddr, &shift);
}

/* The frame of a virtual page, or ~0 if there is none in RAM. */
static uint64_t frame_of(const uint8_t *ram, uint64_t ram_size, uint64_t cr3, uint64_t vaddr)
{
    int shift;
    uint64_t entry, at = entry_of(ram, ram_size, cr3, vaddr, &shift);

    if (at == NONE)
        return NONE;
    memcpy(&entry, ram + at, sizeof(entry));
    if (!(entry & PTE_PRESENT))
        return NONE;
    uint64_t inside = ((uint64_t)1 << shift) - 1;
    at = PAGE_BASE((entry & PTE_ADDRESS & ~inside) | (vaddr & inside));
    return at < ram_size ? at : NONE;
}

/* Replace the virtual addresses of `nr` pages by the machine addresses of their frames, or ~0. */
void xdbg_translate_pages(const uint8_t *ram, uint64_t ram_size, uint64_t cr3, uint64_t *pages, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++)
        pages[i] = frame_of(ram, ram_size, cr3, pages[i]);
}

struct search {
    struct clock *c;
    const uint8_t *is_edge; /* by frame */
    struct predecessor *found;
    uint64_t capacity, nr_found;
};

/* The page at `vaddr` is one of those looked for. */
static void add_predecessor(struct search *s, uint64_t vaddr, uint64_t frame)
{
    uint64_t before = frame_of(s->c->engine.ram, s->c->engine.ram_size, s->c->cr3, vaddr - PAGE);

    if (before == NONE)
        return;
    if (s->nr_found < s->capacity)
        s->found[s->nr_found] = (struct predecessor){before, frame};
    s->nr_found++;
}

static void search_page(struct search *s, uint64_t vaddr, uint64_t base, uint64_t size)
{
    for (uint64_t at = 0; at < size && base + at < s->c->engine.ram_size; at += PAGE)
        if (s->is_edge[(base + at) / PAGE])
            add_predecessor(s, vaddr + at, base + at);
}

static void search_table(struct search *s, uint64_t table, int shift, uint64_t vaddr)
{
    uint64_t entry, inside = ((uint64_t)1 << shift) - 1;

    if (table + PAGE > s->c->engine.ram_size)
        return;
    for (uint64_t i = 0; i < 512; i++) {
        uint64_t here = vaddr | i << shift;
        memcpy(&entry, s->c->engine.ram + table + i * 8, sizeof(entry));
        if (!(entry & PTE_PRESENT))
            continue;
        if (shift == 39 && i >= 256)
            here |= (uint64_t)0xffff << 48;
        if (shift == 12 || (shift < 39 && entry & PTE_PSE))
            search_page(s, here, entry & PTE_ADDRESS & ~inside, inside + 1);
        else
            search_table(s, entry & PTE_ADDRESS, shift - 9, here);
    }
}

/*
 * The frames of all pages that lie right before a page of a frame with a mark in `is_edge`, in the address space of `c->cr3`: how
 * many were found, some of them more than once; at most `capacity` are stored.
 */
uint64_t xdbg_find_predecessors(struct clock *c, const uint8_t *is_edge, struct predecessor *found, uint64_t capacity)
{
    struct search s = {c, is_edge, found, capacity, 0};

    search_table(&s, c->cr3 & PTE_ADDRESS, 39, 0);
    return s.nr_found;
}

/* Note where watches reach, and which frames they and the predecessors are in. */
void xdbg_index_watches(struct clock *c)
{
    uint64_t reach = 0;

    memset(c->frame_is_watched, 0, c->engine.ram_size / PAGE);
    for (uint64_t i = 0; i < c->nr_watches; i++) {
        struct watch *w = &c->watches[i];
        if (w->maddr + w->length > reach)
            reach = w->maddr + w->length;
        w->reach = reach;
        for (uint64_t frame = w->maddr / PAGE; frame * PAGE < w->maddr + w->length; frame++)
            c->frame_is_watched[frame] |= (uint8_t)w->access;
    }
    for (uint64_t i = 0; i < c->nr_predecessors; i++)
        c->frame_is_watched[c->predecessors[i].maddr / PAGE] |= PREDECESSOR;
}
