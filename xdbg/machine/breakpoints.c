/*
 * The guest's own breakpoints: DR0-DR3 as its DR7 enables them. Intel SDM vol. 3, "Debug Exceptions".
 *
 * One for execution is a fault: #DB comes before the instruction, unless RFLAGS.RF was set when the guest was entered at it. The
 * engine has no use for RF, so it is taken out at the entry (run.c) and given back when nothing was executed; every fault sets
 * it in the state that is left behind, as the frame of one has it.
 *
 * One for data is a trap: #DB comes after the instruction. It is found as a debugger's watch is (watches.c), by machine address; but
 * it means one virtual address, and its frame may be mapped at others. So the instruction is first tried with the page
 * of the breakpoint not present: if it faults there, that is the address through which it came. Nothing runs meanwhile, and the
 * page table is put back before anything else does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { DB = 1, PTE_PRESENT = 1 };
static const uint64_t BEFORE = (uint64_t)1 << 32;

/* Which breakpoints for execution are at an address: bits 0-3. */
uint64_t breakpoints_at(const struct clock *c, uint64_t vaddr)
{
    uint64_t found = 0;

    for (unsigned n = 0; n < NR_BREAKPOINTS; n++)
        if ((c->break_execute >> n & 1) && c->breakpoints[n] == vaddr)
            found |= (uint64_t)1 << n;
    return found;
}

/* The index of the first instruction inside the block (not its first), below `limit`, that has one, or `limit`. */
unsigned first_breakpoint_inside(const struct clock *c, uint64_t pc, const struct block *b, unsigned limit)
{
    for (unsigned n = 0; n < NR_BREAKPOINTS; n++) {
        uint64_t offset = c->breakpoints[n] - pc;
        if (!(c->break_execute >> n & 1) || offset == 0 || offset >= b->size)
            continue;
        unsigned index = instructions_before(b, offset);
        if (index < limit && offset_of_instruction(b, index) == offset)
            limit = index;
    }
    return limit;
}

/* The guest is about to execute the instruction at `vaddr`: is there a #DB first? Then it is raised. */
bool breakpoint_stops(struct clock *c, uint64_t vaddr)
{
    uint64_t found = breakpoints_at(c, vaddr);

    if (!found || is_iteration(c, vaddr) || (c->resume_pc == vaddr && c->resume_count == c->count))
        return false;
    raise_exception(c, DB, 0, 0, found | BEFORE);
    return true;
}

static void set_present(const struct clock *c, uint64_t vaddr, bool present)
{
    const struct engine *e = &c->engine;
    uint64_t at = leaf_of(e->ram, e->ram_size, e->cr[3], vaddr);

    if (at != ~(uint64_t)0)
        e->ram[at] = (uint8_t)((e->ram[at] & ~PTE_PRESENT) | (present ? PTE_PRESENT : 0));
}

/* Breakpoints for data whose pages are there. Makes them not present. */
uint64_t hide_pages(const struct clock *c)
{
    const struct engine *e = &c->engine;
    uint64_t hidden = 0;

    for (unsigned n = 0; n < NR_BREAKPOINTS; n++) {
        uint64_t at;

        if (!(c->break_data >> n & 1) || on_page(c, hidden, c->breakpoints[n]))
            continue;
        at = leaf_of(e->ram, e->ram_size, e->cr[3], c->breakpoints[n]);
        if (at == ~(uint64_t)0 || !(e->ram[at] & PTE_PRESENT))
            continue;
        hidden |= (uint64_t)1 << n;
        set_present(c, c->breakpoints[n], false);
    }
    return hidden;
}

/* Undo `hide_pages` for some. */
void show_pages(const struct clock *c, uint64_t numbers)
{
    for (unsigned n = 0; n < NR_BREAKPOINTS; n++)
        if (numbers >> n & 1)
            set_present(c, c->breakpoints[n], true);
}

/* Which of some breakpoints are on the page of an address. */
uint64_t on_page(const struct clock *c, uint64_t numbers, uint64_t vaddr)
{
    uint64_t found = 0;

    for (unsigned n = 0; n < NR_BREAKPOINTS; n++)
        if ((numbers >> n & 1) && PAGE_BASE(c->breakpoints[n]) == PAGE_BASE(vaddr))
            found |= (uint64_t)1 << n;
    return found;
}
