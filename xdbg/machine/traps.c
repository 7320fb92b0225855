/*
 * What the guest's instructions ask for: exceptions, syscall, ports, and instructions that the engine gets wrong.
 *
 * Exceptions come through the interrupt hook with the engine's state exact, but for one: when code runs on into a page
 * that it cannot fetch, the engine faults while it translates the block, with EIP at the block's start and nothing of it
 * executed. Then the block is run one instruction at a time, and the fault comes again at the right place.
 *
 * Instructions with a special are never left to the engine: the block hook stops before them (clock.c). The engine would not
 * check the privilege of port instructions, would store for `ins` before it asks, reads the host's clock for `rdtsc`, decodes VEX
 * forms as something else, executes instructions with a LOCK prefix where that is invalid, and `syscall` in 32-bit code, takes `int1`
 * and `rdpmc` for invalid, and does not end a block with `into`.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "clock.h"

enum { DB = 1, OF = 4, UD = 6, SS = 12, GP = 13, PF = 14 };
enum { PF_FETCH = 0x10, DR6_BS = 0x4000, FLAG_OF = 0x800, REG_RFLAGS = 253 };

/* A fault (all but #DB, and `int n`, which has a length) leaves RF set: the frame of one has it. */
void raise_exception(struct clock *c, uint64_t vector, uint64_t error_code, uint64_t length, uint64_t detail)
{
    if (vector != DB && !length)
        *c->engine.eflags |= FLAG_RF;
    c->arg[0] = vector;
    c->arg[1] = error_code;
    c->arg[2] = length;
    c->arg[3] = detail;
    if (vector == PF)
        c->cr2 = detail;
    leave(c, EVENT_EXCEPTION);
}

bool canonical(uint64_t vaddr)
{
    return (uint64_t)((int64_t)(vaddr << 16) >> 16) == vaddr;
}

/* Is `rip` in the block that was entered last? Else the engine faulted between blocks. */
static bool in_last_block(const struct clock *c, uint64_t rip)
{
    return c->last && rip - c->last->pc < c->last->block->size;
}

/* The instruction at `rip` raised #GP: is it #SS on hardware? */
static bool on_stack(const struct clock *c, uint64_t rip)
{
    return in_last_block(c, rip) &&
           is_stack_fault(c, c->last->block->bytes + (rip - c->last->pc), c->last->block->size - (rip - c->last->pc));
}

/* A fetch from `rip` on, or from a later page of the block that begins there, faulted. Nothing of the block has run. */
static void fetch_fault(struct clock *c, uint64_t vector, uint64_t error_code, uint64_t detail)
{
    struct engine *e = &c->engine;
    uint64_t rip = *e->eip;

    note_rep(c, rip);
    c->last = NULL;
    if (unlikely(wraps(c, rip))) {
        return;
    } else if (c->count >= c->deadline) {
        leave(c, EVENT_DEADLINE);
    } else if (stop_point_stops(c, rip)) {
        leave(c, EVENT_STOP_POINT);
    } else if (unlikely(c->break_execute) && breakpoint_stops(c, rip)) {
        return;
    } else if (canonical(rip) && PAGE_BASE(detail) != PAGE_BASE(rip) &&
               !(c->single_pc == rip && c->single_count == c->count)) {
        c->single_pc = rip;
        c->single_count = c->count;
        c->limit = 1;
        *e->cflags_next_tb = 1;
    } else {
        raise_exception(c, vector, error_code, 0, detail);
    }
}

/* UC_HOOK_INTR */
void xdbg_interrupt_hook(void *uc, uint32_t vector, struct clock *c)
{
    struct engine *e = &c->engine;
    uint64_t rip = *e->eip, error_code = (uint32_t)*e->error_code;
    bool software = *e->exception_is_int != 0;

    (void)uc;
    *e->old_exception = -1;
    *e->exception_is_int = 0;
    *e->cflags_next_tb = ~0u;
    c->limit = 0;
    if (unlikely(c->checks_sse) && end_sse_check(c)) /* the instruction before */
        return;
    if (software) { /* it ended its block */
        uint64_t length = c->last ? c->last->block->size - c->last->block->last_offset : 0;
        c->last = NULL;
        raise_exception(c, vector, 0, length, 0);
        return;
    }
    switch (vector) {
    case DB: /* a trap: the instruction has retired */
        note_rep(c, rip);
        if (unlikely(!canonical(rip)) && undo_branch(c))
            raise_exception(c, GP, 0, 0, 0);
        else
            raise_exception(c, DB, 0, 0, e->dr[6] & 0xe00f);
        c->last = NULL;
        e->dr[6] = 0xffff0ff0;
        break;
    case PF:
        if (error_code & PF_FETCH) {
            fetch_fault(c, PF, error_code, e->cr[2]);
        } else {
            settle(c, rip);
            raise_exception(c, PF, error_code, 0, e->cr[2]);
        }
        break;
    case GP:
        /* the engine's #GP for a fetch says nothing of the address; a block can only run into the end of the low half */
        if (!canonical(rip) && undo_branch(c)) {
            raise_exception(c, GP, 0, 0, 0);
            break;
        }
        if (!canonical(rip) || (PAGE_BASE(rip) == 0x7ffffffff000 && !in_last_block(c, rip))) {
            fetch_fault(c, GP, error_code, (uint64_t)1 << 47);
            break;
        }
        vector = !error_code && on_stack(c, rip) ? SS : GP;
        settle(c, rip);
        raise_exception(c, vector, error_code, 0, 0);
        break;
    default:
        settle(c, rip);
        raise_exception(c, vector, vector == 8 || (vector >= 10 && vector <= 14) ? error_code : 0, 0, 0);
        break;
    }
}

/* UC_HOOK_INSN_INVALID: #UD */
bool xdbg_invalid_hook(void *uc, struct clock *c)
{
    (void)uc;
    *c->engine.old_exception = -1;
    *c->engine.cflags_next_tb = ~0u;
    c->limit = 0;
    if (likely(!c->checks_sse) || !end_sse_check(c)) {
        settle(c, *c->engine.eip);
        raise_exception(c, UD, 0, 0, 0);
    }
    return true;
}

/* UC_HOOK_INSN, syscall. Left at once: the engine would look at TF on its way. */
void xdbg_syscall_hook(void *uc, struct clock *c)
{
    (void)uc;
    if (c->last)
        *c->engine.eip = c->last->pc + c->last->block->size;
    c->last = NULL;
    leave(c, EVENT_SYSCALL);
    restart(c, 0);
}

/* UC_HOOK_MEM_READ_UNMAPPED, _WRITE_UNMAPPED and _FETCH_UNMAPPED: a page table names memory that there is not. */
bool xdbg_outside_hook(void *uc, int type, uint64_t maddr, int size, int64_t value, struct clock *c)
{
    (void)uc;
    (void)type;
    (void)maddr;
    (void)size;
    (void)value;
    settle(c, *c->engine.eip);
    fail(c, FAILURE_OUTSIDE_RAM);
    restart(c, 0);
}

/* UC_HOOK_INSN, in and ins with I/O allowed: no device answers. */
uint32_t xdbg_in_hook(void *uc, uint32_t port, int size, struct clock *c)
{
    (void)uc;
    (void)port;
    (void)c;
    return size == 4 ? ~0u : (1u << 8 * size) - 1;
}

/* Does the first special instruction of the block need us, as things are? */
bool special_is_active(const struct clock *c, const struct block *block)
{
    return block->special != SPECIAL_IO || !c->io_allowed;
}

/* The instruction at `pc`, of `length` bytes, has been emulated. */
static void retire(struct clock *c, uint64_t pc, unsigned length)
{
    struct engine *e = &c->engine;

    *e->eip = pc + length;
    c->count++;
    c->restarts = 0;
    if (*e->eflags & FLAG_TF)
        raise_exception(c, DB, 0, 0, DR6_BS);
    else if (c->count >= c->deadline)
        leave(c, EVENT_DEADLINE);
}

/* The block that is about to run begins with a special instruction: it is not to run. */
_Noreturn void special(struct clock *c, uint64_t pc, const struct block *block)
{
    struct engine *e = &c->engine;
    struct instruction instruction;
    uint64_t tsc = c->count + c->tsc_offset, rflags;

    decode_at(block, 0, &instruction);
    c->last = NULL;
    switch (instruction.special) {
    case SPECIAL_CPUID:
        if (!c->cpuid_allowed) {
            raise_exception(c, GP, 0, 0, 0);
            break;
        }
        c->arg[0] = instruction.length;
        leave(c, EVENT_CPUID);
        break;
    case SPECIAL_RDTSC:
    case SPECIAL_RDTSCP:
        if (!c->rdtsc_allowed) {
            raise_exception(c, GP, 0, 0, 0);
            break;
        }
        e->regs[RAX] = (uint32_t)tsc;
        e->regs[RDX] = tsc >> 32;
        if (instruction.special == SPECIAL_RDTSCP)
            e->regs[RCX] = (uint32_t)c->tsc_aux;
        retire(c, pc, instruction.length);
        break;
    case SPECIAL_IO:
        c->arg[0] = instruction.io_immediate ? instruction.io_port : (uint16_t)e->regs[RDX];
        c->arg[1] = instruction.io_size;
        c->arg[2] = instruction.io_write;
        *e->eflags |= FLAG_RF; /* it will be a #GP */
        leave(c, EVENT_IO);
        break;
    case SPECIAL_RDPMC:
        raise_exception(c, GP, 0, 0, 0);
        break;
    case SPECIAL_ICEBP: /* a trap */
        *e->eip = pc + instruction.length;
        c->count++;
        raise_exception(c, DB, 0, 0, 0);
        break;
    case SPECIAL_INTO: /* an `int 4`, if there was an overflow */
        e->reg_read(e->uc, REG_RFLAGS, &rflags);
        if (!(rflags & FLAG_OF)) {
            retire(c, pc, instruction.length);
            break;
        }
        *e->eip = pc + instruction.length;
        c->count++;
        raise_exception(c, OF, 0, instruction.length, 0);
        break;
    case SPECIAL_SYSENTER:
        leave(c, EVENT_SYSENTER);
        break;
    default:
        raise_exception(c, UD, 0, 0, 0);
        break;
    }
    restart(c, 0);
}
