/*
 * The instruction clock: runs the guest to an exact instruction count.
 *
 * Block hook. It runs before the first instruction of each block. `count` is advanced by the whole block there; `settle` takes
 * back what did not run when an exception cuts the block short. Within an epoch (one entry) a block that was seen
 * before costs one table look-up; everything else is `slow_block`:
 *   1. the block's bytes are checked against its translation (blocks.c);
 *   2. a self-modifying store that cut the previous block is accounted;
 *   3. the deadline, a stop point at the block's address whose predicate holds (predicate.c), or a breakpoint of the guest's own
 *      (breakpoints.c) stops before it;
 *   4. an instruction with a special (traps.c) at the block's start is emulated or reported;
 *   5. when a stop point, the deadline or a special lies inside the block, the engine is told to translate the same place
 *      again, with fewer instructions, so that the place is at a block's start next time.
 * So each stop is at a block's start, where the engine's state is that between two instructions. `cflags_next_tb` is the
 * engine's own way to limit the next block; leaving a hook for good is `loop_exit`, its own way to raise exceptions.
 *
 * The unit of `count` is the engine's: a repeated string instruction counts one for each iteration and one for the
 * final test of RCX; with RCX = 0 just one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { MANY_RESTARTS = 1000 }; /* two or three are usual before a block runs */
static const uint32_t TB_CLUSTER = 0xff000000; /* the engine's blocks are of no cluster */

static struct clock *clock_of_lines(struct line *lines)
{
    return (struct clock *)((char *)lines - offsetof(struct clock, lines));
}

/* Stop the engine when the hook is through, or rather, inside of a block, when it has called `restart`. */
void leave(struct clock *c, enum event event)
{
    c->event = event;
    c->engine.emu_stop(c->engine.uc);
}

/* The guest can not go on. */
void fail(struct clock *c, uint64_t failure)
{
    c->arg[0] = failure;
    leave(c, EVENT_ENGINE);
}

/* Leave the running block at once; go on (or stop, after `leave`) at EIP with a block of at most `limit` instructions. */
_Noreturn void restart(struct clock *c, unsigned limit)
{
    *c->engine.cflags_next_tb = limit ? limit : ~0u;
    c->limit = limit;
    if (++c->restarts > MANY_RESTARTS && c->event == EVENT_NONE)
        fail(c, FAILURE_STUCK);
    c->engine.loop_exit(c->engine.cpu);
    __builtin_unreachable();
}

/* From here on, each block is checked against RAM when it runs the first time. */
void new_epoch(struct clock *c)
{
    for (uint32_t i = 0; i < c->nr_used; i++)
        c->lines[c->used[i]].key = 0;
    c->nr_used = 0;
}

/* The instruction at `rip` of the running block has not retired, nor has what follows it. */
void settle(struct clock *c, uint64_t rip)
{
    const struct line *last = c->last;

    if (last && rip - last->pc < last->block->size)
        c->count -= last->icount - instructions_before(last->block, rip - last->pc);
    c->last = NULL;
}

static uint64_t current_cr3(const struct clock *c)
{
    return PAGE_BASE(c->engine.cr[3]);
}

/* Index of the first stop point at or above `vaddr`. */
static uint64_t stop_point_from(const struct clock *c, uint64_t vaddr)
{
    uint64_t low = 0, high = c->nr_stop_points;

    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (c->stop_points[middle].vaddr < vaddr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_of_this_space(const struct clock *c, const struct stop_point *point)
{
    return point->cr3 == ~(uint64_t)0 || point->cr3 == current_cr3(c);
}

/* Is there a stop point that may stop, as things are when the guest comes there? */
bool stop_point_at(const struct clock *c, uint64_t vaddr)
{
    for (uint64_t i = stop_point_from(c, vaddr); i < c->nr_stop_points && c->stop_points[i].vaddr == vaddr; i++)
        if (is_of_this_space(c, &c->stop_points[i]))
            return true;
    return false;
}

/* Is a repeated string instruction about to go on with its next iteration? */
bool is_iteration(const struct clock *c, uint64_t vaddr)
{
    return c->rep_pc == vaddr && c->rep_count == c->count;
}

/* The caller asked to pass it, or a repeated string instruction comes back to itself. */
static bool stop_point_is_skipped(const struct clock *c, uint64_t vaddr)
{
    return (c->skip_pc == vaddr && c->skip_count == c->count) || is_iteration(c, vaddr);
}

/* The guest is about to execute the instruction at `vaddr`: is it to stop before? Registers are those of a block's start. */
bool stop_point_stops(struct clock *c, uint64_t vaddr)
{
    if (stop_point_is_skipped(c, vaddr))
        return false;
    for (uint64_t i = stop_point_from(c, vaddr); i < c->nr_stop_points && c->stop_points[i].vaddr == vaddr; i++) {
        const struct stop_point *point = &c->stop_points[i];

        if (!is_of_this_space(c, point))
            continue;
        if (!point->predicate)
            return true;
        c->predicates++;
        if (predicate_holds(c, point->predicate))
            return true;
    }
    return false;
}

/* The index of the first instruction inside the block (not its first) with a stop point, or its icount. */
static unsigned first_stop_inside(const struct clock *c, uint64_t pc, const struct block *b)
{
    for (uint64_t i = stop_point_from(c, pc + 1); i < c->nr_stop_points; i++) {
        uint64_t offset = c->stop_points[i].vaddr - pc;
        if (offset >= b->size)
            break;
        unsigned index = instructions_before(b, offset);
        if (offset_of_instruction(b, index) == offset && stop_point_at(c, c->stop_points[i].vaddr))
            return index;
    }
    return b->icount;
}

/*
 * A store into the running block makes the engine drop it, go back to the store and run that alone. It shows as a block of one
 * instruction inside the previous one, whose translation is gone. Take back what the previous block did not run; was it so?
 */
bool account_self_modification(struct clock *c, uint64_t pc)
{
    struct engine *e = &c->engine;
    uint64_t into = pc - c->last->pc;
    uint32_t flags = *e->hflags | ((uint32_t)*e->eflags & 0x73100); /* as the engine keys blocks: TF IOPL RF VM AC */

    if (into >= c->last->block->size || c->last->icount == 1)
        return false;
    if (e->tb_lookup(e->cpu, c->last->pc, 0, flags, TB_CLUSTER | (uint32_t)c->last->limit))
        return false;
    settle(c, pc);
    return true;
}

/* Remember whether the block that ran last ended in an iteration of a repeated string instruction at `pc`. */
void note_rep(struct clock *c, uint64_t pc)
{
    if (c->last && c->last->block->rep && c->last->pc + c->last->block->last_offset == pc) {
        c->rep_pc = pc;
        c->rep_count = c->count;
    }
}

static void run_block(struct clock *c, struct line *line)
{
    c->last = line;
    c->restarts = 0;
    c->count += line->icount;
    if (c->count == c->deadline) {
        /* Stop after this block, without translating what follows: that might fault. */
        c->engine.emu_stop(c->engine.uc);
        *c->engine.icount_high = 0;
    }
}

static __attribute__((noinline)) void slow_block(struct clock *c, uint64_t pc, uint32_t size)
{
    if (unlikely(c->checks_alignment != !!(*c->engine.eflags & FLAG_AC))) {
        drop_translation(c, pc, size); /* made without the hook, or with it in vain */
        c->last = NULL;
        leave(c, EVENT_CHECKS);
        restart(c, 0);
    }
    if (unlikely(c->checks_sse) && end_sse_check(c))
        restart(c, 0);
    c->checks_sse = unmasks_sse(c);
    if (unlikely(wraps(c, pc)))
        restart(c, 0);
    struct block *b = block_of(c, pc, size);
    uint64_t running_limit = c->limit;
    struct line *line;
    unsigned limit;

    c->limit = 0;
    if (c->last && b->icount == 1)
        account_self_modification(c, pc);
    note_rep(c, pc);
    if (c->count >= c->deadline) {
        c->last = NULL;
        leave(c, EVENT_DEADLINE);
        restart(c, 0);
    }
    bool stops_here = c->nr_stop_points && stop_point_at(c, pc);
    if (unlikely(stops_here) && c->predicate_steps >= c->predicate_limit) {
        c->last = NULL;
        leave(c, EVENT_DEADLINE);
        restart(c, 0);
    }
    if (unlikely(stops_here) && stop_point_stops(c, pc)) {
        c->last = NULL;
        leave(c, EVENT_STOP_POINT);
        restart(c, 0);
    }
    bool breaks_here = unlikely(c->break_execute) && breakpoints_at(c, pc);
    if (unlikely(breaks_here) && breakpoint_stops(c, pc)) {
        c->last = NULL;
        restart(c, 0);
    }
    limit = c->nr_stop_points ? first_stop_inside(c, pc, b) : b->icount;
    if (unlikely(c->break_execute))
        limit = first_breakpoint_inside(c, pc, b, limit);
    if (unlikely(b->compat))
        limit = before_wrap(b, pc, limit);
    bool runs_alone = unlikely(c->checks_sse);
    if (unlikely(b->special_index < limit) && special_is_active(c, b)) {
        if (b->special_index == 0 && b->special < SPECIAL_FLAGS)
            special(c, pc, b);
        runs_alone |= b->special_index == 0;
        limit = b->special_index;
    }
    if (runs_alone)
        limit = 1;
    /* what is not is to be asked again the next time */
    bool cacheable = limit == b->icount && !running_limit && !stops_here && !breaks_here && !runs_alone;
    if (limit > c->deadline - c->count)
        limit = (unsigned)(c->deadline - c->count);
    if (limit < b->icount)
        restart(c, limit);
    if (unlikely(is_block_read_protected(c, b))) {
        c->engine.tlb_flush(c->engine.cpu);
        cacheable = false;
    }
    if (unlikely(runs_alone)) {
        if (b->special == SPECIAL_FLAGS ? loads_other_ac(c, b) : b->special == SPECIAL_MXCSR && prepare_mxcsr(c, b))
            new_epoch(c);
        if (c->checks_sse)
            begin_sse_check(c, pc);
        if (b->special == SPECIAL_FAR && b->special_index == 0)
            begin_far(c, pc, b);
    }
    line = cacheable ? &c->lines[LINE_OF(pc)] : &c->spare;
    if (cacheable && !line->key)
        c->used[c->nr_used++] = (uint32_t)LINE_OF(pc);
    line->key = KEY_OF(pc, size) ^ (b->icount == 1 ? SINGLE_KEY : 0);
    line->icount = b->icount;
    line->limit = (uint32_t)running_limit;
    line->block = b;
    line->pc = pc;
    run_block(c, line);
}

/*
 * A block that is not known as one of several instructions, or that ends at the deadline. Its parameters are those of the
 * block hook, in the same places, but for the key.
 */
static __attribute__((noinline, noclone, noipa)) void other_block(void *uc, uint64_t key, uint32_t size, struct line *lines)
{
    struct clock *c = clock_of_lines(lines);
    uint64_t pc = (uint64_t)((int64_t)key >> 16);
    struct line *line = &lines[LINE_OF(pc)];

    (void)uc;
    if (line->key == (key ^ SINGLE_KEY) && c->count + 1 < c->deadline) {
        if (c->last && c->last != line && c->last->icount != 1)
            account_self_modification(c, pc);
        run_block(c, line);
        return;
    }
    slow_block(c, pc, size);
}

/* UC_HOOK_BLOCK. Each instruction counts here: it runs for each block. */
void xdbg_block_hook(void *uc, uint64_t pc, uint32_t size, struct line *lines)
{
    struct clock *c = clock_of_lines(lines);
    struct line *line = &lines[LINE_OF(pc)];
    uint64_t key = KEY_OF(pc, size), count;

    if (unlikely(line->key != key))
        goto other;
    count = c->count + line->icount;
    if (unlikely(count >= c->deadline))
        goto other;
    c->count = count;
    c->last = line;
    return;
other:
    other_block(uc, key, size, lines);
}

/* What the block hook is to be given. */
struct line *xdbg_block_hook_data(struct clock *c)
{
    return c->lines;
}
