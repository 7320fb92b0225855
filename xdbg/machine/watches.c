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
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { UC_MEM_WRITE_PROT = 22, READ = 1, WRITE = 2 };

static bool is_watched(const struct clock *c, uint64_t maddr, uint64_t size, uint64_t access)
{
    for (uint64_t i = 0; i < c->nr_watches; i++) {
        const struct watch *w = &c->watches[i];
        if ((w->access & access) && maddr < w->maddr + w->length && w->maddr < maddr + size)
            return true;
    }
    return false;
}

/* Is the frame at this machine address held against reads? */
static bool is_read_protected(const struct clock *c, uint64_t frame)
{
    for (uint64_t i = 0; i < c->nr_predecessors; i++)
        if (c->predecessors[i].maddr == frame)
            return true;
    return is_watched(c, frame, PAGE, READ);
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
    for (uint64_t i = 0; i < c->nr_watches; i++) {
        struct watch *w = &c->watches[i];
        uint64_t first = maddr > w->maddr ? maddr : w->maddr;
        if (!(w->access & access) || maddr >= w->maddr + w->length || w->maddr >= maddr + size)
            continue;
        w->hit = 1;
        if (first < c->watch_first)
            c->watch_first = first;
        if (maddr + size > c->watch_end)
            c->watch_end = maddr + size;
        if (access == WRITE)
            c->watch_write = 1;
    }
}

/*
 * A load runs on into the page behind. If that is the first part of a longer load, the parts that follow are in that page; they
 * will not be announced, as it is in the TLB by then.
 */
static void note_next_page(struct clock *c, uint64_t maddr, uint64_t size)
{
    struct instruction instruction;

    if (c->last && c->watch_loads == 0) {
        decode(c->last->block->bytes, c->last->block->size, &instruction);
        if (instruction.load_parts > size)
            size = instruction.load_parts;
    }
    for (uint64_t i = 0; i < c->nr_predecessors; i++)
        if (c->predecessors[i].maddr == PAGE_BASE(maddr))
            note(c, c->predecessors[i].next, PAGE_OFFSET(maddr) + size - PAGE, READ);
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
        if (!c->watch_step)
            hit(c);
        note(c, maddr, (uint64_t)size, READ);
        if (runs_on)
            note_next_page(c, maddr, (uint64_t)size);
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

static const uint64_t PTE_PRESENT = 1, PTE_PSE = 1 << 7, PTE_ADDRESS = 0x000ffffffffff000;

/* The frame of a virtual page, or ~0. */
static uint64_t frame_of(const struct clock *c, uint64_t vaddr)
{
    uint64_t entry = c->cr3, at;

    for (int shift = 39; shift >= 12; shift -= 9) {
        at = (entry & PTE_ADDRESS) + (vaddr >> shift & 511) * 8;
        if (at + 8 > c->engine.ram_size)
            return ~(uint64_t)0;
        memcpy(&entry, c->engine.ram + at, sizeof(entry));
        if (!(entry & PTE_PRESENT))
            return ~(uint64_t)0;
        if (shift == 12 || (shift < 39 && entry & PTE_PSE)) {
            uint64_t inside = ((uint64_t)1 << shift) - 1;
            return PAGE_BASE((entry & PTE_ADDRESS & ~inside) | (vaddr & inside));
        }
    }
    return ~(uint64_t)0;
}

struct search {
    struct clock *c;
    uint64_t frame;
    struct predecessor *found;
    uint64_t capacity, nr_found;
};

static void add_predecessor(struct search *s, uint64_t vaddr)
{
    uint64_t before = frame_of(s->c, vaddr - PAGE);

    if (before >= s->c->engine.ram_size)
        return;
    for (uint64_t i = 0; i < s->nr_found && i < s->capacity; i++)
        if (s->found[i].maddr == before)
            return;
    if (s->nr_found < s->capacity)
        s->found[s->nr_found] = (struct predecessor){before, s->frame};
    s->nr_found++;
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
        if (shift == 12 || (shift < 39 && entry & PTE_PSE)) {
            uint64_t base = entry & PTE_ADDRESS & ~inside;
            if (s->frame - base <= inside)
                add_predecessor(s, here + (s->frame - base));
        } else {
            search_table(s, entry & PTE_ADDRESS, shift - 9, here);
        }
    }
}

/*
 * The frames of all pages that lie right before a page of `frame` (a machine address) in the address space of `c->cr3`: how many
 * there are; at most `capacity` are stored.
 */
uint64_t xdbg_find_predecessors(struct clock *c, uint64_t frame, struct predecessor *found, uint64_t capacity)
{
    struct search s = {c, frame, found, capacity, 0};

    search_table(&s, c->cr3 & PTE_ADDRESS, 39, 0);
    return s.nr_found;
}
