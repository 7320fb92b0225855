/*
 * The run loop: one entry of the guest, from `xdbg_run` to the event that ends it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "clock.h"

enum { UC_X86_REG_RFLAGS = 253, DEBUG = 1, GENERAL_PROTECTION = 13, PAGE_FAULT = 14, DR6_BS = 0x4000, HFLAG_INHIBIT_IRQ = 1 << 3 };
static const uint64_t NEVER = ~(uint64_t)0;
enum { PREDICATE_STEPS = 2000000 }; /* in one run, which then ends as at its deadline: some hundredths of a second */

/* What Python asked for since the last entry. */
static void apply_pending(struct clock *c)
{
    struct engine *e = &c->engine;

    if (c->code_pending)
        blocks_forget(c);
    if (c->cr3_pending)
        e->cr[3] = c->cr3;
    if (c->cr3_pending || c->tlb_pending)
        e->tlb_flush(e->cpu);
    c->code_pending = c->cr3_pending = c->tlb_pending = 0;
}

/* Run until an event, the deadline included; it may also come back without one, to be called again. */
static void run_to_event(struct clock *c)
{
    struct engine *e = &c->engine;
    int error;

    c->event = EVENT_NONE;
    c->last = NULL;
    c->fresh_size = 0;
    *e->old_exception = -1;
    c->limit = c->deadline - c->count == 1 || c->modified_itself; /* the store is to run in a block of its own */
    c->modified_itself = 0;
    *e->cflags_next_tb = c->limit ? 1 : ~0u;
    if (unlikely(c->checks_alignment != !!(*e->eflags & FLAG_AC)))
        check_alignment(c, !c->checks_alignment);
    c->checks_sse = unmasks_sse(c);
    c->sse_count = NEVER;
    c->far = 0;
    error = e->emu_start(e->uc, *e->eip, 0, 0, 0);
    if (error) {
        settle(c, *e->eip);
        fail(c, FAILURE_ENGINE + (uint64_t)error);
        return;
    }
    if (unlikely(c->far)) {
        end_far(c);
        return;
    }
    if (c->event != EVENT_NONE) {
        note_rep(c, *e->eip);
        return;
    }
    if (unlikely(c->checks_sse) && end_sse_check(c))
        return;
    if (unlikely(!canonical(*e->eip)) && undo_branch(c)) {
        raise_exception(c, GENERAL_PROTECTION, 0, 0, 0);
        return;
    }
    /* Stopped behind the block that ends at the deadline, unless that modified itself: then not all of it has run. */
    if (c->count >= c->deadline && c->last)
        c->modified_itself = account_self_modification(c, *e->eip);
    note_rep(c, *e->eip);
    if (c->count >= c->deadline)
        c->event = EVENT_DEADLINE;
    else if (!c->modified_itself)
        fail(c, FAILURE_STUCK);
}

/* Forget what a step over watched bytes has noted. */
static void note_nothing(struct clock *c)
{
    c->watch_first = NEVER;
    c->watch_end = 0;
    c->watch_loads = 0;
    c->watch_write = 0;
    for (uint64_t i = 0; i < c->nr_watches; i++)
        c->watches[i].hit = 0;
}

/*
 * Run the one instruction at EIP that touches a protected frame. While it faults on a page of a breakpoint that is hidden,
 * that page is shown, and it is run again: the breakpoints whose pages it came through.
 */
static uint64_t run_watched(struct clock *c)
{
    struct engine *e = &c->engine;
    uint64_t hidden = c->break_data ? hide_pages(c) : 0, through = 0, cr2 = c->cr2;
    bool reads = c->watches_read;

    for (;;) {
        uint64_t found = 0;

        note_nothing(c);
        if (reads || c->break_data)
            e->tlb_flush(e->cpu);
        c->skip_pc = c->resume_pc = *e->eip;
        c->skip_count = c->resume_count = c->count;
        c->watch_step = 1;
        run_to_event(c);
        c->watch_step = 0;
        if (hidden && c->event == EVENT_EXCEPTION && c->arg[0] == PAGE_FAULT)
            found = on_page(c, hidden, c->arg[3]);
        if (!found)
            break;
        show_pages(c, found);
        hidden &= ~found;
        through |= on_page(c, c->break_data, c->arg[3]);
        c->cr2 = cr2;
        *e->eflags &= ~(uint64_t)FLAG_RF;
    }
    show_pages(c, hidden);
    if (reads || c->break_data)
        e->tlb_flush(e->cpu);
    return through;
}

/* Which of the guest's breakpoints were hit among those that it came to through their own pages. */
static uint64_t breakpoints_hit(const struct clock *c, uint64_t through)
{
    uint64_t hit = 0;

    for (uint64_t i = 0; i < c->nr_watches; i++)
        if (c->watches[i].hit && c->watches[i].number < NR_BREAKPOINTS)
            hit |= (uint64_t)1 << c->watches[i].number;
    return hit & through;
}

/* Run the one instruction that touches a protected frame; report its watched bytes, and the guest's breakpoints among them. */
static void step_over_watched(struct clock *c)
{
    struct engine *e = &c->engine;
    uint64_t deadline = c->deadline, dr6;

    c->deadline = c->count + 1;
    dr6 = breakpoints_hit(c, run_watched(c));
    if (dr6 && c->event == EVENT_DEADLINE && c->count < deadline && *e->hflags & HFLAG_INHIBIT_IRQ) {
        /* it loaded SS: the trap waits for the instruction behind, and what that raises itself goes before and loses it */
        c->deadline++;
        run_to_event(c);
    }
    c->deadline = deadline;
    new_epoch(c); /* its stores may have been to code */
    if (c->event == EVENT_EXCEPTION && c->arg[0] == DEBUG && c->arg[3] & DR6_BS)
        dr6 |= c->arg[3];
    else if (c->event != EVENT_DEADLINE)
        return;
    if (c->watch_first != NEVER) {
        c->event = EVENT_WATCH;
        c->arg[0] = c->watch_first;
        c->arg[1] = c->watch_end - c->watch_first;
        c->arg[2] = c->watch_write;
        c->arg[3] = dr6;
    } else if (dr6) {
        raise_exception(c, DEBUG, 0, 0, dr6);
    } else if (c->count < c->deadline) {
        c->event = EVENT_NONE;
    }
}

uint64_t xdbg_run(struct clock *c)
{
    struct engine *e = &c->engine;
    uint64_t resumes, start;

    apply_pending(c);
    new_epoch(c);
    c->event = EVENT_NONE;
    c->single_count = NEVER;
    c->skip_count = c->skip_stop_point ? c->count : NEVER;
    c->predicate_limit = c->predicate_steps + PREDICATE_STEPS;
    if (c->count >= c->deadline) {
        c->event = EVENT_DEADLINE;
        return c->event;
    }
    if (unlikely(!enter_mode(c))) {
        fail(c, FAILURE_CODE_SEGMENT);
        return c->event;
    }
    c->skip_pc = *e->eip;
    resumes = *e->eflags & FLAG_RF;
    c->resume_pc = *e->eip;
    c->resume_count = resumes ? c->count : NEVER;
    *e->eflags &= ~(uint64_t)FLAG_RF;
    start = c->count;
    while (c->event == EVENT_NONE || c->event == EVENT_WATCH_HIT || c->event == EVENT_CHECKS)
        if (c->event == EVENT_WATCH_HIT)
            step_over_watched(c);
        else
            run_to_event(c);
    if (c->count == start)
        *e->eflags |= resumes;
    wraps(c, *e->eip);
    e->reg_read(e->uc, UC_X86_REG_RFLAGS, &c->rflags);
    return c->event;
}

/* Set RFLAGS: all bits. */
void xdbg_set_rflags(struct clock *c, uint64_t rflags)
{
    c->engine.reg_write(c->engine.uc, UC_X86_REG_RFLAGS, &rflags);
    c->rflags = rflags | 2;
}

/* UC_HOOK_EDGE_GENERATED: the engine has just translated a block. */
void xdbg_translation_hook(void *uc, struct translation *now, struct translation *before, struct clock *c)
{
    (void)uc;
    (void)before;
    c->translations++;
    c->fresh_pc = now->pc;
    c->fresh_size = now->size;
    c->fresh_icount = now->icount;
    struct line *line = &c->lines[LINE_OF(now->pc)];
    if (line->key)
        line->key = INVALID_KEY;
}

void xdbg_destroy(struct clock *c)
{
    blocks_destroy(c);
    munmap(c, sizeof(*c));
}

/* The clock of one engine, whose `engine` part the caller has filled; NULL without memory. */
struct clock *xdbg_create(const struct engine *engine)
{
    /* mapped, not allocated: most of it stays untouched */
    void *memory = mmap(NULL, sizeof(struct clock), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct clock *c = memory;

    if (memory == MAP_FAILED)
        return NULL;
    c->engine = *engine;
    c->rflags = 2;
    c->rdtsc_allowed = c->cpuid_allowed = 1;
    c->code_limit = ARENA;
    c->rep_count = NEVER;
    c->resume_count = NEVER;
    if (blocks_create(c))
        return c;
    xdbg_destroy(c);
    return NULL;
}
