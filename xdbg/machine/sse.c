/*
 * Exceptions of SSE arithmetic: the flags of MXCSR, and #XM. Intel SDM vol. 1, "SSE and SSE2 SIMD Floating-Point Exceptions".
 *
 * The engine's arithmetic notes what it comes across, but never shows that in MXCSR, and raises no exception. So the notes are merged
 * into MXCSR before an instruction stores it (stmxcsr, fxsave) and forgotten before one loads it. While MXCSR lets an
 * exception through (all are masked as a rule), each instruction runs alone: what it may have changed is kept before, and put
 * back when it has come across something that is let through, for #XM is a fault.
 *
 * Not seen: denormal operands (DE), tiny results that are exact.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { XM = 19, REG_XMM0 = 122, REG_RFLAGS = 253, UC_PROT_READ = 1 };
enum { IE = 1, ZE = 4, OE = 8, UE = 16, PE = 32, FLAGS = 63, MASKS = 7, FLUSHED = 128 };

/* What the arithmetic has come across since it was last asked, as flags of MXCSR. */
static uint32_t take_flags(struct clock *c)
{
    uint8_t noted = *c->engine.sse_flags;

    *c->engine.sse_flags = 0;
    return (noted & (IE | ZE | OE | UE | PE)) | (noted & FLUSHED ? UE | PE : 0u);
}

/* Show in MXCSR what has been raised. */
void merge_sse_flags(struct clock *c)
{
    *c->engine.mxcsr |= take_flags(c);
}

static bool lets_through(uint32_t mxcsr)
{
    return ~(mxcsr >> MASKS) & FLAGS;
}

/* Is any exception let through? */
bool unmasks_sse(const struct clock *c)
{
    return lets_through(*c->engine.mxcsr);
}

/* The instruction at `pc` is about to run alone. */
void begin_sse_check(struct clock *c, uint64_t pc)
{
    struct engine *e = &c->engine;

    merge_sse_flags(c);
    c->sse_pc = pc;
    c->sse_count = c->count;
    e->reg_read(e->uc, REG_RFLAGS, &c->sse_rflags);
    memcpy(c->sse_gpr, e->regs, sizeof(c->sse_gpr));
    for (int i = 0; i < 16; i++)
        e->reg_read(e->uc, REG_XMM0 + i, c->sse_xmm[i]);
}

/* The instruction of `begin_sse_check` has run: was that #XM? Then it is raised, and nothing has run. */
bool end_sse_check(struct clock *c)
{
    struct engine *e = &c->engine;
    uint32_t raised, through;

    if (!*e->sse_flags || c->count != c->sse_count + 1)
        return false;
    raised = take_flags(c);
    through = raised & ~(*e->mxcsr >> MASKS);
    if (through & (IE | ZE))
        raised &= IE | ZE; /* it has not come to the others */
    *e->mxcsr |= raised;
    if (!through)
        return false;
    memcpy(e->regs, c->sse_gpr, sizeof(c->sse_gpr));
    for (int i = 0; i < 16; i++)
        e->reg_write(e->uc, REG_XMM0 + i, c->sse_xmm[i]);
    e->reg_write(e->uc, REG_RFLAGS, &c->sse_rflags);
    *e->eip = c->sse_pc;
    c->count = c->sse_count;
    c->last = NULL;
    raise_exception(c, XM, 0, 0, 0);
    return true;
}

/*
 * The block is one instruction that loads or stores MXCSR: make MXCSR what it must find. Will it let other exceptions through than
 * now? Where it can't be read the instruction faults.
 */
bool prepare_mxcsr(struct clock *c, const struct block *b)
{
    struct engine *e = &c->engine;
    struct instruction i;
    uint64_t maddr, vaddr;
    uint32_t mxcsr;
    unsigned reg;

    decode_at(b, 0, &i);
    reg = b->bytes[i.modrm] >> 3 & 7;
    merge_sse_flags(c);
    if (reg == 0 || reg == 3)
        return false;
    vaddr = effective_address(c, b->bytes, &i) + (reg == 1 ? 24 : 0);
    if (e->vmem_translate(e->uc, vaddr, UC_PROT_READ, &maddr) || PAGE_OFFSET(maddr) > PAGE - sizeof(mxcsr) ||
        maddr + sizeof(mxcsr) > e->ram_size)
        return true;
    memcpy(&mxcsr, e->ram + maddr, sizeof(mxcsr));
    return lets_through(mxcsr) != unmasks_sse(c);
}
