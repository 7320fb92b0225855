/*
 * The CPU's state as bytes: the FXSAVE image, and all that a vcpu owns. Intel SDM vol. 1, "FXSAVE Area".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum {
    REG_FPSW = 31,
    REG_ST0 = 114,
    REG_XMM0 = 122,
    REG_FPCW = 246,
    REG_FPTAG = 247,
    REG_MXCSR = 249,
    REG_RFLAGS = 253,
    REG_FIP = 254,
    REG_FDP = 256,
    REG_FOP = 258,
};
enum { HFLAG_TS = 1 << 11, HFLAG_INHIBIT_IRQ = 1 << 3, CR0_TS = 8 };
static const uint32_t MXCSR_MASK = 0xffff;

struct fxsave {
    uint16_t control, status;
    uint8_t tags, reserved;
    uint16_t opcode;
    uint64_t instruction, operand;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rest[96];
};

/* What `Cpu.save` returns, in this order; Python unpacks the words before `fx`. */
struct state {
    uint64_t gpr[16];
    uint64_t rip, rflags, cr2, cr0_ts;
    struct segment segments[SEGMENTS];
    struct fxsave fx;
};

void xdbg_read_fpu(struct clock *c, struct fxsave *fx)
{
    struct engine *e = &c->engine;
    uint16_t tags = 0;

    memset(fx, 0, sizeof(*fx));
    e->reg_read(e->uc, REG_FPCW, &fx->control);
    e->reg_read(e->uc, REG_FPSW, &fx->status);
    e->reg_read(e->uc, REG_FPTAG, &tags);
    for (int i = 0; i < 8; i++)
        if ((tags >> 2 * i & 3) != 3)
            fx->tags |= (uint8_t)(1 << i);
    e->reg_read(e->uc, REG_FOP, &fx->opcode);
    e->reg_read(e->uc, REG_FIP, &fx->instruction);
    e->reg_read(e->uc, REG_FDP, &fx->operand);
    merge_sse_flags(c);
    e->reg_read(e->uc, REG_MXCSR, &fx->mxcsr);
    fx->mxcsr_mask = MXCSR_MASK;
    for (int i = 0; i < 8; i++)
        e->reg_read(e->uc, REG_ST0 + i, fx->st[i]);
    for (int i = 0; i < 16; i++)
        e->reg_read(e->uc, REG_XMM0 + i, fx->xmm[i]);
}

void xdbg_write_fpu(struct clock *c, const struct fxsave *fx)
{
    struct engine *e = &c->engine;
    uint16_t tags = 0;
    uint32_t mxcsr = fx->mxcsr & MXCSR_MASK;

    for (int i = 0; i < 8; i++)
        if (!(fx->tags >> i & 1))
            tags |= (uint16_t)(3 << 2 * i);
    e->reg_write(e->uc, REG_FPCW, &fx->control);
    e->reg_write(e->uc, REG_FPSW, &fx->status); /* sets the top of stack, which numbers the st */
    e->reg_write(e->uc, REG_FPTAG, &tags);
    e->reg_write(e->uc, REG_FOP, &fx->opcode);
    e->reg_write(e->uc, REG_FIP, &fx->instruction);
    e->reg_write(e->uc, REG_FDP, &fx->operand);
    merge_sse_flags(c);
    e->reg_write(e->uc, REG_MXCSR, &mxcsr);
    for (int i = 0; i < 8; i++)
        e->reg_write(e->uc, REG_ST0 + i, fx->st[i]);
    for (int i = 0; i < 16; i++)
        e->reg_write(e->uc, REG_XMM0 + i, fx->xmm[i]);
}

void xdbg_set_cr0_ts(struct clock *c, int set)
{
    if (set) {
        c->engine.cr[0] |= CR0_TS;
        *c->engine.hflags |= HFLAG_TS;
    } else {
        c->engine.cr[0] &= ~(uint64_t)CR0_TS;
        *c->engine.hflags &= ~(uint32_t)HFLAG_TS;
    }
}

void xdbg_save(struct clock *c, struct state *s)
{
    struct engine *e = &c->engine;

    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, e->regs, sizeof(s->gpr));
    s->rip = *e->eip;
    e->reg_read(e->uc, REG_RFLAGS, &s->rflags);
    s->cr2 = c->cr2;
    s->cr0_ts = (e->cr[0] & CR0_TS) != 0;
    for (int i = 0; i < SEGMENTS; i++) {
        s->segments[i].selector = segments(c)[i].selector;
        s->segments[i].base = segments(c)[i].base;
        s->segments[i].limit = segments(c)[i].limit;
        s->segments[i].flags = segments(c)[i].flags;
    }
    xdbg_read_fpu(c, &s->fx);
}

void xdbg_load(struct clock *c, const struct state *s)
{
    struct engine *e = &c->engine;

    memcpy(e->regs, s->gpr, sizeof(s->gpr));
    *e->eip = s->rip;
    e->reg_write(e->uc, REG_RFLAGS, &s->rflags);
    c->rflags = s->rflags;
    c->cr2 = s->cr2;
    xdbg_set_cr0_ts(c, s->cr0_ts != 0);
    memcpy(segments(c), s->segments, sizeof(s->segments));
    xdbg_write_fpu(c, &s->fx);
    *e->hflags &= ~(uint32_t)HFLAG_INHIBIT_IRQ;
    c->rep_count = ~(uint64_t)0;
}

uint64_t xdbg_copy_changed_pages(uint8_t *destination, const uint8_t *source, uint64_t size)
{
    uint64_t copied = 0;

    for (uint64_t at = 0; at < size; at += PAGE)
        if (memcmp(destination + at, source + at, PAGE)) {
            memcpy(destination + at, source + at, PAGE);
            copied++;
        }
    return copied;
}
