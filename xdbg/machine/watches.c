/*
 * Data watch points: hooks on accesses to frames that the engine holds protected (cpu.py protects them).
 *
 * The engine drops a store into a write-protected frame and calls the hook with it, once for an aligned store, and for one
 * that is not aligned once whole and then byte by byte. The hook makes the store itself. When the store touches a watched byte
 * it does not: it leaves the instruction at once, as a page fault at the same place would, so that all of the
 * instruction's work can be done again. The run loop then runs just that instruction (`watch_step`); its stores are made by the
 * hook and noted, and the exit comes after it.
 *
 * The engine calls the hook of a read-protected frame only when the frame's page is not in its TLB, and then reads. So each
 * first read is left and stepped, and the TLB flushed before and after.
 *
 * An access that crosses from an unprotected page into a protected one is not announced before its first bytes are stored;
 * cpu.py therefore protects the frames whose pages lie before a watched page start, and `access_runs_on` steps such accesses.
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
        return true;
    }
    if (!c->watch_step) {
        if (runs_on || c->frame_has_code[maddr / PAGE] || is_watched(c, maddr, (uint64_t)size, WRITE))
            hit(c);
    } else if (!runs_on) {
        note(c, maddr, (uint64_t)size, WRITE);
    }
    if (whole)
        memcpy(e->ram + maddr, &value, (size_t)size);
    return true;
}
