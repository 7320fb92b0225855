/*
 * 64-bit mode and compatibility mode: what the engine runs follows from the descriptor behind CS, as the hypervisor or the guest
 * itself loaded it. Intel SDM vol. 3, "IA-32e Mode Code Segment Descriptor".
 *
 * 32-bit code is run in flat segments only, of all 4 GiB from 0: the engine has no limits, and its addresses of code would not be
 * virtual addresses. Bases of DS, ES, SS, FS and GS count.
 *
 * A far transfer of the guest's runs alone, and the engine stops behind it, whatever comes next: within one run of the engine code is of
 * one mode, so that what is known of a virtual address holds. A transfer to 32-bit code beyond 4 GiB is the transfer's own #GP, which
 * the engine does not raise: it is taken back then. An `iret` of 32-bit code whose flags have VM, which the processor ignores, the
 * engine takes for the way to virtual-8086 mode: the guest can not go on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { SEGMENTS_OFFSET = 184, REG_RFLAGS = 253, GP = 13 };
enum { HFLAG_CS32 = 1 << 4, HFLAG_SS32 = 1 << 5, HFLAG_ADDSEG = 1 << 6, HFLAG_CS64 = 1 << 15 };
enum { MODE = HFLAG_CS32 | HFLAG_SS32 | HFLAG_ADDSEG | HFLAG_CS64 };
enum { FLAG_VM = 1 << 17, IRET = 0xcf, UC_PROT_READ = 1 };
enum { DESCRIPTOR_LONG = 1 << 21, DESCRIPTOR_DB = 1 << 22 };

/* The segment registers, in the order of instruction encodings. */
struct segment *segments(const struct clock *c)
{
    return (struct segment *)((uint8_t *)c->engine.regs + SEGMENTS_OFFSET);
}

/* Is it in 32-bit code that the engine runs? */
bool is_compat(const struct clock *c)
{
    return !(*c->engine.hflags & HFLAG_CS64);
}

/* Make the engine's mode that of CS. Can it run such code? */
bool enter_mode(struct clock *c)
{
    struct engine *e = &c->engine;
    struct segment *s = segments(c);
    uint32_t mode = HFLAG_CS64 | HFLAG_CS32 | HFLAG_SS32;

    if (likely(s[SEG_CS].flags & DESCRIPTOR_LONG)) {
        s[SEG_CS].base = 0;
    } else {
        if (!(s[SEG_CS].flags & DESCRIPTOR_DB) || s[SEG_CS].base || s[SEG_CS].limit != ~0u)
            return false;
        mode = HFLAG_CS32;
        if (s[SEG_SS].flags & DESCRIPTOR_DB)
            mode |= HFLAG_SS32;
        if (s[SEG_DS].base || s[SEG_ES].base || s[SEG_SS].base)
            mode |= HFLAG_ADDSEG;
        *e->eip = (uint32_t)*e->eip;
    }
    *e->hflags = (*e->hflags & ~(uint32_t)MODE) | mode;
    return true;
}

/* Has 32-bit code run on to `pc` over the end of the 4 GiB? Then it goes on at the beginning, which the engine does not know. */
bool wraps(struct clock *c, uint64_t pc)
{
    if (!is_compat(c) || !(pc >> 32))
        return false;
    *c->engine.eip = (uint32_t)pc;
    c->last = NULL;
    return true;
}

/* How many instructions of the block, at most `limit`, begin before the end of the 4 GiB. */
unsigned before_wrap(const struct block *b, uint64_t pc, unsigned limit)
{
    uint64_t left = ((uint64_t)1 << 32) - pc;
    unsigned whole = left < b->size ? instructions_before(b, left) : limit;

    return whole < limit ? whole : limit;
}

/* Is the far transfer an iret of 32-bit code that loads VM? */
static bool loads_vm(const struct clock *c, const struct block *b)
{
    const struct engine *e = &c->engine;
    struct instruction i;
    uint64_t maddr;
    uint32_t flags;

    decode_at(b, 0, &i);
    if (!i.compat || i.opcode != IRET || i.prefix == 0x66)
        return false;
    if (e->vmem_translate(e->uc, (uint32_t)(e->regs[RSP] + 8 + segments(c)[SEG_SS].base), UC_PROT_READ, &maddr) ||
        PAGE_OFFSET(maddr) > PAGE - sizeof(flags) || maddr + sizeof(flags) > e->ram_size)
        return false;
    memcpy(&flags, e->ram + maddr, sizeof(flags));
    return flags & FLAG_VM;
}

/* The block that is about to run is a far transfer at `pc`. */
void begin_far(struct clock *c, uint64_t pc, const struct block *b)
{
    struct engine *e = &c->engine;

    if (loads_vm(c, b)) {
        c->last = NULL;
        fail(c, FAILURE_VM86);
        restart(c, 0);
    }
    c->far = 1;
    c->far_pc = pc;
    c->far_count = c->count;
    c->far_rsp = e->regs[RSP];
    e->reg_read(e->uc, REG_RFLAGS, &c->far_rflags);
    memcpy(c->far_segments, segments(c), sizeof(c->far_segments));
    e->emu_stop(e->uc);
    *e->icount_high = 0;
}

/* The transfer has not been. */
static void take_back(struct clock *c)
{
    struct engine *e = &c->engine;

    *e->eip = c->far_pc;
    e->regs[RSP] = c->far_rsp;
    memcpy(segments(c), c->far_segments, sizeof(c->far_segments));
    e->reg_write(e->uc, REG_RFLAGS, &c->far_rflags);
    enter_mode(c);
    c->count = c->far_count;
}

/* The engine has stopped behind the transfer, or at it, when it has faulted. */
void end_far(struct clock *c)
{
    struct engine *e = &c->engine;

    c->far = 0;
    c->last = NULL;
    new_epoch(c);
    if (is_compat(c) && *e->eip >> 32) {
        take_back(c);
        raise_exception(c, GP, 0, 0, 0);
        return;
    }
    if (c->event != EVENT_NONE)
        return;
    if (c->count >= c->deadline)
        c->event = EVENT_DEADLINE;
    else if (!enter_mode(c))
        fail(c, FAILURE_CODE_SEGMENT);
}
